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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import LSN
from streamlab.cdc.replication import ReplicationConnection
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.failpoints import failpoint
from streamlab.sql import load

__all__ = ["Snapshot", "SnapshotTable", "tables_of"]

log = logging.getLogger(__name__)

_ROWS = 10_000
_REPORT_EVERY = 2.0
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class SnapshotTable:
    """A table to copy; `estimate` is how many rows the server believes it has."""

    schema: str
    name: str
    partitioned: bool
    row_filter: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    primary_key: tuple[str, ...]
    estimate: int

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
    return [
        SnapshotTable(schema, name, kind == "p", row_filter, tuple(columns), tuple(types), tuple(key), estimate)
        for schema, name, kind, row_filter, columns, types, key, estimate in rows
        if columns  # of a table without any, COPY has nothing to write
    ]


class Snapshot:
    """Reads tables one after the other, as transactions of SNAPSHOT events. Used by one thread.

    Parameters
    ----------
    connection : ReplicationConnection
        With an open transaction that uses the slot's snapshot.
    tables : iterable of SnapshotTable
        What to copy.
    types : TypeMap
        What values become.
    position : LSN
        The slot's consistent point: the position of every event. Ordinals go through all tables.
    held : deque of Transaction
        Takes what is handed out, so that it can come again.

    Attributes
    ----------
    rows : int
        How many were read so far.
    """

    def __init__(
        self,
        connection: ReplicationConnection,
        tables: Iterable[SnapshotTable],
        types: TypeMap,
        position: LSN,
        *,
        held: deque[Transaction],
    ) -> None:
        self.rows = 0
        self.position = position
        self.estimate = 0
        self._connection = connection
        self._held = held
        self._types = types
        self._tables = deque(tables)
        self.estimate = sum(table.estimate for table in self._tables)
        self._table: SnapshotTable | None = None
        self._parsers: list[Callable[[str], Any]] = []
        self._events: list[ChangeEvent] = []
        self._taken_at = datetime.now(UTC)
        self._reported = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether every row was handed out."""
        return self._table is None and not self._tables and not self._events

    def get(self, timeout: float | None) -> Transaction | None:
        """The next rows, at most about 10,000 together and all of one table.

        Returns
        -------
        Transaction or None
            None at the end (then `done`), or after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done:
            if self._table is None:
                if self._events:
                    return self._hand_out()
                self._next_table()
            if self._connection.copy_wait(0.1 if deadline is None else max(0.0, min(0.1, deadline - time.monotonic()))):
                with uninterrupted():
                    self._read()
                if len(self._events) >= _ROWS or (self._table is None and self._events):
                    return self._hand_out()
            elif deadline is not None and time.monotonic() >= deadline:
                return None
        return None

    def _next_table(self) -> None:
        table = self._tables[0]
        self._types.learn(table.types)
        parsers = [self._types.codec(oid).text for oid in table.types]
        with uninterrupted():
            self._connection.copy_start(table.query())
            self._table, self._parsers = self._tables.popleft(), parsers

    def _read(self) -> None:
        table = self._table
        rows = self._connection.copy_read()
        failpoint("cdc.in_snapshot")
        if table is None or rows is None:
            self._table = None
            return
        ordinal = self.rows
        for row in rows:
            data = dict(zip(table.columns, fields(row, self._parsers), strict=True))
            self._events.append(
                ChangeEvent(
                    Operation.SNAPSHOT, table.schema, table.name, NOTHING, data, self._taken_at, "", self.position,
                    ordinal, table.primary_key,
                )
            )  # fmt: skip
            ordinal += 1
        self.rows = ordinal
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self._reported = time.monotonic()
            log.info("snapshot: %d rows of about %d, in %s.%s", self.rows, self.estimate, table.schema, table.name)

    def _hand_out(self) -> Transaction:
        with uninterrupted():
            events, self._events = tuple(self._events), []
            transaction = Transaction(self.position, self.position, "", self._taken_at, events)
            self._held.append(transaction)
        return transaction


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
