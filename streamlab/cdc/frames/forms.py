"""What PostgreSQL's types become in a frame, and how a whole column of their values is read at once.

A `Form` has a type of Polars and two readers, of the text form and of the binary one. A reader gives NULL for a value
that the type cannot hold; `streamlab.cdc.frames.tables` then looks at that value alone. Types that have no form of
their own are text, as PostgreSQL writes it; docs/frames.md has the table.

Sources: as for `streamlab.cdc.values_binary` and `streamlab.cdc.values_text`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import polars as pl
from psycopg.postgres import types as builtin

from streamlab.cdc.frames.slices import Slices, Whole, keep
from streamlab.cdc.values import TypeMap

__all__ = ["Form", "form_of"]

Type = pl.DataType | type[pl.DataType]
Binary = Callable[[Slices], pl.Series]
Text = Callable[[pl.Series], pl.Series]


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of one type become a column.

    Attributes
    ----------
    dtype : polars data type
        Of the column.
    text : callable
        From a column of PostgreSQL's text; NULL for what `dtype` cannot hold.
    binary : callable, optional
        From the bytes of the binary form; the same. Without one, values are made one by one.
    element : class, optional
        Of an array: the Python class of its elements. Its values are made one by one.
    """

    dtype: Type
    text: Text
    binary: Binary | None = None
    element: type | None = None


def _cast(dtype: Type) -> Text:
    return lambda text: text.cast(dtype, strict=False)


def _number(form: str, dtype: Type) -> Form:
    width = int(form[1])

    def binary(slices: Slices) -> pl.Series:
        slices.width(width)
        return slices.masked(pl.Series(slices.fixed(form)))

    return Form(dtype, _cast(dtype), binary)


# -- numeric ----------------------------------------------------------------------------------------

_MAX_DIGITS = 38
_LIMB = 4  # groups of four digits that an int64 surely holds


