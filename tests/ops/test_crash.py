"""The crash harness sees loss, duplication and invention where they are, and refuses trials that prove nothing."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from rich.console import Console

from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint
from streamlab.errors import CrashTestError, NeverReached
from streamlab.failpoints import registered
from streamlab.ops.crash import CrashReport, CrashTrial, crash_test
from streamlab.stack.namespace import Namespace

# A consumer that copies the rows of one table to another. Its position is in a file, or in the sink's transaction.
CONSUMER = """
import os, sys, psycopg
from pathlib import Path
from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint
from streamlab.failpoints import failpoint

way, schema, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])

def acknowledge(number):
    beside = file.with_suffix(".new")
    beside.write_text(str(number))
    os.replace(beside, file)
    failpoint("copy.acknowledged")

def write(connection, number):
    connection.execute("INSERT INTO copied SELECT * FROM orders WHERE id = %s", [number])
    failpoint("copy.written")

with psycopg.connect(
    settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}"
) as connection:
    if way == "one transaction":
        held = Checkpoint("copy", parse=int).acquire(connection)
        done = held.position or 0
    else:
        done = int(file.read_text()) if file.exists() else 0
    for (number,) in connection.execute("SELECT id FROM orders WHERE id > %s ORDER BY id", [done]).fetchall():
        if way == "acknowledge, then write":
            acknowledge(number)
            write(connection, number)
        elif way == "write, then acknowledge":
            write(connection, number)
            acknowledge(number)
        else:
            with connection.transaction():
                write(connection, number)
                held.move(connection, number)
            failpoint("copy.committed")
