"""Values of changes as JSON: what a consumer in any language reads without knowing the source's types. Pure.

Nothing is rounded and nothing is lost in silence: what JSON has no exact form for is text.

========================================  =====================================================================
In a `ChangeEvent`                        In JSON
========================================  =====================================================================
None, bool, int, str, list, dict          the same; an integer of any size is a number
float                                     a number; ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` as text
Decimal                                   text, with its trailing zeros and never an exponent: ``"1.50"``
datetime, date, time                      ISO 8601: ``"2026-11-24T18:00:00.250000+00:00"``; naive ones have no offset
timedelta, `streamlab.cdc.values.Interval`  ISO 8601: ``"P1Y2M3DT4H5M6.5S"``, each part with a sign of its own
bytes                                     base64
UUID, addresses and networks              their text
ranges and multiranges                    PostgreSQL's text: ``"[1,10)"``, ``"{[1,3),[5,8)}"``
composite values                          an object
========================================  =====================================================================

orjson does the work. It makes null of a float that is no number and refuses integers beyond 64 bits and lone
surrogates; rows with such a value are found by what it wrote or by its refusal, and are written by the standard
library.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from streamlab.cdc.event import UNCHANGED
from streamlab.errors import SettingsError

__all__ = ["encode", "encode_row", "plain"]

_ADDRESSES = (
    ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    ipaddress.IPv4Network, ipaddress.IPv6Network,
)  # fmt: skip
_MICROSECOND = timedelta(microseconds=1)
_COMPOSED = (list, dict, tuple)


def encode_row(data: Mapping[str, Any]) -> tuple[bytes, tuple[str, ...]]:
    """A row as JSON, and the columns that are left out of it because they did not change and are not known.

    Raises
    ------
    SettingsError
        A value is of a type that has no form here.
    """
    try:
        row = orjson.dumps(data, plain)
    except orjson.JSONEncodeError:
        row = encode(data)  # no plain dict, or awkward
    if b"null" in row and any(map(_hides, data.values())):
        row = _exactly(data)
    if b'"unchanged"' in row:  # what orjson makes of UNCHANGED; most often somebody's text
        unchanged = tuple(name for name, value in data.items() if value is UNCHANGED)
        if unchanged:
            return encode({name: value for name, value in data.items() if value is not UNCHANGED}), unchanged
    return row, ()


def encode(data: Mapping[str, Any]) -> bytes:
    """A mapping of columns to values as a JSON object.

    Raises
    ------
    SettingsError
        A value is of a type that has no form here.
    """
    try:
        made = orjson.dumps(data if data.__class__ is dict else dict(data), default=plain)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, SettingsError):
            raise error.__cause__ from None
        return _exactly(data)
    if b"null" in made and any(map(_hides, data.values())):
        return _exactly(data)
    return made


def _hides(value: Any) -> bool:
    """Whether orjson may have made null of something else in this value."""
    return not math.isfinite(value) if value.__class__ is float else isinstance(value, _COMPOSED)


def _exactly(data: Mapping[str, Any]) -> bytes:
    primitive = _primitive(dict(data))
    try:
        return json.dumps(primitive, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no form in UTF-8, and one in JSON: an escape.
        return json.dumps(primitive, separators=(",", ":"), allow_nan=False).encode()


def _primitive(value: Any) -> Any:
    """The same, of what JSON has alone."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else plain(value)
    if isinstance(value, dict):
        return {str(name): _primitive(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [_primitive(each) for each in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return _primitive(plain(value))


def plain(value: Any) -> Any:
    """What stands in JSON for a value that orjson does not know.

    Raises
    ------
    SettingsError
        The type has no form here.
    """
    kind = type(value)
    if kind is Decimal:
        return format(value, "f")
    if kind is bytes:
        return base64.b64encode(value).decode("ascii")
    if kind is timedelta:
        # Python keeps a negative one as days below it and a time above them.
        total = value // _MICROSECOND
        days = _quotient(total, 86_400_000_000)
        return _duration(0, days, total - 86_400_000_000 * days)
    if kind is float:
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if kind is time:  # with an offset
        return value.isoformat()
    if isinstance(value, _ADDRESSES):
        return str(value)
    if isinstance(value, tuple):
        if kind.__name__ == "Interval":
            return _duration(*value)
        return value._asdict() if hasattr(value, "_asdict") else list(value)
    if kind.__name__ == "Range":
        return _range(value)
    if kind.__name__ == "Multirange":
        return "{" + ",".join(map(_range, value)) + "}"
    raise SettingsError(
        f"A value of the type {kind.__qualname__} has no form in JSON.", "Leave its table or its column out."
    )


def _duration(months: int, days: int, micros: int) -> str:
    """As PostgreSQL writes intervals with IntervalStyle=iso_8601."""
    sign = -1 if micros < 0 else 1
    seconds, fraction = divmod(abs(micros), 1_000_000)
    parts = [(_quotient(months, 12), "Y"), (months - 12 * _quotient(months, 12), "M"), (days, "D")]
    text = "P" + "".join(f"{number}{letter}" for number, letter in parts if number)
    clock = [(sign * (seconds // 3600), "H"), (sign * (seconds // 60 % 60), "M")]
    later = "".join(f"{number}{letter}" for number, letter in clock if number)
    if seconds % 60 or fraction or not (later or text != "P"):
        tail = f".{fraction:06d}".rstrip("0") if fraction else ""
        later += f"{'-' if sign < 0 else ''}{seconds % 60}{tail}S"
    return text + (f"T{later}" if later else "")


def _quotient(number: int, by: int) -> int:
    return abs(number) // by * (1 if number >= 0 else -1)


def _range(value: Any) -> str:
    if value.isempty:
        return "empty"
    lower, upper = (_bound(each) for each in (value.lower, value.upper))
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"


def _bound(value: Any) -> str:
    if value is None:
        return ""
    text = str(_primitive(value))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if set(text) & set(' ,"\\()[]') else text
