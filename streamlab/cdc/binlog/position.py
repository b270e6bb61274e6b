"""Positions in MySQL's binary log: the transactions that are past, by their global identifiers, and a place in a file.

A GTID names a transaction for all servers of a topology: the UUID of the server on which it was committed (since 8.3
with a tag, if the client gave one) and a number. A set of them says exactly what a reader has, on whichever server it
asks for more; a file and an offset are a place on one server, for the order of what that server sends, and for people.

Text: ``binlog.000012:4567 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77``.

Source: MySQL's manual, "GTID Format and Storage" and "GTID Sets"; `sql/rpl_gtid_set.cc` (Gtid_set::encode).
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from streamlab.errors import SettingsError

__all__ = ["BinlogPosition", "GTIDSet"]

_Intervals = tuple[tuple[int, int], ...]
_NUMBERS = re.compile(r"(\d+)(?:-(\d+))?")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_PLACE = re.compile(r"(.+?\.(\d+)):(\d+)(?: (.*))?")
_NONE: Final[Mapping[str, _Intervals]] = {}
_LAST = 0x7FFFFFFFFFFFFFFE


class GTIDSet:
    """A set of global transaction identifiers; ``<=`` is "is contained in". Immutable; threads may share it.

    Parameters
    ----------
    sources : mapping of str to tuple of (int, int)
        UUID, or ``uuid:tag`` -> intervals, in order, apart, each without its end.
    """

    __slots__ = ("_hash", "_sources")

    def __init__(self, sources: Mapping[str, _Intervals] = _NONE) -> None:
        self._sources = sources
        self._hash: int | None = None

    @classmethod
    def parse(cls, text: str) -> GTIDSet:
        """Read MySQL's own form, such as the value of ``gtid_executed``.

        Raises
        ------
        SettingsError
            The text is no GTID set.
        """
        made = cls()
        for part in "".join(text.split()).lower().split(","):
            if not part:
                continue
            name, *rest = part.split(":")
            try:
                source = uuid = str(UUID(name))
                if not rest:
                    raise ValueError
                for each in rest:
                    numbers = _NUMBERS.fullmatch(each)
                    if numbers is None:
                        if _TAG.fullmatch(each) is None:
                            raise ValueError
                        source = f"{uuid}:{each}"
                        continue
                    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
                    if not 0 < first <= last <= _LAST:
                        raise ValueError
                    made = made._with(source, first, last + 1)
            except ValueError:
                raise SettingsError(
                    f"{text!r} is no GTID set.", "One looks like 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77."
                ) from None
        return made

    def add(self, source: str, number: int) -> GTIDSet:
        """The set with one more identifier."""
        intervals = self._sources.get(source)
        if intervals is not None and intervals[-1][1] == number:
            # As good as always: the next one of the same source.
            sources = dict(self._sources)
            sources[source] = (*intervals[:-1], (intervals[-1][0], number + 1))
            return GTIDSet(sources)
        return self._with(source, number, number + 1)

    def _with(self, source: str, start: int, end: int) -> GTIDSet:
        joined: list[tuple[int, int]] = []
        for first, last in self._sources.get(source, ()):
            if last < start or end < first:
                joined.append((first, last))
            else:
                start, end = min(start, first), max(end, last)
        return GTIDSet({**self._sources, source: tuple(sorted([*joined, (start, end)]))})

    def __or__(self, other: GTIDSet) -> GTIDSet:
        made = self
        for source, intervals in other._sources.items():
            for start, end in intervals:
                made = made._with(source, start, end)
        return made

    def holds(self, source: str, number: int) -> bool:
        """Whether an identifier is in the set."""
        intervals = self._sources.get(source, ())
        at = bisect_right(intervals, (number, _LAST + 2)) - 1
        return at >= 0 and number < intervals[at][1]

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __len__(self) -> int:
        """The number of identifiers."""
        return sum(end - start for intervals in self._sources.values() for start, end in intervals)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GTIDSet) and self._sources == other._sources

    def __le__(self, other: GTIDSet) -> bool:
        for source, intervals in self._sources.items():
            theirs = other._sources.get(source, ())
            if intervals == theirs:
                continue
            for start, end in intervals:
                at = bisect_right(theirs, (start, _LAST + 2)) - 1
                if at < 0 or theirs[at][1] < end:
                    return False
        return True

    def __lt__(self, other: GTIDSet) -> bool:
        return self != other and self <= other

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._sources.items()))
        return self._hash

    def __str__(self) -> str:
        parts = []
        for source, intervals in sorted(self._sources.items()):
            numbers = (f"{start}-{end - 1}" if end - start > 1 else str(start) for start, end in intervals)
            parts.append(":".join([source, *numbers]))
        return ",".join(parts)

    def __repr__(self) -> str:
        return f"GTIDSet('{self}')"

    def encode(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID takes it. With tags it has another form, which servers before 8.3 do not know."""
        tagged = any(":" in source for source in self._sources)
        count = len(self._sources)
        parts = [struct.pack("<Q", 1 << 56 | count << 8 | 1 if tagged else count)]
        for source, intervals in sorted(self._sources.items()):
            uuid, _, tag = source.partition(":")
            parts.append(UUID(uuid).bytes)
            if tagged:
                parts.append(bytes([len(tag) << 1]) + tag.encode())
            parts.append(struct.pack("<Q", len(intervals)))
            parts.extend(struct.pack("<QQ", *interval) for interval in intervals)
        return b"".join(parts)


