"""The rows of tables at one point of the binary log, as SNAPSHOT events.

For a moment a global read lock keeps everybody from committing; in it a transaction begins that sees all tables as they
are, and the server says where its log is. So rows and stream fit together with no gap and no overlap. The lock is gone
before the first row is read.

Rows come by SELECT, row by row from the server, and their values are made to be those of the stream.

Source: MySQL's manual, "FLUSH TABLES WITH READ LOCK", "START TRANSACTION" (WITH CONSISTENT SNAPSHOT).
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pymysql
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions, convert_datetime
from pymysql.cursors import SSCursor

from streamlab.cdc.binlog.connection import connect
from streamlab.cdc.binlog.position import BinlogPosition
from streamlab.cdc.binlog.refusals import refused
from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.transaction import Transaction
from streamlab.errors import CannotCapture, ChangeStreamError, StreamLost
from streamlab.failpoints import failpoint
from streamlab.settings import MySQLAddress
from streamlab.sql import load, mysql_identifier, statements

__all__ = ["VALUES", "Snapshot"]

log = logging.getLogger(__name__)

_ROWS = 10_000
_FETCH = 1_000
_LOCK_LIMIT = 30


def _aware(text: str) -> Any:
    value = convert_datetime(text)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


VALUES: dict[Any, Any] = {**conversions, FIELD_TYPE.TIMESTAMP: _aware, FIELD_TYPE.JSON: json.loads}


class Snapshot:
    """Reads tables one after the other. Used by one thread.

    Parameters
    ----------
    address : MySQLAddress
        As a role with RELOAD, REPLICATION CLIENT, and SELECT on the tables.
    tables : iterable of (str, str)
        Schema and name.
    held : deque of Transaction
        Takes what is handed out, so that it can come again.

    Attributes
    ----------
    position : BinlogPosition
        The point of the log: the position of every event. Ordinals go through all tables.
    rows : int
        How many were read so far.
    """

    def __init__(self, address: MySQLAddress, tables: Iterable[tuple[str, str]], held: deque[Transaction]) -> None:
        self.rows = 0
        self._held = held
        self._tables = deque(tables)
        self._cursor: Any = None
        self._names: tuple[str, ...] = ()
        self._key: tuple[str, ...] = ()
        self._taken_at = datetime.now(UTC)
        self._connection = connect(address, conv=VALUES, cursorclass=SSCursor)
        try:
            self.position = self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> bool:
        """Whether every row was handed out."""
        return self._cursor is None and not self._tables

    def _ask(self, query: str, *parameters: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()

    def _begin(self) -> BinlogPosition:
        sql = load("mysql_capture")
        try:
            self._ask("SET SESSION lock_wait_timeout = %s", _LOCK_LIMIT)  # type: ignore[arg-type]
            self._ask(sql["lock"])
            try:
                for each in statements(sql["snapshot"]):
                    self._ask(each)
                (status,) = self._ask(sql["status"])
                self._taken_at = datetime.now(UTC)
            finally:
                self._ask(sql["unlock"])
        except pymysql.Error as error:
            number = error.args[0] if error.args else 0
            if number in {1227, 1044, 1045}:
                raise CannotCapture(
                    "The user may not keep writers out for the moment in which a snapshot begins.",
                    "As an administrator: GRANT RELOAD, REPLICATION CLIENT ON *.* TO the user.",
                ) from error
            if number == 1205:
                raise StreamLost(
                    f"The read lock for a snapshot was not had within {_LOCK_LIMIT} s.",
                    "End long transactions and statements (SHOW PROCESSLIST shows them), and try again.",
                ) from error
            raise refused(error, "The snapshot") from error
        return BinlogPosition.of_status(status)

    def get(self) -> Transaction | None:
        """The next rows, at most 10,000 together and all of one table; None at the end.

        Raises
        ------
        ChangeStreamError
            The server refuses, or the connection is lost: nothing of this snapshot can come any more.
        """
        events: list[ChangeEvent] = []
        try:
            while not self.done and len(events) < _ROWS:
                with uninterrupted():
                    if self._cursor is None:
                        if events:
                            break
                        self._open()
                    events.extend(self._read())
        except pymysql.Error as error:
            raise ChangeStreamError(
                f"The snapshot broke off after {self.rows} rows: {error.args[-1] if error.args else error}.",
                "Nothing of it is kept: begin again.",
            ) from error
        if not events:
            return None
        with uninterrupted():
            transaction = Transaction(self.position, self.position, "", self._taken_at, tuple(events))
            self._held.append(transaction)
        return transaction

    def _open(self) -> None:
        sql = load("mysql_capture")
        schema, table = self._tables[0]
        columns = self._ask(sql["columns"], schema, table)
        self._names = tuple(column[0] for column in columns)
        self._key = tuple(column for (column,) in self._ask(sql["key"], schema, table))
        selected = ", ".join(_selected(name, kind) for name, _, kind, *_ in columns)
        cursor = self._connection.cursor()
        cursor.execute(f"SELECT {selected} FROM {mysql_identifier(schema)}.{mysql_identifier(table)}")  # noqa: S608
        self._cursor = cursor

    def _read(self) -> list[ChangeEvent]:
        schema, table = self._tables[0]
        rows = self._cursor.fetchmany(_FETCH)
        failpoint("cdc.binlog.in_snapshot")
        if not rows:
            self._cursor.close()
            self._cursor = None
            self._tables.popleft()
            return []
        first, names, key = self.rows, self._names, self._key
        self.rows += len(rows)
        return [
            ChangeEvent(
                Operation.SNAPSHOT, schema, table, NOTHING, dict(zip(names, row, strict=True)), self._taken_at, "",
                self.position, ordinal, key,
            )
            for ordinal, row in enumerate(rows, first)
        ]  # fmt: skip

    def close(self) -> None:
        """End the transaction and the connection. Idempotent."""
        with contextlib.suppress(Exception):
            if self.done:
                self._connection.close()
            else:
                # Rows that nobody will read are on their way, and PyMySQL would wait for their end.
                connection: Any = self._connection
                if connection._result is not None:
                    connection._result.unbuffered_active = False
                connection._force_close()


def _selected(name: str, kind: str) -> str:
    column = mysql_identifier(name)
    if kind.lower() == "float":
        return f"{column} + 0e0"  # as text it would have six digits
    if kind.lower() == "vector":
        return f"UNHEX(HEX({column}))"  # PyMySQL does not know this type
    return column
