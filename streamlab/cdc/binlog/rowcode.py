"""Row decoders, generated for each table map: straight-line code instead of a loop over columns.

A Rows event holds any number of rows: for each a bitmap of what is NULL, and the values of the other columns, one
behind the other. An update has two of these for each row, before and after. What a column's bytes become is known when
the table is; so a function is written, compiled and kept for each table and kind of change. Columns of a fixed size
that stand side by side are unpacked by one call, together with the length of the value behind them; a row without any
NULL, the most common kind, is read without asking for each column. Rows of one event come from one statement, so their
times are often the same, and in an update most values are: one that takes long to make is made once for the same bytes.

The generated code takes the common road. Whatever it trips over (a date of zeros, a text that is none, a cut event) is
read again by `_Rows.read`, a loop that checks every bound, and either finds the value that the policy of
`streamlab.cdc.binlog.values` gives or raises `ProtocolError`.

Names of columns and tables enter the code only as `repr` of a string, which is always one literal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from streamlab.cdc.binlog.events import BODY, Event, malformed
from streamlab.cdc.binlog.table_map import Table
from streamlab.cdc.binlog.values import Codec, careful_reader, codec
from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.wire import MALFORMED
from streamlab.errors import CannotCapture, ProtocolError

__all__ = ["KINDS", "RowsDecoder", "row_decoder"]

RowsDecoder = Callable[[bytes, int, datetime, str, Any, list[ChangeEvent], int], None]
"""(packet, end of the body, commit time, transaction id, position, events to which rows are added, first ordinal)."""

KINDS = {
    Event.WRITE_ROWS: (Operation.INSERT, False, True),
    Event.UPDATE_ROWS: (Operation.UPDATE, True, True),
    Event.DELETE_ROWS: (Operation.DELETE, True, False),
}
"""Type of event -> operation, whether there is an old row, whether there is a new one."""

_PREFIXES = {1: "B", 2: "H", 3: "HB", 4: "I"}


def row_decoder(table: Table, kind: Event, charsets: Mapping[int, str]) -> RowsDecoder:
    """Write and compile the decoder of one kind of change of one table.

    Raises
    ------
    ValueError
        A column is of no type that is known.
    """
    operation, old, new = KINDS[kind]
    codecs = [codec(column, index, charsets) for index, column in enumerate(table.columns)]
    rows = _Rows(table, kind, codecs)
    names: dict[str, Any] = {
        "make": tuple.__new__, "ChangeEvent": ChangeEvent, "OPERATION": operation, "KEY": table.key, "NOTHING": NOTHING,
        "MALFORMED": MALFORMED, "HEADS": rows.heads, "slow": rows.read, "little": int.from_bytes,
    }  # fmt: skip
    for each in codecs:
        names.update(each.names)
    row = f"OPERATION, {table.schema!r}, {table.name!r}, {{}}, {{}}, time, xid, position, n, KEY"
    lines = [
        "def decode(d, end, time, xid, position, events, n):",
        " first, start = len(events), n",
        " add = events.append",
        " try:",
        f"  p = {BODY + 8} + d[{BODY + 8}] + (d[{BODY + 9}] << 8)",
        f"  if d[p:p + {len(rows.head)}] not in HEADS: raise ValueError",
        f"  p += {len(rows.head)}",
        *(f"  q{index} = None" for index, each in enumerate(codecs) if each.repeats),
        "  while p < end:",
        *(_row("o", codecs, names) if old else ()),
        *(_row("v", codecs, names) if new else ()),
        f"   add(make(ChangeEvent, ({row.format(_data(table, 'o', there=old), _data(table, 'v', there=new))})))",
        "   n += 1",
        "  if p != end or n == start: raise ValueError",
        " except MALFORMED:",
        "  del events[first:]",
        "  slow(d, end, time, xid, position, events, start)",
    ]
    exec(compile("\n".join(lines), f"<rows of {table!s}>", "exec"), names)  # noqa: S102 - see above
    made: RowsDecoder = names["decode"]
    return made


def _data(table: Table, prefix: str, *, there: bool) -> str:
    if not there:
        return "NOTHING"
    return "{" + ", ".join(f"{column.name!r}: {prefix}{index}" for index, column in enumerate(table.columns)) + "}"


def _row(prefix: str, codecs: list[Codec], names: dict[str, Any]) -> Iterator[str]:
    """The lines that read one row at `p`, and move `p` behind it."""
    size = (len(codecs) + 7) // 8
    yield f"   nulls = {'d[p]' if size == 1 else f'little(d[p:p + {size}], {chr(39)}little{chr(39)})'}"
    yield f"   p += {size}"
    yield "   if not nulls:"
    yield from (f"    {line}" for line in _run(prefix, list(enumerate(codecs)), names))
    yield "   else:"
    for index, each in enumerate(codecs):
        yield f"    if nulls & {1 << index}: {prefix}{index} = None"
        yield "    else:"
        yield from (f"     {line}" for line in _run(prefix, [(index, each)], names))


def _run(prefix: str, columns: list[tuple[int, Codec]], names: dict[str, Any]) -> Iterator[str]:
    """The lines that read columns that are all there."""
    letters, raw, fixed = "", list[str](), list[tuple[int, Codec, list[str]]]()
    for index, each in columns:
        if each.letters:
            own = [f"r{index}_{place}" for place in range(1 if each.letters[-1] == "s" else len(each.letters))]
            letters += each.letters
            raw += own
            fixed.append((index, each, own))
            continue
        # The length of what comes now is unpacked with the columns before it.
        form = _PREFIXES[each.prefix]
        own = [f"r{index}_{place}" for place in range(len(form))]
        yield from _unpacked(letters + form, raw + own, fixed, prefix, names)
        yield f"a = p; p += {' | '.join(own) if len(own) == 1 else f'{own[0]} | {own[1]} << 16'}"
        yield f"{prefix}{index} = {each.code.format('d[a:p]')}"
        letters, raw, fixed = "", [], []
    if letters:
        yield from _unpacked(letters, raw, fixed, prefix, names)


def _unpacked(
    letters: str, raw: list[str], fixed: list[tuple[int, Codec, list[str]]], prefix: str, names: dict[str, Any]
) -> Iterator[str]:
    name = f"s_{letters}"
    form = struct.Struct(f"<{letters}")
    names[name] = form.unpack_from
    # A value that is what was unpacked needs no second name.
    direct = {own[0]: f"{prefix}{index}" for index, each, own in fixed if each.code == "{0}"}
    yield f"{', '.join(direct.get(each, each) for each in raw)}, = {name}(d, p); p += {form.size}"
    for index, each, own in fixed:
        if each.repeats:
            yield f"if {own[0]} != q{index}: w{index} = {each.code.format(*own)}; q{index} = {own[0]}"
            yield f"{prefix}{index} = w{index}"
        elif each.code != "{0}":
            yield f"{prefix}{index} = {each.code.format(*own)}"


class _Rows:
    """The careful reader of one kind of change of one table."""

    def __init__(self, table: Table, kind: Event, codecs: list[Codec]) -> None:
        self._table, self._kind = table, kind
        self._operation, self._old, self._new = KINDS[kind]
        self._readers = [
            (column.name, careful_reader(each)) for column, each in zip(table.columns, codecs, strict=True)
        ]
        count = len(table.columns)
        width = bytes([count]) if count < 251 else b"\xfc" + count.to_bytes(2, "little")
        present = ((1 << count) - 1).to_bytes((count + 7) // 8, "little")
        self._size = len(present)
        self.head = width + present * (self._old + self._new)
        # The server fills what is left of the last byte with ones.
        filled = b"\xff" * len(present)
        self.heads = frozenset({self.head, width + filled * (self._old + self._new)})
        self._width = len(width)

    def read(
        self, packet: bytes, end: int, time: datetime, xid: str, position: Any, events: list[ChangeEvent], n: int
    ) -> None:
        """The rows of an event.

        Raises
        ------
        ProtocolError
            The bytes are no such rows.
        CannotCapture
            Rows are not logged whole.
        """
        first = len(events)
        try:
            self._rows(packet, end, time, xid, position, events, n)
        except ProtocolError:
            raise
        except MALFORMED as error:
            del events[first:]
            raise malformed(packet, f"{self._table}: {error}") from error

    def _rows(
        self, packet: bytes, end: int, time: datetime, xid: str, position: Any, events: list[ChangeEvent], n: int
    ) -> None:
        table = self._table
        at = BODY + 8 + int.from_bytes(packet[BODY + 8 : BODY + 10], "little")
        head = packet[at : at + len(self.head)]
        if head[: self._width] != self.head[: self._width]:
            raise ValueError(f"its table has {len(table.columns)} columns")
        if len(head) != len(self.head) or at + len(head) > end:
            raise ValueError("it is cut short")
        if not self._complete(head[self._width :]):
            raise CannotCapture(
                f"A row of {table} is not logged whole: binlog_row_image was not FULL in the session that wrote it.",
                "As an administrator: SET PERSIST binlog_row_image = FULL, and look for sessions that set their own. "
                "The stream cannot go on behind this change: begin again with a new snapshot.",
            )
        at += len(head)
        if at == end:
            raise ValueError("it holds no row")
        while at < end:
            old: Mapping[str, Any] = NOTHING
            new: Mapping[str, Any] = NOTHING
            if self._old:
                old, at = self._row(packet, at, end)
            if self._new:
                new, at = self._row(packet, at, end)
            events.append(
                ChangeEvent(self._operation, table.schema, table.name, old, new, time, xid, position, n, table.key)
            )
            n += 1

    def _complete(self, present: bytes) -> bool:
        count = len(self._table.columns)
        whole = (1 << count) - 1
        return all(
            int.from_bytes(present[start : start + self._size], "little") & whole == whole
            for start in range(0, len(present), self._size)
        )

    def _row(self, packet: bytes, at: int, end: int) -> tuple[dict[str, Any], int]:
        if at + self._size > end:
            raise ValueError("a row is cut short")
        nulls = int.from_bytes(packet[at : at + self._size], "little")
        at += self._size
        row: dict[str, Any] = {}
        for index, (name, read) in enumerate(self._readers):
            if nulls >> index & 1:
                row[name] = None
            else:
                row[name], at = read(packet, at, end)
        return row, at
