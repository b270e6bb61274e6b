"""SIGKILL of the reader at its failpoints: nothing is lost, and what was not acknowledged comes again, keyed alike."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint
from streamlab.ops.crash import CrashReport, crash_test

from .conftest import Shop

pytestmark = pytest.mark.integration


def points(*quick: str) -> list[Any]:
    """All points of the reader; those that are not tried each time only with STREAMLAB_SOAK=1."""
    soak = pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")
    known = ("cdc.before_handler", "cdc.after_handler", "cdc.before_ack", "cdc.after_ack")
    return [pytest.param(point, marks=() if point in quick else soak) for point in known]


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
            passes=(2,),
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


@pytest.mark.parametrize("point", points("cdc.before_ack"))
def test_with_the_position_in_the_sink_nothing_is_repeated_either(copying: Copying, point: str) -> None:
    report = copying.test("exactly once", (point,))
    assert (report.lost, report.duplicated) == (0, 0)
    assert copying.keys() == 8
