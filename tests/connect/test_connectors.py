"""Typed configurations of connectors: clean under the lint, taken by a real worker, and doing what they say."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.connect import ConnectClient, lint
from streamlab.connect.connectors import (
    Connector,
    FileSink,
    FileSource,
    Format,
    JDBCSink,
    MySQLSource,
    OutboxRouter,
    PostgreSQLSource,
    Predicate,
    Transform,
    Unwrap,
    databases,
)
from streamlab.connect.findings import Kind
from streamlab.errors import ConnectorFailed, ConnectorRefused, SettingsError
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

LIMIT = 60.0


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (MySQLSource, {"prefix": "p", "database": "db", "tables": "orders"}, r"tables is the string .*=\['orders'\]"),
        (
            PostgreSQLSource,
            {"prefix": "p", "schema": "s", "slot": "s", "publication": "p", "tables": "orders"},
            "tables",
        ),
        (JDBCSink, {"topics": "orders"}, "topics is the string 'orders'"),
        (JDBCSink, {"topics": ["orders"], "fields": "id"}, "fields is the string 'id'"),
        (JDBCSink, {"topics": [5]}, "no list of names"),
        (FileSink, {"path": Path("x"), "topics": "orders"}, "topics is the string"),
        (FileSink, {"path": Path("x"), "topics": ["orders"], "transforms": Unwrap()}, "transforms is a single Unwrap"),
        (Unwrap, {"fields": "op"}, "fields is the string 'op'"),
        (Unwrap, {"headers": "op"}, "headers is the string 'op'"),
    ],
)
def test_one_string_is_not_taken_for_many_names(
    make: Callable[..., object], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        make(**options)


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("connectors") as made:
        yield made


@pytest.fixture
def client(stack: object) -> Iterator[ConnectClient]:
    with ConnectClient() as made:
        yield made


def app() -> psycopg.Connection[Any]:
    return psycopg.connect(str.__str__(settings.postgres_dsn("app")), autocommit=True)


def values(topic: str, count: int, until: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """The first values of a topic of one partition, as JSON; None for a tombstone. At least to one of a kind."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap(),
            "group.id": "never committed",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    found: list[Any] = []
    deadline = time.monotonic() + LIMIT
    try:
        while topic not in consumer.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"no topic {topic}"
            time.sleep(0.05)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while len(found) < count or not until(found[-1]):
            assert time.monotonic() < deadline, found
            if (message := consumer.poll(0.2)) is None:
                continue
            if (problem := message.error()) is not None:
                assert problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, problem
                continue
            value = message.value()
            found.append(None if value is None else json.loads(value))
        return found
    finally:
        consumer.close()


# -- without servers -------------------------------------------------------------------------------------------------


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_POSTGRES_DSN", "postgresql://app:s3cret@127.0.0.1:5555/shop")
    monkeypatch.setenv("STREAMLAB_MYSQL_DSN", "mysql://app:s3cret@127.0.0.1:3333/shop")
    monkeypatch.setenv("STREAMLAB_KAFKA_BOOTSTRAP", "127.0.0.1:9999")
    monkeypatch.setenv("STREAMLAB_CONNECT_URL", "http://127.0.0.1:8888")
    for service in ("POSTGRES", "MYSQL"):
        monkeypatch.setenv(f"STREAMLAB_CONNECT_{service}_PASSWORD", "${env:PASSWORD}")


