"""Many rounds of what the other tests do once: a long proof, `make soak`.

Servers are killed in every combination, and each time the next `up` brings back what was committed; lessons are killed
at any moment, and each time the next one tidies what they left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pymysql
import pytest

from streamlab import settings
from streamlab.lab import kernel, lesson
from streamlab.stack import DEFAULT, Home, Stack, leases
from streamlab.stack.namespace import Namespace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("STREAMLAB_SOAK"), reason="a long proof: make soak"),
]

ROUNDS = 40


def test_servers_killed_in_every_combination_lose_nothing_that_was_committed(stack: Stack) -> None:
    draw = random.Random(7)
    with Namespace("rounds") as namespace:
        schema, database = namespace.postgres_schema(), namespace.mysql_database()
        with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as postgres:
            postgres.execute(f"CREATE SCHEMA {schema}")
            postgres.execute(f"CREATE TABLE {schema}.kept (n int)")
        with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as mysql:
            with mysql.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {database}")
                cursor.execute(f"CREATE TABLE {database}.kept (n int)")
        slowest = 0.0
        for number in range(ROUNDS):
            with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as postgres:
                postgres.execute(f"INSERT INTO {schema}.kept VALUES (%s)", [number])
            with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as mysql:
                with mysql.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {database}.kept VALUES (%s)", (number,))
            victims = draw.sample(list(DEFAULT), draw.randint(1, len(DEFAULT)))
            for row in stack.status():
                if row.name in victims and row.pid is not None:
                    psutil.Process(row.pid).kill()
            begin = time.monotonic()
            outcomes = stack.up()
            slowest = max(slowest, time.monotonic() - begin)
            assert [str(each.error) for each in outcomes if each.error] == []
            assert stack.missing(DEFAULT) == []
            with psycopg.connect(settings.postgres_dsn("app")) as postgres:
                assert postgres.execute(f"SELECT count(*) FROM {schema}.kept").fetchone() == (number + 1,)
            with pymysql.connect(**settings.mysql_address("app").arguments()) as mysql, mysql.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {database}.kept")
                assert cursor.fetchone() == (number + 1,)
    print(f"{ROUNDS} rounds; the slowest `up` took {slowest:.1f} s")  # noqa: T201 - for docs/proofs.md


def test_lessons_killed_at_any_moment_leave_nothing_after_the_next_one(stack: Stack, tmp_path: Path) -> None:
    draw = random.Random(7)
    environment = {**os.environ, **kernel.environment(), "STREAMLAB_RESULTS": str(tmp_path / "results.json")}
    killed = 0
    for _ in range(ROUNDS // 2):
        command = [sys.executable, "-m", "streamlab", "run", "00", "--no-start", "-o", str(tmp_path / "runs")]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(draw.uniform(1, 9))
        except subprocess.TimeoutExpired:
            killed += 1
        # The kernel too, which is in a session of its own: as when the machine loses its power.
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.returncode is None else []
        for each in (*family, process):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                each.send_signal(signal.SIGKILL)
        process.wait(10)
        psutil.wait_procs(family, timeout=10)
    with lesson("00_start_here", needs=["postgres", "mysql", "kafka", "connect"]):
        pass
    with leases.dead(Home()) as left:
        assert left == []
    with psycopg.connect(settings.postgres_dsn("admin")) as postgres:
        assert postgres.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
        query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'sl\\_00%'"
        assert postgres.execute(query).fetchone() == (0,)
    assert killed > ROUNDS // 8
    print(f"{killed} of {ROUNDS // 2} lessons were killed")  # noqa: T201 - for docs/proofs.md
