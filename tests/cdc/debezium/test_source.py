"""`DebeziumSource` on real topics: groups, pauses, topics that come and go, records that cannot be read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from streamlab import settings
from streamlab.cdc import ChangeEvent, Operation, Transaction
from streamlab.cdc.debezium import DebeziumSource, KafkaPosition
from streamlab.dead_letters.memory import InMemoryDeadLetters
from streamlab.errors import CannotCapture, ChangeStreamError, LogPurged, ProtocolError, SettingsError, StreamLost

from .conftest import LIMIT, Captured, Table, Topic, wait
from .records import envelope, key_of, with_schema

pytestmark = pytest.mark.integration


def ids(*transactions: Transaction) -> list[int]:
    return [event.new_data["id"] for each in transactions for event in each]


# -- reading and acknowledging ---------------------------------------------------------------------------------------


def test_each_record_stands_for_itself_and_its_acknowledgement_is_a_committed_offset(topic: Topic) -> None:
    topic.send(1, 2, 3)
    with topic.reader() as source:
        first, second, third = source.transactions(until=3)
        assert [each.position for each in (first, second)] == [KafkaPosition.at(topic.name, 0, n) for n in (0, 1)]
        assert source.partitions == ((topic.name, 0),)
        assert topic.committed() == [-1001], "nothing is committed by itself"
        source.acknowledge(second)
        assert topic.committed() == [2]
        source.acknowledge(first)
        assert source.acknowledged == KafkaPosition.at(topic.name, 0, 2)
    assert topic.committed() == [2]
    with topic.reader() as source:
        assert list(source.transactions(until=1)) == [third]
    assert topic.committed() == [2]


def test_tombstones_are_passed_over_and_do_not_hold_the_group_back(topic: Topic) -> None:
    topic.send(1)
    topic.raw(None, key_of(1))
    topic.producer.flush()
    with topic.reader() as source:
        (only,) = source.transactions(until=source.written())
        source.acknowledge(only)
        assert list(source.transactions(until=source.written())) == []
        assert source.lag().size == 0
    assert topic.committed() == [2]


def test_latest_begins_at_the_end_and_a_reader_after_it_at_the_same_place(topic: Topic) -> None:
    topic.send(1)
    with topic.reader(start="latest") as source:
        assert list(source.transactions(idle=0.5)) == []
        topic.send(2)
        assert ids(*source.transactions(until=1)) == [2]
    with topic.reader(start="latest") as source:
        assert ids(*source.transactions(until=1)) == [2], "what came meanwhile is not skipped"


def test_a_sinks_own_position_goes_before_the_groups(topic: Topic) -> None:
    topic.send(1, 2, 3)
    with topic.reader() as source:
        first, second, third = source.transactions(until=3)
        source.acknowledge(third)
    with topic.reader(resume_after=str(first.end_position)) as source:
        assert ids(*source.transactions(until=2)) == [2, 3]
    assert list(second) != list(third)


def test_an_iteration_that_is_left_and_begun_again_misses_nothing(topic: Topic) -> None:
    topic.send(*range(5000))
    with topic.reader() as source:
        for count in (1, 3000, 10):
            assert ids(*source.transactions(until=count)) == list(range(count))
        assert ids(*source.transactions(until=source.written())) == list(range(5000))


def test_handlers_in_a_thread_and_what_they_handled_is_committed(topic: Topic) -> None:
    topic.send(1, 2, 3)
    seen: list[int] = []
    with topic.reader() as source:
        source.add_handler(lambda event: seen.append(event.new_data["id"]))
        source.start()
        wait(lambda: len(seen) == 3, "three changes")
        source.stop()
    assert topic.committed() == [3]


def test_a_change_that_cannot_be_handled_is_a_dead_letter_named_by_its_place(topic: Topic) -> None:
    topic.send(1, 2, 1, 3)
    letters, seen = InMemoryDeadLetters(), []

    def handle(event: Any) -> None:
        if event.new_data["id"] == 1:
            raise ValueError("one is bad")
        seen.append(event.new_data["id"])

    with topic.reader(dead_letters=letters) as source:
        source.add_handler(handle)
        source.start()
        wait(lambda: seen == [2, 3], "the others")
        source.stop()
    found = [(each.id.source, each.id.partition, each.id.position) for each in letters.letters(topic.group)]
    assert found == [(topic.name, 0, 0), (topic.name, 0, 2)]
    assert topic.committed() == [4]


# -- groups ----------------------------------------------------------------------------------------------------------


def test_two_members_share_the_partitions_and_nothing_is_lost_when_one_comes_and_goes(
    make: Callable[..., Topic],
) -> None:
    topic = make(partitions=4)
    topic.create()
    for partition in range(4):
        topic.send(*range(100 * partition, 100 * partition + 50), partition=partition)
    seen: list[list[int]] = [[], []]
    one, other = topic.reader(), topic.reader()
    for source, into in zip((one, other), seen, strict=True):
        source.add_handler(lambda event, into=into: into.append(event.new_data["id"]))  # type: ignore[misc]
    one.start()
    wait(lambda: len(seen[0]) == 200, "all of it")
    other.start()
    wait(lambda: len(other.partitions) == 2 and len(one.partitions) == 2, "two partitions each")
    assert not set(one.partitions) & set(other.partitions)
    for partition in range(4):
        topic.send(*range(100 * partition + 50, 100 * partition + 100), partition=partition)
    wait(lambda: len(seen[0]) + len(seen[1]) >= 400, "the second half")
    assert len(seen[1]) == 100
    other.stop()
    wait(lambda: len(one.partitions) == 4, "the rest is taken over")
    topic.send(1000, partition=0)
    wait(lambda: 1000 in seen[0] or 1000 in seen[1], "the last one")
    one.stop()
    assert sorted(seen[0] + seen[1]) == [*range(400), 1000], "each once: an orderly change repeats nothing"
    assert topic.committed() == [101, 100, 100, 100]


def test_what_is_in_flight_of_a_lost_partition_is_not_acknowledged(make: Callable[..., Topic]) -> None:
    topic = make(partitions=2)
    topic.create()
    topic.send(1, partition=0)
    topic.send(2, partition=1)
    one, other = topic.reader(), topic.reader()
    assert sorted(event.new_data["id"] for event in one.tail(2)) == [1, 2]
    reached, go = threading.Event(), threading.Event()

    def slow(event: ChangeEvent) -> None:
        reached.set()
        assert go.wait(LIMIT)

    other.add_handler(slow)
    other.start()
    deadline = time.monotonic() + LIMIT
    while not reached.is_set():
        assert time.monotonic() < deadline
        assert one.tail(1, limit=0.2) == []  # it goes on asking, and is told what it has no more
    (lost,), (kept,) = other.partitions, one.partitions
    one.acknowledge(KafkaPosition.of({lost: 1, kept: 1}))
    one.close()
    assert topic.committed()[lost[1]] == -1001, "it is the other's to acknowledge"
    assert topic.committed()[kept[1]] == 1
    go.set()
    wait(lambda: topic.committed()[lost[1]] == 1, "the other has acknowledged it")
    other.stop()


def test_a_position_ends_an_iteration_though_another_member_has_some_of_it(make: Callable[..., Topic]) -> None:
    topic = make(partitions=2)
    topic.create()
    topic.send(1, partition=0)
    topic.send(2, partition=1)
    one, other = topic.reader(), topic.reader()
    for source in (one, other):
        source.add_handler(lambda event: None)
        source.start()
    wait(lambda: len(one.partitions) == 1 and len(other.partitions) == 1, "one each")
    wait(lambda: sum(topic.committed()) == 2, "both are handled")
    one.stop()
    assert list(other.written()) == [(topic.name, 0, 1), (topic.name, 1, 1)]


def test_paused_it_hands_out_nothing_keeps_its_partitions_and_goes_on_without_loss(topic: Topic) -> None:
    topic.send(*range(10))
    seen: list[int] = []
    # Shorter than the pause: whoever does not poll would be thrown out.
    with topic.reader(options={"max.poll.interval.ms": 6000}) as source:
        source.add_handler(lambda event: seen.append(event.new_data["id"]))
        source.start()
        wait(lambda: len(seen) == 10, "the first ten")
        source.pause()
        assert source.paused
        topic.send(*range(10, 20))
        began = time.monotonic()
        while time.monotonic() < began + 7:
            assert source.partitions == ((topic.name, 0),)
            time.sleep(0.1)
        assert len(seen) == 10
        source.resume()
        wait(lambda: seen == list(range(20)), "the rest, once")


# -- topics that come and go, brokers, and what cannot be read ---------------------------------------------------------


def test_a_topic_that_appears_later_is_read_from_its_beginning(make: Callable[..., Topic]) -> None:
    topic = make()
    with topic.reader(start="latest") as source:
        assert list(source.transactions(idle=0.2)) == []
        topic.create()
        topic.send(1, 2)
        assert ids(*source.transactions(until=2)) == [1, 2]


def test_a_pattern_takes_in_topics_that_appear_later(make: Callable[..., Topic]) -> None:
    first, second = make("shop_one"), make("shop_two")
    first.create()
    first.send(1)
    pattern = f"^{first.name.removesuffix('one')}.*"
    with first.reader(topics=pattern) as source:
        assert ids(*source.transactions(until=1)) == [1]
        second.create()
        second.send(2)
        assert sorted(ids(*source.transactions(until=2))) == [1, 2]


def test_a_topic_that_is_deleted_under_its_reader_is_an_error(topic: Topic) -> None:
    topic.send(1)
    with topic.reader() as source:
        changes = source.transactions()
        assert ids(next(changes)) == [1]
        topic.delete()
        with pytest.raises(LogPurged, match="was deleted"):
            next(changes)


def test_records_that_retention_deleted_are_an_error_and_not_skipped(topic: Topic) -> None:
    topic.send(1, 2, 3)
    with topic.reader() as source:
        source.acknowledge(next(source.transactions()))
    (done,) = topic.admin.delete_records([TopicPartition(topic.name, 0, 2)]).values()
    done.result(LIMIT)
    with topic.reader() as source, pytest.raises(LogPurged, match=f"{topic.name}/0:1"):
        next(source.transactions())
    with topic.reader(resume_after=f"{topic.name}/0:2") as source:
        assert ids(*source.transactions(until=1)) == [3]


def test_a_bad_record_names_its_place_and_comes_again_until_it_is_passed_over(topic: Topic) -> None:
    topic.send(1)
    topic.raw(b'{"op": "c", "source": 7}')
    topic.send(2)
    with topic.reader() as source:
        for _ in range(2):
            changes = source.transactions()
            assert ids(next(changes)) == [1]
            with pytest.raises(ProtocolError, match=f"{topic.name}/0:1") as caught:
                next(changes)
        source.acknowledge(KafkaPosition.at(topic.name, 0, 1))
    over = caught.value.fix.partition("resume_after='")[2].partition("'")[0]
    with topic.reader(resume_after=over) as source:
        assert ids(*source.transactions(until=1)) == [2]


def test_json_without_schemas_is_refused_until_somebody_says_its_types(topic: Topic) -> None:
    topic.raw(json.dumps(envelope(1)).encode(), json.dumps({"id": 1}).encode())
    topic.producer.flush()
    with topic.reader() as source, pytest.raises(CannotCapture, match=r"decimal\.handling\.mode=string"):
        next(source.transactions())
    types = {"shop.orders": {"id": "int", "total": "decimal", "note": "text"}}
    with topic.reader(types=types) as source:
        (only,) = source.transactions(until=1)
    assert [(each.operation, str(each.new_data["total"]), each.key) for each in only] == [
        (Operation.INSERT, "1.50", (1,))
    ]


def test_records_of_a_transaction_that_was_aborted_are_not_seen(topic: Topic) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap(), "transactional.id": topic.group, "log_level": 0}
    )
    producer.init_transactions(LIMIT)
    for number, end in (
        (1, producer.commit_transaction),
        (2, producer.abort_transaction),
        (3, producer.commit_transaction),
    ):
        producer.begin_transaction()
        producer.produce(topic.name, with_schema(envelope(number)), key_of(number), 0)
        producer.flush()
        end(LIMIT)
    with topic.reader() as source:
        found = list(source.transactions(until=source.written()))
        assert ids(*found) == [1, 3]
        source.acknowledge(found[-1])
        assert list(source.transactions(until=source.written())) == []
        assert source.lag().size == 0, "marks of transactions take offsets, and are nothing to wait for"


def test_a_broker_that_is_not_there_and_wrong_arguments_are_said() -> None:
    with DebeziumSource("127.0.0.1:1", ["t"], "g") as source, pytest.raises(StreamLost, match="does not answer"):
        next(source.transactions())
    with pytest.raises(SettingsError, match="topics and a group"):
        DebeziumSource("127.0.0.1:1", [], "g")
    with pytest.raises(SettingsError, match="no start"):
        DebeziumSource("127.0.0.1:1", ["t"], "g", start="now")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no type 'money'"):
        DebeziumSource("127.0.0.1:1", ["t"], "g", types={"t": {"c": "money"}})


# -- transactions of the source ----------------------------------------------------------------------------------------


def test_a_transaction_over_two_tables_is_one_in_the_order_in_which_it_was_made(
    captured: Captured, table: Table
) -> None:
    other = captured.table()
    try:
        table.commit(
            "INSERT INTO {} VALUES (1, 'a', 1)", f"INSERT INTO {other.name} VALUES (1, 'b', 2)",
            "UPDATE {} SET note = 'c' WHERE id = 1", "DELETE FROM {}",
        )  # fmt: skip
        with table.reader(topics=[table.topic, other.topic]) as source:
            (whole,) = source.transactions(until=1)
            source.acknowledge(whole)
            assert list(source.transactions(until=source.written())) == []
        names = [(event.table_name, event.operation, event.ordinal) for event in whole]
        assert names == [
            (table.name, Operation.INSERT, 0), (other.name, Operation.INSERT, 1), (table.name, Operation.UPDATE, 2),
            (table.name, Operation.DELETE, 3),
        ]  # fmt: skip
        assert {event.position for event in whole} == {whole.position}
        assert whole.position.topic == captured.transactions  # type: ignore[attr-defined]
        # A reader of one of the topics gets its part of it, under the same numbers.
        with table.reader(topics=[table.topic], group=f"{table.group}-part") as source:
            (part,) = source.transactions(until=1)
        assert [event.ordinal for event in part] == [0, 2, 3]
        assert part.position == whole.position
    finally:
        other.close()


def test_a_transaction_that_stays_incomplete_is_an_error_that_says_so(captured: Captured, table: Table) -> None:
    table.commit("INSERT INTO {} VALUES (1, 'a', 1)", "INSERT INTO {} VALUES (2, 'b', 2)")
    # The reader begins behind the first change, and not behind the mark of its transaction.
    with table.reader(resume_after=f"{table.topic}/0:1", patience=3.0) as source:
        with pytest.raises(ChangeStreamError, match="1 changes have come, and 1 have not"):
            next(source.transactions())
