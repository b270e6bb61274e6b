"""What reads Debezium's topics: a place in a group, the decoder and the order of what is handed out, together."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException

from streamlab import metrics
from streamlab.cdc.debezium.consumer import Member, said
from streamlab.cdc.debezium.decoder import Decoder, refused
from streamlab.cdc.debezium.envelope import Decoded
from streamlab.cdc.debezium.group import Group
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.debezium.received import Stretch, stretches
from streamlab.cdc.debezium.registry import Registry, Schemas
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.transactions import Assembler, Passed, singles
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.followed import Followed
from streamlab.cdc.garbage import as_usual, uncollected
from streamlab.cdc.handling import Handlers
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import ChangeStreamError, SettingsError, StreamLost
from streamlab.retry import RetryPolicy

if TYPE_CHECKING:
    from streamlab.cdc.debezium.gathered import Gathered

__all__ = ["TopicReader"]

log = logging.getLogger(__name__)

_SLICE: Final = 0.1
_CHUNK: Final = 2000
_MOST: Final = 20_000
"""Records of one partition that wait for their transaction, from which on no more of it are fetched."""


class _Singles(deque[Transaction]):
    """Changes of one partition that stand for themselves, not handed out yet."""


Waiting = Transaction | _Singles | Passed | ChangeStreamError
"""What stands in the queue; one that is an error stays there, and is raised each time."""


class TopicReader(Followed):
    """A reader of topics; see `streamlab.cdc.debezium.DebeziumSource` for its parameters, threads and delivery."""

    position_type = KafkaPosition

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str] | str,
        group: str,
        *,
        transaction_topic: str | None = None,
        start: Literal["earliest", "latest"] = "earliest",
        resume_after: KafkaPosition | str | None = None,
        types: Mapping[str, Mapping[str, str]] | None = None,
        configuration: Mapping[str, str] | None = None,
        replica_identity: Literal["default", "full"] = "default",
        schema_registry: str | None = None,
        retry: RetryPolicy | None = None,
        dead_letters: DeadLetters | None = None,
        patience: float = 60.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        wanted = [topics] if isinstance(topics, str) else list(topics)
        if not wanted or not group:
            raise SettingsError("A reader of topics needs topics and a group.", "Name both.")
        if start not in {"earliest", "latest"}:
            raise SettingsError(f"There is no start={start!r}.", "Use earliest or latest.")
        super().__init__(group, Handlers(group, retry=retry, dead_letters=dead_letters, group=group))
        if isinstance(resume_after, str):
            resume_after = KafkaPosition.parse(resume_after)
        self.bootstrap, self.group = bootstrap, group
        self.topics = (*wanted, *([transaction_topic] if transaction_topic and transaction_topic not in wanted else ()))
        self._group = Group(
            bootstrap, group, self.topics, start=start, options=dict(options or {}), gone=self._gone,
            begin=dict(resume_after.offsets) if resume_after is not None else {},
        )  # fmt: skip
        self._patience = patience
        self._assembler: Assembler | None = None
        if transaction_topic:
            self._assembler = Assembler(transaction_topic, self._group.questions.counted(transaction_topic))
        self._decoder = Decoder(
            types=types,
            configuration=configuration,
            replica_identity=replica_identity,
            grouped=transaction_topic is not None,
            registered=Schemas(Registry(schema_registry).schema) if schema_registry else None,
        )
        self._queue: deque[Waiting] = deque()
        self._quiet: Passed = {}
        """Partitions whose end was told while a record before it waited for its transaction."""
        self._bad_since: float | None = None
        self._replica_identity = replica_identity
        self._loose = False
        """Whether records were received that are neither in the queue nor handed out."""
        self._seconds: float | None = None
        self._count_bytes = metrics.CDC_RECEIVED_BYTES.labels(group)
        self._count_transactions = metrics.CDC_TRANSACTIONS.labels(group)
        self._show_seconds = metrics.CDC_LAG_SECONDS.labels(group)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} topics={list(self.topics)} at {self.bootstrap}>"

    # -- the stream -------------------------------------------------------------------------------

    def _open(self) -> None:
        self._group.join()

    def _next(self, timeout: float | None, upto: KafkaPosition | None = None) -> Transaction | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        queue, group = self._queue, self._group
        waiting = group.joined
        while not self._stopping.is_set():
            while queue and not group.paused:
                item = queue[0]
                if isinstance(item, ChangeStreamError):
                    raise item
                if isinstance(item, dict):
                    with group.lock:
                        group.books.passed(item)
                    queue.popleft()
                    continue
                transaction = item[0] if isinstance(item, _Singles) else item
                with group.lock:
                    group.books.hand_out(transaction.end_position)  # type: ignore[arg-type]
                    if isinstance(item, _Singles):
                        item.popleft()
                    if item is transaction or not item:
                        queue.popleft()
                    return transaction
            if upto is not None and group.reached(upto):
                return None
            left = _SLICE if deadline is None else max(0.0, min(_SLICE, deadline - time.monotonic()))
            self._fill(left)
            group.commit()
            if not waiting and timeout is not None and group.member is not None:
                # Nothing can come before the group has given out its partitions: the wait begins then, once.
                waiting, deadline = group.joined, time.monotonic() + timeout
            if deadline is not None and not queue and time.monotonic() >= deadline:
                return None
        return None

    def _ready(self, rows: int) -> list[Transaction]:
        queue, books = self._queue, self._group.books
        found: list[Transaction] = []
        if self._group.paused or self._stopping.is_set():
            return found
        with self._group.lock:
            while rows > 0 and queue and isinstance(item := queue[0], (Transaction, _Singles)):
                size = len(item)
                if isinstance(item, _Singles) and size > rows:
                    found.extend(item.popleft() for _ in range(rows))
                    size = rows
                else:
                    found.extend(item if isinstance(item, _Singles) else (item,))
                    queue.popleft()
                # Of changes of one partition the last says it all.
                books.hand_out(found[-1].end_position)  # type: ignore[arg-type]
                rows -= size
        return found

    def _fill(self, timeout: float) -> None:
        """Receive and decode."""
        member = self._group.join()
        self._group.obey()
        with uninterrupted():
            try:
                with uncollected():
                    messages = member.drain(_CHUNK, timeout)
                    if self._assembler is None:
                        self._take(messages)
                    else:
                        self._assemble(messages, self._assembler)
            except BaseException:
                self._drop()
                raise
        self._watch(member)

    def _collect(self, into: Gathered, timeout: float) -> None:
        """Receive without decoding."""
        member = self._group.join()
        self._group.obey()
        received = 0
        with uninterrupted(), uncollected():
            self._loose = True
            messages = member.drain(_CHUNK, timeout)
            for each in stretches(
                messages, self._group.books.cursor, lambda problem, message: self._problem(problem, message, into.ends)
            ):
                into.add(each)
                received += each.size
        if received:
            self._count_bytes.inc(received)
        self._watch(member)

    def _take(self, messages: list[Any]) -> None:
        """Decode what was received; what cannot be decoded waits in the queue as its error."""
        passed: Passed = {}
        received, found = 0, list[ChangeEvent]()
        for each in stretches(
            messages, self._group.books.cursor, lambda problem, message: self._problem(problem, message, passed)
        ):
            made: list[Decoded] = []
            error: ChangeStreamError | None = None
            try:
                self._decode(each, made)
            except ChangeStreamError as refusal:
                error = refusal
            changes, offsets = _changes(made, each.offsets)
            if changes:
                self._queue.append(_Singles(singles(changes, *each.place, offsets)))
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
        make, new = tuple.__new__, KafkaPosition
        places = (make(new, ((topic, partition, offset),)) for offset in records.offsets)
        if self._decoder.run(topic, places, records.keys, records.values, into):
            return
        for message, value in zip(records.messages, records.values, strict=True):
            position = KafkaPosition.at(topic, partition, message.offset())
            try:
                into.append(self._decoder.decode(topic, position, message.key(), value, message.headers))
            except MALFORMED as error:
                raise refused(position, value, error) from error

    def _assemble(self, messages: list[Any], assembler: Assembler) -> None:
        """The same for changes that are put together to the source's transactions."""
        queue, decode, owned = self._queue, self._decoder.decode, self._group.books.cursor
        received = 0
        passed: Passed = {}
        for message in messages:
            if (problem := message.error()) is not None:
                self._problem(problem, message, passed)
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

    def _observe(self, received: int, events: Sequence[ChangeEvent], transactions: int) -> None:
        if received:
            self._count_bytes.inc(received)
        if events:
            self._seconds = max(0.0, time.time() - events[-1].commit_timestamp.timestamp())
            self._show_seconds.set(self._seconds)
            self._count_transactions.inc(transactions)
            for operation, count in Counter(map(itemgetter(0), events)).items():
                metrics.CDC_EVENTS.labels(self.name, operation.lower()).inc(count)

    def _problem(self, problem: KafkaError, message: Any, passed: Passed) -> None:
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
            log.warning("%s: nobody asked for changes for so long that the group gave the partitions away", self.name)
        elif not problem.retriable() or problem.fatal():
            where = message.topic() or self.name
            self._queue.append(said(problem, f"{where}/{message.partition()}"))

    def _watch(self, member: Member) -> None:
        """Give up a broker that is away for too long, and a transaction that does not become whole."""
        self._group.check()
        incomplete = self._assembler.incomplete if self._assembler is not None and not self._queue else None
        if not member.unreachable and incomplete is None:
            self._bad_since = None
            return
        now = time.monotonic()
        self._bad_since = self._bad_since or now
        if now - self._bad_since < self._patience or (member.unreachable and member.reaches()):
            return
        self._bad_since = None
        if incomplete is None:
            raise StreamLost(
                f"Kafka at {self.bootstrap} has not answered for {self._patience:.0f} s.",
                "Start it, and read again: nothing is lost. See: streamlab status",
            )
        raise ChangeStreamError(
            f"Of the transaction {incomplete[0]} {incomplete[1]} changes have come, and {incomplete[2]} have not.",
            "One reader has to have all topics of a transaction: is another member in the group, or a topic renamed or "
            "left out? Without transaction_topic each change stands for itself.",
        )

    def _hold_back(self, assembler: Assembler) -> None:
        """Fetch no more of a partition of which much waits for another."""
        for place in self._group.books.cursor:
            waiting = assembler.waiting(place)
            if waiting > _MOST or waiting < _MOST // 2:
                self._group.hold(place, on=waiting > _MOST)

    # -- pause and resume -------------------------------------------------------------------------

    def pause(self) -> None:
        """Have no more handed out, from any thread; an iteration waits, and its group keeps its partitions for it."""
        self._group.paused = True

    def resume(self) -> None:
        """Go on where `pause` has stopped."""
        self._group.paused = False

    @property
    def paused(self) -> bool:
        """Whether `pause` holds."""
        return self._group.paused

    # -- partitions -------------------------------------------------------------------------------

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """What this member of the group reads now."""
        return tuple(sorted(self._group.books.cursor))

    def _gone(self, gone: set[Partition]) -> None:
        for place in gone:
            self._quiet.pop(place, None)
        kept = [item for item in self._queue if not _places(item) & gone]
        self._queue.clear()
        self._queue.extend(kept)
        if self._assembler is not None:
            # Transactions that were begun are put together anew, from where this iteration is.
            self._forget()
            self._group.seek()

    def _forget(self) -> None:
        """Let go of everything that was received and not handed out."""
        self._queue.clear()
        self._quiet.clear()
        if self._assembler is not None:
            self._assembler.clear()

    def _drop(self) -> None:
        """Something was received and is not kept: only Kafka has it now."""
        self._forget()
        try:
            self._group.seek()
        except KafkaException:
            self._disconnect()  # and the next one begins where the group stands

    def _rewind(self) -> None:
        with uninterrupted(), self._group.lock:
            self._bad_since = None
            again = self._group.books.rewind()
            failed = any(isinstance(item, ChangeStreamError) for item in self._queue)
            if again or failed or self._loose:
                self._loose = False
                self._drop()
                self._group.fetch_all()

    def _disconnect(self) -> None:
        self._group.leave(self._left)

    def _left(self) -> None:
        self._forget()
        as_usual()

    # -- acknowledgement --------------------------------------------------------------------------

    @property
    def received(self) -> KafkaPosition | None:
        """Ends of what was handed out, of each partition."""
        return KafkaPosition.of(self._group.books.handed_out) if self._group.books.handed_out else None

    @property
    def acknowledged(self) -> KafkaPosition | None:
        """From where the group goes on in the partitions that are ours; None while none is."""
        return KafkaPosition.of(self._group.books.acknowledged) if self._group.books.acknowledged else None

    def _ends(self, upto: Any, position: Any) -> bool:
        # A position of several partitions is reached when all of them are.
        return upto is not None and self._group.reached(upto)

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here, in the order in which it was handed out, is durable.

        It is committed for the group within some hundredths of a second of the next step of the iteration, when a
        partition goes to another member, and at `close`.

        Parameters
        ----------
        upto : Transaction, Batch, FrameBatch or KafkaPosition
            What was handed out stands for its `end_position`. Never goes backwards, never beyond what was handed out,
            and not for partitions that went to another member: what was read of them comes again there.
        """
        end = getattr(upto, "end_position", upto)
        if not isinstance(end, KafkaPosition):
            raise SettingsError(f"{upto!r} is no position in Kafka.", "Give the transaction, or a KafkaPosition.")
        self._group.acknowledge(end)

    def lag(self) -> Lag:
        """How far this member is behind its partitions, in records. Asks the broker.

        Offsets that hold no record, as those of compacted ones and of marks of transactions, count too.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        acknowledged = self._group.books.acknowledged
        if not acknowledged:
            return Lag(None, self._seconds)
        return Lag(self._group.questions.behind(dict(acknowledged)), self._seconds)

    def written(self) -> KafkaPosition:
        """Where all partitions of the topics end now. Asks the broker.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        return self._group.questions.written()

    def close(self) -> None:
        """Commit what is acknowledged, and leave the group. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._disconnect()
        self._group.questions.close()


def _changes(made: list[Decoded], offsets: list[int]) -> tuple[list[ChangeEvent], list[int]]:
    """Those of the records that are changes; nearly always all are."""
    if set(map(type, made)) == {ChangeEvent}:
        return made, offsets[: len(made)]  # type: ignore[return-value]
    kept = [(each, offset) for each, offset in zip(made, offsets, strict=False) if isinstance(each, ChangeEvent)]
    return [each for each, _ in kept], [offset for _, offset in kept]


def _places(item: Waiting) -> set[Partition]:
    if isinstance(item, _Singles):
        item = item[0]
    if isinstance(item, Transaction):
        return {(topic, number) for topic, number, _ in item.end_position}  # type: ignore[attr-defined]
    return set(item) if isinstance(item, dict) else set()
