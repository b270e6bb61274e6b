"""Cases of `which_cdc`: from a topic to changes, against a consumer that does nothing but `orjson.loads`.

The topic is whoever's that measures, filled by Debezium before. Each function reads all of it, from its beginning, and
gives changes per second: the reference from the first messages on, `DebeziumSource` behind its first batch, so that how
long the first fetch takes counts on neither side. A group of its own is made and left each time. The reference has the
settings of librdkafka that `DebeziumSource` has.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from streamlab.cdc.debezium import DebeziumSource

__all__ = ["consume_and_loads", "topic_events", "topic_frames"]

_ROWS = 10_000


def consume_and_loads(bootstrap: str, topic: str, count: int) -> float:
    """The reference: `consume`, and `orjson.loads` of each value."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": _group(), "enable.auto.commit": False,
            "isolation.level": "read_committed", "queued.max.messages.kbytes": 32_768, "fetch.queue.backoff.ms": 50,
        }
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        found, begin = 0, 0.0
        while found < count:
            messages = consumer.consume(2000, 30.0)
            if not messages:
                raise RuntimeError(f"{topic} has {found} of {count} changes")
            begin = begin or time.perf_counter()
            for message in messages:
                if (value := message.value()) is not None:
                    orjson.loads(value)
                    found += 1
        return count / (time.perf_counter() - begin)
    finally:
        consumer.close()


def topic_events(bootstrap: str, topic: str, count: int, **options: Any) -> float:
    """`DebeziumSource`: typed events in batches, each acknowledged."""
    with DebeziumSource(bootstrap, [topic], _group(), **options) as source:
        found = first = 0
        begin = 0.0
        _joined(source)
        for batch in source.batches(max_rows=_ROWS, idle=30.0):
            if not first:
                first, begin = len(batch), time.perf_counter()
            for _event in batch:
                found += 1
            source.acknowledge(batch)
            if found >= count:
                return (found - first) / (time.perf_counter() - begin)
    raise RuntimeError(f"{topic} has {found} of {count} changes")


def topic_frames(
    bootstrap: str, topic: str, count: int, *, types: Mapping[str, Mapping[str, str]] | None = None, **options: Any
) -> float:
    """`DebeziumSource.frames`, each batch acknowledged; `types` for JSON without schemas."""
    with DebeziumSource(bootstrap, [topic], _group(), types=types, **options) as source:
        found = first = 0
        begin = 0.0
        _joined(source)
        for batch in source.frames(max_rows=5 * _ROWS, idle=30.0):
            if not first:
                first, begin = len(batch), time.perf_counter()
            found += len(batch)
            source.acknowledge(batch.end_position)
            if found >= count:
                return (found - first) / (time.perf_counter() - begin)
    raise RuntimeError(f"{topic} has {found} of {count} changes")


def _joined(source: DebeziumSource) -> None:
    """Have the group give out its partitions before the clock starts: nothing is fetched while it is paused."""
    source.pause()
    for _ in source.transactions(idle=0.1):
        pass
    source.resume()


def _group() -> str:
    return f"which_cdc_{uuid.uuid4().hex}"
