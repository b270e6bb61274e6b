"""How far a reader of topics has come, in each of its partitions. Pure: no consumer and no clock.

What was handed out and not acknowledged is kept as runs: stretches of one partition, in the order in which they were
handed out. An acknowledgement means everything up to it in that order, in whichever partition; so it takes all runs
before the one that it ends in. A partition that goes to another member of the group takes its runs with it: they can
not be acknowledged any more, for they come again over there.

`Bookkeeping` is not locked; the reader that owns it does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from streamlab.cdc.debezium.position import KafkaPosition, Partition

__all__ = ["Bookkeeping"]


class _Run:
    """Records of one partition that were handed out one after another."""

    __slots__ = ("begin", "end", "partition")

    def __init__(self, partition: Partition, begin: int, end: int) -> None:
        self.partition, self.begin, self.end = partition, begin, end


class Bookkeeping:
    """Offsets of one reader; each is that of the next record.

    Attributes
    ----------
    acknowledged : dict
        Up to where the effect is durable, for each partition that is ours.
    cursor : dict
        Where the present iteration is.
    handed_out : dict
        The farthest end that was ever handed out.
    """

    __slots__ = ("_runs", "acknowledged", "cursor", "handed_out")

    def __init__(self) -> None:
        self.acknowledged: dict[Partition, int] = {}
        self.cursor: dict[Partition, int] = {}
        self.handed_out: dict[Partition, int] = {}
        self._runs: deque[_Run] = deque()

    def assigned(self, partition: Partition, offset: int) -> None:
        """A partition is ours from here on, and begins there."""
        self.acknowledged[partition] = self.cursor[partition] = offset

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Partitions are not ours any more."""
        lost = set(partitions)
        for each in lost:
            self.acknowledged.pop(each, None)
            self.cursor.pop(each, None)
        self._runs = deque(run for run in self._runs if run.partition not in lost)

    def hand_out(self, end: KafkaPosition) -> None:
        """What ends there goes to the caller."""
        runs = self._runs
        for topic, number, offset in end:
            partition = (topic, number)
            if runs and runs[-1].partition == partition:
                runs[-1].end = offset
            else:
                runs.append(_Run(partition, self.cursor.get(partition, 0), offset))
            self.cursor[partition] = offset
            if self.handed_out.get(partition, -1) < offset:
                self.handed_out[partition] = offset

    def passed(self, offsets: Mapping[Partition, int]) -> None:
        """Up to here there is nothing for the caller."""
        waiting = {run.partition for run in self._runs}
        for partition, offset in offsets.items():
            if self.cursor.get(partition, offset) < offset:
                self.cursor[partition] = offset
                if partition not in waiting and self.acknowledged[partition] < offset:
                    self.acknowledged[partition] = offset

    @property
    def idle(self) -> bool:
        """Nothing that was handed out waits for its acknowledgement."""
        return not self._runs

    def missing(self, upto: KafkaPosition) -> set[Partition]:
        """Partitions of it in which this iteration has not come so far, or that are not ours."""
        cursor = self.cursor
        return {(topic, number) for topic, number, offset in upto if cursor.get((topic, number), 0) < offset}

    def acknowledge(self, upto: KafkaPosition) -> bool:
        """The effect of everything up to here is durable; False where that is more than was handed out.

        Never goes backwards, and never beyond what was handed out.
        """
        runs, known = self._runs, True
        for topic, number, offset in upto:
            partition = (topic, number)
            if offset > self.handed_out.get(partition, -1):
                known = False
            run = self._run_of(partition, offset)
            if run is None:
                continue
            while runs[0] is not run:
                before = runs.popleft()
                self._done(before.partition, before.end)
            self._done(partition, min(offset, run.end))
            if run.end <= offset:
                runs.popleft()
            else:
                run.begin = offset
        if not runs:
            # Behind what was handed out there may be records that are nothing to anybody.
            for partition, offset in self.cursor.items():
                self._done(partition, offset)
        return known

    def _run_of(self, partition: Partition, offset: int) -> _Run | None:
        """The run in which an acknowledgement ends; None where all up to there is acknowledged."""
        found = None
        for run in self._runs:
            if run.partition == partition:
                if run.begin >= offset:
                    break
                found = run
                if run.end >= offset:
                    break
        return found

    def _done(self, partition: Partition, offset: int) -> None:
        if self.acknowledged[partition] < offset:
            self.acknowledged[partition] = offset

    def rewind(self) -> bool:
        """Begin an iteration, from the last acknowledgement; whether anything has to come again for that."""
        again = self.cursor != self.acknowledged
        self.cursor = dict(self.acknowledged)
        self._runs.clear()
        return again
