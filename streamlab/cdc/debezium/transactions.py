"""Changes of several topics put together to the transactions that the source made. Without I/O.

With ``provide.transaction.metadata`` Debezium writes where each transaction begins and ends into a topic of its own,
and how many changes of each table it has; each change names its transaction and its number in it. The topic of
transactions gives their order; of each partition the changes are taken in order, those of the present transaction while
they come, and it is whole when as many are there as its end has counted.

Changes without a transaction, such as rows of a snapshot, stand for themselves. What a connector that was killed sends
again of a transaction that was handed out is passed over.

Source: Debezium's manual, "Transaction metadata".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import repeat
from operator import itemgetter
from typing import Final

from streamlab.cdc.debezium.envelope import Decoded, Mark
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.transaction import Transaction

__all__ = ["Assembler", "Item", "Passed", "Singles", "single", "singles"]

log = logging.getLogger(__name__)

Passed = dict[Partition, int]
"""Up to where there is nothing for a reader."""
Item = Transaction | Passed
_REMEMBERED: Final = 10_000
"""Transactions after which one that comes again is taken for a new one."""


_SET: Final = tuple(Transaction.__dict__[each.name].__set__ for each in fields(Transaction))


def single(event: ChangeEvent, topic: str, partition: int, offset: int) -> Transaction:
    """A change that stands for itself."""
    # As the dataclass makes one, in a third of the time: there are hundreds of thousands of these.
    made = object.__new__(Transaction)
    position, end, xid, time, changes, origin, gid = _SET
    position(made, event[7])
    end(made, tuple.__new__(KafkaPosition, ((topic, partition, offset + 1),)))
    xid(made, event[6])
    time(made, event[5])
    changes(made, (event,))
    origin(made, "")
    gid(made, "")
    return made


def singles(events: Sequence[ChangeEvent], topic: str, partition: int, offsets: Iterable[int]) -> list[Transaction]:
    """Many of them, in a fraction of the time: no step of Python's own is taken for one."""
    made: list[Transaction] = list(map(object.__new__, repeat(Transaction, len(events))))
    following = zip(repeat(topic), repeat(partition), map((1).__add__, offsets), strict=False)
    ends = map(tuple.__new__, repeat(KafkaPosition), zip(following, strict=True))
    values = (
        map(itemgetter(7), events), ends, map(itemgetter(6), events), map(itemgetter(5), events),
        zip(events, strict=True), repeat(""), repeat(""),
    )  # fmt: skip
    for setter, each in zip(_SET, values, strict=True):
        deque(map(setter, made, each), maxlen=0)
    return made


class Singles:
    """Changes of one partition that stand for themselves. Used by one thread.

    Their transactions are made when they are asked for: whoever reads batches nearly always wants the changes alone.

    Parameters
    ----------
    events : sequence of ChangeEvent
        At least one.
    place : Partition
        Where they lie.
    offsets : sequence of int
        Of each.
    """

    __slots__ = ("_asked", "_events", "_made", "_offsets", "_taken", "place")

    def __init__(self, events: Sequence[ChangeEvent], place: Partition, offsets: Sequence[int]) -> None:
        self._events, self.place, self._offsets = events, place, offsets
        self._made: list[Transaction] | None = None
        self._taken, self._asked = 0, False

    @property
    def end_position(self) -> KafkaPosition:
        """Behind the last of them."""
        return KafkaPosition.at(*self.place, self._offsets[-1] + 1)

    def transactions(self) -> Sequence[Transaction]:
        """A transaction of each that was not taken."""
        left = self._made or singles(self._events, *self.place, self._offsets)
        return left[self._taken :] if self._taken else left

    def __iter__(self) -> Iterator[ChangeEvent]:
        return iter(self._events[self._taken :] if self._taken else self._events)

    def __len__(self) -> int:
        return len(self._events) - self._taken

    def first(self) -> Transaction:
        """The first that was not taken."""
        at = self._taken
        if self._made is None and self._asked:
            # One is asked for after the other: then all of them together are quicker.
            self._made = singles(self._events, *self.place, self._offsets)
        self._asked = True
        return self._made[at] if self._made else single(self._events[at], *self.place, self._offsets[at])

    def some(self, count: int) -> Singles:
        """So many of the first that were not taken, or all."""
        self._asked = False
        begin, end = self._taken, self._taken + count
        return Singles(self._events[begin:end], self.place, self._offsets[begin:end])

    def drop(self, count: int) -> None:
        """So many were taken."""
        self._taken += count


class _Open:
    """The transaction that is being put together."""

    __slots__ = ("changes", "ends", "id", "position")

    def __init__(self, identity: str, position: KafkaPosition) -> None:
        self.id, self.position = identity, position
        self.changes: dict[int, ChangeEvent] = {}
        self.ends: dict[Partition, int] = {}


