"""Transactions put together from several topics, without a server."""

from __future__ import annotations

from datetime import UTC, datetime

from streamlab.cdc.debezium.envelope import Mark
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.transactions import Assembler
from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.cdc.transaction import Transaction

MARKS = "shop.transaction"


def deletion(table: str, number: int, order: int) -> ChangeEvent:
    return ChangeEvent(
        Operation.DELETE, "shop", table, {"id": number}, {}, datetime.now(UTC), "gtid:7", KafkaPosition(), order
    )


def test_tombstones_between_the_deletions_of_a_transaction_do_not_hold_it_back() -> None:
    assembler = Assembler(MARKS, lambda table: True)
    assembler.add(MARKS, 0, 0, Mark(True, "gtid:7", {}), None)
    assembler.add(MARKS, 0, 1, Mark(False, "gtid:7", {"shop.items": 2, "shop.orders": 1}), None)
    # As Debezium writes them: a tombstone behind each, which names no transaction. Items go first, as children.
    for number in (0, 1):
        block = {"id": "gtid:7", "total_order": number + 1}
        assembler.add("shop.items", 0, 2 * number, deletion("items", number, number), block)
        assembler.add("shop.items", 0, 2 * number + 1, None, None)
    assembler.add("shop.orders", 0, 0, deletion("orders", 5, 2), {"id": "gtid:7", "total_order": 3})
    assembler.add("shop.orders", 0, 1, None, None)
    whole, *passed = assembler.take()
    assert isinstance(whole, Transaction)
    assert [change.table_name for change in whole] == ["items", "items", "orders"]
    # Whether the last tombstones have come yet or not, the transaction ends at the same place.
    assert whole.end_position == KafkaPosition.of({("shop.items", 0): 3, ("shop.orders", 0): 1, (MARKS, 0): 2})
    assert passed == [{("shop.items", 0): 4}, {("shop.orders", 0): 2}]
