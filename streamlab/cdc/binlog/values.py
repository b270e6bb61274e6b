"""What the bytes of each of MySQL's types become: the common road as code for a generated decoder, and a careful one.

A value's form is either fixed, then `Codec.letters` unpack it, or a length and so many bytes (`Codec.prefix`).
`Codec.code` is an expression of what was unpacked, for the straight-line code of `streamlab.cdc.binlog.rowcode`; it may
raise where Python has no such value. `Codec.value` is a function of the same that never does for bytes that MySQL can
have written: a date of zeros is its text.

The rule is that of docs/values.md: a value equals what PyMySQL reads by SELECT, and is of the same type; the exceptions
are listed there.

Source: `libs/mysql/binlog/event/binary_log_funcs.cpp`, `sql-common/my_time.cc` (my_datetime_packed_from_binary).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from streamlab.cdc.binlog import decimals
from streamlab.cdc.binlog import table_map as kinds
from streamlab.cdc.binlog.charsets import BINARY, KNOWN, reader
from streamlab.cdc.binlog.events import EPOCH
from streamlab.cdc.binlog.json_binary import loads
from streamlab.cdc.binlog.table_map import Column

__all__ = ["Codec", "codec"]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one column's values are read.

    Attributes
    ----------
    letters : str
        Of `struct`, for a fixed form: what `code` and `value` get.
    prefix : int
        Bytes of the length, for the other form; `code` and `value` get the bytes behind it.
    code : str
        An expression of ``{0}``, ``{1}``, with the names that `names` gives.
    value : callable
        The same, with care.
    repeats : bool
        Whether `code` takes long enough that it is worth to ask first whether the bytes are those of the row before.
    """

    code: str
    value: Callable[..., Any]
    letters: str = ""
    prefix: int = 0
    names: Mapping[str, Any] = field(default_factory=dict)
    repeats: bool = False


def codec(column: Column, index: int, charsets: Mapping[int, str] = KNOWN) -> Codec:
    """The codec of a column.

    Parameters
    ----------
    column : Column
        As the log describes it.
    index : int
        Its place in the table: names in the code end with it.
    charsets : mapping of int to str
        Collation -> character set.

    Raises
    ------
    ValueError
        There is no such type.
    """
    kind, meta = column.type, column.meta
    if kind in _INTEGERS:
        letter, code = _INTEGERS[kind]
        letters = letter.upper() if column.unsigned else letter
        if kind == kinds.INT24:
            # The low bytes have no sign.
            return Codec(code, lambda low, high: low | high << 16, "H" + ("B" if column.unsigned else "b"))
        return Codec(code, lambda value: value, letters)
    made = _TIMES.get(kind) or _OTHERS.get(kind)
    if made is not None:
        return made(column, index, charsets)
    raise ValueError(f"column {column.name} is of the type {kind} with {meta}, which is not read here")


_INTEGERS = {
    kinds.TINY: ("b", "{0}"), kinds.SHORT: ("h", "{0}"), kinds.INT24: ("", "{0} | {1} << 16"),
    kinds.LONG: ("i", "{0}"), kinds.LONGLONG: ("q", "{0}"),
}  # fmt: skip


# -- numbers ----------------------------------------------------------------------------------------------------------