"""


class Copying:
    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.schema = namespace.postgres_schema()
        self.script = directory / "consumer.py"
        self.script.write_text(CONSUMER)
        self.file = directory / "position"
        self.connection: psycopg.Connection[Any] = psycopg.connect(
            settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={self.schema}"
        )
        self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        self.connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY); CREATE TABLE copied (id bigint)")
        Checkpoint("copy").create_table(self.connection)

    def prepare(self) -> None:
        self.connection.execute("TRUNCATE orders, copied, checkpoints")
        self.connection.execute("INSERT INTO orders SELECT generate_series(1, 5)")
        self.file.unlink(missing_ok=True)

    def ids(self, table: str) -> list[int]:
        query = sql.SQL("SELECT id FROM {} ORDER BY id").format(sql.Identifier(table))
        return [row[0] for row in self.connection.execute(query)]

    def test(self, way: str, points: Any, **options: Any) -> CrashReport:
        return crash_test(
            [sys.executable, str(self.script), way, self.schema, str(self.file)],
            points,
            prepare=self.prepare,
            expected=lambda: self.ids("orders"),
            seen=lambda: self.ids("copied"),
            **options,
        )


@pytest.fixture
def copying(stack: object, tmp_path: Path) -> Iterator[Copying]:
    with Namespace("test_crash") as namespace:
        made = Copying(namespace, tmp_path)
        yield made
        made.connection.close()


@pytest.mark.integration
def test_acknowledging_before_writing_loses(copying: Copying) -> None:
    report = copying.test("acknowledge, then write", {"copy.acknowledged": [3]})
    control, acknowledged = report
    assert control.clean
    assert (acknowledged.lost, acknowledged.duplicated) == ((3,), ())
    assert (report.lost, report.duplicated, report.clean) == (1, 0, False)


@pytest.mark.integration
def test_writing_before_acknowledging_repeats(copying: Copying) -> None:
    report = copying.test("write, then acknowledge", {"copy.written": [2], "copy.acknowledged": [2]}, control=False)
    written, acknowledged = report
    assert (written.lost, written.duplicated) == ((), (2,))
    assert acknowledged.clean
    assert (report.lost, report.duplicated) == (0, 1)


@pytest.mark.integration
def test_effect_and_position_in_one_transaction_neither_lose_nor_repeat(copying: Copying) -> None:
    points = {"cdc.checkpoint_acquired": [1], "copy.written": [2], "cdc.checkpoint_moved": [2], "copy.committed": [2]}
    known = registered(copying.script, "streamlab.cdc.checkpoint")
    assert set(points) == set(known) - {"copy.acknowledged"}
    report = copying.test("one transaction", points, control=False)
    assert report.clean, report
    assert {each.point: [each.number] for each in report} == points
    assert all(each.expected == 5 for each in report)


@pytest.mark.integration
def test_a_point_that_is_not_reached_proves_nothing(copying: Copying) -> None:
    with pytest.raises(NeverReached, match=r"without passing copy\.written 6 times"):
        copying.test("one transaction", ["copy.written"], passes=[6], control=False)


PROGRAM = """
import sys, time
from streamlab.failpoints import failpoint
failpoint("step.one")
{}
"""


@pytest.fixture
def trial(tmp_path: Path) -> Any:
    """Makes a program of a few lines and tests it; the sink is a file that it may write to."""
    script = tmp_path / "program.py"

    def test(text: str, points: Any = ("step.one",), **options: Any) -> CrashReport:
        script.write_text(PROGRAM.format(text))
        nothing: dict[str, Any] = {"prepare": lambda: None, "expected": list, "seen": list, "control": False}
        return crash_test([sys.executable, str(script)], points, **{**nothing, **options})

    return test


def test_a_program_that_fails_by_itself_is_shown_with_its_last_words(trial: Any) -> None:
    with pytest.raises(CrashTestError, match=r"(?s)exit code 1 when it should have finished.*no such order"):
        trial("raise LookupError('no such order')")
    with pytest.raises(CrashTestError, match=r"exit code 7 before it passed step\.two 1 times"):
        trial("sys.exit(7)\nfailpoint('step.two')", ["step.two"])


def test_a_name_that_is_no_failpoint_is_shown_with_the_nearest_one(trial: Any) -> None:
    with pytest.raises(CrashTestError, match=r"step\.one=kill@1"):
        trial("", ["step.won"])


def test_a_program_that_hangs_is_ended_with_its_children(trial: Any, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CrashTestError, match="did not end within 1.5 s"):
        trial(
            "import subprocess\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
            f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
            "child.wait()",
            limit=1.5,
        )
    status = Path(f"/proc/{pid.read_text()}/stat")
    deadline = time.monotonic() + 5
    while status.exists() and status.read_text().split(")")[-1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_cannot_be_tried_is_refused(trial: Any) -> None:
    with pytest.raises(CrashTestError, match="no failpoint"):
        trial("", [])
    with pytest.raises(CrashTestError, match="cannot be started"):
        crash_test(["/no/such/program"], ["a.b"], prepare=list, expected=list, seen=list)


def test_the_second_run_is_without_failpoints_and_has_the_variables(trial: Any, tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    report = trial(
        "import os\n"
        f"open({str(sink)!r}, 'a').write(os.environ['WORD'] + str('STREAMLAB_FAILPOINTS' in os.environ) + '\\n')\n"
        "failpoint('step.two')",
        ["step.two"],
        env={"WORD": "here ", "STREAMLAB_FAILPOINTS": "step.one=kill"},
        expected=lambda: ["here True", "here False"],
        seen=lambda: sink.read_text().splitlines(),
    )
    assert report.clean, report


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_the_comparison_balances(expected: list[int], seen: list[int]) -> None:
    trial = CrashTrial.compared("a.b", 1, expected, seen, 0.0)
    assert len(expected) - len(trial.lost) + len(trial.duplicated) + len(trial.unknown) == len(seen)
    assert trial.clean == (sorted(expected) == sorted(seen))
    assert set(trial.lost) <= set(expected)
    assert not set(trial.unknown) & set(expected)


def test_a_report_shows_itself_as_a_table() -> None:
    report = CrashReport(
        (
            CrashTrial("", 0, 5, (), (), (), 0.1),
            CrashTrial("sink.before_ack", 12, 5, (1, 2), (3,), ("<b>",), 0.1),
        )
    )
    text = str(report).splitlines()
    assert text[0].split() == ["point", "pass", "expected", "lost", "duplicated", "unknown"]
    assert text[1].split() == ["no", "crash", "5", "0", "0", "0"]
    assert text[2].split() == ["sink.before_ack", "12", "5", "2", "1", "1"]
    output = io.StringIO()
    Console(file=output, width=100).print(report)
    assert "sink.before_ack" in output.getvalue()
    html = report._repr_html_()
    assert html.count("<tr>") == 3
    assert "sink.before_ack" in repr(report)
    assert (len(report), report[1].clean, report.clean) == (2, False, False)
