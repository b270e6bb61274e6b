"""What dates, times and lengths of time of Connect and Debezium become, as JSON has them.

They are numbers since 1970 or midnight, in the unit that the type's name says, or ISO text. What Python cannot hold (a
year beyond 9999, a nanosecond) is text as the database writes it.

Source: Debezium's manual, "Temporal types" of each connector; `io.debezium.time`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from streamlab.cdc.debezium.schema import Field, Reader

__all__ = ["TIMES", "day_text"]

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = 719_163
"""Ordinal of 1970-01-01."""
_DAY_MICROS: Final = 86_400_000_000


def day_text(days: int) -> str:
    """A day that Python has no date for, as PostgreSQL writes it: ``0044-03-15 BC``, ``12345-01-01``."""
    cycles, days = divmod(days + _DAY, 146_097)  # of 400 years
    shown = date.fromordinal(days or 146_097)
    year = shown.year + 400 * (cycles if days else cycles - 1)
    return f"{year:04}-{shown:%m-%d}" if year > 0 else f"{1 - year:04}-{shown:%m-%d} BC"


def _date(parameters: Field, database: str) -> Reader:
    made, first = date.fromordinal, _DAY

    def read(days: int) -> Any:
        try:
            return made(days + first)
        except (ValueError, OverflowError):
            return day_text(days)

    return read


def _clock(nanos: int) -> str:
    """``24:00:00``, ``12:00:00.123456789``."""
    whole, rest = divmod(nanos, 1_000_000_000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}" + (f".{rest:09}".rstrip("0") if rest else "")


def _time(unit: int) -> Callable[[Field, str], Reader]:
    """Of a day in PostgreSQL; a length of time in MySQL. `unit` in nanoseconds."""

    def make(parameters: Field, database: str) -> Reader:
        def length(value: int) -> Any:
            return timedelta(microseconds=value * unit // 1000)

        def clock(value: int) -> Any:
            micros, rest = divmod(value * unit, 1000)
            if rest or not 0 <= micros < _DAY_MICROS:
                return _clock(value * unit)
            return (_EPOCH + timedelta(microseconds=micros)).time()

        return length if database == "mysql" else clock

    return make


_INFINITE: Final = {9_223_372_036_825_200_000: "infinity", -9_223_372_036_832_400_000: "-infinity"}
"""What Debezium makes of PostgreSQL's infinite timestamps, in microseconds."""


def _moment(unit: int) -> Callable[[Field, str], Reader]:
    """A naive timestamp. `unit` in nanoseconds."""
    per = {1: 0, 1000: 1, 1_000_000: 1000}[unit]
    infinite = {number // 1000 if unit == 1_000_000 else number: text for number, text in _INFINITE.items()}
    if unit == 1:
        infinite = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}

    def make(parameters: Field, database: str) -> Reader:
        epoch, delta = _EPOCH, timedelta

        def careful(value: int) -> str:
            if database == "postgresql" and value in infinite:
                return infinite[value]
            days, rest = divmod(value * unit, _DAY_MICROS * 1000)
            text, _, era = day_text(days).partition(" ")
            return f"{text} {_clock(rest)} {era}".rstrip()

        def read(value: int) -> Any:
            try:
                return epoch + delta(0, 0, value * per)
            except OverflowError:
                return careful(value)

        def nanos(value: int) -> Any:
            micros, rest = divmod(value, 1000)
            if rest:
                return careful(value)
            return epoch + delta(0, 0, micros)

        return read if per else nanos

    return make


def _iso_date(parameters: Field, database: str) -> Reader:
    return lambda text: _read(date.fromisoformat, text.removesuffix("Z"), text)


def _iso_time(parameters: Field, database: str) -> Reader:
    def length(text: str) -> Any:
        made = _read(time.fromisoformat, text.removesuffix("Z"), text)
        return made if isinstance(made, str) else datetime.combine(_EPOCH, made) - _EPOCH

    return length if database == "mysql" else lambda text: _read(time.fromisoformat, text.removesuffix("Z"), text)