MYSQL = MySQLSource(prefix="p", database="shop", tables=["orders", "items"])
POSTGRES = PostgreSQLSource(prefix="p", schema="public", tables=["orders"], slot="s", publication="s")
SINK = JDBCSink(topics=["p.public.orders"])
EVERY: dict[str, Connector] = {
    "mysql": MYSQL,
    "mysql with everything": replace(
        MYSQL,
        transforms=[
            Unwrap(deletes="rewrite", fields=["op", "source.ts_ms"], headers=["db"], only=Predicate.topics("t", "p.*")),
            Unwrap(alias="second", unless=Predicate.tombstones()),
            Unwrap(alias="third", only=Predicate.topics("t", "p.*")),
        ],
        value_format=Format.JSON_WITH_SCHEMAS,
        key_format=Format.TEXT,
        times="isostring",
        heartbeat=2.5,
        heartbeat_query="SELECT 1",
        signals="shop.signals",
        chunk_rows=100,
        notifications=True,
        retry_wait=0.5,
        transactions=True,
        schema_changes=True,
        more={"max.batch.size": "8192", "producer.override.linger.ms": "20"},
    ),
    "postgresql": POSTGRES,
    "outbox": replace(POSTGRES, transforms=[OutboxRouter()], autocreate=True, value_format=Format.JSON),
    "jdbc sink": SINK,
    "jdbc sink with everything": replace(SINK, dead_letters="letters", fields=["id", "total"], table="copy.orders"),
    "file source": FileSource(path=Path("/tmp/in"), topic="t"),
    "file sink": FileSink(path=Path("/tmp/out"), topics=["t", "u"], value_format=Format.BYTES),
    "other transformations": replace(
        MYSQL,
        transforms=[
            Transform(
                alias="route",
                cls="org.apache.kafka.connect.transforms.RegexRouter",
                settings={"regex": ".*", "replacement": "all"},
            )
        ],
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_configuration_is_clean_and_holds_no_password(name: str, addresses: None) -> None:
    made = EVERY[name].configuration()
    assert lint(made) == []
    assert all(isinstance(value, str) for value in made.values())
    assert "s3cret" not in repr(made)
    assert "s3cret" not in repr(EVERY[name])


def test_what_is_said_stands_in_connects_words(addresses: None) -> None:
    made = EVERY["mysql with everything"].configuration()
    assert made["table.include.list"] == "shop.orders,shop.items"
    assert (made["heartbeat.interval.ms"], made["poll.interval.ms"]) == ("2500", "50")
    assert made["transforms.unwrap.add.fields"] == "op,source.ts_ms"
    assert (made["predicates"], made["predicates.t.pattern"]) == ("t,tombstone", "p.*")
    assert (made["transforms.third.predicate"], "transforms.third.negate" in made) == ("t", False)
    assert (made["transforms.second.predicate"], made["transforms.second.negate"]) == ("tombstone", "true")
    assert (made["topic.heartbeat.name"], made["connect.keep.alive.interval.ms"]) == ("p.heartbeat", "2000")
    quick = replace(MYSQL, heartbeat=0.5).configuration()
    assert quick["connect.keep.alive.interval.ms"] == quick["heartbeat.interval.ms"] == "500"
    assert (made["notification.sink.topic.name"], made["incremental.snapshot.chunk.size"]) == ("p.notifications", "100")
    assert (made["value.converter.schemas.enable"], made["max.batch.size"]) == ("true", "8192")
    assert replace(MYSQL, more={"tasks.max": "2"}).configuration()["tasks.max"] == "2"
    assert (
        MYSQL.configuration()["database.server.id"] != replace(MYSQL, prefix="q").configuration()["database.server.id"]
    )
    assert SINK.configuration()["connection.url"] == "jdbc:postgresql://127.0.0.1:5555/shop"


def test_what_would_be_lost_is_refused(addresses: None) -> None:
    topics, tombstones = Predicate.topics, Predicate.tombstones()
    with pytest.raises(SettingsError, match="both only= and unless="):
        Unwrap(only=topics("t", "a"), unless=tombstones)
    with pytest.raises(SettingsError, match="heartbeat_query="):
        replace(MYSQL, heartbeat_query="SELECT 1")
    twice = replace(MYSQL, transforms=[Unwrap(deletes="drop"), Unwrap()])
    with pytest.raises(SettingsError, match="the alias unwrap"):
        twice.configuration()
    differ = [Unwrap(alias="a", only=topics("t", "x")), Unwrap(alias="b", unless=topics("t", "y"))]
    with pytest.raises(SettingsError, match="the alias t"):
        replace(MYSQL, transforms=differ).configuration()


@pytest.mark.parametrize("tables", [[], "orders", [""]])
def test_tables_and_topics_are_lists_of_names(tables: Any, addresses: None) -> None:
    with pytest.raises(SettingsError, match="tables="):
        replace(MYSQL, tables=tables)
    with pytest.raises(SettingsError, match="topics="):
        replace(SINK, topics=tables).configuration()


@pytest.mark.parametrize(
    ("table", "written"),
    [
        ("orders", "shop.orders"),
        ("order$items", r"shop.order\$items"),
        ("a.b", r"shop\.a\.b"),
        ("x,y", r"shop.x\,y"),
        ("p(1)+", r"shop.p\(1\)\+"),
    ],
)
def test_a_name_of_a_table_is_no_regular_expression(table: str, written: str, addresses: None) -> None:
    assert replace(MYSQL, tables=[table]).configuration()["table.include.list"] == written
    assert replace(MYSQL, database="s$").configuration()["database.include.list"] == r"s\$"


# -- on a worker -----------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_changes_of_postgresql_arrive_in_another_table_upserts_deletes_and_new_columns(
    client: ConnectClient, namespace: Namespace
) -> None:
    schema, target = namespace.postgres_schema(), namespace.postgres_schema("copy")
    prefix, name, sink = namespace.topic_prefix(), namespace.connector(), namespace.connector("sink")
    slot, publication = namespace.slot(), namespace.publication()
    table, copy = sql.Identifier(schema, "orders"), sql.Identifier(target, "orders")
    with app() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(target)))
        connection.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, total numeric(10,2))").format(table))
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(publication), table))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (1, 1.5), (2, 2.5)").format(table))
        with psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True) as admin:
            for statement in ("GRANT USAGE ON SCHEMA {} TO {}", "GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}"):
                role = conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))["user"]
                admin.execute(sql.SQL(statement).format(sql.Identifier(schema), sql.Identifier(str(role))))
        source = PostgreSQLSource(
            prefix=prefix,
            schema=schema,
            tables=["orders"],
            slot=slot,
            publication=publication,
            decimals="precise",
            key_format=Format.JSON_WITH_SCHEMAS,
            value_format=Format.JSON_WITH_SCHEMAS,
        )
        client.apply(name, source.configuration())
        client.wait_ready(name)
        client.apply(sink, JDBCSink(topics=[f"{prefix}.{schema}.orders"], table=f"{target}.orders").configuration())
        rows = sql.SQL("SELECT * FROM {} ORDER BY id").format(copy)
        wait_rows(connection, rows, [(1, "1.50"), (2, "2.50")])
        client.wait_ready(sink)
        connection.execute(sql.SQL("DELETE FROM {} WHERE id = 1").format(table))
        connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN note text").format(table))
        connection.execute(sql.SQL("UPDATE {} SET total = 7, note = 'seven' WHERE id = 2").format(table))
        wait_rows(connection, rows, [(2, "7.00", "seven")])
    for each in (name, sink):
        assert client.configuration(each)["database.password" if each == name else "connection.password"].startswith(
            "${file:"
        )


