"""Reads the chunks of an incremental snapshot: watermark, query, watermark. `streamlab.cdc.incremental` fits them in.

A chunk is read by its key (``WHERE (a, b) > (...) ORDER BY a, b LIMIT n``), so every chunk costs the same and none is
skipped. Keys travel as PostgreSQL writes them, and are compared by it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg import sql

from streamlab.cdc import arguments, slots
from streamlab.cdc.facts import Facts
from streamlab.cdc.incremental import PREFIX, Chunk, ChunkProgress, ChunkWindow, Visibility
from streamlab.cdc.preflight import not_tables
from streamlab.cdc.replication.connection import SESSION
from streamlab.cdc.snapshot import SnapshotTable, tables_of
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.errors import CannotCapture, ChangeStreamError, SettingsError
from streamlab.failpoints import failpoint
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy
from streamlab.sql import load

__all__ = ["ChunkReader", "ChunkedSnapshot"]

log = logging.getLogger(__name__)

_AGAIN: Final = 20
"""How often in a row a chunk is read again. It waits for what is committed and not visible yet: some microseconds."""


class ChunkReader:
    """Reads one table. Used by one thread.

    Parameters
    ----------
    connect : callable
        Makes an ordinary connection.
    facts : callable
        Gathers the facts of the named table with a connection.
    publication : str
        Which columns and rows.
    types : TypeMap
        What values become.
    chunk_rows : int
        How many rows at once.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        facts: Callable[[psycopg.Connection[Any]], Facts],
        publication: str,
        types: TypeMap,
        chunk_rows: int,
    ) -> None:
        arguments.count("chunk_rows", chunk_rows)
        self._connect, self._types, self._rows = connect, types, chunk_rows
        self._facts, self._publication = facts, publication
        with closing(connect()) as connection:
            self.table, self.key = self._found(connection)
        self._defined: Any = None
        self._connection: psycopg.Connection[Any] | None = None

    def _found(self, connection: psycopg.Connection[Any]) -> tuple[SnapshotTable, tuple[str, ...]]:
        found = _found(self._facts(connection), tables_of(connection, self._publication))
        self._types.learn(found[0].types, anew=True)
        return found

    def read(self, progress: ChunkProgress) -> Chunk:
        """The rows behind a progress, between two watermarks.

        Raises
        ------
        StreamLost
            The connection was lost: read again.
        ChangeStreamError
            The table cannot be read, or has another key now.
        """
        try:
            connection = self._connection = self._connection or self._session()
            token = secrets.token_hex(8)
            low, high = f"{token} low".encode(), f"{token} high".encode()
            blocks = load("postgres_capture")
            connection.execute(blocks["watermark"], [PREFIX, low])
            failpoint("cdc.low_watermark")
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                # What the rows will be read with, before it is looked at how the table is now.
                connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(self._name()))
                # Rows that a policy hides from this role must not be left out in silence.
                connection.execute("SET LOCAL row_security = off")
                row: Any = connection.execute(blocks["visibility"]).fetchone()
                self._look(connection)
                until = progress.until or self._highest(connection)
                keys, rows = self._select(connection, progress.last, until) if until else ([], [])
            failpoint("cdc.chunk_read")
            connection.execute(blocks["watermark"], [PREFIX, high])
            failpoint("cdc.high_watermark")
        except psycopg.Error as error:
            self.close()
            raise slots.refused(error, f"Reading a chunk of {self.table.schema}.{self.table.name}") from error
        except BaseException:
            self.close()  # an interrupt leaves a statement half done
            raise
        following = progress.after(keys, until, full=len(rows) == self._rows)
        return Chunk(low, high, rows, Visibility.parse(row[0]), following)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        """Read the table anew, if it is not defined as it was. By a connection that holds it as it is."""
        name = [self.table.schema, self.table.name]
        now = connection.execute(load("postgres_capture")["columns"], name).fetchone()
        if now == self._defined:
            return
        table, key = self._found(connection)
        if key != self.key:
            raise CannotCapture(
                f"The key of {table.schema}.{table.name} was {', '.join(self.key)} and is {', '.join(key)} now.",
                "If its columns have other names alone, resume behind the progress; else begin the snapshot again.",
            )
        self.table, self._defined = table, now

    def _session(self) -> psycopg.Connection[Any]:
        connection = self._connect()
        # A watermark that a crash of the server takes back would be waited for in vain; a standby need not have it.
        for name, value in {**SESSION, "synchronous_commit": "local"}.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        return connection

    def _highest(self, connection: psycopg.Connection[Any]) -> tuple[str, ...]:
        query = sql.SQL("SELECT {} FROM {} ORDER BY {} LIMIT 1").format(
            self._as_text(), self._from(), sql.SQL(", ").join(sql.SQL("{} DESC").format(each) for each in self._keys())
        )
        return connection.execute(query).fetchone() or ()

    def _select(
        self, connection: psycopg.Connection[Any], last: tuple[str, ...], until: tuple[str, ...]
    ) -> tuple[list[tuple[str, ...]], list[dict[str, Any]]]:
        names = sql.SQL(", ").join(self._keys())
        bounds = [sql.SQL("({}) <= ({})").format(names, _literals(until))]
        if last:
            bounds.append(sql.SQL("({}) > ({})").format(names, _literals(last)))
        query = sql.SQL("COPY (SELECT {}, {} FROM {} AND {} ORDER BY {} LIMIT {}) TO STDOUT").format(
            self._as_text(), sql.SQL(", ").join(map(sql.Identifier, self.table.columns)), self._from(),
            sql.SQL(" AND ").join(bounds), names, sql.Literal(self._rows),
        )  # fmt: skip
        parsers = [self._types.codec(oid).text for oid in self.table.types]
        width = len(self.key)
        keys, rows = [], []
        with connection.cursor().copy(query) as copy:
            for row in copy.rows():
                keys.append(row[:width])
                values = (
                    None if text is None else parse(text) for parse, text in zip(parsers, row[width:], strict=True)
                )
                rows.append(dict(zip(self.table.columns, values, strict=True)))
        return keys, rows

    def _name(self) -> sql.Identifier:
        return sql.Identifier(self.table.schema, self.table.name)

    def _keys(self) -> list[sql.Identifier]:
        # With the table's name: alone it would mean the key's text that is selected beside it.
        return [sql.Identifier("chunk", name) for name in self.key]

    def _as_text(self) -> sql.Composed:
        return sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in self._keys())

    def _from(self) -> sql.Composed:
        table = self.table
        return sql.SQL("{}{} AS chunk WHERE {}").format(
            sql.SQL("" if table.partitioned else "ONLY "),
            self._name(),
            # An expression that the server itself has written.
            sql.SQL(f"({table.row_filter})" if table.row_filter else "true"),
        )

    def close(self) -> None:
        """Let go of the connection. Idempotent; `read` makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class ChunkedSnapshot(Iterator[Transaction]):
    """The stream, with the rows of a table added to it in chunks; made by `PostgreSQLCDC.snapshot_chunks`.

    An iterator over transactions, which ends with the one that holds the last chunk. Used by one thread.

    Attributes
    ----------
    progress : ChunkProgress
        Behind the transaction that was handed out last: keep it where its effect is kept.
    """

    def __init__(
        self,
        stream: Callable[[], Iterator[Transaction]],
        reader: ChunkReader,
        *,
        resume: ChunkProgress | None,
        retry: RetryPolicy,
        stopping: threading.Event,
    ) -> None:
        self.progress = resume or ChunkProgress(reader.table.schema, reader.table.name)
        if (self.progress.schema, self.progress.table) != (reader.table.schema, reader.table.name):
            raise SettingsError(
                f"This is the progress of {self.progress.schema}.{self.progress.table}, and not of "
                f"{reader.table.schema}.{reader.table.name}.",
                "Keep one for each table.",
            )
        self._reader = reader
        self._retry = Retry("cdc.chunk", retry, stop=stopping)
        self._transactions = self._merged(stream)

    def __next__(self) -> Transaction:
        return next(self._transactions)

    def close(self) -> None:
        """End the iteration. Idempotent."""
        self._transactions.close()

    def _merged(self, stream: Callable[[], Iterator[Transaction]]) -> Generator[Transaction, None, None]:
        window = ChunkWindow(self.progress.schema, self.progress.table, self._reader.key)
        attempts = 0
        try:
            if self.progress.done:
                return
            transactions = stream()
            window.expect(self._retry.call(self._reader.read, self.progress))
            for each in transactions:
                transaction, chunk = window.take(each)
                if chunk is None:
                    yield transaction
                    continue
                if window.stale:
                    attempts += 1
                    if attempts > _AGAIN:
                        raise ChangeStreamError(
                            f"A chunk of {self.progress.schema}.{self.progress.table} could not be read in {attempts} "
                            "attempts: a transaction that the stream has brought is still not visible.",
                            "Does it wait for a standby (synchronous_standby_names)? Go on once it is through.",
                        )
                    log.info("a chunk behind %s is read again", self.progress.last)
                else:
                    attempts = 0
                    self.progress = chunk.progress
                    failpoint("cdc.before_chunk")
                yield transaction
                if self.progress.done:
                    return
                window.expect(self._retry.call(self._reader.read, self.progress))
        except RetriesExhausted as exhausted:
            if exhausted.reason == "stopped":
                return
            if isinstance(exhausted.__cause__, ChangeStreamError):
                raise exhausted.__cause__ from exhausted
            raise
        finally:
            self._reader.close()


def _found(facts: Facts, tables: list[SnapshotTable]) -> tuple[SnapshotTable, tuple[str, ...]]:
    """The table that was asked for, and the columns that tell its rows apart in the log."""
    if facts.missing:
        raise CannotCapture(f"There is no table {facts.missing[0]}.", "Name it with its schema: schema.table.")
    for problem in not_tables(facts):
        raise problem
    if len(facts.wanted) != 1:
        raise CannotCapture(
            f"The table has {len(facts.wanted)} partitions, which are published one by one.",
            f"Read them one after the other: {', '.join('.'.join(each) for each in facts.wanted)}.",
        )
    ((schema, name),) = facts.wanted
    table = next((each for each in tables if (each.schema, each.name) == (schema, name)), None)
    if table is None:
        raise CannotCapture(
            f"The publication {facts.publication_name} does not hold {schema}.{name}.",
            "Add the table to the publication, or name one that it holds.",
        )
    known = facts.publication.tables if facts.publication is not None else ()
    identity = next((each.identity for each in known if (each.schema, each.name) == (schema, name)), None)
    key = identity or table.primary_key
    if not key or not set(key) <= set(table.columns):
        raise CannotCapture(
            f"The table {schema}.{name} has no key that is published, so it cannot be read in chunks.",
            "Give it a primary key, or read it whole: PostgreSQLCDC.session(..., snapshot='initial').",
        )
    return table, key


def _literals(values: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, values))
