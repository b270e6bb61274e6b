"""The shop on both real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamlab.errors import NotOurs, StreamlabError
from streamlab.workload import MIXES, TABLES, Action, Shop, Verb, throughput

pytestmark = pytest.mark.integration

Make = Callable[..., Shop]


def test_tables_are_what_the_ledger_says_after_a_mixed_run(shops: Make) -> None:
    shop = shops()
    done = shop.run(150)
    big = shop.run(rows=1500, size=300)
    assert done.transactions == 150
    assert big.rows >= 1500
    assert shop.compare() == ()
    verbs = {operation.verb for _, operation in shop.ledger.operations()}
    assert verbs == set(Verb)
    assert {action for each in shop.ledger.transactions for action in each.actions} >= set(MIXES["orders"].actions())
    assert all(shop.ledger.rows(name) for name in TABLES)


def test_a_change_behind_its_back_is_found(shops: Make, place: Any) -> None:
    shop = shops()
    shop.run(20, mix="inserts")
    place.ask("UPDATE orders SET note = 'changed' WHERE id = 2")
    place.ask("DELETE FROM order_items WHERE order_id = 3")
    orders, items = shop.compare()
    assert (orders.table, orders.different, orders.lost, orders.extra) == ("orders", ((2,),), (), ())
    assert items.table == "order_items"
    assert {key[0] for key in items.lost} == {3}


def test_equal_calls_are_equal_transactions_on_the_server_and_off_it(shops: Make) -> None:
    from streamlab.workload import Parameters, Planner

    shop = shops(seed=11)
    shop.run(30)
    planner = Planner(Parameters(seed=11, customers=20, products=8))
    planned = [planner.opening(), *(planner.plan(MIXES["balanced"]) for _ in range(30))]
    assert list(shop.ledger.transactions) == planned


def test_an_order_left_open_is_seen_when_it_is_committed(shops: Make, place: Any) -> None:
    shop = shops()
    slow = shop.begin_order()
    fast = shop.order()
    assert slow.order.at < fast.at
    assert [row[0] for row in place.ask("SELECT id FROM orders ORDER BY id")] == [fast.id]
    shop.run(60, size=5)  # nothing waits for what the open order has locked
    order = slow.commit()
    assert place.ask(f"SELECT count(*) FROM orders WHERE id = {order.id}")[0][0] == 1
    assert shop.compare() == ()
    numbers = [each.number for each in shop.ledger.transactions]
    assert numbers[-1] == slow.order.transaction.number
    with pytest.raises(StreamlabError, match="no transaction to commit"):
        slow.commit()


def test_an_order_that_is_rolled_back_never_was(shops: Make) -> None:
    shop = shops()
    with pytest.raises(ZeroDivisionError), shop.begin_order() as opened:
        raise ZeroDivisionError
    assert not opened.is_open
    opened.rollback()
    after = shop.order()
    assert after.id == opened.order.id + 1  # its key is not given out again
    assert shop.compare() == ()


def test_open_orders_end_with_the_shop(shops: Make, place: Any) -> None:
    shop = shops()
    opened = [shop.begin_order() for _ in range(3)]
    shop.close()
    assert not any(each.is_open for each in opened)
    assert place.ask("SELECT count(*) FROM orders")[0][0] == 0


def test_it_runs_beside_the_caller(shops: Make) -> None:
    shop = shops()
    with shop.running(rate=2000, size=5) as running:
        for _ in range(10):
            shop.order()
        with shop.begin_order() as opened:
            opened.commit()
    assert not running.alive
    assert shop.compare() == ()
    assert len(shop.ledger) == running.throughput().transactions + 12


def test_an_error_in_the_thread_reaches_the_caller(shops: Make, place: Any) -> None:
    shop = shops()
    deadline = time.monotonic() + 60
    with pytest.raises(Exception, match="order_items"), shop.running(mix="inserts") as running:
        place.ask("ALTER TABLE order_items RENAME TO elsewhere")
        while running.alive and time.monotonic() < deadline:
            time.sleep(0.005)


@pytest.mark.parametrize("what", ["create", "drop"])
def test_a_table_that_is_not_the_shops_is_left_alone(place: Any, what: str) -> None:
    with Shop(place.target, customers=1, products=1) as shop:
        shop.target.prepare()
        place.ask("CREATE TABLE orders (mine int)")
        with pytest.raises(NotOurs, match="orders"):
            getattr(shop, what)()
    assert place.ask("SELECT mine FROM orders") == []


def test_a_shop_is_opened_once_and_only_where_none_is(shops: Make, place: Any) -> None:
    shop = shops()
    with pytest.raises(StreamlabError, match="open already"):
        shop.create()
    with Shop(place.target) as second:
        with pytest.raises(StreamlabError, match="not open yet"):
            second.order()
        with pytest.raises(StreamlabError, match="holds a shop already"):
            second.create()
        second.drop()
        second.create()
        assert second.compare() == ()


def test_a_place_that_is_not_there_is_said(place: Any) -> None:
    with pytest.raises(StreamlabError, match=place.name):
        place.target.open()


def test_columns_are_of_the_types_that_they_are_for(shops: Make, place: Any) -> None:
    shop = shops()
    shop.order()
    where = f"table_schema = '{place.name}'"
    types = {
        (str(row[0]), str(row[1])): str(row[2])
        for row in place.ask(
            f"SELECT table_name, column_name, {'udt_name' if place.server == 'postgres' else 'column_type'} "
            f"FROM information_schema.columns WHERE {where}"
        )
    }
    found = {
        what: types[what]
        for what in (
            ("orders", "total"), ("orders", "created_at"), ("orders", "details"),
            ("orders", "status"), ("products", "tags"), ("products", "photo"),
        )
    }  # fmt: skip
    expected = {
        "postgres": ["numeric", "timestamptz", "jsonb", "order_status", "_text", "text"],
        "mysql": [
            "decimal(12,2)", "timestamp(6)", "json",
            "enum('placed','paid','shipped','delivered','cancelled')", "json", "mediumtext",
        ],
    }  # fmt: skip
    assert list(found.values()) == expected[place.server]


def test_photos_are_stored_out_of_line(shops: Make, place: Any) -> None:
    if place.server != "postgres":
        pytest.skip("TOAST is PostgreSQL's")
    shop = shops()
    photos = place.ask("SELECT length(photo), pg_column_size(photo) FROM products")
    assert all(stored >= length > 3000 for length, stored in photos)  # it does not compress
    ((relation,),) = place.ask("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'products'::regclass")
    assert place.ask(f"SELECT count(DISTINCT chunk_id) FROM {relation}", "admin") == [(len(photos),)]
    ((main,),) = place.ask("SELECT pg_relation_size('products')")
    assert main < sum(length for length, _ in photos)
    shop.run(5, mix={"reprice_product": 1})
    assert place.ask(f"SELECT count(DISTINCT chunk_id) FROM {relation}", "admin") == [(len(photos),)]


def test_the_driver_gives_back_what_was_written(shops: Make, place: Any) -> None:
    shop = shops(products=40, customers=40)
    shop.run(rows=600, size=200, mix="inserts")
    notes = {row[6] for row in shop.ledger.rows("orders").values()}
    assert any(note and "\\" in note for note in notes)
    assert any(note == "" for note in notes) and None in notes
    session = place.target.open()
    try:
        rows = session.rows(TABLES)
    finally:
        session.close()
    order = TABLES["orders"].as_dict(rows["orders"][0])
    assert isinstance(order["total"], Decimal)
    assert order["created_at"].utcoffset() == timedelta(0)  # type: ignore[union-attr]
    assert isinstance(order["details"], dict)
    assert {type(row[6]) for row in rows["products"]} == {list}
    assert shop.compare() == ()


def test_the_benchmark_measures_what_it_committed_and_drops_it(place: Any) -> None:
    measured = throughput(place.target, rows=2000, size=500, mix="balanced")
    assert measured.rows >= 2000
    assert measured.rows_per_second == measured.rows / measured.seconds > 0
    session = place.target.open()
    assert not session.taken()
    session.close()


def test_a_rate_is_kept_by_the_real_loop(shops: Make) -> None:
    """Never faster than asked; how much slower is the machine's affair."""
    done = shops().run(30, mix={Action.REPRICE_PRODUCT: 1}, rate=200, per="transactions")
    assert done.transactions == 30
    assert done.seconds >= 29 / 200