def _float(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return Codec("{0}", lambda value: value, "f" if column.type == kinds.FLOAT else "d")


def _decimal(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    precision, scale = column.meta >> 8, column.meta & 0xFF
    if not 0 < precision <= 65 or scale > min(30, precision):
        raise ValueError(f"column {column.name} is a decimal({precision}, {scale})")
    return Codec(
        decimals.decimal_code(precision, scale), decimals.decimal_reader(precision, scale),
        f"{decimals.decimal_size(precision, scale)}s", names=decimals.NAMES, repeats=True,
    )  # fmt: skip


def _year(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return Codec("({0} and 1900 + {0})", lambda value: value and 1900 + value, "B")


def _bit(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    bits = (column.meta >> 8) * 8 + (column.meta & 0xFF)
    if not 0 < bits <= 64:
        raise ValueError(f"column {column.name} has {bits} bits")
    return Codec("{0}", lambda value: value, f"{(bits + 7) // 8}s")


# -- times ------------------------------------------------------------------------------------------------------------


def _fraction(column: Column) -> int:
    """Bytes of the fraction of a second."""
    if column.meta > 6:
        raise ValueError(f"column {column.name} has {column.meta} digits of a second")
    return (column.meta + 1) // 2


def _date(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    def careful(low: int, high: int) -> date | str:
        packed = low | high << 16
        year, month, day = packed >> 9, packed >> 5 & 15, packed & 31
        try:
            return date(year, month, day)
        except ValueError:
            return f"{year:04}-{month:02}-{day:02}"

    code = "DATE((x := {0} | {1} << 16) >> 9, x >> 5 & 15, x & 31)"
    return Codec(code, careful, "HB", names={"DATE": date})


def _digits(micros: int, places: int) -> str:
    return f".{micros:06}"[: places + 1] if places else ""


def _datetime(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    extra, places = _fraction(column), column.meta
    shift, scale = 8 * extra, 10 ** (6 - 2 * extra)
    middle = 0x8000000000 << shift

    def careful(data: bytes) -> datetime | str:
        packed = int.from_bytes(data, "big") - middle
        whole, micros = packed >> shift, (packed & ((1 << shift) - 1)) * scale
        year, month = divmod(whole >> 22, 13)
        day, hour, minute, second = whole >> 17 & 31, whole >> 12 & 31, whole >> 6 & 63, whole & 63
        try:
            return datetime(year, month, day, hour, minute, second, micros)
        except ValueError:
            if packed < 0 or micros > 999_999:
                raise
            return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{_digits(micros, places)}"

    last = f", (z & {(1 << shift) - 1}) * {scale}" if extra > 0 else ""
    whole = f"(z := big({{0}}, 'big') - {middle}) >> {shift}" if extra else f"big({{0}}, 'big') - {middle}"
    code = f"DATETIME((y := (x := {whole}) >> 22) // 13, y % 13, x >> 17 & 31, x >> 12 & 31, x >> 6 & 63, x & 63{last})"
    return Codec(code, careful, f"{5 + extra}s", names={"DATETIME": datetime, "big": int.from_bytes}, repeats=True)


def _timestamp(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    extra, places = _fraction(column), column.meta
    shift, scale = 8 * extra, 10 ** (6 - 2 * extra)
    zero = "0000-00-00 00:00:00" + _digits(0, places)

    def careful(data: bytes) -> datetime | str:
        packed = int.from_bytes(data, "big")
        if not packed:
            return zero
        return EPOCH + timedelta(seconds=packed >> shift, microseconds=(packed & ((1 << shift) - 1)) * scale)

    micros = f", (x & {(1 << shift) - 1}) * {scale}" if extra else ""
    code = f"(EPOCH + DELTA(0, x >> {shift}{micros}) if (x := big({{0}}, 'big')) else {zero!r})"
    return Codec(
        code, careful, f"{4 + extra}s", names={"EPOCH": EPOCH, "DELTA": timedelta, "big": int.from_bytes}, repeats=True
    )  # fmt: skip


def _time(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    extra = _fraction(column)
    shift, scale = 8 * extra, 10 ** (6 - 2 * extra)
    middle, mask = 0x800000 << shift, (1 << shift) - 1

    def read(data: bytes) -> timedelta:
        packed = int.from_bytes(data, "big") - middle
        positive = abs(packed)
        whole = positive >> shift
        value = timedelta(
            hours=whole >> 12 & 0x3FF,
            minutes=whole >> 6 & 63,
            seconds=whole & 63,
            microseconds=(positive & mask) * scale,
        )
        return value if packed >= 0 else -value

    return Codec(f"time{index}({{0}})", read, f"{3 + extra}s", names={f"time{index}": read}, repeats=True)


# -- text, bytes, and what is made of them ----------------------------------------------------------------------------


def _text(column: Column, prefix: int, index: int, charsets: Mapping[int, str]) -> Codec:
    charset = charsets.get(column.collation, "")
    if column.collation == BINARY or charset == "binary":
        return Codec("{0}", lambda data: data, prefix=prefix)
    read = reader(charset)
    if read is None:
        return Codec("{0}", lambda data: data, prefix=prefix)

    def careful(data: bytes) -> Any:
        try:
            return read(data)
        except UnicodeError:
            return data

    if charset in {"utf8mb4", "utf8mb3", "utf8"}:
        return Codec("{0}.decode()", careful, prefix=prefix)
    return Codec(f"text{index}({{0}})", careful, prefix=prefix, names={f"text{index}": read})


def _varchar(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return _text(column, 1 if column.meta < 256 else 2, index, charsets)


def _char(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    prefix = 1 if column.meta < 256 else 2
    if column.collation != BINARY:
        return _text(column, prefix, index, charsets)
    # BINARY(n): the log leaves out the zeros at its end.
    width = column.meta
    return Codec(f"{{0}}.ljust({width}, b'\\0')", lambda data: data.ljust(width, b"\0"), prefix=prefix)


def _lengths(column: Column) -> int:
    if not 1 <= column.meta <= 4:
        raise ValueError(f"column {column.name} has lengths of {column.meta} bytes")
    return column.meta


def _blob(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return _text(column, _lengths(column), index, charsets)


def _bytes(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return Codec("{0}", lambda data: data, prefix=_lengths(column))


def _json(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    return Codec("json({0})", loads, prefix=_lengths(column), names={"json": loads})


def _named(column: Column, charsets: Mapping[int, str]) -> tuple[str, ...]:
    read = reader(charsets.get(column.collation, "utf8mb4")) or bytes.decode
    return tuple(read(label) for label in column.labels)


def _enum(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    # 0 is what MySQL makes of a label that does not exist, where it is not strict.
    labels = ("", *_named(column, charsets))
    if column.meta not in {1, 2}:
        raise ValueError(f"column {column.name} has numbers of {column.meta} bytes")
    return Codec(
        f"labels{index}[{{0}}]", lambda number: labels[number], "B" if column.meta == 1 else "H",
        names={f"labels{index}": labels},
    )  # fmt: skip


def _set(column: Column, index: int, charsets: Mapping[int, str]) -> Codec:
    labels = _named(column, charsets)
    known: dict[bytes, str] = {}
    if not 1 <= column.meta <= 8:
        raise ValueError(f"column {column.name} has a set of {column.meta} bytes")

    def read(data: bytes) -> str:
        bits = int.from_bytes(data, "little")
        if bits >> len(labels):
            raise ValueError(f"column {column.name} has a member without a label")
        text = ",".join(label for bit, label in enumerate(labels) if bits >> bit & 1)
        if len(known) < 4096:
            known[data] = text
        return text

    code = f"(known{index}.get({{0}}) or set{index}({{0}}))"
    return Codec(code, read, f"{column.meta}s", names={f"known{index}": known, f"set{index}": read})


_TIMES = {
    kinds.DATE: _date, kinds.DATETIME2: _datetime, kinds.TIMESTAMP2: _timestamp, kinds.TIME2: _time, kinds.YEAR: _year,
}  # fmt: skip
_OTHERS = {
    kinds.FLOAT: _float, kinds.DOUBLE: _float, kinds.NEWDECIMAL: _decimal, kinds.BIT: _bit, kinds.ENUM: _enum,
    kinds.SET: _set, kinds.VARCHAR: _varchar, kinds.VAR_STRING: _varchar, kinds.STRING: _char, kinds.BLOB: _blob,
    kinds.JSON: _json, kinds.GEOMETRY: _bytes, kinds.VECTOR: _bytes,
}  # fmt: skip


def careful_reader(made: Codec) -> Callable[[bytes, int, int], tuple[Any, int]]:
    """A function of (bytes, place, end) -> (value, place behind it) that checks every bound."""
    if made.letters:
        form = struct.Struct("<" + made.letters)

        def fixed(data: bytes, at: int, end: int) -> tuple[Any, int]:
            behind = at + form.size
            if behind > end:
                raise ValueError("a value is cut short")
            return made.value(*form.unpack_from(data, at)), behind

        return fixed
    prefix = made.prefix

    def variable(data: bytes, at: int, end: int) -> tuple[Any, int]:
        begin = at + prefix
        behind = begin + int.from_bytes(data[at:begin], "little")
        if begin > end or behind > end:
            raise ValueError("a value is cut short")
        return made.value(data[begin:behind]), behind

    return variable
