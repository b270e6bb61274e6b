"""Spans of a message's bytes, and how they are taken one behind the other. Used by `streamlab.cdc.anatomy`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from streamlab.cdc.messages import Layout, Meaning
from streamlab.cdc.position import LSN
from streamlab.cdc.wire import MALFORMED, moment, string

__all__ = ["Fault", "Span", "Walk", "quoted"]

_IDENTITIES = {"d": "primary key", "i": "a unique index", "f": "the whole row", "n": "nothing"}
_OPTIONS = {0: "none", 1: "CASCADE", 2: "RESTART IDENTITY", 3: "CASCADE, RESTART IDENTITY"}

_Read = Callable[[bytes], tuple[Any, str]]
"""Bytes -> their value, and the value in words."""


class Span(NamedTuple):
    """Bytes that belong together.

    Attributes
    ----------
    start, end : int
        Offsets in the message.
    group : str
        What it is a part of: ``XLogData``, the kind of the message, a row of it, a column of a Relation.
    name : str
        Of the field, or the column.
    meaning : Meaning or None
        What kind of field it is; None for bytes that could not be read.
    value : Any
        What it is in Python.
    shown : str
        The value in words.
    """

    start: int
    end: int
    group: str
    name: str
    meaning: Meaning | None
    value: Any
    shown: str


class Fault(Exception):
    """The message cannot be read from here on."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


class Walk:
    """A message, and how far it has been read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.spans: list[Span] = []
        self.kind = "unknown"
        self.table = self.fault = ""

    def value(self, name: str, meaning: Meaning) -> Any:
        """The value of a field that was taken."""
        return next(span.value for span in self.spans if span.name == name and span.meaning is meaning)

    def letter_at(self, at: int) -> str:
        """The letter at a place, which is not taken."""
        if at >= len(self.data):
            raise Fault(at, "it ends here, and is not complete")
        return chr(self.data[at])

    def letter(self) -> str:
        """Take the letter of the message."""
        letter = self.letter_at(self.at)
        self.take("", "message", Meaning.LETTER, 1, lambda _: (letter, repr(letter)))
        return letter

    def fixed(self, group: str, layout: Layout, name: str = "") -> None:
        """Take fields of fixed size, under a name that differs from their own."""
        for field, reader in layout.parts:
            self.take(group, name or field.name, field.meaning, reader.size, _reader(field.meaning, field.name, reader))

    def string(self, group: str, name: str) -> None:
        """Take a string with the zero byte that ends it."""
        try:
            value, end = string(self.data, self.at)
        except ValueError:
            raise Fault(self.at, f"the string {name} does not end") from None
        self.take(group, name, Meaning.STRING, end - self.at, lambda _: (value, repr(value)))

    def take(self, group: str, name: str, meaning: Meaning, size: int, read: _Read) -> None:
        """Take so many bytes; raises `Fault` where they are missing or cannot be read."""
        at, end = self.at, self.at + size
        if end > len(self.data):
            raise Fault(at, f"{name} has {size:,} bytes, and {len(self.data) - at:,} are left")
        try:
            value, shown = read(self.data[at:end])
        except MALFORMED as error:
            raise Fault(at, f"{name} cannot be read: {error}") from None
        self.spans.append(Span(at, end, group, name, meaning, value, shown))
        self.at = end

    def broken(self, at: int, why: str) -> None:
        """The rest, from a place on, cannot be read."""
        self.spans = [span for span in self.spans if span.end <= at]
        if at < len(self.data):
            self.spans.append(Span(at, len(self.data), self.kind, "not read", None, self.data[at:], why))
        self.fault = why


def _reader(meaning: Meaning, name: str, reader: struct.Struct) -> _Read:
    def read(data: bytes) -> tuple[Any, str]:
        (raw,) = reader.unpack(data)
        match meaning:
            case Meaning.LSN:
                return LSN(raw), str(LSN(raw))
            case Meaning.TIME:
                at = moment(raw)
                return at, at.strftime("%Y-%m-%d %H:%M:%S.%f UTC") if at.year > 999 else str(at)
            case Meaning.LETTER:
                letter = raw.decode("latin-1")
                words = {"replica identity": _IDENTITIES.get(letter), "CopyData holds": "XLogData"}.get(name)
                return letter, f"{letter!r}: {words}" if words else repr(letter)
            case Meaning.FLAG:
                return raw, f"{raw}: {'yes' if raw & 1 else 'no'}"
            case Meaning.FLAGS:
                words = _OPTIONS.get(raw, "unknown") if name == "options" else "none"
                return raw, f"{raw}: {words}" if name == "options" or not raw else str(raw)
            case Meaning.LENGTH:
                return raw, f"{raw:,} byte{'' if raw == 1 else 's'}"
            case _:
                return raw, str(raw)

    return read


def quoted(data: bytes) -> str:
    """Bytes as Python writes them, cut where they are long."""
    return repr(data) if len(data) <= 40 else f"{data[:40]!r} and {len(data) - 40:,} more bytes"
