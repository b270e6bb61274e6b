"""The loop beneath every reader of a server's log: receive, decode, hand out; `connected` connects again.

One thread calls `get`. What was received and decoded waits in a queue, and more is read only when it is empty: a slow
caller slows the server down, and its status updates go on. When the connection is lost, everything that was not handed
out is forgotten, since the server sends it again; what was handed out in this iteration already is passed over then.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from streamlab import metrics
from streamlab.cdc.connected import FIRST, RECONNECT, Connected
from streamlab.cdc.decoding import (
    Books,
    Gathering,
    HandedOut,
    Stream,
    StreamDecoder,
    Taker,
    ends_transaction,
    has_changes,
    tally,
)
from streamlab.cdc.garbage import uncollected
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.source import Lag
from streamlab.errors import ChangeStreamError
from streamlab.retry import RetryPolicy

__all__ = ["StreamReader"]

_ASK_EVERY: Final = 0.1
"""Seconds between questions how far the server has come, while that is waited for."""

H = TypeVar("H", bound=HandedOut)


class StreamReader(Connected[H]):
    """Transactions of one slot or log, or batches of them, over as many connections as it takes.

    Parameters
    ----------
    name : str
        The slot or the reader, for messages and metrics.
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
    count, whole : callable
        Tells the changes of what is handed out, by operation; and how many transactions some of it holds.
    wanted : callable
        Whether something is handed out; else it counts as read.
    watch : callable, optional
        Called again and again while a stream is read; what it raises ends the iteration.
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
        connect: Callable[[Any], Stream],
        decoder: StreamDecoder[H],
        *,
        bookkeeping: Books,
        lock: threading.RLock,
        stopping: threading.Event,
        gathering: Gathering[H] | None = None,
        count: Callable[[H, Callable[[Mapping[str, int]], None]], None] = tally,
        whole: Callable[[list[H]], int] = len,
        wanted: Callable[[H], bool] = has_changes,
        watch: Callable[[], None] | None = None,
        resumable: bool = True,
        takers: list[Taker] | None = None,
        first: RetryPolicy = FIRST,
        reconnect: RetryPolicy = RECONNECT,
    ) -> None:
        super().__init__(
            name, connect, decoder, bookkeeping=bookkeeping, lock=lock, stopping=stopping, resumable=resumable,
            first=first, reconnect=reconnect,
        )  # fmt: skip
        self.seconds: float | None = None
        self.takers: list[Taker] = [] if takers is None else takers
        self._gathering = gathering
        self._count = count
        self._whole = whole
        self._wanted, self._watch = wanted, watch
        self._held: deque[H] = deque()
        self.part: H | None = None
        """What was handed out last, while that is a part of a transaction whose rest is still to come."""
        self._count_bytes = metrics.CDC_RECEIVED_BYTES.labels(name)
        self._count_transactions = metrics.CDC_TRANSACTIONS.labels(name)
        self._show_received = metrics.CDC_RECEIVED_POSITION_BYTES.labels(name)
        self._show_acknowledged = metrics.CDC_ACKNOWLEDGED_POSITION_BYTES.labels(name)
        self._show_seconds = metrics.CDC_LAG_SECONDS.labels(name)

    # -- the loop ---------------------------------------------------------------------------------

    def get(self, timeout: float | None, upto: Any = None, *, stream: bool = True) -> H | None:
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
            try:
                if upto is not None and self._nothing_before(upto):
                    return None
            except ChangeStreamError as error:
                self._lost(error)  # what the decoder keeps back is decoded there, and that may ask the server
            if self.connection is None and (self._from_backlog() or self.stopping.is_set()):
                continue
            if self.connection is None:
                if not stream or not self._open():
                    return None
                # Nothing can come before there is a stream: the wait begins with it, once.
                if not waiting and timeout is not None:
                    deadline = time.monotonic() + timeout
                waiting = True
            if self._watch is not None:
                self._watch()
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

    def _nothing_before(self, upto: Any) -> bool:
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
            elif self._wanted(transaction):
                self.books.hand_out(end)
            else:
                # Nothing in it for us (before version 15, or messages): as if the server had only said how far it is.
                self.books.keepalive(end)
                wanted = False
            self._settle()
        if not wanted:
            return None
        self.part = None if whole else transaction
        if not self._resumable:
            self._held.append(transaction)
        self._count(transaction, self._counted)
        return transaction

    def _counted(self, operations: Mapping[str, int]) -> None:
        for operation, count in operations.items():
            metrics.CDC_EVENTS.labels(self.name, operation.lower()).inc(count)

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
                    self._received(self._decoded(messages))
                if flush and gathering is not None:
                    self._received(gathering.flush())
            with self._lock:
                self._settle()

    def _decoded(self, messages: Sequence[Any]) -> list[H]:
        try:
            return self._decoder.receive(messages)
        finally:
            # Decoding may have asked for types: in a recording they stand before the rows that need them.
            for taker in self.takers:
                taker.append(messages)

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

    def acknowledge(self, upto: Any) -> Any:
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

    def lag(self, written: int) -> Lag:
        """How far behind a server is that has written its log up to `written`."""
        with self._lock:
            self.books.to_report()
            size = max(0, written - self.books.flush) if self.books.flush else None
        if size is not None:
            metrics.CDC_LAG_BYTES.labels(self.name).set(size)
        return Lag(size, self.seconds)


def _end(transaction: HandedOut) -> Any:
    return transaction.end_position