def _iso_moment(parameters: Field, database: str) -> Reader:
    made = datetime.fromisoformat

    def read(text: str) -> Any:
        if len(text) <= 27 and text[-1:] == "Z":
            try:
                return made(text[:-1])
            except ValueError:
                return text
        return _read(made, text.removesuffix("Z"), text)

    return read


def _zoned(parameters: Field, database: str) -> Reader:
    make = datetime.fromisoformat

    def read(text: str) -> Any:
        if len(text) <= 27 and text[-1:] == "Z":
            try:
                return make(text)  # which has UTC
            except ValueError:
                return text
        made = _read(make, text, text)
        return made if isinstance(made, str) or made.tzinfo is UTC else made.astimezone(UTC)

    return read


def _zoned_time(parameters: Field, database: str) -> Reader:
    return lambda text: _read(time.fromisoformat, text, text)


_FINER = re.compile(r"\.\d{6}\d*[1-9]")


def _read(make: Callable[[str], Any], text: str, whole: str) -> Any:
    """A text that is finer than Python, or out of its range, stays one."""
    if len(text) > 15 and _FINER.search(text):
        return whole
    try:
        return make(text)
    except ValueError:
        return whole


_INTERVAL = re.compile(
    r"P(?:([-+]?\d+)Y)?(?:([-+]?\d+)M)?(?:([-+]?\d+)W)?(?:([-+]?\d+)D)?"
    r"(?:T(?:([-+]?\d+)H)?(?:([-+]?\d+)M)?(?:([-+]?)(\d+)(?:\.(\d{1,9}))?S)?)?"
)


def _interval(parameters: Field, database: str) -> Reader:
    def read(text: str) -> Any:
        match = _INTERVAL.fullmatch(text)
        if match is None or text == "P":
            return text
        years, months, weeks, days, hours, minutes = (int(each or 0) for each in match.groups()[:6])
        sign, seconds, fraction = match.groups()[6:]
        part = int((fraction or "")[:6].ljust(6, "0")) + 1_000_000 * int(seconds or 0)
        micros = (hours * 3600 + minutes * 60) * 1_000_000 + (-part if sign == "-" else part)
        # PostgreSQL's own reader of intervals needs its driver, and months come from nowhere else.
        if years or months:
            from streamlab.cdc.values_text import make_interval

            return make_interval(12 * years + months, 7 * weeks + days, micros)
        return timedelta(days=7 * weeks + days, microseconds=micros)

    return read


def _duration(unit: int) -> Callable[[Field, str], Reader]:
    return lambda parameters, database: lambda value: timedelta(microseconds=value * unit // 1000)


_TIME: Final = "io.debezium.time."
_CONNECT: Final = "org.apache.kafka.connect.data."
TIMES: Final[Mapping[str, Callable[[Field, str], Reader | None]]] = {
    _CONNECT + "Date": _date,
    _CONNECT + "Time": _time(1_000_000),
    _CONNECT + "Timestamp": _moment(1_000_000),
    _TIME + "Date": _date,
    _TIME + "Time": _time(1_000_000),
    _TIME + "MicroTime": _time(1000),
    _TIME + "NanoTime": _time(1),
    _TIME + "Timestamp": _moment(1_000_000),
    _TIME + "MicroTimestamp": _moment(1000),
    _TIME + "NanoTimestamp": _moment(1),
    _TIME + "ZonedTimestamp": _zoned,
    _TIME + "ZonedTime": _zoned_time,
    _TIME + "IsoDate": _iso_date,
    _TIME + "IsoTime": _iso_time,
    _TIME + "IsoTimestamp": _iso_moment,
    _TIME + "Year": lambda parameters, database: None,
    _TIME + "Interval": _interval,
    _TIME + "MicroDuration": _duration(1000),
    _TIME + "NanoDuration": _duration(1),
}
"""Name of a type -> (parameters, database) -> what reads its values; None where they are read already."""
