"""What a poll cannot see, each shown on both servers: what is in the table, and what was seen of it.

A test that fails here has found a poll that sees more than it can: then docs/connect.md is wrong.
"""

from __future__ import annotations

from typing import Any

import pytest

from cdc.conftest import eventually
from streamlab.cdc import PollingSource
from streamlab.errors import CannotCapture

from .conftest import Tables, ids

pytestmark = pytest.mark.integration

BY_STAMP = {"mode": "timestamp", "timestamp": "updated_at"}
BY_BOTH = {"mode": "timestamp+incrementing", "timestamp": "updated_at", "incrementing": "id"}
BY_KEY = {"mode": "incrementing", "incrementing": "id"}


def there(tables: Tables) -> list[int]:
    return [row[0] for row in tables.execute("SELECT id FROM orders ORDER BY id")]


def stamped(tables: Tables, number: int, stamp: str) -> None:
    tables.execute("INSERT INTO orders (id, updated_at) VALUES (%s, %s)", number, stamp)


@pytest.mark.parametrize("mode", [BY_STAMP, BY_BOTH, BY_KEY])
def test_a_deleted_row_is_never_heard_of_again(tables: Tables, mode: dict[str, Any]) -> None:
    with tables.source(**mode) as source:
        tables.insert(1, 2)
        copy = set(ids(source))
        tables.execute("DELETE FROM orders WHERE id = 1")
        copy |= set(ids(source))
    assert (copy, there(tables)) == ({1, 2}, [2])


def test_in_bulk_a_deleted_row_is_missing_from_the_next_poll(tables: Tables) -> None:
    with tables.source(mode="bulk") as source:
        tables.insert(1, 2)
        assert sorted(ids(source)) == [1, 2]
        tables.execute("DELETE FROM orders WHERE id = 1")
        assert ids(source) == [2]


def test_of_several_changes_between_two_polls_the_last_is_seen(tables: Tables) -> None:
    touch = "UPDATE orders SET note = %s, updated_at = CURRENT_TIMESTAMP" + ("(6)" * (tables.kind == "mysql"))
    with tables.source(**BY_BOTH) as source:
        tables.insert(1)
        assert ids(source) == [1]
        tables.execute(touch, "paid")
        tables.execute(touch, "shipped")
        (change,) = (event for each in source.transactions(until=source.written()) for event in each)
    assert change.new_data["note"] == "shipped", "that it was paid is not known to anybody"


def test_an_update_that_does_not_touch_the_stamp_is_not_seen(tables: Tables) -> None:
    with tables.source(**BY_BOTH) as source:
        tables.insert(1)
        assert ids(source) == [1]
        tables.execute("UPDATE orders SET note = 'paid'")
        assert ids(source) == []


def test_by_keys_no_update_is_seen_at_all(tables: Tables) -> None:
    with tables.source(**BY_KEY) as source:
        tables.insert(1)
        assert ids(source) == [1]
        tables.execute("UPDATE orders SET note = 'paid', updated_at = CURRENT_TIMESTAMP")
        assert ids(source) == []


def late(tables: Tables, source: PollingSource) -> list[int]:
    """One transaction begins, a second begins and commits, a poll, then the first commits; what polls see."""
    slow = tables.session(autocommit=False)
    tables.execute("INSERT INTO orders (id) VALUES (1)", session=slow)
    tables.insert(2)
    seen = ids(source)
    slow.commit()
    return seen + ids(source)


@pytest.mark.parametrize("mode", [BY_STAMP, BY_BOTH, BY_KEY])
def test_a_commit_that_comes_late_is_never_seen(tables: Tables, mode: dict[str, Any]) -> None:
    with tables.source(**mode) as source:
        assert late(tables, source) == [2]
    assert there(tables) == [1, 2], "row 1 got its number and its stamp before it was committed"


@pytest.mark.parametrize("generated", ["GENERATED ALWAYS AS IDENTITY", "AUTO_INCREMENT"])
def test_numbers_that_the_server_draws_are_no_better(tables: Tables, generated: str) -> None:
    if (generated == "AUTO_INCREMENT") != (tables.kind == "mysql"):
        return
    tables.execute(f"CREATE TABLE drawn (id int {generated} PRIMARY KEY, note text)")
    with tables.source(f"{tables.schema}.drawn", **BY_KEY) as source:
        slow = tables.session(autocommit=False)
        tables.execute("INSERT INTO drawn (note) VALUES ('first')", session=slow)
        tables.execute("INSERT INTO drawn (note) VALUES ('second')")
        assert ids(source) == [2]
        slow.commit()
        assert ids(source) == []
    assert len(tables.execute("SELECT id FROM drawn")) == 2


@pytest.mark.parametrize("mode", [BY_STAMP, BY_BOTH])
def test_a_delay_waits_for_late_commits_that_come_within_it(tables: Tables, mode: dict[str, Any]) -> None:
    with tables.source(**mode, delay=1.0) as source:
        assert late(tables, source) == [], "both are younger than the delay"
        seen: list[int] = []
        eventually(lambda: seen.extend(ids(source)) or len(seen) >= 2)
    assert sorted(seen) == [1, 2]


