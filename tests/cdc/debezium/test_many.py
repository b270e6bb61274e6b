"""Records that are read many at once say what each says alone; and so do the transactions that are made of them."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import Batch, ChangeEvent, Transaction
from streamlab.cdc.debezium import transactions
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.envelope import Decoded
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.transactions import Singles, single, singles
from streamlab.cdc.debezium.values import UNAVAILABLE
from streamlab.cdc.source import LateBatch
from streamlab.errors import ChangeStreamError

from .records import base64, dumps, key_of, schema_of
from .test_cut import CHANGES, FIELDS, ORDERS, TYPES, envelope, plain


def singly(decoder: Decoder, keys: list[bytes | None], values: list[bytes]) -> tuple[list[Decoded], str]:
    made: list[Decoded] = []
    try:
        for offset, (key, value) in enumerate(zip(keys, values, strict=True)):
            made.append(decoder.decode("t", KafkaPosition.at("t", 0, offset), key, value))
    except ChangeStreamError as error:
        return made, str(error)
    return made, ""


def together(decoder: Decoder, keys: list[bytes | None], values: list[bytes]) -> tuple[list[Decoded], str] | None:
    """None where it is not done; the first record is decoded before, for a form is known by a record alone."""
    singly(decoder, keys[:1], values[:1])
    made: list[Decoded] = []
    try:
        if not decoder.run("t", (KafkaPosition.at("t", 0, each) for each in range(len(keys))), keys, values, made):
            assert not made
            return None
    except ChangeStreamError as error:
        return made, str(error)
    return made, ""


def alike(keys: list[bytes | None], values: list[bytes], **options: Any) -> bool:
    """Whether it was done at once, with the same outcome."""
    found = together(Decoder(**options), keys, values)
    if found is None:
        return False
    wanted = singly(Decoder(**options), keys, values)
    assert found == wanted
    assert all(type(each) is ChangeEvent for each in found[0])
    return True


KEYS = st.sampled_from([b'{"id":1}', b'{"id":2}', b'{"id":1,"more":2}', b'{"id":":"}', b'{"id', key_of(1), None])


@given(CHANGES, st.sampled_from(["postgresql", "mysql"]), st.sampled_from(["full", "default"]), st.data())
def test_many_say_what_each_says(changes: list[Any], database: str, identity: Any, data: st.DataObject) -> None:
    payloads = [envelope(*each, database) for each in changes]
    same = [data.draw(KEYS)] * len(changes)
    others = [data.draw(KEYS) for _ in changes]
    for keys in (same, others):
        alike(keys, [dumps(each) for each in payloads], types=TYPES, replica_identity=identity)
        modes = {"decimal.handling.mode": "string", "time.precision.mode": "isostring"}
        alike(keys, [dumps(each) for each in payloads], configuration=modes, replica_identity=identity)
        schema = schema_of(FIELDS, database)
        alike(keys, [dumps({"schema": schema, "payload": each}) for each in payloads], replica_identity=identity)


@pytest.mark.parametrize("key", [b'{"id":1}', key_of(1)])
def test_the_usual_records_are_read_at_once(key: bytes) -> None:
    payloads = [plain(number, kind) for number, kind in enumerate("crUud")]
    assert alike([key] * 5, [dumps(each) for each in payloads], types=TYPES)
    schema = schema_of(FIELDS, "postgresql")
    assert alike([key] * 5, [dumps({"schema": schema, "payload": each}) for each in payloads])


def test_other_records_among_them_are_met_by_the_slow_way_in_their_turn() -> None:
    odd = plain(2)
    schema = schema_of(FIELDS, "postgresql")
    for other in (
        {**odd, "after": {**odd["after"], "note": UNAVAILABLE}},
        {**odd, "after": {**odd["after"], "note": {UNAVAILABLE: UNAVAILABLE}}},
        {**odd, "source": {**odd["source"], "table": "others", "txId": None}},
        {**odd, "source": {**odd["source"], "ts_us": None}}, {**odd, "op": "?"}, {**odd, "after": 5},
        {**odd, "after": {**odd["after"], "total": "no number"}}, {**odd, "after": {**odd["after"], "unknown": 1}},
        {**odd, "transaction": {"id": "1:2", "total_order": 3, "data_collection_order": 1}},
    ):  # fmt: skip
        values = [plain(0), plain(1), other, plain(3)]
        keys: list[bytes | None] = [b'{"id":1}'] * 4
        assert alike(keys, [dumps(each) for each in values], types=TYPES)
        assert alike(keys, [dumps({"schema": schema, "payload": each}) for each in values])
    whole = dumps(plain(2))
    for size in range(len(b'{"before":'), len(whole)):
        assert alike([b'{"id":1}'] * 3, [dumps(plain(0)), whole[:size], whole], types=TYPES)


def test_what_the_column_of_a_number_leaves_out_is_seen() -> None:
    fields = [{"type": "int64", "field": "id"}, {"type": "bytes", "field": "data"}]
    fields.append({"type": "array", "items": {"type": "int64"}, "field": "many"})
    rows = [
        {"id": 1, "data": base64(5), "many": [1]}, {"id": 2, "data": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
        "many": list(UNAVAILABLE.encode())},
    ]  # fmt: skip
    values = [
        dumps({"schema": schema_of(fields, "postgresql"), "payload": {**plain(each["id"]), "after": each}})
        for each in rows
    ]
    assert alike([key_of(1)] * 2, values)


def test_transactions_of_one_change_are_those_that_are_made_one_by_one() -> None:
    values = [dumps(plain(each)) for each in range(5)]
    made, _ = singly(Decoder(types=TYPES), [b'{"id":1}'] * 5, values)
    events = [each for each in made if isinstance(each, ChangeEvent)]
    found = singles(events, "t", 3, [7, 8, 10, 11, 12])
    wanted = [single(event, "t", 3, offset) for event, offset in zip(events, [7, 8, 10, 11, 12], strict=True)]
    assert found == wanted
    assert [each.changes for each in found] == [(each,) for each in events]
    assert all(type(each.end_position) is KafkaPosition for each in found)
    assert all(one.end_position < other.end_position for one, other in pairwise(found))
    assert singles([], "t", 3, []) == []
    assert set(ORDERS) == set(events[0].new_data)


STEPS = st.lists(st.integers(0, 5), max_size=12)


@given(st.integers(1, 9), STEPS)
def test_changes_of_a_partition_are_taken_one_by_one_or_some_at_once(count: int, steps: list[int]) -> None:
    values = [dumps(plain(each)) for each in range(count)]
    made, _ = singly(Decoder(types=TYPES), [b'{"id":1}'] * count, values)
    events = [each for each in made if isinstance(each, ChangeEvent)]
    wanted = singles(events, "t", 3, range(7, 7 + count))
    run = Singles(events, ("t", 3), range(7, 7 + count))
    found: list[Transaction] = []
    for step in steps:  # 0 takes one
        left = len(run)
        assert left == count - len(found)
        assert list(run.transactions()) == wanted[len(found) :] and list(run) == events[len(found) :]
        if not left:
            break
        assert run.end_position == wanted[-1].end_position
        if step:
            some = run.some(step)
            assert some.end_position == wanted[len(found) + len(some) - 1].end_position
            found += some.transactions()
            run.drop(len(some))
        else:
            found.append(run.first())
            run.drop(1)
    assert found == wanted[: len(found)]


def test_a_batch_makes_its_transactions_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [dumps(plain(each)) for each in range(5)]
    made, _ = singly(Decoder(types=TYPES), [b'{"id":1}'] * 5, values)
    events = [each for each in made if isinstance(each, ChangeEvent)]
    first, *rest = singles(events, "t", 0, range(5))
    late = LateBatch([first, Singles(events[1:3], ("t", 0), [1, 2]), Singles(events[3:], ("t", 0), [3, 4])])
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "singles", lambda *_: pytest.fail("made too early"))
        assert list(late) == list(late) == events and len(late) == 5
        assert late.end_position == KafkaPosition.at("t", 0, 5)
    assert late.transactions == (first, *rest)
    assert late.transactions is late.transactions
    whole = Batch((first, *rest))
    assert late == whole and whole == late
    assert late != Batch((first,)) and late != 5
    assert repr(whole.transactions) in repr(late)
    for again in (copy.copy(late), pickle.loads(pickle.dumps(late))):  # noqa: S301 - made here
        assert again == whole and isinstance(again, Batch)
    with pytest.raises(AttributeError):
        late.transactions = ()  # type: ignore[misc]
