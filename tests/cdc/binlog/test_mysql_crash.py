"""SIGKILL of a reader of MySQL at each of its failpoints: nothing is lost, and what is repeated has the same key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamlab.failpoints import registered
from streamlab.ops.crash import CrashReport, crash_test

from .conftest import MySQLShop

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

READER = """
import sys, threading
import pymysql
from streamlab import settings
from streamlab.cdc import MySQLCDC

snapshot, database, file, last = sys.argv[1:]
done = threading.Event()
sink = pymysql.connect(**settings.mysql_address("app").arguments(database=database), autocommit=True)

def write(transaction):
    rows = [(event.new_data["id"], str(event.position), event.ordinal) for event in transaction]
    with sink.cursor() as cursor:
        cursor.executemany("INSERT INTO copied VALUES (%s, %s, %s)", rows)
    if rows[-1][0] == int(last):
        done.set()

with MySQLCDC(
    settings.mysql_address("cdc"), "copy", tables=[f"{database}.orders"], checkpoint=file, snapshot=snapshot
) as cdc:
    cdc.add_handler(lambda event: None)
    cdc.add_transaction_handler(write)
    cdc.start()
    assert done.wait(30)
"""
POINTS = ("cdc.before_handler", "cdc.after_handler", "cdc.binlog.before_ack", "cdc.binlog.after_ack")


def test_every_failpoint_of_this_reader_is_tried() -> None:
    assert set(registered("streamlab.cdc.binlog")) == {*POINTS[2:], "cdc.binlog.in_snapshot"}


class Copying:
    def __init__(self, shop: MySQLShop, script: Path) -> None:
        self.shop, self.script = shop, script
        script.write_text(READER)
        self.file = shop.directory / "copy"
        shop.execute("CREATE TABLE copied (id int, position text, ordinal int)")

    def prepare(self, rows: int) -> None:
        self.file.unlink(missing_ok=True)
        for table in ("orders", "copied"):
            self.shop.execute(f"TRUNCATE {table}")
        if rows:
            self.shop.execute("SET SESSION cte_max_recursion_depth = 100000")
            self.shop.execute(
                "INSERT INTO orders (id) WITH RECURSIVE n (i) AS "
                "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT i FROM n",
                rows,
            )
            return
        reader = self.shop.reader(checkpoint=self.file, name="copy")  # from here on
        reader.close()
        for number in range(1, 9, 2):
            self.shop.execute("INSERT INTO orders (id) VALUES (%s), (%s)", number, number + 1)

    def test(self, point: str, number: int, *, rows: int = 0) -> CrashReport:
        shop, snapshot = self.shop, "initial" if rows else "never"
        return crash_test(
            [sys.executable, str(self.script), snapshot, shop.database, str(self.file), str(rows or 8)],
            (point,),
            prepare=lambda: self.prepare(rows),
            expected=lambda: [row[0] for row in shop.execute("SELECT id FROM orders")],
            seen=lambda: [row[0] for row in shop.execute("SELECT id FROM copied")],
            passes=(number,),
            control=False,
        )

    def keys(self) -> int:
        """How many different changes the sink was given, by their keys."""
        return int(self.shop.execute("SELECT count(DISTINCT position, ordinal) FROM copied")[0][0])


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_and_what_is_repeated_has_the_same_key(shop: MySQLShop, tmp_path: Path, point: str) -> None:
    copying = Copying(shop, tmp_path / "reader.py")
    report = copying.test(point, 3 if point == "cdc.before_handler" else 2)
    assert report.lost == 0
    (trial,) = report.trials
    # The transaction that was handled and not acknowledged, and those whose position was not in the file yet.
    assert set(trial.duplicated) <= {1, 2, 3, 4}
    if point in {"cdc.after_handler", "cdc.binlog.before_ack"}:
        assert {3, 4} <= set(trial.duplicated)
    assert copying.keys() == 8


def test_a_snapshot_that_was_killed_half_way_is_made_again(shop: MySQLShop, tmp_path: Path) -> None:
    copying = Copying(shop, tmp_path / "reader.py")
    report = copying.test("cdc.binlog.in_snapshot", 20, rows=25_000)
    assert report.lost == 0
    assert report[0].duplicated
