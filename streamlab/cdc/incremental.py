"""Snapshots of big tables in chunks, while the stream goes on: what becomes of a chunk's rows. No I/O.

Each chunk is read between two watermarks: messages that are written into the log before and after the query. In the
stream everything between them was committed while the chunk was read. The chunk's rows are handed out at the high
watermark, without those that the stream has changed since the low one: what the stream brought is as new, or newer.
So neither log nor tables are ever locked, and a snapshot may be left and taken up again at any chunk.

One thing the idea takes for granted is not so in PostgreSQL: a transaction becomes visible to others a moment after its
commit stands in the log, and much later where it waits for a standby. It can come before the low watermark, and be
missing from the chunk. So a chunk brings its query's own snapshot (``pg_current_snapshot``); where that does not see a
transaction that came before the low watermark, the chunk is read again.

Source: Andreakis and Papapanagiotou, *DBLog: A Watermark Based Change-Data-Capture Framework* (2020).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from streamlab.cdc.event import NOTHING, UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.transaction import Transaction
from streamlab.errors import SettingsError

__all__ = ["PREFIX", "Chunk", "ChunkProgress", "ChunkWindow", "Visibility"]

PREFIX: Final = "streamlab.watermark"
"""Of the watermarks' messages."""

_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class Visibility:
    """A snapshot of PostgreSQL: which transactions a query sees. Numbers are of 64 bits.

    Attributes
    ----------
    xmin, xmax : int
        What is below `xmin` is over; what is not below `xmax` is not visible.
    running : frozenset of int
        In between, and not visible either.
    """

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Visibility:
        """Read the text of a ``pg_snapshot``: ``10:20:10,14,15``."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def _whole(self, xid: int) -> int:
        """The stream tells the lower 32 bits alone; of the numbers that end so, the nearest is meant."""
        return self.xmax + (xid - self.xmax + _HALF) % (2 * _HALF) - _HALF

    def sees(self, xid: int) -> bool:
        """Whether a transaction that was committed, by its number in the stream, is visible."""
        whole = self._whole(xid)
        return whole < self.xmax and whole not in self.running

    def is_over(self, xid: int) -> bool:
        """Whether every later snapshot sees it too."""
        return self._whole(xid) < self.xmin


@dataclass(frozen=True, slots=True)
class ChunkProgress:
    """How far a table was read: what the caller keeps, to go on after it. `str` and `parse` make it text and back.

    Attributes
    ----------
    schema, table : str
        Which table.
    last : tuple of str
        The key of the last row that was read, as PostgreSQL writes it; empty at the beginning.
    until : tuple of str
        The highest key when it began, where it ends: what came later, the stream brings.
    rows : int
        How many rows were read.
    done : bool
        Whether the whole table was.
    """

    schema: str
    table: str
    last: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    rows: int = 0
    done: bool = False

    def after(self, keys: Sequence[tuple[str, ...]], until: tuple[str, ...], *, full: bool) -> ChunkProgress:
        """Behind a chunk; `full` where there may be more rows."""
        last = keys[-1] if keys else self.last
        return replace(
            self, last=last, until=until, rows=self.rows + len(keys), done=not full or not keys or last == until
        )

    def __str__(self) -> str:
        return json.dumps([self.schema, self.table, self.last, self.until, self.rows, self.done])

    @classmethod
    def parse(cls, text: str) -> ChunkProgress:
        """Read it back.

        Raises
        ------
        SettingsError
            The text is no progress.
        """
        try:
            schema, table, last, until, rows, done = json.loads(text)
            return cls(str(schema), str(table), tuple(last), tuple(until), int(rows), bool(done))
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{text!r} is no progress of a snapshot.", "Give str(progress).") from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read between two watermarks.

    Attributes
    ----------
    low, high : bytes
        The contents of the watermarks.
    rows : sequence of mapping
        Column -> value, in the order of the key.
    visibility : Visibility
        Of the query.
    progress : ChunkProgress
        Behind these rows.
    """

    low: bytes
    high: bytes
    rows: Sequence[Mapping[str, Any]]
    visibility: Visibility
    progress: ChunkProgress


