"""Messages taken together: stretches of one partition, and batches of frames that are decoded in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamlab.cdc.debezium import gathered
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.gathered import Batches, Gathered, Worker
from streamlab.cdc.debezium.received import Stretch, stretches
from streamlab.errors import ProtocolError

from .records import dumps
from .test_cut import TYPES, frames, plain

PLACES = st.sampled_from([("a", 0), ("a", 1), ("b", 0), ("lost", 0)])
VALUES = st.sampled_from([b"x", b"yy", b"", None])


def message(place: tuple[str, int], offset: int, value: bytes | None, *, end: bool = False) -> Message[Any, Any]:
    error = KafkaError(KafkaError._PARTITION_EOF) if end else None
    return Message(topic=place[0], partition=place[1], offset=offset, key=b"k%d" % offset, value=value, error=error)


@given(st.lists(st.tuples(PLACES, VALUES, st.sampled_from([False] * 5 + [True]))))
def test_stretches_are_all_records_that_are_ours_in_order(found: list[Any]) -> None:
    messages = [message(place, offset, value, end=end) for offset, (place, value, end) in enumerate(found)]
    told: list[Any] = []

    def problem(error: KafkaError, one: Any) -> None:
        told.append(one.offset())

    for each in stretches(messages, {("a", 0), ("a", 1), ("b", 0)}, problem):
        assert each.values == [one.value() for one in each.messages]
        assert each.keys == [b"k%d" % one for one in each.offsets]
        assert each.size == sum(map(len, each.values))
        told += each.offsets
        assert each.end > max(each.offsets, default=-1)
    # Tombstones and records of others are passed; whatever else there is comes in its turn.
    assert told == [
        offset for offset, (place, value, end) in enumerate(found) if end or (value and place != ("lost", 0))
    ]  # fmt: skip


def test_a_tombstone_moves_the_end() -> None:
    (only,) = stretches([message(("a", 0), 5, b"x"), message(("a", 0), 6, None)], {("a", 0)}, lambda *_: None)
    assert (only.end, only.offsets) == (7, [5])
    (alone,) = stretches([message(("a", 0), 8, None)], {("a", 0)}, lambda *_: None)
    assert (alone.end, alone.offsets, alone.values) == (9, [], [])


def stretch(values: list[bytes], first: int) -> Stretch:
    messages = [
        Message(topic="t", partition=0, offset=first + number, key=b'{"id":1}', value=value)
        for number, value in enumerate(values)
    ]
    return Stretch(("t", 0), messages, first + len(values), values, list(range(first, first + len(values))))


@contextmanager
def working(maker: FrameMaker) -> Iterator[Worker]:
    worker = Worker(maker)
    try:
        yield worker
    finally:
        worker.stop()


@pytest.mark.parametrize("begun", [True, False])
def test_pieces_make_the_frames_that_all_together_make(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    monkeypatch.setattr(gathered, "_PIECE", 4)
    others = [plain(number) for number in range(20, 24)]
    for each in others:
        each["source"]["table"] = "others"
    values = [dumps(each) for each in [*(plain(number, "cUd"[number % 3]) for number in range(20)), *others]]
    maker = FrameMaker(Decoder(types=TYPES, replica_identity="full"), whole_before=True)
    with working(maker) as worker:
        batch = Gathered(worker)
        for first in range(0, len(values), 5):
            batch.add(stretch(values[first : first + 5], first))
        assert (batch.count, batch.ends) == (24, {("t", 0): 24})
        if begun:
            batch.begin()
            batch.wait(60)
            assert batch.done
        found = batch.frames()
    assert [(each.table_name, len(each)) for each in found] == [("orders", 20), ("others", 4)]
    assert found[0].data["position"].to_list() == list(range(20))
    for each, part in zip(found, (values[:20], values[20:]), strict=True):
        ((_, _, data),) = frames(part, cut=False, whole=True)
        assert_frame_equal(each.data.drop("position"), data.drop("position"))


def test_a_table_that_is_altered_between_pieces_has_two_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_PIECE", 2)
    types = {"orders": {**TYPES["orders"], "added": "int"}}
    wider = [plain(number) for number in range(2, 6)]
    for each in wider:
        each["after"]["added"] = 7
    values = [dumps(each) for each in (plain(0), plain(1), *wider)]
    with working(FrameMaker(Decoder(types=types), whole_before=False)) as worker:
        batch = Gathered(worker)
        for first in range(0, 6, 2):
            batch.add(stretch(values[first : first + 2], first))
        found = batch.frames()
    assert [len(each) for each in found] == [2, 4]
    assert "added" not in found[0].data.columns and found[1].data["added"].to_list() == [7] * 4


def test_what_is_wrong_in_a_piece_is_raised_where_frames_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_PIECE", 2)
    values = [dumps(plain(0)), dumps(plain(1))[:-1], dumps(plain(2)), dumps(plain(3))]
    with working(FrameMaker(Decoder(types=TYPES), whole_before=False)) as worker:
        batch = Gathered(worker)
        batch.add(stretch(values[:2], 0))
        batch.add(stretch(values[2:], 2))
        with pytest.raises(ProtocolError, match="t/0:1"):
            batch.frames()


def test_what_is_lost_is_told_of_both_batches_and_forgotten() -> None:
    batches = Batches(FrameMaker(Decoder(types=TYPES), whole_before=False))
    values = [dumps(plain(0))]
    batches.next.add(stretch(values, 0))
    full = batches.turn()
    batches.next.add(Stretch(("t", 1), [], 5, [], []))
    owned = {("t", 0): 0, ("t", 1): 0}
    assert batches.ends == {("t", 0): 1, ("t", 1): 5}
    assert not batches.lost(owned)
    assert all(batches.lost({place: 0}) for place in owned)
    batches.gone({("t", 2)})
    assert not batches.lost(owned)
    batches.gone({("t", 0)})
    assert batches.lost(owned), "it came back, and begins elsewhere"
    batches.clear()
    assert not batches.lost({}) and batches.ends == {} and batches.full is None
    assert [len(each) for each in full.frames()] == [1]
