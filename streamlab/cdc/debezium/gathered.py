"""The records of batches of frames: while the first of them are decoded the next are still received.

Receiving is Python's work, a thread of librdkafka's beside it; decoding is that of Polars, which does not hold Python's
lock. So a backlog is read on two processors: a batch that is full is decoded in a thread, and the records of the next
one are gathered meanwhile. Of little there is no thread.

Needs the extra ``frames``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

import polars as pl

from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.position import Partition
from streamlab.cdc.debezium.received import Stretch
from streamlab.cdc.debezium.records import Records
from streamlab.cdc.debezium.transactions import Passed
from streamlab.cdc.frames.batch import Frame
from streamlab.cdc.switching import taking_turns
from streamlab.errors import ChangeStreamError

__all__ = ["Batches", "Gathered", "Worker"]

_PIECE: Final = 25_000
"""Records of a topic that are decoded together. With less, the two threads wait for each other more than it pays."""
_LEAST: Final = 5_000
"""Records of a batch from which on it is decoded in a thread."""


class Worker:
    """A thread that decodes, from the first records that it is given on. Used by one thread.

    Parameters
    ----------
    maker : FrameMaker
        What decodes. It is in use by the worker until what was begun is asked for, or `stop` returns.
    """

    def __init__(self, maker: FrameMaker) -> None:
        self._maker = maker
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, topic: str, records: Records) -> Future[list[Frame]]:
        """Decode in the thread, one after another: the maker learns from what it has met."""
        self._thread = self._thread or ThreadPoolExecutor(1, "streamlab-cdc-frames")
        return self._thread.submit(self._in_turns, topic, records)

    def _in_turns(self, topic: str, records: Records) -> list[Frame]:
        with taking_turns():
            return self.frames(topic, records)

    def frames(self, topic: str, records: Records) -> list[Frame]:
        """Decode here."""
        return list(self._maker.frames(topic, records))

    def stop(self) -> None:
        """End the thread. What is being decoded is waited for, some milliseconds; the rest is not. Repeatable."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)


class Gathered:
    """Records of any topics, for one batch. Used by one thread.

    Parameters
    ----------
    worker : Worker
        What decodes.

    Attributes
    ----------
    count : int
        How many records there are.
    ends : Passed
        Up to where they reach.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._open: dict[str, Records] = {}
        self._begun: list[Future[list[Frame]]] = []
        self.count = 0
        self.ends: Passed = {}

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
            self._begun.append(self._worker.begin(topic, self._open.pop(topic)))

    @property
    def large(self) -> bool:
        """Whether a thread pays."""
        return self.count >= _LEAST

    def begin(self) -> None:
        """Have all of them decoded in the thread."""
        self._begun += [self._worker.begin(topic, records) for topic, records in self._open.items()]
        self._open.clear()

    @property
    def done(self) -> bool:
        """Whether all that was begun is decoded."""
        return all(each.done() for each in self._begun)

    def wait(self, timeout: float) -> None:
        """Wait until it is, so many seconds at most."""
        wait(self._begun, timeout)

    def frames(self) -> tuple[Frame, ...]:
        """Frames of all of them: of one table one, unless its columns differ.

        Raises
        ------
        ChangeStreamError
            A record cannot be read.
        """
        made = [frame for each in self._begun for frame in each.result()]
        made += [frame for topic, records in self._open.items() for frame in self._worker.frames(topic, records)]
        return tuple(_joined(made)) if self._begun else tuple(made)


class Batches:
    """What one iteration has received and not handed out: the batch that is decoded, and what is there of the next.

    Used by one thread.

    Parameters
    ----------
    maker : FrameMaker
        What decodes.

    Attributes
    ----------
    full : Gathered or None
        A batch that is whole.
    next : Gathered
        What is gathered.
    error : ChangeStreamError or None
        What was met behind all of them.
    """

    def __init__(self, maker: FrameMaker) -> None:
        self._worker = Worker(maker)
        self._lost = False
        self.clear()

    def clear(self) -> None:
        """Forget everything; the thread ends."""
        self._worker.stop()
        self.full: Gathered | None = None
        self.next = Gathered(self._worker)
        self.error: ChangeStreamError | None = None
        self._lost = False

    def turn(self) -> Gathered:
        """What was gathered is a whole batch."""
        self.full, self.next = self.next, Gathered(self._worker)
        return self.full

    @property
    def ends(self) -> Passed:
        """Up to where all reach."""
        return {**self.full.ends, **self.next.ends} if self.full is not None else self.next.ends

    def gone(self, places: set[Partition]) -> None:
        """Partitions went to another member, or come anew."""
        self._lost = self._lost or not places.isdisjoint(self.ends)

    def lost(self, owned: Passed) -> bool:
        """Whether there are records of partitions that have gone: all has to be fetched again."""
        return self._lost or not self.ends.keys() <= owned.keys()


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
