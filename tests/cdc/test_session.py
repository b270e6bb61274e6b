"""A session: snapshot and stream with no gap and no overlap, and nothing left behind (pitfall 13)."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc.event import Operation
from streamlab.cdc.snapshot import fields
from streamlab.errors import CannotCapture, SettingsError, SlotLost, SlotMissing

from .conftest import Shop, eventually, interrupted

pytestmark = pytest.mark.integration

_LEFT = """SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'streamlab_session_%%')
                + (SELECT count(*) FROM pg_publication WHERE pubname LIKE 'streamlab_session_%%')"""


def test_what_is_committed_from_now_on_comes_and_nothing_stays(shop: Shop) -> None:
    shop.insert(1)
    with shop.session() as cdc:
        shop.insert(2, 3)
        assert [event.new_data["id"] for (event,) in cdc.transactions(until=2)] == [2, 3]
        assert shop.value(_LEFT) == 2
        assert cdc.acknowledged == cdc.received
    assert shop.value(_LEFT) == 0
    with pytest.raises(SlotMissing, match="is over"):
        next(cdc.transactions())


@pytest.mark.parametrize("batches", [False, True])
def test_snapshot_and_stream_fit_together_while_others_write(shop: Shop, batches: bool) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'old', i FROM generate_series(1, 30000) i")
    over = threading.Event()

    def write() -> None:
        number = 100_000
        while not over.is_set():
            shop.admin.execute("INSERT INTO orders VALUES (%s, 'new', 0)", [number])
            shop.admin.execute("UPDATE orders SET total = total + 1 WHERE id = %s", [1 + number % 30000])
            shop.admin.execute("DELETE FROM orders WHERE id = %s", [30000 - number % 30000])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    replica: dict[int, Any] = {}
    keys = []
    try:
        with shop.session(snapshot="initial") as cdc:
            stream: Any = cdc.batches(max_rows=500, max_wait=0.05) if batches else cdc.transactions()
            for number, transaction in enumerate(stream):
                for event in transaction:
                    keys.append((event.position, event.ordinal))
                    if event.operation is Operation.DELETE:
                        del replica[event.old_data["id"]]
                    else:
                        # An insert of a row that is there would be an overlap, an update of one that is not a gap.
                        assert (event.new_data["id"] in replica) is (event.operation is Operation.UPDATE)
                        replica[event.new_data["id"]] = (event.new_data["note"], event.new_data["total"])
                if number > 60:
                    break
            over.set()
            writer.join()
            for transaction in cdc.transactions(until=cdc.written()):
                for event in transaction:
                    keys.append((event.position, event.ordinal))
                    if event.operation is Operation.DELETE:
                        replica.pop(event.old_data["id"], None)
                    else:
                        replica[event.new_data["id"]] = (event.new_data["note"], event.new_data["total"])
    finally:
        over.set()
        writer.join()
    rows = shop.app.execute("SELECT id, note, total FROM orders").fetchall()
    assert replica == {number: (note, total) for number, note, total in rows}
    assert len(set(keys)) > 30000


def test_until_what_is_written_takes_in_the_whole_snapshot(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'old', i FROM generate_series(1, 25000) i")
    with shop.session(snapshot="initial") as cdc:
        assert len([each for rows in cdc.transactions(until=cdc.written()) for each in rows]) == 25_000
        assert list(cdc.transactions(until=cdc.written())) == []
    with shop.session(snapshot="initial") as cdc:
        next(cdc.transactions())
        again = [each for batch in cdc.batches(until=cdc.written()) for each in batch]
        assert sorted(each.new_data["id"] for each in again) == list(range(1, 25_001))


def test_a_snapshot_alone_ends_by_itself_and_reads_what_copy_has_to_escape(shop: Shop) -> None:
    texts = ["tab\there", "line\nhere", "back\\slash", "\\N", "", None, "grüße \x01 ok", "a\rb\bc\fd\ve"]
    for number, text in enumerate(texts):
        shop.app.execute("INSERT INTO orders VALUES (%s, %s, %s)", [number, text, Decimal(number)])
    with shop.session(snapshot="only") as cdc:
        events = [event for transaction in cdc.transactions() for event in transaction]
    assert [each.new_data["note"] for each in events] == texts
    assert [each.ordinal for each in events] == list(range(len(texts)))
    assert {(each.operation, each.primary_key) for each in events} == {(Operation.SNAPSHOT, ("id",))}
    assert {each.position for each in events} == {cdc.began}


def test_a_snapshot_has_the_columns_and_rows_that_are_published(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'secret', i FROM generate_series(1, 10) i")
    shop.app.execute(
        sql.SQL("CREATE PUBLICATION {} FOR TABLE orders (id, total) WHERE (id > 7)").format(
            sql.Identifier(shop.publication)
        )
    )
    with shop.session(tables=(), publication=shop.publication, snapshot="initial") as cdc:
        shop.insert(0, 20)
        events = [event for transaction in cdc.transactions(until=cdc.written()) for event in transaction]
    assert [dict(each.new_data) for each in events[:3]] == [{"id": i, "total": Decimal(i)} for i in (8, 9, 10)]
    assert [each.new_data for each in events[3:]] == [{"id": 20, "total": Decimal("1.5")}]
    assert shop.value("SELECT count(*) FROM pg_publication WHERE pubname = %s", shop.publication) == 1


def test_an_iteration_begins_where_the_last_one_was_left(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 5) i")
    with shop.session(snapshot="initial") as cdc:
        shop.insert(10, 11)
        assert len(next(cdc.transactions())) == 5
        assert len(next(cdc.transactions())) == 5, "nobody asked for the next"
        seen = []
        for transaction in cdc.transactions():
            seen.append([event.new_data["id"] for event in transaction])
            if seen[-1] == [10]:
                break
        assert [[event.new_data["id"] for event in each] for each in cdc.transactions(until=cdc.written())] == [
            [10],
            [11],
        ]


def test_interrupts_take_nothing_from_a_session(shop: Shop) -> None:
    """Pitfall 9, where there is no slot to come back to."""
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 60000) i")
    seen: set[int] = set()
    with shop.session(snapshot="initial") as cdc:
        shop.app.execute(
            "DO $$ BEGIN FOR i IN 60001..60500 LOOP INSERT INTO orders VALUES (i); COMMIT; END LOOP; END $$"
        )

        def read() -> None:
            for transaction in cdc.transactions(idle=2):
                seen.update(event.new_data["id"] for event in transaction)
                if len(seen) == 60500:
                    break

        moment = random.Random(7)
        interrupts = sum(interrupted(read, moment.uniform(0, 0.03)) for _ in range(40))
        tries = 0
        while interrupts <= 5 and tries < 1000:  # on a busy machine fewer of them hit
            interrupts += interrupted(read, moment.uniform(0, 0.03))
            tries += 1
        read()
        shop.insert(99999)
        assert 99999 in [event.new_data["id"] for each in cdc.transactions(until=cdc.written()) for event in each]
    assert seen == set(range(1, 60501))
    assert interrupts > 5


def test_a_killed_process_leaves_no_slot_and_its_publication_goes_with_the_next_session(shop: Shop) -> None:
    program = """
