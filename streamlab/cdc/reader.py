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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

# Here, and not when a retry first needs it: an interrupt in the middle of an import leaves half a module behind.
import tenacity as _tenacity  # noqa: F401

from streamlab import metrics
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.decoding import BacklogSource, Gathering, HandedOut, StreamDecoder, Taker, ends_transaction
from streamlab.cdc.garbage import uncollected
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import LSN
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.source import Lag
from streamlab.errors import ChangeStreamError, SlotInUse, SlotLost, StreamLost
from streamlab.failures import Failure, classify
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["FIRST", "RECONNECT", "StreamReader"]

log = logging.getLogger(__name__)

FIRST: Final = RetryPolicy(attempts=200, seconds=10.0, base=0.02, cap=0.5)
"""Of the first connection: a reader that has just ended may hold the slot for a moment."""

RECONNECT: Final = RetryPolicy(attempts=1000, seconds=300.0, base=0.1, cap=5.0)
"""After a connection was lost: long enough for a server to be restarted or upgraded."""

_ASK_EVERY: Final = 0.1
"""Seconds between questions how far the server has come, while that is waited for."""


H = TypeVar("H", bound=HandedOut)


class StreamReader(Generic[H]):
    """Transactions of one slot, or batches of them, over as many connections as it takes.

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
    gathering : Gathering, optional
        The decoder, if it keeps back what is complete.
    tally, whole : callable
        Changes of what is handed out, by operation; and how many transactions some of it holds.
    resumable : bool
        Whether the slot outlives its connection. Of one that does not, what was handed out and not acknowledged is kept
        here, to come again.
    takers : list of Taker
        What gets the messages as they were received.
    first, reconnect : RetryPolicy
        Bounds of the first connection and of later ones.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[LSN], ReplicationStream],
        decoder: StreamDecoder[H],
        *,
        bookkeeping: Bookkeeping,
        lock: threading.RLock,
        stopping: threading.Event,
        gathering: Gathering[H] | None = None,
        tally: Callable[[H], Mapping[str, int]] | None = None,
        whole: Callable[[list[H]], int] = len,
        resumable: bool = True,
        takers: list[Taker] | None = None,
        first: RetryPolicy = FIRST,
        reconnect: RetryPolicy = RECONNECT,
    ) -> None:
        self.name = name
        self.books = bookkeeping
        self.stopping = stopping
        self.connection: ReplicationStream | None = None
        self.seconds: float | None = None
        self.takers: list[Taker] = [] if takers is None else takers
        self._lock = lock
        self._connect = connect
        self._decoder, self._gathering = decoder, gathering
        self._tally: Callable[[H], Mapping[str, int]] = tally or _operations
        self._whole = whole
        self._resumable = resumable
        self._held: deque[H] = deque()
        self._queue: deque[H] = deque()
        self.backlog: BacklogSource[H] | None = None
        """What is read before the stream; `disconnect` ends it."""
        self.part: H | None = None
        """What was handed out last, while that is a part of a transaction whose rest is still to come."""
        self._policies = first, reconnect
        self._was_lost = False
        self._count_bytes = metrics.CDC_RECEIVED_BYTES.labels(name)
        self._count_transactions = metrics.CDC_TRANSACTIONS.labels(name)
        self._show_received = metrics.CDC_RECEIVED_POSITION_BYTES.labels(name)
        self._show_acknowledged = metrics.CDC_ACKNOWLEDGED_POSITION_BYTES.labels(name)
        self._show_seconds = metrics.CDC_LAG_SECONDS.labels(name)
        self._counted_bytes = 0

    # -- the loop ---------------------------------------------------------------------------------

    def get(self, timeout: float | None, upto: int | None = None, *, stream: bool = True) -> H | None:
        """The next transaction, or batch of some; None after `timeout` seconds without one.

        None too when `stopping` is set, or, with `upto`, when nothing is left that ends at or before that position.
        Without `stream` the backlog is all there is.

        Raises
        ------
        ChangeStreamError
            The stream cannot go on, or could not be taken up again within the bounds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting, asked = self.connection is not None, 0.0
        while not self.stopping.is_set():
            if self._queue:
                with uninterrupted():
                    transaction = self._next()
                if transaction is not None:
                    return transaction
                continue
            if upto is not None and self._nothing_before(upto):
                return None
            if self.connection is None and (self._from_backlog() or self.stopping.is_set()):
                continue
            if self.connection is None:
                if not stream or not self._open():
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
            if self._queue:
                continue
            if deadline is not None and time.monotonic() >= deadline:
                return None
            if upto is not None and self.connection is not None and time.monotonic() >= asked + _ASK_EVERY:
                # One that has sent everything, and been told that it arrived, does not say so again by itself.
                asked = time.monotonic()
                self.connection.feedback(reply=True)
        return None

    def _nothing_before(self, upto: int) -> bool:
        """Whether all that ends up to there was handed out; what the decoder keeps back is put into the queue first."""
        with self._lock:
            if not self.books.passed(upto):
                return False
        if self._gathering is not None:
            with self._kept_or_sent_again():
                self._received(self._gathering.flush())
        return not self._queue and (self._gathering is None or not self._gathering.pending)

    def _from_backlog(self) -> bool:
        """Put into the queue what the backlog gives; False when there is none, or no more of it."""
        if self.backlog is None:
            return False
        try:
            found = self.backlog.read()
            if found is not None:
                self._received(found)
                return True
        except BaseException:
            # Something was taken and is not kept: only the server has it now.
            self.disconnect(graceful=False)
            raise
        if not self.stopping.is_set():
            self.end_backlog()
        return False

    def end_backlog(self) -> None:
        """Go on with the stream."""
        with uninterrupted():
            backlog, self.backlog = self.backlog, None
            if backlog is not None:
                self._counted_bytes = 0
                backlog.close()
                self._decoder.reset()

    def _next(self) -> H | None:
        transaction = self._queue.popleft()
        end = _end(transaction)
        whole = ends_transaction(transaction)
        with self._lock:
            # A part ends where the transaction before it did, and the last part of one may hold no changes.
            if self.part is not None or not whole:
                wanted = True
                self.books.hand_out(end)
            elif not (wanted := self.books.wants(end)):
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
        self.part = None if whole else transaction
        if not self._resumable:
            self._held.append(transaction)
        for operation, count in self._tally(transaction).items():
            metrics.CDC_EVENTS.labels(self.name, operation.lower()).inc(count)
        return transaction

    def _read(self, timeout: float) -> None:
        connection, gathering = self.connection, self._gathering
        if connection is None:
            return
        due = None if gathering is None else gathering.due
        if due is not None:
            timeout = min(timeout, max(0.0, due - time.monotonic()))
        # While a large transaction is handed out in parts, no more of the stream is taken in.
        pending = gathering is not None and gathering.pending
        arrived = not pending and connection.wait(timeout)
        flush = gathering is not None and (pending or (due is not None and time.monotonic() >= due))
        if not arrived and not flush:
            return
        with self._kept_or_sent_again():
            with uncollected():
                messages = connection.drain() if arrived else []
                if messages:
                    for taker in self.takers:
                        taker.append(messages)
                    self._received(self._decoder.receive(messages))
                if flush and gathering is not None:
                    self._received(gathering.flush())
            with self._lock:
                self._settle()

    @contextmanager
    def _kept_or_sent_again(self) -> Iterator[None]:
        """For steps that take messages: after one that fails only the server has them."""
        with uninterrupted():
            try:
                yield
            except BaseException:
                self.disconnect(graceful=False)
                raise

    def _settle(self) -> None:
        decoder = self._decoder
        self.books.settled(in_flight=decoder.in_transaction or bool(self._queue), hold=decoder.hold)

    def _received(self, transactions: list[H]) -> None:
        if transactions:
            arrived = datetime.now(UTC)
            self._queue.extend(transactions)
            self.seconds = max(0.0, (arrived - transactions[-1].commit_timestamp).total_seconds())
            self._show_seconds.set(self.seconds)
            self._count_transactions.inc(self._whole(transactions))
        source = self.connection or self.backlog
        if source is not None:
            self._count_bytes.inc(source.received_bytes - self._counted_bytes)
            self._counted_bytes = source.received_bytes
        self._show_received.set(self.books.write)
        self._show_acknowledged.set(self.books.flush)

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

    # -- iterations -------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Begin an iteration, from the last acknowledgement: what was handed out and not acknowledged comes again."""
        # In one step: a position that was set back, with a queue that was not, would leave transactions out.
        with uninterrupted():
            with self._lock:
                again = self.books.rewind() or self.part is not None or self.backlog is not None
            self.part = None
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

    def tell(self) -> bool:
        """Tell the server now what was acknowledged; False where there is no stream to do it."""
        connection = self.connection
        if connection is None:
            return False
        connection.feedback()
        return True

    def lag(self, written: LSN) -> Lag:
        """How far behind a server is that has written its log up to `written`."""
        with self._lock:
            self.books.to_report()
            size = max(0, written - self.books.flush) if self.books.flush else None
        if size is not None:
            metrics.CDC_LAG_BYTES.labels(self.name).set(size)
        return Lag(size, self.seconds)


def _end(transaction: HandedOut) -> Any:
    return transaction.end_position


def _operations(transaction: Any) -> Mapping[str, int]:
    changes = transaction.changes
    return Counter(map(itemgetter(0), changes)) if isinstance(changes, (tuple, list)) else {}


def _first_time(error: object) -> Failure:
    """A server that cannot be reached at all is most often a wrong address: say so at once."""
    return Failure.FATAL if isinstance(error, StreamLost) and not isinstance(error, SlotInUse) else classify(error)
