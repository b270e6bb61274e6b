"""A recording as a source of changes: what a reader of the server would have handed out, with no server.

It keeps the contract of `streamlab.cdc.source.ChangeSource`: an iteration begins after the last acknowledgement, and
what was handed out and not acknowledged comes again, keyed alike.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.recording_file import About, Chunk
from streamlab.cdc.source import Batch, Lag, enough
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.errors import ChangeStreamError, SettingsError

__all__ = ["Replay"]


class Recorded(Protocol):
    """What a replay needs of `streamlab.cdc.recording.Recording`."""

    path: Path
    about: About
    types: list[tuple[Any, ...]]
    end: LSN | None

    def chunks(self) -> Iterator[Chunk]:
        """Messages in the groups in which they arrived."""
        ...


class Replay:
    """Hands out the transactions of a recording, as fast as asked for; made by `Recording.source`.

    One thread iterates; `acknowledge`, `lag` and `stop` may be called from any. The iteration ends with the recording.
    """

    def __init__(
        self, recording: Recorded, *, speed: float | None = None, after: LSN | None = None, **decoder: Any
    ) -> None:
        if speed is not None and not speed > 0:
            raise SettingsError(f"A recording cannot be replayed at {speed} times its speed.", "Give more than 0.")
        self._recording = recording
        self._speed = speed
        types = TypeMap()
        types.load(recording.types)
        about = recording.about
        self._decoder: Decoder | None = Decoder(
            protocol=about.protocol, binary=about.binary, types=types, primary_keys=about.primary_keys, **decoder
        )
        self._received: LSN | None = None
        self._acknowledged = after
        self._stopping = threading.Event()
        self._chunks: Iterator[Chunk] = iter(())
        self._ahead: Chunk | None = None
        self._ready: deque[Transaction] = deque()
        self._decoded = self._passed = LSN(0)
        """Ends of the last transaction of this iteration, and of the last one before the connection was made again."""
        self._origin: tuple[float, float] | None = None
        """Seconds of the recording, and of this machine's clock, that are the same moment."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Replay({self.name!r}, received={self._received}, acknowledged={self._acknowledged})"

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._recording.path.name

    @property
    def received(self) -> LSN | None:
        """End of the last transaction that was handed out."""
        return self._received

    @property
    def acknowledged(self) -> LSN | None:
        """Where the next iteration begins."""
        return self._acknowledged

    def written(self) -> LSN:
        """Where the log ends that was recorded.

        Raises
        ------
        ChangeStreamError
            The recording was cut off, so its end is not known.
        """
        if self._recording.end is None:
            raise ChangeStreamError(
                f"The end of {self.name} is missing, so nobody knows how far it goes.",
                "Leave until= out: an iteration ends with the recording by itself.",
            )
        return self._recording.end

    def transactions(self, *, until: int | Position | None = None, idle: float | None = None) -> Iterator[Transaction]:
        """Transactions in commit order; ends with the recording, with `until`, or after `idle` seconds."""
        limit, upto = enough(until, LSN)
        self._rewind()
        count = 0
        while (limit is None or count < limit) and (transaction := self._get(idle)) is not None:
            count += 1
            yield transaction
            if upto is not None and upto <= transaction.end_position:
                return

    def batches(
        self, *, max_rows: int = 10_000, max_wait: float = 0.5, until: int | Position | None = None,
        idle: float | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """Whole transactions together: until a batch has `max_rows` changes or `max_wait` seconds have passed."""
        limit, upto = enough(until, LSN)
        self._rewind()
        count = 0
        while (limit is None or count < limit) and (first := self._get(idle)) is not None:
            count += 1
            found, rows, deadline = [first], len(first), time.monotonic() + max_wait
            while (
                rows < max_rows
                and (upto is None or found[-1].end_position < upto)
                and (following := self._get(max(0.0, deadline - time.monotonic()))) is not None
            ):
                found.append(following)
                rows += len(following)
            yield Batch(tuple(found))
            if upto is not None and upto <= found[-1].end_position:
                return

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable. Monotonic; never beyond what was handed out."""
        position = cast("LSN", upto.end_position if isinstance(upto, Transaction | Batch) else upto)
        if self._received is not None:
            self._acknowledged = max(self._acknowledged or LSN(0), min(position, self._received))

    def lag(self) -> Lag:
        """Bytes of log between the acknowledgement and the recording's end; None where that is missing."""
        if self._recording.end is None:
            return Lag(None, None)
        return Lag(max(0, self._recording.end - (self._acknowledged or self._recording.about.start)), None)

    def stop(self) -> None:
        """End the iteration soon; returns at once."""
        self._stopping.set()

    def close(self) -> None:
        """Give back memory and disk. Idempotent."""
        self._stopping.set()
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def _rewind(self) -> None:
        if self._decoder is None:
            raise ChangeStreamError(f"The replay of {self.name} is closed.", "Open the recording again.")
        self._decoder.reset()
        self._stopping.clear()
        self._chunks, self._ahead, self._origin = self._recording.chunks(), None, None
        self._ready.clear()
        self._decoded = self._passed = LSN(0)

    def _get(self, timeout: float | None) -> Transaction | None:
        """The next transaction; None at the end, after `timeout` seconds, or when it was stopped."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopping.is_set():
            if self._ready:
                transaction = self._ready.popleft()
                self._received = max(self._received or LSN(0), cast("LSN", transaction.end_position))
                return transaction
            self._ahead = self._ahead or next(self._chunks, None)
            if self._ahead is None:
                return None
            now = time.monotonic()
            due = self._due(self._ahead)
            if due > now:
                if deadline is not None and deadline <= now:
                    return None
                self._stopping.wait(min(due, deadline or due) - now)
                continue
            chunk, self._ahead = self._ahead, None
            self._decode(chunk)
        return None

    def _due(self, chunk: Chunk) -> float:
        if self._speed is None or self._origin is None:
            return 0.0
        recorded, ours = self._origin
        return ours + (chunk.seconds - recorded) / self._speed

    def _decode(self, chunk: Chunk) -> None:
        assert self._decoder is not None  # noqa: S101 - opened, for it was rewound
        if chunk.again:
            self._decoder.reset()
            self._passed = self._decoded
            return
        after = max(self._acknowledged or LSN(0), self._passed)
        for transaction in self._decoder.receive(chunk.messages):
            end = cast("LSN", transaction.end_position)
            if after < end:
                self._ready.append(transaction)
                self._decoded = max(self._decoded, end)
        if self._origin is None and self._ready:
            # The time that leads up to the first transaction is not waited for.
            self._origin = chunk.seconds, time.monotonic()
