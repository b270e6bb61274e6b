"""The loop beneath every reader of PostgreSQL's stream: receive, decode, hand out, and connect again.

One thread calls `get`. What was received and decoded waits in a queue, and more is read only when it is empty: a slow
caller slows the server down, and its status updates go on. When the connection is lost, everything that was not handed
out is forgotten, since the server sends it again; what was handed out in this iteration already is passed over then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final, Protocol

# Here, and not when a retry first needs it: an interrupt in the middle of an import leaves half a module behind.
import tenacity as _tenacity  # noqa: F401

from streamlab import metrics
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.garbage import uncollected
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import LSN
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.source import Lag
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError, SlotInUse, SlotLost, StreamLost
from streamlab.failures import Failure, classify
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["FIRST", "RECONNECT", "StreamDecoder", "StreamReader", "Taker"]

log = logging.getLogger(__name__)

FIRST: Final = RetryPolicy(attempts=200, seconds=10.0, base=0.02, cap=0.5)
"""Of the first connection: a reader that has just ended may hold the slot for a moment."""

RECONNECT: Final = RetryPolicy(attempts=1000, seconds=300.0, base=0.1, cap=5.0)
"""After a connection was lost: long enough for a server to be restarted or upgraded."""


class StreamDecoder(Protocol):
    """What the reader needs of `streamlab.cdc.pgoutput.Decoder`."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    @property
    def hold(self) -> LSN | None:
        """What must not be confirmed, while prepared transactions wait."""
        ...

    def receive(self, messages: Sequence[bytes | memoryview]) -> list[Transaction]:
        """Decode; the transactions that are complete now."""
        ...

    def reset(self) -> None:
        """Forget what is open: the connection was lost."""
        ...


