"""What reads Debezium's topics: a member of a group, the decoder, positions and acknowledgements together."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException

from streamlab import metrics
from streamlab.cdc.debezium.bookkeeping import Bookkeeping
from streamlab.cdc.debezium.consumer import Member, said
from streamlab.cdc.debezium.decoder import Decoder, refused
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.debezium.questions import TopicQuestions
from streamlab.cdc.debezium.registry import Registry, Schemas
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.transactions import Assembler, Passed, single
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.followed import Followed
from streamlab.cdc.garbage import as_usual, uncollected
from streamlab.cdc.handling import Handlers
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import ChangeStreamError, LogPurged, SettingsError, StreamLost
from streamlab.failpoints import failpoint
from streamlab.retry import RetryPolicy

if TYPE_CHECKING:
    from streamlab.cdc.debezium.frames import Records

__all__ = ["TopicReader"]

log = logging.getLogger(__name__)

_COMMIT_EVERY: Final = 0.05
"""Seconds between two commits; each waits for the broker."""
_SLICE: Final = 0.1
_ASK_EVERY: Final = 0.2
"""Seconds between questions who has a partition that is waited for."""
_CHUNK: Final = 2000
_MOST: Final = 20_000
"""Records of one partition that wait for their transaction, from which on no more of it are fetched."""


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
        self._begin_at = dict(resume_after.offsets) if resume_after is not None else {}
        self._start, self._options, self._patience = start, dict(options or {}), patience
        self._questions = TopicQuestions(bootstrap, self.topics, self._options)
        self._assembler: Assembler | None = None
        if transaction_topic:
            self._assembler = Assembler(transaction_topic, self._questions.counted(transaction_topic))
        self._decoder = Decoder(
            types=types,
            configuration=configuration,
            replica_identity=replica_identity,
            grouped=transaction_topic is not None,
            registered=Schemas(Registry(schema_registry).schema) if schema_registry else None,
        )
        self._lock = threading.RLock()
        self._books = Bookkeeping()
        self._committed: dict[Partition, int] = {}
        self._committed_at = 0.0
        self._member: Member | None = None
        self._queue: deque[Transaction | Passed | ChangeStreamError] = deque()
        self._held: set[Partition] = set()
        self._quiet: Passed = {}
        """Partitions that are not fetched while others catch up."""
        self._paused = self._is_paused = False
        self._bad_since: float | None = None
        self._elsewhere: set[Partition] = set()
        """Partitions that other members of the group have, as far as that was asked."""
        self._asked_at = 0.0
        self._given_back: set[str] = set()
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
        self._joined()

    def _joined(self) -> Member:
        """The member; it joins the group, if there is none."""
        if self._member is None:
            member = Member(
                self.bootstrap, self.group, self.topics, options=self._options, begin=self._begin_at, start=self._start,
                assigned=self._assigned, revoked=self._revoked,
            )  # fmt: skip
            try:
                member.open()
            except BaseException:
                member.close()
                raise
            self._member = member
        return self._member

    def _next(self, timeout: float | None, upto: KafkaPosition | None = None) -> Transaction | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        queue, books = self._queue, self._books
        waiting = self._member is not None and self._member.joined
        while not self._stopping.is_set():
            while queue and not self._paused:
                item = queue[0]
                if isinstance(item, ChangeStreamError):
                    raise item
                with self._lock:
                    if isinstance(item, Transaction):
                        books.hand_out(item.end_position)  # type: ignore[arg-type]
                        queue.popleft()
                        return item
                    books.passed(item)
                queue.popleft()
            if upto is not None and self._reached(upto):
                return None
            left = _SLICE if deadline is None else max(0.0, min(_SLICE, deadline - time.monotonic()))
            self._fill(left)
            self._commit()
            if not waiting and timeout is not None and self._member is not None:
                # Nothing can come before the group has given out its partitions: the wait begins then, once.
                waiting, deadline = self._member.joined, time.monotonic() + timeout
            if deadline is not None and not queue and time.monotonic() >= deadline:
                return None
        return None

    def _ready(self, rows: int) -> list[Transaction]:
        queue = self._queue
        found: list[Transaction] = []
        if self._paused or self._stopping.is_set():
            return found
        with self._lock:
            end: KafkaPosition | None = None
            while rows > 0 and queue and isinstance(item := queue[0], Transaction):
                following: Any = item.end_position
                if end is not None and (len(following) > 1 or end[0][:2] != following[0][:2]):
                    self._books.hand_out(end)
                end = following
                found.append(item)
                rows -= len(item.changes)
                queue.popleft()
            if end is not None:
                self._books.hand_out(end)
        return found

    def _fill(self, timeout: float) -> None:
        """Receive and decode."""
        member = self._joined()
        self._obey()
        with uninterrupted():
            try:
                with uncollected():
                    messages = member.drain(_CHUNK, timeout)
                    self._take(messages)
            except BaseException:
                self._drop()
                raise
        self._watch(member)

    def _collect(self, records: dict[str, Records], ends: Passed, timeout: float) -> None:
        """Receive without decoding: values by topic, and where they end."""
        from streamlab.cdc.debezium.frames import Records

        member = self._joined()
        self._obey()
        received = 0
        with uninterrupted(), uncollected():
            self._loose = True
            for message in member.drain(_CHUNK, timeout):
                if (problem := message.error()) is not None:
                    self._problem(problem, message, ends)
                    continue
                place = (topic, number) = message.topic(), message.partition()
                if place not in self._books.cursor:
                    continue
                offset, value = message.offset(), message.value()
                ends[place] = offset + 1
                if value:
                    into = records.get(topic) or records.setdefault(topic, Records())
                    into.values.append(value)
                    into.keys.append(message.key())
                    into.partitions.append(number)
                    into.offsets.append(offset)
                    received += len(value)
        if received:
            self._count_bytes.inc(received)
        self._watch(member)

    def _reached_with(self, upto: KafkaPosition, ends: Passed) -> bool:
        """Whether what is received reaches so far."""
        missing = self._books.missing(upto)
        return all(
            ends.get((topic, number), 0) >= offset for topic, number, offset in upto if (topic, number) in missing
        )

    def _take(self, messages: list[Any]) -> None:
        """Decode what was received; what cannot be decoded waits in the queue as its error."""
        queue, decode, assembler = self._queue, self._decoder.decode, self._assembler
        owned = self._books.cursor
        make, new, received = tuple.__new__, KafkaPosition, 0
        passed: Passed = {}
        for message in messages:
            if (problem := message.error()) is not None:
                self._problem(problem, message, passed)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            place = (topic, partition)
            if place not in owned:
                continue  # it went to another member
            value = message.value()
            position = make(new, ((topic, partition, offset),))
            try:
                event = decode(topic, position, message.key(), value, message.headers)
                if assembler is not None:
                    assembler.add(topic, partition, offset, event, self._decoder.transaction)
            except ChangeStreamError as error:
                queue.append(error)
                break
            except MALFORMED as error:
                queue.append(refused(position, value or b"", error))
                break
            if value is not None:
                received += len(value)
            if assembler is None:
                if isinstance(event, ChangeEvent):
                    queue.append(single(event, topic, partition, offset))
                passed[place] = offset + 1
            else:
                self._quiet.pop(place, None)
        if assembler is not None:
            queue.extend(assembler.take())
            for place in [place for place in self._quiet if not assembler.holds(place)]:
                passed[place] = self._quiet.pop(place)
            self._hold_back(assembler)
        if passed:
            queue.append(passed)
        if received:
            self._count_bytes.inc(received)
            self._observe()

    def _observe(self) -> None:
        found = [item for item in self._queue if isinstance(item, Transaction)]
        if found:
            self._seconds = max(0.0, time.time() - found[-1].commit_timestamp.timestamp())
            self._show_seconds.set(self._seconds)
            self._count_transactions.inc(len(found))
            for operation, count in Counter(event[0] for each in found for event in each.changes).items():
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

    def _gone(self, member: Member) -> None:
        """Of topics whose partitions were taken away, some may not be there any more."""
        topics, self._given_back = self._given_back, set()
        for topic in topics:
            if not member.is_there(topic):
                raise LogPurged(
                    f"The topic {topic} was deleted while {self.name} read it: what it held and was not read is gone.",
                    "Begin with a new snapshot, when there is such a topic again.",
                )

    def _watch(self, member: Member) -> None:
        """Give up a broker that is away for too long, and a transaction that does not become whole."""
        if self._given_back:
            self._gone(member)
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
        for place in self._books.cursor:
            waiting = assembler.waiting(place)
            if (waiting > _MOST) != (place in self._held) and (waiting > _MOST or waiting < _MOST // 2):
                (self._held.add if waiting > _MOST else self._held.discard)(place)
                if self._member is not None:
                    self._member.pause([place], on=waiting > _MOST)

    # -- pause and resume -------------------------------------------------------------------------

    def pause(self) -> None:
        """Have no more handed out, from any thread; an iteration waits, and its group keeps its partitions for it."""
        self._paused = True

    def resume(self) -> None:
        """Go on where `pause` has stopped."""
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether `pause` holds."""
        return self._paused

    def _obey(self) -> None:
        if self._paused != self._is_paused and self._member is not None:
            self._is_paused = self._paused
            self._member.pause([each for each in self._books.cursor if each not in self._held], on=self._paused)

    # -- partitions -------------------------------------------------------------------------------

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """What this member of the group reads now."""
        return tuple(sorted(self._books.cursor))

    def _assigned(self, offsets: dict[Partition, int]) -> None:
        with self._lock:
            self._elsewhere = set()
            for place, offset in offsets.items():
                self._books.assigned(place, offset)
                if self._start == "earliest":
                    self._committed[place] = offset
                # Else it is committed soon: the next reader would begin at the end of that time.
        if self._is_paused and self._member is not None:
            self._member.pause(list(offsets))
        log.info("%s: reads %s", self.name, KafkaPosition.of(offsets) or "nothing yet")

    def _revoked(self, partitions: list[Partition], lost: bool) -> None:
        """What waits here of these partitions comes again elsewhere; what is acknowledged is committed first."""
        if not lost:
            with suppress(StreamLost):
                self._commit(now=True)
        gone = set(partitions)
        with self._lock:
            self._elsewhere = set()
            self._given_back |= {topic for topic, _ in gone}
            self._books.revoked(gone)
            for place in gone:
                self._committed.pop(place, None)
                self._held.discard(place)
                self._quiet.pop(place, None)
        kept = [item for item in self._queue if not _places(item) & gone]
        self._queue.clear()
        self._queue.extend(kept)
        if self._assembler is not None:
            self._start_over()
        log.info("%s: %s %s", self.name, "lost" if lost else "gave back", sorted(gone))

    def _start_over(self) -> None:
        """Transactions that were begun are put together anew, from where this iteration is."""
        assert self._assembler is not None  # noqa: S101 - by the caller
        self._assembler.clear()
        self._queue.clear()
        if self._member is not None and self._books.cursor:
            self._member.seek(self._books.cursor)

    def _drop(self) -> None:
        """Something was received and is not kept: only Kafka has it now."""
        self._queue.clear()
        self._quiet.clear()
        if self._assembler is not None:
            self._assembler.clear()
        if self._member is not None:
            try:
                self._member.seek(self._books.cursor)
            except KafkaException:
                self._disconnect()  # and the next one begins where the group stands

    def _rewind(self) -> None:
        with uninterrupted(), self._lock:
            self._bad_since = None
            again = self._books.rewind()
            failed = any(isinstance(item, ChangeStreamError) for item in self._queue)
            if again or failed or self._loose:
                self._loose = False
                self._drop()
                self._held.clear()
                self._is_paused = False

    def _disconnect(self) -> None:
        member, self._member = self._member, None
        if member is None:
            return
        with uninterrupted():
            self._member = member
            with suppress(StreamLost):
                self._commit(now=True)
            self._member = None
            try:
                member.close()
            finally:
                self._queue.clear()
                self._held.clear()
                self._quiet.clear()
                if self._assembler is not None:
                    self._assembler.clear()
                with self._lock:
                    self._books.revoked(list(self._books.cursor))
                    self._committed.clear()
                self._is_paused = False
                as_usual()

    # -- acknowledgement --------------------------------------------------------------------------

    @property
    def received(self) -> KafkaPosition | None:
        """Ends of what was handed out, of each partition."""
        return KafkaPosition.of(self._books.handed_out) if self._books.handed_out else None

    @property
    def acknowledged(self) -> KafkaPosition | None:
        """From where the group goes on in the partitions that are ours; None while none is."""
        return KafkaPosition.of(self._books.acknowledged) if self._books.acknowledged else None

    def _ends(self, upto: Any, position: Any) -> bool:
        # A position of several partitions is reached when all of them are.
        return upto is not None and self._reached(upto)

    def _reached(self, upto: KafkaPosition) -> bool:
        """Whether this iteration has come so far in all partitions of it, but for those that other members have."""
        missing = self._books.missing(upto) - self._elsewhere
        if not missing:
            return True
        now = time.monotonic()
        if missing & self._books.cursor.keys() or self._member is None or now < self._asked_at + _ASK_EVERY:
            return False
        self._asked_at = now
        self._elsewhere = self._questions.of_others(self.group, self._member.id)
        return missing <= self._elsewhere

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
        failpoint("cdc.debezium.before_ack")
        with uninterrupted(), self._lock:
            if not self._books.acknowledge(end):
                log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.name, end)
        self._commit()
        failpoint("cdc.debezium.after_ack")

    def _commit(self, *, now: bool = False) -> None:
        """Have the group note what is acknowledged, if it is new and the last time is not just over."""
        member = self._member
        if member is None or (not now and time.monotonic() - self._committed_at < _COMMIT_EVERY):
            return
        with uninterrupted(), self._lock:
            books, known = self._books.acknowledged, self._committed
            changed = {place: offset for place, offset in books.items() if known.get(place) != offset}
            if not changed:
                return
            try:
                failpoint("cdc.before_commit")
                member.commit(changed)
                failpoint("cdc.after_commit")
            except StreamLost as error:
                log.warning("%s: %s", self.name, error)
                if now:
                    raise
            else:
                self._committed.update(changed)
            self._committed_at = time.monotonic()

    def lag(self) -> Lag:
        """How far this member is behind its partitions, in records. Asks the broker.

        Offsets that hold no record, as those of compacted ones and of marks of transactions, count too.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        acknowledged = self._books.acknowledged
        if not acknowledged:
            return Lag(None, self._seconds)
        return Lag(self._questions.behind(dict(acknowledged)), self._seconds)

    def written(self) -> KafkaPosition:
        """Where all partitions of the topics end now. Asks the broker.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        return self._questions.written()

    def close(self) -> None:
        """Commit what is acknowledged, and leave the group. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._disconnect()
        self._questions.close()


def _places(item: Transaction | Passed | ChangeStreamError) -> set[Partition]:
    if isinstance(item, Transaction):
        return {(topic, number) for topic, number, _ in item.end_position}  # type: ignore[attr-defined]
    return set(item) if isinstance(item, dict) else set()
