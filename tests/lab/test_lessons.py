"""`lesson()`: services, a namespace of the run's own, and an end that leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest

from streamlab import settings
from streamlab.errors import CheckFailed, LessonError
from streamlab.lab import lesson
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed
from streamlab.stack import Home, Stack

pytestmark = pytest.mark.integration

SLUG = "99_test_of_lessons"


@checker(
    SLUG,
    "double",
    solution=lambda x: 2 * x,
    wrong=[WrongAnswer("square", lambda x: x * x, "Twice is not to the power of two.")],
)
def _double(lab: object, answer: object) -> Verdict:
    assert callable(answer)
    if answer(3) == 9:
        return missed("of 3 it makes 9.", because="square")
    return passed("of 3 it makes 6.") if answer(3) == 6 else missed(f"of 3 it makes {answer(3)}.")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "results.json"))
    monkeypatch.setenv("STREAMLAB_LIVE", "0")
    return tmp_path / "results.json"


def schemas() -> set[str]:
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        return {row[0] for row in connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sl\\_%'")}


def databases() -> set[str]:
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'sl\\_%'")
        return {row[0] for row in cursor.fetchall()}


def test_a_run_has_a_schema_and_a_database_of_its_own_until_it_is_closed(stack: object) -> None:
    threads = set(threading.enumerate())
    with lesson(SLUG, needs=["postgres", "mysql"]) as lab:
        assert lab.namespace.name in schemas()
        assert lab.namespace.name in databases()
        with psycopg.connect(lab.dsn) as connection:
            connection.execute("CREATE TABLE here (id int)")
            row = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'here'").fetchone()
            assert row == (lab.namespace.name,)
        with pymysql.connect(**lab.mysql.arguments()) as mysql, mysql.cursor() as cursor:
            cursor.execute("SELECT database()")
            assert cursor.fetchone() == (lab.namespace.name,)
    assert lab.namespace.name not in schemas() | databases()
    assert not list(Home().leases.glob(f"{lab.namespace.name}*"))
    assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile
    lab.close()  # a second time does nothing


def test_running_the_first_cell_again_closes_the_run_before(stack: object) -> None:
    first = lesson(SLUG, needs=["postgres"])
    with lesson(SLUG, needs=["postgres"]) as second:
        assert first.namespace.closed
        assert first.namespace.name not in schemas()
        assert second.namespace.name in schemas()


def test_closing_does_not_wait_for_transactions_that_the_notebook_left_open(stack: object) -> None:
    lab = lesson(SLUG, needs=["postgres", "mysql"])
    forgotten = psycopg.connect(lab.dsn)
    forgotten.execute("CREATE TABLE busy (id int)")
    mysql = pymysql.connect(**lab.mysql.arguments())
    with mysql.cursor() as cursor:
        cursor.execute("CREATE TABLE busy (id int)")
        cursor.execute("INSERT INTO busy VALUES (1)")  # holds a metadata lock
    try:
        lab.close()
        assert lab.namespace.name not in schemas() | databases()
    finally:
        forgotten.close()
        mysql._force_close()  # type: ignore[attr-defined]


def test_what_a_killed_kernel_left_is_dropped_by_the_next_lesson(stack: object) -> None:
    program = (
        "from streamlab.lab import lesson\n"
        f"lab = lesson({SLUG!r}, needs=['postgres'])\n"
        "print('NAME', lab.namespace.name, flush=True)\n"
        "input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name = next(line.split()[1] for line in process.stdout if line.startswith("NAME"))
    assert name in schemas()
    with lesson(SLUG, needs=["postgres"]):
        assert name in schemas()  # its process lives: not ours to tidy
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    with lesson(SLUG, needs=["postgres"]):
        assert name not in schemas()


def test_a_kernel_that_ends_in_order_closes_its_lesson(stack: object) -> None:
    program = (
        "from streamlab.lab import lesson\n"
        f"lab = lesson({SLUG!r}, needs=['postgres'])\n"
        "print('NAME', lab.namespace.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    name = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("NAME"))
    assert name not in schemas()


@pytest.fixture
def empty_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home where nothing runs, at a place that the servers' user can reach."""
    path = settings.default_home().with_name(f"streamlab-test-empty-{os.getpid()}")
    monkeypatch.setenv("STREAMLAB_HOME", str(path))
    yield path
    Stack(Home()).down(purge=True)
    (path / "lock").unlink(missing_ok=True)
    path.rmdir()


