"""Counts of changes: what is counted where and when, and that the picture says the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from lab.test_diagram import check_markup

from streamlab.cdc import LSN, ChangeEvent, Operation, Transaction
from streamlab.lab.activity import Activity

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def committed(seconds: float, *changes: tuple[Operation, str]) -> Transaction:
    at = BEGIN + timedelta(seconds=seconds)
    events = tuple(
        ChangeEvent(operation, "shop", name, {}, {}, at, "7", LSN(100), ordinal)
        for ordinal, (operation, name) in enumerate(changes)
    )
    return Transaction(LSN(100), LSN(108), "7", at, events)


def counted(*transactions: Transaction, **options: float) -> Activity:
    activity = Activity(bucket=0.5, keep=3)
    activity.begin(BEGIN)
    activity.seconds = options.get("seconds", 2.0)
    for transaction in transactions:
        activity.add(transaction, transaction)
    return activity


INSERT, DELETE = (Operation.INSERT, "orders"), (Operation.DELETE, "items")


def test_changes_are_counted_by_table_kind_and_time() -> None:
    activity = counted(committed(0.1, INSERT, INSERT, DELETE), committed(0.49, INSERT), committed(1.6, DELETE))
    assert (activity.changes, activity.transactions) == (5, 3)
    assert activity.tables() == ["shop.orders", "shop.items"]
    assert activity.count("shop.orders") == activity.count("shop.orders", Operation.INSERT) == 3
    assert activity.count("shop.items", Operation.INSERT) == activity.count("shop.none") == 0
    # Per second, half a second each.
    assert activity.rates("shop.orders") == [6, 0, 0, 0]
    assert activity.rates("shop.items") == [2, 0, 0, 2]
    assert [event.table_name for event in activity.last] == ["items", "orders", "items"]
    text = activity.rendered().text
    assert text.splitlines()[0] == "5 changes in 3 transactions in 2.0 s"
    assert "shop.orders        3        0        0          0        3        1.5" in text


def test_what_was_committed_before_by_another_clock_is_counted_first() -> None:
    activity = counted(committed(-30, INSERT), committed(30, INSERT))
    assert len(activity.rates("shop.orders")) == 61
    assert sum(activity.rates("shop.orders")) * 0.5 == 2
    assert activity.rates("shop.orders")[0] == 2


def test_no_more_than_the_limit_is_looked_at() -> None:
    activity = Activity()

    def events() -> Iterator[ChangeEvent]:
        yield from committed(0, INSERT, INSERT)
        raise AssertionError("looked at more")

    activity.add(committed(0), events(), limit=2)
    assert (activity.changes, activity.transactions) == (2, 1)
    activity.add(committed(0), [])
    assert activity.transactions == 1


@pytest.mark.parametrize("tables", [0, 1, 12])
def test_the_picture_has_every_table_or_says_how_many_more(tables: int) -> None:
    changes = [(Operation.INSERT, f"table{number:02}") for number in range(tables) for _ in range(number + 1)]
    activity = counted(committed(0.2, *changes))
    picture = activity.picture()
    root = check_markup(picture.svg)
    drawn = [element.text or "" for element in root.iter() if element.tag.endswith("}text")]
    shown = activity.tables()[:8]
    assert [name for name in drawn if name.startswith("shop.")] == shown
    assert ("4 more tables" in picture.svg) == (tables == 12)
    assert picture.alt == root.get("aria-label")
    for name in shown:
        assert f"{name}: {activity.count(name)} changes, at most {2 * activity.count(name)}/s" in picture.text
    if not tables:
        assert picture.text == "No changes"
        assert activity.rendered().text == "Nothing was committed in 2.0 s."


def test_messages_are_counted_beside_tables() -> None:
    activity = Activity()
    event = ChangeEvent(Operation.MESSAGE, "", "", {}, {}, BEGIN, "7", LSN(1), 0)
    activity.add(committed(0), [event])
    assert activity.tables() == ["(messages)"]
