"""Servers that are killed, frozen or in each other's way: the next `up` brings them back, with what they held.

These use the suite's servers, and each test leaves all of them up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pymysql
import pytest
from confluent_kafka.admin import NewTopic
from psycopg import sql

from streamlab import settings
from streamlab.cdc import PostgreSQLCDC
from streamlab.errors import PortTaken
from streamlab.stack import DEFAULT, SERVICES, Home, Outcome, ServiceStatus, Stack, ports
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin
from streamlab.stack.process import strays

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def rows(stack: Stack) -> dict[str, ServiceStatus]:
    return {row.name: row for row in stack.status()}


def kill(stack: Stack, name: str, number: int = signal.SIGKILL) -> int:
    """Signal a server of the suite; its pid."""
    row = rows(stack)[name]
    assert row.pid is not None
    process = psutil.Process(row.pid)
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.wait(10)
    return row.pid


def ended(pid: int) -> bool:
    """Whether a process has ended; its new parent may take a while to ask for its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def bring_back(stack: Stack, *expected: str) -> dict[str, Outcome]:
    """`up`, which has to start the expected servers and to leave the others alone."""
    before = rows(stack)
    outcomes = {each.service: each for each in stack.up()}
    assert [str(each.error) for each in outcomes.values() if each.error] == []
    started = {name for name, each in outcomes.items() if each.state == "started"}
    assert started == set(expected)
    after = rows(stack)
    assert all(row.state == "running" for row in after.values())
    assert all(after[name].pid == before[name].pid for name in after if name not in expected)
    return outcomes


@pytest.fixture
def servers(stack: Stack) -> Iterator[Stack]:
    yield stack
    stack.up()


def test_up_of_what_runs_starts_nothing(servers: Stack) -> None:
    outcomes = bring_back(servers)
    assert {each.state for each in outcomes.values()} == {"running"}
    assert all(each.version for each in outcomes.values())
    assert servers.missing(DEFAULT) == []


def test_a_killed_postgres_comes_back_with_what_was_committed(servers: Stack) -> None:
    with Namespace("test_faults") as namespace:
        schema = namespace.postgres_schema()
        with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"CREATE TABLE {schema}.t AS SELECT 7 AS x")
        kill(servers, "postgres")
        assert rows(servers)["postgres"].state == "dead"
        assert servers.missing(["postgres"]) == ["postgres"]
        bring_back(servers, "postgres")
        with psycopg.connect(settings.postgres_dsn("reader")) as connection:
            assert connection.execute(f"SELECT x FROM {schema}.t").fetchone() == (7,)
    assert namespace.closed


def test_accounts_of_an_earlier_version_get_what_they_lack(servers: Stack) -> None:
    """An earlier version made the role that watches without the membership that shows what a walsender has sent."""
    member = "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), pg_has_role('pg_monitor', 'USAGE')"

    def memberships() -> dict[str, object]:
        found = {}
        for role in ("app", "cdc", "reader"):
            with psycopg.connect(settings.postgres_dsn(role)) as connection:  # type: ignore[arg-type]
                found[role] = connection.execute(member).fetchone()
        return found

    wanted = {"app": (False, False), "cdc": (False, False), "reader": (True, False)}
    assert memberships() == wanted
    with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as connection:
        connection.execute("REVOKE pg_read_all_stats FROM streamlab_reader")
    assert memberships()["reader"] == (False, False)
    kill(servers, "postgres")
    bring_back(servers, "postgres")
    assert memberships() == wanted


def test_a_backend_that_works_on_after_its_postmaster_was_killed_is_ended(servers: Stack) -> None:
    """Until it has gone, its shared memory is in use, and PostgreSQL would refuse to start."""
    # Not as a context manager: its end would speak to a server that is no more.
    with contextlib.closing(psycopg.connect(settings.postgres_dsn("admin"), autocommit=True)) as connection:
        count_in_a_killed_server(servers, connection)


def count_in_a_killed_server(servers: Stack, connection: psycopg.Connection[Any]) -> None:
    backend = connection.info.backend_pid
    # It looks neither at its client nor at its postmaster while it counts.
    connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000000)")
    deadline = time.monotonic() + 10
    while psutil.Process(backend).cpu_times().user < 0.1:
        assert time.monotonic() < deadline, "the query does not run"
        time.sleep(0.01)
    kill(servers, "postgres")
    assert psutil.pid_exists(backend)
    bring_back(servers, "postgres")
    # One that nobody has collected yet has ended all the same.
    assert ended(backend)


