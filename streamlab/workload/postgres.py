"""The shop on PostgreSQL.

Runs of inserts go in by COPY, inside the transaction like any statement; it writes the same row changes
to the WAL. Everything else is sent in pipeline mode, so that a transaction costs few round trips.
Source: PostgreSQL's manual, "COPY" and libpq's "Pipeline Mode".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from json import JSONEncoder
from operator import attrgetter
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from streamlab.errors import StreamlabError
from streamlab.sql import load
from streamlab.workload.plan import Operation
from streamlab.workload.tables import TABLES, Row, Statement, Type, Verb

__all__ = ["PostgresSession", "PostgresTarget"]

Connection: TypeAlias = psycopg.Connection[Any]

_SQL = load("shop_postgres")
_COPIED_FROM = 8
"""Fewer rows than this are inserted one by one: a COPY cannot share a pipeline, and costs a round trip."""

_statement = attrgetter("statement")
_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _parameters(statement: Statement, group: Iterable[Operation]) -> list[Sequence[Any]]:
    """What fills the placeholders: the values, JSON as its text, then the key unless the row is new."""
    at = [place for place, kind in enumerate(statement.types) if kind is Type.JSON]
    keyed = statement.verb is not Verb.INSERT
    filled: list[Sequence[Any]] = []
    for each in group:
        values: Sequence[Any] = each.values
        if at:
            values = list(values)
            for place in at:
                values[place] = _json(values[place])
        filled.append((*values, *each.key) if keyed else values)
    return filled


class PostgresTarget:
    """A schema of PostgreSQL.

    Parameters
    ----------
    server : str or callable
        A connection string (`streamlab.settings.postgres_dsn`), or what makes a new connection at each call.
    schema : str
        The caller's own; the shop's tables are the only thing that is touched in it.
    """

    def __init__(self, server: str | Callable[[], Connection], schema: str) -> None:
        self._server = server
        self.name = schema

    def __repr__(self) -> str:
        return f"PostgresTarget({self.name})"

    def _connect(self) -> Connection:
        if callable(self._server):
            return self._server()
        return psycopg.connect(self._server, autocommit=True, connect_timeout=5)

    def prepare(self) -> None:
        """Create the schema where it is missing."""
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.name)))

    def open(self) -> PostgresSession:
        """A new session in the schema."""
        connection = self._connect()
        try:
            return PostgresSession(connection, self.name)
        except BaseException:
            connection.close()
            raise


class PostgresSession:
    """One connection to the shop's schema; see `streamlab.workload.target.Session`."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        connection.autocommit = True
        connection.execute(_SQL["use_schema"], [schema])
        found, *who = self._row("schema")
        if found != schema:
            raise StreamlabError(f"PostgreSQL has no schema {schema}.", "Call Shop.create(), or create it yourself.")
        self.identity: tuple[Any, ...] = tuple(who)

    def _row(self, block: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        row = self._connection.execute(_SQL[block], parameters or None).fetchone()
        return row or ()

    def taken(self) -> Mapping[str, str | None]:
        """The shop's table names that exist already, each with its comment."""
        return dict(self._connection.execute(_SQL["shop_tables"]).fetchall())

    def is_empty(self) -> bool:
        """Whether the shop's tables hold no row."""
        return bool(self._row("is_empty")[0])

    def create(self) -> None:
        """Create the tables, all or none."""
        with self._connection.transaction():
            self._connection.execute(_SQL["create_shop"])

    def drop(self) -> None:
        """Drop the tables, all or none."""
        with self._connection.transaction():
            self._connection.execute(_SQL["drop_shop"])

    def begin(self, operations: Sequence[Operation]) -> None:
        """Carry operations out in a new transaction, which stays open."""
        self._connection.execute("BEGIN")
        groups = [(statement, list(group)) for statement, group in groupby(operations, _statement)]
        with self._connection.cursor() as cursor, contextlib.ExitStack() as piped:
            open_pipeline = False
            for statement, group in groups:
                rows = _parameters(statement, group)
                if statement.verb is Verb.INSERT and len(rows) >= _COPIED_FROM:
                    if open_pipeline:
                        piped.close()
                        open_pipeline = False
                    with cursor.copy(_SQL[f"copy_{statement.table.name}"]) as copy:
                        for row in rows:
                            copy.write_row(row)
                    continue
                if not open_pipeline:
                    piped.enter_context(self._connection.pipeline())
                    open_pipeline = True
                cursor.executemany(_SQL[statement.name], rows)

    def commit(self) -> None:
        """Commit the open transaction."""
        # COMMIT of a failed transaction is a rollback that reports no error.
        if self._connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise StreamlabError("There is no transaction to commit.", "Carry it out again.")
        self._connection.execute("COMMIT", prepare=False)  # preparing it would gain nothing

    def rollback(self) -> None:
        """Roll the open transaction back."""
        self._connection.execute("ROLLBACK")

    def is_alive(self, identity: tuple[Any, ...]) -> bool:
        """Whether the server still serves a session."""
        return bool(self._row("session_alive", identity)[0])

    def holds(self, operation: Operation) -> bool:
        """Whether the row is as the operation left it."""
        found = self._row(f"find_{operation.table.name}", operation.key)
        if operation.verb is Verb.DELETE:
            return not found
        return bool(found) and found[0] == operation.values[-1]

    def rows(self, tables: Iterable[str] = tuple(TABLES)) -> dict[str, list[Row]]:
        """All rows of tables, as of one instant, in the order of their keys."""
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            return {name: self._connection.execute(_SQL[f"select_{name}"]).fetchall() for name in tables}
        finally:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """End the session; what is open in it is rolled back."""
        self._connection.close()
