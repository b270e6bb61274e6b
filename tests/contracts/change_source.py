"""The contract of `ChangeSource`. A reader is tested by a subclass that says how to change a row, and how to read::

    class TestMine(ChangeSourceContract):
        @contextmanager
        def worlds(self):
            yield MyWorld()

A world is a real server with one table that has an integer key `id`, and readers of it that share one place in the log.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from streamlab.cdc import Batch, ChangeSource, Operation, Position, Transaction


class World(ABC):
    @abstractmethod
    def insert(self, *ids: int) -> None:
        """Insert rows, all in one transaction."""

    @abstractmethod
    def reader(self) -> ChangeSource:
        """A reader that goes on where the last one of this world ended."""


def ids(*transactions: Transaction | Batch) -> list[int]:
    return [event.new_data["id"] for transaction in transactions for event in transaction]


class ChangeSourceContract(ABC):
    @abstractmethod
    def worlds(self) -> AbstractContextManager[World]:
        """A world for one test."""

    @pytest.fixture
    def world(self, stack: object) -> Iterator[World]:
        with self.worlds() as world:
            yield world

    def test_transactions_are_whole_in_order_and_keyed(self, world: World) -> None:
        with world.reader() as source:
            for number in range(5):
                world.insert(10 * number, 10 * number + 1)
            transactions = list(source.transactions(until=5))
        assert ids(*transactions) == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
        assert [len(each) for each in transactions] == [2] * 5
        keys = [(event.position, event.ordinal) for each in transactions for event in each]
        assert keys == sorted(set(keys))
        for each in transactions:
            assert {event.position for event in each} == {each.position}
            assert [event.ordinal for event in each] == [0, 1]
            assert all(event.operation is Operation.INSERT for event in each)
            assert all(event.primary_key == ("id",) for event in each)
            assert each.commit_timestamp.tzinfo is not None
            assert ids(each) == ids(each), "it can be iterated again"

    def test_positions_are_ordered_printable_and_hashable(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            world.insert(2)
            first, second = source.transactions(until=2)
        assert isinstance(first.position, Position)
        assert first.position < first.end_position <= second.position
        assert str(first.position) != str(second.position)
        assert len({first.position, second.position, first.position}) == 2

    def test_what_was_not_acknowledged_comes_again_keyed_alike(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            world.insert(2)
            first, second = source.transactions(until=2)
            source.acknowledge(first)
        with world.reader() as source:
            (again,) = source.transactions(until=1)
        assert (again.position, again.end_position) == (second.position, second.end_position)
        assert list(again) == list(second)

    def test_what_was_acknowledged_is_past(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            (first,) = source.transactions(until=1)
            source.acknowledge(first)
            assert source.acknowledged is not None
            assert not source.acknowledged < first.end_position
        with world.reader() as source:
            assert list(source.transactions(idle=0.5)) == []
            world.insert(2)
            assert ids(*source.transactions(until=1)) == [2]

    def test_a_new_iteration_begins_after_the_last_acknowledgement(self, world: World) -> None:
        with world.reader() as source:
            for number in range(4):
                world.insert(number)
            for transaction in source.transactions(until=3):
                if ids(transaction) == [0]:
                    source.acknowledge(transaction)
            assert ids(*source.transactions(until=3)) == [1, 2, 3]

    def test_an_acknowledgement_is_monotonic(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            world.insert(2)
            first, second = source.transactions(until=2)
            source.acknowledge(second)
            source.acknowledge(first.end_position)
            source.acknowledge(first)
        with world.reader() as source:
            assert list(source.transactions(idle=0.5)) == []

    def test_received_is_what_was_handed_out(self, world: World) -> None:
        with world.reader() as source:
            assert source.received is None
            world.insert(1)
            world.insert(2)
            transactions = source.transactions()
            assert source.received is None, "asking for the iterator reads nothing yet"
            first = next(transactions)
            assert source.received == first.end_position

    def test_batches_hold_whole_transactions(self, world: World) -> None:
        with world.reader() as source:
            for number in range(4):
                world.insert(10 * number, 10 * number + 1, 10 * number + 2)
            batches = source.batches(max_rows=4, max_wait=5)
            first, second = next(batches), next(batches)
            assert [len(first), len(second)] == [6, 6]
            assert ids(first, second) == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]
            source.acknowledge(first)
            assert ids(next(source.batches(max_rows=1))) == [20, 21, 22]

    def test_a_batch_does_not_wait_for_ever(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            assert ids(next(source.batches(max_rows=1000, max_wait=0.05))) == [1]

    def test_until_a_position_ends_with_what_ends_there(self, world: World) -> None:
        with world.reader() as source:
            for number in range(4):
                world.insert(number)
            transactions = list(source.transactions(until=4))
            upto = transactions[1].end_position
            assert ids(*source.transactions(until=upto)) == [0, 1]
            assert ids(*source.batches(max_rows=1, until=upto)) == [0, 1]
            assert ids(*source.batches(max_rows=100, until=upto)) == [0, 1]
            assert [ids(each) for each in source.batches(max_rows=1, until=3)] == [[0], [1], [2]]

    def test_until_what_is_written_ends_by_itself(self, world: World) -> None:
        with world.reader() as source:
            assert list(source.transactions(until=source.written())) == []
            for number in range(3):
                world.insert(number)
            transactions = list(source.transactions(until=source.written()))
            assert ids(*transactions) == [0, 1, 2]
            source.acknowledge(transactions[-1])
            assert list(source.transactions(until=source.written())) == []
            world.insert(7)
            assert ids(*source.batches(until=source.written())) == [7]

    def test_idle_ends_the_iteration(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            assert ids(*source.transactions(idle=0.5)) == [1]

    def test_stop_from_another_thread_ends_the_iteration_and_the_source_can_be_used_again(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1)
            stopper = threading.Timer(0.05, source.stop)
            seen = []
            for transaction in source.transactions():
                seen.append(transaction)
                stopper.start()
            stopper.join()
            assert ids(*seen) == [1]
            assert ids(*source.transactions(until=1)) == [1]

    def test_close_can_be_repeated(self, world: World) -> None:
        source = world.reader()
        world.insert(1)
        assert ids(*source.transactions(until=1)) == [1]
        source.close()
        source.close()
        assert source.name in repr(source)

    def test_lag_grows_with_what_is_not_acknowledged(self, world: World) -> None:
        with world.reader() as source:
            world.insert(*range(2000))
            (transaction,) = source.transactions(until=1)
            before = source.lag()
            source.acknowledge(transaction)
            after = source.lag()
        assert before.size is not None
        assert after.size is not None
        assert after.size < before.size
        assert before.seconds is not None
        assert before.seconds >= 0
