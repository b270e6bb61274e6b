"""Values in PostgreSQL's text form, where only their binary form came: what frames hold for types without a column.

Arrays and composite values are written from their parts, each in its own text form: a value of Python does not tell any
more whether a list was an array or JSON, and whether a None was NULL or the null of JSON.

Source: PostgreSQL's manual, "Array Input and Output Syntax" and "Composite Type Input and Output Syntax". Every part is
in quotes, which both allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer

from streamlab.cdc import values_binary as binary
from streamlab.cdc.values_text import Interval
from streamlab.cdc.wire import MALFORMED

__all__ = ["Writer", "array", "composite", "plain", "written"]

Writer = Callable[[bytes], str]
"""From a binary form to PostgreSQL's text."""


def written(value: Any) -> str:
    """A value of Python as PostgreSQL reads it; bytes in hex."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, dict):
        return ", ".join(f"{_pair(key)}=>{_pair(each)}" for key, each in value.items())
    if isinstance(value, Interval):
        return f"{value.months} mons {value.days} days {value.microseconds} microseconds"
    try:
        dumped = Transformer().get_dumper(value, PyFormat.TEXT).dump(value)
    except psycopg.Error:
        return str(value)
    return bytes(dumped or b"").decode("utf-8", "surrogateescape")


def plain(parse: Callable[[bytes], Any]) -> Writer:
    """Of a type whose values say by themselves how they are written; bytes that are no value are written in hex."""

    def write(data: bytes) -> str:
        try:
            return written(parse(data))
        except MALFORMED:
            return written(data)

    return write


def array(element: Writer, delimiter: str) -> Writer:
    """Of arrays; lower bounds are dropped, as in their values."""
    parse = binary.array(element)

    def braces(values: Sequence[Any]) -> str:
        parts = ("NULL" if each is None else each if isinstance(each, str) else braces(each) for each in values)
        return "{" + delimiter.join(parts) + "}"

    def quoted(values: Sequence[Any]) -> list[Any]:
        return [
            None if each is None else quoted(each) if isinstance(each, list) else _quoted(each, "\\\\", '\\"')
            for each in values
        ]

    return lambda data: braces(quoted(parse(data)))


def composite(fields: Sequence[Writer]) -> Writer:
    """Of composite values."""
    return binary.composite(
        fields, lambda parts: "(" + ",".join("" if p is None else _quoted(p, "\\\\", '""') for p in parts) + ")"
    )


def _quoted(text: str, backslash: str, quote: str) -> str:
    return '"' + text.replace("\\", backslash).replace('"', quote) + '"'


def _pair(text: str | None) -> str:
    """A key or value of an hstore."""
    return "NULL" if text is None else _quoted(text, "\\\\", '\\"')
