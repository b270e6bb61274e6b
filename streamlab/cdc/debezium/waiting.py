"""What was received of topics and not handed out yet: changes in order, ends that are passed, and the first error.

Each change stands for itself, or is put together with the others of its transaction in the source. Without I/O, but for
having the consumer fetch no more of a partition of which much waits for others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import KafkaError

from streamlab import metrics
from streamlab.cdc.debezium.consumer import said
from streamlab.cdc.debezium.decoder import Decoder, refused
from streamlab.cdc.debezium.envelope import Decoded
from streamlab.cdc.debezium.group import Group
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.debezium.received import Stretch, stretches
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.transactions import Assembler, Passed, Singles
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError

__all__ = ["Waiting"]

log = logging.getLogger(__name__)

_MOST: Final = 20_000
"""Records of one partition that wait for their transaction, from which on no more of it are fetched."""


Item = Transaction | Singles | Passed | ChangeStreamError


class Waiting:
    """A queue between what receives and what hands out. Used by one thread.

    Parameters
    ----------
    group : Group
        Whose partitions the records are of; what is handed out is noted in its books.
    decoder : Decoder
        What reads records.
    assembler : Assembler, optional
        What puts transactions together.

    Attributes
    ----------
    seconds : float or None
        How long before now the last change was committed, when it was received.
    """

    def __init__(self, group: Group, decoder: Decoder, assembler: Assembler | None) -> None:
        self._group, self._decoder, self._assembler = group, decoder, assembler
        self._queue: deque[Item] = deque()
        self._quiet: Passed = {}
        """Partitions whose end was told while a record before it waited for its transaction."""
        self.seconds: float | None = None
        self._count_bytes = metrics.CDC_RECEIVED_BYTES.labels(group.name)
        self._count_transactions = metrics.CDC_TRANSACTIONS.labels(group.name)
        self._show_seconds = metrics.CDC_LAG_SECONDS.labels(group.name)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def error(self) -> ChangeStreamError | None:
        """What comes next, where that is an error; it stays there."""
        first = self._queue[0] if self._queue else None
        return first if isinstance(first, ChangeStreamError) else None

    @property
    def failed(self) -> bool:
        """Whether there is an error anywhere."""
        return any(isinstance(item, ChangeStreamError) for item in self._queue)

    @property
    def incomplete(self) -> tuple[str, int, int] | None:
        """As `Assembler.incomplete`, if nothing else is to be handed out before."""
        return self._assembler.incomplete if self._assembler is not None and not self._queue else None

    def clear(self) -> None:
        """Let go of everything."""
        self._queue.clear()
        self._quiet.clear()
        if self._assembler is not None:
            self._assembler.clear()

    def gone(self, places: set[Partition]) -> bool:
        """Let go of what is of these partitions; whether all has to be fetched again."""
        for place in places:
            self._quiet.pop(place, None)
        kept = [item for item in self._queue if not _places(item) & places]
        self._queue.clear()
        self._queue.extend(kept)
        if self._assembler is None:
            return False
        # Transactions that were begun are put together anew, from where this iteration is.
        self.clear()
        return True

    # -- handing out ------------------------------------------------------------------------------

    def next(self) -> Transaction | None:
        """The next transaction; None where there is none.

        Raises
        ------
        ChangeStreamError
            A record cannot be read.
        """
        queue, group = self._queue, self._group
        while queue:
            item = queue[0]
            if isinstance(item, ChangeStreamError):
                raise item
            if isinstance(item, dict):
                with group.lock:
                    group.books.passed(item)
                queue.popleft()
                continue
            with group.lock:
                # Noted first: what is taken and not noted would be gone, were the next step interrupted.
                transaction = item.first() if isinstance(item, Singles) else item
                group.books.hand_out(transaction.end_position)  # type: ignore[arg-type]
                self._taken(item, 1)
                return transaction
        return None

    def some(self, rows: int) -> list[Transaction | Singles]:
        """Transactions of about so many changes, as far as they follow at once."""
        queue, books = self._queue, self._group.books
        found: list[Transaction | Singles] = []
        with self._group.lock:
            while rows > 0 and queue and isinstance(item := queue[0], (Transaction, Singles)):
                some = item.some(rows) if isinstance(item, Singles) else item
                # Of changes of one partition the last says it all.
                books.hand_out(some.end_position)  # type: ignore[arg-type]
                self._taken(item, len(some))
                found.append(some)
                rows -= len(some)
        return found

    def _taken(self, item: Transaction | Singles, count: int) -> None:
        if isinstance(item, Singles):
            item.drop(count)
            if len(item):
                return
        self._queue.popleft()

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, messages: list[Any]) -> None:
        """Decode what was received; what cannot be decoded is in the queue as its error."""
        if self._assembler is None:
            self._take(messages)
        else:
            self._assemble(messages, self._assembler)

    def _take(self, messages: list[Any]) -> None:
        """Each change stands for itself."""
        passed: Passed = {}
        received, found = 0, list[ChangeEvent]()
        problem = partial(self.problem, passed=passed)
        for each in stretches(messages, self._group.books.cursor, problem):
            made: list[Decoded] = []
            error: ChangeStreamError | None = None
            try:
                self._decode(each, made)
            except ChangeStreamError as refusal:
                error = refusal
            changes, offsets = _changes(made, each.offsets)
            if changes:
                self._queue.append(Singles(changes, each.place, offsets))
                found.extend(changes)
            if error is not None:
                self._queue.append(error)
                break
            passed[each.place] = each.end
            received += each.size
        if passed:
            self._queue.append(passed)
        self._observe(received, found, len(found))

    def _decode(self, records: Stretch, into: list[Decoded]) -> None:
        """What the records say, in order; what is raised is raised for the one behind those of the list."""
        topic, partition = records.place
        if not records.messages:
            return
        places = map(
            tuple.__new__, repeat(KafkaPosition),
            zip(zip(repeat(topic), repeat(partition), records.offsets, strict=False), strict=True),
        )  # fmt: skip
        if self._decoder.run(topic, places, records.keys, records.values, into):
            return
        for message, value in zip(records.messages, records.values, strict=True):
            position = KafkaPosition.at(topic, partition, message.offset())
            try:
                into.append(self._decoder.decode(topic, position, message.key(), value, message.headers))
            except MALFORMED as error:
                raise refused(position, value, error) from error

    def _assemble(self, messages: list[Any], assembler: Assembler) -> None:
        """Changes are put together to the source's transactions."""
        queue, decode, owned = self._queue, self._decoder.decode, self._group.books.cursor
        received = 0
        passed: Passed = {}
        for message in messages:
            if (problem := message.error()) is not None:
                self.problem(problem, message, passed)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if (topic, partition) not in owned:
                continue  # it went to another member
            value = message.value()
            position = KafkaPosition.at(topic, partition, offset)
            try:
                event = decode(topic, position, message.key(), value, message.headers)
                assembler.add(topic, partition, offset, event, self._decoder.transaction)
            except ChangeStreamError as error:
                queue.append(error)
                break
            except MALFORMED as error:
                queue.append(refused(position, value or b"", error))
                break
            received += len(value or b"")
            self._quiet.pop((topic, partition), None)
        whole = list(assembler.take())
        queue.extend(whole)
        for place in [place for place in self._quiet if not assembler.holds(place)]:
            passed[place] = self._quiet.pop(place)
        self._hold_back(assembler)
        if passed:
            queue.append(passed)
        found = [each for each in whole if isinstance(each, Transaction)]
        self._observe(received, [event for each in found for event in each], len(found))

    def _hold_back(self, assembler: Assembler) -> None:
        """Fetch no more of a partition of which much waits for another."""
        for place in self._group.books.cursor:
            waiting = assembler.waiting(place)
            if waiting > _MOST or waiting < _MOST // 2:
                self._group.hold(place, on=waiting > _MOST)

    def problem(self, problem: KafkaError, message: Any, passed: Passed) -> None:
        """A message that is no record: the end of a partition, or an error, which is queued if it will not pass."""
        code = problem.code()
        if code == KafkaError._PARTITION_EOF:
            place = (message.topic(), message.partition())
            # Behind the last record there may be marks of Kafka's own transactions, which take offsets too. It is told
            # once: where a record before it still waits for its transaction, it is passed with that.
            if self._assembler is None:
                passed[place] = message.offset()
            else:
                self._quiet[place] = message.offset()
        elif code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            pass  # not yet, or not any more
        elif code == KafkaError._MAX_POLL_EXCEEDED:
            log.warning(
                "%s: nobody asked for changes for so long that the group gave the partitions away", self._group.name
            )
        elif not problem.retriable() or problem.fatal():
            where = message.topic() or self._group.name
            self._queue.append(said(problem, f"{where}/{message.partition()}"))

    def count(self, received: int) -> None:
        """So many bytes were received."""
        if received:
            self._count_bytes.inc(received)

    def _observe(self, received: int, events: Sequence[ChangeEvent], transactions: int) -> None:
        self.count(received)
        if events:
            self.seconds = max(0.0, time.time() - events[-1].commit_timestamp.timestamp())
            self._show_seconds.set(self.seconds)
            self._count_transactions.inc(transactions)
            for operation, count in Counter(map(itemgetter(0), events)).items():
                metrics.CDC_EVENTS.labels(self._group.name, operation.lower()).inc(count)


def _changes(made: list[Decoded], offsets: list[int]) -> tuple[list[ChangeEvent], list[int]]:
    """Those of the records that are changes; nearly always all are."""
    if set(map(type, made)) == {ChangeEvent}:
        return made, offsets[: len(made)]  # type: ignore[return-value]
    kept = [(each, offset) for each, offset in zip(made, offsets, strict=False) if isinstance(each, ChangeEvent)]
    return [each for each, _ in kept], [offset for _, offset in kept]


def _places(item: Item) -> set[Partition]:
    if isinstance(item, Singles):
        return {item.place}
    if isinstance(item, Transaction):
        return {(topic, number) for topic, number, _ in item.end_position}  # type: ignore[attr-defined]
    return set(item) if isinstance(item, dict) else set()
