"""What a consumer finds in a topic: every partition from its beginning, as committed or as it was written.

No group is joined and nothing is committed, so whoever looks leaves nothing behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamlab import settings
from streamlab.connect.source.offsets import make_topics
from streamlab.errors import LessonError

__all__ = ["Delivered", "delivered", "send"]


class Delivered(NamedTuple):
    """One record, as it lies in its topic.

    Attributes
    ----------
    key, value : bytes or None
        As they were written; a record without a value is a tombstone.
    partition : int
        Where it lies.
    headers : dict
        Name -> bytes.
    """

    key: bytes | None
    value: bytes | None
    partition: int
    headers: dict[str, bytes]

    @property
    def row(self) -> Any:
        """The id that a JSON key says, with a schema or without; None where there is no such key."""
        key = json.loads(self.key or b"null")
        return key.get("payload", key).get("id") if isinstance(key, dict) else None

    @property
    def payload(self) -> Any:
        """The value, read from JSON, without its schema; None for a tombstone."""
        value = json.loads(self.value or b"null")
        return value["payload"] if isinstance(value, dict) and value.keys() == {"schema", "payload"} else value


def delivered(
    topic: str,
    *,
    until: Callable[[Delivered], bool] | None = None,
    committed: bool = True,
    limit: float = 30.0,
    bootstrap: str | None = None,
) -> list[Delivered]:
    """The records of a topic, each partition in its order.

    Parameters
    ----------
    topic : str
        Its name.
    until : callable, optional
        Wait for a record of which this is true, also for the topic itself. Without it, what is there now.
    committed : bool
        Leave out what was taken back, or may still be.
    limit : float
        Seconds after which it is given up.
    bootstrap : str, optional
        Kafka's address; by default that of `streamlab.settings`.

    Raises
    ------
    LessonError
        What was waited for has not come, or Kafka reports an error.
    """
    address = bootstrap or settings.kafka_bootstrap()
    deadline = time.monotonic() + limit
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    while topic not in (known := admin.list_topics(timeout=limit).topics):
        if until is None:
            return []
        if time.monotonic() > deadline:
            raise LessonError(f"There is no topic {topic} after {limit:.0f} s.", "Does the connector run?")
        time.sleep(0.05)
    parts = [TopicPartition(topic, number, 0) for number in known[topic].partitions]
    ends = {} if until else _ends(admin, parts, deadline)
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "none",  # has to be named, and is never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "log_level": 0,
        }
    )
    found: list[Delivered] = []
    reached: dict[int, int] = {}
    seen = False
    try:
        consumer.assign(parts)
        while not seen if until else any(reached.get(number, -1) < end for number, end in ends.items()):
            if time.monotonic() > deadline:
                raise LessonError(
                    f"After {limit:.0f} s and {len(found)} records of {topic}, what was waited for has not come.",
                    "Does the connector run? See: streamlab status",
                )
            for message in consumer.consume(1000, 0.05):
                problem = message.error()
                if problem is None:
                    headers = {name: value if isinstance(value, bytes) else b"" for name, value in _headers(message)}
                    found.append(Delivered(message.key(), message.value(), message.partition() or 0, headers))
                    seen = seen or (until is not None and until(found[-1]))
                elif problem.code() == KafkaError._PARTITION_EOF:
                    reached[message.partition() or 0] = message.offset() or 0
                else:
                    raise LessonError(f"Kafka reports: {problem.str()}.", "See: streamlab logs kafka")
    finally:
        consumer.close()
    return found


def _ends(admin: AdminClient, parts: Sequence[TopicPartition], deadline: float) -> dict[int, int]:
    """Where each partition ends now, by number."""
    specs = {each: OffsetSpec.latest() for each in parts}
    while True:
        asked = admin.list_offsets(specs, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        try:
            return {each.partition: asked[each].result(timeout=30).offset for each in parts}
        except KafkaException as error:
            # A topic that was made a moment ago has no leader yet, or a broker that has not heard of it.
            if not error.args[0].retriable() and error.args[0].code() != KafkaError.UNKNOWN_LEADER_EPOCH:
                raise
            if time.monotonic() > deadline:
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
    LessonError
        Kafka does not take them.
    """
    address = {"bootstrap.servers": bootstrap or settings.kafka_bootstrap(), "log_level": 0}
    make_topics(AdminClient(address), [topic], partitions=partitions, settings={})
    producer = Producer(address)
    for key, value in records:
        producer.produce(topic, value, key)
    if producer.flush(20):
        raise LessonError(f"Kafka does not take the records for {topic}.", "See: streamlab status")
