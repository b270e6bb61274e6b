"""A backlog before the stream: chunks through COPY, over as many connections as it takes, handed out like the stream.

`StreamReader` asks for the next messages whenever all that came before was handed out. At the end of a chunk everything
has to be acknowledged, for the slot is moved behind it and the next chunk begins where the slot stands. When the
connection is lost, or reading is interrupted, the chunk is asked for again from where the slot stands, and what was
handed out is passed over; so the stream, which begins behind what was handed out last, finds no gap and no overlap.

See `streamlab.cdc.slot_log` for what is asked, and docs/frames.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import psycopg

from streamlab import metrics
from streamlab.cdc import slots
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.connected import FIRST, persist
from streamlab.cdc.copied import Abandoned
from streamlab.cdc.decoding import HandedOut, StreamDecoder, Taker
from streamlab.cdc.garbage import uncollected
from streamlab.cdc.position import LSN
from streamlab.cdc.slot_log import SlotLog
from streamlab.errors import ChangeStreamError, NotAcknowledged
from streamlab.failures import Failure, classify
from streamlab.retry import Retry, RetryPolicy

__all__ = ["ROWS", "Backlog"]

log = logging.getLogger(__name__)

ROWS: Final = 2_000_000
"""Messages of a chunk. The server reads its log from the slot's restart point for each; so many, but with a bound."""

H = TypeVar("H", bound=HandedOut)


class Backlog(Generic[H]):
    """What a slot holds, up to where the log ended when it was first asked. Used by one thread, but for `close`.

    Parameters
    ----------
    name : str
        The slot, for messages and metrics.
    connect : callable
        Makes a connection, and checks what has to hold.
    decoder : StreamDecoder
        Of protocol 1. One that has `flush` is asked for the rest at the end of a chunk.
    bookkeeping, lock, stopping, takers
        As for `StreamReader`, whose they are.
    reconnect : RetryPolicy
        For how long a lost connection is made again.
    strict : bool
        Whether a chunk that was not acknowledged is an error. Otherwise the backlog ends there, for the stream.
    rows : int
        Messages of a chunk.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], SlotLog],
        decoder: StreamDecoder[H],
        *,
        bookkeeping: Bookkeeping,
        lock: threading.RLock,
        stopping: threading.Event,
        takers: Sequence[Taker] = (),
        reconnect: RetryPolicy,
        strict: bool,
        rows: int = ROWS,
    ) -> None:
        self.name, self.books, self.stopping = name, bookkeeping, stopping
        self.received_bytes = 0
        self._connect, self._decoder, self._lock, self._takers = connect, decoder, lock, takers
        self._reconnect, self._strict, self._rows = reconnect, strict, rows
        self._log: SlotLog | None = None
        self._chunk: Iterator[list[bytes]] | None = None
        self._target: LSN | None = None
        self._count = 0
        self._before = LSN(0)
        self._ended = False

    def read(self) -> list[H] | None:
        """What comes next, once all that came before was handed out; None at the end, or when reading was stopped.

        Raises
        ------
        NotAcknowledged
            A chunk was not.
        ChangeStreamError
            The slot cannot be read, or the connection could not be made again within the bounds.
        """
        with suppress(Abandoned):
            try:
                return self._attempt()
            except ChangeStreamError as error:
                if classify(error) is not Failure.TRANSIENT:
                    raise
                if self.stopping.is_set():
                    return None
                log.warning("%s: %s Connecting again.", self.name, error.problem)
            retry = Retry("cdc.catch_up", FIRST if self._target is None else self._reconnect, stop=self.stopping)
            found = persist(retry, self._attempt)
            metrics.CDC_RECONNECTS.labels(self.name).inc()
            return found
        return None

    def _attempt(self) -> list[H] | None:
        try:
            return self._portion()
        except psycopg.Error as error:
            self._let_go()
            raise slots.refused(error, "Reading what the slot holds") from error
        except BaseException:
            self._let_go()
            raise

    def _portion(self) -> list[H] | None:
        if self._ended and not self._go_on():
            return None
        chunk = self._chunk or self._begin()
        portion = next(chunk, None)
        if portion is None:
            self._chunk, self._ended = None, True
            flush: Callable[[], list[H]] = getattr(self._decoder, "flush", list)
            found: list[H] = []
            while some := flush():
                found += some
            return found
        self._count += len(portion)
        self.received_bytes += sum(map(len, portion))
        try:
            with uncollected():
                return self._decoder.receive(portion)
        finally:
            # Behind it, as in `streamlab.cdc.reader`.
            for taker in self._takers:
                taker.append(portion)

    def _begin(self) -> Iterator[list[bytes]]:
        slot_log = self._log
        if slot_log is None:
            slot_log = self._log = self._connect()
            written = slot_log.prepare()
            self._target = self._target or written
        with self._lock:
            acknowledged, self._before = self.books.acknowledged, self.books.cursor
        slot_log.move(acknowledged)
        self._decoder.reset()
        self._count = 0
        self._chunk = slot_log.chunk(self._target or LSN(0), self._rows)
        return self._chunk

    def _go_on(self) -> bool:
        """Whether there may be another chunk behind the one that has ended."""
        with self._lock:
            acknowledged, handed_out = self.books.acknowledged, self.books.cursor
        if acknowledged < handed_out:
            if self._strict:
                raise NotAcknowledged(
                    f"The slot {self.name} cannot go on: {handed_out} was handed out, and {acknowledged} acknowledged.",
                    "Acknowledge each transaction when its effect is durable, before you ask for the next.",
                )
            log.info("%s: %s is not acknowledged yet, so the stream goes on here", self.name, handed_out)
            return False
        self._ended = False
        if self._log is not None and self._count < self._rows:
            # Everything up to the target was looked at: what is not ours need not be looked at again.
            upto = max(self._target or LSN(0), acknowledged)
            self._log.move(upto)
            with self._lock:
                self.books.confirmed(upto)
            return False
        if handed_out == self._before:
            # Nothing in it for the caller, so nothing that the slot may move behind: look further.
            self._rows *= 2
        return True

    def _let_go(self) -> None:
        chunk, self._chunk, slot_log, self._log, self._ended = self._chunk, None, self._log, None, False
        with suppress(ValueError):  # another thread is in it
            if chunk is not None:
                _close(chunk)
        if slot_log is not None:
            slot_log.connection.close()
        self._decoder.reset()

    def close(self) -> None:
        """Move the slot to what was acknowledged, and let go of the connection. Idempotent."""
        slot_log, chunk, self._chunk = self._log, self._chunk, None
        try:
            if chunk is not None:
                _close(chunk)
            if slot_log is not None and not slot_log.connection.closed:
                with self._lock:
                    acknowledged = self.books.acknowledged
                slot_log.move(acknowledged)
        except (psycopg.Error, ValueError) as error:
            # The stream tells the server, or whoever reads next.
            log.debug("%s: the slot was not moved: %s", self.name, error)
        finally:
            self._let_go()


def _close(chunk: Any) -> None:
    chunk.close()
