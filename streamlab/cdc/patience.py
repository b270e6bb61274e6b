"""A connection that does not wait for ever: a network that is silent looks to psycopg like a server that works.

``statement_timeout`` is the server's: it bounds the statement, not the wait for an answer that is lost on the way. TCP
itself gives up after minutes, or never where a proxy keeps the connection open.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

__all__ = ["PatientConnection"]

R = TypeVar("R")


class PatientConnection(psycopg.Connection[Any]):
    """As psycopg's; a wait for the server that takes longer than `patience` seconds ends with `OperationalError`.

    The connection is closed then: what was asked may have been done or not.
    """

    patience: float = 60.0

    def wait(self, gen: PQGen[R], interval: float = 0.1, timeout: float | None = None) -> R:
        """Wait for the server, for so long at most."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        deadline = time.monotonic() + self.patience
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and time.monotonic() >= deadline:
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the server has not answered within {self.patience:.0f} s") from error
            raise
