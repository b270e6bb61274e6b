"""What a reader asks the server about its slot, beside the stream: how far everybody is.

Over an ordinary connection of its own, which is made at the first question, made again when it was lost, and bounded in
its patience. Any thread may ask; one at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from streamlab.cdc import slots
from streamlab.cdc.position import LSN
from streamlab.errors import SlotMissing
from streamlab.sql import load

__all__ = ["SlotPositions", "SlotQuestions"]


@dataclass(frozen=True, slots=True)
class SlotPositions:
    """Where a slot stands, as the server shows it in ``pg_replication_slots``.

    Attributes
    ----------
    confirmed : LSN or None
        ``confirmed_flush_lsn``: what ends up to here never comes again.
    restart : LSN or None
        ``restart_lsn``: the log from here on is kept for the slot.
    written : LSN
        Where the log ends.
    """

    confirmed: LSN | None
    restart: LSN | None
    written: LSN


class SlotQuestions:
    """Questions about one slot.

    Parameters
    ----------
    connect : callable
        Makes an ordinary connection.
    slot : str
        Its name.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], slot: str) -> None:
        self._connect, self._slot = connect, slot
        self.connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()

    def written(self) -> LSN:
        """Where the log ends.

        Raises
        ------
        ChangeStreamError
            The server does not answer.
        """
        return LSN.parse(self._ask("postgres_capture", "written", ())[0])

    def positions(self) -> SlotPositions:
        """Where the slot stands.

        Raises
        ------
        SlotMissing
            There is no such slot.
        ChangeStreamError
            The server does not answer.
        """
        row = self._ask("postgres_capture", "positions", [self._slot])
        if row is None:
            raise SlotMissing(f"There is no replication slot {self._slot}.", "Make it first: cdc.initialize().")
        restart, confirmed, written = (None if row[at] is None else LSN.parse(row[at]) for at in (0, 1, 4))
        return SlotPositions(confirmed, restart, written or LSN(0))

    def advance(self, upto: LSN) -> None:
        """Move a slot that nobody reads behind what was acknowledged; nothing where somebody does.

        Raises
        ------
        ChangeStreamError
            The server does not answer, or refuses.
        """
        try:
            self._ask("postgres_catch_up", "advance", {"slot": self._slot, "upto": str(upto)})
        except psycopg.errors.ObjectInUse:
            return
        except psycopg.Error as error:
            raise slots.refused(error, f"Moving the slot {self._slot}") from error

    def _ask(self, file: str, block: str, parameters: Any) -> Any:
        with self._lock:
            for attempt in (1, 2):
                if self.connection is None or self.connection.closed:
                    self.connection = self._connect()
                try:
                    return self.connection.execute(load(file)[block], parameters).fetchone()
                except psycopg.errors.ObjectInUse:
                    raise
                except slots.LOST as error:
                    self.connection.close()
                    if attempt == 2:
                        raise slots.refused(error, "A question to the server") from error
        return None

    def close(self) -> None:
        """Let go of the connection. Idempotent; the next question makes a new one."""
        with self._lock:
            if self.connection is not None:
                self.connection.close()
                self.connection = None
