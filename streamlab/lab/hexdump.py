"""A message as annotated bytes: each field with its place, its bytes, its name and what they mean.

Which kind a field is shows in a mark and an underline of its own, beside the colour; the plain text has the marks too.
"""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import Final

from streamlab.cdc.anatomy import Dissection
from streamlab.cdc.messages import Meaning
from streamlab.cdc.spans import Span
from streamlab.lab.live import Rendered

__all__ = ["LIMIT", "render"]

LIMIT: Final = 64
"""Bytes of one field that are shown when nothing else is asked for."""

_LINE = 8  # bytes in a line of plain text

# Class -> (mark, what it stands for, underline, colour). The colours keep 3:1 on white and on near-black.
_LOOKS: Final = {
    "letter": ("\u25a0", "letter or flags", "solid", "#7d8792"),
    "lsn": ("\u25c6", "position in the log", "double", "#1b7fc4"),
    "time": ("\u25cf", "time", "dotted", "#2f8f6b"),
    "number": ("#", "number", "dashed", "#8a6fc0"),
    "string": ("\u00b6", "string, ended by 00", "wavy", "#a87a1c"),
    "value": ("\u25b2", "value of a row or message", "solid", "#1b7fc4"),
    "fault": ("\u2717", "cannot be read", "wavy", "#c8642a"),
}
_CLASSES: Final = {
    Meaning.LETTER: "letter", Meaning.FLAG: "letter", Meaning.FLAGS: "letter", Meaning.LSN: "lsn",
    Meaning.TIME: "time", Meaning.STRING: "string", Meaning.VALUE: "value",
}  # fmt: skip


def render(dissection: Dissection, *, heading: str = "", limit: int = LIMIT) -> Rendered:
    """The annotated bytes of one message.

    Parameters
    ----------
    dissection : Dissection
        The message, taken apart.
    heading : str
        What stands above it; by default its kind, table and size.
    limit : int
        Bytes of one field that are shown; how many more there are is said.
    """
    size = len(dissection.message)
    parts = (heading, dissection.kind, dissection.table, f"{size:,} byte{'' if size == 1 else 's'}")
    title = " \u00b7 ".join(part for part in parts if part)
    fault = f"\u2717 {dissection.fault}" if dissection.fault else ""
    groups = [(name, list(spans)) for name, spans in groupby(dissection.spans, key=lambda span: span.group)]
    return Rendered(_text(dissection, groups, title, fault, limit), _html(dissection, groups, title, fault, limit))


def _class(span: Span) -> str:
    return "fault" if span.meaning is None else _CLASSES.get(span.meaning, "number")


def _cut(message: bytes, span: Span, limit: int) -> tuple[bytes, int]:
    """The bytes of a field that are shown, and how many are not."""
    data = message[span.start : min(span.end, span.start + limit)]
    return data, span.end - span.start - len(data)


