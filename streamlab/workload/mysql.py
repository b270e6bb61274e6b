"""The shop on MySQL.

Rows of one table go out as one INSERT with many VALUES, cut where a statement gets long; updates and
deletes go out one by one, as MySQL's protocol has no pipeline. pymysql's executemany does the same, but
finds out for each value anew how its type is written, which takes longer than the server's own work; here
the column says it. Source: MySQL's manual, "Optimizing INSERT Statements" and "COM_QUERY".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from json import JSONEncoder, loads
from operator import attrgetter
from typing import Any, TypeAlias

import pymysql
from pymysql.converters import escape_string
from pymysql.cursors import Cursor

from streamlab.errors import StreamlabError
from streamlab.settings import MySQLAddress
from streamlab.sql import load, mysql_identifier, statements
from streamlab.workload.plan import Operation
from streamlab.workload.tables import TABLES, Row, Statement, Table, Type, Verb

__all__ = ["MySQLSession", "MySQLTarget"]

Connection: TypeAlias = "pymysql.Connection[Cursor]"

_SQL = load("shop_mysql")
_statement = attrgetter("statement")
_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_READ_LIMIT = 60.0
"""Seconds without an answer after which a connection is given up; above the limits for locks."""


_LONGEST = 1_000_000
"""Characters of one INSERT; at most four bytes each, and the server takes 64 MB by default."""
_INSERT = {
    name: _SQL[f"insert_{name}"].rpartition("VALUES")[0] + "VALUES " for name in TABLES
}  # the block without its placeholders


@lru_cache(maxsize=4096)
def _instant(value: datetime) -> str:
    # The session's time zone is UTC. One action writes the same instant into all its rows.
    return f"'{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _text(value: str) -> str:
    # use_schema has made sure that a backslash escapes.
    return f"'{escape_string(value)}'"


def _literals(table: Table) -> list[Callable[[Any], str]]:
    """How the values of each column are written in SQL."""
    written: dict[Type, Callable[[Any], str]] = {
        Type.INTEGER: lambda value: str(int(value)),
        Type.BOOLEAN: lambda value: "1" if value else "0",
        Type.MONEY: lambda value: f"{value:f}",
        Type.INSTANT: _instant,
        Type.TEXT: _text,
        Type.JSON: lambda value: _text(_json(value)),
        Type.TAGS: lambda value: _text(_json(value)),
    }
    return [written[kind] for kind in table.types]


def _inserts(table: Table, rows: Iterable[Row]) -> Iterator[str]:
    """INSERTs of many rows, each of about `_LONGEST` characters at most."""
    literals = _literals(table)
    parts: list[str] = []
    length = 0
    for row in rows:
        written = ["NULL" if value is None else literal(value) for literal, value in zip(literals, row, strict=True)]
        part = f"({','.join(written)})"
        if parts and length + len(part) > _LONGEST:
            yield _INSERT[table.name] + ",".join(parts)
            parts, length = [], 0
        parts.append(part)
        length += len(part)
    if parts:
        yield _INSERT[table.name] + ",".join(parts)


def _parameters(statement: Statement, group: Iterable[Operation]) -> list[Sequence[Any]]:
    """What fills the placeholders: the values, lists and JSON as JSON text, then the key."""
    at = [place for place, kind in enumerate(statement.types) if kind in {Type.JSON, Type.TAGS}]
    filled: list[Sequence[Any]] = []
    for each in group:
        values: Sequence[Any] = each.values
        if at:
            values = list(values)
            for place in at:
                values[place] = _json(values[place])
        filled.append((*values, *each.key))
    return filled


_READ: dict[Type, Callable[[Any], Any]] = {
    Type.BOOLEAN: bool,
    Type.INSTANT: lambda value: value.replace(tzinfo=UTC),
    Type.JSON: loads,
    Type.TAGS: loads,
}


def _as_rows(table: Table, found: Iterable[Sequence[Any]]) -> list[Row]:
    """Rows as the workload means them, from what pymysql makes of MySQL's types."""
    read = [_READ.get(kind) for kind in table.types]
    return [
        tuple(
            value if convert is None or value is None else convert(value)
            for convert, value in zip(read, row, strict=True)
        )
        for row in found
    ]


