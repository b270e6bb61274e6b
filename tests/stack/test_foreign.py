"""Servers that streamlab did not start: looked at and used, and nothing of others on them is touched.

The suite's servers play the user's own: another home, with nothing of its own, is pointed at them through
the environment. Tables, slots, topics and connectors of "somebody else" lie there.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymysql
import pytest
from confluent_kafka.admin import NewTopic
from psycopg import sql

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.errors import NotOurs, StackError
from streamlab.stack import DEFAULT, Home, Stack, external, leases, postgres
from streamlab.stack.namespace import Namespace, reap
from streamlab.stack.objects import delete_topics, kafka_admin
from streamlab.stack.reset import reset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def admin_dsn(role: str = "admin") -> str:
    """A connection string as a user would write it, with the password in it."""
    address = settings.stack_state()["services"]["postgres"]["address"]
    password = Home().password(f"postgres-{role}")
    user = address["roles"][role]
    return f"postgresql://{user}:{password}@{address['host']}:{address['port']}/{address['database']}"


def mysql_dsn() -> str:
    address = settings.mysql_address("admin")
    return f"mysql://root:{address.secret()}@{address.host}:{address.port}/"


@pytest.fixture
def given(stack: Stack, another_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment names the suite's servers, from another home."""
    with monkeypatch.context() as before:
        before.setenv("STREAMLAB_HOME", str(stack.home.path))
        values = {
            "postgres": admin_dsn(),
            "mysql": mysql_dsn(),
            "kafka": settings.kafka_bootstrap(),
            "connect": settings.connect_url(),
        }
    for service, value in values.items():
        monkeypatch.setenv(settings.VARIABLES[service], value)
    return another_home


class Foreign:
    """What somebody else has on the servers; two of each, named to be near to what a run makes."""

    def __init__(self, near: str) -> None:
        self.names = ("somebody_elses", f"{near}x")
        self.admin = kafka_admin()
        self.postgres = psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True)
        self.mysql = pymysql.connect(**settings.mysql_address("admin").arguments(), autocommit=True)
        self.connect = httpx.Client(base_url=settings.connect_url(), timeout=20)

    def make(self) -> None:
        for name in self.names:
            schema = sql.Identifier(name)
            self.postgres.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            self.postgres.execute(sql.SQL("CREATE TABLE {}.t AS SELECT 7 AS x").format(schema))
            self.postgres.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}.t").format(schema, schema))
            self.postgres.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
            with self.mysql.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        for future in self.admin.create_topics([NewTopic(name, 1, 1) for name in self.names]).values():
            future.result(20)
        for name in self.names:
            # Stopped, it needs no database to write to, and stays all the same.
            configuration = {
                "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
                "topics": name,
                "connection.url": "jdbc:postgresql://127.0.0.1:1/x",
                "connection.username": "x",
                "connection.password": "x",
            }
            answer = self.connect.post(
                "/connectors", json={"name": name, "initial_state": "STOPPED", "config": configuration}
            )
            assert answer.status_code == 201, answer.text

    def there(self) -> dict[str, set[str]]:
        """Which of them are on the servers."""
        queries = {
            "schemas": "SELECT nspname FROM pg_namespace",
            "tables": "SELECT schemaname FROM pg_tables WHERE tablename = 't'",
            "publications": "SELECT pubname FROM pg_publication",
            "slots": "SELECT slot_name FROM pg_replication_slots",
        }
        found = {kind: {row[0] for row in self.postgres.execute(query)} for kind, query in queries.items()}
        with self.mysql.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            found["databases"] = {row[0] for row in cursor.fetchall()}
        found["topics"] = set(self.admin.list_topics(timeout=20).topics)
        found["connectors"] = set(self.connect.get("/connectors").json())
        return {kind: names & set(self.names) for kind, names in found.items()}

    def remove(self) -> None:
        with ConnectClient() as client:
            for name in self.names:
                client.delete(name, forget=True)
        for name in self.names:
            schema = sql.Identifier(name)
            self.postgres.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(schema))
            self.postgres.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
            )
            self.postgres.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
            with self.mysql.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        delete_topics(self.admin, self.names)
        self.postgres.close()
        self.mysql.close()
        self.connect.close()


