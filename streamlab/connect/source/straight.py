"""Rows from PostgreSQL's text straight to JSON: the same bytes as by way of values, without making these. Pure.

A reader with ``lazy=True`` hands on rows as they came. Where every column is of a type whose text becomes JSON by
little more than quotes (numbers, texts, booleans, dates, timestamps, UUIDs), a function is written, compiled and kept
for the table, which does that.

It gives None for a row that it does not know to be plain: a value in binary form or unchanged, a float that is no
number, bytes that are not what they should be. Such a row is decoded, and written or refused as every other.

Source: PostgreSQL's manual, "Logical Replication Message Formats" (TupleData).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import orjson

from streamlab.cdc import values_binary as binary
from streamlab.cdc.lazy import RowForm
from streamlab.cdc.values import Codec
from streamlab.cdc.wire import MALFORMED

__all__ = ["Straight", "straight"]

Straight = Callable[[bytes, int], tuple[bytes, bytes | None] | None]
"""(message, place of its only row) -> that row and its key, in JSON; or None, see above."""

_PLAIN: Final = bytes({*range(0x20, 0x7F)} - {*b'"\\'})
"""What JSON writes as it is."""


def straight(form: RowForm, key: tuple[str, ...]) -> Straight | None:
    """Write and compile the encoder of a table's rows; None where it has a column of another type.

    Parameters
    ----------
    form : RowForm
        What the bytes are. There has to be a new row and no old one.
    key : tuple of str
        The columns of the key.
    """
    names = [column.name for column in form.relation.columns]
    kinds = [_kind(codec) for codec in form.codecs]
    columns = [_Column(name, index, kind) for index, (name, kind) in enumerate(zip(names, kinds, strict=True)) if kind]
    if not columns or len(columns) < len(names) or not set(key) <= set(names):
        return None
    keyed = [columns[names.index(name)] for name in key]
    scope: dict[str, Any] = {
        "MALFORMED": MALFORMED, "PLAIN": _PLAIN, "TRUTH": {b"t": b"true", b"f": b"false"}, "TEXT": b"t\0\0\0",
        "length": struct.Struct("!I").unpack_from, "join": b"".join, "quoted": _quoted, "integer": _integer,
        "numeric": _numeric, "real": _real, "moment": _moment, "aware": _aware, "naive": _naive,
    }  # fmt: skip
    # Names of columns enter the code only as `repr` of bytes, which is always one literal.
    code = "\n".join(_lines(columns, keyed))
    exec(compile(code, f"<JSON of relation {form.relation.oid}>", "exec"), scope)  # noqa: S102
    made: Straight = scope["encode"]
    return made


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the text of a type becomes JSON.

    Attributes
    ----------
    code : str
        A statement on ``{0}``, a name of the text's bytes, that makes JSON of it.
    quotes : bool
        Whether the result is to be put in quotes.
    short : str
        In place of `code`, where the name has the length before the text, and the whole row is looked at in the end.
    between, behind : bytes
        Where `short` makes two parts, ``{0}`` and ``{0}_``: what comes between them, and behind the second.
    """

    code: str
    quotes: bool
    short: str = "{0} = {0}[1:]"
    between: bytes = b""
    behind: bytes = b""


_INTEGER: Final = _Kind(
    "if not {0}.isdigit(): {0} = integer({0})", False, "{0} = {0}[1:]\n   if not {0}.isdigit(): {0} = integer({0})"
)
_NUMERIC: Final = _Kind("if not {0}.replace(b'.', b'', 1).isdigit(): {0} = numeric({0})", True)
_REAL: Final = _Kind("{0} = real({0})", False, "{0} = real({0}[1:])")
_TRUTH: Final = _Kind("{0} = TRUTH[{0}]", False, "{0} = TRUTH[{0}[1:]]")
_TEXT: Final = _Kind("if {0}.translate(None, PLAIN): {0} = quoted({0})", True)
_AS_IT_IS: Final = _Kind("", True)
# With all six digits of a second, as nine of ten have them, two slices are enough.
_NAIVE: Final = _Kind(
    "{0} = moment({0})", True,
    "{0}, {0}_ = ({0}[1:11], {0}[12:]) if {0}[0] == 26 and {0}[11] == 32 and {0}[20] == 46 and {0}[26] < 58 "
    "else naive({0}[1:])",
    b"T",
)  # fmt: skip
_AWARE: Final = _Kind(
    "{0} = moment({0})", True,
    "{0}, {0}_ = ({0}[1:11], {0}[12:]) if {0}[0] == 29 and {0}[11] == 32 and {0}[20] == 46 and {0}[27:] == b'+00' "
    "else aware({0}[1:])",
    b"T", b":00",
)  # fmt: skip
_KINDS: Final[dict[Any, _Kind]] = {int: _INTEGER, Decimal: _NUMERIC, float: _REAL, str: _TEXT}


