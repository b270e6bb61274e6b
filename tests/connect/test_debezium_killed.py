"""SIGKILL of the database, the broker and the Connect worker while the shop writes: the topics still tell all of it.

Delivery is at least once, so records may come again; the newest row of each key has to be what the ledger of the shop
says, and what SELECT says.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import pymysql
import pytest
from connect.reading import LIMIT, Copy, Message, Topics
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import Connector, MySQLSource, PostgreSQLSource
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace
from streamlab.workload import TABLES, MySQLTarget, PostgresTarget, Shop

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

LONG = os.environ.get("STREAMLAB_SOAK") == "1"
TYPED: dict[str, Any] = {"times": "isostring"}
soak = pytest.mark.skipif(not LONG, reason="a long proof: make soak")
ROUNDS, RATE = (12, 400) if LONG else (1, 200)


@dataclass
class Followed:
    """A shop that is written to, and its copy out of topics."""

    client: ConnectClient
    connector: str
    shop: Shop
    topics: Topics
    copy: Copy

    def goes_on(self, since: float) -> None:
        """Wait until a change has come that was made after a time, in seconds since 1970."""

        def newer(read: list[Message]) -> bool:
            # The times of a binary log are whole seconds.
            return any(each.value and each.value["source"]["ts_ms"] / 1000 > since + 1 for each in reversed(read))

        self.topics.wait(self.copy.topics, newer, limit=120)

    def repeated(self) -> int:
        """How many records of changes came more than once."""

        def place(source: dict[str, Any]) -> tuple[Any, ...]:
            return (source["lsn"],) if "lsn" in source else (source["file"], source["pos"], source["row"])

        seen = [
            (name, *place(source), *each.key.values())
            for name in self.copy.topics
            for each in self.topics.messages[name]
            if each.value and (source := each.value["source"])["snapshot"] == "false"
        ]
        return len(seen) - len(set(seen))


def of_mysql(namespace: Namespace, shops: ExitStack) -> tuple[Shop, Connector, str]:
    database = namespace.mysql_database()
    shop = shops.enter_context(Shop(MySQLTarget(settings.mysql_address("app"), database), customers=50, products=10))
    shop.create()
    return shop, MySQLSource(prefix=namespace.topic_prefix(), database=database, tables=list(TABLES), **TYPED), database


def of_postgres(namespace: Namespace, shops: ExitStack) -> tuple[Shop, Connector, str]:
    schema, slot, publication = namespace.postgres_schema(), namespace.slot(), namespace.publication()
    dsn = str.__str__(settings.postgres_dsn("app"))
    shop = shops.enter_context(Shop(PostgresTarget(dsn, schema), customers=50, products=10))
    shop.create()
    names = {
        "schema": sql.Identifier(schema),
        "role": sql.Identifier(str(conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))["user"])),
        "publication": sql.Identifier(publication),
        "tables": sql.SQL(", ").join(sql.Identifier(schema, table) for table in TABLES),
    }
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
            "CREATE PUBLICATION {publication} FOR TABLE {tables}",
        ):
            connection.execute(sql.SQL(statement).format(**names))
    source = PostgreSQLSource(
        prefix=namespace.topic_prefix(), schema=schema, tables=list(TABLES), slot=slot, publication=publication, **TYPED
    )
    return shop, source, schema


@contextmanager
def follow(made: Callable[[Namespace, ExitStack], tuple[Shop, Connector, str]]) -> Iterator[Followed]:
    with (
        Namespace("debezium_killed") as namespace,
        ConnectClient() as client,
        Topics() as topics,
        ExitStack() as shops,
    ):
        shop, source, place = made(namespace, shops)
        name = namespace.connector()
        client.apply(name, source.configuration())
        client.wait_ready(name)
        yield Followed(client, name, shop, topics, Copy(topics, namespace.topic_prefix(), place))


@pytest.fixture(scope="module")
def mysql(stack: Stack) -> Iterator[Followed]:
    with follow(of_mysql) as made:
        yield made


@pytest.fixture(scope="module")
def postgres(stack: Stack) -> Iterator[Followed]:
    with follow(of_postgres) as made:
        yield made


@pytest.fixture
def servers(stack: Stack) -> Iterator[Stack]:
    yield stack
    assert [str(each.error) for each in stack.up() if each.error] == []


def kill(stack: Stack, name: str) -> None:
    (row,) = (row for row in stack.status() if row.name == name)
    assert row.pid is not None
    process = psutil.Process(row.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


@pytest.mark.timeout(1800 if LONG else 240)
@pytest.mark.parametrize(
    ("database", "victim"),
    [
        ("mysql", "mysql"),
        ("mysql", "kafka"),
        pytest.param("mysql", "connect", marks=soak),
        ("postgres", "postgres"),
        pytest.param("postgres", "kafka", marks=soak),
        ("postgres", "connect"),
    ],
)
def test_nothing_is_lost_whatever_is_killed(
    servers: Stack,
    database: str,
    victim: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    followed: Followed = request.getfixturevalue(database)
    before = len(followed.shop.ledger)
    dice = random.Random(victim)
    with followed.shop.running(RATE, size=3):
        followed.goes_on(time.time() - 1)
        for _ in range(ROUNDS):
            if LONG:
                # At another place of its work each time.
                threading.Event().wait(dice.uniform(0, 2))
            kill(servers, victim)
            assert {each.error for each in servers.up([victim])} == {None}
            followed.goes_on(time.time())
        followed.client.wait_ready(followed.connector)
    assert len(followed.shop.ledger) > before
    assert followed.copy.follow(followed.shop.ledger) == ()
    assert followed.shop.compare() == ()
    record_property("repeated", followed.repeated())
    record_property("changes", followed.shop.ledger.changes)


@pytest.mark.timeout(240)
def test_the_statement_of_heartbeats_goes_on_after_a_restart_of_mysql(servers: Stack) -> None:
    """Its connection is one of its own, which the driver has to give up before Debezium opens another one."""
    with Namespace("beats") as namespace, ConnectClient() as client, Topics() as topics:
        database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
        role = settings.mysql_address("cdc").user

        def ask(*statements: str) -> Any:
            """By a connection that the restart cannot have cut."""
            arguments = settings.mysql_address("admin").arguments(database=database)
            with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
                for each in statements:
                    cursor.execute(each)
                return cursor.fetchall()

        def beat() -> Any:
            return ask("SELECT at FROM beats")

        def tell(row: int) -> Any:
            """What is told of a row that is inserted now."""
            ask(f"INSERT INTO orders VALUES ({row})")
            told = topics.wait(f"{prefix}.{database}.orders", lambda read: any(each.key["id"] == row for each in read))
            return next(each.value for each in told if each.key["id"] == row)

        arguments = settings.mysql_address("admin").arguments()
        with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
        ask(
            "CREATE TABLE orders (id int PRIMARY KEY)",
            "CREATE TABLE beats (id int PRIMARY KEY, at timestamp(3))",
            "INSERT INTO beats VALUES (1, NOW(3))",
            f"GRANT UPDATE ON beats TO `{role}`@'%'",
        )
        try:
            source = MySQLSource(
                prefix=prefix, database=database, tables=["orders"], heartbeat=0.2,
                heartbeat_query=f"UPDATE {database}.beats SET at = NOW(3)",
            )  # fmt: skip
            client.apply(name, source.configuration())
            client.wait_ready(name)
            first = beat()
            wait(lambda: beat() > first, "no statement before the restart")
            # The first ones are executed before the log is read. A task that loses its connection there begins again,
            # with another one for its statements.
            rows = 1
            while tell(rows)["op"] == "r":
                rows += 1

            kill(servers, "mysql")
            assert {each.error for each in servers.up(["mysql"])} == {None}
            # It reads on: a row comes, and heartbeats with their statement.
            assert tell(rows + 1)["op"] == "c"
            last = beat()
            wait(lambda: beat() > last, "no statement after the restart")
            log = servers.service("connect").log.read_text(encoding="utf-8")
            assert "Could not execute heartbeat action" in log
            assert client.status(name).ready
        finally:
            ask(f"REVOKE ALL ON beats FROM `{role}`@'%'")


def wait(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
