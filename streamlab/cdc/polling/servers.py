"""What a polled source asks its server, on PostgreSQL and on MySQL. Thin adapters, alike from outside.

Sessions are in UTC. Values are those of docs/values.md: what psycopg reads by SELECT, and PyMySQL with a `TIMESTAMP`
aware and JSON parsed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

from streamlab.errors import CannotCapture, ChangeStreamError, SettingsError, StreamLost
from streamlab.settings import Dsn, MySQLAddress
from streamlab.sql import load, mysql_identifier

if TYPE_CHECKING:
    import psycopg

__all__ = ["Column", "Polled", "PolledMySQL", "PolledPostgreSQL", "polled"]

Kind = Literal["number", "aware", "naive", "other"]

_LIMIT = 300.0
"""Seconds that one statement may take: a poll without an index reads the whole table."""


class Column(NamedTuple):
    """A column of what is polled, and what its values are."""

    name: str
    kind: Kind


def polled(address: str | MySQLAddress) -> Polled:
    """The server of an address: ``mysql://...`` and a `MySQLAddress` are MySQL's, all else PostgreSQL's."""
    if isinstance(address, MySQLAddress):
        return PolledMySQL(address)
    if not isinstance(address, str):
        raise SettingsError(f"{address!r} is no address.", "Give postgresql://..., mysql://... or a MySQLAddress.")
    if str.__str__(address).startswith("mysql://"):
        return PolledMySQL(MySQLAddress.parse(str.__str__(address)))
    return PolledPostgreSQL(address)