class ChunkWindow:
    """Follows the stream and fits chunks into it. Used by one thread.

    Parameters
    ----------
    schema, table : str
        Which table, as events name it.
    key : tuple of str
        The columns that tell its rows apart, which the log gives for every change.
    """

    def __init__(self, schema: str, table: str, key: tuple[str, ...]) -> None:
        self.schema, self.table, self.key = schema, table, key
        self._chunk: Chunk | None = None
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._is_open = self._stale = False
        self._seen: Visibility | None = None
        self._before: set[int] = set()
        """Transactions that came before, and may not be visible to everybody yet."""

    def expect(self, chunk: Chunk) -> None:
        """A chunk was read; its watermarks are still to come. One that was expected before is forgotten."""
        self._chunk = chunk
        self._rows = {self._name(row): row for row in chunk.rows}
        self._is_open = self._stale = False
        self._seen = chunk.visibility
        self._before = {xid for xid in self._before if not chunk.visibility.is_over(xid)}

    def take(self, transaction: Transaction) -> tuple[Transaction, Chunk | None]:
        """Look at the next transaction of the stream.

        Returns
        -------
        Transaction, Chunk or None
            What is to be handed out: the same transaction, but for the high watermark, to which the chunk's rows are
            added, and then the chunk too. A chunk that has to be read again is given back without adding its rows.
        """
        mark = watermark(transaction)
        chunk = self._chunk
        if chunk is None or not mark:
            self._look(transaction)
        elif mark == chunk.low:
            self._is_open = True
            self._stale = not all(map(chunk.visibility.sees, self._before))
        elif mark == chunk.high:
            self._chunk = None
            # Its low watermark must have come before it, in this very stream.
            self._stale = self._stale or not self._is_open
            self._is_open = False
            if self._stale:
                return transaction, chunk
            return self._with_rows(transaction), chunk
        return transaction, None

    @property
    def stale(self) -> bool:
        """Whether the chunk that `take` has just given back has to be read again."""
        return self._stale

    def _look(self, transaction: Transaction) -> None:
        if transaction.transaction_id:
            xid = int(transaction.transaction_id)
            if self._seen is None or not self._seen.is_over(xid):
                self._before.add(xid)
        if self._is_open and self._rows:
            for event in transaction:
                if event.table_name == self.table and event.schema == self.schema:
                    self._changed(event)

    def _changed(self, event: ChangeEvent) -> None:
        if event.operation is Operation.TRUNCATE:
            self._rows.clear()
            return
        named = False
        for data in (event.old_data, event.new_data):
            if all(data.get(column, UNCHANGED) is not UNCHANGED for column in self.key):
                self._rows.pop(self._name(data), None)
                named = True
        # A change whose row is not told could be of any.
        self._stale = self._stale or not named

    def _name(self, data: Mapping[str, Any]) -> str:
        # Of values, not values: some equal nothing (NaN), some cannot be hashed. The same text was decoded either way.
        return repr([data[column] for column in self.key])

    def _with_rows(self, transaction: Transaction) -> Transaction:
        first = len(transaction)
        rows = tuple(
            ChangeEvent(
                Operation.SNAPSHOT, self.schema, self.table, NOTHING, data, transaction.commit_timestamp,
                transaction.transaction_id, transaction.position, ordinal, self.key,
            )
            for ordinal, data in enumerate(self._rows.values(), first)
        )  # fmt: skip
        self._rows = {}
        return replace(transaction, changes=(*transaction, *rows))


def watermark(transaction: Transaction) -> bytes:
    """The content of a watermark; empty for any other transaction."""
    if len(transaction) != 1:
        return b""
    event = next(iter(transaction))
    if event.operation is not Operation.MESSAGE or event.new_data["prefix"] != PREFIX:
        return b""
    content: bytes = event.new_data["content"]
    return content
