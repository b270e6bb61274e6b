"""The messages of one batch as arrays: their letters and places, and which transaction each belongs to.

Begin and Commit, whose fields stand at fixed places, are read all at once; what is rare (Relation, Type, Origin,
Truncate, Message) one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamlab.cdc.frames.slices import Integers, Whole
from streamlab.cdc.frames.tables import Rows, Table, meta, unfit_rows, valid
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import MALFORMED, START, LogicalMessage, Relation, origin, relation, truncated, type_name
from streamlab.errors import ProtocolError

__all__ = ["Broken", "Logical", "Messages", "Open", "Others", "Place", "logical_messages"]

_B, _C, _R, _T, _M, _O, _Y = (ord(letter) for letter in "BCRTMOY")
_ROW: Final = np.zeros(256, np.bool_)
_ROW[[ord(letter) for letter in "IUD"]] = True
_KNOWN: Final = _ROW.copy()
_KNOWN[[ord(letter) for letter in "BCRTMOY"]] = True
_BEGIN_SIZE, _COMMIT_SIZE, _LEAST_ROW = START + 21, START + 26, START + 8
_EPOCH = datetime(2000, 1, 1)
_TIMES: Final = tuple((edge - _EPOCH) // timedelta(microseconds=1) for edge in (datetime.min, datetime.max))

_Key = Callable[[Relation], tuple[str, ...]]
"""The key of a table that the stream describes."""


class Broken(Exception):
    """A message that cannot be read, by its number."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(index, why)
        self.index, self.why = index, why


