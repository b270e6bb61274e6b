"""Frames from a live stream: gathered for so long and no longer, each change once, whatever becomes of the connection.

`FrameDecoder` knows no clock and no connection. Here, what is complete waits `max_wait` seconds at most, and what comes
again after a connection was lost is left out as far as it was handed out: whole transactions by their position, and the
first parts of one that is handed out in parts by the ordinals of their changes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from streamlab.cdc.frames.batch import FrameBatch
from streamlab.cdc.frames.decoder import FrameDecoder
from streamlab.cdc.frames.streamed import Streamed
from streamlab.cdc.position import LSN

__all__ = ["FrameStream", "operations", "transactions"]

_PORTION = 4096
_Key = tuple[int, int]


class FrameStream:
    """What `streamlab.cdc.reader.StreamReader` needs of a decoder, made of a `FrameDecoder`. Used by one thread.

    Parameters
    ----------
    decoder : FrameDecoder
        Of protocol 1.
    after : callable
        Where a stream begins, as a position; and what was handed out last, if that is a part of a transaction.
    streamed : Streamed, optional
        What makes protocol 1 of the stream's protocol, where that is another.
    max_wait : float
        Seconds that a complete transaction waits for others.
    """

    hold = None

    def __init__(
        self,
        decoder: FrameDecoder,
        after: Callable[[], tuple[LSN, FrameBatch | None]],
        *,
        streamed: Streamed | None = None,
        max_wait: float = 0.5,
    ) -> None:
        self.decoder, self.max_wait = decoder, max_wait
        self._begin, self._streamed = after, streamed
        self._due: float | None = None
        self._after: _Key | None = None
        self._part = False

    # -- as a decoder -----------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether something was received that was not handed out."""
        return self.decoder.in_transaction or (self._streamed is not None and bool(self._streamed))

    def receive(self, messages: Sequence[bytes | memoryview]) -> list[FrameBatch]:
        """Take messages; the batches that they complete."""
        if self._streamed is not None:
            self._streamed.take(messages)
            return self._fresh(self._following())
        done = self._fresh(self.decoder.receive(messages))
        self._wait(again=bool(done))
        return done

    def reset(self) -> None:
        """Forget what was not handed out: it comes again, and with it perhaps some of what was."""
        position, part = self._begin()
        self.decoder.reset(after=position)
        if self._streamed is not None:
            self._streamed.reset()
        self._due = None
        self._part = part is not None
        last = None if part is None else _last(part)
        # No change has so large a number: all before the position.
        self._after = last or (position - 1, 1 << 32)

    # -- as one that gathers ----------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When what is complete is to be handed out."""
        return self._due

    @property
    def pending(self) -> bool:
        """Whether a large transaction has been committed whose changes are not all decoded."""
        return self._streamed is not None and self._streamed.pending

    def flush(self) -> list[FrameBatch]:
        """What is complete now."""
        done = self._fresh(self._following()) if self.pending else []
        if not done and not self.pending:
            done = self._fresh(self.decoder.flush())
            self._wait(again=True)
        return done

    def _following(self) -> list[FrameBatch]:
        """What the next portions complete, as soon as there is something."""
        done: list[FrameBatch] = []
        while not done and self._streamed is not None and (portion := self._streamed.portion(_PORTION)):
            done = self.decoder.receive(portion)
        self._wait(again=bool(done))
        return done

    def _wait(self, *, again: bool) -> None:
        if not self.decoder.in_transaction:
            self._due = None
        elif again or self._due is None:
            self._due = time.monotonic() + self.max_wait

    # -- what comes again -------------------------------------------------------------------------

    def _fresh(self, batches: list[FrameBatch]) -> list[FrameBatch]:
        fresh = []
        for each in batches:
            batch = each if self._after is None else self._behind(each, self._after)
            # Its last part may hold no changes, and says that the transaction has ended.
            if batch.frames or (self._part and batch.complete):
                fresh.append(batch)
                self._part = not batch.complete
        return fresh

    def _behind(self, batch: FrameBatch, after: _Key) -> FrameBatch:
        frames = []
        for frame in batch.frames:
            first = frame.data.row(0)
            if (first[1], first[2]) <= after:
                position, ordinal = after
                wanted = (pl.col("position") > position) | (
                    (pl.col("position") == position) & (pl.col("ordinal") > ordinal)
                )
                frame = replace(frame, data=frame.data.filter(wanted))
            if len(frame):
                frames.append(frame)
        if frames and len(frames) == len(batch.frames) and len(batch) == sum(map(len, frames)):
            self._after = None  # the log goes on from here
        return replace(batch, frames=tuple(frames))


def _last(batch: FrameBatch) -> _Key | None:
    """The last change of a batch."""
    return max((tuple(frame.data.select("position", "ordinal").row(-1)) for frame in batch.frames), default=None)


def transactions(batches: list[FrameBatch]) -> int:
    """How many transactions ended in them."""
    return sum(each.transactions for each in batches)


def operations(batch: FrameBatch, tell: Callable[[Mapping[str, int]], None]) -> None:
    """Tell how many changes of each operation there are."""
    counts: Counter[str] = Counter()
    for frame in batch.frames:
        for name, count in frame.data["operation"].cast(pl.String).value_counts().iter_rows():
            counts[name] += count
    tell(counts)
