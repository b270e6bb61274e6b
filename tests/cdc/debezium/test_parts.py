"""Positions, bookkeeping and the putting together of transactions, without a server."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import ChangeEvent, Operation, Transaction
from streamlab.cdc.debezium.bookkeeping import Bookkeeping
from streamlab.cdc.debezium.envelope import Mark
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.transactions import Assembler, single
from streamlab.cdc.event import NOTHING
from streamlab.errors import SettingsError

A, B, TX = ("a", 0), ("b", 0), ("tx", 0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OFFSETS = st.dictionaries(st.tuples(st.sampled_from(["a", "b.c", "d-1"]), st.integers(0, 3)), st.integers(0, 1 << 40))


@given(OFFSETS)
def test_a_position_is_read_back_from_its_text(offsets: dict[tuple[str, int], int]) -> None:
    position = KafkaPosition.of(offsets)
    assert KafkaPosition.parse(str(position)) == position
    assert pickle.loads(pickle.dumps(position)) == position  # noqa: S301 - our own
    assert position.offsets == offsets
    assert position <= position and not position < position


@given(OFFSETS, OFFSETS)
def test_positions_compare_where_both_have_an_offset(one: Any, other: Any) -> None:
    first, second = KafkaPosition.of(one), KafkaPosition.of(other)
    shared = one.keys() & other.keys()
    if shared:
        assert (first <= second) == all(one[each] <= other[each] for each in shared)
        assert (first < second) == (first <= second and any(one[each] < other[each] for each in shared))
    assert not (first < second and second < first)
    joined = first.join([second])
    assert first <= joined and second <= joined


def test_a_position_says_what_it_is_and_what_is_none() -> None:
    position = KafkaPosition.at("shop.orders", 2, 17)
    assert (position.topic, position.partition, position.offset, int(position)) == ("shop.orders", 2, 17, 17)
    assert f"{position:>20}" == "    shop.orders/2:17"
    assert "shop.orders/2:17" in position._repr_html_()
    with pytest.raises(AttributeError):
        _ = KafkaPosition.of({A: 1, B: 2}).offset
    for text in ("shop.orders", "a/b:1", "0/16B3748", "a/0:-1"):
        with pytest.raises(SettingsError, match="no position in Kafka"):
            KafkaPosition.parse(text)


def at(place: tuple[str, int], offset: int) -> KafkaPosition:
    return KafkaPosition.at(*place, offset)


class TestBookkeeping:
    def make(self) -> Bookkeeping:
        books = Bookkeeping()
        for place in (A, B):
            books.assigned(place, 0)
        return books

    def test_an_acknowledgement_takes_all_that_was_handed_out_before_it(self) -> None:
        books = self.make()
        for place, offset in ((A, 1), (B, 1), (A, 2), (B, 2)):
            books.hand_out(at(place, offset))
        assert books.acknowledge(at(A, 2))
        assert books.acknowledged == {A: 2, B: 1}
        assert books.acknowledge(at(A, 1))
        assert books.acknowledged == {A: 2, B: 1}, "an old one takes nothing with it"
        assert not books.acknowledge(at(B, 9))
        assert books.acknowledged == {A: 2, B: 2}

    def test_a_partition_that_went_away_cannot_be_acknowledged(self) -> None:
        books = self.make()
        for place, offset in ((A, 1), (B, 1)):
            books.hand_out(at(place, offset))
        books.revoked([A])
        books.acknowledge(KafkaPosition.of({A: 1, B: 1}))
        assert books.acknowledged == {B: 1}
        books.assigned(A, 0)
        assert books.acknowledged == {A: 0, B: 1}

    def test_what_is_nothing_to_a_reader_is_acknowledged_where_nothing_before_it_waits(self) -> None:
        books = self.make()
        books.passed({A: 3})
        assert books.acknowledged == {A: 3, B: 0}
        books.hand_out(at(A, 4))
        books.passed({A: 6})
        assert books.acknowledged[A] == 3
        books.acknowledge(at(A, 4))
        assert books.acknowledged[A] == 6

    @given(st.lists(st.tuples(st.sampled_from([A, B]), st.booleans()), max_size=30), st.data())
    def test_against_a_list(self, steps: list[tuple[tuple[str, int], bool]], data: st.DataObject) -> None:
        books, handed, done, next_ = self.make(), [], {A: 0, B: 0}, {A: 0, B: 0}
        for place, acknowledges in steps:
            next_[place] += 1
            end = at(place, next_[place])
            handed.append((place, next_[place]))
            books.hand_out(end)
            if acknowledges:
                index = data.draw(st.integers(0, len(handed) - 1))
                books.acknowledge(at(*handed[index]))
                for where, offset in handed[: index + 1]:
                    done[where] = max(done[where], offset)
            assert books.acknowledged == done
        assert books.rewind() == (done != next_)
        assert books.cursor == done


def event(number: int, place: tuple[str, int], offset: int) -> ChangeEvent:
    return ChangeEvent(
        Operation.INSERT, "s", place[0], NOTHING, {"id": number}, NOW, "x", at(place, offset), number
    )  # fmt: skip


class TestAssembler:
    def make(self) -> Assembler:
        return Assembler("tx", lambda table: table in {"s.a", "s.b"})

    def found(self, assembler: Assembler) -> list[Any]:
        return [
            [each.new_data["id"] for each in item] if isinstance(item, Transaction) else item
            for item in assembler.take()
        ]

    def row(self, assembler: Assembler, place: tuple[str, int], offset: int, order: int, xid: str = "1") -> None:
        assembler.add(*place, offset, event(order, place, offset), {"id": xid, "total_order": order})

    @given(st.permutations(["begin", "end", "a0", "a1", "b0"]))
    def test_whatever_comes_first_it_is_whole_and_in_order(self, order: list[str]) -> None:
        order = sorted(order, key=lambda each: ({"a1": 1}.get(each, 0) and order.index(each)) or order.index(each))
        assembler, found = self.make(), []
        if order.index("a0") > order.index("a1") or order.index("begin") > order.index("end"):
            return
        for each in order:
            if each == "begin":
                assembler.add("tx", 0, 0, Mark(True, "1", {}), None)
            elif each == "end":
                assembler.add("tx", 0, 2, Mark(False, "1", {"s.a": 2, "s.b": 1, "s.other": 9}), None)
            else:
                place, offset = (A, int(each[1])) if each[0] == "a" else (B, 0)
                self.row(assembler, place, offset, {"a0": 1, "b0": 2, "a1": 3}[each])
            found += list(assembler.take())
        (whole,) = [each for each in found if isinstance(each, Transaction)]
        assert [each.new_data["id"] for each in whole] == [1, 2, 3]
        assert whole.position == at(TX, 0)
        assert whole.end_position == KafkaPosition.of({A: 2, B: 1, TX: 3})
        assert {each.position for each in whole} == {whole.position}

    def test_rows_of_a_snapshot_stand_for_themselves_and_wait_for_what_is_before_them(self) -> None:
        assembler = self.make()
        assembler.add(*A, 0, event(0, A, 0), None)
        assembler.add("tx", 0, 0, Mark(True, "1", {}), None)
        self.row(assembler, A, 1, 1)
        assembler.add(*A, 2, event(7, A, 2), None)
        assembler.add(*A, 3, None, None)
        assert self.found(assembler) == [[0]]
        assembler.add("tx", 0, 1, Mark(False, "1", {"s.a": 1}), None)
        assert self.found(assembler) == [[1], [7], {A: 4}]

    def test_tombstones_between_deletions_do_not_stop_a_transaction(self) -> None:
        assembler = self.make()
        assembler.add("tx", 0, 0, Mark(True, "1", {}), None)
        assembler.add("tx", 0, 1, Mark(False, "1", {"s.a": 2}), None)
        self.row(assembler, A, 0, 1)
        assembler.add(*A, 1, None, None)
        assert self.found(assembler) == []
        self.row(assembler, A, 2, 2)
        assembler.add(*A, 3, None, None)
        whole, passed = assembler.take()
        assert isinstance(whole, Transaction)
        assert whole.end_position == KafkaPosition.of({A: 3, TX: 2})
        assert (len(whole), passed) == (2, {A: 4})

    def test_what_comes_again_of_a_transaction_is_passed_over(self) -> None:
        assembler = self.make()
        for offset in (0, 10):
            assembler.add("tx", 0, offset, Mark(True, "1", {}), None)
            self.row(assembler, A, offset, 1)
            if not offset:
                self.row(assembler, A, 1, 2)
            assembler.add("tx", 0, offset + 1, Mark(False, "1", {"s.a": 2}), None)
        assembler.add("tx", 0, 12, Mark(True, "2", {}), None)
        self.row(assembler, A, 11, 1, "2")
        assembler.add("tx", 0, 13, Mark(False, "2", {"s.a": 1}), None)
        found = [each for each in self.found(assembler) if isinstance(each, list)]
        assert found == [[1, 2], [1]]

    def test_a_transaction_of_other_tables_is_passed_and_one_that_lacks_changes_waits(self) -> None:
        assembler = self.make()
        assembler.add("tx", 0, 0, Mark(True, "1", {}), None)
        assembler.add("tx", 0, 1, Mark(False, "1", {"s.other": 5}), None)
        assert self.found(assembler) == [{TX: 2}]
        assembler.add("tx", 0, 2, Mark(True, "2", {}), None)
        assembler.add("tx", 0, 3, Mark(False, "2", {"s.a": 2}), None)
        self.row(assembler, A, 0, 1, "2")
        assert self.found(assembler) == []
        assert assembler.incomplete == ("2", 1, 1)
        self.row(assembler, A, 1, 2, "2")
        assert self.found(assembler) == [[1, 2]]
        assert assembler.incomplete is None


def test_a_single_change_is_the_same_as_the_dataclass_makes() -> None:
    change = event(1, A, 5)
    made = single(change, "a", 0, 5)
    assert made == Transaction(at(A, 5), at(A, 6), "x", NOW, (change,))
    assert repr(made) and hash(made.end_position) and bool(made)