class BinlogPosition:
    """A place in the binary log, and all transactions before it. Immutable; threads may share it.

    In order of the sets, where one holds the other; else, on one server, by file and offset. So positions of two
    servers of one topology compare too.

    Parameters
    ----------
    file : str
        Of the server that sent it: ``binlog.000012``.
    offset : int
        Bytes from the file's beginning.
    gtids : GTIDSet
        What is past: a stream that begins here brings all others. A transaction that is prepared (XA) and not yet
        committed is not in it.
    """

    __slots__ = ("_place", "file", "gtids", "number", "offset")

    def __init__(self, file: str, offset: int, gtids: GTIDSet) -> None:
        self.file, self.offset, self.gtids = file, offset, gtids
        ending = file.rpartition(".")[2]
        self.number = int(ending) if ending.isdigit() else 0
        self._place = self.number << 40 | offset

    @classmethod
    def parse(cls, text: str) -> BinlogPosition:
        """Read what `str` wrote.

        Raises
        ------
        SettingsError
            The text is no such position.
        """
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise SettingsError(
                f"{text!r} is no position in a binary log.", "One looks like binlog.000012:4567 and a GTID set."
            )
        return cls(match[1], int(match[3]), GTIDSet.parse(match[4] or ""))

    @classmethod
    def of_status(cls, row: Sequence[Any]) -> BinlogPosition:
        """From a row of SHOW BINARY LOG STATUS: file, offset, two filters, and all transactions of the server."""
        return cls(str(row[0]), int(row[1]), GTIDSet.parse(row[4]))

    def __int__(self) -> int:
        """File number and offset as one number, in order on one server."""
        return self._place

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, BinlogPosition) or self._place != other._place:
            return False
        return self.file == other.file and self.gtids == other.gtids

    def __hash__(self) -> int:
        return hash((self.file, self.offset))

    def __lt__(self, other: BinlogPosition) -> bool:
        if not isinstance(other, BinlogPosition):
            return NotImplemented
        mine, theirs = self.gtids, other.gtids
        if mine is not theirs and mine != theirs:
            if mine <= theirs:
                return True
            if theirs <= mine:
                return False
        return self._place < other._place

    def __le__(self, other: BinlogPosition) -> bool:
        if not isinstance(other, BinlogPosition):
            return NotImplemented
        return self == other or self < other

    def __gt__(self, other: BinlogPosition) -> bool:
        return other < self

    def __ge__(self, other: BinlogPosition) -> bool:
        return other <= self

    def __str__(self) -> str:
        return f"{self.file}:{self.offset} {self.gtids}".rstrip()

    def __repr__(self) -> str:
        return f"BinlogPosition('{self}')"
