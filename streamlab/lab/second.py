"""The second database of a lesson: a schema of its own, into which a sink writes, and where one looks at what came."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from streamlab.connect import ConnectClient, ConnectorStatus
from streamlab.errors import ConnectorFailed, ConnectorMissing, LessonError

__all__ = ["SecondDatabase"]


class SecondDatabase:
    """A schema of this run, dropped with the run's other things. For one thread.

    Parameters
    ----------
    lab : Lesson
        The lesson.
    name : str
        Added to the run's name.

    Attributes
    ----------
    name : str
        The schema's full name: a sink's table is ``<name>.<table>``.
    """

    def __init__(self, lab: Any, name: str = "second") -> None:
        self.name: str = lab.namespace.postgres_schema(name)
        self._db = psycopg.connect(lab.dsn, autocommit=True)
        self._db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.name)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the schema goes with the run."""
        self._db.close()

    def rows(self, table: str, columns: str = "id", *, schema: str = "") -> list[tuple[Any, ...]]:
        """The rows of a table, in order.

        Parameters
        ----------
        table : str
            Its name.
        columns : str
            An SQL list of columns, from the lesson's own text.
        schema : str
            Another schema, such as the shop's own.
        """
        query = sql.SQL("SELECT {} FROM {} ORDER BY 1").format(
            sql.SQL(columns),
            sql.Identifier(schema or self.name, table),
        )
        return self._db.execute(query).fetchall()

    def columns(self, table: str, *, schema: str = "") -> list[str]:
        """The names of a table's columns; none where there is no table."""
        query = "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        return sorted(name for (name,) in self._db.execute(query, [schema or self.name, table]))

    def wait(self, table: str, row: int, *, connector: str = "", limit: float = 30.0) -> None:
        """Wait until a row is there.

        Parameters
        ----------
        table : str
            The table, which may not be there yet.
        row : int
            Its id.
        connector : str
            The sink: its failure ends the wait.
        limit : float
            Seconds.

        Raises
        ------
        ConnectorFailed
            A task of the sink has failed; the beginning of its trace is in the message.
        LessonError
            It has not come.
        """
        deadline = time.monotonic() + limit
        with ConnectClient() as connect:
            while True:
                with suppress(psycopg.errors.UndefinedTable):
                    if (row,) in self.rows(table):
                        return
                if connector:
                    with suppress(ConnectorMissing):  # made a moment ago by another client
                        _raise_failure(connect.status(connector))
                if time.monotonic() > deadline:
                    raise LessonError(f"Row {row} of {table} has not come in {limit:.0f} s.", "Does the sink run?")
                time.sleep(0.05)


def _raise_failure(status: ConnectorStatus) -> None:
    for part in status.failed:
        raise ConnectorFailed(f"Connector {status.name}, task {part.task} failed: {part.error}")
