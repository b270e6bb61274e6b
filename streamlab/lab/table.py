"""Small result tables: the few rows that a lesson talks about, as HTML and as plain text.

A table is for reading: at most a screen of rows, numbers on the right, times in UTC, and what was
cut off is said. Whoever wants to work with the data keeps the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from html import escape
from typing import Any

from streamlab.errors import LessonError
from streamlab.lab.live import Rendered

__all__ = ["Column", "cell_text", "render"]

LIMIT = 20
"""Rows shown when nothing else is asked for."""

WIDTH = 60
"""Characters of one cell in plain text and HTML; a longer one is cut, with an ellipsis."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and how its value is taken from a row."""

    heading: str
    value: Callable[[Any], Any]


def render(
    rows: Iterable[Any],
    *headings: str,
    caption: str = "",
    limit: int = LIMIT,
    **computed: Callable[[Any], Any],
) -> Rendered:
    """A table of rows.

    Parameters
    ----------
    rows : iterable
        Mappings, dataclass instances or other objects, tuples, or a data frame of Polars or pandas.
    *headings : str
        Which columns, in which order. ``"commit LSN"`` shows the key of that name, or the attribute
        ``commit_lsn``; of tuples, headings name the positions. Without headings, every column is shown.
    caption : str
        A line above the table.
    limit : int
        Most rows shown; how many more there are is said below.
    **computed : callable
        Further columns: the name (with ``_`` for a space) is the heading, the function gets the row.

    Raises
    ------
    LessonError
        A row has no such key or attribute.
    """
    data = _rows(rows)
    columns = _columns(data, headings, computed)
    shown = data[:limit]
    values = [[column.value(row) for column in columns] for row in shown]
    cells = [[cell_text(value) for value in line] for line in values]
    numeric = [
        any(_is_number(line[i]) for line in values) and all(_is_number(line[i]) or line[i] is None for line in values)
        for i in range(len(columns))
    ]
    more = f"\u2026 and {len(data) - limit} more" if len(data) > limit else "" if data else "no rows"
    names = [column.heading for column in columns]
    return Rendered(_as_text(names, cells, numeric, caption, more), _as_html(names, cells, numeric, caption, more))


def _rows(rows: Any) -> list[Any]:
    if callable(getattr(rows, "to_dicts", None)):  # Polars
        return list(rows.to_dicts())
    if hasattr(rows, "columns") and callable(getattr(rows, "to_dict", None)):  # pandas
        return list(rows.to_dict("records"))
    if isinstance(rows, Mapping):
        return list(rows.items())
    return list(rows)


def _columns(
    data: Sequence[Any], headings: Sequence[str], computed: Mapping[str, Callable[[Any], Any]]
) -> list[Column]:
    sample = data[0] if data else None
    plain = not isinstance(sample, Mapping) and isinstance(sample, tuple | list) and not hasattr(sample, "_fields")
    if plain:
        width = max(len(row) for row in data)
        names: Sequence[str] = headings or [f"column {i + 1}" for i in range(width)]
        found = [Column(name, _position(i)) for i, name in enumerate(names)]
    else:
        found = [Column(name.replace("_", " "), _named(name)) for name in (headings or _names(sample))]
    return [*found, *(Column(name.replace("_", " "), function) for name, function in computed.items())]


def _names(sample: Any) -> list[str]:
    if sample is None:
        return []
    if isinstance(sample, Mapping):
        return [str(key) for key in sample]
    if is_dataclass(sample):
        return [field.name for field in fields(sample) if not field.name.startswith("_")]
    if hasattr(sample, "_fields"):
        return list(sample._fields)
    return ["value"]


def _position(index: int) -> Callable[[Any], Any]:
    return lambda row: row[index] if index < len(row) else None


def _named(name: str) -> Callable[[Any], Any]:
    # "commit LSN" and "commit_lsn" are the same thing, once for people and once for Python.
    spellings = dict.fromkeys((name, name.replace(" ", "_"), name.replace(" ", "_").lower()))

    def value(row: Any) -> Any:
        for spelling in spellings:
            if isinstance(row, Mapping):
                if spelling in row:
                    return row[spelling]
            elif hasattr(row, spelling):
                return getattr(row, spelling)
        if name == "value":
            return row
        raise LessonError(
            f"A {type(row).__name__} has nothing called {name!r} to show.",
            f"Known: {', '.join(_names(row)) or 'no fields'}.",
        )

    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def cell_text(value: Any) -> str:
    """A value as a table shows it: times in UTC to the millisecond, floats to three digits, ``null`` for None."""
    match value:
        case None:
            text = "null"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = _number(value)
        case datetime() if value.tzinfo is not None:
            # Rounding could name another second; cutting cannot.
            text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
        case timedelta():
            text = _number(value.total_seconds()) + " s"
        case Enum():
            text = value.name.lower()
        case bytes():
            text = value.hex(" ") if len(value) <= 16 else f"{len(value)} bytes"
        case _:
            text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "\u2026"


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _as_text(
    names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], caption: str, more: str
) -> str:
    widths = [max([len(name), *(len(line[i]) for line in cells)]) for i, name in enumerate(names)]

    def row(line: Sequence[str]) -> str:
        parts = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        return "  ".join(parts).rstrip()

    rule = "  ".join("\u2500" * width for width in widths)
    body = [row(names), rule, *(row(line) for line in cells)] if names else []
    return "\n".join([*([caption] if caption else []), *body, *([more] if more else [])])


# Jupyter's own rules for tables name two classes; only a selector with more of them is stronger.
_TABLE = "table.sl-table.sl-table.sl-table"
_STYLE = (
    ".sl-wide{overflow-x:auto;max-width:100%}"
    f"{_TABLE}{{border-collapse:collapse;margin:.35em 0;font-size:inherit;line-height:1.4;width:auto}}"
    f"{_TABLE} caption{{caption-side:top;text-align:left;padding:.2em 0;opacity:.82}}"
    f"{_TABLE} th,{_TABLE} td{{padding:.22em .9em .22em 0;text-align:left;border:0;background:none;"
    "vertical-align:top;white-space:nowrap;font-variant-numeric:tabular-nums}"
    f"{_TABLE} thead th{{border-bottom:1.5px solid rgba(128,140,152,.75);font-weight:600}}"
    f"{_TABLE} tbody tr{{background:none}}{_TABLE} tbody td{{border-bottom:1px solid rgba(128,140,152,.28)}}"
    f"{_TABLE} .sl-r{{text-align:right}}{_TABLE} tfoot td{{opacity:.82}}"
)


def _as_html(
    names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], caption: str, more: str
) -> str:
    css = [' class="sl-r"' if right else "" for right in numeric]
    head = "".join(f'<th scope="col"{c}>{escape(name)}</th>' for name, c in zip(names, css, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{escape(text)}</td>" for text, c in zip(line, css, strict=True)) + "</tr>"
        for line in cells
    )
    top = f"<caption>{escape(caption)}</caption>" if caption else ""
    foot = f'<tfoot><tr><td colspan="{max(1, len(names))}">{escape(more)}</td></tr></tfoot>' if more else ""
    return (
        f'<style>{_STYLE}</style><div class="sl-wide"><table class="sl-table">{top}'
        f"{f'<thead><tr>{head}</tr></thead>' if names else ''}<tbody>{body}</tbody>{foot}</table></div>"
    )
