"""Parsers of PostgreSQL's binary forms: what its send functions write. Numbers are big-endian.

A value that Python cannot hold becomes the text that PostgreSQL would have written, so that both forms give the same.

Source: the send functions in `src/backend/utils/adt`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import struct
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from streamlab.cdc.position import LSN
from streamlab.cdc.values_text import json as _json_text
from streamlab.cdc.values_text import lenient, make_interval

__all__: list[str] = []

Parser = Callable[[bytes], Any]
_int = struct.Struct("!i").unpack_from
_json = lenient(_json_text)


def fixed(form: str) -> Parser:
    """A number of a fixed size, in the notation of `struct`."""
    unpack = struct.Struct("!" + form).unpack

    def parse(data: bytes) -> Any:
        return unpack(data)[0]

    return parse


def number(form: str) -> Parser:
    """The same, as the text that psycopg gives for such a type."""
    unpack = struct.Struct("!" + form).unpack

    def parse(data: bytes) -> str:
        return str(unpack(data)[0])

    return parse


def text(data: bytes) -> str:
    """Text."""
    return data.decode("utf-8", "surrogateescape")


def char(data: bytes) -> str:
    """One byte; beyond ASCII as PostgreSQL writes it in text."""
    (code,) = data
    return chr(code) if 0 < code < 128 else f"\\{code:03o}" if code else ""


def json(data: bytes) -> Any:
    """A json value: its text."""
    return _json(text(data))


def versioned(data: bytes) -> str:
    """A version number, which is 1, and text."""
    if data[0] != 1:
        raise ValueError(f"version {data[0]} is not known")
    return text(data[1:])


def jsonb(data: bytes) -> Any:
    """A jsonb value."""
    return _json(versioned(data))


def uuid(data: bytes) -> UUID:
    """Sixteen bytes."""
    return UUID(bytes=data)


def lsn(data: bytes) -> str:
    """A place in the log, as its text."""
    return str(LSN(int(number("Q")(data))))


def bits(data: bytes) -> str:
    """A bit string, as zeros and ones."""
    (length,) = _int(data)
    if len(data) != 4 + (length + 7) // 8:
        raise ValueError("a bit string of the wrong size")
    return "".join(f"{byte:08b}" for byte in data[4:])[:length]


def numeric(data: bytes) -> Decimal:
    """Digits to the base of 10000, the weight of the first, a sign, and how many decimal places to show."""
    count, weight, sign, scale = _numeric_head(data)
    if sign and sign != 0x4000:
        return Decimal({0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}[sign])
    if count > 4 or not -3 < weight < 4 or scale > 12:
        return _long_numeric(data, count, weight, sign, scale)
    whole = 0
    for digit in struct.unpack(_NUMERIC_DIGITS[count], data[8:]):
        whole = whole * 10_000 + digit
    shift = (weight + 1 - count) * 4 + scale
    whole = whole * 10**shift if shift >= 0 else whole // 10**-shift
    return Decimal(-whole if sign else whole).scaleb(-scale, _EXACT)


_numeric_head = struct.Struct("!HhHH").unpack_from
_NUMERIC_DIGITS = [f"!{count}H" for count in range(5)]
_EXACT = Context(prec=64)


def _long_numeric(data: bytes, count: int, weight: int, sign: int, scale: int) -> Decimal:
    digits = "".join(f"{digit:04}" for digit in struct.unpack(f"!{count}H", data[8:]))
    point = (weight + 1) * 4
    whole, fraction = (digits[:point].ljust(point, "0"), digits[point:]) if point > 0 else ("0", "0" * -point + digits)
    return Decimal(f"{'-' if sign else ''}{whole}.{fraction[:scale].ljust(scale, '0')}")


def inet(data: bytes) -> Any:
    """Family (2 or 3), bits of the netmask, whether it is a network, the length of the address, the address."""
    family, mask, network, length = struct.unpack_from("!4B", data)
    if (family, length) not in {(2, 4), (3, 16)} or len(data) != 4 + length:
        raise ValueError("an address of the wrong size")
    address = ipaddress.ip_address(data[4:])
    if network:
        return ipaddress.ip_network((address, mask))
    return address if mask == address.max_prefixlen else ipaddress.ip_interface((address, mask))


# -- times ----------------------------------------------------------------------------------------

_DAY = 86_400_000_000
_EPOCH = dt.date(2000, 1, 1)
_MIDNIGHT = dt.datetime(2000, 1, 1)
_EDGES = {"i": (2**31 - 1, -(2**31)), "q": (2**63 - 1, -(2**63))}


def _infinite(value: int, form: str) -> str | None:
    high, low = _EDGES[form]
    return "infinity" if value == high else "-infinity" if value == low else None


def _calendar(days: int) -> tuple[str, str]:
    """A date beyond Python's years, and its era; days from 2000-01-01. The calendar repeats in 146097 days."""
    cycles, rest = divmod(days, 146_097)
    day = _EPOCH + dt.timedelta(rest)
    year = day.year + 400 * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04}-{day.month:02}-{day.day:02}", era


