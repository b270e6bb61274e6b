"""`reset`, leases and namespaces: warm servers are emptied in place, and never under a live run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pymysql
import pytest
from confluent_kafka.admin import NewTopic

from streamlab import settings
from streamlab.errors import LeasesHeld, LessonError, NotRunning
from streamlab.stack import Home, Stack, leases
from streamlab.stack.namespace import Namespace, reap
from streamlab.stack.objects import kafka_admin
from streamlab.stack.reset import reset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def litter() -> None:
    """Something of each kind, as if somebody had worked without lessons."""
    with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA left_over")
        connection.execute("CREATE TABLE left_over.t (x int)")
        connection.execute("CREATE PUBLICATION left_over FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')")
        connection.execute("CREATE DATABASE left_over")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO left_over.t VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'left_over'")
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE left_over")
    admin = kafka_admin()
    for future in admin.create_topics([NewTopic("left_over", 3, 1)]).values():
        future.result(20)


def seen() -> set[str]:
    """What of it is there."""
    found = set()
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        for kind, query in {
            "schema": "SELECT 1 FROM pg_namespace WHERE nspname = 'left_over'",
            "publication": "SELECT 1 FROM pg_publication WHERE pubname = 'left_over'",
            "slot": "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'left_over'",
            "database": "SELECT 1 FROM pg_database WHERE datname = 'left_over'",
            "prepared": "SELECT 1 FROM pg_prepared_xacts WHERE gid = 'left_over'",
        }.items():
            found |= {kind for _ in connection.execute(query)}
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'left_over'")
        found |= {"mysql" for _ in cursor.fetchall()}
    admin = kafka_admin()
    return found | ({"topic"} & {"topic" if "left_over" in admin.list_topics(timeout=20).topics else ""})


def test_reset_empties_warm_servers_without_a_restart(stack: Stack) -> None:
    reset(force=True)
    litter()
    assert seen() == {"schema", "publication", "slot", "database", "prepared", "mysql", "topic"}
    before = {row.name: row.pid for row in stack.status()}
    counts = reset()
    assert seen() == set()
    # A prepared transaction, a slot and a database; the schema goes with its database.
    assert counts == {"postgres": 3, "mysql": 1, "kafka": 1, "connect": 0}
    assert {row.name: row.pid for row in stack.status()} == before
    with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA again")
        connection.execute("DROP SCHEMA again")
    assert reset() == {"postgres": 0, "mysql": 0, "kafka": 0, "connect": 0}


_RUN = """
import sys
from pathlib import Path
import psycopg
from psycopg import sql
from streamlab import settings
from streamlab.stack.namespace import Namespace

namespace = Namespace("test_reset")
with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as connection:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(namespace.postgres_schema())))
print(namespace.name, flush=True)
sys.stdin.read()
"""


def test_a_live_run_holds_off_reset_and_a_dead_one_is_tidied_by_the_next(stack: Stack) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        try:
            (info,) = leases.live(Home())
            assert (info.name, info.slug, info.pid) == (name, "test_reset", process.pid)
            with pytest.raises(LeasesHeld, match=rf"test_reset \(pid {process.pid}\)") as caught:
                reset()
            assert "--force" in caught.value.fix
            assert reap() == []
            assert exists(name)
        finally:
            process.send_signal(signal.SIGKILL)
    assert leases.live(Home()) == []
    assert exists(name)
    assert reap() == [name]
    assert not exists(name)
    assert list(Home().leases.iterdir()) == []


def exists(schema: str) -> bool:
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        return connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is not None


def test_reset_where_nothing_runs_says_so(another_home: object) -> None:
    with pytest.raises(NotRunning, match="No server is running"):
        reset()


def test_names_of_two_runs_never_meet_and_fit_every_server(stack: Stack) -> None:
    with Namespace("test_reset") as one, Namespace("test_reset") as other:
        assert one.name != other.name
        assert re.fullmatch(r"sl_test_reset_[a-z2-7]{6}", one.name)
        names = [one.postgres_schema(), one.slot("a"), one.topic("t"), one.group(), one.connector("c")]
        assert all(name.startswith(one.name) for name in names)
        assert [each.name for each in one.objects] == names
        for bad in ("UPPER", "with space", "a" * 60):
            with pytest.raises(LessonError, match="cannot be part of a name"):
                one.topic(bad)
    with pytest.raises(LessonError, match="is closed"):
        one.topic("late")
    assert one.close() == []
    with pytest.raises(LessonError, match="is no slug"):
        Namespace("Not a slug")


def test_a_second_run_of_the_suite_in_this_checkout_has_a_home_of_its_own(tmp_path: Path) -> None:
    """What `tests/conftest.py` chooses in another process, while this one runs; and that it lets go at its end."""
    code = """
import conftest, os, sys, pathlib
print(os.environ['STREAMLAB_HOME'], conftest.held(pathlib.Path(sys.argv[1])))
"""
    lock = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    worker = environment.pop("PYTEST_XDIST_WORKER", "")
    ours = os.environ["STREAMLAB_HOME"].removesuffix(f"-{worker}")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(lock)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        home, _, free = done.stdout.strip().rpartition(" ")
        assert home != ours
        assert re.sub(r" \d$", "", home) == re.sub(r" \d$", "", ours)
        assert free == "True"
        assert not lock.exists()
