"""The ledger's rows, and what it finds when tables differ from them."""

from __future__ import annotations

from streamlab.workload import MIXES, TABLES, Ledger, Parameters, Planner
from streamlab.workload.tables import Row


def filled() -> Ledger:
    planner, ledger = Planner(Parameters(customers=5, products=4)), Ledger()
    ledger.record(planner.opening())
    for _ in range(60):
        ledger.record(planner.plan(MIXES["balanced"], 3))
    return ledger


def tables(ledger: Ledger) -> dict[str, list[Row]]:
    return {name: list(ledger.rows(name).values()) for name in TABLES}


def test_equal_tables_do_not_differ() -> None:
    ledger = filled()
    assert ledger.compare(tables(ledger)) == ()


def test_lost_extra_and_different_rows_are_told_apart() -> None:
    ledger = filled()
    actual = tables(ledger)
    lost = actual["orders"].pop(3)
    actual["orders"].append((10**9, *lost[1:]))
    actual["orders"].append(actual["orders"][0])  # twice
    changed = actual["orders"][5]
    actual["orders"][5] = (*changed[:-1], None)
    (difference,) = ledger.compare(actual)
    assert difference.table == "orders"
    assert difference.lost == (lost[:1],)
    assert difference.extra == ((10**9,), actual["orders"][0][:1])
    assert difference.different == (changed[:1],)
    assert str(difference) == "orders: 1 lost, 2 extra, 1 different"


def test_operations_come_in_order_with_their_transaction() -> None:
    ledger = filled()
    numbers = [number for number, _ in ledger.operations()]
    assert numbers == sorted(numbers)
    assert len(numbers) == ledger.changes
    assert set(numbers) == set(range(1, len(ledger) + 1))


def test_a_transaction_that_is_given_again_counts_once() -> None:
    ledger = filled()
    before, length = tables(ledger), len(ledger)
    ledger.record(ledger.transactions[-1])
    assert (tables(ledger), len(ledger)) == (before, length)


def test_a_copy_of_the_rows_stays_as_it_was() -> None:
    planner, ledger = Planner(Parameters(customers=5, products=4)), Ledger()
    ledger.record(planner.opening())
    copy = ledger.rows("orders")
    ledger.record(planner.plan(MIXES["inserts"]))
    assert (len(copy), len(ledger.rows("orders"))) == (0, 1)
