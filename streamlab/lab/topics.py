"""The records of a topic as they lie there, from its first one on: for looking at them, byte by byte.

No group is joined and nothing is committed, so whoever reads leaves nothing behind. What events are made of the
records is the business of `streamlab.cdc.debezium`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streamlab import settings
from streamlab.connect.source.offsets import make_topics
from streamlab.errors import ChangeStreamError

__all__ = ["Record", "read_partitions", "read_topic", "send"]

_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}


class Record(NamedTuple):
    """One record of a topic.

    Attributes
    ----------
    number : int
        From 0, in the order of the partition.
    key, value : bytes or None
        As they were written; a record without a value is a tombstone.
    partition : int
        Where it lies.
    headers : mapping
        Name -> bytes; `read_topic` leaves them out.
    """

    number: int
    key: bytes | None
    value: bytes | None
    partition: int = 0
    headers: Mapping[str, bytes] = MappingProxyType({})

    @property
    def row(self) -> Any:
        """The number, or the numbers, that the key of a row says: of JSON with schemas or without."""
        key = json.loads(self.key or b"{}")
        values = tuple(key.get("payload", key).values())
        return values[0] if len(values) == 1 else values

    @property
    def payload(self) -> Any:
        """The value, read from JSON, without its schema; None for a tombstone."""
        value = json.loads(self.value or b"null")
        return value["payload"] if isinstance(value, dict) and value.keys() == {"schema", "payload"} else value


def read_topic(bootstrap: str, topic: str, last: Callable[[Record], bool], *, limit: float = 30.0) -> list[Record]:
    """Read the first partition of a topic, which may not be there yet, up to and with a record.

    Parameters
    ----------
    bootstrap : str
        Kafka's bootstrap servers.
    topic : str
        Name of the topic.
    last : callable
        Whether a record is the last one to be read.
    limit : float
        Seconds after which it is given up.

    Raises
    ------
    ChangeStreamError
        The record did not come, or Kafka reports an error.
    """
    configuration = {
        "bootstrap.servers": bootstrap,
        # Has to be named, and is never joined.
        "group.id": "none",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # A topic that appears is noticed at once.
        "topic.metadata.refresh.interval.ms": 200,
        "log_level": 0,
    }
    read: list[Record] = []
    deadline = time.monotonic() + limit
    with closing(Consumer(configuration)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None:
                continue
            if (problem := message.error()) is not None:
                if problem.code() in _ABSENT:
                    continue
                raise ChangeStreamError(f"Kafka reports: {problem.str()}.", "See: streamlab logs kafka")
            read.append(Record(len(read), message.key(), message.value()))
            if last(read[-1]):
                return read
    raise ChangeStreamError(
        f"After {limit:.0f} s and {len(read)} records of {topic}, the one that was waited for has not come.",
        "Is the connector running? See: streamlab status",
    )


def read_partitions(
    topic: str,
    *,
    done: Callable[[list[Record]], bool] | None = None,
    committed: bool = True,
    limit: float = 30.0,
    bootstrap: str | None = None,
) -> list[Record]:
    """Read all partitions of a topic, each in its order.

    Parameters
    ----------
    topic : str
        Its name.
    done : callable, optional
        Asked after each record whether these are enough; a topic that is not there yet is waited for. Without it, what
        is there now.
    committed : bool
        Leave out what was taken back, or may still be.
    limit : float
        Seconds after which it is given up.
    bootstrap : str, optional
        Kafka's address; by default that of `streamlab.settings`.

    Raises
    ------
    ChangeStreamError
        What was waited for has not come, or Kafka reports an error.
    """
    address: dict[str, Any] = {"bootstrap.servers": bootstrap or settings.kafka_bootstrap(), "log_level": 0}
    admin, deadline = AdminClient(address), time.monotonic() + limit
    while topic not in (known := admin.list_topics(timeout=limit).topics):
        if done is None:
            return []
        _in_time(deadline, limit, 0, topic)
        time.sleep(0.05)
    parts = [TopicPartition(topic, number, 0) for number in known[topic].partitions]
    left = set() if done else {number for number, end in _ends(admin, parts, deadline).items() if end}
    address |= {
        "group.id": "none",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed" if committed else "read_uncommitted",
    }
    read: list[Record] = []
    numbers = dict.fromkeys(known[topic].partitions, 0)
    with closing(Consumer(address)) as consumer:
        consumer.assign(parts)
        while left or done:
            _in_time(deadline, limit, len(read), topic)
            message = consumer.poll(0.1)
            if message is None:
                continue
            where = message.partition() or 0
            problem = message.error()
            if problem is None:
                headers = {name: value for name, value in _headers(message) if isinstance(value, bytes)}
                read.append(Record(numbers[where], message.key(), message.value(), where, headers))
                numbers[where] += 1
                if done and done(read):
                    break
            elif problem.code() == KafkaError._PARTITION_EOF:
                left.discard(where)
            elif problem.code() not in _ABSENT:
                raise ChangeStreamError(f"Kafka reports: {problem.str()}.", "See: streamlab logs kafka")
    return read


def _in_time(deadline: float, limit: float, count: int, topic: str) -> None:
    if time.monotonic() > deadline:
        raise ChangeStreamError(
            f"After {limit:.0f} s and {count} records of {topic}, what was waited for has not come.",
            "Is the connector running? See: streamlab status",
        )


def _ends(admin: AdminClient, parts: Sequence[TopicPartition], deadline: float) -> dict[int, int]:
    """Where each partition ends now, by number."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    specs = dict.fromkeys(parts, latest)
    while True:
        asked = admin.list_offsets(specs, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        try:
            return {each.partition: asked[each].result(timeout=30).offset for each in parts}
        except KafkaException as error:
            # A topic that was made a moment ago: its leader is not known everywhere.
            problem: KafkaError = error.args[0]
            young = problem.retriable() or problem.code() == KafkaError.UNKNOWN_LEADER_EPOCH
            if not young or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _headers(message: Any) -> list[tuple[str, Any]]:
    return list(message.headers() or [])


def send(
    topic: str,
    records: Iterable[tuple[bytes | str | None, bytes | None]],
    *,
    partitions: int = 1,
    bootstrap: str | None = None,
) -> None:
    """Send keys and values as a producer does that nobody has configured; the topic is made where it is missing.

    Raises
    ------
    ChangeStreamError
        Kafka does not take them.
    """
    address: dict[str, Any] = {"bootstrap.servers": bootstrap or settings.kafka_bootstrap(), "log_level": 0}
    make_topics(AdminClient(address), [topic], partitions=partitions, settings={})
    producer = Producer(address)
    for key, value in records:
        producer.produce(topic, value, key)
    if producer.flush(20):
        raise ChangeStreamError(f"Kafka does not take the records for {topic}.", "See: streamlab status")
