"""The connection beneath a reader of a server's log: made, lost, made again, and the backlog before it.

What was received and not handed out goes with the connection, for the server sends it again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

# Here, and not when a retry first needs it: an interrupt in the middle of an import leaves half a module behind.
import tenacity as _tenacity  # noqa: F401

from streamlab import metrics
from streamlab.cdc.decoding import BacklogSource, Books, HandedOut, Stream, StreamDecoder
from streamlab.cdc.garbage import as_usual
from streamlab.cdc.interrupts import uninterrupted
from streamlab.errors import ChangeStreamError, SlotInUse, SlotLost, StreamLost
from streamlab.failures import Failure, classify
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["FIRST", "RECONNECT", "Connected", "first_time", "persist"]

log = logging.getLogger(__name__)

FIRST: Final = RetryPolicy(attempts=200, seconds=10.0, base=0.02, cap=0.5)
"""Of the first connection: a reader that has just ended may hold the slot for a moment."""

RECONNECT: Final = RetryPolicy(attempts=1000, seconds=300.0, base=0.1, cap=5.0)
"""After a connection was lost: long enough for a server to be restarted or upgraded."""

H = TypeVar("H", bound=HandedOut)
R = TypeVar("R")


class Connected(Generic[H]):
    """What `streamlab.cdc.reader.StreamReader` reads from; see there for the parameters."""

    def __init__(
        self,
        name: str,
        connect: Callable[[Any], Stream],
        decoder: StreamDecoder[H],
        *,
        bookkeeping: Books,
        lock: threading.RLock,
        stopping: threading.Event,
        resumable: bool,
        first: RetryPolicy,
        reconnect: RetryPolicy,
    ) -> None:
        self.name = name
        self.books = bookkeeping
        self.stopping = stopping
        self.connection: Stream | None = None
        self.backlog: BacklogSource[H] | None = None
        """What is read before the stream; `disconnect` ends it."""
        self._lock = lock
        self._connect = connect
        self._decoder = decoder
        self._resumable = resumable
        self._queue: deque[H] = deque()
        self._policies = first, reconnect
        self._was_lost = False
        self._counted_bytes = 0

    @property
    def again(self) -> bool:
        """Whether a connection was lost, and none has been made since."""
        return self._was_lost

    def open(self) -> None:
        """Connect now, rather than at the first `get`."""
        if self.connection is None:
            self._open()

    def _open(self) -> bool:
        again = self._was_lost
        retry = Retry(
            "cdc.connect",
            self._policies[again],
            stop=self.stopping,
            classify=classify if again else first_time,
        )
        with self._lock:
            # What was handed out in this iteration need not come again.
            position = self.books.start
        connection = persist(retry, lambda: self._connect(position))
        if connection is None:
            return False
        self.connection = connection
        self._decoder.reset()
        self._counted_bytes = 0
        if again:
            metrics.CDC_RECONNECTS.labels(self.name).inc()
            log.info("%s: connected again; the stream goes on after %s", self.name, position)
        self._was_lost = False
        return True

    def adopt(self, connection: Stream) -> None:
        """Read from a connection whose stream has been started, and of which nothing was taken yet."""
        self._decoder.reset()
        self._counted_bytes = 0
        self.connection = connection

    def _lost(self, error: ChangeStreamError) -> None:
        self.disconnect(graceful=False)
        if self.stopping.is_set():
            return  # closed by another thread, under this one's hands
        if classify(error) is not Failure.TRANSIENT:
            raise error
        if not self._resumable:
            raise SlotLost(
                f"The connection of the session {self.name} is lost, and its temporary slot went with it.",
                "Open a new session; for a stream that survives this, use a permanent slot: PostgreSQLCDC(...).",
            ) from error
        self._was_lost = True
        log.warning("%s: %s Connecting again.", self.name, error.problem)

    def disconnect(self, *, graceful: bool = True) -> None:
        """Let go of the connection and of what was not handed out. Repeatable."""
        with uninterrupted():
            connection, self.connection = self.connection, None
            try:
                if connection is not None:
                    connection.close(graceful=graceful)
                self.end_backlog()
            finally:
                self._queue.clear()
                self._counted_bytes = 0
                self._decoder.reset()
                with self._lock:
                    self.books.lost()
                as_usual()

    def end_backlog(self) -> None:
        """Go on with the stream."""
        with uninterrupted():
            backlog, self.backlog = self.backlog, None
            if backlog is not None:
                self._counted_bytes = 0
                backlog.close()
                self._decoder.reset()


def persist(retry: Retry, work: Callable[[], R]) -> R | None:
    """Do something within the bounds of a retry; None where it was stopped.

    Raises
    ------
    ChangeStreamError
        The last failure, when the bounds are reached.
    """
    try:
        return retry.call(work)
    except RetriesExhausted as exhausted:
        if exhausted.reason == "stopped":
            return None
        if isinstance(exhausted.__cause__, ChangeStreamError):
            raise exhausted.__cause__ from exhausted
        raise


def first_time(error: object) -> Failure:
    """A server that cannot be reached at all is most often a wrong address: say so at once."""
    return Failure.FATAL if isinstance(error, StreamLost) and not isinstance(error, SlotInUse) else classify(error)
