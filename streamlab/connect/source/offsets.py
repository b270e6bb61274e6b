"""How far a connector has come, kept where its records are: in a compacted topic of Kafka, under the connector's name.

In the transactional mode this record is in the transaction of those that it speaks of, so both are there or neither is.
Reading it is only sound once the transactions of all former producers of the connector have ended, which is what
``init_transactions`` does; then its last committed record says exactly what is in the topics.

Kafka Connect keeps its offsets alike (KIP-618, "Exactly-Once Support for Source Connectors").
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import orjson
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from streamlab.cdc.transaction import Transaction
from streamlab.connect.source.sender import judged, refused
from streamlab.errors import CheckpointError, NotDelivered, SettingsError
from streamlab.failures import Failure
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["Covered", "Offsets", "Stored", "make_topics"]

_LIMIT: Final = 90.0
"""Seconds: beyond the time for which a transaction of another connector may hold the topic's end back (60 s)."""


_SOON: Final = RetryPolicy(attempts=50, seconds=15.0, base=0.02, cap=0.5)
_ALL: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Stored:
    """What Kafka holds of a connector's way through its source.

    Attributes
    ----------
    position : str
        Of the last transaction of which something was delivered: `Transaction.position`.
    ordinal : int
        Of the last change of it that was; -1 where it had none.
    snapshot : bool
        Whether that was a row of a snapshot, which comes before all changes at its position.
    resume_after : str
        The end of the last transaction that was delivered whole, where a source may go on; empty where none was.
    records : int
        Changes delivered since the connector was first started.
    """

    position: str
    ordinal: int
    snapshot: bool
    resume_after: str
    records: int

    def encode(self) -> bytes:
        """As it stands in Kafka."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Read it back.

        Raises
        ------
        CheckpointError
            It is something else.
        """
        try:
            return cls(**orjson.loads(value))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                "The topic of offsets holds something under this connector's name that it has not written.",
                "Give another offsets_topic, or another name.",
            ) from error


class Covered:
    """Which changes of a source that begins again are in Kafka already. Used by one thread.

    Positions are compared, so it needs no memory of single changes: everything before the stored place is there, and
    nothing behind it. Once a transaction beyond it has come nothing is compared any more.
    """

    def __init__(self, stored: Stored | None) -> None:
        self._stored = stored
        self._position: Any = None

    def upto(self, transaction: Transaction, *, snapshot: bool) -> int:
        """The highest ordinal of a transaction that is covered; -1 where none is.

        Raises
        ------
        CheckpointError
            The stored position is none of this source.
        """
        stored = self._stored
        if stored is None:
            return -1
        position: Any = transaction.position
        if self._position is None:
            self._position = _parse(type(position), stored.position)
        if position < self._position:
            return _ALL
        if position == self._position:
            if snapshot == stored.snapshot:
                return stored.ordinal
            if snapshot:
                return _ALL
        if not snapshot:
            self._stored = None
        return -1


def _parse(kind: Any, text: str) -> Any:
    try:
        return kind.parse(text)
    except SettingsError as error:
        raise CheckpointError(
            f"Kafka holds the position {text!r} for this connector, which is no {kind.__name__}.",
            "It is another source's: give the connector another name, or forget its offset.",
        ) from error


def _unsettled(error: object) -> Failure:
    """As `judged`; and where librdkafka finds no leader at all, the topic is too new."""
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._NOENT:
        return Failure.TRANSIENT
    return judged(error)


class Offsets:
    """The record of one connector in the topic of offsets.

    Parameters
    ----------
    configuration : mapping
        Of a client: where the broker is.
    topic : str
        A compacted topic of one partition.
    name : str
        The connector's.
    """

    def __init__(self, configuration: Mapping[str, Any], topic: str, name: str) -> None:
        self.topic, self.key = topic, name.encode()
        self._configuration = dict(configuration)

    def prepare(self, admin: AdminClient) -> None:
        """Make the topic where it is missing.

        Raises
        ------
        NotDelivered
            The broker refuses, or does not answer.
        """
        make_topics(admin, [self.topic], partitions=1, settings={"cleanup.policy": "compact"})

    def load(self, admin: AdminClient) -> Stored | None:
        """What was committed last under this name; None where nothing was.

        Raises
        ------
        NotDelivered
            The broker does not answer, or another connector's transaction is still open.
        CheckpointError
            The record is none of a connector.
        """
        consumer = None
        try:
            # A topic that was only just made has no leader yet, for a moment.
            end = Retry("connect.offsets", _SOON, classify=_unsettled).call(self._end, admin)
            consumer = Consumer(
                {
                    **self._configuration,
                    "group.id": f"streamlab-offsets-{self.key.decode()}",  # nothing is committed under it
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 10,  # the broker holds back for so long that there is no more
                    "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed",
                }
            )
            consumer.assign([TopicPartition(self.topic, 0, 0)])
            return self._last(consumer, end)
        except KafkaException as error:
            raise refused(error, "Reading the connector's offset") from error
        except RetriesExhausted as exhausted:
            if isinstance(exhausted.__cause__, KafkaException):
                raise refused(exhausted.__cause__, "Reading the connector's offset") from exhausted.__cause__
            raise
        finally:
            if consumer is not None:
                consumer.close()

    def _end(self, admin: AdminClient) -> int:
        partition = TopicPartition(self.topic, 0)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = admin.list_offsets(
            {partition: latest}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=10
        )
        return int(asked[partition].result(timeout=15).offset)

    def _last(self, consumer: Any, end: int) -> Stored | None:
        found: bytes | None = None
        deadline = time.monotonic() + _LIMIT
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if (problem := message.error()) is None:
                if message.key() == self.key:
                    found = message.value()
            elif problem.code() == KafkaError._PARTITION_EOF:
                if message.offset() >= end:
                    return None if found is None else Stored.decode(found)
            elif not problem.retriable():
                raise KafkaException(problem)
        raise NotDelivered(
            f"The end of {self.topic} could not be read within {_LIMIT:.0f} s: a transaction on it is still open.",
            "Give each connector an offsets_topic of its own; or end the connector that hangs.",
        ) from TimeoutError()


def make_topics(admin: AdminClient, names: Any, *, partitions: int, settings: Mapping[str, str]) -> None:
    """Make topics where they are missing, with the broker's default replication.

    Raises
    ------
    NotDelivered
        The broker refuses, or does not answer.
    """
    try:
        missing = sorted(set(names) - set(admin.list_topics(timeout=15).topics))
        if not missing:
            return
        wanted = [NewTopic(each, num_partitions=partitions, config=dict(settings)) for each in missing]
        for future in admin.create_topics(wanted, operation_timeout=15).values():
            try:
                future.result(timeout=20)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    except KafkaException as error:
        raise refused(error, "Making topics") from error
