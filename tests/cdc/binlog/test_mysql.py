"""`MySQLCDC` against a real MySQL: resuming, definitions in mid-stream, snapshots, lost connections, refusals."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from streamlab import metrics, settings
from streamlab.cdc import Operation, Transaction
from streamlab.cdc.binlog import BinlogPosition, MySQLCDC
from streamlab.errors import CannotCapture, ChangeStreamError, CheckpointError, LogPurged, SettingsError, StreamLost
from streamlab.retry import RetryPolicy

from ..conftest import eventually, interrupted
from .conftest import MySQLShop

pytestmark = pytest.mark.integration


def ids(*transactions: Transaction) -> list[int]:
    return [event.new_data["id"] for transaction in transactions for event in transaction]


# -- the stream -------------------------------------------------------------------------------------------------------


def test_definitions_change_in_mid_stream(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.insert(1)
        shop.execute("ALTER TABLE orders ADD COLUMN extra int DEFAULT 7 FIRST")
        shop.execute("INSERT INTO orders (id) VALUES (2)")
        shop.execute("ALTER TABLE orders RENAME COLUMN note TO remark, MODIFY total varchar(20)")
        shop.execute("UPDATE orders SET total = 'much' WHERE id = 2")
        shop.execute("ALTER TABLE orders DROP PRIMARY KEY, ADD PRIMARY KEY (extra, id)")
        shop.execute("DELETE FROM orders WHERE id = 2")
        shop.execute("TRUNCATE TABLE orders")
        shop.execute("DROP TABLE orders")
        transactions = list(cdc.transactions(until=5))
    events = [event for transaction in transactions for event in transaction]
    assert list(events[0].new_data) == ["id", "note", "total"]
    assert dict(events[1].new_data) == {"extra": 7, "id": 2, "note": None, "total": None}
    assert dict(events[2].new_data) == {"extra": 7, "id": 2, "remark": None, "total": "much"}
    assert events[2].primary_key == ("id",)
    assert events[3].key == (7, 2)
    assert (events[4].operation, events[4].schema, events[4].table_name) == (
        Operation.TRUNCATE, shop.database, "orders",
    )  # fmt: skip


def test_only_the_tables_that_are_named(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.execute("INSERT INTO other VALUES (1)")
        shop.app.begin()
        shop.execute("INSERT INTO other VALUES (2)", connection=shop.app)
        shop.execute("INSERT INTO orders (id) VALUES (3)", connection=shop.app)
        shop.app.commit()
        (transaction,) = cdc.transactions(until=1)
        assert [(event.table_name, event.ordinal) for event in transaction] == [("orders", 0)]


def test_a_quiet_reader_goes_on_behind_the_others(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        before = cdc.acknowledged
        shop.execute("INSERT INTO other VALUES (1)")
        assert list(cdc.transactions(idle=0.6)) == []
        assert before is not None
        assert cdc.acknowledged is not None
        assert before < cdc.acknowledged
        quiet = cdc.acknowledged
        shop.insert(1)
        shop.execute("INSERT INTO other VALUES (2)")
        (transaction,) = cdc.transactions(idle=0.6)
        assert cdc.acknowledged == quiet, "something waits for its acknowledgement"
        cdc.acknowledge(transaction)
        assert transaction.end_position < cdc.acknowledged
    kept = (shop.directory / "position").read_text()
    assert str(cdc.acknowledged) in kept


def test_a_rolled_back_transaction_is_not_there(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.app.begin()
        shop.execute("INSERT INTO orders (id) VALUES (1)", connection=shop.app)
        shop.app.rollback()
        shop.insert(2)
        assert ids(*cdc.transactions(until=1)) == [2]


def test_a_savepoint_takes_back_its_part(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.app.begin()
        for statement in (
            "INSERT INTO orders (id) VALUES (1)", "SAVEPOINT a", "INSERT INTO orders (id) VALUES (2)",
            "ROLLBACK TO a", "INSERT INTO orders (id) VALUES (3)",
        ):  # fmt: skip
            shop.execute(statement, connection=shop.app)
        shop.app.commit()
        assert ids(*cdc.transactions(until=1)) == [1, 3]


def test_two_phase_commit_comes_at_its_commit(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        for name, last in (("a", "XA COMMIT 'a'"), ("b", "XA ROLLBACK 'b'")):
            number = ord(name)
            for statement in (f"XA START '{name}'", f"INSERT INTO orders (id) VALUES ({number})", f"XA END '{name}'"):
                shop.execute(statement, connection=shop.app)
            shop.execute(f"XA PREPARE '{name}'", connection=shop.app)
            other = shop.connect("app", shop.database)
            shop.execute(f"INSERT INTO orders (id) VALUES ({number + 100})", connection=other)
            (between,) = cdc.transactions(until=1)
            assert ids(between) == [number + 100]
            cdc.acknowledge(between)
            cdc.close()  # what is prepared comes again to whoever goes on from here
            shop.execute(last, connection=other)
            shop.execute(f"INSERT INTO orders (id) VALUES ({number + 200})", connection=other)
            other.close()
            found = list(cdc.transactions(until=2 if name == "a" else 1))
            assert ids(*found) == ([number, number + 200] if name == "a" else [number + 200])
            assert all(event.position == each.position for each in found for event in each)
            cdc.acknowledge(found[-1])
        shop.execute("XA START 'c'", connection=shop.app)
        shop.execute("INSERT INTO orders (id) VALUES (1)", connection=shop.app)
        shop.execute("XA END 'c'", connection=shop.app)
        shop.execute("XA COMMIT 'c' ONE PHASE", connection=shop.app)
        assert ids(*cdc.transactions(until=1)) == [1]


def test_a_tagged_identifier_is_gone_on_from(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.execute("SET gtid_next = 'AUTOMATIC:blue'")
        shop.execute("INSERT INTO orders (id) VALUES (1)")
        shop.execute("SET gtid_next = 'AUTOMATIC'")
        (first,) = cdc.transactions(until=1)
        assert ":blue:" in first.transaction_id
        assert abs((first.commit_timestamp.timestamp()) - time.time()) < 60
        cdc.acknowledge(first)
    with shop.reader() as cdc:
        shop.insert(2)
        assert ids(*cdc.transactions(until=1)) == [2]


def test_a_large_transaction_waits_as_bytes(shop: MySQLShop, tmp_path: Path) -> None:
    with shop.reader(spill=tmp_path / "spill") as cdc:
        cdc._decoder._spill.eager = 1 << 16
        cdc._decoder._spill.memory = 1 << 16
        shop.execute("SET SESSION cte_max_recursion_depth = 100000")
        shop.execute(
            "INSERT INTO orders WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
            "SELECT i, repeat('x', 200), i FROM n"
        )
        (transaction,) = cdc.transactions(until=1)
        counted = metrics.CDC_EVENTS.labels(cdc.name, "insert")._value
        before = counted.get()
        for _ in range(2):
            assert ids(transaction) == list(range(1, 50001))
            assert counted.get() == before + 50000
        assert len(transaction) == 50000
        assert [event.ordinal for event in transaction] == list(range(50000))
        assert transaction.changes.spool.on_disk  # type: ignore[union-attr]
        transaction.close()
        shop.insert(50001)
        assert ids(list(cdc.transactions(until=2))[1]) == [50001]


# -- where it goes on -------------------------------------------------------------------------------------------------


def test_it_goes_on_at_a_position_that_the_sink_holds(shop: MySQLShop) -> None:
    with shop.reader(checkpoint=None) as cdc:
        shop.insert(1, 2, 3)
        first, *_ = cdc.transactions(until=3)
    text = str(first.end_position)
    with shop.reader(checkpoint=None, resume_after=text) as cdc:
        assert ids(*cdc.transactions(until=2)) == [2, 3]
    assert BinlogPosition.parse(text) == first.end_position


def test_a_new_log_file_changes_nothing(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.insert(1)
        shop.execute("FLUSH BINARY LOGS")
        shop.insert(2)
        first, second = cdc.transactions(until=2)
        assert ids(first, second) == [1, 2]
        assert first.end_position < second.position
        assert first.position.file != second.position.file  # type: ignore[attr-defined]
        assert (cdc.lag().size or 0) > 0
        cdc.acknowledge(second)
        assert cdc.lag().size == 0


def test_what_is_written_has_passed_where_nothing_is_for_the_reader(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.insert(1)
        shop.execute("INSERT INTO other VALUES (1)")
        shop.execute("FLUSH BINARY LOGS")
        written = cdc.written()
        assert ids(*cdc.transactions(until=written)) == [1]
        assert cdc.received is not None
        assert cdc.received < written
        for statement in ("XA START 'a'", "INSERT INTO orders (id) VALUES (2)", "XA END 'a'", "XA PREPARE 'a'"):
            shop.execute(statement, connection=shop.app)
        assert ids(*cdc.transactions(until=cdc.written())) == [1], "what is prepared is not there yet"
        shop.execute("XA COMMIT 'a'", connection=shop.app)
        assert ids(*cdc.transactions(until=cdc.written())) == [1, 2]


def test_a_count_or_a_position_of_mysql_says_until_when(shop: MySQLShop) -> None:
    with shop.reader() as cdc, pytest.raises(SettingsError, match="neither a count nor a position"):
        cdc.transactions(until="binlog.000001:4")  # type: ignore[arg-type]


def test_questions_survive_their_connection(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        before = cdc.written()
        for number, user, *_ in shop.execute("SHOW PROCESSLIST"):
            if user == cdc.address.user:
                with contextlib.suppress(pymysql.OperationalError):  # one that has just ended by itself
                    shop.execute(f"KILL {number}")
        shop.insert(1)
        assert before < cdc.written()


def test_one_reader_has_the_position_file(shop: MySQLShop) -> None:
    with shop.reader(), pytest.raises(CheckpointError, match="Another reader"):
        shop.reader()
    with pytest.raises(CheckpointError, match="belongs to the reader test"):
        shop.reader(name="another")
    (shop.directory / "position").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no position"):
        shop.reader()
    shop.readers[0].drop()
    assert list(shop.directory.glob("position*")) == []


# -- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_and_its_stream_fit_together(shop: MySQLShop) -> None:
    over = threading.Event()
    written: list[int] = []

    def write() -> None:
        with shop.connect("app", shop.database) as connection:
            while not over.is_set():
                written.append(len(written))
                shop.execute("INSERT INTO orders (id) VALUES (%s)", written[-1], connection=connection)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(written) > 50)
        with shop.session(snapshot="initial") as cdc:
            copied: list[int] = []
            streamed: list[int] = []
            for transaction in cdc.transactions():
                for event in transaction:
                    (copied if event.operation is Operation.SNAPSHOT else streamed).append(event.new_data["id"])
                if len(streamed) > 50:
                    break
    finally:
        over.set()
        writer.join()
    assert len(copied) > 50
    assert sorted(copied) + streamed == list(range(len(copied) + len(streamed)))


def test_a_snapshot_that_was_not_acknowledged_is_made_again(shop: MySQLShop) -> None:
    shop.insert(1, 2)
    with shop.reader(snapshot="initial") as cdc:
        (rows,) = cdc.transactions(until=1)
        assert ids(rows) == [1, 2]
        shop.insert(3)
    with shop.reader(snapshot="initial") as cdc:
        rows, *_ = cdc.transactions(until=1)
        assert ids(rows) == [1, 2, 3]
        again = next(iter(cdc.transactions(until=1)))
        assert again is rows
        shop.insert(4)
        rows, change = cdc.transactions(until=2)
        assert ids(change) == [4]
        assert cdc.acknowledged is None
        cdc.acknowledge(rows)
        assert cdc.acknowledged == rows.end_position
    with shop.reader(snapshot="initial") as cdc:
        assert ids(*cdc.transactions(until=1)) == [4]


def test_until_what_is_written_takes_in_the_whole_snapshot(shop: MySQLShop) -> None:
    shop.execute("SET SESSION cte_max_recursion_depth = 100000")
    shop.execute(
        "INSERT INTO orders (id) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) "
        "SELECT i FROM n"
    )
    with shop.session(snapshot="initial") as cdc:
        assert len([each for rows in cdc.transactions(until=cdc.written()) for each in rows]) == 25_000
        assert list(cdc.transactions(until=cdc.written())) == []


def test_a_snapshot_that_is_left_half_way_ends_without_a_word(shop: MySQLShop) -> None:
    shop.execute("SET SESSION cte_max_recursion_depth = 100000")
    shop.execute(
        "INSERT INTO orders (id) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) "
        "SELECT i FROM n"
    )
    with shop.reader(snapshot="initial", checkpoint=None) as cdc:
        assert len(next(cdc.transactions())) == 10_000
    gc.collect()  # a failure there is a warning, which fails the test


def test_a_session_keeps_nothing_and_acknowledges_by_itself(shop: MySQLShop) -> None:
    shop.insert(1)
    with shop.session() as cdc:
        shop.insert(2, 3)
        for transaction in cdc.transactions():
            if ids(transaction) == [3]:
                break
        assert ids(*cdc.transactions(until=1)) == [3], "where the last iteration was left"
        assert [event.new_data["id"] for event in cdc.tail(5, limit=0.5)] == []


# -- handlers, interrupts, lost connections ---------------------------------------------------------------------------


def test_handlers_get_changes_and_acknowledge(shop: MySQLShop) -> None:
    seen: list[Any] = []
    with shop.reader() as cdc:
        cdc.add_handler(lambda event: seen.append(event.new_data["id"]))
        cdc.start()
        shop.insert(1, 2)
        eventually(lambda: seen == [1, 2])
    with shop.reader() as cdc:
        assert list(cdc.transactions(idle=0.3)) == []


def test_a_killed_connection_is_made_again(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        transactions = cdc.transactions()
        shop.insert(1)
        assert ids(next(transactions)) == [1]
        for number in range(2, 4):
            for thread in shop.dumps(cdc):
                shop.execute(f"KILL {thread}")
            shop.insert(number)
            assert ids(next(transactions)) == [number], "nothing twice, nothing missing"


@pytest.fixture
def collected() -> Iterator[None]:
    """What the test leaves to the garbage collector goes while its filter of warnings still holds."""
    yield
    gc.collect()


# PyMySQL leaves a TLS handshake that is interrupted to the garbage collector, which closes it, and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
def test_interrupts_take_nothing_away(shop: MySQLShop) -> None:
    seen: list[int] = []
    with shop.reader() as cdc:
        hit = 0
        for number in range(12):
            shop.insert(2 * number, 2 * number + 1)

            def read(last: int = 2 * number + 1) -> None:
                for transaction in cdc.transactions():
                    cdc.acknowledge(transaction)
                    seen.extend(ids(transaction))
                    if seen[-1] == last:
                        return

            hit += interrupted(read, 0.0005 + 0.0025 * number)
        for transaction in cdc.transactions(idle=0.5):
            seen.extend(ids(transaction))
    # What was acknowledged and not noted here was interrupted between the two, in this test's own code.
    assert sorted(set(seen)) == seen
    assert len(seen) >= 24 - hit
    assert hit


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [
        ("binlog_row_image", "MINIMAL", "FULL"),
        ("binlog_row_metadata", "MINIMAL", "FULL"),
        ("binlog_transaction_compression", "ON", "OFF"),
        ("binlog_row_value_options", "PARTIAL_JSON", ""),
        ("gtid_mode", "ON_PERMISSIVE", "ON"),
    ],
)
def test_a_setting_is_refused_with_its_fix(shop: MySQLShop, name: str, value: str, usual: str) -> None:
    shop.execute(f"SET GLOBAL {name} = '{value}'")
    try:
        with pytest.raises(CannotCapture, match=name) as refusal:
            shop.reader()
    finally:
        shop.execute(f"SET GLOBAL {name} = '{usual}'")
    assert name in refusal.value.fix


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("binlog_row_image = 'MINIMAL'", "not logged whole"),
        ("binlog_transaction_compression = ON", "compressed"),
        ("binlog_format = 'STATEMENT'", "INSERT"),
    ],
)
def test_what_a_session_writes_otherwise_is_refused(shop: MySQLShop, setting: str, what: str) -> None:
    with shop.reader() as cdc:
        other = shop.connect("admin", shop.database)
        shop.execute("INSERT INTO orders VALUES (1, 'a', 1)", connection=other)
        shop.execute(f"SET SESSION {setting}", connection=other)
        shop.execute("INSERT INTO orders (id) VALUES (2)", connection=other)
        shop.execute("UPDATE orders SET note = 'b' WHERE id = 1", connection=other)
        other.close()
        with pytest.raises(CannotCapture, match=what) as refusal:
            list(cdc.transactions(idle=5))
        assert refusal.value.fix


def test_a_user_without_the_privilege_is_refused(shop: MySQLShop) -> None:
    with pytest.raises(CannotCapture, match="GRANT REPLICATION SLAVE"):
        shop.reader(address=settings.mysql_address("app"))
    wrong = replace(settings.mysql_address("cdc"), option_file="", password="wrong")
    with pytest.raises(CannotCapture, match="does not let this user in"):
        shop.reader(address=wrong)


def test_tables_and_numbers_are_checked(shop: MySQLShop) -> None:
    with pytest.raises(CannotCapture, match="no table"):
        shop.reader(tables=[f"{shop.database}.missing"])
    with pytest.raises(SettingsError, match="names no table"):
        shop.reader(tables=["orders"])
    with pytest.raises(CannotCapture, match="server_id 1 is taken"):
        shop.reader(server_id=1)
    with pytest.raises(SettingsError, match="no server_id"):
        shop.reader(server_id=-1)


def test_a_second_reader_with_the_same_number_is_refused(shop: MySQLShop) -> None:
    with shop.reader(server_id=4_000_000_001) as first:
        shop.insert(1)
        assert ids(*first.transactions(until=1)) == [1]
        with pytest.raises(CannotCapture, match="4000000001 is taken"):
            shop.reader(server_id=4_000_000_001, checkpoint=None)


def test_a_purged_log_is_refused(shop: MySQLShop) -> None:
    with shop.reader() as cdc:
        shop.insert(1)
        (transaction,) = cdc.transactions(until=1)
        cdc.acknowledge(transaction)
    shop.insert(2)
    shop.execute("FLUSH BINARY LOGS")
    file = shop.execute("SHOW BINARY LOG STATUS")[0][0]

    def purged() -> bool:
        """The server keeps what a connection still has open, also one whose reader has gone a moment ago."""
        shop.execute(f"PURGE BINARY LOGS TO '{file}'")
        return bool(shop.execute("SHOW BINARY LOGS")[0][0] == file)

    eventually(purged, 60)
    with pytest.raises(LogPurged, match="thrown away its log") as refusal:
        shop.reader()
    assert "new snapshot" in refusal.value.fix


def test_a_position_of_another_server_is_refused(shop: MySQLShop) -> None:
    foreign = "binlog.000001:4 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77"
    with pytest.raises(LogPurged, match="has only"):
        shop.reader(checkpoint=None, resume_after=foreign)


def test_a_server_that_cannot_be_reached_is_told_at_once(shop: MySQLShop) -> None:
    nowhere = replace(settings.mysql_address("cdc"), port=1)
    cdc = MySQLCDC(nowhere, tables=["a.b"], reconnect=RetryPolicy(attempts=2, seconds=1))
    with pytest.raises(StreamLost):
        cdc.initialize()
    with pytest.raises(ChangeStreamError):
        next(cdc.transactions())
    cdc.close()
    assert "wrong" not in repr(cdc)
