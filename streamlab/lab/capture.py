"""What a stream sent, kept in two forms at once: the last messages to be inspected, and the changes as data frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamlab.lab.inspector import Inspector

if TYPE_CHECKING:
    import polars as pl

    from streamlab.cdc.frames import FrameBatch

__all__ = ["Capture"]


class Capture:
    """Give it to a reader of protocol version 1 as its ``tap``. Threads may share it.

    Parameters
    ----------
    messages : int
        How many of the last messages are kept.
    rows : int
        How many of the last changes are kept as frames, about: whole batches, and at least so many.

    Attributes
    ----------
    inspector : Inspector
        The messages.
    """

    def __init__(self, *, messages: int = 200, rows: int = 10_000) -> None:
        # Loaded here: whoever only inspects needs no frames.
        from streamlab.cdc.frames import FrameDecoder

        self.inspector = Inspector(keep=messages)
        self._rows = rows
        self._decoder = FrameDecoder(max_rows=max(1000, min(rows, 20_000)))
        self._batches: deque[FrameBatch] = deque()
        self._lock = threading.Lock()

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Take messages as they were received."""
        received = list(messages)
        self.inspector.append(received)
        with self._lock:
            self._keep(self._decoder.receive(received))

    def restart(self) -> None:
        """The stream begins anew: what had not ended comes again."""
        self.inspector.restart()
        with self._lock:
            self._keep(self._decoder.flush())
            self._decoder.reset()

    def _keep(self, batches: Iterable[FrameBatch]) -> None:
        self._batches.extend(batches)
        kept = sum(map(len, self._batches))
        while self._batches and kept - len(self._batches[0]) >= self._rows:
            kept -= len(self._batches.popleft())

    def frame(self, full: str) -> pl.DataFrame:
        """The changes of one table that are kept, as `streamlab.cdc.frames` gives them; empty where there are none.

        Parameters
        ----------
        full : str
            Schema and name, as ``shop.orders``.
        """
        import polars as pl

        with self._lock:
            self._keep(self._decoder.flush())
            found = [
                frame.data for batch in self._batches for frame in batch if f"{frame.schema}.{frame.table_name}" == full
            ]
        return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()
