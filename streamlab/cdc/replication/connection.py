"""A connection in replication mode: commands, slots and COPY, each with a bound on its time."""

from __future__ import annotations

import logging
import select
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import conninfo, pq, sql
from psycopg.errors import error_from_result

from streamlab.cdc.position import LSN
from streamlab.cdc.refusals import refused
from streamlab.errors import ChangeStreamError, ProtocolError

__all__ = ["SLICE", "CreatedSlot", "ReplicationConnection"]

log = logging.getLogger(__name__)

SESSION: Final[Mapping[str, str]] = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
}
"""How the walsender writes values as text: one form, whatever the role's or the database's settings."""

SLICE: Final = 0.1
"""Seconds of one poll: how soon a stop is noticed."""

_COMMAND_LIMIT = 30.0
_ROWS_AT_ONCE = 10_000
_FAREWELL_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class CreatedSlot:
    """What `CREATE_REPLICATION_SLOT` tells: where its stream begins, and the snapshot of that very point."""

    name: str
    consistent_point: LSN
    snapshot: str


class ReplicationConnection:
    """A connection to a walsender. Used by one thread.

    Parameters
    ----------
    dsn : str
        A role with REPLICATION.
    application_name : str
        How the server shows this connection.

    Raises
    ------
    ChangeStreamError
        No connection can be made; the cause is psycopg's error.
    """

    def __init__(self, dsn: str, *, application_name: str = "streamlab cdc") -> None:
        self.lock = threading.RLock()
        self._closed = threading.Event()
        self._copy_more = self._copy_ended = False
        self._temporary = ""
        parts = conninfo.conninfo_to_dict(str.__str__(dsn))
        options = f"{parts.pop('options', '') or ''} {' '.join(f'-c {key}={value}' for key, value in SESSION.items())}"
        parts = {"application_name": application_name, "connect_timeout": 10, **parts}
        try:
            self._connection = psycopg.connect(
                **parts,  # type: ignore[arg-type]  # libpq's parameters, as the connection string has them
                options=options.strip(),
                client_encoding="UTF8",
                replication="database",
                autocommit=True,
            )
        except psycopg.Error as error:
            raise refused(error, "A replication connection") from error
        self._pgconn = self._connection.pgconn
        self._pgconn.notice_handler = _noticing(weakref.ref(self))
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def backend_pid(self) -> int:
        """The server's process for this connection."""
        return self._pgconn.backend_pid

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def close(self, *, graceful: bool = True) -> None:
        """Close the connection. Idempotent, from any thread.

        Parameters
        ----------
        graceful : bool
            Take leave of the server where that is possible; bounded by seconds.
        """
        with self.lock:
            if self._closed.is_set():
                return
            try:
                if graceful:
                    with suppress(psycopg.Error, ChangeStreamError):
                        self._farewell()
            finally:
                self._closed.set()
                self._pgconn.notice_handler = None
                self._connection.close()

    def _farewell(self) -> None:
        """Drop a temporary slot: the server would do it too, but some time after the connection is closed."""
        if self._temporary and self._pgconn.transaction_status == pq.TransactionStatus.IDLE:
            name, self._temporary = self._temporary, ""
            self.command(sql.SQL("DROP_REPLICATION_SLOT {}").format(sql.Identifier(name)), limit=_FAREWELL_LIMIT)

    def _noticed(self, severity: str, state: str, text: str) -> None:
        log.log(logging.WARNING if severity == "WARNING" else logging.DEBUG, "PostgreSQL: %s (%s)", text, state)

    # -- commands ---------------------------------------------------------------------------------

    def command(self, command: sql.Composable, *, limit: float = _COMMAND_LIMIT) -> list[tuple[str | None, ...]]:
        """Send one command, or SQL without parameters; rows as text.

        Raises
        ------
        ChangeStreamError
            The server refuses, or does not answer within `limit` seconds: then the command is cancelled and the
            connection closed.
        """
        result = self._execute(command, limit)
        return [
            tuple(_text(result.get_value(row, column)) for column in range(result.nfields))
            for row in range(result.ntuples)
        ]

    def create_slot(
        self, name: str, *, temporary: bool, two_phase: bool = False, snapshot: str = "nothing", limit: float = 60.0
    ) -> CreatedSlot:
        """Make a logical slot for pgoutput.

        Parameters
        ----------
        name : str
            Its name.
        temporary : bool
            It goes with this connection.
        two_phase : bool
            Whether prepared transactions are sent when they are prepared.
        snapshot : str
            ``nothing``, ``export``, or ``use``: the transaction that is open on this connection then sees exactly what
            was committed before the slot's first change.
        limit : float
            Seconds. The server waits until every transaction has ended that runs at this moment.
        """
        rows = self.command(
            sql.SQL("CREATE_REPLICATION_SLOT {} {} LOGICAL pgoutput (SNAPSHOT {}{})").format(
                sql.Identifier(name),
                sql.SQL("TEMPORARY" if temporary else ""),
                sql.Literal(snapshot),
                sql.SQL(", TWO_PHASE true" if two_phase else ""),
            ),
            limit=limit,
        )
        self._temporary = name if temporary else ""
        return CreatedSlot(name, LSN.parse(rows[0][1] or ""), rows[0][2] or "")

    def copy_start(self, query: sql.Composable) -> None:
        """Begin a ``COPY ... TO STDOUT``; `copy_read` reads it.

        Raises
        ------
        ChangeStreamError
            The server refuses.
        """
        self._execute(query, _COMMAND_LIMIT, pq.ExecStatus.COPY_OUT)
        self._copy_ended, self._copy_more = False, True  # the first rows may have come with the answer

    def copy_wait(self, timeout: float) -> bool:
        """Wait until more of a COPY has come. An interrupt here harms nothing."""
        # What libpq holds already is seen by no poll.
        return self._copy_more or bool(self._poll.poll(timeout * 1000)) or self._pgconn.ssl_in_use

    def copy_read(self) -> list[bytes] | None:
        """What of a COPY has arrived, one row an item, as the server writes it; None at its end.

        Raises
        ------
        ChangeStreamError
            The COPY failed, or the connection broke.
        """
        rows: list[bytes] = []
        try:
            if not self._copy_ended:
                self._pgconn.consume_input()
            while not self._copy_ended and len(rows) < _ROWS_AT_ONCE:
                length, row = self._pgconn.get_copy_data(1)
                if length == 0:
                    break
                if length > 0:
                    rows.append(bytes(row))
                self._copy_ended = length < 0
            if self._copy_ended and not rows:
                self._finish_command(self._pgconn.get_result())
                return None
        except psycopg.Error as error:
            raise refused(error, "A COPY") from error
        self._copy_more = bool(rows)
        return rows

    def _execute(self, command: sql.Composable, limit: float, expected: pq.ExecStatus | None = None) -> pq.abc.PGresult:
        deadline = time.monotonic() + limit
        try:
            self._pgconn.send_query(command.as_bytes(self._connection))
            while True:
                unsent = self._pgconn.flush()
                self._pgconn.consume_input()
                if not self._pgconn.is_busy():
                    break
                if time.monotonic() > deadline:
                    self._cancel()
                    raise ChangeStreamError(
                        f"PostgreSQL did not answer within {limit:.0f} s: {command.as_string(self._connection)}.",
                        "A new slot waits for every transaction that was open when it was asked for: "
                        "see pg_stat_activity, the oldest xact_start.",
                    )
                self._poll.poll((0.01 if unsent else SLICE) * 1000)
        except psycopg.Error as error:
            raise refused(error, command.as_string(self._connection)) from error
        except BaseException:
            # An interrupt leaves a command half done; nothing else can be said on this connection.
            self.close(graceful=False)
            raise
        result = self._pgconn.get_result()
        if result is not None and result.status == (expected or result.status):
            if result.status in {pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH}:
                return result
            self._finish_command(result)
            return result
        self._finish_command(result)
        raise ProtocolError("PostgreSQL answered a command in an unexpected way.", "Is this a PostgreSQL server?")

    def _finish_command(self, result: pq.abc.PGresult | None) -> None:
        """Take what is left of the answer; raise the error that it holds."""
        problem = None
        while result is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                problem = error_from_result(result)
            result = self._pgconn.get_result()
        if problem is not None:
            raise refused(problem, "A command") from problem

    def _cancel(self) -> None:
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=2.0)


def _noticing(owner: weakref.ref[ReplicationConnection]) -> Any:
    field = pq.DiagnosticField

    def noticed(result: pq.abc.PGresult) -> None:
        if (connection := owner()) is not None:
            said = (field.SEVERITY_NONLOCALIZED, field.SQLSTATE, field.MESSAGE_PRIMARY)
            connection._noticed(*(_text(result.error_field(each)) or "" for each in said))

    return noticed


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
