"""Frames of a backlog: while one batch is decoded the next is gathered; nothing of it is lost, or told too early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from streamlab.cdc.debezium import DebeziumSource, KafkaPosition, gathered, topic_reader
from streamlab.cdc.debezium.consumer import Member
from streamlab.cdc.debezium.gathered import Worker
from streamlab.cdc.frames.batch import Frame, FrameBatch
from streamlab.errors import LogPurged, ProtocolError, StreamLost

from .conftest import LIMIT, Topic, wait

pytestmark = pytest.mark.integration

SIZE = 300
"""Records from which on a batch is full; at most a hundred are received at a time."""


class Gate:
    """Holds the thread that decodes the first batch until something has happened meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source: DebeziumSource | None = None
        self.until: Callable[[], bool] = lambda: True
        self.passed = threading.Event()
        self.most = 0
        monkeypatch.setattr(topic_reader, "_CHUNK", 100)
        monkeypatch.setattr(gathered, "_LEAST", 100)
        usual = Worker.frames

        def frames(worker: Worker, topic: str, records: Any) -> list[Frame]:
            if threading.current_thread().name.startswith("streamlab-cdc-frames") and not self.passed.is_set():
                wait(self.until, "the gate stays shut")
                self.passed.set()
            self.most = max(self.most, self.ahead)
            return usual(worker, topic, records)

        monkeypatch.setattr(Worker, "frames", frames)

    def for_(self, source: DebeziumSource, until: Callable[[], bool]) -> DebeziumSource:
        self.source, self.until = source, until
        return source

    @property
    def decoding(self) -> bool:
        batches = self.source._batches if self.source is not None else None
        return batches is not None and batches.full is not None

    @property
    def ahead(self) -> int:
        """Records that were gathered behind the batch that is decoded."""
        batches = self.source._batches if self.source is not None else None
        return 0 if batches is None else batches.next.count


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def ids(*batches: FrameBatch) -> list[int]:
    return [number for batch in batches for frame in batch for number in frame.data["id"].to_list()]


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("streamlab-cdc-frames")]


def test_the_next_batch_is_gathered_while_one_is_decoded_and_not_more(topic: Topic, gate: Gate) -> None:
    topic.send(*range(1500))
    with gate.for_(topic.reader(), lambda: gate.ahead >= SIZE) as source:
        found = []
        for batch in source.frames(max_rows=SIZE, until=source.written()):
            found.append(batch)
            source.acknowledge(batch)
        assert gate.passed.is_set()
        assert SIZE <= gate.most < SIZE + 100
        assert ids(*found) == list(range(1500))
        assert all(SIZE <= len(each) < SIZE + 100 for each in found[:-1])
        assert source.lag().size == 0
    assert topic.committed() == [1500]
    assert threads() == []


def test_an_error_ahead_is_raised_behind_the_batch_before_it(topic: Topic, gate: Gate) -> None:
    topic.send(*range(450))
    topic.raw(b'{"op": "c", "source": 7}')
    topic.send(*range(451, 700))
    with gate.for_(topic.reader(), lambda: gate.ahead >= 200) as source:
        for _ in range(2):
            batches = source.frames(max_rows=SIZE)
            first = next(batches)
            assert ids(first) == list(range(len(first)))
            with pytest.raises(ProtocolError, match=f"{topic.name}/0:450"):
                next(batches)
            assert threads() == []
        source.acknowledge(first)
        with pytest.raises(ProtocolError, match=f"{topic.name}/0:450"):
            next(source.frames(max_rows=SIZE))


