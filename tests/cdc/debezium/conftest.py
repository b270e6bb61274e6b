"""A shop on MySQL whose changes Debezium writes to Kafka: one connector for all tests here, a table for each.

And topics of records that a test writes itself.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamlab import settings
from streamlab.cdc.debezium import DebeziumSource
from streamlab.cdc.debezium.questions import TopicQuestions
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import Format, MySQLSource
from streamlab.stack.namespace import Namespace

from .records import envelope, key_of, with_schema

LIMIT = 60.0


class Captured:
    """A database with a connector that captures every table in it, with schemas and with marks of transactions."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.database = namespace.mysql_database()
        self.prefix = namespace.topic_prefix()
        self.transactions = f"{self.prefix}.transaction"
        self.connection = pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True)
        self.numbers = itertools.count(1)
        self.execute(f"CREATE DATABASE {self.database}")
        self.execute(f"USE {self.database}")
        self.execute("CREATE TABLE orders0 (id int PRIMARY KEY)")
        source = MySQLSource(
            prefix=self.prefix, database=self.database, tables=["orders0"], transactions=True, decimals="precise",
            key_format=Format.JSON_WITH_SCHEMAS, value_format=Format.JSON_WITH_SCHEMAS,
            # Tables that are made later too: a pattern, which `tables` does not take.
            more={"column.propagate.source.type": ".*", "table.include.list": rf"{self.database}\.orders.*"},
        )  # fmt: skip
        with ConnectClient() as client:
            client.apply(namespace.connector(), source.configuration())
            client.wait_ready(namespace.connector())
        self.questions = TopicQuestions(settings.kafka_bootstrap(), [self.transactions], {})
        deadline = time.monotonic() + LIMIT
        while not self.marks():
            # The snapshot is over when a change comes as one.
            assert time.monotonic() < deadline
            self.execute("INSERT INTO orders0 SELECT count(*) FROM orders0")
            time.sleep(0.1)

    def execute(self, query: str, *parameters: Any) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return cursor.fetchall()

    def table(self) -> Table:
        return Table(self, f"orders{next(self.numbers)}")

    def marks(self) -> int:
        return sum(offset for _, _, offset in self.questions.written())

    def close(self) -> None:
        self.questions.close()
        self.connection.close()


class Table:
    """One table of the shop, its topic, and readers of it in one group."""

    def __init__(self, captured: Captured, name: str) -> None:
        self.captured, self.name = captured, name
        self.topic = f"{captured.prefix}.{captured.database}.{name}"
        self.group = captured.namespace.group(name)
        self.readers: list[DebeziumSource] = []
        captured.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, note text, total decimal(12,2))")

    def commit(self, *statements: str) -> None:
        """One transaction; returns when its end is in Kafka."""
        before = self.captured.marks()
        self.captured.execute("BEGIN")
        for statement in statements:
            self.captured.execute(statement.format(self.name))
        self.captured.execute("COMMIT")
        deadline = time.monotonic() + LIMIT
        # Its beginning, its end, and the mark of Kafka's own transaction.
        while self.captured.marks() < before + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def insert(self, *ids: int) -> None:
        """Rows in one transaction."""
        self.commit(f"INSERT INTO {self.name} VALUES " + ",".join(f"({each}, 'new', 1.50)" for each in ids))

    def reader(self, **options: Any) -> DebeziumSource:
        given = {"transaction_topic": self.captured.transactions, "options": {"session.timeout.ms": 6000}, **options}
        topics = given.pop("topics", [self.topic])
        made = DebeziumSource(settings.kafka_bootstrap(), topics, given.pop("group", self.group), **given)
        self.readers.append(made)
        return made

    def close(self) -> None:
        for each in self.readers:
            each.close()


@pytest.fixture(scope="module")
def captured(stack: object) -> Iterator[Captured]:
    with Namespace("test_debezium") as namespace:
        made = Captured(namespace)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def table(captured: Captured) -> Iterator[Table]:
    made = captured.table()
    try:
        yield made
    finally:
        made.close()


class Topic:
    """A topic of this test's own, with records as Debezium writes them, and readers of it."""

    def __init__(self, namespace: Namespace, name: str = "orders", partitions: int = 1) -> None:
        self.namespace, self.name = namespace, namespace.topic(name)
        self.partitions = partitions
        self.group = namespace.group(name)
        self.admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap()})
        self.producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
        self.readers: list[DebeziumSource] = []

    def create(self) -> None:
        (made,) = self.admin.create_topics([NewTopic(self.name, self.partitions, 1)]).values()
        made.result(LIMIT)

    def delete(self) -> None:
        (gone,) = self.admin.delete_topics([self.name]).values()
        gone.result(LIMIT)

    def send(self, *ids: int, partition: int = 0) -> None:
        for each in ids:
            self.raw(with_schema(envelope(each)), key=key_of(each), partition=partition)
        assert self.producer.flush(LIMIT) == 0

    def raw(self, value: bytes | None, key: bytes | None = None, partition: int = 0) -> None:
        self.producer.produce(self.name, value, key, partition)

    def reader(self, **options: Any) -> DebeziumSource:
        given = {"options": {"session.timeout.ms": 6000, **options.pop("options", {})}, **options}
        made = DebeziumSource(settings.kafka_bootstrap(), given.pop("topics", [self.name]), self.group, **given)
        self.readers.append(made)
        return made

    def committed(self) -> list[int]:
        client = Consumer({"bootstrap.servers": settings.kafka_bootstrap(), "group.id": self.group})
        try:
            places = [TopicPartition(self.name, each) for each in range(self.partitions)]
            return [each.offset for each in client.committed(places, timeout=10)]
        finally:
            client.close()

    def close(self) -> None:
        for each in self.readers:
            each.close()


@pytest.fixture
def make(stack: object) -> Iterator[Callable[..., Topic]]:
    topics: list[Topic] = []
    with Namespace("test_debezium") as namespace:

        def made(*args: Any, **options: Any) -> Topic:
            topics.append(Topic(namespace, *args, **options))
            return topics[-1]

        try:
            yield made
        finally:
            for each in topics:
                each.close()


@pytest.fixture
def topic(make: Callable[..., Topic]) -> Topic:
    made = make()
    made.create()
    return made


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
