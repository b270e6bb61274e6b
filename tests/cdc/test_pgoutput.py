"""The decoder on messages that are built by hand: every kind, in the orders that the protocol allows and in others."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from cdc import encoder as pg
from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.pgoutput import Decoder

INT4, INT8, TEXT, BOOL, NUMERIC, TIMESTAMPTZ = 23, 20, 25, 16, 1700, 1184
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

ORDERS = pg.Table(
    16400,
    "shop",
    "orders",
    (("id", INT8), ("total", NUMERIC), ("placed_at", TIMESTAMPTZ), ("note", TEXT), ("paid", BOOL)),
    frozenset({"id"}),
)
PAIR = pg.Table(16500, "shop", "pair", (("a", INT4), ("b", TEXT)), frozenset({"a"}))
WHOLE = pg.Table(16600, "shop", "whole", (("a", INT4), ("b", TEXT)), frozenset({"a", "b"}), "f")


def whole(*changes: bytes, xid: int = 7, at: int = 100, time: datetime = TIME) -> list[bytes]:
    """One transaction of protocol 1."""
    return [pg.begin(xid, at, time), *changes, pg.commit(at, at + 8, time)]


def one(decoder: Decoder, *messages: bytes) -> Transaction:
    (transaction,) = decoder.receive(messages)
    return transaction


# -- whole transactions ---------------------------------------------------------------------------


def test_a_transaction_with_every_kind_of_change() -> None:
    transaction = one(
        Decoder(),
        ORDERS.relation(),
        *whole(
            ORDERS.insert(["1", "9.90", "2026-01-02 03:04:05.6+00", "näher", "t"]),
            ORDERS.update(["1", "NaN", None, pg.TOAST, "f"]),
            ORDERS.update(["2", "1", None, "x", "f"], key=["1", None, None, None, None]),
            ORDERS.delete(key=["2", None, None, None, None]),
            pg.truncate([16400]),
            pg.message("prefix", b"\0\xff", position=90),
        ),
    )
    inserted, updated, moved, deleted, truncated, message = transaction
    assert inserted == ChangeEvent(
        Operation.INSERT,
        "shop",
        "orders",
        {},
        {
            "id": 1,
            "total": Decimal("9.90"),
            "placed_at": datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC),
            "note": "näher",
            "paid": True,
        },
        TIME,
        "7",
        LSN(100),
        0,
        ("id",),
    )
    assert type(inserted) is ChangeEvent
    assert isinstance(inserted.position, LSN)
    assert updated.new_data["total"].is_nan()
    assert updated.new_data["note"] is UNCHANGED
    assert (updated.old_data, updated.new_data["placed_at"], updated.new_data["paid"]) == ({}, None, False)
    assert (moved.old_data, moved.new_data["id"], moved.operation) == ({"id": 1}, 2, Operation.UPDATE)
    assert (deleted.old_data, deleted.new_data, deleted.operation) == ({"id": 2}, {}, Operation.DELETE)
    assert (truncated.operation, truncated.table_name, truncated.primary_key) == (
        Operation.TRUNCATE,
        "orders",
        ("id",),
    )
    assert message.operation is Operation.MESSAGE
    assert message.new_data == {"prefix": "prefix", "content": b"\0\xff", "transactional": True}
    assert [each.ordinal for each in transaction] == list(range(6))
    assert {each.position for each in transaction} == {LSN(100)}
    assert (transaction.position, transaction.end_position) == (LSN(100), LSN(108))
    assert (transaction.transaction_id, transaction.commit_timestamp, transaction.origin) == ("7", TIME, "")


def test_transactions_come_when_their_commit_does_however_messages_are_portioned() -> None:
    messages = [
        PAIR.relation(),
        *whole(PAIR.insert(["1", "a"]), at=100),
        *whole(PAIR.insert(["2", "b"]), PAIR.insert(["3", "c"]), at=200),
    ]
    expected = [list(transaction) for transaction in Decoder().receive(messages)]
    assert [len(events) for events in expected] == [1, 2]
    decoder = Decoder()
    single = [list(transaction) for each in messages for transaction in decoder.receive([memoryview(each)])]
    assert single == expected


def test_in_transaction_between_begin_and_commit() -> None:
    decoder = Decoder()
    seen = []
    for message in [PAIR.relation(), *whole(PAIR.insert(["1", "a"]))]:
        decoder.receive([message])
        seen.append(decoder.in_transaction)
    assert seen == [False, True, True, False]
