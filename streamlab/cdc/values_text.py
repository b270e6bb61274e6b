"""Parsers of PostgreSQL's text forms: what its output functions write.

Sources: the PostgreSQL manual, "Data Types" (arrays 8.15.6, composite types 8.16.6, ranges 8.17.5), and the output
functions in `src/backend/utils/adt`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json as _json
import re
from collections.abc import Callable, Sequence
from datetime import time as _time
from datetime import timedelta
from typing import Any, NamedTuple

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from streamlab.cdc.wire import MALFORMED

_loads: Callable[[str], Any] = _json.loads
with contextlib.suppress(ModuleNotFoundError):
    # Three times as fast, and not in the smallest installation.
    from orjson import loads as _loads

__all__ = ["Interval"]

Parser = Callable[[str], Any]


def lenient(parse: Parser) -> Parser:
    """The same parser, which leaves a text as it is that Python has no value for."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except MALFORMED:
            return text

    return parsed


# -- scalars --------------------------------------------------------------------------------------

# Where orjson is not exact: it makes a float of an integer beyond 64 bits.
_LONG = re.compile(r"\d{19}")


def json(text: str) -> Any:
    """Integers are exact; fractions are floats, as everywhere in Python."""
    if _LONG.search(text):
        return _json.loads(text)
    try:
        return _loads(text)
    except ValueError:
        # Such as a lone surrogate, which PostgreSQL's json may hold and orjson refuses.
        return _json.loads(text)


def time(text: str) -> Any:
    """A time of day; 24:00, which Python does not have, stays text."""
    if text.startswith("24"):  # newer Pythons would read midnight, which is another time
        return text
    try:
        return _time.fromisoformat(text)
    except ValueError:
        return text


class Interval(NamedTuple):
    """An interval with months, which have no length in days. One without them is a `timedelta`.

    Attributes
    ----------
    months, days, microseconds : int
        As PostgreSQL keeps them: each with a sign of its own, none carried over into another.
    """

    months: int
    days: int
    microseconds: int


_INTERVAL = re.compile(
    r"(?:([-+]?\d+) years?)? ?(?:([-+]?\d+) mons?)? ?(?:([-+]?\d+) days?)? ?"
    r"(?:([-+]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?"
)


def interval(text: str) -> timedelta | Interval:
    """``1 year 2 mons -3 days 04:05:06.7`` (IntervalStyle postgres)."""
    match = _INTERVAL.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is no interval in the style postgres")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
    micros = 0
    if hours is not None:
        micros = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1_000_000
        micros += int((fraction or "").ljust(6, "0"))
        if sign == "-":
            micros = -micros
    return make_interval(int(years or 0) * 12 + int(months or 0), int(days or 0), micros)


def make_interval(months: int, days: int, microseconds: int) -> timedelta | Interval:
    """A timedelta where that says the same."""
    if months:
        return Interval(months, days, microseconds)
    return timedelta(days=days, microseconds=microseconds)


_ESCAPE = re.compile(r"\\(\\|[0-3][0-7]{2})")


