"""Dead letters of a sink: records that Kafka Connect could not read or transform, in a topic, and what was wrong.

With ``errors.tolerance=all`` a sink goes on behind such a record, and the worker writes it, as it was, to the topic
that ``errors.deadletterqueue.topic.name`` names. Where ``errors.deadletterqueue.context.headers.enable`` is set,
headers ``__connect.errors.*`` tell where it was read, at which stage it failed, and the exception.
`JDBCSink.dead_letters` sets all three. What the sink's own database refuses is another matter: Debezium's JDBC sink
reports no record for that, and its task ends (see docs/debezium.md).

Source: KIP-298, "Error Handling in Connect"; `DeadLetterQueueReporter` of Kafka 4.3.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from streamlab import settings
from streamlab.dead_letters.contract import LetterId, Record
from streamlab.errors import ConnectError

__all__ = ["SinkDeadLetter", "dead_letters"]

_CONTEXT = "__connect.errors."


@dataclass(frozen=True, slots=True)
class SinkDeadLetter:
    """A record that a sink set aside, and why.

    Attributes
    ----------
    record : Record
        The record as it was read: key, value and headers as bytes; its group is the sink's.
    failed_in : str
        The stage: KEY_CONVERTER, VALUE_CONVERTER, HEADER_CONVERTER, TRANSFORMATION, TASK_PUT, ...
    failed_at : str
        The Java class that failed: a converter or a transformation.
    exception : str
        The Java class of the exception.
    message : str
        What the exception says; it may quote the record.
    trace : str
        Java's trace.
    connector : str
        The sink.
    task : int
        Its task.
    written_at : datetime
        The record's own timestamp, aware, in UTC: the worker keeps it.
    place : tuple of (int, int)
        Partition and offset in the topic of dead letters.
    """

    record: Record
    failed_in: str
    failed_at: str
    exception: str
    message: str = field(repr=False)
    trace: str = field(repr=False)
    connector: str
    task: int
    written_at: datetime
    place: tuple[int, int]

    @property
    def topic(self) -> str:
        """The topic that the record was read from."""
        return self.record.id.source

    @property
    def partition(self) -> int:
        """The partition there."""
        return self.record.id.partition

    @property
    def offset(self) -> int:
        """The offset there."""
        return self.record.id.position

    @classmethod
    def of(
        cls,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes | None]],
        *,
        timestamp: float,
        place: tuple[int, int],
    ) -> Self:
        """Read a record of a topic of dead letters. Pure.

        Parameters
        ----------
        key, value : bytes or None
            As they are.
        headers : iterable of (str, bytes or None)
            All of them, the worker's included.
        timestamp : float
            Seconds since 1970.
        place : tuple of (int, int)
            Its partition and offset.

        Raises
        ------
        ConnectError
            The worker's headers are not there.
        """
        told: dict[str, str] = {}
        own: list[tuple[str, bytes | None]] = []
        for name, content in headers:
            if name.startswith(_CONTEXT):
                told[name.removeprefix(_CONTEXT)] = (content or b"").decode("utf-8", "replace")
            else:
                own.append((name, content))
        if not {"topic", "partition", "offset", "connector.name"} <= told.keys():
            raise ConnectError(
                f"The dead letter at offset {place[1]} does not say where it comes from.",
                "Set errors.deadletterqueue.context.headers.enable=true on the sink.",
            )
        connector = told["connector.name"]
        identity = LetterId(f"connect-{connector}", told["topic"], int(told["partition"]), int(told["offset"]))
        return cls(
            record=Record(identity, key, value, tuple(own)),
            failed_in=told.get("stage", ""),
            failed_at=told.get("class.name", ""),
            exception=told.get("exception.class.name", ""),
            message=told.get("exception.message", ""),
            trace=told.get("exception.stacktrace", ""),
            connector=connector,
            task=int(told.get("task.id") or 0),
            written_at=datetime.fromtimestamp(timestamp, UTC),
            place=place,
        )


def dead_letters(topic: str, *, bootstrap: str | None = None, limit: float = 30.0) -> list[SinkDeadLetter]:
    """The dead letters that a topic holds now, partition by partition, the oldest first. Nothing is committed.

    A sink that repeats a record after a crash writes its letter again, too: `record.id` is the same then.

    Parameters
    ----------
    topic : str
        The topic of dead letters.
    bootstrap : str, optional
        Kafka's bootstrap servers; by default those that `streamlab.settings` knows.
    limit : float
        Seconds after which it is given up.

    Raises
    ------
    ConnectError
        There is no such topic, it could not be read within `limit` seconds, or its records have not the headers.
    """
    from confluent_kafka import Consumer, KafkaException

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap or settings.kafka_bootstrap(),
            # Needed by the client; nothing is ever stored under it.
            "group.id": "streamlab-dead-letters",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        return list(_read(consumer, topic, time.monotonic() + limit))
    except KafkaException as error:
        raise ConnectError(f"{topic} cannot be read: {error.args[0].str()}.", "See: streamlab status") from error
    finally:
        consumer.close()


def _read(consumer: Any, topic: str, deadline: float) -> Iterator[SinkDeadLetter]:
    from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

    described = consumer.list_topics(timeout=max(0.1, deadline - time.monotonic())).topics.get(topic)
    if described is None:
        raise ConnectError(f"There is no topic {topic}.", "The sink makes it when it starts: see streamlab status")
    for partition in sorted(described.partitions):
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        while True:
            if (left := deadline - time.monotonic()) <= 0:
                raise ConnectError(f"The end of {topic} was not reached in time.", "See: streamlab logs kafka")
            if (message := consumer.poll(min(left, 1.0))) is None:
                continue
            if (problem := message.error()) is not None:
                if problem.code() == KafkaError._PARTITION_EOF:
                    break
                raise KafkaException(problem)
            yield SinkDeadLetter.of(
                message.key(),
                message.value(),
                message.headers() or (),
                timestamp=message.timestamp()[1] / 1000,
                place=(message.partition(), message.offset()),
            )
