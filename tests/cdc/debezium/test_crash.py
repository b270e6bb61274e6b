"""SIGKILL of a reader of topics at its failpoints: nothing is lost, and what is repeated has the same key."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from streamlab import settings
from streamlab.ops.crash import crash_test

from .conftest import Captured

pytestmark = pytest.mark.integration

READER = """
import json, os, sys, threading
from streamlab import settings
from streamlab.cdc.debezium import DebeziumSource

topics, transaction_topic, group, path, last = json.loads(sys.argv[1])
done = threading.Event()
sink = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def write(event):
    key = event.new_data["id"], event.table_name, str(event.position), event.ordinal
    os.write(sink, (json.dumps(key) + chr(10)).encode())
    if event.new_data["id"] == last:
        done.set()

options = {"session.timeout.ms": 6000}
with DebeziumSource(
    settings.kafka_bootstrap(), topics, group, transaction_topic=transaction_topic, options=options
) as cdc:
    cdc.add_handler(write)
    cdc.start()
    assert done.wait(40)
"""

SOAK = pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("cdc.after_handler"),
        pytest.param("cdc.after_commit"),
        *(
            pytest.param(each, marks=SOAK)
            for each in ("cdc.before_handler", "cdc.debezium.before_ack", "cdc.debezium.after_ack", "cdc.before_commit")
        ),
    ],
)
def test_nothing_is_lost_and_what_is_repeated_has_the_same_key(captured: Captured, point: str, tmp_path: Path) -> None:
    one, other = captured.table(), captured.table()
    sink, script = tmp_path / "sink", tmp_path / "reader.py"
    script.write_text(READER)
    # Transactions over both tables; the ledger is what was committed.
    for number in range(0, 40, 4):
        one.commit(
            f"INSERT INTO {{}} VALUES ({number}, 'a', 1), ({number + 1}, 'b', 1)",
            f"INSERT INTO {other.name} VALUES ({number + 2}, 'c', 1)",
            f"INSERT INTO {{}} VALUES ({number + 3}, 'd', 1)",
        )  # fmt: skip
    arguments = [[one.topic, other.topic], captured.transactions, one.group, str(sink), 39]

    def seen() -> list[tuple[int, str]]:
        return [(number, name) for number, name, *_ in map(json.loads, sink.read_text().splitlines())]

    def expected() -> list[tuple[int, str]]:
        return [
            (row[0], table.name) for table in (one, other) for row in captured.execute(f"SELECT id FROM {table.name}")
        ]

    report = crash_test(
        [sys.executable, str(script), json.dumps(arguments)], (point,), prepare=lambda: None, expected=expected,
        seen=seen, passes=(3,) if "commit" not in point else (1,), control=False,
        env={"STREAMLAB_HOME": os.environ["STREAMLAB_HOME"]},
    )  # fmt: skip
    assert report.lost == 0
    assert settings.stack_state()
    keys = [json.loads(line) for line in sink.read_text().splitlines()]
    assert len({(number, name) for number, name, *_ in keys}) == 40
    assert len({(*key,) for key in keys}) == 40, "what is repeated has the same position and ordinal"