def wait_rows(connection: psycopg.Connection[Any], query: sql.Composed, wanted: list[tuple[Any, ...]]) -> None:
    deadline = time.monotonic() + LIMIT
    found: list[tuple[Any, ...]] | str = "nothing"
    while found != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
        try:
            found = [(row[0], str(row[1]), *row[2:]) for row in connection.execute(query)]
        except psycopg.errors.UndefinedTable as error:
            found = str(error)


@pytest.mark.integration
def test_tables_whose_names_mean_something_in_a_regular_expression_are_read(
    client: ConnectClient, namespace: Namespace
) -> None:
    database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
    with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database}`")
            for number, table in enumerate(("order$items", "a.b", "x,y", "aXb")):
                cursor.execute(f"CREATE TABLE `{database}`.`{table}` (id int PRIMARY KEY)")
                cursor.execute(f"INSERT INTO `{database}`.`{table}` VALUES ({number})")
    source = MySQLSource(prefix=prefix, database=database, tables=["order$items", "a.b", "x,y"])
    client.apply(name, source.configuration())
    client.wait_ready(name)
    # Debezium writes an underscore for what the name of a topic may not hold.
    for number, topic in enumerate(("order_items", "a.b", "x_y")):
        assert values(f"{prefix}.{database}.{topic}", 1)[0]["after"] == {"id": number}
    assert f"{prefix}.{database}.aXb" not in kafka_admin().list_topics(timeout=10).topics


@pytest.mark.integration
def test_a_worker_takes_short_names_of_classes(client: ConnectClient, namespace: Namespace) -> None:
    """Kafka Connect's aliases: the class without its package, and without the word for its kind."""
    topic, name = namespace.topic("lines"), namespace.connector()
    transforms = [
        Transform(alias="r", cls="RegexRouter", settings={"regex": ".*", "replacement": topic}),
        Transform(
            alias="m",
            cls="DropHeaders",
            settings={"headers": "x"},
            only=Predicate(alias="n", cls="RecordIsTombstone"),
        ),
    ]
    source = FileSource(path=Path("/etc/os-release"), topic="elsewhere", transforms=transforms)
    short = {"key.converter": "String", "value.converter": "JsonConverter", "value.converter.schemas.enable": "false"}
    client.apply(name, {**source.configuration(), **short})
    assert values(topic, 1)[0] == Path("/etc/os-release").read_text("utf-8").splitlines()[0]


@pytest.mark.integration
@pytest.mark.parametrize(
    "more",
    [
        {"connector.class": f" {FileSink.CLASS} "},
        {"topics.regex": "x.*"},
        {"transforms": "r,r", "transforms.r.type": "RegexRouter"}
        | {"transforms.r.regex": "a", "transforms.r.replacement": "b"},
        {"predicates": "p,p", "predicates.p.type": "RecordIsTombstone"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_the_lint_says_that_a_worker_refuses_it_refuses(
    more: dict[str, str], client: ConnectClient, namespace: Namespace
) -> None:
    made = {**FileSink(path=Path("/proc/none"), topics=["t"]).configuration(), **more}
    assert next(iter(more)) in {each.key for each in lint(made) if each.kind is Kind.INVALID}
    with pytest.raises(ConnectorRefused, match="Kafka Connect refuses"):
        client.apply(namespace.connector(), made, check=False)


@pytest.mark.integration
def test_the_workers_provider_reads_our_directory_alone(client: ConnectClient, namespace: Namespace) -> None:
    # A file that everybody may read, the worker's user included.
    outside = f"${{file:{Path('/etc/os-release')}:ID}}"
    name = namespace.connector()
    sink = FileSink(path=Path("/proc") / "none", topics=[namespace.topic("t")])
    client.apply(name, {**sink.configuration(), "file": f"/proc/{outside}"})
    with pytest.raises(ConnectorFailed, match=r"\$\{file:/etc/os-release:ID\}"):
        client.wait_ready(name)
    inside = settings.connect_secret("mysql").replace(":password}", ":user}")
    client.apply(name, {**sink.configuration(), "file": f"/proc/{inside}"})
    with pytest.raises(ConnectorFailed, match=f"/proc/{settings.mysql_address('cdc').user}'"):
        client.wait_ready(name)


@pytest.mark.integration
def test_a_converters_setting_without_the_converter_has_no_effect_on_a_worker(
    client: ConnectClient, namespace: Namespace
) -> None:
    """What the lint says of it, seen: the record carries its schema all the same."""
    topic = namespace.topic("lines")
    source = FileSource(path=Path("/etc/os-release"), topic=topic).configuration()
    ignored = {key: value for key, value in source.items() if "converter" not in key}
    ignored["value.converter.schemas.enable"] = "false"
    assert [each.key for each in lint(ignored)] == ["value.converter.schemas.enable"]
    client.apply(namespace.connector(), ignored, check=False)
    assert set(values(topic, 1)[0]) == {"schema", "payload"}


@pytest.mark.integration
def test_a_source_that_does_not_say_how_topics_are_made_is_running_and_writes_nothing(
    client: ConnectClient, namespace: Namespace, stack: Stack
) -> None:
    """What the lint says of it, seen on a broker that makes no topics by itself."""
    topic, name = namespace.topic("lines"), namespace.connector()
    source = FileSource(path=Path("/etc/os-release"), topic=topic, value_format=Format.JSON).configuration()
    bare = {key: value for key, value in source.items() if not key.startswith("topic.creation.")}
    assert [(each.key, each.kind) for each in lint(bare)] == [("connector.class", Kind.MISSING)]
    client.apply(name, bare)
    log = stack.service("connect").log
    deadline = time.monotonic() + LIMIT
    while not any(topic in line and "UNKNOWN_TOPIC" in line for line in log.read_text("utf-8").splitlines()):
        assert time.monotonic() < deadline, "the producer does not miss its topic"
        time.sleep(0.05)
    assert client.status(name).ready
    assert topic not in kafka_admin().list_topics(timeout=10).topics
    # With the keys that the lint names the lines come.
    client.apply(name, source)
    assert values(topic, 1)[0] == Path("/etc/os-release").read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("java.io.IOException: Broken pipe", True),
        # What is left of a connection that was lost while the rows of a snapshot came.
        ("java.sql.SQLException: Streaming result set a.b.ResultsetRowsStreaming@4a71 is still active. No more.", True),
        ("Access denied for user 'cdc'@'localhost' (using password: YES)", False),
        ("Data truncation: Out of range value for column 'id'", False),
    ],
)
def test_errors_of_a_lost_connection_are_told_from_others(message: str, passes: bool) -> None:
    assert bool(re.fullmatch(databases._LOST, message)) is passes
