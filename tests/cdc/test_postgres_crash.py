"""SIGKILL of the reader at its failpoints: nothing is lost, and what was not acknowledged comes again, keyed alike."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint
from streamlab.failpoints import registered
from streamlab.ops.crash import CrashReport, crash_test

from .conftest import Shop

pytestmark = pytest.mark.integration


POINTS = ("cdc.before_handler", "cdc.after_handler", "cdc.before_ack", "cdc.after_ack")
ELSEWHERE = {
    *("cdc.before_commit", "cdc.after_commit"),  # debezium/test_crash.py
    *("cdc.low_watermark", "cdc.chunk_read", "cdc.high_watermark", "cdc.before_chunk"),  # test_proofs_chunks.py
    "cdc.in_spill",  # test_proofs_large.py
    *("cdc.catch_up.before_advance", "cdc.catch_up.after_advance"),  # test_framed_crash.py, test_frames_server.py
    *("cdc.binlog.before_ack", "cdc.binlog.after_ack", "cdc.binlog.in_snapshot"),  # binlog/test_mysql_crash.py
    *("cdc.debezium.before_ack", "cdc.debezium.after_ack"),  # debezium/test_crash.py
}


def test_every_failpoint_of_this_room_is_tried() -> None:
    here = {*POINTS, "cdc.checkpoint_acquired", "cdc.checkpoint_moved", "cdc.in_snapshot"}
    assert set(registered("streamlab.cdc")) == here | ELSEWHERE


def points(*quick: str, more: tuple[str, ...] = ()) -> list[Any]:
    """All points of the reader; those that are not tried each time only with STREAMLAB_SOAK=1."""
    soak = pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")
    return [pytest.param(point, marks=() if point in quick else soak) for point in (*POINTS, *more)]


READER = """
import sys, threading
import psycopg
from streamlab import settings
from streamlab.cdc import PostgreSQLCDC
from streamlab.cdc.checkpoint import Checkpoint

way, schema, publication, slot = sys.argv[1:]
done = threading.Event()
sink = psycopg.connect(settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}")

def write(event):
    sink.execute(
        "INSERT INTO copied VALUES (%s, %s, %s)", [event.new_data["id"], str(event.position), event.ordinal]
    )

def at_least_once(event):
    write(event)
    if event.new_data["id"] == 8:
        done.set()

def exactly_once(transaction):
    with sink.transaction():
        for event in transaction:
            write(event)
        held.move(sink, transaction.end_position)
    if event.new_data["id"] == 8:
        done.set()

resume_after = None
if way == "exactly once":
    held = Checkpoint("copy").acquire(sink)
    resume_after = held.position
with PostgreSQLCDC(settings.postgres_dsn("cdc"), publication, slot, resume_after=resume_after) as cdc:
    if way == "exactly once":
        cdc.add_transaction_handler(exactly_once)
    else:
        cdc.add_handler(at_least_once)
    cdc.start()
    assert done.wait(30)
"""


class Copying:
    def __init__(self, shop: Shop, script: Path) -> None:
        self.shop, self.script = shop, script
        script.write_text(READER)
        shop.app.execute("CREATE TABLE copied (id int, position text, ordinal int)")
        Checkpoint("copy").create_table(shop.app)
        self.cdc = shop.reader()

    def prepare(self) -> None:
        """Four transactions of two rows, in a slot of their own."""
        self.cdc.drop()
        self.shop.app.execute("TRUNCATE orders, copied, checkpoints")
        self.cdc.initialize()
        for number in range(1, 9, 2):
            self.shop.app.execute("INSERT INTO orders VALUES (%s), (%s)", [number, number + 1])

    def test(self, way: str, points: tuple[str, ...]) -> CrashReport:
        shop = self.shop
        return crash_test(
            [sys.executable, str(self.script), way, shop.schema, shop.publication, shop.slot],
            points,
            prepare=self.prepare,
            expected=lambda: [row[0] for row in shop.app.execute("SELECT id FROM orders")],
            seen=lambda: [row[0] for row in shop.app.execute("SELECT id FROM copied")],
            passes=(1,) if points == ("cdc.checkpoint_acquired",) else (2,),
            control=False,
        )

    def keys(self) -> int:
        """How many different changes the sink was given, by their keys."""
        return int(self.shop.value("SELECT count(DISTINCT (position, ordinal)) FROM copied"))


@pytest.fixture
def copying(shop: Shop, tmp_path: Path) -> Copying:
    assert settings.stack_state()
    return Copying(shop, tmp_path / "reader.py")


@pytest.mark.parametrize("point", points("cdc.after_handler", "cdc.after_ack"))
def test_nothing_is_lost_and_what_is_repeated_has_the_same_key(copying: Copying, point: str) -> None:
    report = copying.test("at least once", (point,))
    assert report.lost == 0
    (trial,) = report.trials
    # The transaction that was handled and not acknowledged, and those whose acknowledgement had not been sent yet.
    assert set(trial.duplicated) <= {1, 2, 3, 4}
    if point in {"cdc.after_handler", "cdc.before_ack"}:
        assert {3, 4} <= set(trial.duplicated)
    assert copying.keys() == 8


@pytest.mark.parametrize("point", points("cdc.before_ack", more=("cdc.checkpoint_acquired", "cdc.checkpoint_moved")))
def test_with_the_position_in_the_sink_nothing_is_repeated_either(copying: Copying, point: str) -> None:
    report = copying.test("exactly once", (point,))
    assert (report.lost, report.duplicated) == (0, 0)
    assert copying.keys() == 8


SESSION = """
import sys
import psycopg
from streamlab import settings
from streamlab.cdc import PostgreSQLCDC

schema = sys.argv[1]
sink = psycopg.connect(settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}")
sink.execute("TRUNCATE copied")
tables, owner = [f"{schema}.orders"], settings.postgres_dsn("app")
with PostgreSQLCDC.session(settings.postgres_dsn("cdc"), tables, setup_dsn=owner, snapshot="initial") as cdc:
    sink.execute("INSERT INTO orders VALUES (-1) ON CONFLICT (id) DO UPDATE SET note = 'again'")
    for transaction in cdc.transactions():
        events = list(transaction)
        with sink.cursor().copy("COPY copied (id, position, ordinal) FROM STDIN") as copy:
            for event in events:
                copy.write_row((event.new_data["id"], str(event.position), event.ordinal))
        if events[-1].new_data["id"] == -1:
            break
"""


def test_a_session_that_is_killed_in_its_snapshot_leaves_nothing_and_can_be_begun_anew(
    shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "session.py").write_text(SESSION)
    shop.app.execute("CREATE TABLE copied (id int, position text, ordinal int)")

    def prepare() -> None:
        shop.app.execute("TRUNCATE orders")
        shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 30000) i")

    report = crash_test(
        [sys.executable, str(tmp_path / "session.py"), shop.schema],
        ["cdc.in_snapshot"],
        prepare=prepare,
        # The killed run has written its last row too, and the second one has copied it.
        expected=lambda: [row[0] for row in shop.app.execute("SELECT id FROM orders")],
        seen=lambda: [row[0] for row in shop.app.execute("SELECT id FROM copied")],
        passes=(3,),
        control=False,
    )
    assert report.clean, report
    assert shop.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'streamlab_session_%%'") == 0
    assert shop.value("SELECT count(DISTINCT (position, ordinal)) FROM copied") == report[0].expected
