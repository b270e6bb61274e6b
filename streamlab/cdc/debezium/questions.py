"""What is asked of Kafka beside a stream: which partitions there are, and where they end. From any thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streamlab.cdc.debezium.consumer import said
from streamlab.cdc.debezium.position import KafkaPosition, Partition

__all__ = ["TopicQuestions"]

_PATIENCE: Final = 10.0
_MESSAGES: Final = "LogicalDecodingMessageId"
"""What Debezium calls the table of logical messages, in its marks of transactions."""


class TopicQuestions:
    """Answers from a client of its own, which joins no group. The client is made when it is first needed."""

    def __init__(self, bootstrap: str, topics: Sequence[str], options: Mapping[str, Any]) -> None:
        self._topics = tuple(topics)
        self._configuration = {
            "bootstrap.servers": bootstrap, "isolation.level": "read_committed", "log_level": 0, **options,
            "group.id": "never joined", "enable.auto.commit": False,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._client: Consumer | None = None
        self._admin: AdminClient | None = None

    def wanted(self, topic: str) -> bool:
        """Whether a topic is among those that are read."""
        return any(re.search(each, topic) if each.startswith("^") else each == topic for each in self._topics)

    def counted(self, transaction_topic: str) -> Callable[[str], bool]:
        """Whether the changes of a table, as marks of transactions name it, are among what is read."""
        prefix = transaction_topic.rpartition(".")[0]

        def counted(table: str) -> bool:
            return self.wanted(f"{prefix}.{'message' if _MESSAGES in table else table}")

        return counted

    def _ask(self, question: Callable[[Consumer], Any]) -> Any:
        with self._lock:
            if self._client is None:
                self._client = Consumer(self._configuration)
            try:
                return question(self._client)
            except KafkaException as error:
                raise said(error.args[0], "Asking where the topics end") from error

    def written(self) -> KafkaPosition:
        """Where all partitions end now."""

        def ends(client: Consumer) -> dict[Partition, int]:
            topics = client.list_topics(timeout=_PATIENCE).topics
            places = [(name, each) for name, topic in topics.items() if self.wanted(name) for each in topic.partitions]
            return {
                place: client.get_watermark_offsets(TopicPartition(*place), timeout=_PATIENCE)[1] for place in places
            }

        return KafkaPosition.of(self._ask(ends))

    def behind(self, offsets: Mapping[Partition, int]) -> int:
        """How many offsets there are beyond these."""

        def sum_of(client: Consumer) -> int:
            total = 0
            for place, offset in offsets.items():
                _, high = client.get_watermark_offsets(TopicPartition(*place), timeout=_PATIENCE)
                total += max(0, high - offset)
            return total

        return int(self._ask(sum_of))

    def of_others(self, group: str, member: str) -> set[Partition]:
        """Partitions that other members of a group have now."""
        with self._lock:
            if self._admin is None:
                kept = ("enable.auto.commit", "group.id", "isolation.level")
                self._admin = AdminClient({k: v for k, v in self._configuration.items() if k not in kept})
            try:
                (answer,) = self._admin.describe_consumer_groups([group], request_timeout=_PATIENCE).values()
                members = answer.result().members
            except KafkaException as error:
                raise said(error.args[0], f"Asking who reads in the group {group}") from error
        return {
            (place.topic, place.partition)
            for each in members
            if each.member_id != member and each.assignment is not None
            for place in each.assignment.topic_partitions
        }

    def close(self) -> None:
        """Let go of the client. Idempotent."""
        with self._lock:
            client, self._client, self._admin = self._client, None, None
        if client is not None:
            client.close()