@dataclass(frozen=True, slots=True)
class Open:
    """The transaction that is open at the end of a batch: position and time of its commit, changes so far."""

    position: int
    micros: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical message: number, when it was sent, and what it says."""

    index: int
    sent: int
    read: LogicalMessage


@dataclass(frozen=True, slots=True)
class Others:
    """What there is beside rows.

    Attributes
    ----------
    tables : dict of int to list of (int, Table)
        OID -> messages from which on a table looks otherwise.
    truncated : list of (int, int, int)
        Message, OID, number within the message.
    logical : list of Logical
        Logical messages.
    counts : array of int
        How many changes each message makes in its transaction.
    """

    counts: Integers
    tables: dict[int, list[tuple[int, Table]]] = field(default_factory=dict)
    truncated: list[tuple[int, int, int]] = field(default_factory=list)
    logical: list[Logical] = field(default_factory=list)

    def last(self, oid: int, before: dict[int, Table]) -> Table | None:
        """How a table was described last, here or before."""
        changes = self.tables.get(oid)
        return changes[-1][1] if changes else before.get(oid)


@dataclass(frozen=True, slots=True)
class Place:
    """Which transaction each message belongs to, and its place there.

    Attributes
    ----------
    number : array of int
        Of each message: its transaction's place in `position` and `micros`. The first is the one that was open.
    ordinal : array of int
        Of each message.
    after : Open or None
        The transaction that is open at the end.
    """

    number: Integers
    position: npt.NDArray[np.uint64]
    micros: Integers
    ordinal: Integers
    after: Open | None


class Messages:
    """Messages in one run of bytes."""

    def __init__(self, messages: Sequence[bytes | memoryview]) -> None:
        size = np.fromiter(map(len, messages), np.int64, len(messages))
        short = int(size.argmin())
        if size[short] <= START:
            raise Broken(short, "it is cut short")
        self.whole = Whole(b"".join(messages))
        self.end = np.cumsum(size)
        self.start = self.end - size
        self.kinds = self.whole.bytes[self.start + START]
        self._is_row = _ROW[self.kinds]
        self.rows = np.flatnonzero(self._is_row)
        self._depth: Integers = np.zeros(0, np.int64)
        self.begins = self.commits = self.rows

    def field(self, index: Integers, offset: int, form: str) -> npt.NDArray[Any]:
        """A number at a fixed place of some messages, counted from their letter."""
        return self.whole.read(self.start[index] + START + offset, form)

    def message(self, index: int) -> bytes:
        """One message."""
        return self.whole.data[self.start[index] : self.end[index]]

    def check(self, *, open_: bool) -> Integers:
        """Find Begin and Commit; returns the latter.

        Raises
        ------
        Broken
            They do not alternate, or a row stands outside of a transaction.
        """
        kinds = self.kinds
        begin, commit = kinds == _B, kinds == _C
        self.begins, self.commits = np.flatnonzero(begin), np.flatnonzero(commit)
        depth = self._depth = open_ + np.cumsum(begin) - np.cumsum(commit)
        size = self.end - self.start
        for wrong, why in (
            (~_KNOWN[kinds], "it is not of protocol version 1"),
            ((depth < 0) | (depth > 1), "it neither ends nor begins a transaction here"),
            (self._is_row & (depth != 1), "it is outside of a transaction"),
            (begin & (size != _BEGIN_SIZE) | commit & (size != _COMMIT_SIZE), "its length is wrong"),
            (self._is_row & (size < _LEAST_ROW), "it is cut short"),
        ):
            if wrong.any():
                raise Broken(int(wrong.argmax()), why)
        return self.commits

    def others(self, tables: dict[int, Table], types: TypeMap, key: _Key) -> Others:
        """Read what is neither a row nor Begin nor Commit."""
        found = Others(self._is_row.astype(np.int64))
        kinds = self.kinds
        for index in np.flatnonzero(~self._is_row & (kinds != _B) & (kinds != _C)).tolist():
            try:
                self._other(index, found, tables, types, key)
            except ProtocolError:
                raise
            except MALFORMED as error:
                why = str(error) if isinstance(error, ValueError) else "it is not complete"
                raise Broken(index, why) from error
        return found

    def _other(self, index: int, found: Others, tables: dict[int, Table], types: TypeMap, key: _Key) -> None:
        message, kind = self.message(index), self.kinds[index]
        inside = bool(self._depth[index])
        if kind == _R:
            described = relation(message, START + 1)
            version = types.version
            types.learn((column.type_oid for column in described.columns), anew=True)
            if types.version != version:
                for oid, table in [(oid, found.last(oid, tables)) for oid in {*tables, *found.tables}]:
                    if table is not None and table.outdated(types):
                        found.tables.setdefault(oid, []).append((index, table.anew(types)))
            last, names = found.last(described.oid, tables), key(described)
            if last is None or last.relation != described or last.key != names:
                found.tables.setdefault(described.oid, []).append((index, Table(described, types, names)))
        elif kind == _Y:
            type_name(message, START + 1)
        elif kind == _O and inside:
            origin(message)
        elif kind == _T and inside:
            oids = truncated(message, START + 1)
            found.truncated.extend((index, oid, offset) for offset, oid in enumerate(oids))
            found.counts[index] = len(oids)
        elif kind == _M:
            read = LogicalMessage.read(message, START + 1)
            if read.transactional and not inside:
                raise ValueError("it is outside of a transaction")
            sent = int.from_bytes(message[17:25], "big", signed=True)
            if not read.transactional and not _TIMES[0] <= sent <= _TIMES[1]:
                raise ValueError("its time is out of range")
            found.logical.append(Logical(index, sent, read))
            found.counts[index] = read.transactional
        else:
            raise ValueError("it is outside of a transaction")

    def place(self, before: Open, counts: Integers) -> Place:
        """Find the transaction of each message.

        Raises
        ------
        Broken
            A Commit is not that of its Begin.
        """
        begins, commits = self.begins, self.commits
        number = np.cumsum(self.kinds == _B)
        position = np.concatenate((np.array([before.position], np.uint64), self.field(begins, 1, "u8")))
        micros = np.concatenate((np.array([before.micros]), self.field(begins, 9, "i8")))
        wrong = self.field(commits, 2, "u8") != position[number[commits]]
        if wrong.any():
            raise Broken(int(commits[wrong.argmax()]), "it does not end the transaction that was begun")
        for index, times in ((begins, micros[1:]), (commits, self.field(commits, 18, "i8"))):
            wrong = (times < _TIMES[0]) | (times > _TIMES[1])
            if wrong.any():
                raise Broken(int(index[wrong.argmax()]), "its time is out of range")
        total = np.cumsum(counts)
        base = np.concatenate((np.array([-before.ordinal]), total[begins]))
        after = None
        if self._depth[-1]:
            last = int(number[-1])
            after = Open(int(position[last]), int(micros[last]), int(total[-1] - base[last]))
        return Place(number, position, micros, total - counts - base[number], after)


def logical_messages(messages: list[Logical], place: Place) -> tuple[int, pl.DataFrame]:
    """The number of the first, and a frame of all.

    One that belongs to no transaction has a position of its own, as `streamlab.cdc.pgoutput` gives it.
    """
    index = np.array([each.index for each in messages])
    inside = np.array([each.read.transactional for each in messages])
    owner = place.number[index]
    own = np.array([each.read.position - 1 for each in messages], np.uint64)
    rows = Rows(
        np.full(len(messages), _M, np.uint8), index, index, np.where(inside, place.position[owner], own),
        np.where(inside, place.ordinal[index], 0),
        np.where(inside, place.micros[owner], np.array([each.sent for each in messages])),
    )  # fmt: skip
    made = meta(rows.kinds, rows)
    made["prefix"] = pl.Series([valid(each.read.prefix) for each in messages], dtype=pl.String)
    made["content"] = pl.Series([each.read.content for each in messages], dtype=pl.Binary)
    made["transactional"] = pl.Series(inside)
    made["unfit"] = unfit_rows(len(messages), [])
    return messages[0].index, pl.DataFrame(made)