def _ascii(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def _text(dissection: Dissection, groups: list[tuple[str, list[Span]]], title: str, fault: str, limit: int) -> str:
    names = [span.name for span in dissection.spans]
    width = min(24, max(map(len, names), default=0))
    lines = [title]
    for group, spans in groups:
        lines.append(f"  {group}")
        for span in spans:
            data, more = _cut(dissection.message, span, limit)
            mark = _LOOKS[_class(span)][0]
            for at in range(0, max(len(data), 1), _LINE):
                piece = data[at : at + _LINE]
                line = f"  {mark if at == 0 else ' '} {span.start + at:04x}  {piece.hex(' '):<{3 * _LINE - 1}}  "
                line += f"{_ascii(piece):<{_LINE}}"
                lines.append((f"{line}  {span.name:<{width}}  {span.shown}" if at == 0 else line).rstrip())
            if more:
                lines.append(f"          \u2026 {more:,} more bytes")
    return "\n".join([*lines, *([fault] if fault else [])])


_TABLE = "table.sl-hex.sl-hex.sl-hex"
_STYLE = (
    ".sl-hexbox{max-width:100%;margin:.35em 0;line-height:1.45}.sl-hexbox>p{margin:.2em 0}"
    # No <code>: Jupyter's pages give it a background of their own.
    ".sl-hexbox .sl-b{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.93em}"
    ".sl-strip{line-height:2.1;padding:.3em .6em;border:1px solid rgba(128,140,152,.4);border-radius:6px;"
    "overflow-wrap:anywhere}"
    ".sl-strip .sl-b{white-space:normal;margin-right:.5em;text-decoration-line:underline;text-decoration-thickness:2px;"
    "text-underline-offset:4px}.sl-strip .sl-b.sl-whole{white-space:nowrap}"
    ".sl-strip sup{font-size:.62em;opacity:.8;text-decoration:none;margin-right:.15em}"
    + "".join(
        f".sl-strip .sl-{name}{{text-decoration-style:{line};text-decoration-color:{colour}}}"
        f".sl-m-{name}{{color:{colour}}}"
        for name, (_, _, line, colour) in _LOOKS.items()
    )
    + f"{_TABLE}{{border-collapse:collapse;margin:.4em 0;font-size:inherit;width:auto}}"
    f"{_TABLE} th,{_TABLE} td{{text-align:left;vertical-align:top;padding:.12em .9em .12em 0;border:0;background:none}}"
    f"{_TABLE} thead th{{border-bottom:1.5px solid rgba(128,140,152,.75);font-weight:600}}"
    f"{_TABLE} tbody th{{padding-top:.5em;font-weight:600}}{_TABLE} tbody tr{{background:none}}"
    f"{_TABLE} tbody td{{border-bottom:1px solid rgba(128,140,152,.22);font-variant-numeric:tabular-nums}}"
    f"{_TABLE} td.sl-bytes{{max-width:26em}}{_TABLE} td.sl-field{{white-space:nowrap}}"
    f"{_TABLE} td.sl-shown{{overflow-wrap:anywhere;max-width:34em}}"
    ".sl-hexbox small{opacity:.82;margin-right:1.1em;white-space:nowrap}"
)


def _html(dissection: Dissection, groups: list[tuple[str, list[Span]]], title: str, fault: str, limit: int) -> str:
    strip, rows, number = [], [], 0
    for group, spans in groups:
        rows.append(f'<tr><th colspan="6" scope="rowgroup">{escape(group)}</th></tr>')
        for span in spans:
            number += 1
            data, more = _cut(dissection.message, span, limit)
            shown = data.hex(" ") + (f" \u2026 {more:,} more" if more else "")
            name = _class(span)
            whole = " sl-whole" if len(data) <= 8 else ""
            strip.append(f'<span class="sl-b sl-{name}{whole}"><sup>{number}</sup>{shown}</span>')
            rows.append(
                f'<tr><td>{number}</td><td><b class="sl-m-{name}" title="{_LOOKS[name][1]}">{_LOOKS[name][0]}</b></td>'
                f'<td class="sl-b">{span.start:04x}</td><td class="sl-b sl-bytes">{shown}</td>'
                f'<td class="sl-field">{escape(span.name)}</td>'
                f'<td class="sl-shown">{escape(_words(span.shown, limit))}</td></tr>'
            )
    used = dict.fromkeys(_class(span) for span in dissection.spans)
    legend = "".join(
        f'<small><b class="sl-m-{name}" aria-hidden="true">{_LOOKS[name][0]}</b> {_LOOKS[name][1]}</small>'
        for name in _LOOKS
        if name in used
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("#", "kind", "at", "bytes", "field", "value"))
    return (
        f'<style>{_STYLE}</style><div class="sl-hexbox"><p><b>{escape(title)}</b></p>'
        + (f'<p role="alert"><b class="sl-m-fault">\u2717</b> {escape(fault[2:])}</p>' if fault else "")
        + f'<div class="sl-strip" role="img" aria-label="The bytes; the table below has them field by field">'
        f"{' '.join(strip)}</div><p>{legend}</p>"
        f'<div style="overflow-x:auto"><table class="sl-hex"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _words(shown: str, limit: int) -> str:
    most = max(80, 4 * limit)
    return shown if len(shown) <= most else shown[: most - 1] + "\u2026"