def numeric(modifier: int) -> Form:
    """Decimal of the declared precision; text where none is declared, or one that Decimal cannot have."""
    if modifier < 4:
        return _WRITTEN
    precision, scale = modifier - 4 >> 16 & 0xFFFF, modifier - 4 & 0x7FF
    scale = scale - 2048 if scale & 1024 else scale
    # numeric(2, -3) has whole thousands, numeric(3, 5) only digits behind 0.00.
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    if precision > _MAX_DIGITS:
        return _WRITTEN
    dtype = pl.Decimal(precision, scale)
    after = -(-scale // 4)
    limbs = -(-(after - (scale - precision) // 4) // _LIMB)
    if limbs > 1 and precision > _MAX_DIGITS - 3:
        return Form(dtype, _cast(dtype))  # the last group of four might not fit

    def binary(slices: Slices) -> pl.Series:
        if (slices.size < 8)[slices.there].any():
            raise ValueError("a numeric is too short")
        count = np.where(slices.there, slices.fixed("u2", 0), 0).astype(np.int64)
        if (slices.size != 8 + 2 * count)[slices.there].any():
            raise ValueError("a numeric has the wrong size")
        weight, sign = slices.fixed("i2", 2).astype(np.int64), slices.fixed("u2", 4)
        held = (sign == 0) | (sign == 0x4000)  # else NaN or an infinity
        sums = [np.zeros(len(slices), np.int64) for _ in range(limbs)]
        for index in range(int(count.max(initial=0))):
            has = (index < count) & held
            digit = slices.whole.read(np.where(has, slices.at + 8 + 2 * index, 0), "u2").astype(np.int64)
            place = weight - index + after  # in groups of four digits, from the last one behind the point
            held &= ~has | ((place >= 0) & (place < limbs * _LIMB))
            for number, total in enumerate(sums):
                here = has & (place >= number * _LIMB) & (place < (number + 1) * _LIMB)
                total += np.where(here, digit, 0) * _POWERS[np.clip(place - number * _LIMB, 0, _LIMB - 1)]
        negative = sign == 0x4000
        return slices.masked(_decimal([np.where(negative, -total, total) for total in sums], after, dtype), held)

    return Form(dtype, _cast(dtype), binary)


_POWERS: Final = 10_000 ** np.arange(_LIMB, dtype=np.int64)


def _decimal(sums: list[Any], after: int, dtype: pl.Decimal) -> pl.Series:
    """The sum of limbs, the first the least, in units of 10000 ** -after."""
    if len(sums) == 1:
        units = sums[0] // 10 ** (4 * after - dtype.scale)  # exact: there are zeros behind the declared scale
        return _scaled(pl.Series(units), dtype.scale).cast(dtype, strict=False)
    total = _scaled(pl.Series(sums[0]), 4 * after)
    for number, each in enumerate(sums[1:], 1):
        total += _scaled(pl.Series(each), 4 * after - 4 * _LIMB * number)
    return total.cast(dtype, strict=False)


def _scaled(whole: pl.Series, scale: int) -> pl.Series:
    whole = whole.cast(pl.Decimal(_MAX_DIGITS, 0))
    return whole * pl.Series([Decimal(1).scaleb(-scale)]) if scale > 0 else whole * pl.Series([Decimal(10**-scale)])


# -- times ------------------------------------------------------------------------------------------

_DAYS = 10_957  # from 1970 to 2000
_MICROS = _DAYS * 86_400_000_000
_DAY_BOUNDS = (-719_162, 2_932_896)  # of the years 1 to 9999, which Python and pandas have too
_MICRO_BOUNDS = tuple((day * 86_400_000_000, (day + 1) * 86_400_000_000) for day in _DAY_BOUNDS)


def _date(slices: Slices) -> pl.Series:
    slices.width(4)
    days = slices.fixed("i4").astype(np.int64) + _DAYS
    held = (days >= _DAY_BOUNDS[0]) & (days <= _DAY_BOUNDS[1])
    return slices.masked(pl.Series(days.astype(np.int32)).cast(pl.Date), held)


def _timestamp(dtype: pl.Datetime) -> Binary:
    low, high = _MICRO_BOUNDS[0][0] - _MICROS, _MICRO_BOUNDS[1][1] - _MICROS

    def binary(slices: Slices) -> pl.Series:
        slices.width(8)
        micros = slices.fixed("i8")
        held = (micros >= low) & (micros < high)
        return slices.masked(pl.Series(np.where(held, micros, 0) + _MICROS).cast(dtype), held)

    return binary


def _time(slices: Slices) -> pl.Series:
    slices.width(8)
    micros = slices.fixed("i8")
    held = (micros >= 0) & (micros < 86_400_000_000)  # 24:00 is none
    return slices.masked(pl.Series(np.where(held, micros, 0) * 1000).cast(pl.Time), held)


_INTERVAL = pl.Struct({"months": pl.Int32, "days": pl.Int32, "microseconds": pl.Int64})
_INTERVAL_TEXT = (
    r"^(?:([-+]?\d+) years? ?)?(?:([-+]?\d+) mons? ?)?(?:([-+]?\d+) days? ?)?"
    r"(?:([-+]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?$"
)


def _interval(slices: Slices) -> pl.Series:
    slices.width(16)
    micros, days, months = slices.fixed("i8"), slices.fixed("i4", 8), slices.fixed("i4", 12)
    edges = [(np.iinfo(each.dtype).min, np.iinfo(each.dtype).max) for each in (micros, days, months)]
    infinite = [(micros == edges[0][end]) & (days == edges[1][end]) & (months == edges[2][end]) for end in (0, 1)]
    made = pl.DataFrame({"months": months, "days": days, "microseconds": micros}).to_struct().cast(_INTERVAL)
    return slices.masked(made, ~(infinite[0] | infinite[1]))


def _interval_text(text: pl.Series) -> pl.Series:
    parts = text.str.extract_groups(_INTERVAL_TEXT).struct.unnest()
    years, months, days, sign, hours, minutes, seconds, fraction = parts.get_columns()

    def number(part: pl.Series) -> pl.Series:
        return part.cast(pl.Int64, strict=False).fill_null(0)

    clock = (number(hours) * 3600 + number(minutes) * 60 + number(seconds)) * 1_000_000
    clock += number(fraction.str.pad_end(6, "0"))
    clock = (-clock).zip_with((sign == "-").fill_null(value=False), clock)
    made = pl.DataFrame(
        {"months": number(years) * 12 + number(months), "days": number(days), "microseconds": clock}
    ).to_struct().cast(_INTERVAL)  # fmt: skip
    held = text.str.contains(_INTERVAL_TEXT) & (text != "")
    return keep(made, held.fill_null(value=False))


# -- bytes and text ---------------------------------------------------------------------------------


def _same(text: pl.Series) -> pl.Series:
    return text


_HEX: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_DASHES = (8, 13, 18, 23)


def _uuid(slices: Slices) -> pl.Series:
    slices.width(16)
    count = len(slices)
    digits = _HEX[slices.whole.bytes[slices.at[:, None] + np.arange(16)]].reshape(count, 32)
    out = np.full((count, 36), ord("-"), np.uint8)
    out[:, np.delete(np.arange(36), _DASHES)] = digits
    places = np.arange(count, dtype=np.int64) * 36
    return Slices(Whole(out.tobytes()), places, np.full(count, 36), slices.there, slices.full).text()


def _jsonb(slices: Slices) -> pl.Series:
    text = slices.shorter(1)
    if (slices.fixed("u1") != 1)[slices.there].any():
        raise ValueError("a version of jsonb is not known")
    return text.text()


def _bytea(text: pl.Series) -> pl.Series:
    plain = text.str.strip_prefix("\\x")
    decoded = plain.str.decode("hex", strict=False)
    return keep(decoded, text.str.starts_with("\\x").fill_null(value=False))


def _boolean(text: pl.Series) -> pl.Series:
    true = text == "t"
    return keep(true, (true | (text == "f")).fill_null(value=False))


def _boolean_binary(slices: Slices) -> pl.Series:
    slices.width(1)
    return slices.masked(pl.Series(slices.fixed("u1") != 0))


def _moment(format_: str, dtype: pl.Datetime) -> Text:
    return lambda text: text.str.to_datetime(format_, time_unit="us", strict=False).cast(dtype)


_TEXT: Final = Form(pl.String, _same, Slices.text)
_WRITTEN: Final = Form(pl.String, _same)
_NAIVE, _AWARE = pl.Datetime("us"), pl.Datetime("us", "UTC")

_FORMS: Final[dict[str, Form]] = {
    "bool": Form(pl.Boolean, _boolean, _boolean_binary),
    "int2": _number("i2", pl.Int16),
    "int4": _number("i4", pl.Int32),
    "int8": _number("i8", pl.Int64),
    "oid": _number("u4", pl.UInt32),
    "float4": _number("f4", pl.Float32),
    "float8": _number("f8", pl.Float64),
    "date": Form(pl.Date, lambda text: text.str.to_date("%Y-%m-%d", strict=False), _date),
    "time": Form(pl.Time, lambda text: text.str.to_time("%H:%M:%S%.f", strict=False), _time),
    "timestamp": Form(_NAIVE, _moment("%Y-%m-%d %H:%M:%S%.f", _NAIVE), _timestamp(_NAIVE)),
    "timestamptz": Form(_AWARE, _moment("%Y-%m-%d %H:%M:%S%.f%#z", _AWARE), _timestamp(_AWARE)),
    "interval": Form(_INTERVAL, _interval_text, _interval),
    "uuid": Form(pl.String, _same, _uuid),
    "bytea": Form(pl.Binary, _bytea, Slices.binary),
    "json": Form(pl.String, _same, Slices.text),
    "jsonb": Form(pl.String, _same, _jsonb),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "xml", "unknown", "refcursor", "cstring"), _TEXT),
}
_NAMES: Final = {info.oid: info.name for info in builtin}
_ELEMENTS: Final = {info.array_oid: info.oid for info in builtin if info.array_oid}

_CLASSES: Final[dict[Any, type]] = {
    pl.Boolean: bool, pl.Int16: int, pl.Int32: int, pl.Int64: int, pl.UInt32: int, pl.Float32: float,
    pl.Float64: float, pl.String: str, pl.Binary: bytes,
}  # fmt: skip


def form_of(types: TypeMap, oid: int, modifier: int) -> Form:
    """The form of a column's type.

    Parameters
    ----------
    types : TypeMap
        Knows what users' types are made of.
    oid, modifier : int
        As the Relation message has them.
    """
    row = types.definition(oid)
    kind, related = (row[2], row[3]) if row is not None else ("", 0)
    if kind == "d":
        # Its own modifier is not in the stream.
        return form_of(types, related, -1)
    if kind == "e":
        return _TEXT
    element = related if kind == "a" else _ELEMENTS.get(oid, 0)
    if element:
        return _array(form_of(types, element, modifier))
    name = _NAMES.get(oid, "")
    if name == "numeric":
        return numeric(modifier)
    return _FORMS.get(name, _WRITTEN)


def _array(element: Form) -> Form:
    made = _CLASSES.get(element.dtype)
    # Text that is written for us, as for numeric, is no text in Python's hands.
    if made is None or element is _WRITTEN or (made is str and element is not _TEXT):
        return _WRITTEN
    return Form(pl.List(element.dtype), _same, element=made)
