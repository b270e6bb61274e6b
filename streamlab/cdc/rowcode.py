"""Row decoders, generated for each table: straight-line code instead of a loop over columns.

A row of pgoutput is a number of columns, and for each a letter: ``n`` (NULL), ``u`` (a large value that did not
change), ``t`` (text) or ``b`` (binary), the last two with a length and as many bytes. What a column's value becomes is
known when the table is; so a function is written, compiled and kept for each table and kind of change, which reads
exactly these columns and builds the events of a run of messages: what one call costs is a tenth of what one row does.

The generated code takes the common road. Whatever it trips over (a type's exception, a value that Python cannot
hold, a cut message) is read again by `_Rows.read`, a general loop that checks every bound and either finds the value
that the policy of `streamlab.cdc.values` gives or raises `ProtocolError`.

Names of columns and tables enter the code only as `repr` of a string, which is always one literal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from streamlab.cdc.event import NOTHING, UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.lazy import LazyRow, RowForm
from streamlab.cdc.values import Codec, TypeMap
from streamlab.cdc.wire import MALFORMED, Column, Relation, malformed

__all__ = ["KINDS", "RowDecoder", "row_decoder"]

RowDecoder = Callable[[Iterable[bytes], int, datetime, str, Any, int, Callable[[ChangeEvent], None]], None]
"""(messages, offset of the first column, commit timestamp, transaction id, position, ordinal of the first, what takes
the events)."""

KINDS = {
    b"IN": (Operation.INSERT, "", True),
    b"UN": (Operation.UPDATE, "", True),
    b"UK": (Operation.UPDATE, "K", True),
    b"UO": (Operation.UPDATE, "O", True),
    b"DK": (Operation.DELETE, "K", False),
    b"DO": (Operation.DELETE, "O", False),
}
"""Letter of the message and letter of its first row -> operation, kind of the old row, whether there is a new row."""

_length = struct.Struct("!I").unpack_from
_Result = Callable[[str, str], str]
"""Code of the old and of the new row -> the statements that make something of them and end."""


def row_decoder(
    relation: Relation, kind: bytes, types: TypeMap, *, binary: bool, lazy: bool, key: tuple[str, ...]
) -> RowDecoder:
    """Write and compile the decoder of one kind of change of one table.

    Parameters
    ----------
    relation : Relation
        The table.
    kind : bytes
        One of `KINDS`.
    types : TypeMap
        What each type's bytes become.
    binary : bool
        Whether binary values are the common case; both are read either way.
    lazy : bool
        Whether rows are decoded when they are first looked at.
    key : tuple of str
        `ChangeEvent.primary_key`.
    """
    operation, old, new = KINDS[kind]
    rows = _Rows(relation, kind, types)
    names: dict[str, Any] = {
        "make": tuple.__new__, "ChangeEvent": ChangeEvent, "OPERATION": operation, "KEY": key, "NOTHING": NOTHING,
        "UNCHANGED": UNCHANGED, "MALFORMED": MALFORMED, "Decimal": Decimal, "iso": datetime.fromisoformat,
        "TRUTH": {b"t": True, b"f": False}, "length": _length, "slow": rows.read, "delta": timedelta,
        "LazyRow": LazyRow, "NAIVE": datetime(2000, 1, 1), "AWARE": datetime(2000, 1, 1, tzinfo=UTC),
        "NEW": b"N" + struct.pack("!H", len(relation.columns)),
    }  # fmt: skip
    table = f"OPERATION, {relation.schema!r}, {relation.name!r}"

    def event(before: str, after: str) -> str:
        return f"add(make(ChangeEvent, ({table}, {before}, {after}, time, xid, position, ordinal, KEY))); continue"

    def body(result: _Result) -> list[str]:
        return list(_body(relation, rows.codecs, old, result, new=new, binary=binary, names=names))

    if lazy:
        # The decoder of the two rows, and one that only says where they are.
        fields = _compile(["def decode(d, o):", *body("return {}, {}".format)], names, relation)
        names["form"] = RowForm(relation, rows.codecs, fields)
        before = "LazyRow(d, o, form, 0)" if old else "NOTHING"
        after = "LazyRow(d, o, form, 1)" if new else "NOTHING"
        lines = [f" {event(before, after)}"]
    else:
        lines = body(event)
    head = ["def decode(run, o, time, xid, position, ordinal, add):", " for ordinal, d in enumerate(run, ordinal):"]
    made: RowDecoder = _compile([*head, *(f" {line}" for line in lines)], names, relation)
    return made


def _compile(lines: list[str], names: dict[str, Any], relation: Relation) -> Any:
    scope = dict(names)
    exec(compile("\n".join(lines), f"<rows of relation {relation.oid}>", "exec"), scope)  # noqa: S102 - see above
    return scope["decode"]


def _body(
    relation: Relation,
    codecs: list[Codec],
    old: str,
    result: _Result,
    *,
    new: bool,
    binary: bool,
    names: dict[str, Any],
) -> Iterator[str]:
    """The lines that read the rows at `o` of `d`."""
    yield " try:"
    if not (binary or old):
        yield from _plain(relation, codecs, result, names)
    yield "  p = o"
    if not binary:
        # Once for the row: a slice of it is the text of any value that is plain ASCII.
        yield "  s = d.decode('latin-1')"
    if old:
        for index, codec in enumerate(codecs):
            wanted = old == "O" or relation.columns[index].key
            yield from _column(f"o{index}", codec, "UNCHANGED", index, names, binary=binary, wanted=wanted)
    if old and new:
        yield "  if d[p:p + 3] != NEW: raise ValueError"
        yield "  p += 3"
    if new:
        for index, codec in enumerate(codecs):
            # A large value that did not change is in the old row, where the whole of that is logged.
            unchanged = f"o{index}" if old == "O" else "UNCHANGED"
            yield from _column(f"n{index}", codec, unchanged, index, names, binary=binary, wanted=True)
    yield "  if p != len(d): raise ValueError"
    yield f"  old = {_display(relation.columns, 'o', only_key=old == 'K') if old else 'NOTHING'}"
    yield f"  new = {_display(relation.columns, 'n', only_key=False) if new else 'NOTHING'}"
    yield " except MALFORMED:"
    yield "  old, new = slow(d, o)"
    yield f" {result('old', 'new')}"


def _plain(relation: Relation, codecs: list[Codec], result: _Result, names: dict[str, Any]) -> Iterator[str]:
    """The lines that read a new row of nothing but short texts in ASCII, which is what most rows are.

    Such a column is ``t``, three zero bytes and one more for its length, and the text. No text of PostgreSQL holds a
    zero byte, so the letter and the zero bytes occur nowhere else, and one split finds all columns. That there are as
    many as the table has, and that all lengths together are what they should be, is checked.
    """
    texts = [f"v{index}" for index in range(len(codecs))]
    if not texts:
        return
    yield "  s = d[o:]"
    yield "  v = s.split(TEXT)"
    yield f"  if len(v) == {len(texts) + 1} and s.isascii():"
    yield f"   z, {', '.join(texts)} = v"
    lengths = " + ".join(f"{text}[0]" for text in texts)
    yield f"   if z or {lengths} + {5 * len(texts)} != len(s): raise ValueError"
    values = []
    for index, codec in enumerate(codecs):
        names[f"t{index}"] = codec.text
        value = f"v{index}[1:]"
        text = f"{value}.decode()"
        code = codec.text_code or f"t{index}({{text}})"
        values.append(f"{relation.columns[index].name!r}: {code.format(bytes=value, ascii=text, text=text)}")
    names["TEXT"] = b"t\0\0\0"
    yield f"   {result('NOTHING', '{' + ', '.join(values) + '}')}"


def _display(columns: tuple[Column, ...], prefix: str, *, only_key: bool) -> str:
    pairs = (f"{c.name!r}: {prefix}{i}" for i, c in enumerate(columns) if c.key or not only_key)
    return "{" + ", ".join(pairs) + "}"


def _column(
    target: str, codec: Codec, unchanged: str, index: int, names: dict[str, Any], *, binary: bool, wanted: bool
) -> Iterator[str]:
    """The lines that read one column at `p` into `target` and move `p` behind it."""
    if binary and codec.fixed and wanted:
        fixed = struct.Struct("!xI" + codec.fixed)
        unpack = f"f{ord(codec.fixed)}"
        names[unpack] = fixed.unpack_from
        yield "  if d[p] == 98:"
        yield f"   size, v = {unpack}(d, p)"
        yield f"   if size != {fixed.size - 5}: raise ValueError"
        yield f"   {target} = {codec.binary_code.format(v='v') or 'v'}"
        yield f"   p += {fixed.size}"
    else:
        yield f"  if d[p] == {98 if binary else 116}:"
        yield "   size, = length(d, p + 1)"
        yield "   a = p + 5; p = a + size"
        if wanted and binary:
            names[f"b{index}"] = codec.binary
            yield f"   {target} = b{index}(d[a:p])"
        elif wanted:
            names[f"t{index}"] = codec.text
            code = codec.text_code or f"t{index}({{text}})"
            value = code.format(bytes="d[a:p]", ascii="s[a:p]", text="d[a:p].decode('utf-8', 'surrogateescape')")
            yield f"   {target} = {value}"
    yield "  elif d[p] == 110:"
    yield f"   {target} = None; p += 1"
    yield "  elif d[p] == 117:"
    yield f"   {target} = {unchanged}; p += 1"
    yield "  else: raise ValueError"


class _Rows:
    """The general reader of one kind of change of one table."""

    def __init__(self, relation: Relation, kind: bytes, types: TypeMap) -> None:
        self.codecs = [types.codec(column.type_oid) for column in relation.columns]
        self._columns = relation.columns
        _, self._old, self._new = KINDS[kind]

    def read(self, message: bytes, at: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The old and the new row.

        Raises
        ------
        ProtocolError
            The bytes are no such rows.
        """
        old, new = NOTHING, NOTHING
        try:
            if self._old:
                old, at = self._row(message, at, NOTHING)
                before = old
                if self._old == "K":
                    old = {column.name: old[column.name] for column in self._columns if column.key}
                if self._new:
                    letter, count = struct.unpack_from("!BH", message, at)
                    if letter != 78 or count != len(self._columns):  # N
                        raise ValueError("the new row is not where it should be")
                    at += 3
            if self._new:
                new, at = self._row(message, at, before if self._old == "O" else NOTHING)
            if at != len(message):
                raise ValueError("there are bytes behind the last column")
        except MALFORMED as error:
            raise malformed(message, str(error)) from error
        return old, new

    def _row(self, message: bytes, at: int, before: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        row: dict[str, Any] = {}
        for column, codec in zip(self._columns, self.codecs, strict=True):
            kind = message[at]
            at += 1
            if kind == 110:  # n
                row[column.name] = None
            elif kind == 117:  # u
                row[column.name] = before.get(column.name, UNCHANGED)
            elif kind in {116, 98}:  # t, b
                (size,) = _length(message, at)
                at += 4
                data = message[at : at + size]
                if len(data) != size:
                    raise ValueError(f"column {column.name} is cut short")
                at += size
                row[column.name] = (
                    codec.text(data.decode("utf-8", "surrogateescape")) if kind == 116 else codec.binary(data)
                )
            else:
                raise ValueError(f"column {column.name} begins with {kind}")
        return row, at
