"""No generated password anywhere but in private files, and no socket beyond the loopback address."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pymysql
import pytest

from streamlab import settings
from streamlab.stack import DEFAULT, Stack
from streamlab.stack.namespace import Namespace

pytestmark = pytest.mark.integration


def secrets(stack: Stack) -> set[str]:
    found = {path.read_text(encoding="utf-8").strip() for path in stack.home.secrets.glob("*.password")}
    assert len(found) == 8  # four roles on each database server
    return found


def processes(stack: Stack) -> list[psutil.Process]:
    """The servers and everything below them."""
    found = []
    for row in stack.status():
        assert row.pid is not None
        server = psutil.Process(row.pid)
        found += [server, *server.children(recursive=True)]
    return found


def test_no_password_on_a_command_line_or_in_an_environment(stack: Stack) -> None:
    known = secrets(stack)
    seen = 0
    for process in psutil.process_iter():
        try:
            text = "\0".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue
        seen += 1
        assert not any(secret in text for secret in known), process
    assert seen > len(DEFAULT)


def test_passwords_stand_in_private_files_alone(stack: Stack) -> None:
    """Logs, stack.json, configuration: every file of the home is read to the last byte."""
    known = [secret.encode() for secret in secrets(stack)]
    allowed = {stack.home.secrets, stack.home.path / "connect" / "secrets"}
    files = [path for path in stack.home.path.rglob("*") if path.is_file()]
    assert {stack.home.path / name / "log" for name in DEFAULT} <= set(files)
    for path in files:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # of a topic that is being deleted
            continue
        if any(secret in data for secret in known):
            assert path.parent in allowed, path
            assert path.stat().st_mode & 0o077 == 0, path
    assert not (stack.home.path / "mysql" / "init.sql").exists()
    for directory in allowed:
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_server_log_does_not_hear_of_passwords_even_if_it_logs_every_statement(stack: Stack) -> None:
    service = stack.service("postgres")
    log = stack.home.path / "postgres" / "log"
    with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            service.started()
        finally:
            connection.execute("ALTER SYSTEM RESET log_statement")
            connection.execute("SELECT pg_reload_conf()")
    text = log.read_text(encoding="utf-8")
    assert "ALTER ROLE" in text
    assert not any(secret in text for secret in secrets(stack))


def test_output_and_reprs_show_no_password(stack: Stack) -> None:
    known = secrets(stack)
    shown = [repr(stack.home), repr(stack.status()), repr(stack.up())]
    for role in ("admin", "app", "cdc", "reader"):
        dsn, address = settings.postgres_dsn(role), settings.mysql_address(role)
        shown += [repr(dsn), str(dsn), f"{dsn}", str.__str__(dsn), repr(address), str(address)]
    shown += [settings.connect_secret("mysql"), repr(settings.stack_state())]
    with Namespace("test_secrets") as namespace:
        shown.append(repr(namespace))
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "streamlab", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for arguments in (["status", "--json"], ["doctor"], ["up"], ["logs", "connect"])
    ]
    answers = [command.communicate(timeout=60)[0] for command in commands]
    told = [row["name"] for row in json.loads(answers[0])["services"]]
    assert [name for name in told if name in DEFAULT] == list(DEFAULT)
    shown += answers
    assert not any(secret in text for secret in known for text in shown)


def test_every_socket_that_listens_is_on_the_loopback_address(stack: Stack) -> None:
    listening = {}
    for process in processes(stack):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                # Java binds the IPv4 address through a socket that could do both.
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", (process, connection)
                listening[connection.laddr.port] = process.pid
    rows = {row.name: row.port for row in stack.status()}
    assert set(DEFAULT) <= set(rows)
    assert set(rows.values()) <= set(listening)
    # Kafka's controller has a port of its own, and so has the management of a registry that another test has asked for.
    assert len(listening) == len(rows) + 1 + ("registry" in rows)


def test_unix_sockets_lie_in_private_directories(stack: Stack) -> None:
    found = [path for path in stack.home.path.rglob("*") if path.is_socket()]
    assert len(found) == 2
    assert all(path.parent.stat().st_mode & 0o077 == 0 for path in found)


def test_a_wrong_password_and_none_are_refused(stack: Stack) -> None:
    postgres, mysql = settings.stack_state()["services"]["postgres"]["address"], settings.mysql_address("admin")
    for password in ("wrong", ""):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host=postgres["host"], port=postgres["port"], user="postgres", dbname="postgres", password=password,
                passfile=str(Path("/nonexistent")),
            )  # fmt: skip
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            pymysql.connect(host=mysql.host, port=mysql.port, user="root", password=password)


def test_each_role_may_do_its_job_and_no_more(stack: Stack) -> None:
    with Namespace("test_secrets") as namespace:
        schema, database = namespace.postgres_schema(), namespace.mysql_database()
        with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as app:
            app.execute(f"CREATE SCHEMA {schema}")
            app.execute(f"CREATE TABLE {schema}.t AS SELECT 1 AS x")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute("SELECT pg_create_logical_replication_slot('x', 'pgoutput')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute("CREATE ROLE other")
        for role in ("cdc", "reader"):
            with psycopg.connect(settings.postgres_dsn(role), autocommit=True) as connection:
                assert connection.execute(f"SELECT x FROM {schema}.t").fetchone() == (1,)
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"DELETE FROM {schema}.t")
        with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as mysql:
            with mysql.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {database}")
                cursor.execute(f"CREATE TABLE {database}.t (x int PRIMARY KEY)")
                with pytest.raises(pymysql.OperationalError, match="Access denied"):
                    cursor.execute("CREATE DATABASE not_ours")
        for role in ("cdc", "reader"):
            with pymysql.connect(**settings.mysql_address(role).arguments()) as mysql, mysql.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {database}.t")
                with pytest.raises(pymysql.OperationalError, match="command denied"):
                    cursor.execute(f"INSERT INTO {database}.t VALUES (1)")