def test_without_leave_to_start_servers_it_says_how(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_home.mkdir()
    monkeypatch.setenv("STREAMLAB_AUTOSTART", "0")
    with pytest.raises(LessonError, match="needs postgres, which does not run. Start it: streamlab up postgres"):
        lesson(SLUG, needs=["postgres"])


def test_a_server_that_is_missing_is_started(empty_home: Path) -> None:
    with lesson(SLUG, needs=["postgres"]) as lab:
        assert lab.namespace.name in schemas()
        assert "1 of 1 server running" in lab.picture().to_text()


def test_an_unknown_service_is_named(stack: object) -> None:
    with pytest.raises(LessonError, match="no service called postgresql"):
        lesson(SLUG, needs=["postgresql"])


def test_an_address_that_the_lesson_did_not_ask_for_is_refused(stack: object) -> None:
    with lesson(SLUG, needs=["postgres"]) as lab, pytest.raises(LessonError, match=r"needs=\[..., 'kafka'\]"):
        _ = lab.kafka


def test_exercises_three_ways(stack: object, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lesson(SLUG, needs=["postgres"]) as lab:
        assert not lab.check("double", ...)
        assert "not attempted yet" in capsys.readouterr().out
        assert lab.carry_on("double")(4) == 8
        assert "reference solution" in capsys.readouterr().out
        with pytest.raises(CheckFailed, match="Twice is not to the power of two"):
            lab.check("double", lambda x: x * x)
        assert lab.check("double", lambda x: x + x)
        assert lab.carry_on("double")(5) == 10
    told = json.loads(results.read_text(encoding="utf-8"))
    assert (told["checks_passed"], told["checks_total"], told["finished"]) == (1, 1, True)


def test_a_reader_who_is_wrong_is_not_thrown_out(stack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_LIVE", "1")
    with lesson(SLUG, needs=["postgres"]) as lab:
        assert not lab.check("double", lambda x: x * x)
        assert lab.carry_on("double")(4) == 8


def test_figures_and_wrong_cells_are_kept(stack: object, results: Path) -> None:
    with lesson(SLUG, needs=["postgres"], seed=5) as lab:
        with lab.wrong("a table that is not there") as it, psycopg.connect(lab.dsn) as connection:
            it.expect(sqlstate="42P01")
            connection.execute("SELECT * FROM nowhere")
        lab.measured("delay", 1.5, "ms")
    told = json.loads(results.read_text(encoding="utf-8"))
    assert told["seed"] == 5
    assert told["measured"] == {"delay": {"value": 1.5, "unit": "ms"}}
    assert [each["title"] for each in told["wrong"]] == ["a table that is not there"]


def test_what_cannot_be_closed_keeps_nothing_from_being_dropped(stack: object) -> None:
    lab = lesson(SLUG, needs=["postgres"])

    def fail() -> None:
        raise ConnectionError("the server has died")

    lab._closing.callback(fail)
    with pytest.raises(ConnectionError):
        lab.close()
    assert lab.namespace.name not in schemas()
    assert lab.namespace.closed


@pytest.mark.parametrize("service", ["postgres", "mysql"])
def test_a_shop_of_the_run_has_the_seed_of_the_lesson(service: str, stack: object) -> None:
    with lesson(SLUG, needs=[service], seed=5) as lab:
        shop = lab.shop(service, customers=3, products=4)
        assert shop.parameters.seed == 5
        shop.run(transactions=5)
        assert not shop.compare()
        if service == "postgres":
            with psycopg.connect(lab.dsn) as connection:
                assert connection.execute("SELECT count(*) FROM products").fetchone() is not None
        # Left open: the end of the lesson rolls it back, and is not held up by its locks.
        shop.begin_order()
    assert lab.namespace.name not in schemas() | databases()