@contextlib.contextmanager
def reused(home: Home) -> Iterator[int]:
    """A pid that belongs to some process of the servers' user, which is not a server."""
    innocent = subprocess.Popen(["sleep", "600"], **home.user.popen_arguments())
    try:
        yield innocent.pid
        assert innocent.poll() is None, "somebody else's process was ended"
    finally:
        innocent.kill()
        innocent.wait(10)


def test_postgres_starts_though_its_old_pid_belongs_to_another(servers: Stack) -> None:
    """The same for the pid in stack.json, in postmaster.pid and in the socket's lock file."""
    kill(servers, "postgres")
    room = servers.home.room("postgres")
    port = rows(servers)["postgres"].port
    with reused(servers.home) as pid:
        for file in (room / "data" / "postmaster.pid", room / f".s.PGSQL.{port}.lock"):
            lines = file.read_text(encoding="utf-8").splitlines()
            file.write_text("\n".join([str(pid), *lines[1:]]) + "\n", encoding="utf-8")
        claim(servers.home, "postgres", pid)
        assert rows(servers)["postgres"].state == "dead"
        bring_back(servers, "postgres")


def test_mysql_starts_though_its_old_pid_belongs_to_another_and_keeps_its_data(servers: Stack) -> None:
    with Namespace("test_faults") as namespace:
        database = namespace.mysql_database()
        with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {database}")
                cursor.execute(f"CREATE TABLE {database}.t AS SELECT 7 AS x")
        kill(servers, "mysql")
        with reused(servers.home) as pid:
            lock = servers.home.room("mysql") / "s.sock.lock"
            assert lock.exists()
            lock.write_text(f"{pid}\n", encoding="utf-8")
            claim(servers.home, "mysql", pid)
            bring_back(servers, "mysql")
        with pymysql.connect(**settings.mysql_address("reader").arguments()) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT x FROM {database}.t")
                assert cursor.fetchall() == ((7,),)


def claim(home: Home, name: str, pid: int) -> None:
    """Make the record of a dead server name a live process, as if the number had been given to it."""
    state = home.read()
    state["services"][name]["process"]["pid"] = pid
    state["services"][name]["process"]["created"] = psutil.Process(pid).create_time()
    home.write(state)


def test_down_leaves_a_process_alone_that_has_the_pid_of_a_dead_server(servers: Stack) -> None:
    kill(servers, "postgres")
    with reused(servers.home) as pid:
        claim(servers.home, "postgres", pid)
        assert servers.down(["postgres"]) == []
    bring_back(servers, "postgres")


def test_killed_jvms_come_back(servers: Stack) -> None:
    with Namespace("test_faults") as namespace:
        topic = namespace.topic("kept")
        admin = kafka_admin()
        for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
            future.result(20)
        kill(servers, "kafka")
        kill(servers, "connect")
        bring_back(servers, "kafka", "connect")
        assert topic in admin.list_topics(timeout=20).topics


def test_a_frozen_server_is_ended_within_the_limit_and_started_again(
    servers: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SERVICES["postgres"], "stop_limit", 1.0)
    pid = kill(servers, "postgres", signal.SIGSTOP)
    assert rows(servers)["postgres"].state == "running"
    assert servers.missing(["postgres"]) == ["postgres"]
    bring_back(servers, "postgres")
    assert ended(pid)
    pid = kill(servers, "postgres", signal.SIGSTOP)
    begin = time.monotonic()
    assert servers.down(["postgres"]) == ["postgres"]
    assert time.monotonic() - begin < 10
    assert ended(pid)
    assert rows(servers)["postgres"].state == "stopped"
    bring_back(servers, "postgres")


def test_a_port_that_another_program_took_is_said_with_its_name(servers: Stack) -> None:
    servers.down(["postgres"])
    with socket.create_server((ports.HOST, rows(servers)["postgres"].port)):
        (outcome,) = servers.up(["postgres"])
        assert outcome.state == "failed"
        assert isinstance(outcome.error, PortTaken)
        assert f"{psutil.Process().name()} (pid {os.getpid()}) listens there" in outcome.error.problem
        assert "STREAMLAB_PORT_BASE" in outcome.error.fix
    bring_back(servers, "postgres")


