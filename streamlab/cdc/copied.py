"""Rows of a ``COPY ... TO STDOUT`` in portions, as they arrive: psycopg's own iteration waits anew for each row.

libpq hands out what it has received without waiting, so a loop takes all of it and only then looks at the socket. An
interrupt, or a caller who goes away in the middle, cancels the query and leaves the connection usable.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

__all__ = ["Abandoned", "copied"]

_PORTION: Final = 4096
_SLICE: Final = 100  # milliseconds of one poll
_CANCEL_LIMIT: Final = 5.0  # seconds
_SILENCE: Final = 600.0
"""Seconds without a byte after which the server is given up. It may have to read a lot of log before the first row."""


class Abandoned(Exception):
    """Reading was stopped, and there are more rows."""


def copied(
    connection: psycopg.Connection[Any], query: sql.Composable, *, stopping: threading.Event | None = None
) -> Iterator[list[bytes]]:
    """Run a COPY and give its rows, as the server writes them, in lists.

    Raises
    ------
    Abandoned
        `stopping` was set.
    psycopg.Error
        The COPY failed, or the connection broke.
    """
    pgconn = connection.pgconn
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    done = False

    def wait() -> None:
        deadline = time.monotonic() + _SILENCE
        while not poll.poll(_SLICE):
            if stopping is not None and stopping.is_set():
                raise Abandoned
            if time.monotonic() >= deadline:
                raise psycopg.OperationalError(f"the server has not answered within {_SILENCE:.0f} s")
        pgconn.consume_input()

    try:
        pgconn.send_query(query.as_bytes(connection))
        while pgconn.flush() or pgconn.is_busy():
            wait()
        _check(pgconn.get_result())
        get = pgconn.get_copy_data
        rows: list[bytes] = []
        while True:
            length, row = get(1)
            if length > 0:
                rows.append(bytes(row))
                if len(rows) < _PORTION:
                    continue
            if rows:
                yield rows
                rows = []
            if length == 0:
                wait()
            elif length < 0:
                break
        while (result := pgconn.get_result()) is not None:
            _check(result)
        done = True
    finally:
        if not done:
            _abandon(connection, poll)


def _check(result: pq.abc.PGresult | None) -> None:
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        raise error_from_result(result)


def _abandon(connection: psycopg.Connection[Any], poll: select.poll) -> None:
    """Cancel the query and take what is left of its answer; close the connection where that takes too long."""
    pgconn = connection.pgconn
    deadline = time.monotonic() + _CANCEL_LIMIT
    with suppress(psycopg.Error):
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            connection.cancel_safe(timeout=_CANCEL_LIMIT)
        while time.monotonic() < deadline:
            if pgconn.is_busy():
                poll.poll(_SLICE)
                pgconn.consume_input()
                continue
            result = pgconn.get_result()
            if result is None:
                return
            if result.status == pq.ExecStatus.COPY_OUT:
                while pgconn.get_copy_data(1)[0] >= 0 and time.monotonic() < deadline:
                    pgconn.consume_input()
    connection.close()
