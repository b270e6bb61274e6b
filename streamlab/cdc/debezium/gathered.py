"""The records of one batch of frames, of which the first are decoded while the last are still received.

Receiving is Python's work, a thread of librdkafka's beside it; decoding is that of Polars, which does not hold Python's
lock. So a backlog is read on two processors. Of little there is no thread.

Needs the extra ``frames``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import polars as pl

from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.received import Stretch
from streamlab.cdc.debezium.records import Records
from streamlab.cdc.debezium.transactions import Passed
from streamlab.cdc.frames.batch import Frame

__all__ = ["Gathered"]

_PIECE: Final = 25_000
"""Records of a topic that are decoded together. With less, the two threads wait for each other more than it pays."""


class Gathered:
    """Records of any topics. A context manager, for one thread; `maker` is in use until it is left.

    Parameters
    ----------
    maker : FrameMaker
        What decodes.

    Attributes
    ----------
    count : int
        How many records there are.
    ends : Passed
        Up to where they reach.
    """

    def __init__(self, maker: FrameMaker) -> None:
        self._maker = maker
        self._worker: ThreadPoolExecutor | None = None
        self._open: dict[str, Records] = {}
        self._begun: list[Future[list[Frame]]] = []
        self.count = 0
        self.ends: Passed = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything; what is being decoded is waited for, some milliseconds."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(cancel_futures=True)
        self._open.clear()
        self._begun.clear()
        self.count, self.ends = 0, {}

    def add(self, records: Stretch) -> None:
        """Some more."""
        self.ends[records.place] = records.end
        if not records.messages:
            return
        topic, partition = records.place
        into = self._open.get(topic) or self._open.setdefault(topic, Records())
        into.add(records.values, records.keys, partition, records.offsets)
        self.count += len(records.messages)
        if len(into) >= _PIECE:
            self._worker = self._worker or ThreadPoolExecutor(1, "streamlab-cdc-frames")
            self._begun.append(self._worker.submit(self._frames, topic, self._open.pop(topic)))

    def _frames(self, topic: str, records: Records) -> list[Frame]:
        return list(self._maker.frames(topic, records))

    def frames(self) -> tuple[Frame, ...]:
        """Frames of all of them: of one table one, unless its columns differ.

        Raises
        ------
        ChangeStreamError
            A record cannot be read.
        """
        # One after another: the maker learns from what it has met.
        made = [frame for each in self._begun for frame in each.result()]
        made += [frame for topic, records in self._open.items() for frame in self._frames(topic, records)]
        return tuple(_joined(made)) if self._begun else tuple(made)


def _joined(frames: list[Frame]) -> Iterator[Frame]:
    """Frames of one table that were made in pieces, put together where they have the same columns."""
    together: list[list[Frame]] = []
    last: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        known = last.get((frame.schema, frame.table_name))
        if known and known[0].data.schema == frame.data.schema and known[0].primary_key == frame.primary_key:
            known.append(frame)
        else:
            last[frame.schema, frame.table_name] = new = [frame]
            together.append(new)
    for each in together:
        data = each[0].data if len(each) == 1 else pl.concat([one.data for one in each], rechunk=False)
        yield Frame(each[0].schema, each[0].table_name, data, each[0].primary_key)
