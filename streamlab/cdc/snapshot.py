"""The rows of published tables at one point of the log, read by COPY over the connection whose slot begins there.

`CREATE_REPLICATION_SLOT ... (SNAPSHOT 'use')` makes the open transaction see exactly what was committed before the
slot's first change: rows and stream fit together with no gap and no overlap.

A row comes as PostgreSQL's text form of COPY: fields between tabs, ``\\N`` for NULL, a backslash before what is
special.
Source: PostgreSQL's manual, COPY ("Text Format"), and "Streaming Replication Protocol" (CREATE_REPLICATION_SLOT).
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql

from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import LSN
from streamlab.cdc.replication import ReplicationConnection
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import Column, Relation
from streamlab.failpoints import failpoint
from streamlab.sql import load

__all__ = ["Rows", "Snapshot", "SnapshotEvents", "SnapshotProgress", "SnapshotTable", "tables_of"]

log = logging.getLogger(__name__)

_BYTES: Final = 16 << 20
"""Of rows as they came, from which on they are handed out, however few they are."""

_REPORT_EVERY = 2.0
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """A table to copy; `estimate` is how many rows the server believes it has, `relation` what the stream calls it."""

    schema: str
    name: str
    partitioned: bool
    row_filter: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    primary_key: tuple[str, ...]
    estimate: int
    relation: Relation

    def query(self) -> sql.Composed:
        """The COPY, of the columns and rows that are published."""
        return sql.SQL("COPY (SELECT {} FROM {}{}{}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            sql.SQL("" if self.partitioned else "ONLY "),
            sql.Identifier(self.schema, self.name),
            # An expression that the server itself has written.
            sql.SQL(f" WHERE {self.row_filter}" if self.row_filter else ""),
        )


def tables_of(connection: psycopg.Connection[Any], publication: str) -> list[SnapshotTable]:
    """The tables of a publication, with what of them is published."""
    rows = connection.execute(load("postgres_capture")["snapshot"], [publication]).fetchall()
    return [_table(*row) for row in rows if row[4]]  # of a table without columns, COPY has nothing to write


def _table(
    schema: str, name: str, kind: str, row_filter: str, columns: Sequence[str], types: Sequence[int],
    key: Sequence[str], estimate: int, oid: int, identity: str, modifiers: Sequence[int], keys: Sequence[bool],
) -> SnapshotTable:  # fmt: skip
    relation = Relation(oid, schema, name, identity, tuple(map(Column, columns, types, modifiers, keys)))
    return SnapshotTable(
        schema, name, kind == "p", row_filter, tuple(columns), tuple(types), tuple(key), estimate, relation
    )


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """How far a snapshot has come.

    Attributes
    ----------
    schema, table : str
        Which table is read, or was read last; empty before the first.
    rows : int
        How many rows were read, of all tables.
    estimate : int
        How many there are in all tables, as the server believes: what its last VACUUM or ANALYZE counted, whatever is
        published of it. 0 for tables that it has not counted yet; `rows` can go beyond.
    done : bool
        Whether all rows were read and handed out.
    """

    schema: str
    table: str
    rows: int
    estimate: int
    done: bool


class Rows(Protocol):
    """What rows become: events or frames."""

    def read(self, table: SnapshotTable, rows: Sequence[bytes], ordinal: int) -> Sequence[Any]:
        """Rows that have just arrived, as COPY wrote them, as they are kept; the first has this ordinal."""
        ...

    def hand_out(self, table: SnapshotTable, rows: Sequence[Any], ordinal: int) -> Any:
        """One item of rows that were kept, all of one table."""
        ...


class SnapshotEvents:
    """Makes transactions of SNAPSHOT events.

    Parameters
    ----------
    types : TypeMap
        What values become.
    position : LSN
        Of every event.
    taken_at : datetime
        When the snapshot was taken: the time of every event.
    """

    def __init__(self, types: TypeMap, position: LSN, taken_at: datetime) -> None:
        self._types, self._position, self._taken_at = types, position, taken_at

    def read(self, table: SnapshotTable, rows: Sequence[bytes], ordinal: int) -> list[ChangeEvent]:
        """Events."""
        parsers = [self._types.codec(oid).text for oid in table.types]
        return [
            ChangeEvent(
                Operation.SNAPSHOT, table.schema, table.name, NOTHING,
                dict(zip(table.columns, fields(row, parsers), strict=True)), self._taken_at, "", self._position, number,
                table.primary_key,
            )
            for number, row in enumerate(rows, ordinal)
        ]  # fmt: skip

    def hand_out(self, table: SnapshotTable, rows: Sequence[ChangeEvent], ordinal: int) -> Transaction:
        """A transaction."""
        return Transaction(self._position, self._position, "", self._taken_at, tuple(rows))


class Snapshot:
    """Reads tables one after the other. Used by one thread; `progress` by any.

    Parameters
    ----------
    connection : ReplicationConnection
        With an open transaction that uses the slot's snapshot.
    tables : iterable of SnapshotTable
        What to copy.
    types : TypeMap
        Has to know the types of all columns.
    held : deque
        Takes what is handed out, so that it can come again.

    Attributes
    ----------
    progress : SnapshotProgress
        How far it has come.
    """

    def __init__(
        self, connection: ReplicationConnection, tables: Iterable[SnapshotTable], types: TypeMap, *, held: deque[Any]
    ) -> None:
        self._connection = connection
        self._held = held
        self._types = types
        self._tables = deque(tables)
        self._table: SnapshotTable | None = None
        self._ended = True
        self._rows: deque[Any] = deque()
        self._size = 0
        self._handed_out = 0
        self.progress = SnapshotProgress("", "", 0, sum(table.estimate for table in self._tables), not self._tables)
        self._reported = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether every row was handed out."""
        return self._ended and not self._tables and not self._rows

    def get(self, timeout: float | None, make: Rows, most: int) -> Any:
        """The next rows, `most` of them or fewer, and all of one table.

        Returns
        -------
        Any
            What `make` hands out; None at the end (then `done`), or after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done:
            if self._rows and (self._ended or len(self._rows) >= most or self._size >= _BYTES):
                return self._hand_out(make, most)
            if self._ended:
                self._next_table()
            if self._connection.copy_wait(0.1 if deadline is None else max(0.0, min(0.1, deadline - time.monotonic()))):
                with uninterrupted():
                    self._read(make)
            elif deadline is not None and time.monotonic() >= deadline:
                return None
        return None

    def _next_table(self) -> None:
        table = self._tables[0]
        self._types.learn(table.types)
        with uninterrupted():
            self._connection.copy_start(table.query())
            self._table, self._ended = self._tables.popleft(), False
            self._tell(0)

    def _read(self, make: Rows) -> None:
        rows, table = self._connection.copy_read(), self._table
        failpoint("cdc.in_snapshot")
        if rows is None or table is None:
            self._ended = True
        else:
            self._rows += make.read(table, rows, self._handed_out + len(self._rows))
            self._size += sum(map(len, rows))
        self._tell(len(rows or ()))

    def _tell(self, more: int) -> None:
        table, before = self._table, self.progress
        if table is None:
            return
        progress = SnapshotProgress(table.schema, table.name, before.rows + more, before.estimate, self.done)
        self.progress = progress
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self._reported = time.monotonic()
            log.info(
                "snapshot: %d rows of about %d, in %s.%s",
                progress.rows, progress.estimate, progress.schema, progress.table,
            )  # fmt: skip

    def _hand_out(self, make: Rows, most: int) -> Any:
        table = self._table
        assert table is not None  # noqa: S101 - there are rows of it
        with uninterrupted():
            rows = list(islice(self._rows, most))
            made = make.hand_out(table, rows, self._handed_out)
            self._size -= self._size * len(rows) // len(self._rows)
            for _ in rows:
                self._rows.popleft()
            self._handed_out += len(rows)
            self._held.append(made)
            self._tell(0)
        return made


def fields(row: bytes, parsers: list[Callable[[str], Any]]) -> list[Any]:
    """The values of one row of COPY's text form."""
    if not parsers:
        return []
    values: list[Any] = []
    for raw, parse in zip(row.removesuffix(b"\n").split(b"\t"), parsers, strict=True):
        if raw == b"\\N":
            values.append(None)
            continue
        if b"\\" in raw:
            raw = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), raw)
        values.append(parse(raw.decode("utf-8", "surrogateescape")))
    return values