def _kind(codec: Codec) -> _Kind | None:
    """How a type's text becomes JSON; None for a type that needs more."""
    if codec.fixed == "?":
        return _TRUTH
    if codec.binary is binary.timestamptz:
        return _AWARE
    if codec.binary is binary.timestamp:
        return _NAIVE
    if codec.binary in {binary.uuid, binary.date}:
        return _AS_IT_IS
    return _KINDS.get(codec.text)


class _Column:
    """A column, and its name in the code."""

    def __init__(self, name: str, index: int, kind: _Kind | None) -> None:
        assert kind is not None  # noqa: S101 - the caller has looked
        self.name, self.kind, self.variable = orjson.dumps(name), kind, f"v{index}"


def _lines(columns: list[_Column], key: list[_Column]) -> Iterator[str]:
    texts = [column.variable for column in columns]
    row, rest = _object(columns, short=True)
    yield "def encode(d, o):"
    yield " try:"
    # A row of nothing but short texts is split at once, see `streamlab.cdc.rowcode`.
    yield "  v = d[o:].split(TEXT)"
    yield f"  if len(v) == {len(texts) + 1}:"
    yield f"   z, {', '.join(texts)} = v"
    yield f"   if z or {' + '.join(f'{text}[0]' for text in texts)} + {5 * len(texts)} != len(d) - o: return None"
    for column in columns:
        yield f"   {column.kind.short.format(column.variable)}"
    yield f"   row = {row}"
    # In one look at all of it: nothing that JSON would have to escape has come in with the values.
    yield f"   if row.translate(None, PLAIN) == {rest!r}: return row, {_object(key, short=True)[0]}"
    yield " except MALFORMED:"
    yield "  pass"
    yield " try:"
    yield "  p = o"
    for column in columns:
        text = column.variable
        yield "  if d[p] == 116:"
        yield "   size, = length(d, p + 1); a = p + 5; p = a + size"
        yield f"   {text} = d[a:p]"
        if column.kind.code:
            yield f"   {column.kind.code.format(text)}"
        if column.kind.quotes:
            yield f"   {text} = b'\"%b\"' % {text}"
        yield f"  elif d[p] == 110: {text} = b'null'; p += 1"
        yield "  else: return None"
    yield "  if p != len(d): return None"
    yield f"  return {_object(columns, short=False)[0]}, {_object(key, short=False)[0]}"
    yield " except MALFORMED:"
    yield "  return None"


def _object(columns: list[_Column], *, short: bool) -> tuple[str, bytes]:
    """The code of a JSON object of columns, and what there is in it besides plain characters."""
    if not columns:
        return "None", b""
    parts, text, constants = list[str](), b"{", b""
    for column in columns:
        quote = b'"' if column.kind.quotes and short else b""
        text += column.name + b":" + quote
        parts += [repr(text), column.variable]
        constants += text
        if short and column.kind.between:
            parts += [repr(column.kind.between), column.variable + "_"]
        text = (column.kind.behind if short else b"") + quote + b","
    parts.append(repr(text[:-1] + b"}"))
    return f"join(({', '.join(parts)}))", (constants + text).translate(None, _PLAIN)


def _quoted(data: bytes) -> bytes:
    return orjson.dumps(data.decode())[1:-1]


def _integer(data: bytes) -> bytes:
    return b"%d" % int(data)


def _numeric(data: bytes) -> bytes:
    return format(Decimal(data.decode()), "f").encode()


def _real(data: bytes) -> bytes:
    value = float(data)
    if not isfinite(value):
        raise ValueError("JSON has no such number")
    return orjson.dumps(value)


def _moment(data: bytes) -> bytes:
    text = data.decode()
    try:
        return orjson.dumps(datetime.fromisoformat(text))[1:-1]
    except ValueError:
        return _quoted(data)  # infinity, BC, and years of five digits


def _naive(data: bytes) -> tuple[bytes, bytes]:
    """Day and time of a timestamp that has fewer digits of a second."""
    day, blank, clock = data.partition(b" ")
    if len(day) != 10 or not blank or b" " in clock:
        raise ValueError("it is another form")
    return day, clock if len(clock) == 8 else clock.ljust(15, b"0")


def _aware(data: bytes) -> tuple[bytes, bytes]:
    text, _, offset = data.partition(b"+")
    if offset != b"00":
        raise ValueError("it is another form")
    day, clock = _naive(text)
    return day, clock + b"+00"