def test_what_needs_a_server_is_stopped_with_it_and_started_with_it(servers: Stack) -> None:
    assert servers.down(["kafka"]) == ["connect", "kafka"]
    assert {name for name, row in rows(servers).items() if row.state == "running"} == {"postgres", "mysql"}
    assert [each.state for each in servers.up(["postgres"])] == ["running"]
    outcomes = servers.up(["connect"])
    assert [(each.service, each.state) for each in outcomes] == [("kafka", "started"), ("connect", "started")]
    bring_back(servers)


@pytest.mark.parametrize("before", [True, False], ids=["it began with a backlog", "it came later"])
def test_a_reader_that_nobody_reads_does_not_keep_postgres_up(servers: Stack, before: bool) -> None:
    """More than the sockets hold waits for it. The server ends as it should all the same, and need not be killed."""
    log = servers.home.path / "postgres" / "log"
    blocked = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'WalSenderWriteData'"
    with Namespace("left_standing") as namespace:
        schema = namespace.postgres_schema()
        wide = sql.Identifier(schema, "wide")
        fill = sql.SQL("INSERT INTO {} SELECT n, repeat('x', 500) FROM generate_series({}, {}) n")
        with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            admin.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, text text)").format(wide))
            with PostgreSQLCDC.session(settings.postgres_dsn("admin"), [f"{schema}.wide"]) as cdc:
                admin.execute(fill.format(wide, 1, 1))
                later = [(first, first + 999) for first in range(2, 60_002, 1000)]
                for each in later if before else []:
                    admin.execute(fill.format(wide, *each))
                assert len(next(cdc.transactions())) == 1
                for each in [] if before else later:
                    admin.execute(fill.format(wide, *each))
                deadline = time.monotonic() + 15
                while not admin.execute(blocked).fetchone():
                    assert time.monotonic() < deadline, "everything fits into the sockets"
                    time.sleep(0.02)
                assert servers.down(["postgres"]) == ["postgres"]
                assert log.read_text(errors="replace").rstrip().endswith("database system is shut down")
        bring_back(servers, "postgres")
        with PostgreSQLCDC.session(settings.postgres_dsn("admin"), [f"{schema}.wide"]):
            pass  # drops what the one before could not


def test_a_server_whose_command_was_killed_before_it_wrote_it_down_is_known(servers: Stack) -> None:
    """Between the start of a process and its record lies a moment; the mark in its environment covers it."""
    row = rows(servers)["postgres"]
    state = servers.home.read()
    del state["services"]["postgres"]
    servers.home.write(state)
    (process,) = strays(servers.home.room("postgres"), servers.home.user)
    assert process.pid == row.pid
    bring_back(servers, "postgres")
    assert ended(process.pid)


def test_a_server_that_was_not_set_up_to_the_end_is_started_again(servers: Stack) -> None:
    """A killed `up` may leave one that runs and has no accounts yet."""
    state = servers.home.read()
    state["services"]["postgres"]["start_seconds"] = None
    servers.home.write(state)
    (servers.home.secrets / "pgpass").unlink()
    assert servers.missing(["postgres"]) == ["postgres"]
    bring_back(servers, "postgres")
    with psycopg.connect(settings.postgres_dsn("app")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


_UP = """
from streamlab.stack import Stack
print(*sorted(f"{each.service}={each.state}" for each in Stack().up(["postgres", "mysql"])))
"""


def test_a_second_up_while_one_runs_waits_and_finds_everything(servers: Stack) -> None:
    kill(servers, "postgres")
    kill(servers, "mysql")
    commands = [subprocess.Popen([sys.executable, "-c", _UP], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(command.communicate(timeout=60)[0].strip() for command in commands)
    assert answers == ["mysql=running postgres=running"] * 2 + ["mysql=started postgres=started"]


def test_the_home_has_a_space_and_an_umlaut(servers: Stack) -> None:
    """So every test of this suite shows that paths of that kind work; and none falls back to another place."""
    assert " " in str(servers.home.path)
    assert not str(servers.home.path).isascii()
    assert {p.name for p in servers.home.path.iterdir()} >= set(DEFAULT)
    assert (servers.home.room("mysql") / "s.sock").is_socket()
    assert Path(f"/proc/{rows(servers)['kafka'].pid}/cwd").resolve() == servers.home.path / "kafka"