def objects(namespace: Namespace) -> None:
    """One object of ours of each kind."""
    with psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True) as connection:
        schema = sql.Identifier(namespace.postgres_schema())
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        connection.execute(sql.SQL("CREATE TABLE {}.t ()").format(schema))
        connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {}.t").format(sql.Identifier(namespace.publication()), schema)
        )
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [namespace.slot()])
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {namespace.mysql_database()}")
    admin = kafka_admin()
    prefix = namespace.topic_prefix()
    for future in admin.create_topics(
        [NewTopic(f"{prefix}.db.t", 1, 1), NewTopic(namespace.topic("a"), 1, 1)]
    ).values():
        future.result(20)


@pytest.fixture
def namespace(given: Path) -> Iterator[Namespace]:
    with Namespace("test_foreign") as namespace:
        yield namespace


@pytest.fixture
def foreign(namespace: Namespace) -> Iterator[Foreign]:
    """Somebody else's objects; some of them differ from the run's by one letter."""
    theirs = Foreign(namespace.name)
    try:
        theirs.make()
        yield theirs
    finally:
        theirs.remove()


def test_only_what_is_written_down_is_dropped(namespace: Namespace, foreign: Foreign) -> None:
    before = foreign.there()
    assert all(names == set(foreign.names) for names in before.values()), before
    objects(namespace)
    assert namespace.close() == []
    assert foreign.there() == before
    assert reap() == []
    for command in (
        lambda: reset(force=True),
        lambda: Stack().down(purge=True),
    ):
        with pytest.raises(NotOurs, match="postgres") as caught:
            command()
        assert caught.value.fix
    assert Stack().down() == []
    assert foreign.there() == before
    left = {name for name in foreign.admin.list_topics(timeout=20).topics if name.startswith(f"{namespace.name}.")}
    assert left == set()


def test_what_a_dead_run_left_is_dropped_by_name_and_nothing_else(namespace: Namespace, foreign: Foreign) -> None:
    objects(namespace)
    lease = namespace._lease
    assert lease is not None
    # As the kernel does when the process dies: the list stays, the lock goes.
    lease.release(forget=False)
    before = foreign.there()
    assert reap() == [namespace.name]
    assert foreign.there() == before
    assert leases.live(Home()) == []
    namespace._lease = None


