"""Positions in a source's log: values of their own type, ordered within one source, printable.

A position says how far a reader has come. It is no bare integer: an LSN and a binary log offset must not be mixed up,
and a person has to be able to compare it with what the server shows.
"""

from __future__ import annotations

import re
from typing import Protocol, Self, runtime_checkable

from streamlab.errors import SettingsError

__all__ = ["LSN", "Position"]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


@runtime_checkable
class Position(Protocol):
    """What every source's positions can do: be compared with others of the same source, hashed, and printed."""

    def __lt__(self, other: Self, /) -> bool: ...
    def __le__(self, other: Self, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __str__(self) -> str:
        """The text by which the source's own tools know it, and by which it is stored."""
        ...


class LSN(int):
    """A log sequence number of PostgreSQL: a byte's place in the write-ahead log, shown as ``0/16B3748``.

    Differences are bytes of WAL, as plain integers. Immutable; threads may share it.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> LSN:
        """Read PostgreSQL's own form.

        Raises
        ------
        SettingsError
            The text is no LSN.
        """
        match = _LSN.fullmatch(text.strip())
        if match is None:
            raise SettingsError(f"{text!r} is no LSN.", "An LSN looks like 0/16B3748.")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN('{self}')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _repr_html_(self) -> str:
        return f"<code>{self}</code>"
