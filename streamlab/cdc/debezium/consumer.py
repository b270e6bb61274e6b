"""A member of a consumer group, as thin as it can be: confluent-kafka's consumer, its callbacks and its errors.

Partitions come and go one by one (cooperative-sticky): a member that joins takes what it gets and leaves the others
their work. Nothing is committed by itself, and where there is no offset any more, that is an error: librdkafka would go
on at the beginning or the end, and not say so.

Sources: KIP-429 (incremental cooperative rebalancing); librdkafka's CONFIGURATION.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamlab.cdc.debezium.position import Partition
from streamlab.errors import CannotCapture, ChangeStreamError, LogPurged, StreamLost

__all__ = ["Member", "said"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 10.0
"""Seconds that a question to the broker may take."""

_UNSAID: Final = 3.0
"""Seconds after which a group that says nothing is not waited for: librdkafka joins none without a topic."""

_NOT_ALLOWED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION, KafkaError.INVALID_GROUP_ID,
}  # fmt: skip


def said(error: KafkaError, what: str) -> ChangeStreamError:
    """Kafka's error as ours."""
    if error.code() in _NOT_ALLOWED:
        return CannotCapture(f"{what}: Kafka refuses: {error.str()}.", "Give this client the rights, or others.")
    if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
        return purged(what)
    return StreamLost(f"{what}: Kafka reports: {error.str()}.", "Is the broker up? See: streamlab status")


def purged(what: str) -> LogPurged:
    """What was to be read next is not there any more."""
    return LogPurged(
        f"{what}: what comes next is gone from the topic: its retention deleted it, or the topic was made again.",
        "Changes are lost to this reader: begin with a new snapshot, and a new group; or go on at a place of your own "
        "choice: resume_after=...",
    )