def test_what_was_written_down_for_another_server_is_left(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name on another server is not ours: the environment may have changed in between."""
    schema = namespace.postgres_schema()
    lease = namespace._lease
    assert lease is not None
    lease.keep([dataclasses.replace(each, server="elsewhere:5432/app") for each in lease.objects])
    with psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        lease.release(forget=False)
        assert reap() == []
        query = "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
        assert connection.execute(query, [schema]).fetchone() == (1,)
        connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
    namespace._lease = None


def test_nothing_is_started_and_nothing_stopped(given: Path) -> None:
    stack = Stack()
    outcomes = stack.up()
    assert {each.service: (each.state, each.error) for each in outcomes} == dict.fromkeys(DEFAULT, ("foreign", None))
    assert not given.exists()
    assert stack.missing(DEFAULT) == []
    rows = stack.status()
    assert {row.name: (row.state, row.ours, row.pid) for row in rows} == dict.fromkeys(
        DEFAULT, ("foreign", False, None)
    )
    assert stack.down() == []
    assert {row.state for row in stack.status()} == {"foreign"}


def test_a_worker_of_ours_on_a_kafka_of_the_users(given: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its topics and its group carry the name of its home, so that it does not join the user's workers."""
    monkeypatch.delenv(settings.VARIABLES["connect"])
    own = Stack()
    outcomes = {each.service: each for each in own.up(["connect"])}
    assert {name: each.state for name, each in outcomes.items()} == {"kafka": "foreign", "connect": "started"}
    admin = kafka_admin()
    made: set[str] = set()
    deadline = time.monotonic() + 20
    try:
        # A broker's metadata follow what was created by a moment.
        while len(made) < 3 and time.monotonic() < deadline:
            made = {name for name in admin.list_topics(timeout=20).topics if name.startswith("connect_")}
        plugins = httpx.get(f"{settings.connect_url()}/connector-plugins", timeout=20).json()
        assert any("MySqlConnector" in plugin["class"] for plugin in plugins)
        assert {name.rsplit("_", 1)[0] for name in made} == {"connect_configs", "connect_offsets", "connect_status"}
        assert own.down() == ["connect"]
        assert {row.state for row in stack.status() if row.name != "connect"} == {"foreign"}
    finally:
        delete_topics(admin, sorted(made))


@pytest.mark.parametrize(
    ("service", "minimum", "value", "problem"),
    [
        ("postgres", "MINIMUM_POSTGRES", 99, r"The server is PostgreSQL 18\.\d+; the lessons need 99 or later"),
        ("mysql", "MINIMUM_MYSQL", (99, 1), r"The server is [\d.]+.*; the lessons need MySQL 99\.1 or later"),
    ],
)
def test_a_server_that_is_too_old_is_refused_with_its_version(
    service: str, minimum: str, value: Any, problem: str, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, minimum, value)
    (outcome,) = Stack().up([service])
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert outcome.version
    with pytest.raises(StackError, match=problem):
        raise outcome.error
    assert settings.VARIABLES[service] in outcome.error.fix
    (row,) = (row for row in Stack().status() if row.name == service)
    assert row.state == "unreachable"


@pytest.mark.parametrize("service", sorted(settings.VARIABLES))
def test_a_server_that_does_not_answer_is_named_by_its_variable_and_without_its_password(
    service: str, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {
        "postgres": "postgresql://me:s3cret@127.0.0.1:1/x",
        "mysql": "mysql://me:s3cret@127.0.0.1:1/x",
        "kafka": "127.0.0.1:1",
        "connect": "http://127.0.0.1:1",
        "registry": "http://127.0.0.1:1",
    }[service]
    monkeypatch.setenv(settings.VARIABLES[service], address)
    monkeypatch.setattr(external, "_LIMIT", 1)
    seen = external.look(service)
    assert settings.VARIABLES[service] in seen.problem
    assert settings.VARIABLES[service] in seen.fix
    assert "s3cret" not in repr(seen)


def test_a_wrong_password_for_a_server_of_the_users_is_not_repeated(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("postgres", "mysql"):
        variable = settings.VARIABLES[service]
        scheme, _, rest = os.environ[variable].partition("://")
        monkeypatch.setenv(variable, f"{scheme}://{rest.partition(':')[0]}:s3cret@{rest.partition('@')[2]}")
        (outcome,) = Stack().up([service])
        assert outcome.error is not None
        assert "cannot be used" in outcome.error.problem
        assert "s3cret" not in str(outcome)


def test_a_postgres_without_logical_decoding_is_refused(
    another_home: Path, monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    monkeypatch.setitem(postgres.SETTINGS, "wal_level", "replica")
    (outcome,) = Stack().up(["postgres"])
    assert outcome.error is None
    with monkeypatch.context() as named:
        named.setenv(settings.VARIABLES["postgres"], admin_dsn())
        (outcome,) = Stack().up(["postgres"])
        assert outcome.state == "failed"
        assert outcome.error is not None
        assert "wal_level=replica" in outcome.error.problem
        assert "ALTER SYSTEM SET wal_level = 'logical'" in outcome.error.fix
    assert Stack().down() == ["postgres"]
