"""`PollingSource` on real servers: modes, keys, queries, where it goes on, and what it refuses."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from cdc.conftest import eventually
from streamlab.cdc import Operation, PollingSource
from streamlab.cdc.polling import PollingPosition
from streamlab.cdc.polling.criteria import Criteria, Mode
from streamlab.errors import CannotCapture, ChangeStreamError, CheckpointError, SettingsError

from .conftest import Tables, ids

pytestmark = pytest.mark.integration

BY_KEY = {"mode": "incrementing", "incrementing": "id"}
BY_BOTH = {"timestamp": "updated_at", "incrementing": "id"}


def test_bulk_is_the_whole_table_each_time_in_portions(tables: Tables) -> None:
    tables.insert(*range(5))
    with tables.source(mode="bulk", max_rows=2) as source:
        transactions = list(source.transactions(until=6))
    assert [len(each) for each in transactions] == [2, 2, 1, 2, 2, 1]
    rows = [event for each in transactions for event in each]
    assert sorted(event.new_data["id"] for event in rows[:5]) == list(range(5))
    assert {event.operation for event in rows} == {Operation.SNAPSHOT}
    positions = [each.position for each in transactions]
    assert positions == sorted(set(positions))
    assert all(each.position < each.end_position for each in transactions)


def test_bulk_that_was_left_half_way_begins_anew_with_positions_of_its_own(tables: Tables) -> None:
    tables.insert(*range(5))
    with tables.source(mode="bulk", max_rows=2) as source:
        (first,) = source.transactions(until=1)
        source.acknowledge(first)
    with tables.source(mode="bulk", max_rows=2) as source:
        again = list(source.transactions(until=3))
    assert sum(map(len, again)) == 5
    assert all(first.end_position <= each.position for each in again)


def test_keys_of_several_columns_are_compared_as_one(tables: Tables) -> None:
    """Behind each place exactly the rows that are greater, at whichever size of a page."""
    tables.execute("CREATE TABLE order_lines (a int, b bigint, c decimal(4,1), PRIMARY KEY (a, b, c))")
    rows = list(product(range(3), range(3), range(3)))
    tables.execute("INSERT INTO order_lines VALUES " + ",".join(map(str, rows)))
    options = {"mode": "incrementing", "incrementing": ["a", "b", "c"], "checkpoint": None}
    for after, limit in [(rows[0], 4), (rows[13], 100), (rows[26], 2)]:
        position = PollingPosition(after, ("a", "b", "c"), behind=True)
        with tables.source(f"{tables.schema}.order_lines", **options, max_rows=limit, resume_after=position) as source:
            found = [each.position.values for each in source.transactions(until=source.written())]  # type: ignore[attr-defined]
        assert found == rows[rows.index(after) + 1 :]
        assert all(len(each) == 3 for each in found)


def test_rows_of_one_stamp_stay_together_whatever_the_size_of_a_page(tables: Tables) -> None:
    for group in (range(1), range(1, 8), range(8, 10)):
        tables.insert(*group)
    with tables.source(mode="timestamp", timestamp="updated_at", max_rows=2) as source:
        transactions = list(source.transactions(until=source.written()))
    assert [len(each) for each in transactions] == [1, 7, 2]
    assert [event.new_data["id"] for each in transactions for event in each] == list(range(10))


def test_a_row_is_what_a_select_shows(tables: Tables) -> None:
    tables.execute("INSERT INTO orders VALUES (1, %s, %s)", "50% ü", "2026-01-01 12:00:00.25")
    with tables.source(**BY_BOTH) as source:
        (transaction,) = source.transactions(until=1)
    (event,) = transaction
    assert (event.schema, event.table_name, event.primary_key, event.key) == (tables.schema, "orders", ("id",), (1,))
    assert event.new_data["updated_at"].tzinfo is not None
    assert event.commit_timestamp == event.new_data["updated_at"].astimezone(UTC)
    assert event.new_data["note"] == "50% ü"
    assert (event.operation, event.old_data) == (Operation.INSERT, {})


def test_a_query_is_wrapped_whatever_is_in_it(tables: Tables) -> None:
    tables.execute("INSERT INTO orders (id, note) VALUES (1, '10 percent'), (2, 'x'), (3, '20 percent')")
    query = f"""
        SELECT id, count(*) AS copies, max(note) AS note FROM {tables.orders}
        WHERE note LIKE '%percent' OR note LIKE '100%%' GROUP BY id ORDER BY note;
    """
    options = {"query": query, "name": "percents", "primary_key": ["id"], **BY_KEY}
    with tables.source(**options) as source:
        transactions = list(source.transactions(until=source.written()))
    events = [event for each in transactions for event in each]
    assert [event.new_data["id"] for event in events] == [1, 3]
    assert {(event.schema, event.table_name, event.primary_key) for event in events} == {("", "percents", ("id",))}


def test_a_query_may_end_in_a_comment(tables: Tables) -> None:
    tables.insert(1, 2)
    query = f"SELECT id FROM {tables.orders} -- 50% of it; by hand"
    for count, options in ((2, BY_KEY), (1, {"mode": "bulk"})):
        with tables.source(query=query, name="remarked", **options, checkpoint=None) as source:
            found = [event.new_data["id"] for each in source.transactions(until=count) for event in each]
            assert sorted(found) == [1, 2]
            assert source.lag().size == 2


def test_names_of_columns_may_hold_anything(tables: Tables) -> None:
    odd = {"postgres": ('"50% %s {id} ""x"" -- "', '"t%"'), "mysql": ("`50% %s {id} ``x`` -- .`", "`t%`")}[tables.kind]
    number, stamp = ('50% %s {id} "x" -- ', "t%") if tables.kind == "postgres" else ("50% %s {id} `x` -- .", "t%")
    kind = "timestamptz" if tables.kind == "postgres" else "timestamp(6)"
    tables.execute(f"CREATE TABLE odd ({odd[0]} int PRIMARY KEY, {odd[1]} {kind} NOT NULL)")
    tables.execute("INSERT INTO odd VALUES (1, '2026-01-01 12:00:00'), (2, '2026-01-01 12:00:00')")
    for options in (
        {"mode": "incrementing", "incrementing": number}, {"mode": "timestamp", "timestamp": stamp},
        {"timestamp": stamp, "incrementing": number},
    ):  # fmt: skip
        path = tables.directory / options.get("mode", "both")
        for expected in ([1, 2], []):
            with tables.source(f"{tables.schema}.odd", **options, checkpoint=path) as source:
                source.initialize()
                assert source.lag().size == len(expected)
                found = list(source.transactions(until=source.written()))
                assert [event.new_data[number] for each in found for event in each] == expected
                if found:
                    source.acknowledge(found[-1])


def test_it_goes_on_behind_what_was_acknowledged(tables: Tables) -> None:
    tables.insert(1, 2, 3)
    with tables.source(**BY_BOTH) as source:
        first, *_ = source.transactions(until=2)
        source.acknowledge(first)
    with tables.source(**BY_BOTH) as source:
        source.initialize()
        assert source.acknowledged == first.end_position
        with pytest.raises(CheckpointError, match="Another reader"):
            tables.source(**BY_BOTH).initialize()
        assert ids(source) == [2, 3]
    with pytest.raises(CheckpointError, match="belongs to the reader"):
        tables.source(**BY_BOTH, name="another").initialize()
    with tables.source(**BY_BOTH, checkpoint=None, resume_after=str(first.end_position)) as source:
        assert ids(source) == [2, 3]


MODES: dict[str, dict[str, Any]] = {
    "bulk": {"mode": "bulk"},
    "id": BY_KEY,
    "version": {"mode": "incrementing", "incrementing": "version"},
    "id, version": {"mode": "incrementing", "incrementing": ["id", "version"]},
    "time": {"mode": "timestamp", "timestamp": "updated_at"},
    "time, id": BY_BOTH,
}


def test_a_position_of_another_mode_or_of_other_columns_is_refused_before_anything_is_read(tables: Tables) -> None:
    """Ten rows of one stamp, three of them acknowledged: behind the stamp itself there are none any more."""
    tables.execute("ALTER TABLE orders ADD COLUMN version int NOT NULL DEFAULT 0")
    tables.insert(*range(10))
    for kept, options in MODES.items():
        path = tables.directory / kept
        with tables.source(**options, checkpoint=path, max_rows=3) as source:
            for transaction in source.transactions(until=1 if kept in {"bulk", "time"} else 3):
                source.acknowledge(transaction)
            position = source.acknowledged
        for name, other in MODES.items():
            if name == kept:
                continue
            with tables.source(**other, checkpoint=path) as source:
                with pytest.raises(CheckpointError, match=re.escape(f"one of the mode {source._criteria.mode}")):
                    next(source.transactions(idle=0.1))
                assert source.received is None
            for given in (position, str(position)):
                with pytest.raises(SettingsError, match="is not one of the mode"):
                    tables.source(**other, checkpoint=None, resume_after=given)
        with tables.source(**options, checkpoint=path) as source:  # the file is as it was
            source.initialize()
            assert source.acknowledged == position
            if kept == "time, id":
                assert ids(source) == list(range(3, 10))


def test_a_position_that_names_no_columns_is_refused() -> None:
    for given in ("[17]+", PollingPosition((17,), behind=True), '{"id":{"at":"2026-01-01T00:00:00"}}+'):
        with pytest.raises(SettingsError, match="over the columns id"):
            PollingSource("postgresql://127.0.0.1/x", "orders", **BY_KEY, resume_after=given)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="resume_after is a int"):
        PollingSource("postgresql://127.0.0.1/x", "orders", **BY_KEY, resume_after=17)  # type: ignore[arg-type]


def test_a_column_that_is_added_is_there_from_the_next_poll(tables: Tables) -> None:
    with tables.source(**BY_KEY) as source:
        for number in range(8):  # often enough for a driver to prepare its statement
            tables.insert(number)
            assert ids(source) == [number]
        tables.execute("ALTER TABLE orders ADD COLUMN more int DEFAULT 7")
        tables.insert(8)
        (transaction,) = source.transactions(until=1)
        assert next(iter(transaction)).new_data["more"] == 7


def test_handlers_get_rows_in_a_thread_and_a_lost_connection_is_made_again(tables: Tables) -> None:
    seen: list[int] = []
    with tables.source(**BY_KEY) as source:
        source.add_handler(lambda event: seen.append(event.new_data["id"]))
        source.start()
        tables.insert(1)
        eventually(lambda: seen == [1])
        kill_others(tables, source)
        tables.insert(2)
        eventually(lambda: seen == [1, 2])
        source.stop()
    with tables.source(**BY_KEY) as source:
        assert ids(source) == []


def kill_others(tables: Tables, source: PollingSource) -> None:
    connection: Any = source._server._connection
    if tables.kind == "postgres":
        tables.execute("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
    else:
        tables.execute(f"KILL {connection.thread_id()}")


def test_what_cannot_be_watched_is_refused_and_says_why(tables: Tables) -> None:
    for options, match in (
        ({"mode": "incrementing", "incrementing": "note"}, "no number in its column note"),
        ({"mode": "incrementing", "incrementing": "updated_at"}, "no number in its column updated_at"),
        ({"mode": "timestamp", "timestamp": "id"}, "no time in its column id"),
        ({"mode": "incrementing", "incrementing": "nowhere"}, "no column nowhere"),
    ):
        with pytest.raises(CannotCapture, match=match):
            tables.source(**options).initialize()
    with pytest.raises(ChangeStreamError, match="no_such"):
        tables.source(f"{tables.schema}.no_such", **BY_KEY).initialize()


def test_a_query_of_rows_without_a_number_is_refused(tables: Tables) -> None:
    tables.insert(1)
    query = f"SELECT NULLIF(id, 1) AS id FROM {tables.orders}"
    with pytest.raises(CannotCapture, match="may be NULL"):
        tables.source(query=query, **BY_KEY).initialize()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "increment", "incrementing": "id"}, "no mode 'increment'"),
        ({"mode": "incrementing"}, "incrementing="),
        ({"mode": "bulk", "timestamp": "t"}, "no column"),
        ({"mode": "timestamp", "timestamp": "t", "incrementing": "id"}, "timestamp="),
        ({**BY_KEY, "interval": 0}, "interval=0 is no time"),
        ({**BY_KEY, "interval": math.nan}, "interval=nan is no time"),
        ({**BY_KEY, "interval": math.inf}, "interval=inf is no time"),
        ({**BY_BOTH, "delay": -1}, "delay=-1 is no time"),
        ({**BY_BOTH, "delay": math.nan}, "delay=nan is no time"),
        ({**BY_BOTH, "delay": math.inf}, "delay=inf is no time"),
        ({**BY_BOTH, "delay": "5"}, "delay='5' is no time"),
        ({**BY_KEY, "delay": 60}, "delay= has no effect in the mode incrementing"),
        ({"mode": "bulk", "delay": 60}, "delay= has no effect in the mode bulk"),
        ({**BY_KEY, "timezone": "Europe/Berlin"}, "timezone= has no effect in the mode incrementing"),
        ({"mode": "bulk", "timezone": "Europe/Berlin"}, "timezone= has no effect in the mode bulk"),
        ({**BY_KEY, "max_rows": 0}, "max_rows=0 is no such number"),
        ({**BY_KEY, "max_rows": 1.5}, "max_rows=1.5 is no such number"),
        ({"mode": "timestamp", "timestamp": ["u"]}, r"\['u'\] cannot be the name of the column of timestamp="),
        ({"mode": "incrementing", "incrementing": [""]}, "'' cannot be the name of a column of incrementing="),
        ({"mode": "incrementing", "incrementing": [5]}, "incrementing=.* is no list of names"),
        ({"mode": "incrementing", "incrementing": ["id", "id"]}, "watched twice: id, id"),
        ({"timestamp": "u", "incrementing": "u"}, "watched twice: u, u"),
        ({**BY_KEY, "validate_non_null": "no"}, "validate_non_null='no'"),
        ({**BY_KEY, "checkpoint": 5}, "checkpoint is a int"),
        ({**BY_KEY, "reconnect": None}, "reconnect is a NoneType"),
        ({**BY_KEY, "query": 5}, "query is a int"),
        ({**BY_KEY, "name": 5}, "5 cannot be the name of a reader"),
        ({**BY_BOTH, "timezone": 5}, "timezone is a int"),
        ({**BY_BOTH, "timezone": "Europe/Nowhere"}, "no time zone"),
        ({**BY_KEY, "query": "SELECT 1"}, "twice"),
        ({**BY_KEY, "primary_key": "id"}, "primary_key is the string"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_at_once(options: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        PollingSource("postgresql://127.0.0.1/x", "orders", **options)


def test_the_placeholder_that_people_expect_is_refused() -> None:
    with pytest.raises(SettingsError, match="placeholder"):
        PollingSource("mysql://u@h/x", query="SELECT * FROM orders WHERE id > ${offset}", **BY_KEY)


@pytest.mark.parametrize(
    "position",
    [
        PollingPosition(),
        PollingPosition((17,), ("at",), behind=True),
        PollingPosition((datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC), 3)),
        PollingPosition((datetime(2026, 1, 1, tzinfo=UTC), Decimal("3.50")), ("updated_at", 'an "id" ü')),
        PollingPosition((datetime(2026, 1, 1),), ("t",), behind=True),
    ],
)
def test_positions_are_read_back(position: PollingPosition) -> None:
    assert PollingPosition.parse(str(position)) == position
    assert hash(PollingPosition.parse(str(position))) == hash(position)
    assert 0 <= int(position) < 1 << 63


def test_positions_are_in_order() -> None:
    row, behind = PollingPosition((1, 2)), PollingPosition((1, 2), behind=True)
    assert PollingPosition() < row < behind < PollingPosition((1, 3)) < PollingPosition((2, 0))
    with pytest.raises(SettingsError, match="different sources"):
        assert PollingPosition((1,)) < PollingPosition((datetime(2026, 1, 1),))
    with pytest.raises(SettingsError, match="different sources"):
        assert PollingPosition((1,), ("id",)) < PollingPosition((2,), ("version",))
    assert PollingPosition((1,), ("id",)) != PollingPosition((1,), ("version",))
    for wrong in ("", "17", "[x]", '["a"]', '[{"at":"never"}]', '{"id":"a"}', '{"id":null}'):
        with pytest.raises(SettingsError):
            PollingPosition.parse(wrong)


def test_a_condition_is_written_for_an_index() -> None:
    criteria = Criteria(Mode.INCREMENTING, incrementing=("a", "b"))
    text, values = criteria.condition(PollingPosition((1, 2), behind=True), None, lambda name: name)
    assert (text, values) == ("a >= %s AND (a > %s OR (a = %s AND b > %s))", [1, 1, 1, 2])