def bytea(text: str) -> bytes:
    """Both of bytea_output's forms, hex and escape."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    plain = _ESCAPE.sub(lambda match: "\\" if match[1] == "\\" else chr(int(match[1], 8)), text)
    return plain.encode("latin-1")


def inet(text: str) -> Any:
    """An address, or an interface where a netmask is given."""
    return ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text)


def cidr(text: str) -> Any:
    """A network."""
    return ipaddress.ip_network(text)


_STRING = r'"((?:[^"\\]|\\.)*)"'
_PAIR = re.compile(rf"{_STRING}=>(?:NULL|{_STRING})(?:, |$)", re.DOTALL)


def hstore(text: str) -> Any:
    """A dict of str to str or None: ``"a"=>"1", "b"=>NULL``."""
    pairs: dict[str, str | None] = {}
    at = 0
    while at < len(text) or text.endswith(", "):
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError("an hstore is cut short")
        key, value = match.groups()
        pairs[_unescape(key)] = None if value is None else _unescape(value)
        at = match.end()
    return pairs


# -- composed values ------------------------------------------------------------------------------


def array(element: Parser, delimiter: str) -> Parser:
    """Arrays: ``{1,NULL,"a \\"b\\""}``, nested, with or without lower bounds (``[0:1]={1,2}``)."""
    token = re.compile(
        rf'"((?:[^"\\]|\\.)*)"|([{{}}])|{re.escape(delimiter)}|([^"{{}}{re.escape(delimiter)}]+)', re.DOTALL
    )

    def value(plain: str) -> Any:
        return None if plain == "NULL" else element(plain)

    def parse(text: str) -> list[Any]:
        if text.startswith("["):
            text = text[text.index("=") + 1 :]
        if text[:1] != "{" or text[-1:] != "}":
            raise ValueError("an array is in braces")
        inner = text[1:-1]
        if '"' not in inner and "{" not in inner:
            if "}" in inner:
                raise ValueError("an array's braces do not match")
            return [value(each) for each in inner.split(delimiter)] if inner else []
        stack: list[list[Any]] = [[]]
        at = 0
        while at < len(text):
            match = token.match(text, at)
            if match is None:
                raise ValueError("an array is cut short")
            at = match.end()
            if match[1] is not None:
                stack[-1].append(element(_unescape(match[1])))
            elif match[2] == "{":
                stack.append([])
            elif match[2] == "}":
                done = stack.pop()
                stack[-1].append(done)
            elif match[3] is not None:
                stack[-1].append(value(match[3]))
        ((result,),) = stack
        if not isinstance(result, list):
            raise TypeError("an array is in braces")
        return result

    return parse


_BACKSLASH = re.compile(r"\\(.)", re.DOTALL)


def _unescape(text: str) -> str:
    return _BACKSLASH.sub(r"\1", text) if "\\" in text else text


_FIELD = re.compile(r'(?:"((?:[^"\\]|""|\\.)*)"|([^",()\\]*))([,)])', re.DOTALL)
_DOUBLED = re.compile(r'""|\\(.)', re.DOTALL)


def _undouble(text: str) -> str:
    return _DOUBLED.sub(lambda match: match[1] or '"', text)


def composite(fields: Sequence[Parser], make: Callable[[list[Any]], Any]) -> Parser:
    """Composite values: ``(1,,"a b")``; an empty field is NULL, a quote or backslash within quotes is doubled."""

    def parse(text: str) -> Any:
        if text[:1] != "(":
            raise ValueError("a composite value is in parentheses")
        values: list[Any] = []
        at = 1
        while at < len(text) or not values:
            match = _FIELD.match(text, at)
            if match is None:
                raise ValueError("a composite value is cut short")
            at = match.end()
            quoted, plain, end = match.groups()
            if quoted is not None:
                values.append(_undouble(quoted))
            else:
                values.append(plain or None)
            if (end == ")") != (at == len(text)):
                raise ValueError("a composite value ends too early or too late")
        if not fields and values == [None]:
            values = []
        return make([None if each is None else field(each) for field, each in zip(fields, values, strict=True)])

    return parse


_BOUND = r'(?:"((?:[^"\\]|""|\\.)*)"|([^",()\[\]\\]*))'
_RANGE = re.compile(rf"([\[(]){_BOUND},{_BOUND}([\])])", re.DOTALL)


def range_(bound: Parser) -> Parser:
    """Ranges: ``[1,10)``, ``(,"2026-01-01 00:00:00"]``, ``empty``."""

    def value(quoted: str | None, plain: str | None) -> Any:
        if quoted is not None:
            return bound(_undouble(quoted))
        return bound(plain) if plain else None

    def parse(text: str) -> Range[Any]:
        if text == "empty":
            return Range(empty=True)
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no range")
        return Range(value(match[2], match[3]), value(match[4], match[5]), match[1] + match[6])

    return parse


def multirange(member: Parser) -> Parser:
    """Multiranges: ``{[1,3),[5,8)}``."""

    def parse(text: str) -> Multirange[Any]:
        if text[:1] != "{" or text[-1:] != "}":
            raise ValueError("a multirange is in braces")
        ranges = []
        at = 1
        while at < len(text) - 1:
            match = _RANGE.match(text, at)
            if match is None:
                raise ValueError("a multirange is cut short")
            ranges.append(member(match[0]))
            at = match.end() + (text[match.end()] == ",")
        return Multirange(ranges)

    return parse