def test_a_delay_does_not_wait_for_those_that_come_after_it(tables: Tables) -> None:
    with tables.source(**BY_BOTH, delay=0.2) as source:
        slow = tables.session(autocommit=False)
        tables.execute("INSERT INTO orders (id) VALUES (1)", session=slow)
        tables.insert(2)
        seen: list[int] = []
        eventually(lambda: seen.extend(ids(source)) or seen)
        slow.commit()
        tables.insert(3)
        eventually(lambda: seen.extend(ids(source)) or 3 in seen)
    assert (seen, there(tables)) == ([2, 3], [1, 2, 3])


def test_equal_stamps_at_the_boundary_are_lost_without_a_key_and_found_with_one(tables: Tables) -> None:
    stamp = "2026-01-01 12:00:00"
    by_stamp = tables.source(**BY_STAMP, name="stamp", checkpoint=tables.directory / "1")
    by_both = tables.source(**BY_BOTH, name="both", checkpoint=tables.directory / "2")
    with by_stamp, by_both:
        stamped(tables, 5, stamp)
        assert ids(by_stamp) == ids(by_both) == [5]
        stamped(tables, 6, stamp)
        assert (ids(by_stamp), ids(by_both)) == ([], [6])
        stamped(tables, 4, stamp)  # which a key that grows would not do
        assert (ids(by_stamp), ids(by_both)) == ([], [])
    assert there(tables) == [4, 5, 6]


def test_a_clock_that_was_set_back_loses_rows(tables: Tables) -> None:
    with tables.source(**BY_BOTH) as source:
        stamped(tables, 1, "2026-01-01 12:00:01")
        assert ids(source) == [1]
        stamped(tables, 2, "2026-01-01 12:00:00")
        assert ids(source) == []


@pytest.mark.parametrize("zoned", [False, True])
def test_local_times_lose_the_hour_that_comes_twice(tables: Tables, zoned: bool) -> None:
    """On 26 October 2025 it was 02:10 in Berlin twice: at 00:10 and, after 02:30 (00:30), at 01:10 UTC."""
    kind = {
        ("postgres", False): "timestamp", ("postgres", True): "timestamptz",
        ("mysql", False): "datetime", ("mysql", True): "timestamp",
    }[tables.kind, zoned]  # fmt: skip
    tables.execute(f"CREATE TABLE berlin (id int PRIMARY KEY, at {kind} NOT NULL)")
    first, second = ("2025-10-26 00:30:00", "2025-10-26 01:10:00") if zoned else (
        "2025-10-26 02:30:00", "2025-10-26 02:10:00",
    )  # fmt: skip
    clock = tables.session()
    tables.execute("SET TIME ZONE 'UTC'" if tables.kind == "postgres" else "SET time_zone = '+00:00'", session=clock)
    options = {"mode": "timestamp+incrementing", "timestamp": "at", "incrementing": "id", "timezone": "Europe/Berlin"}
    with tables.source(f"{tables.schema}.berlin", **options) as source:
        tables.execute("INSERT INTO berlin VALUES (1, %s)", first, session=clock)
        assert ids(source) == [1]
        tables.execute("INSERT INTO berlin VALUES (2, %s)", second, session=clock)
        assert ids(source) == ([2] if zoned else []), "40 minutes later"


def test_stamps_without_a_zone_that_mean_another_one_come_hours_late(tables: Tables) -> None:
    kind = "timestamp" if tables.kind == "postgres" else "datetime"
    now = "now() AT TIME ZONE 'Asia/Tokyo'" if tables.kind == "postgres" else "UTC_TIMESTAMP() + INTERVAL 9 HOUR"
    tables.execute(f"CREATE TABLE tokyo (id int PRIMARY KEY, at {kind} NOT NULL)")
    tables.execute(f"INSERT INTO tokyo SELECT 1, {now}")
    options = {"mode": "timestamp", "timestamp": "at"}
    with tables.source(f"{tables.schema}.tokyo", **options) as source:
        assert ids(source) == [], "nine hours from now, as it seems"
    with tables.source(f"{tables.schema}.tokyo", **options, timezone="Asia/Tokyo", delay=0) as source:
        (transaction,) = source.transactions(until=1)
        assert 0 <= source.lag().seconds < 3600  # type: ignore[operator]
        assert transaction.commit_timestamp.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_a_stamp_that_is_null_is_never_later_than_another(tables: Tables) -> None:
    tables.execute("ALTER TABLE orders " + {
        "postgres": "ALTER updated_at DROP NOT NULL",
        "mysql": "MODIFY updated_at timestamp(6) NULL DEFAULT CURRENT_TIMESTAMP(6)",
    }[tables.kind])  # fmt: skip
    with pytest.raises(CannotCapture, match="updated_at .* may be NULL"):
        tables.source(**BY_BOTH).initialize()
    with tables.source(**BY_BOTH, validate_non_null=False) as source:
        tables.insert(1)
        tables.execute("INSERT INTO orders (id, updated_at) VALUES (2, NULL)")
        tables.insert(3)
        assert ids(source) == [1, 3]
    assert there(tables) == [1, 2, 3]
