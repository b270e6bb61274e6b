"""`up`, `down`, `status`, `reset`, `logs`, `metrics`: the real command on real servers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import filelock
import psycopg
import pytest
from cli.command import processes, start, streamlab
from psycopg.conninfo import make_conninfo

from streamlab import settings
from streamlab.metrics import ASKED
from streamlab.stack import DEFAULT

SERVICE = {
    "name": str,
    "title": str,
    "state": str,
    "version": str,
    "host": str,
    "port": int,
    "pid": int | None,
    "rss_bytes": int,
    "start_seconds": float | None,
    "ours": bool,
    "problem": str,
    "fix": str,
}


def status(home: Path | None = None) -> dict[str, dict[str, Any]]:
    result = streamlab("status", "--json", **({"STREAMLAB_HOME": str(home)} if home else {}))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert set(document) == {"home", "rss_bytes", "services", "connectors", "topics", "groups", "problems"}
    assert document["problems"] == {}
    for row in document["services"]:
        assert list(row) == list(SERVICE)
        assert all(isinstance(row[key], kind) for key, kind in SERVICE.items()), row
    assert document["rss_bytes"] == sum(row["rss_bytes"] for row in document["services"])
    return {row["name"]: row for row in document["services"]}


@pytest.mark.integration
def test_status_tells_what_runs(stack: object) -> None:
    rows = status()
    # Beside them may run what another test has asked for.
    assert [name for name in rows if name in DEFAULT] == list(DEFAULT)
    assert {row["state"] for row in rows.values()} == {"running"}
    assert all(row["pid"] and row["rss_bytes"] > 2**20 and row["ours"] for row in rows.values())
    shown = streamlab("status").stdout
    for row in rows.values():
        assert f"{row['host']}:{row['port']}" in shown
    assert "Memory of all: " in shown


@pytest.mark.integration
def test_up_leaves_what_serves_alone(stack: object) -> None:
    before = {name: row["pid"] for name, row in status().items()}
    result = streamlab("up", "postgres", "mysql")
    assert result.returncode == 0
    assert result.stdout.count("was running") == 2
    assert {name: row["pid"] for name, row in status().items()} == before


@pytest.mark.integration
def test_logs_are_the_end_of_the_file(stack: Any) -> None:
    log = stack.home.path / "kafka" / "log"
    for count in (1, 500):
        before = log.read_text(encoding="utf-8").splitlines()
        shown = streamlab("logs", "kafka", "-n", str(count)).stdout.splitlines()
        after = log.read_text(encoding="utf-8").splitlines()  # the server may have gone on writing
        assert min(count, len(before)) <= len(shown) <= min(count, len(after))
        assert shown[0] in after


@pytest.mark.integration
def test_metrics_are_printed_for_programs(stack: object) -> None:
    result = streamlab("metrics", "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert [(row["service"], row["up"], row["complete"], row["problem"]) for row in document["services"]] == [
        (name, True, True, "") for name in DEFAULT
    ]
    assert [family["name"] for family in document["metrics"]] == [one.name for one in ASKED.values()]
    (binlog,) = next(each["samples"] for each in document["metrics"] if each["name"] == "streamlab_mysql_binlog_bytes")
    assert binlog["labels"] == {}
    assert binlog["value"] > 0
    assert 'streamlab_up{service="kafka"} 1.0\n' in streamlab("metrics").stdout


@pytest.mark.integration
def test_a_server_goes_down_and_comes_up_again_and_its_log_is_followed(another_home: Path) -> None:
    up = streamlab("up", "postgres", STREAMLAB_HOME=str(another_home))
    assert up.returncode == 0, up.stderr
    assert "postgres: starting" in up.stderr
    assert "started in" in up.stdout
    assert status(another_home)["mysql"]["state"] == "stopped"

    following = start("logs", "postgres", "-f", STREAMLAB_HOME=str(another_home))
    try:
        following.wait_for_line("ready to accept connections")
        down = streamlab("down", STREAMLAB_HOME=str(another_home))
        assert (down.returncode, down.stdout) == (0, "Stopped: postgres.\n")
        following.wait_for_line("database system is shut down")
        assert status(another_home)["postgres"]["state"] == "stopped"
        assert streamlab("up", "postgres", STREAMLAB_HOME=str(another_home)).returncode == 0
        following.wait_for(
            lambda: sum("ready to accept connections" in line for line in following.printed) == 2, "the second start"
        )
    finally:
        following.send(signal.SIGINT)
        assert following.end() == 130
    assert following.said == ["Interrupted.\n"]

    with psycopg.connect(dsn(another_home), autocommit=True) as connection:
        connection.execute("CREATE TABLE left_over (id int)")
    reset = streamlab("reset", STREAMLAB_HOME=str(another_home))
    assert reset.returncode == 0, reset.stderr
    assert reset.stdout.startswith("Dropped ")
    with psycopg.connect(dsn(another_home)) as connection:
        assert connection.execute("SELECT to_regclass('left_over')").fetchone() == (None,)

    record = status(another_home)["postgres"]
    os.kill(record["pid"], signal.SIGKILL)
    shown = streamlab("status", STREAMLAB_HOME=str(another_home)).stdout
    assert "PostgreSQL has died. See: streamlab logs postgres" in shown


def dsn(home: Path) -> str:
    address = json.loads((home / "stack.json").read_text(encoding="utf-8"))["services"]["postgres"]["address"]
    return make_conninfo(
        host=address["host"],
        port=address["port"],
        dbname=address["database"],
        user=address["roles"]["admin"],
        passfile=address["passfile"],
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "number"), [("postgres: initialising", signal.SIGINT), ("postgres: starting", signal.SIGTERM)]
)
def test_an_interrupted_start_leaves_nothing_half_done(another_home: Path, line: str, number: signal.Signals) -> None:
    running = start("up", "postgres", STREAMLAB_HOME=str(another_home))
    running.wait_for_line(line)
    running.send(number)
    running.send(number)
    assert running.end() == 130
    assert running.said[-1] == "Interrupted.\n"
    assert "Traceback" not in "".join(running.said)
    assert processes(another_home) == []
    with filelock.FileLock(another_home / "lock").acquire(timeout=0):
        pass
    again = streamlab("up", "postgres", STREAMLAB_HOME=str(another_home))
    assert again.returncode == 0, again.stderr


@pytest.mark.integration
def test_a_terminal_that_goes_away_is_an_interrupt(another_home: Path) -> None:
    # A program inherits what is ignored, and below nohup that is this signal.
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        running = start("up", "postgres", STREAMLAB_HOME=str(another_home))
    finally:
        signal.signal(signal.SIGHUP, before)
    running.wait_for_line("postgres: ")
    running.send(signal.SIGHUP)
    assert running.end() == 130
    assert running.said[-1] == "Interrupted.\n"


@pytest.mark.parametrize("service", ["mysql"])
def test_a_purge_is_refused_while_a_server_is_the_users_own(service: str, tmp_path: Path) -> None:
    changes = {"STREAMLAB_HOME": str(tmp_path / "none"), settings.VARIABLES[service]: "127.0.0.1:1"}
    purge = streamlab("down", "--purge", **changes)
    assert purge.returncode == 1
    assert f"Unset {settings.VARIABLES[service]}" in purge.stderr