class Polled(ABC):
    """One server. A lock is held while it is asked, so threads may share it; `stream` belongs to one thread."""

    now_block: ClassVar[str]

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None

    # -- what differs ---------------------------------------------------------------------------------

    @abstractmethod
    def quote(self, *names: str) -> str:
        """A name, or one with its schema, as SQL."""

    @abstractmethod
    def split(self, table: str) -> tuple[str, str]:
        """Schema and name of a table that is given as ``table`` or ``schema.table``."""

    @abstractmethod
    def key(self, schema: str, table: str) -> tuple[str, ...]:
        """The columns of a table's primary key."""

    @abstractmethod
    def nullable(self, schema: str, table: str) -> set[str]:
        """The columns of a table that may be NULL."""

    @abstractmethod
    def stream(self, query: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, in portions, over a connection of their own."""

    @abstractmethod
    def _connect(self) -> Any: ...

    @abstractmethod
    def _execute(self, query: str, parameters: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[Column]]: ...

    @abstractmethod
    def _error(self, error: BaseException) -> ChangeStreamError | None:
        """The error of this package for one of the driver's; None for any other."""

    # -- what does not --------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, if that is not done yet.

        Raises
        ------
        ChangeStreamError
            The server does not let us.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises
        ------
        ChangeStreamError
            The server refuses, or the connection is lost.
        """
        return self._ask(query, parameters)[0]

    def described(self, query: str, parameters: Sequence[Any] = ()) -> tuple[list[tuple[Any, ...]], list[Column]]:
        """The rows of a query, and what they are made of."""
        return self._ask(query, parameters)

    def now(self) -> datetime:
        """The server's clock, aware, in UTC."""
        ((now,),) = self.rows(load("polling")[self.now_block])
        return cast("datetime", now if now.tzinfo else now.replace(tzinfo=UTC)).astimezone(UTC)

    def _ask(self, query: str, parameters: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[Column]]:
        with self._lock, self._refusals():
            if self._connection is None:
                self._connection = self._connect()
            try:
                return self._execute(query.rstrip().removesuffix(";"), parameters)
            except BaseException as error:
                known = self._error(error)
                if known is None or isinstance(known, StreamLost):
                    # An interrupt in the middle of an answer, or a connection that is gone.
                    self._drop()
                raise

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except ChangeStreamError:
            raise
        except Exception as error:
            known = self._error(error)
            if known is None:
                raise
            raise known from error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _end(connection)

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        with self._lock:
            self._drop()


def _end(connection: Any) -> None:
    # PyMySQL's own `close` talks to the server, and fails where there is none.
    getattr(connection, "_force_close", connection.close)()


class PolledPostgreSQL(Polled):
    """PostgreSQL, through psycopg."""

    now_block = "postgres_now"
    _kinds: ClassVar[dict[int, Kind]] = {
        **dict.fromkeys((20, 21, 23, 1700), "number"), 1114: "naive", 1184: "aware",
    }  # fmt: skip

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.dsn = Dsn(str.__str__(dsn))

    def __repr__(self) -> str:
        return repr(self.dsn)

    def quote(self, *names: str) -> str:
        """A name, or one with its schema, as SQL."""
        from psycopg import sql

        return sql.Identifier(*names).as_string()

    def split(self, table: str) -> tuple[str, str]:
        """Schema and name of a table that is given as ``table`` or ``schema.table``."""
        schema, _, name = table.rpartition(".")
        return schema or str(self.rows("SELECT current_schema()")[0][0]), name

    def key(self, schema: str, table: str) -> tuple[str, ...]:
        """The columns of a table's primary key."""
        found = self.rows(load("polling")["postgres_key"], [self.quote(schema, table)])
        return tuple(str(name) for (name,) in found)

    def nullable(self, schema: str, table: str) -> set[str]:
        """The columns of a table that may be NULL."""
        return {str(name) for (name,) in self.rows(load("polling")["postgres_nullable"], [self.quote(schema, table)])}

    def _connect(self) -> psycopg.Connection[Any]:
        from streamlab.cdc import slots

        connection = slots.connect(self.dsn, limit=_LIMIT)
        # A prepared statement fails when a column is added to its table.
        connection.prepare_threshold = None
        connection.execute("SELECT set_config('timezone', 'UTC', false)")
        return connection

    def _execute(self, query: str, parameters: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[Column]]:
        cursor = self._connection.execute(cast("Any", query), parameters)
        columns = [Column(each.name, self._kinds.get(each.type_code, "other")) for each in cursor.description or ()]
        return cursor.fetchall(), columns

    def stream(self, query: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, in portions, over a connection of their own."""
        with self._refusals():
            connection = self._connect()
            try:
                with connection.transaction(), connection.cursor("streamlab_polled") as cursor:
                    cursor.execute(cast("Any", query.rstrip().removesuffix(";")), [])
                    while rows := cursor.fetchmany(size):
                        yield rows
            finally:
                connection.close()

    def _error(self, error: BaseException) -> ChangeStreamError | None:
        import psycopg

        from streamlab.cdc.refusals import refused

        if not isinstance(error, psycopg.Error):
            return None
        if error.sqlstate == "42501":
            return CannotCapture("The role may not read what is polled.", "GRANT SELECT ON the table TO the role.")
        return refused(error, "The poll")


class PolledMySQL(Polled):
    """MySQL, through PyMySQL."""

    now_block = "mysql_now"
    _kinds: ClassVar[dict[int, Kind]] = {
        **dict.fromkeys((1, 2, 3, 8, 9, 246), "number"), 12: "naive", 7: "aware",
    }  # fmt: skip

    def __init__(self, address: MySQLAddress) -> None:
        super().__init__()
        self.address = address

    def __repr__(self) -> str:
        return repr(self.address)

    def quote(self, *names: str) -> str:
        """A name, or one with its schema, as SQL."""
        return ".".join(map(mysql_identifier, names))

    def split(self, table: str) -> tuple[str, str]:
        """Schema and name of a table that is given as ``table`` or ``schema.table``."""
        schema, _, name = table.rpartition(".")
        schema = schema or self.address.database
        if not schema:
            raise SettingsError(f"It is not said in which database {table} lies.", f"Write database.{table}.")
        return schema, name

    def key(self, schema: str, table: str) -> tuple[str, ...]:
        """The columns of a table's primary key."""
        return tuple(str(name) for (name,) in self.rows(load("mysql_capture")["key"], [schema, table]))

    def nullable(self, schema: str, table: str) -> set[str]:
        """The columns of a table that may be NULL."""
        return {str(name) for (name,) in self.rows(load("polling")["mysql_nullable"], [schema, table])}

    def _connect(self) -> Any:
        from streamlab.cdc.binlog.connection import connect
        from streamlab.cdc.binlog.snapshot import VALUES

        options: dict[str, Any] = {"conv": VALUES, "read_timeout": _LIMIT}
        if self.address.database:
            options["database"] = self.address.database
        return connect(self.address, **options)

    def _execute(self, query: str, parameters: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[Column]]:
        with self._connection.cursor() as cursor:
            # A query is a format here even where it has no parameters.
            cursor.execute(query, [_naive(each) for each in parameters])
            columns = [Column(each[0], self._kinds.get(each[1], "other")) for each in cursor.description or ()]
            return list(cursor.fetchall()), columns

    def stream(self, query: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, in portions, over a connection of their own."""
        from pymysql.cursors import SSCursor

        with self._refusals():
            connection = self._connect()
            try:
                cursor = connection.cursor(SSCursor)
                cursor.execute(query.rstrip().removesuffix(";"), [])
                while rows := list(cursor.fetchmany(size)):
                    yield rows
            finally:
                result = connection._result
                if result is not None:
                    result.unbuffered_active = False  # or PyMySQL waits for rows that nobody wants
                connection._force_close()

    def _error(self, error: BaseException) -> ChangeStreamError | None:
        import pymysql

        from streamlab.cdc.binlog.refusals import refused

        if not isinstance(error, (pymysql.Error, OSError)):
            return None
        if error.args and error.args[0] in {1044, 1142, 1143}:
            return CannotCapture("The user may not read what is polled.", "GRANT SELECT ON the table TO the user.")
        return refused(error, "The poll")


def _naive(value: Any) -> Any:
    """The session is in UTC, so a time goes there without its zone."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
