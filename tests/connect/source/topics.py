"""What a consumer finds in a topic: all records, from the beginning, as committed or as written."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streamlab import settings
from streamlab.stack.objects import kafka_admin


class Found(NamedTuple):
    key: Any
    value: Any
    headers: dict[str, str]
    timestamp: int
    partition: int

    @property
    def change(self) -> tuple[str, int, str]:
        """The change's own key."""
        return self.headers["position"], int(self.headers["ordinal"]), self.headers["op"]


def records(topic: str, *, committed: bool = True, limit: float = 60.0, bootstrap: str | None = None) -> list[Found]:
    """Every record of a topic up to its end; none where there is no topic. Waits for transactions that are open."""
    admin = kafka_admin()
    known = admin.list_topics(timeout=15).topics
    if topic not in known:
        return []
    partitions = [TopicPartition(topic, each, 0) for each in known[topic].partitions]
    asked = admin.list_offsets(
        {each: OffsetSpec.latest() for each in partitions}, isolation_level=IsolationLevel.READ_UNCOMMITTED
    )
    ends = {each.partition: asked[each].result(timeout=15).offset for each in partitions}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap or settings.kafka_bootstrap(),
            "group.id": "never committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "log_level": 0,
        }
    )
    found: list[Found] = []
    reached: dict[int, int] = {}
    deadline = time.monotonic() + limit
    try:
        consumer.assign(partitions)
        while any(reached.get(each, -1) < end for each, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic}: {reached} of {ends}"
            for message in consumer.consume(1000, 0.05):
                problem = message.error()
                if problem is None:
                    key, value = message.key(), message.value()
                    headers = {name: text.decode() for name, text in message.headers() or ()}
                    found.append(
                        Found(
                            key and json.loads(key), value and json.loads(value), headers, message.timestamp()[1],
                            message.partition(),
                        )
                    )  # fmt: skip
                else:
                    assert problem.code() == KafkaError._PARTITION_EOF, problem
                    reached[message.partition()] = message.offset()
        return found
    finally:
        consumer.close()
