"""A connector's configuration as a JSON file, with the line on which each key stands.

Three forms are read, as they are found: the body of ``POST /connectors`` and the answer to ``GET /connectors/<name>``
(``{"name": ..., "config": {...}}``), and the body of ``PUT /connectors/<name>/config`` (the keys themselves).

`json` tells no lines, and keeps the last of two equal keys without a word; so the outer objects are scanned here,
and the standard library reads each string and value in them. Grammar: RFC 8259.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import JSONDecodeError, JSONDecoder
from typing import Any

__all__ = ["Entry", "entries"]

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = JSONDecoder()


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a configuration, its value as JSON has it, and its line, counted from 1."""

    key: str
    value: Any
    line: int


def entries(text: str) -> list[Entry]:
    """The keys of the configuration in a file, in the order of the file, equal keys included.

    Raises
    ------
    json.JSONDecodeError
        It is no JSON, or no object; two objects are called ``config``; or it is nested too deeply, or a number is too
        long, for the standard library. `lineno` is where.
    """
    text = text.removeprefix("\ufeff")
    outer = list(_members(text, _skip(text, 0)))
    configs = [at for key, at in outer if key.key == "config" and text[at] == "{"]
    if len(configs) > 1:
        raise JSONDecodeError("A second config stands here, and the first is lost", text, configs[1])
    wrapped = configs[0] if configs else None
    inner = _members(text, wrapped) if wrapped is not None else iter(outer)
    found = [Entry(key.key, _value(text, at)[0], key.line) for key, at in inner]
    end = _skip(text, _value(text, _skip(text, 0))[1])
    if end != len(text):
        raise JSONDecodeError("Something follows the configuration", text, end)
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise JSONDecodeError("It is nested too deeply", text, at) from error
    except JSONDecodeError:
        raise
    except ValueError as error:
        # Python reads no number of more than some thousand digits.
        raise JSONDecodeError("The number is too long", text, at) from error
    return value, end


def _members(text: str, at: int) -> Iterator[tuple[Entry, int]]:
    """The keys of the object that begins at a place, each with the place of its value."""
    if text[at : at + 1] != "{":
        raise JSONDecodeError("A configuration is an object, in braces", text, at)
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return
    while True:
        if text[at : at + 1] != '"':
            raise JSONDecodeError("A key in double quotes is expected", text, at)
        key, after = _value(text, at)
        line = text.count("\n", 0, at) + 1
        at = _skip(text, after)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("A colon is expected", text, at)
        at = _skip(text, at + 1)
        yield Entry(key, key, line), at
        at = _skip(text, _value(text, at)[1])
        if text[at : at + 1] == "}":
            return
        if text[at : at + 1] != ",":
            raise JSONDecodeError("A comma is expected", text, at)
        at = _skip(text, at + 1)