import sys
from streamlab.cdc.postgres import PostgreSQLCDC
cdc = PostgreSQLCDC.session(sys.argv[1], [sys.argv[3]], setup_dsn=sys.argv[2])
cdc.initialize()
print("open", flush=True)
sys.stdin.read()
"""
    arguments = [str.__str__(settings.postgres_dsn("cdc")), str.__str__(settings.postgres_dsn("app")), shop.orders]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with shop.session():
            assert shop.value(_LEFT) == 4, "one that lives is left alone"
        process.kill()
    eventually(lambda: shop.value(_LEFT) == 1)
    with shop.session():
        assert shop.value(_LEFT) == 2
    assert shop.value(_LEFT) == 0


def test_a_connection_that_is_lost_ends_the_session_and_says_what_is_gone(shop: Shop) -> None:
    with shop.session() as cdc:
        transactions = cdc.transactions(idle=5)
        shop.insert(1)
        next(transactions)
        shop.admin.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", [cdc.slot_name]
        )
        with pytest.raises(SlotLost, match="temporary slot went with it"):
            next(transactions)


def test_rows_that_a_policy_hides_are_an_error_and_not_a_gap(shop: Shop) -> None:
    shop.app.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    shop.insert(1)
    with pytest.raises(CannotCapture, match="row-level security"), shop.session(snapshot="only") as cdc:
        list(cdc.transactions())


def test_misuse_is_said(shop: Shop) -> None:
    with pytest.raises(SettingsError, match="never, initial or only"):
        shop.session(snapshot="sometimes")
    with pytest.raises(SettingsError, match="what to read"):
        shop.session(tables=())


def test_bytes_that_are_no_text_in_a_snapshot_do_not_end_it() -> None:
    # As a database in SQL_ASCII may hold them.
    assert fields(b"1\t\xff\\t\xc3\xa9\n", [int, str]) == [1, "\udcff\té"]
