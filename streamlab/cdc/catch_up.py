"""A backlog read by SQL: what a slot holds comes through COPY, in large chunks, before the stream goes on.

A walsender sends each message on its own and wakes the reader for it; `pg_logical_slot_peek_binary_changes` decodes
a whole stretch of the log first and COPY then sends it in full packets. That is the fastest way through a backlog, and
works over an ordinary connection. It looks without taking: only after the caller has acknowledged a chunk is the slot
moved behind it (`pg_replication_slot_advance`), which also is where the next chunk, or the stream, begins. A crash
between the two brings the chunk again, keyed alike: at least once, with no gap.

`streamlab.cdc.PostgreSQLCDC` does this by itself: `frames` before its stream, and `catch_up`. `CatchUp` is for a
connection of one's own.

Source: PostgreSQL's manual, "Replication Management Functions" and "COPY", "Binary Format".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import psycopg

from streamlab.cdc import arguments
from streamlab.cdc.backlog import ROWS
from streamlab.cdc.decoding import Ended
from streamlab.cdc.garbage import as_usual, uncollected
from streamlab.cdc.position import LSN
from streamlab.cdc.slot_log import SlotLog
from streamlab.errors import NotAcknowledged

__all__ = ["CatchUp", "Decoding"]

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Ended, covariant=True)


class Decoding(Protocol[T]):
    """What is needed of a decoder of protocol 1: `pgoutput.Decoder` makes transactions, `FrameDecoder` batches."""

    def receive(self, messages: Sequence[bytes | memoryview]) -> Sequence[T]:
        """Take messages; what they complete."""
        ...

    def reset(self) -> None:
        """Forget what is open."""
        ...


class CatchUp(Generic[T]):
    """Reads what a slot holds, up to where the log ended when it began.

    ::

        with CatchUp(connection, "warehouse", ["shop"], FrameDecoder()) as backlog:
            for batch in backlog:
                store(batch)
                backlog.acknowledge(batch)

    Afterwards, or at any time before, a stream on the same slot goes on right behind what was acknowledged. While a
    chunk is read the slot is in use, by this connection. Used by one thread.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode, as a role with REPLICATION. Its settings for dates and intervals are set, for a text stream.
    slot : str
        A logical slot for pgoutput.
    publications : sequence of str
        Whose tables.
    decoder : Decoding
        What makes transactions or frames of the messages.
    rows : int
        Messages of a chunk. The server reads its log from the slot's restart point for each, and keeps a chunk in
        memory or in a temporary file; so many, but not without a bound.
    binary : bool
        Whether values travel in PostgreSQL's binary form, which is fastest for frames.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        publications: Sequence[str],
        decoder: Decoding[T],
        *,
        rows: int = ROWS,
        binary: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        arguments.count("rows", rows)
        self._log = SlotLog(connection, slot, publications, binary=binary, options=options)
        self._decoder, self._rows = decoder, rows
        self._acknowledged = self._handed_out = LSN(0)

    @property
    def acknowledged(self) -> LSN | None:
        """Up to where the effect is durable, by the caller's word."""
        return self._acknowledged or None

    def acknowledge(self, upto: Ended | LSN) -> None:
        """The effect of everything up to here is durable. Monotonic; never beyond what was handed out."""
        end = upto if isinstance(upto, LSN) else LSN(upto.end_position)
        self._acknowledged = max(self._acknowledged, min(end, self._handed_out))

    def __enter__(self) -> CatchUp[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Move the slot to what was acknowledged. The connection stays open. Idempotent."""
        as_usual()
        self._decoder.reset()
        connection = self._log.connection
        if not connection.closed and not connection.broken:
            self._log.move(self._acknowledged)

    def __iter__(self) -> Iterator[T]:
        """What the decoder makes of the backlog, in the order of the log.

        Raises
        ------
        NotAcknowledged
            A chunk was not, so the next one cannot be read: it begins where the slot stands.
        """
        target, rows = self._log.prepare(), self._rows
        while True:
            self._decoder.reset()
            count, before = 0, self._handed_out
            for portion in self._log.chunk(target, rows):
                count += len(portion)
                with uncollected():
                    made = self._decoder.receive(portion)
                yield from self._handing_out(made)
            flush: Callable[[], Sequence[T]] = getattr(self._decoder, "flush", tuple)
            yield from self._handing_out(flush())
            if self._acknowledged < self._handed_out:
                raise NotAcknowledged(
                    f"The slot {self._log.slot} cannot go on: {self._handed_out} was handed out, and "
                    f"{self._acknowledged} acknowledged.",
                    "Acknowledge each batch when its effect is durable.",
                )
            if count < rows:
                # Everything up to the target was looked at: what is not ours need not be looked at again.
                self._log.move(max(target, self._acknowledged))
                return
            if self._handed_out == before:
                # Nothing in it for the caller, so nothing that the slot may move behind: look further.
                rows *= 2
            self._log.move(self._acknowledged)

    def _handing_out(self, made: Sequence[T]) -> Iterator[T]:
        for each in made:
            self._handed_out = max(self._handed_out, LSN(each.end_position))
            yield each