class Assembler:
    """Transactions of one source.

    Parameters
    ----------
    topic : str
        The topic of transactions; it has one partition.
    counted : callable
        Whether the changes of a table (``schema.table``) are among what is read.
    """

    def __init__(self, topic: str, counted: Callable[[str], bool]) -> None:
        self._topic, self._counted = topic, counted
        self._rows: dict[Partition, deque[tuple[int, ChangeEvent | None, str, int]]] = {}
        self._marks: deque[tuple[int, Mark]] = deque()
        self._open: _Open | None = None
        self._known: dict[str, None] = {}

    def clear(self) -> None:
        """Forget everything: it comes again."""
        self._rows.clear()
        self._marks.clear()
        self._known.clear()
        self._open = None

    def waiting(self, partition: Partition) -> int:
        """How many records of a partition wait here."""
        return len(self._rows.get(partition, ()))

    def holds(self, partition: Partition) -> bool:
        """Whether a record of a partition was neither handed out nor passed over."""
        if partition == (self._topic, 0):
            return self._open is not None or bool(self._marks)
        return bool(self._rows.get(partition)) or (self._open is not None and partition in self._open.ends)

    @property
    def incomplete(self) -> tuple[str, int, int] | None:
        """A transaction that has ended, and is not whole: its name, how many changes are there, and how many not."""
        if self._open is None or not self._marks or self._marks[0][1].begins:
            return None
        there = len(self._open.changes)
        return self._open.id, there, self._expected(self._marks[0][1]) - there

    def add(self, topic: str, partition: int, offset: int, decoded: Decoded, transaction: object) -> None:
        """A record, in the order of its partition.

        Raises
        ------
        ValueError, TypeError, LookupError
            Its block ``transaction`` is none.
        """
        if topic == self._topic and isinstance(decoded, Mark):
            self._marks.append((offset, decoded))
            return
        event = decoded if isinstance(decoded, ChangeEvent) else None
        name, order = "", 0
        if event is not None and isinstance(transaction, dict):
            name, order = str(transaction["id"]), int(transaction["total_order"])
        self._rows.setdefault((topic, partition), deque()).append((offset, event, name, order))

    def take(self) -> Iterator[Item]:
        """What is complete."""
        while True:
            yield from self._alone()
            if self._open is None and not self._begin():
                passed = self._end_of_nothing()
                if passed is None:
                    return
                yield passed
                continue
            self._collect()
            item = self._end()
            if item is None:
                return
            yield item

    def _alone(self) -> Iterator[Item]:
        """Records that belong to no transaction, or to one that was handed out, where nothing before them waits."""
        taken = self._open.ends if self._open is not None else {}
        for place, rows in self._rows.items():
            while rows and place not in taken:
                offset, event, name, _ = rows[0]
                if name and name not in self._known:
                    break
                rows.popleft()
                if event is None or name:
                    yield {place: offset + 1}
                else:
                    yield single(event, *place, offset)

    def _begin(self) -> bool:
        if not self._marks or not self._marks[0][1].begins:
            return False
        offset, mark = self._marks.popleft()
        self._open = _Open(mark.id, KafkaPosition.at(self._topic, 0, offset))
        return True

    def _end_of_nothing(self) -> Passed | None:
        """The end of a transaction that began before all that is read here."""
        if not self._marks:
            return None
        offset, mark = self._marks.popleft()
        self._remember(mark.id)
        return {(self._topic, 0): offset + 1}

    def _collect(self) -> None:
        assert self._open is not None  # noqa: S101 - by `take`
        into = self._open
        for place, rows in self._rows.items():
            while rows:
                offset, event, name, order = rows[0]
                if name == into.id and event is not None:
                    into.changes.setdefault(order, event)
                    into.ends[place] = offset + 1
                elif event is not None or place not in into.ends or not self._more(rows):
                    break
                # Else a tombstone between two deletions. One behind the last change is not in the transaction: where
                # that ends has to be the same each time.
                rows.popleft()

    def _more(self, rows: Iterable[tuple[int, ChangeEvent | None, str, int]]) -> bool:
        """Whether the next change of a partition is one of the present transaction."""
        following = next((name for _, event, name, _ in rows if event is not None), None)
        return self._open is not None and following == self._open.id

    def _end(self) -> Item | None:
        whole = self._open
        assert whole is not None  # noqa: S101 - by `take`
        if not self._marks:
            return None
        offset, mark = self._marks[0]
        again = whole.id in self._known
        if mark.begins:
            if mark.id == whole.id:
                self._marks.popleft()  # the connector was killed in the midst of it, and sends it again
                return {}
            log.warning("%s: the transaction %s has no end; the next one begins", self._topic, whole.id)
            offset -= 1
        elif not again and len(whole.changes) < self._expected(mark):
            return None
        else:
            self._marks.popleft()
        self._open = None
        self._remember(whole.id)
        ends = {**whole.ends, (self._topic, 0): offset + 1}
        if again or not whole.changes:
            return ends
        changes = tuple(whole.changes[order]._replace(position=whole.position) for order in sorted(whole.changes))
        first = changes[0]
        return Transaction(
            whole.position, KafkaPosition.of(ends), first.transaction_id, first.commit_timestamp, changes
        )  # fmt: skip

    def _expected(self, mark: Mark) -> int:
        return sum(count for table, count in mark.counts.items() if self._counted(table))

    def _remember(self, identity: str) -> None:
        self._known[identity] = None
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
