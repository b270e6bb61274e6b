"""Records of changes: topic, key, value, headers, and what becomes of deletes and changed keys. No server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.event import NOTHING
from streamlab.connect.source.records import Records, topics_below
from streamlab.errors import ChangeStreamError, SettingsError

AT = datetime(2026, 11, 24, 18, 0, 0, 250000, tzinfo=UTC)
INSERT, UPDATE, DELETE = Operation.INSERT, Operation.UPDATE, Operation.DELETE


def transaction(*changes: tuple[Operation, Any, Any], table: str = "orders", key: tuple[str, ...] = ("id",)) -> Any:
    events = tuple(
        ChangeEvent(operation, "shop", table, old, new, AT, "771", LSN(0x16B3748), ordinal, key)
        for ordinal, (operation, old, new) in enumerate(changes)
    )
    return Transaction(LSN(0x16B3748), LSN(0x16B3800), "771", AT, events)


def made(transaction: Transaction, after: int = -1, **options: Any) -> list[Any]:
    records = Records("warehouse", options.pop("route", topics_below("p")), **options)
    return list(records.of(transaction, after))


def test_an_insert_is_one_record() -> None:
    ((topic, value, key, headers, ordinal),) = made(transaction((INSERT, NOTHING, {"id": 7, "note": "ü"})))
    assert (topic, key, ordinal) == ("p.shop.orders", b'{"id":7}', 0)
    assert json.loads(value) == {
        "op": "c",
        "before": None,
        "after": {"id": 7, "note": "ü"},
        "source": {
            "connector": "warehouse", "schema": "shop", "table": "orders", "position": "0/16B3748",
            "transaction_id": "771", "ordinal": 0,
        },
        "ts": "2026-11-24T18:00:00.250000+00:00",
    }  # fmt: skip
    assert headers == [("op", b"c"), ("position", b"0/16B3748"), ("ordinal", b"0"), ("transaction_id", b"771")]


def test_headers_may_be_left_out() -> None:
    found = made(transaction((UPDATE, {"id": 1}, {"id": 2}), (DELETE, {"id": 2}, NOTHING)), headers=False)
    assert [headers for _, _, _, headers, _ in found] == [None] * 5


def test_a_key_has_all_its_columns_in_their_order() -> None:
    data = {"line": 2, "order_id": 'a"b', "note": "x"}
    ((_, _, key, _, _),) = made(transaction((INSERT, NOTHING, data), key=("order_id", "line")))
    assert key == b'{"order_id":"a\\"b","line":2}'


def test_a_change_without_a_key_has_none() -> None:
    ((_, _, key, _, _),) = made(transaction((INSERT, NOTHING, {"note": "x"}), key=()))
    assert key is None


def test_a_delete_is_followed_by_a_tombstone_unless_that_is_not_wanted() -> None:
    deleted = transaction((DELETE, {"id": 1}, NOTHING))
    (_, value, key, _, _), (_, nothing, again, headers, _) = made(deleted)
    assert json.loads(value)["before"] == {"id": 1}
    assert json.loads(value)["after"] is None
    assert (key, nothing, again) == (b'{"id":1}', None, b'{"id":1}')
    assert headers[0] == ("op", b"d")
    assert len(made(deleted, tombstones=False)) == 1


def test_a_changed_key_is_a_delete_of_the_old_one_and_an_update_of_the_new() -> None:
    found = made(transaction((UPDATE, {"id": 1}, {"id": 2, "note": "x"})))
    assert [(value and json.loads(value)["op"], key) for _, value, key, _, _ in found] == [
        ("d", b'{"id":1}'), (None, b'{"id":1}'), ("u", b'{"id":2}'),
    ]  # fmt: skip
    assert len(made(transaction((UPDATE, {"id": 2, "note": "y"}, {"id": 2, "note": "x"})))) == 1, "the same key"


def test_what_did_not_change_is_named_and_a_key_in_it_is_taken_from_the_old_row() -> None:
    ((_, value, key, _, _),) = made(transaction((UPDATE, {"id": "a"}, {"id": UNCHANGED, "note": "x"})))
    assert (json.loads(value)["after"], json.loads(value)["unchanged"], key) == ({"note": "x"}, ["id"], b'{"id":"a"}')
    with pytest.raises(ChangeStreamError, match="does not hold id"):
        made(transaction((UPDATE, NOTHING, {"id": UNCHANGED})))


def test_a_truncate_and_a_message_have_no_key() -> None:
    truncate = transaction((Operation.TRUNCATE, NOTHING, NOTHING))
    ((topic, value, key, _, _),) = made(truncate)
    assert (topic, json.loads(value)["op"], key) == ("p.shop.orders", "t", None)
    content = {"prefix": "hi", "content": b"\x00", "transactional": True}
    message = ChangeEvent(Operation.MESSAGE, "", "", NOTHING, content, AT, "771", LSN(1), 0)
    ((topic, value, key, _, _),) = made(Transaction(LSN(1), LSN(2), "771", AT, (message,)))
    assert (topic, key) == ("p.message", None)
    assert json.loads(value)["after"] == {"prefix": "hi", "content": "AA==", "transactional": True}


def test_tables_are_chosen_and_routed() -> None:
    insert = transaction((INSERT, NOTHING, {"id": 1}))
    assert made(insert, tables=["shop.o*"])
    assert not made(insert, tables=["shop.customers", "other.*"])
    assert not made(insert, route=lambda schema, table: None)
    assert made(insert, route=lambda schema, table: f"all-{schema}")[0][0] == "all-shop"
    met: list[str] = []
    made(transaction(*[(INSERT, NOTHING, {"id": 1})] * 2), met=met.append)
    assert met == ["p.shop.orders"], "once"


def test_two_tables_may_share_a_topic_on_purpose_and_not_by_accident() -> None:
    records = Records("c", topics_below("p"))
    assert records.topic("shop", "größe") == "p.shop.gr__e"
    with pytest.raises(SettingsError, match="no topic can have"):
        records.topic("shop", "grüße")
    together = Records("c", lambda schema, table: "all")
    assert together.topic("a", "b") == together.topic("a", "c") == "all"


def test_a_route_to_no_topic_is_refused() -> None:
    for wrong in ("", "..", "a b", "x" * 250):
        with pytest.raises(SettingsError, match="cannot be the name of a topic"):
            Records("c", lambda schema, table, wrong=wrong: wrong).topic("a", "b")


def test_what_is_covered_is_left_out() -> None:
    three = transaction(*[(INSERT, NOTHING, {"id": each}) for each in range(3)])
    assert [ordinal for *_, ordinal in made(three, after=0)] == [1, 2]