class Taker(Protocol):
    """What gets the messages of a stream as they were received, in the thread that reads: a recorder, an inspector."""

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Take messages as they were received."""
        ...

    def restart(self) -> None:
        """A stream begins: what had not ended comes again."""
        ...


class StreamReader:
    """Transactions of one slot, over as many connections as it takes.

    Parameters
    ----------
    name : str
        The slot, for messages and metrics.
    connect : callable
        Makes a connection whose stream begins after a position.
    decoder : StreamDecoder
        Decodes what comes.
    bookkeeping, lock
        Positions, and what guards them.
    stopping : threading.Event
        Ends every wait.
    resumable : bool
        Whether the slot outlives its connection. Of one that does not, what was handed out and not acknowledged is kept
        here, to come again.
    first, reconnect : RetryPolicy
        Bounds of the first connection and of later ones.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[LSN], ReplicationStream],
        decoder: StreamDecoder,
        *,
        bookkeeping: Bookkeeping,
        lock: threading.RLock,
        stopping: threading.Event,
        resumable: bool = True,
        first: RetryPolicy = FIRST,
        reconnect: RetryPolicy = RECONNECT,
    ) -> None:
        self.name = name
        self.books = bookkeeping
        self.stopping = stopping
        self.connection: ReplicationStream | None = None
        self.seconds: float | None = None
        self.takers: list[Taker] = []
        self._lock = lock
        self._connect = connect
        self._decoder = decoder
        self._resumable = resumable
        self._held: deque[Transaction] = deque()
        self._queue: deque[Transaction] = deque()
        self._policies = first, reconnect
        self._was_lost = False
        self._count_bytes = metrics.CDC_RECEIVED_BYTES.labels(name)
        self._count_transactions = metrics.CDC_TRANSACTIONS.labels(name)
        self._show_received = metrics.CDC_RECEIVED_POSITION_BYTES.labels(name)
        self._show_acknowledged = metrics.CDC_ACKNOWLEDGED_POSITION_BYTES.labels(name)
        self._show_seconds = metrics.CDC_LAG_SECONDS.labels(name)
        self._counted_bytes = 0

    # -- the loop ---------------------------------------------------------------------------------

    def get(self, timeout: float | None) -> Transaction | None:
        """The next transaction; None after `timeout` seconds without one, or when `stopping` is set.

        Raises
        ------
        ChangeStreamError
            The stream cannot go on, or could not be taken up again within the bounds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = self.connection is not None
        while not self.stopping.is_set():
            if self._queue:
                with uninterrupted():
                    transaction = self._next()
                if transaction is not None:
                    return transaction
                continue
            if self.connection is None:
                if not self._open():
                    return None
                # Nothing can come before there is a stream: the wait begins with it, once.
                if not waiting and timeout is not None:
                    deadline = time.monotonic() + timeout
                waiting = True
            left = 1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._read(min(left, 0.1))
            except ChangeStreamError as error:
                self._lost(error)
            if not self._queue and deadline is not None and time.monotonic() >= deadline:
                return None
        return None

    def _next(self) -> Transaction | None:
        transaction = self._queue.popleft()
        end = _end(transaction)
        with self._lock:
            if not (wanted := self.books.wants(end)):
                pass
            elif len(transaction):
                self.books.hand_out(end)
            else:
                # Nothing in it for us (before version 15): as if the server had only said how far it is.
                self.books.keepalive(end)
                wanted = False
            self._settle()
        if not wanted:
            return None
        if not self._resumable:
            self._held.append(transaction)
        self._count(transaction)
        return transaction

    def _read(self, timeout: float) -> None:
        connection = self.connection
        if connection is None or not connection.wait(timeout):
            return
        with uninterrupted():
            try:
                with uncollected():
                    messages = connection.drain()
                    if messages:
                        for taker in self.takers:
                            taker.append(messages)
                        self._received(self._decoder.receive(messages))
                with self._lock:
                    self._settle()
            except BaseException:
                # Something was taken and is not kept: only the server has it now.
                self.disconnect(graceful=False)
                raise

    def _settle(self) -> None:
        decoder = self._decoder
        self.books.settled(in_flight=decoder.in_transaction or bool(self._queue), hold=decoder.hold)

    def _received(self, transactions: list[Transaction]) -> None:
        if transactions:
            arrived = datetime.now(UTC)
            self._queue.extend(transactions)
            self.seconds = max(0.0, (arrived - transactions[-1].commit_timestamp).total_seconds())
            self._show_seconds.set(self.seconds)
            self._count_transactions.inc(len(transactions))
        if self.connection is not None:
            self._count_bytes.inc(self.connection.received_bytes - self._counted_bytes)
            self._counted_bytes = self.connection.received_bytes
        self._show_received.set(self.books.write)
        self._show_acknowledged.set(self.books.flush)

    def _count(self, transaction: Transaction) -> None:
        changes = transaction.changes
        if isinstance(changes, (tuple, list)):
            for operation, count in Counter(map(itemgetter(0), changes)).items():
                metrics.CDC_EVENTS.labels(self.name, operation.lower()).inc(count)

    # -- connections ------------------------------------------------------------------------------

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
            classify=classify if again else _first_time,
        )
        with self._lock:
            # What was handed out in this iteration need not come again.
            position = self.books.start
        try:
            self.connection = retry.call(self._connect, position)
        except RetriesExhausted as exhausted:
            if exhausted.reason == "stopped":
                return False
            if isinstance(exhausted.__cause__, ChangeStreamError):
                raise exhausted.__cause__ from exhausted
            raise
        self._decoder.reset()
        self._counted_bytes = 0
        if again:
            metrics.CDC_RECONNECTS.labels(self.name).inc()
            log.info("%s: connected again; the stream goes on after %s", self.name, position)
        self._was_lost = False
        return True

    def adopt(self, connection: ReplicationStream) -> None:
        """Read from a connection whose stream has been started."""
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
            finally:
                self._queue.clear()
                self._decoder.reset()
                with self._lock:
                    self.books.lost()

    # -- iterations -------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Begin an iteration, from the last acknowledgement: what was handed out and not acknowledged comes again."""
        # In one step: a position that was set back, with a queue that was not, would leave transactions out.
        with uninterrupted():
            with self._lock:
                again = self.books.rewind()
            if again and self._resumable:
                self.disconnect()
            elif again:
                self._queue.extendleft(reversed(self._held))
                self._held.clear()

    def acknowledge(self, upto: LSN) -> LSN:
        """Note that the effect of everything up to here is durable, and tell the server soon."""
        with self._lock:
            now = self.books.acknowledge(upto)
        while self._held and _end(self._held[0]) <= now:
            self._held.popleft()
        connection = self.connection
        if connection is not None:
            connection.acknowledged()
        return now

    def lag(self, written: LSN) -> Lag:
        """How far behind a server is that has written its log up to `written`."""
        with self._lock:
            self.books.to_report()
            size = max(0, written - self.books.flush) if self.books.flush else None
        if size is not None:
            metrics.CDC_LAG_BYTES.labels(self.name).set(size)
        return Lag(size, self.seconds)


def _end(transaction: Transaction) -> Any:
    return transaction.end_position


def _first_time(error: object) -> Failure:
    """A server that cannot be reached at all is most often a wrong address: say so at once."""
    return Failure.FATAL if isinstance(error, StreamLost) and not isinstance(error, SlotInUse) else classify(error)