class Member:
    """One member of a group. `drain` in one thread; the questions and `commit` in any.

    Parameters
    ----------
    bootstrap, group : str
        Which servers, which group.
    topics : sequence of str
        Names; one that begins with ``^`` is a regular expression.
    options : mapping
        Of librdkafka; they go before what is set here.
    begin : callable
        Partitions -> for each the offset with which it begins, as the reader has it; none where the group's is wanted.
    start : {"earliest", "latest"}
        Where a partition begins of which the group has no offset.
    assigned, revoked : callable
        Are told what has come, with the offset, and what has gone; called within `drain` and `close`.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        *,
        options: Mapping[str, Any],
        begin: Mapping[Partition, int],
        start: Literal["earliest", "latest"],
        assigned: Callable[[dict[Partition, int]], None],
        revoked: Callable[[list[Partition], bool], None],
    ) -> None:
        self.bootstrap, self.topics = bootstrap, tuple(topics)
        self._begin, self._start = begin, start
        self._tell_assigned, self._tell_revoked = assigned, revoked
        self._failure: ChangeStreamError | None = None
        self._joined = False
        self._opened = 0.0
        self._there: set[Partition] = set()
        self.unreachable = False
        """Whether no broker has answered since the last record."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "session.timeout.ms": 10_000,
                "partition.assignment.strategy": "cooperative-sticky",
                "isolation.level": "read_committed",
                # A topic that appears is noticed soon.
                "topic.metadata.refresh.interval.ms": 1000,
                "queued.max.messages.kbytes": 32_768,
                "fetch.wait.max.ms": 100,
                # Where so much waits, no more is fetched for a while: by default a second, in which all of it is read,
                # and then nothing is there.
                "fetch.queue.backoff.ms": 50,
                "log_level": 0,
                **options,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "error_cb": self._on_error,
            }
        )

    def open(self) -> None:
        """Ask the broker, and join the group.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                topics = self._consumer.list_topics(timeout=1.0).topics
                break
            except KafkaException as error:
                # Nobody listens at the address: most often it is wrong, so that is said at once.
                self._consumer.poll(0)
                if self._failure is not None:
                    raise self._failure from error
                if self.unreachable or time.monotonic() > deadline:
                    raise StreamLost(
                        f"Kafka at {self.bootstrap} does not answer: {error.args[0].str()}.",
                        "Is it up? See: streamlab status",
                    ) from error
        self.unreachable = False
        self._there = {(name, number) for name, topic in topics.items() for number in topic.partitions}
        self._opened = time.monotonic()
        self._consumer.subscribe(
            list(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    # -- what comes -------------------------------------------------------------------------------

    def drain(self, limit: int, timeout: float) -> list[Any]:
        """Messages that are there, or the first that comes in so many seconds; errors and ends of partitions too.

        Raises
        ------
        ChangeStreamError
            A partition that was assigned cannot be read.
        """
        consumer = self._consumer
        found: list[Any] = consumer.consume(limit, 0)
        if not found and timeout > 0 and (first := consumer.poll(timeout)) is not None:
            found = [first, *consumer.consume(limit - 1, 0)]
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if found:
            self.unreachable = False
        return found

    @property
    def joined(self) -> bool:
        """Whether the group has said what is ours; or is not asked, since no such topic is there yet."""
        return self._joined or time.monotonic() > self._opened + _UNSAID

    @property
    def id(self) -> str:
        """What the group calls this member."""
        return str(self._consumer.memberid() or "")

    def reaches(self) -> bool:
        """Whether the broker answers now."""
        try:
            self._consumer.list_topics(timeout=2.0)
        except KafkaException:
            return False
        self.unreachable = False
        return True

    def is_there(self, topic: str) -> bool:
        """Whether the broker has a topic."""
        try:
            found = self._consumer.list_topics(timeout=_PATIENCE).topics
        except KafkaException as error:
            raise said(error.args[0], topic) from error
        return topic in found and found[topic].error is None

    # -- partitions -------------------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.unreachable = True
        elif error.code() in _NOT_ALLOWED or error.fatal():
            self._failure = said(error, self.bootstrap)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            offsets = self._offsets(partitions)
        except KafkaException as error:
            self._failure = said(error.args[0], "Asking where the group stands")
            return
        except ChangeStreamError as error:
            self._failure = error
            return
        self._joined = True
        consumer.incremental_assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
        self._tell_assigned(offsets)

    def _offsets(self, partitions: list[TopicPartition]) -> dict[Partition, int]:
        """Where partitions begin."""
        places = [TopicPartition(each.topic, each.partition) for each in partitions]
        offsets: dict[Partition, int] = {}
        for each in self._consumer.committed(places, timeout=_PATIENCE) if places else ():
            if each.error is not None:
                raise KafkaException(each.error)
            place = (each.topic, each.partition)
            low, high = self._consumer.get_watermark_offsets(each, timeout=_PATIENCE)
            offset = self._begin.get(place, each.offset)
            if offset < 0:
                # One that appears later is new, and read from its beginning in every case.
                offset = high if self._start == "latest" and place in self._there else low
            elif not low <= offset <= high:
                raise purged(f"{each.topic}/{each.partition}:{offset}")
            offsets[place] = offset
        return offsets

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._tell_revoked([(each.topic, each.partition) for each in partitions], False)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._tell_revoked([(each.topic, each.partition) for each in partitions], True)
        consumer.incremental_unassign(partitions)

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Go on elsewhere. What was fetched is thrown away."""
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        if places:
            self._consumer.incremental_unassign(places)
            self._consumer.incremental_assign(places)

    def pause(self, partitions: Sequence[Partition], *, on: bool = True) -> None:
        """Stop fetching of some partitions, or go on."""
        places = [TopicPartition(*place) for place in partitions]
        if places:
            (self._consumer.pause if on else self._consumer.resume)(places)

    # -- offsets ----------------------------------------------------------------------------------

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Have the group note offsets, and wait for it.

        Raises
        ------
        StreamLost
            It has not; a member that was thrown out is not asked to stop, what it read comes again.
        """
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        try:
            for each in self._consumer.commit(offsets=places, asynchronous=False):
                if each.error is not None:
                    raise KafkaException(each.error)
        except KafkaException as error:
            raise said(error.args[0], "The offsets could not be committed") from error

    def close(self) -> None:
        """Leave the group. Idempotent."""
        self._consumer.close()
