"""Reading a topic as it lies there: order, tombstones, keys of either form, and a topic that is not there yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from streamlab import settings
from streamlab.errors import ChangeStreamError
from streamlab.lab.topics import Record, read_partitions, read_topic, send
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(stack: object) -> Iterator[str]:
    with Namespace("topics") as namespace:
        yield namespace.topic("read")


def write(topic: str, *records: tuple[bytes, bytes | None]) -> None:
    admin = kafka_admin()  # has to live until the answer has come
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    for key, value in records:
        producer.produce(topic, key=key, value=value)
    assert producer.flush(10) == 0


def test_records_come_in_order_up_to_the_last_that_is_wanted(topic: str) -> None:
    write(topic, (b'{"id":1}', b'{"id":1}'), (b'{"id":1}', b"null"), (b'{"id":1}', None), (b'{"id":2}', b'{"id":2}'))
    records = read_topic(settings.kafka_bootstrap(), topic, lambda record: record.value is None)
    assert [record.number for record in records] == [0, 1, 2]
    assert [record.row for record in records] == [1, 1, 1]
    # The text null is a value, as Kafka sees it.
    assert [(record.value, record.payload) for record in records[1:]] == [(b"null", None), (None, None)]


def test_a_topic_that_appears_later_is_waited_for(topic: str) -> None:
    later = threading.Timer(0.5, write, (topic, (b'{"id":7}', b"1")))
    later.start()
    try:
        assert [record.row for record in read_topic(settings.kafka_bootstrap(), topic, lambda record: True)] == [7]
    finally:
        later.join()


def test_what_does_not_come_is_given_up(topic: str) -> None:
    write(topic, (b"{}", b"1"))
    with pytest.raises(ChangeStreamError, match=f"and 1 records of {topic}"):
        read_topic(settings.kafka_bootstrap(), topic, lambda record: False, limit=1.5)


@pytest.mark.parametrize(
    ("key", "value", "row", "payload"),
    [
        (b'{"schema":{},"payload":{"id":3}}', b'{"schema":{},"payload":{"id":3}}', 3, {"id": 3}),
        (b'{"order_id":3,"line_no":1}', b'{"payload":1}', (3, 1), {"payload": 1}),
        (None, b"[1]", (), [1]),
    ],
)
def test_keys_and_values_are_read_with_a_schema_and_without(key: Any, value: Any, row: Any, payload: Any) -> None:
    record = Record(0, key, value)
    assert (record.row, record.payload) == (row, payload)


def test_all_partitions_are_read_to_their_ends_with_headers(topic: str) -> None:
    assert read_partitions(topic) == [], "there is no such topic yet"
    send(topic, [(f'{{"id":{number}}}', b"1") for number in range(20)], partitions=3)
    records = read_partitions(topic)
    assert sorted(record.row for record in records) == list(range(20))
    assert {record.partition for record in records} == {0, 1, 2}
    for each in range(3):
        inside = [record for record in records if record.partition == each]
        assert [record.number for record in inside] == list(range(len(inside)))
        assert [record.row for record in inside] == sorted(record.row for record in inside)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    producer.produce(topic, key=None, value=None, headers={"why": b"because"})
    assert producer.flush(10) == 0
    assert [record.headers["why"] for record in read_partitions(topic) if record.headers] == [b"because"]


def test_records_that_come_later_are_waited_for_and_no_more_of_them(topic: str) -> None:
    later = threading.Timer(0.3, send, (topic, [("{}", b"1")] * 5))
    later.start()
    try:
        assert len(read_partitions(topic, done=lambda found: len(found) == 3)) == 3
    finally:
        later.join()
    with pytest.raises(ChangeStreamError, match=f"and 5 records of {topic}"):
        read_partitions(topic, done=lambda found: len(found) == 6, limit=1)


def test_what_was_taken_back_is_left_out_unless_asked_for(topic: str) -> None:
    send(topic, [("{}", b"1")])
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "transactional.id": topic, "log_level": 0})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"2")
    producer.flush(10)
    producer.abort_transaction(10)
    assert [record.value for record in read_partitions(topic)] == [b"1"]
    assert [record.value for record in read_partitions(topic, committed=False)] == [b"1", b"2"]