class MySQLTarget:
    """A database of MySQL.

    Parameters
    ----------
    server : MySQLAddress or callable
        An address (`streamlab.settings.mysql_address`), or what makes a new connection at each call.
    database : str
        The caller's own; the shop's tables are the only thing that is touched in it.
    """

    def __init__(self, server: MySQLAddress | Callable[[], Connection], database: str) -> None:
        self._server = server
        self.name = database

    def __repr__(self) -> str:
        return f"MySQLTarget({self.name})"

    def _connect(self) -> Connection:
        if isinstance(self._server, MySQLAddress):
            limits = {"connect_timeout": 5, "read_timeout": _READ_LIMIT, "write_timeout": _READ_LIMIT}
            return pymysql.connect(**{**limits, **self._server.arguments(database=""), "autocommit": True})
        return self._server()

    def prepare(self) -> None:
        """Create the database where it is missing."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (self.name,))
            if not cursor.fetchone():
                cursor.execute(f"CREATE DATABASE {mysql_identifier(self.name)}")

    def open(self) -> MySQLSession:
        """A new session in the database."""
        connection = self._connect()
        try:
            return MySQLSession(connection, self.name)
        except BaseException:
            connection.close()
            raise


class MySQLSession:
    """One connection to the shop's database; see `streamlab.workload.target.Session`."""

    def __init__(self, connection: Connection, database: str) -> None:
        self._connection = connection
        connection.autocommit(True)
        try:
            connection.select_db(database)
        except pymysql.err.OperationalError as error:
            if error.args[0] != 1049:
                raise
            raise StreamlabError(
                f"MySQL has no database {database}.", "Call Shop.create(), or create it yourself."
            ) from error
        self._run("use_schema")
        self.identity: tuple[Any, ...] = tuple(self._run("schema")[0][1:])

    def _run(self, block: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(_SQL[block], tuple(parameters) or None)
            return cursor.fetchall()

    def _run_each(self, block: str) -> None:
        # Data definition commits by itself in MySQL: what fails half-way leaves the tables made so far.
        with self._connection.cursor() as cursor:
            for each in statements(_SQL[block]):
                cursor.execute(each)

    def taken(self) -> Mapping[str, str | None]:
        """The shop's table names that exist already, each with its comment."""
        return {row[0]: row[1] for row in self._run("shop_tables")}

    def is_empty(self) -> bool:
        """Whether the shop's tables hold no row."""
        return bool(self._run("is_empty")[0][0])

    def create(self) -> None:
        """Create the tables."""
        self._run_each("create_shop")

    def drop(self) -> None:
        """Drop the tables."""
        self._run_each("drop_shop")

    def begin(self, operations: Sequence[Operation]) -> None:
        """Carry operations out in a new transaction, which stays open."""
        self._connection.begin()
        with self._connection.cursor() as cursor:
            for statement, group in groupby(operations, _statement):
                if statement.verb is Verb.INSERT:
                    rows = (each.values for each in group)
                    for insert in _inserts(statement.table, rows):
                        cursor.execute(insert)
                    continue
                cursor.executemany(_SQL[statement.name], _parameters(statement, group))

    def commit(self) -> None:
        """Commit the open transaction."""
        self._connection.commit()

    def rollback(self) -> None:
        """Roll the open transaction back."""
        self._connection.rollback()

    def is_alive(self, identity: tuple[Any, ...]) -> bool:
        """Whether the server still serves a session."""
        return bool(self._run("session_alive", identity)[0][0])

    def holds(self, operation: Operation) -> bool:
        """Whether the row is as the operation left it."""
        found = self._run(f"find_{operation.table.name}", operation.key)
        if operation.verb is Verb.DELETE:
            return not found
        return bool(found) and found[0][0].replace(tzinfo=UTC) == operation.values[-1]

    def rows(self, tables: Iterable[str] = tuple(TABLES)) -> dict[str, list[Row]]:
        """All rows of tables, as of one instant, in the order of their keys."""
        with self._connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            return {name: _as_rows(TABLES[name], self._run(f"select_{name}")) for name in tables}
        finally:
            self._connection.rollback()

    def close(self) -> None:
        """End the session; what is open in it is rolled back."""
        if self._connection.open:
            self._connection.close()
