"""SIGKILL of a reader of frames, or of a backlog: nothing is lost, and what is repeated has the same key."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from streamlab.ops.crash import crash_test

from .conftest import Shop

pytestmark = pytest.mark.integration

SOAK = pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")

READER = """
import sys
import psycopg
from streamlab import settings
from streamlab.cdc import PostgreSQLCDC

way, schema, publication, slot = sys.argv[1:]
sink = psycopg.connect(settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}")

def write(rows):
    with sink.transaction():
        sink.cursor().executemany("INSERT INTO copied VALUES (%s, %s, %s)", rows)

with PostgreSQLCDC(settings.postgres_dsn("cdc"), publication, slot) as cdc:
    if way == "catch up":
        for transaction in cdc.catch_up(rows=6):
            write([(event.new_data["id"], int(event.position), event.ordinal) for event in transaction])
            cdc.acknowledge(transaction)
    else:
        backlog = None if way == "stream" else 0
        for batch in cdc.frames(max_rows=1, backlog=backlog, until=cdc.written()):
            for frame in batch:
                write(frame.data.select("id", "position", "ordinal").rows())
            cdc.acknowledge(batch)
            if way == "stream":
                # Each transaction on its own, however many were received together.
                cdc.flush()
"""


@pytest.mark.parametrize(
    ("way", "point", "number"),
    [
        ("stream", "cdc.before_ack", 1),
        ("backlog", "cdc.catch_up.before_advance", 1),
        ("catch up", "cdc.catch_up.after_advance", 1),
        pytest.param("stream", "cdc.after_ack", 1, marks=SOAK),
        pytest.param("backlog", "cdc.before_ack", 1, marks=SOAK),
        pytest.param("backlog", "cdc.catch_up.after_advance", 1, marks=SOAK),
        pytest.param("catch up", "cdc.before_ack", 2, marks=SOAK),
        pytest.param("catch up", "cdc.catch_up.before_advance", 2, marks=SOAK),
    ],
)
def test_nothing_is_lost_and_what_is_repeated_has_the_same_key(
    shop: Shop, tmp_path: Path, way: str, point: str, number: int
) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)
    shop.app.execute("CREATE TABLE copied (id int, position bigint, ordinal int)")
    cdc = shop.reader()

    def prepare() -> None:
        cdc.drop()
        shop.app.execute("TRUNCATE orders, copied")
        cdc.initialize()
        for first in range(1, 17, 2):
            shop.app.execute("INSERT INTO orders VALUES (%s), (%s)", [first, first + 1])

    report = crash_test(
        [sys.executable, str(script), way, shop.schema, shop.publication, shop.slot],
        [point],
        prepare=prepare,
        expected=lambda: [row[0] for row in shop.app.execute("SELECT id FROM orders")],
        seen=lambda: [row[0] for row in shop.app.execute("SELECT id FROM copied")],
        passes=(number,),
        control=False,
    )
    assert report.lost == 0, report
    (trial,) = report.trials
    assert not trial.unknown
    if point.endswith(("before_ack", "before_advance")):
        assert trial.duplicated, "it was killed between the effect and the acknowledgement"
    if point.endswith("after_advance"):
        assert not trial.duplicated, "the slot had been moved behind it"
    assert shop.value("SELECT count(DISTINCT (position, ordinal)) FROM copied") == 16
