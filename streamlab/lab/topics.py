"""The records of a topic as they lie there, from its first one on: for looking at them, byte by byte.

No group is joined and nothing is committed, so whoever reads leaves nothing behind. What events are made of the
records is the business of `streamlab.cdc.debezium`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from streamlab.errors import ChangeStreamError

__all__ = ["Record", "read_topic"]

_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}


class Record(NamedTuple):
    """One record of a topic.

    Attributes
    ----------
    number : int
        From 0, in the order of the partition.
    key, value : bytes or None
        As they were written; a record without a value is a tombstone.
    """

    number: int
    key: bytes | None
    value: bytes | None

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
