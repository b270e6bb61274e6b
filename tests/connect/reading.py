"""Topics, read by a plain consumer and plain JSON: what tests hold our own readers and connectors against."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streamlab import settings
from streamlab.workload.ledger import Difference, Ledger
from streamlab.workload.tables import TABLES, Row, Type

LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    """One record: key and value as JSON says them; a tombstone has no value."""

    topic: str
    offset: int
    key: Any
    value: Any
    headers: Mapping[str, str]
    raw: bytes | None
    """The value as it lies in the topic: a tombstone has none, and the text null is one."""


class Topics:
    """Every record of topics from their beginnings, read as far as a test asks. Used by one thread."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Message]] = defaultdict(list)
        self._assigned: set[str] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka_bootstrap(),
                "group.id": "never committed",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def wait(
        self, topics: str | Iterable[str], until: Callable[[list[Message]], object], limit: float = LIMIT
    ) -> list[Message]:
        """Read on until what was read of the topics is as asked for; all of it, in the order of its arrival."""
        names = [topics] if isinstance(topics, str) else list(topics)
        deadline = time.monotonic() + limit
        while missing := {name for name in names if name not in self._assigned}:
            found = missing & set(self._consumer.list_topics(timeout=10).topics)
            self._consumer.incremental_assign([TopicPartition(name, 0, OFFSET_BEGINNING) for name in found])
            self._assigned |= found
            assert found or time.monotonic() < deadline, f"no topic {missing}"
            time.sleep(0 if found else 0.05)
        while True:
            read = [message for name in names for message in self.messages[name]]
            if until(read):
                return read
            assert time.monotonic() < deadline, "\n".join(str(each)[:300] for each in read[-10:])
            self._poll()

    def _poll(self) -> None:
        # All that is there already, before anything is asked of it.
        for message in self._consumer.consume(500, timeout=0.1):
            if (problem := message.error()) is not None:
                # The topic is new to this consumer's metadata, or its broker is on its way down or up.
                assert problem.code() in PASSING, problem
                continue
            key, value = message.key(), message.value()
            read = Message(
                message.topic(),
                message.offset(),
                json.loads(key) if key else None,
                None if value is None else json.loads(value),
                {name: (content or b"").decode() for name, content in message.headers() or ()},
                value,
            )
            self.messages[read.topic].append(read)


PASSING = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}

UNCHANGED = "__debezium_unavailable_value"
"""Stands for a large value that PostgreSQL's log does not repeat."""

_READ: dict[Type, Callable[[Any], Any]] = {
    Type.BOOLEAN: bool,
    Type.MONEY: Decimal,
    Type.INSTANT: lambda value: datetime.fromisoformat(value).astimezone(UTC),
}
_JSON = {Type.JSON, Type.TAGS}


class Copy:
    """The shop's tables, made again from envelopes alone: for each key the newest row. Repeats do no harm.

    The envelopes are JSON without schemas, with `decimal.handling.mode=string` and `time.precision.mode=isostring`.
    """

    def __init__(self, topics: Topics, prefix: str, place: str) -> None:
        self._topics = topics
        self._names = {f"{prefix}.{place}.{table}": table for table in TABLES}
        self._rows: dict[str, dict[Any, Row]] = {topic: {} for topic in self._names}
        self._applied = dict.fromkeys(self._names, 0)

    @property
    def topics(self) -> list[str]:
        """The topics of the shop's tables."""
        return list(self._names)

    def rows(self) -> dict[str, list[Row]]:
        """The rows of each table, of what was read so far."""
        for topic, table in self._names.items():
            rows = self._rows[topic]
            for message in self._topics.messages[topic][self._applied[topic] :]:
                key = tuple(message.key.values())
                if message.value is None or message.value["op"] == "d":
                    rows.pop(key, None)
                else:
                    rows[key] = self._row(table, message.value["after"], rows.get(key))
            self._applied[topic] = len(self._topics.messages[topic])
        return {table: list(self._rows[topic].values()) for topic, table in self._names.items()}

    def _row(self, table: str, values: Mapping[str, Any], before: Row | None) -> Row:
        shape = TABLES[table]
        return tuple(
            before[number] if before and values[column] == UNCHANGED else self._value(kind, values[column])
            for number, (column, kind) in enumerate(zip(shape.columns, shape.types, strict=True))
        )

    def _value(self, kind: Type, value: Any) -> Any:
        if value is None:
            return None
        if kind in _JSON and isinstance(value, str):
            return json.loads(value)
        return _READ[kind](value) if kind in _READ else value

    def follow(self, ledger: Ledger, limit: float = LIMIT) -> tuple[Difference, ...]:
        """Read on until the copy is what the ledger says; what still differs after the limit."""
        differences: tuple[Difference, ...] = ()

        def equal(_: list[Message]) -> bool:
            nonlocal differences
            differences = ledger.compare(self.rows())
            return not differences

        try:
            self._topics.wait(self.topics, equal, limit)
        except AssertionError:
            assert differences, "topics are missing"
        return differences
