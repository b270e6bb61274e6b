"""What reads Debezium's topics: a place in a group, the decoder and the order of what is handed out, together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from confluent_kafka import KafkaException

from streamlab.cdc.debezium.consumer import Member
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.group import Group
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.debezium.received import stretches
from streamlab.cdc.debezium.registry import Registry, Schemas
from streamlab.cdc.debezium.transactions import Assembler, Singles
from streamlab.cdc.debezium.waiting import Waiting
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
    from streamlab.cdc.debezium.gathered import Batches, Gathered

__all__ = ["TopicReader"]

_SLICE: Final = 0.1
_CHUNK: Final = 2000


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
        self._waiting = Waiting(self._group, self._decoder, self._assembler)
        self._bad_since: float | None = None
        self._replica_identity = replica_identity
        self._batches: Batches | None = None
        """What waits of an iteration of frames."""
        self._loose = False
        """Whether records were received that are neither in the queue nor handed out."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} topics={list(self.topics)} at {self.bootstrap}>"

    # -- the stream -------------------------------------------------------------------------------

    def _open(self) -> None:
        self._group.join()

    def _next(self, timeout: float | None, upto: KafkaPosition | None = None) -> Transaction | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        group = self._group
        known = group.joined
        while not self._stopping.is_set():
            if not group.paused and (transaction := self._waiting.next()) is not None:
                return transaction
            if upto is not None and group.reached(upto):
                return None
            left = _SLICE if deadline is None else max(0.0, min(_SLICE, deadline - time.monotonic()))
            self._fill(left)
            group.commit()
            if not known and timeout is not None and group.member is not None:
                # Nothing can come before the group has given out its partitions: the wait begins then, once.
                known, deadline = group.joined, time.monotonic() + timeout
            if deadline is not None and not self._waiting and time.monotonic() >= deadline:
                return None
        return None

    def _ready(self, rows: int) -> list[Transaction | Singles]:
        if self._group.paused or self._stopping.is_set():
            return []
        return self._waiting.some(rows)

    def _fill(self, timeout: float) -> None:
        """Receive and decode."""
        member = self._group.join()
        self._group.obey()
        with uninterrupted():
            try:
                with uncollected():
                    self._waiting.receive(member.drain(_CHUNK, timeout))
            except BaseException:
                self._drop()
                raise
        self._watch(member)

    def _collect(self, into: Gathered, timeout: float) -> int:
        """Receive without decoding; how many messages."""
        member = self._group.join()
        self._group.obey()
        received = 0
        with uninterrupted(), uncollected():
            self._loose = True
            messages = member.drain(_CHUNK, timeout)
            problem = partial(self._waiting.problem, passed=into.ends)
            for each in stretches(messages, self._group.books.cursor, problem):
                into.add(each)
                received += each.size
        self._waiting.count(received)
        self._watch(member)
        return len(messages)

    def _watch(self, member: Member) -> None:
        """Give up a broker that is away for too long, and a transaction that does not become whole."""
        self._group.check()
        incomplete = self._waiting.incomplete
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
        if self._batches is not None:
            self._batches.gone(gone)
        if self._waiting.gone(gone):
            self._group.seek()

    def _drop(self) -> None:
        """Something was received and is not kept: only Kafka has it now."""
        self._waiting.clear()
        try:
            self._group.seek()
        except KafkaException:
            self._disconnect()  # and the next one begins where the group stands

    def _rewind(self) -> None:
        if self._batches is not None:
            self._batches.clear()
        with uninterrupted(), self._group.lock:
            self._bad_since = None
            again = self._group.books.rewind()
            if again or self._waiting.failed or self._loose:
                self._loose = False
                self._drop()
                self._group.fetch_all()

    def _disconnect(self) -> None:
        self._group.leave(self._left)

    def _left(self) -> None:
        if self._batches is not None:
            self._batches.clear()
        self._waiting.clear()
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
            return Lag(None, self._waiting.seconds)
        return Lag(self._group.questions.behind(dict(acknowledged)), self._waiting.seconds)

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
