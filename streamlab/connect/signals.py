"""Signals: rows in a table of the source that tell a Debezium connector what to do, such as to read a table again.

The connector meets the row in the log that it reads, at a known place between the changes. It is the only way to a
source: a signal that is committed before the connector began to stream is never met, and one that is refused is only
said in the worker's log. An incremental snapshot reads a table in chunks while the changes go on; around each chunk the
connector writes two marks into the same table, so its user has to be allowed to (`grant`), and in PostgreSQL the
publication has to hold the table.

Source: Debezium's documentation, "Sending signals to a Debezium connector", and DBLog (Andreakis and Papapanagiotou,
2020) for the marks.
"""

from __future__ import annotations

import json
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamlab.errors import ConnectError
from streamlab.sql import load, mysql_identifier

if TYPE_CHECKING:
    import psycopg
    import pymysql

__all__ = ["MySQLSignals", "PostgreSQLSignals", "Signal", "SignalTable"]

_SNAPSHOT = "INCREMENTAL"


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal, in Debezium's words. Pure: `SignalTable` sends it.

    Attributes
    ----------
    type : str
        What is to be done.
    data : mapping
        With what.
    id : str
        Its name; notifications of what it began carry it.
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def execute_snapshot(cls, *tables: str, where: Mapping[str, str] | None = None, blocking: bool = False) -> Signal:
        """Read tables, in this order.

        Parameters
        ----------
        tables : str
            Names as the topics have them: ``<database or schema>.<table>``.
        where : mapping of str to str, optional
            Table -> a condition in SQL; only rows that it holds for are read.
        blocking : bool
            Read them as a whole, with the stream at rest meanwhile; otherwise in chunks, while the changes go on.

        Raises
        ------
        ConnectError
            No table is named, or a condition is for another one.
        """
        if not tables:
            raise ConnectError("A snapshot of no table.", "Name one: execute_snapshot('shop.orders').")
        if foreign := sorted(set(where or {}) - set(tables)):
            raise ConnectError(f"There is a condition for {foreign[0]}, which is not read.", "Name the table too.")
        data: dict[str, Any] = {"type": "BLOCKING" if blocking else _SNAPSHOT, "data-collections": _patterns(tables)}
        if where:
            data["additional-conditions"] = [
                {"data-collection": re.escape(table), "filter": condition} for table, condition in where.items()
            ]
        return cls("execute-snapshot", data)

    @classmethod
    def stop_snapshot(cls, *tables: str) -> Signal:
        """End the incremental snapshot; with tables, only theirs. One that is paused ends when it is resumed.

        Its end is notified as ``COMPLETED`` with its own id, and as ``ABORTED`` with an id of nobody.
        """
        return cls("stop-snapshot", {"type": _SNAPSHOT, **({"data-collections": _patterns(tables)} if tables else {})})

    @classmethod
    def pause_snapshot(cls) -> Signal:
        """Let the incremental snapshot rest; changes go on."""
        return cls("pause-snapshot", {"type": _SNAPSHOT})

    @classmethod
    def resume_snapshot(cls) -> Signal:
        """Go on with the incremental snapshot."""
        return cls("resume-snapshot", {"type": _SNAPSHOT})

    @classmethod
    def log(cls, message: str) -> Signal:
        """Write a line into the worker's log; ``{}`` in it becomes the position in the source's log."""
        return cls("log", {"message": message})

    @property
    def text(self) -> str:
        """`data` as the table has it."""
        return json.dumps(self.data, ensure_ascii=False)


def _patterns(tables: tuple[str, ...]) -> list[str]:
    # They are regular expressions of Java, matched as a whole.
    return [re.escape(table) for table in tables]


class SignalTable(ABC):
    """The signal table of a source. Used by one thread at a time, as its connection.

    A signal counts when its transaction is committed: with a connection that does not commit by itself, that is the
    caller's part.

    Parameters
    ----------
    connection
        To the source's database; the caller's own.
    table : str
        ``<database or schema>.<table>``, as the connector's configuration names it.
    """

    def __init__(self, connection: Any, table: str) -> None:
        where, dot, name = table.partition(".")
        if not (where and dot and name):
            raise ConnectError(f"{table} does not say where the table is.", "Write <database or schema>.<table>.")
        self._connection = connection
        self.name = table
        self._parts = (where, name)

    @abstractmethod
    def create(self) -> None:
        """Make the table where it is missing."""

    @abstractmethod
    def grant(self, role: str) -> None:
        """Let the connector's user write its marks there; the caller has to be allowed to grant that."""

    @abstractmethod
    def revoke(self, role: str) -> None:
        """Take back what `grant` gave."""

    @abstractmethod
    def send(self, signal: Signal) -> str:
        """Insert a signal; returns its id."""

    def execute_snapshot(self, *tables: str, where: Mapping[str, str] | None = None, blocking: bool = False) -> str:
        """Send `Signal.execute_snapshot`."""
        return self.send(Signal.execute_snapshot(*tables, where=where, blocking=blocking))

    def stop_snapshot(self, *tables: str) -> str:
        """Send `Signal.stop_snapshot`."""
        return self.send(Signal.stop_snapshot(*tables))

    def pause_snapshot(self) -> str:
        """Send `Signal.pause_snapshot`."""
        return self.send(Signal.pause_snapshot())

    def resume_snapshot(self) -> str:
        """Send `Signal.resume_snapshot`."""
        return self.send(Signal.resume_snapshot())


class MySQLSignals(SignalTable):
    """Signals for a `MySQLSource`."""

    _connection: pymysql.Connection[Any]

    def _execute(self, block: str, *parameters: str, role: str = "") -> None:
        table = ".".join(map(mysql_identifier, self._parts))
        with self._connection.cursor() as cursor:
            text = load("signals")[block].format(table=table, role=role and f"{mysql_identifier(role)}@'%'")
            cursor.execute(text, parameters or None)

    def create(self) -> None:
        """Make the table where it is missing."""
        self._execute("create")

    def grant(self, role: str) -> None:
        """Let the connector's user, from any host, write its marks there; the caller has to be allowed to grant that.

        The grant outlives the table, as all of MySQL's do: `revoke` it.
        """
        self._execute("grant", role=role)

    def revoke(self, role: str) -> None:
        """Take back what `grant` gave, also when the table is gone."""
        self._execute("revoke", role=role)

    def send(self, signal: Signal) -> str:
        """Insert a signal; returns its id."""
        self._execute("send", signal.id, signal.type, signal.text)
        return signal.id


class PostgreSQLSignals(SignalTable):
    """Signals for a `PostgreSQLSource`. The publication has to hold the table."""

    _connection: psycopg.Connection[Any]

    def _execute(self, block: str, *parameters: str, role: str = "") -> None:
        from psycopg import sql

        text = sql.SQL(load("signals")[block])
        made = text.format(table=sql.Identifier(*self._parts), role=sql.Identifier(role))
        self._connection.execute(made, parameters or None)

    def create(self) -> None:
        """Make the table where it is missing."""
        self._execute("create")

    def grant(self, role: str) -> None:
        """Let the connector's role write its marks there; it needs USAGE on the schema too."""
        self._execute("grant", role=role)

    def revoke(self, role: str) -> None:
        """Take back what `grant` gave."""
        self._execute("revoke", role=role)

    def send(self, signal: Signal) -> str:
        """Insert a signal; returns its id."""
        self._execute("send", signal.id, signal.type, signal.text)
        return signal.id