def test_what_an_error_of_the_consumer_swallows_ahead_comes_again(
    topic: Topic, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.send(*range(1000))
    usual, failed = Member.drain, threading.Event()

    def drain(member: Member, limit: int, timeout: float) -> list[Any]:
        found = usual(member, limit, timeout)
        if found and gate.decoding and not failed.is_set():
            failed.set()
            raise StreamLost("The broker is away.", "Wait.")
        return found

    monkeypatch.setattr(Member, "drain", drain)
    with gate.for_(topic.reader(), failed.is_set) as source:
        batches = source.frames(max_rows=SIZE)
        first = next(batches)
        source.acknowledge(first)
        with pytest.raises(StreamLost, match="is away"):
            next(batches)
        rest = list(source.frames(max_rows=SIZE, until=source.written()))
        assert ids(first, *rest) == list(range(1000))


def test_a_topic_that_is_deleted_while_a_batch_is_decoded_is_an_error(topic: Topic, gate: Gate) -> None:
    topic.send(*range(450))
    deleted = threading.Event()

    def gone() -> bool:
        if not deleted.is_set():
            topic.delete()
            deleted.set()
        return source.partitions == ()

    with gate.for_(topic.reader(), gone) as source, pytest.raises(LogPurged, match="was deleted"):
        list(source.frames(max_rows=SIZE, idle=3))
    assert threads() == []


@pytest.mark.parametrize("acknowledged", [True, False])
def test_an_iteration_that_is_left_or_begun_anew_gives_what_was_gathered_ahead_again(
    topic: Topic, gate: Gate, acknowledged: bool
) -> None:
    topic.send(*range(1000))
    with gate.for_(topic.reader(), lambda: gate.ahead >= 200) as source:
        batches = source.frames(max_rows=SIZE)
        first = next(batches)
        assert ids(first) == list(range(len(first))) and gate.ahead >= 200 and threads()
        if acknowledged:
            source.acknowledge(first)
            batches.close()  # type: ignore[attr-defined]
            assert threads() == []
        begin = len(first) if acknowledged else 0
        again = source.frames(max_rows=SIZE)
        second = next(again)
        assert ids(second) == list(range(begin, begin + len(second)))
        # And as events.
        upto = source.written()
        found = [event.new_data["id"] for each in source.transactions(until=upto) for event in each]
        assert found == list(range(begin, 1000))
        assert threads() == []
        batches.close()  # type: ignore[attr-defined]
        again.close()  # type: ignore[attr-defined]
        assert ids(*source.frames(max_rows=SIZE, until=upto)) == list(range(begin, 1000))


def test_up_to_a_position_or_so_many_batches_no_more_is_gathered_than_that(topic: Topic, gate: Gate) -> None:
    topic.send(*range(450))
    with gate.for_(topic.reader(), lambda: gate.ahead >= 200) as source:
        upto = source.written()
        topic.send(*range(450, 1000))
        found = list(source.frames(max_rows=SIZE, until=upto))
        assert gate.passed.is_set()
        count = len(ids(*found))
        assert ids(*found) == list(range(count)) and 450 <= count < 550
        source.acknowledge(found[0])
        gate.passed.clear()
        gate.until = lambda: pytest.fail("a thread for the last batch")
        (only,) = source.frames(max_rows=SIZE, until=1)
        begin = len(found[0])
        assert ids(only) == list(range(begin, begin + len(only)))
        assert gate.ahead == 0 and not gate.passed.is_set()
        source.acknowledge(only)
        gate.passed.set()
        assert ids(*source.frames(max_rows=SIZE, until=source.written())) == list(range(begin + len(only), 1000))


def test_a_partition_that_goes_while_its_records_are_decoded_is_not_handed_out(
    make: Callable[..., Topic], gate: Gate
) -> None:
    topic = make(partitions=2)
    topic.create()
    for partition in range(2):
        topic.send(*range(1000 * partition, 1000 * partition + 500), partition=partition)
    one, other = topic.reader(), topic.reader()
    seen: list[int] = []
    other.add_handler(lambda event: seen.append(event.new_data["id"]))

    def shared() -> bool:
        if not other.running:
            other.start()
        return len(one.partitions) == 1

    gate.for_(one, shared)
    # More than one partition has: there are records of both in the first batch.
    found = list(one.frames(max_rows=600, idle=3))
    assert gate.passed.is_set()
    wait(lambda: len(seen) == 500, "the other reads its partition")
    other.stop()
    assert len(one.partitions) == 1
    assert sorted(ids(*found) + seen) == [*range(500), *range(1000, 1500)], "each once"
    assert {partition for each in found for frame in each for partition in frame.data["partition"]} == {
        number for _, number in one.partitions
    }  # fmt: skip


def test_paused_a_batch_that_is_decoded_waits(topic: Topic, gate: Gate) -> None:
    topic.send(*range(700))
    seen: list[FrameBatch] = []
    decoded = threading.Event()

    def pause() -> bool:
        source.pause()
        return decoded.set() is None

    with gate.for_(topic.reader(), pause) as source:

        def read() -> None:
            for batch in source.frames(max_rows=SIZE):
                seen.append(batch)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            assert decoded.wait(LIMIT)
            began = time.monotonic()
            while time.monotonic() < began + 1:
                assert seen == [] and thread.is_alive()
                time.sleep(0.05)
            source.resume()
            wait(lambda: ids(*seen) == list(range(700)), "all of it, once")
        finally:
            source.stop()
            thread.join(LIMIT)
        assert not thread.is_alive() and threads() == []


def test_stopped_meanwhile_it_ends_and_all_comes_again(topic: Topic, gate: Gate) -> None:
    topic.send(*range(700))

    def stop() -> bool:
        source.stop()
        return True

    with gate.for_(topic.reader(), stop) as source:
        assert list(source.frames(max_rows=SIZE)) == []
        assert source.received is None
        found = list(source.frames(max_rows=SIZE, until=source.written()))
        assert ids(*found) == list(range(700))
        assert found[-1].end_position == KafkaPosition.at(topic.name, 0, 700)
