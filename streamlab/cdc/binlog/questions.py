"""What a reader asks the server about its log, beside the stream: where it ends, and how much of it lies ahead.

Over an ordinary connection of its own, which is made at the first question, made again when it was lost, and bounded in
its patience. Any thread may ask; one at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pymysql

from streamlab.cdc.binlog.position import BinlogPosition
from streamlab.cdc.binlog.preflight import readable
from streamlab.cdc.binlog.refusals import refused
from streamlab.errors import CannotCapture
from streamlab.sql import load

__all__ = ["LogQuestions"]


class LogQuestions:
    """Questions about the log of one server.

    Parameters
    ----------
    connect : callable
        Makes an ordinary connection, as a role with REPLICATION CLIENT.
    """

    def __init__(self, connect: Callable[[], pymysql.Connection[Any]]) -> None:
        self._connect = connect
        self._connection: pymysql.Connection[Any] | None = None
        self._lock = threading.Lock()

    def written(self) -> BinlogPosition:
        """Where the log ends, and all transactions in it.

        Raises
        ------
        ChangeStreamError
            The server does not answer, is none that can be read, or has no binary log.
        """
        rows = self._ask("status")
        if not rows:
            raise CannotCapture("The server writes no binary log.", "Start it with log_bin, and restart it.")
        return BinlogPosition.of_status(rows[0])

    def behind(self, position: BinlogPosition) -> int | None:
        """Bytes of log after a position; None where the server does not have its file.

        Raises
        ------
        ChangeStreamError
            The server does not answer.
        """
        sizes = {str(file): int(size) for file, size, *_ in self._ask("logs")}
        if position.file not in sizes:
            return None
        later = sum(size for file, size in sizes.items() if file > position.file)
        return max(0, sizes[position.file] - position.offset) + later

    def _ask(self, block: str) -> Any:
        with self._lock:
            for attempt in (1, 2):
                connection = self._connection
                if fresh := connection is None or not connection.open:
                    connection = self._connection = self._connect()
                try:
                    with connection.cursor() as cursor:
                        if fresh:  # also behind one that was lost: it may be another server
                            cursor.execute(load("mysql_capture")["version"])
                            ((version,),) = cursor.fetchall()
                            readable(version)
                        cursor.execute(load("mysql_capture")[block])
                        return cursor.fetchall()
                except CannotCapture:
                    self._let_go()
                    raise
                except (pymysql.Error, OSError) as error:
                    self._let_go()
                    if attempt == 2:
                        raise refused(error, "A question about the binary log") from error
        return None

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.open:
            connection.close()

    def close(self) -> None:
        """Let go of the connection. Idempotent; the next question makes a new one."""
        with self._lock:
            self._let_go()