def _clock(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def date(data: bytes) -> dt.date | str:
    """Days from 2000-01-01."""
    (days,) = struct.unpack("!i", data)
    if infinite := _infinite(days, "i"):
        return infinite
    try:
        return _EPOCH + dt.timedelta(days)
    except OverflowError:
        return "".join(_calendar(days))


def timestamp(data: bytes) -> dt.datetime | str:
    """Microseconds from 2000-01-01."""
    return _timestamp(data, "")


def timestamptz(data: bytes) -> dt.datetime | str:
    """The same, in UTC."""
    return _timestamp(data, "+00")


def _timestamp(data: bytes, zone: str) -> dt.datetime | str:
    (micros,) = struct.unpack("!q", data)
    if infinite := _infinite(micros, "q"):
        return infinite
    try:
        moment = _MIDNIGHT + dt.timedelta(microseconds=micros)
    except OverflowError:
        days, rest = divmod(micros, _DAY)
        day, era = _calendar(days)
        return f"{day} {_clock(rest)}{zone}{era}"
    return moment.replace(tzinfo=dt.UTC) if zone else moment


def time(data: bytes) -> dt.time | str:
    """Microseconds from midnight."""
    (micros,) = struct.unpack("!q", data)
    return _clock(micros) if micros == _DAY else _time(micros)


def _time(micros: int, zone: dt.tzinfo | None = None) -> dt.time:
    seconds, fraction = divmod(micros, 1_000_000)
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, fraction, zone)


def timetz(data: bytes) -> dt.time | str:
    """The same, and seconds west of Greenwich."""
    micros, west = struct.unpack("!qi", data)
    if micros == _DAY:
        sign, offset = "-" if west > 0 else "+", abs(west)
        text = f"{_clock(micros)}{sign}{offset // 3600:02}"
        minutes, seconds = offset // 60 % 60, offset % 60
        return text + (f":{minutes:02}" if minutes or seconds else "") + (f":{seconds:02}" if seconds else "")
    return _time(micros, dt.timezone(dt.timedelta(seconds=-west)))


def interval(data: bytes) -> Any:
    """Microseconds, days, months."""
    micros, days, months = struct.unpack("!qii", data)
    for sign, text in ((1, "infinity"), (0, "-infinity")):
        if (micros, days, months) == tuple(low + (2 * -low - 1) * sign for low in (-(2**63), -(2**31), -(2**31))):
            return text
    try:
        return make_interval(months, days, micros)
    except OverflowError:
        clock = ("-" if micros < 0 else "") + _clock(abs(micros)) if micros else ""
        return f"{days} days {clock}".strip()


# -- composed values ------------------------------------------------------------------------------


def _members(data: bytes, at: int, count: int, parse: Callable[[int], Parser]) -> tuple[list[Any], int]:
    """So many values, each after its length, which is -1 for NULL; and the place behind them."""
    values: list[Any] = []
    for index in range(count):
        (size,) = _int(data, at)
        at += 4
        if size < 0:
            values.append(None)
            continue
        if at + size > len(data):
            raise ValueError("a member is cut short")
        values.append(parse(index)(data[at : at + size]))
        at += size
    return values, at


def array(element: Parser) -> Parser:
    """Number of dimensions, whether there are NULLs, the element's type; size and lower bound of each; the elements."""

    def parse(data: bytes) -> list[Any]:
        dimensions, _, _ = struct.unpack_from("!iiI", data)
        if not 0 <= dimensions <= 6:
            raise ValueError("an array has up to six dimensions")
        sizes = struct.unpack_from("!" + "ii" * dimensions, data, 12)[::2]
        count = 1 if sizes else 0
        for size in sizes:
            count *= size
        if count < 0 or count * 4 > len(data):
            raise ValueError("an array of the wrong size")
        values, at = _members(data, 12 + 8 * dimensions, count, lambda _: element)
        if at != len(data):
            raise ValueError("an array of the wrong size")
        for size in reversed(sizes[1:]):
            values = [values[start : start + size] for start in range(0, len(values), size)]
        return values

    return parse


def vector(element: Parser) -> Parser:
    """An int2vector or oidvector: sent as an array, written with spaces between, which psycopg leaves as it is."""
    elements = array(element)

    def parse(data: bytes) -> str:
        return " ".join(map(str, elements(data)))

    return parse


def composite(fields: Sequence[Parser], make: Callable[[list[Any]], Any]) -> Parser:
    """Number of fields; for each its type, its length, its bytes."""

    def parse(data: bytes) -> Any:
        (count,) = _int(data)
        if count != len(fields):
            raise ValueError("a composite value of the wrong number of fields")
        values: list[Any] = []
        at = 4
        for field in fields:
            (value,), at = _members(data, at + 4, 1, lambda _, field=field: field)  # type: ignore[misc]
            values.append(value)
        if at != len(data):
            raise ValueError("a composite value of the wrong size")
        return make(values)

    return parse


def range_(bound: Parser) -> Parser:
    """Flags, and the bounds that there are."""

    def parse(data: bytes) -> Range[Any]:
        flags = data[0]
        if flags & 1:
            return Range(empty=True)
        lower, upper = not flags & 8, not flags & 16
        values, at = _members(data, 1, lower + upper, lambda _: bound)
        if at != len(data):
            raise ValueError("a range of the wrong size")
        bounds = ("[" if flags & 2 else "(") + ("]" if flags & 4 else ")")
        return Range(values[0] if lower else None, values[-1] if upper else None, bounds)

    return parse


def multirange(member: Parser) -> Parser:
    """Number of ranges, and each with its length."""

    def parse(data: bytes) -> Multirange[Any]:
        (count,) = _int(data)
        if not 0 <= count * 5 <= len(data):
            raise ValueError("a multirange of the wrong size")
        ranges, at = _members(data, 4, count, lambda _: member)
        if at != len(data):
            raise ValueError("a multirange of the wrong size")
        return Multirange(ranges)

    return parse


def hstore(data: bytes) -> dict[str, str | None]:
    """Number of pairs; keys and values, each with its length."""
    (count,) = _int(data)
    if not 0 <= count * 8 <= len(data):
        raise ValueError("an hstore of the wrong size")
    members, at = _members(data, 4, 2 * count, lambda _: text)
    if at != len(data):
        raise ValueError("an hstore of the wrong size")
    return dict(zip(members[::2], members[1::2], strict=True))
