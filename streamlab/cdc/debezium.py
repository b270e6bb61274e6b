"""Debezium's change envelopes in Kafka, as `ChangeEvent`s.

An envelope is JSON: ``op`` (c, u, d, t; r for a row of the snapshot), ``before``, ``after``, ``source``. With schemas
switched off the types are gone; decimals then have to come as strings (``decimal.handling.mode=string``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException

from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.errors import ChangeStreamError, ProtocolError

__all__ = ["DebeziumTail", "event_of"]

_OPERATIONS = {
    "c": Operation.INSERT,
    "u": Operation.UPDATE,
    "d": Operation.DELETE,
    "t": Operation.TRUNCATE,
    "r": Operation.SNAPSHOT,
}


def event_of(value: bytes) -> ChangeEvent:
    """The event in the value of one record.

    Raises
    ------
    ProtocolError
        The value is not a Debezium envelope.
    """
    try:
        envelope: dict[str, Any] = orjson.loads(value)
        envelope = envelope.get("payload", envelope)
        source = envelope["source"]
        transaction = envelope.get("transaction") or {}
        return ChangeEvent(
            operation=_OPERATIONS[envelope["op"]],
            schema=source.get("schema") or source["db"],
            table_name=source["table"],
            old_data=envelope.get("before") or {},
            new_data=envelope.get("after") or {},
            commit_timestamp=datetime.fromtimestamp(source["ts_ms"] / 1000, UTC),
            transaction_id=str(source.get("gtid") or transaction.get("id") or source.get("txId") or ""),
            position=f"{source['file']}:{source['pos']}" if "file" in source else str(source.get("lsn", "")),
            ordinal=int(source.get("row", 0)),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProtocolError(
            f"A record of {len(value)} bytes is no Debezium envelope.",
            "Read the topic of a Debezium source, not unwrapped.",
        ) from error


class DebeziumTail:
    """The change events of one topic, from its beginning. Used by one thread.

    Offsets are not committed: each new tail reads the topic again.

    Parameters
    ----------
    bootstrap : str
        Kafka's bootstrap servers.
    topic : str
        A topic of a Debezium source; it may not exist yet.
    group : str
        Name of a consumer group of the caller's own.
    """

    def __init__(self, bootstrap: str, *, topic: str, group: str) -> None:
        self.topic = topic
        self._configuration = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # A topic that appears is noticed at once.
            "topic.metadata.refresh.interval.ms": 500,
            "log_level": 0,
        }
        self._consumer: Consumer | None = None

    def __enter__(self) -> Self:
        self._consumer = Consumer(self._configuration)
        self._consumer.subscribe([self.topic])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def changes(self, count: int, *, limit: float = 30.0) -> Iterator[ChangeEvent]:
        """The next `count` changes.

        Raises
        ------
        ChangeStreamError
            They did not come within `limit` seconds, or Kafka reports an error.
        """
        if self._consumer is None:
            raise ChangeStreamError("The topic is not open.", "Use it in a with block.")
        deadline = time.monotonic() + limit
        while count > 0:
            if time.monotonic() > deadline:
                raise ChangeStreamError(
                    f"No change came through {self.topic} within {limit:.0f} s.",
                    "Is the connector running? See: streamlab status",
                )
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            if (problem := message.error()) is not None:
                if problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                raise ChangeStreamError(
                    f"Kafka reports: {problem.str()}.", "See: streamlab logs kafka"
                ) from KafkaException(problem)
            # A deletion is followed by a record without a value (a tombstone), for log compaction.
            if (value := message.value()) is not None:
                yield event_of(value)
                count -= 1
