"""Changes of MySQL and PostgreSQL in tables of a second PostgreSQL database, and what cannot be written there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pymysql
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic
from connect.reading import LIMIT
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streamlab import settings
from streamlab.connect import ConnectClient, ConnectorOffset, SinkDeadLetter, dead_letters
from streamlab.connect.connectors import Format, JDBCSink, MySQLSource, PostgreSQLSource
from streamlab.errors import ConnectError
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin
from streamlab.workload import TABLES, MySQLTarget, PostgresTarget, Shop
from streamlab.workload.tables import Row, Type

pytestmark = pytest.mark.integration

WITH_SCHEMAS = {"key_format": Format.JSON_WITH_SCHEMAS, "value_format": Format.JSON_WITH_SCHEMAS}


@dataclass
class Place:
    """A shop on each server, a source for each, and a database for copies with a sink of all tables."""

    client: ConnectClient
    namespace: Namespace
    name: str
    shops: dict[str, Shop]
    copy: psycopg.Connection[Any]
    mysql: pymysql.Connection[Any]

    def topic(self, server: str, table: str) -> str:
        return f"{self.name}_{server}.{self.name}.{table}"

    def sink(self, name: str, *topics: str, **options: Any) -> str:
        """Start a sink; its name."""
        made = self.namespace.connector(name)
        sink = JDBCSink(topics=topics, database=self.name, **options)
        self.client.apply(made, sink.configuration())
        self.client.wait_ready(made)
        return made

    def rows(self, schema: str, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """The rows of a copy; none while it is not there."""
        query = sql.SQL("SELECT {} FROM {} ORDER BY 1").format(sql.SQL(columns), sql.Identifier(schema, table))
        try:
            return self.copy.execute(query).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            return []


@pytest.fixture(scope="module")
def place(stack: object) -> Iterator[Place]:
    with ExitStack() as held:
        namespace = held.enter_context(Namespace("jdbc_sink"))
        client = held.enter_context(ConnectClient())
        name = namespace.mysql_database()
        # The same for each object: names of two kinds never meet.
        assert name == namespace.postgres_schema() == namespace.slot() == namespace.publication()
        dsn = str.__str__(settings.postgres_dsn("app"))
        targets = {"mysql": MySQLTarget(settings.mysql_address("app"), name), "postgresql": PostgresTarget(dsn, name)}
        shops = {}
        for server, target in targets.items():
            shops[server] = held.enter_context(Shop(target, customers=9, products=4))
            shops[server].create()
            shops[server].run(transactions=10)
        mysql = held.enter_context(
            pymysql.connect(**settings.mysql_address("app").arguments(database=name), autocommit=True)
        )
        admin = held.enter_context(psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True))
        held.callback(lambda: admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))))
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(str(conninfo_to_dict(dsn)["user"]))
            )
        )
        publish(admin, name)
        copy = held.enter_context(psycopg.connect(copy_dsn(name), autocommit=True))
        for schema in ("from_mysql", "from_postgresql"):
            copy.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        sources = {
            "mysql": MySQLSource(
                prefix=namespace.topic_prefix("mysql"),
                database=name,
                tables=[*TABLES, "growing"],
                decimals="precise",
                **WITH_SCHEMAS,
            ),
            "postgresql": PostgreSQLSource(
                prefix=namespace.topic_prefix("postgresql"),
                schema=name,
                tables=list(TABLES),
                slot=name,
                publication=name,
                decimals="precise",
                **WITH_SCHEMAS,
            ),
        }
        for server, source in sources.items():
            client.apply(namespace.connector(server), source.configuration())
        for server in sources:
            client.wait_ready(namespace.connector(server))
        made = Place(client, namespace, name, shops, copy, mysql)
        topics = [made.topic(server, table) for server in sources for table in TABLES]
        # One sink for both: what an envelope says of its source names the table.
        made.sink("all", *topics, made.topic("mysql", "growing"), table="from_${source.connector}.${source.table}")
        yield made


def publish(admin: psycopg.Connection[Any], name: str) -> None:
    """What the capturing role needs to read the shop in PostgreSQL."""
    role = sql.Identifier(str(conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))["user"]))
    schema = sql.Identifier(name)
    tables = sql.SQL(", ").join(sql.Identifier(name, table) for table in TABLES)
    admin.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
    admin.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, role))
    admin.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(schema, tables))
    # The photo of a product is not in the log again while it does not change, and a sink would write a placeholder.
    admin.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(name, "products")))


def copy_dsn(name: str) -> str:
    return make_conninfo(str.__str__(settings.postgres_dsn("app")), dbname=name)


def wait_for(holds: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def as_the_shop_has_it(kind: Type, value: Any) -> Any:
    """What the sink's column holds, as the ledger says it: MySQL has no boolean, and times without a zone are UTC."""
    if value is None:
        return None
    if kind is Type.BOOLEAN:
        return bool(value)
    if kind is Type.INSTANT:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return json.loads(value) if kind is Type.TAGS and isinstance(value, str) else value


# -- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["mysql", "postgresql"])
def test_inserts_updates_and_deletes_arrive_each_table_under_its_own_name(place: Place, server: str) -> None:
    shop = place.shops[server]
    shop.run(transactions=30)
    shop.run(transactions=10, mix={"erase_customer": 1, "place_order": 2})
    shop.run(transactions=3, mix={"reprice_product": 1})

    def copies() -> dict[str, list[Row]]:
        return {
            table.name: [
                tuple(as_the_shop_has_it(kind, value) for kind, value in zip(table.types, row, strict=True))
                for row in place.rows(f"from_{server}", table.name, ", ".join(table.columns))
            ]
            for table in TABLES.values()
        }

    wait_for(lambda: not shop.ledger.compare(copies()), lambda: shop.ledger.compare(copies()))
    assert any(each.verb == "DELETE" for _, each in shop.ledger.operations())


def test_chosen_fields_in_a_table_of_another_name(place: Place) -> None:
    topic = place.topic("mysql", "orders")
    place.sink("chosen", topic, table="totals", fields=[f"{topic}:id", f"{topic}:total"])
    shop = place.shops["mysql"]
    shop.run(transactions=5)

    def wanted() -> list[tuple[Any, ...]]:
        orders = shop.ledger.rows("orders").values()
        at = TABLES["orders"].index("total")
        return sorted((row[0], row[at]) for row in orders)

    wait_for(lambda: place.rows("public", "totals") == wanted(), lambda: place.rows("public", "totals"))


def test_an_added_column_is_added_and_a_changed_one_stays_as_it_is(place: Place) -> None:
    with place.mysql.cursor() as cursor:
        cursor.execute("CREATE TABLE growing (id int PRIMARY KEY, price decimal(4,1))")
        cursor.execute("INSERT INTO growing VALUES (1, 1.5)")
        wait_for(lambda: len(place.rows("from_mysql", "growing")) == 1)
        cursor.execute("ALTER TABLE growing ADD COLUMN note varchar(20) NOT NULL DEFAULT 'none' AFTER id")
        cursor.execute("INSERT INTO growing VALUES (2, 'two', 2.5)")
        cursor.execute("UPDATE growing SET price = 3 WHERE id = 1")
        wait_for(
            lambda: (
                [(n, note, str(price)) for n, price, note in place.rows("from_mysql", "growing", "id, price, note")]
                == [(1, "none", "3.0"), (2, "two", "2.5")]
            ),
            lambda: place.rows("from_mysql", "growing"),
        )


# -- what cannot be written ------------------------------------------------------------------------------------------


def fields(*more: dict[str, Any]) -> dict[str, Any]:
    whole = {"type": "int32", "optional": False, "field": "id"}
    return {"type": "struct", "name": "row", "optional": False, "fields": [whole, *more]}


def row(number: int, note: str) -> bytes:
    text = {"type": "string", "optional": True, "field": "note"}
    return json.dumps({"schema": fields(text), "payload": {"id": number, "note": note}}).encode()


def key(number: int) -> bytes:
    return json.dumps({"schema": fields(), "payload": {"id": number}}).encode()


class Written:
    """A topic that a test writes into, and a sink with dead letters behind it."""

    def __init__(self, place: Place, name: str) -> None:
        self.topic, self.letters = place.namespace.topic(name), place.namespace.topic(f"{name}_letters")
        admin = kafka_admin()
        admin.create_topics([NewTopic(self.topic, 1, 1)])[self.topic].result()
        place.copy.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, note varchar(8))")
        self.connector = place.sink(name, self.topic, table=name, dead_letters=self.letters)
        self._producer = Producer({"bootstrap.servers": settings.kafka_bootstrap()})

    def write(self, key: bytes | None, value: bytes | None, **options: Any) -> None:
        self._producer.produce(self.topic, key=key, value=value, **options)
        assert self._producer.flush(10) == 0


def test_a_record_that_cannot_be_read_is_set_aside_with_where_it_stood_and_what_was_wrong(place: Place) -> None:
    written = Written(place, "poisoned")
    written.write(key(1), row(1, "good"))
    written.write(key(2), b"no JSON", headers=[("mine", b"\x00\xff")], timestamp=1_700_000_000_123)
    written.write(b"no JSON either", row(3, "x"))
    written.write(key(4), json.dumps({"id": 4}).encode())
    written.write(key(5), row(5, "behind"))
    wait_for(lambda: place.rows("public", "poisoned") == [(1, "good"), (5, "behind")])
    assert place.client.status(written.connector).ready

    letters: list[SinkDeadLetter] = []

    def all_there() -> bool:
        letters[:] = dead_letters(written.letters)
        return len(letters) >= 3

    wait_for(all_there)
    assert [(each.topic, each.partition, each.offset) for each in letters] == [
        (written.topic, 0, at) for at in (1, 2, 3)
    ]
    assert [each.failed_in for each in letters] == ["VALUE_CONVERTER", "KEY_CONVERTER", "VALUE_CONVERTER"]
    first, second, third = letters
    assert {each.exception for each in letters} == {"org.apache.kafka.connect.errors.DataException"}
    assert {each.failed_at for each in letters} == {"org.apache.kafka.connect.json.JsonConverter"}
    assert 'requires "schema" and "payload" fields' in third.message
    assert "SerializationException" in first.trace
    assert {(each.connector, each.task) for each in letters} == {(written.connector, 0)}
    # As they were, byte by byte.
    assert (first.record.key, first.record.payload) == (key(2), b"no JSON")
    assert first.record.headers == (("mine", b"\x00\xff"),)
    assert first.written_at == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    assert second.record.key == b"no JSON either"
    assert first.record.id.group == f"connect-{written.connector}"
    assert [each.place for each in letters] == sorted(each.place for each in letters)


def test_what_the_database_refuses_ends_the_task_and_the_sink_goes_on_behind_it_when_it_is_told_to(
    place: Place,
) -> None:
    """Dead letters are for what cannot be read: Debezium's sink reports no record for an error of its database."""
    written = Written(place, "refused")
    written.write(key(1), row(1, "good"))
    wait_for(lambda: place.rows("public", "refused") == [(1, "good")])
    written.write(key(2), row(2, "longer than eight"))
    written.write(key(3), row(3, "behind"))
    wait_for(lambda: place.client.status(written.connector).failed, lambda: place.client.status(written.connector))
    (task,) = place.client.status(written.connector).failed
    assert "JDBC sink connector failure" in task.error
    assert place.rows("public", "refused") == [(1, "good")]
    assert dead_letters(written.letters) == []

    place.client.stop(written.connector)
    behind = ConnectorOffset({"kafka_topic": written.topic, "kafka_partition": 0}, {"kafka_offset": 2})
    place.client.alter_offsets(written.connector, [behind])
    place.client.resume(written.connector)
    wait_for(lambda: place.rows("public", "refused") == [(1, "good"), (3, "behind")])


def test_dead_letters_without_a_topic_or_without_their_headers_are_said(place: Place) -> None:
    with pytest.raises(ConnectError, match="no topic sl_nobody"):
        dead_letters("sl_nobody")
    with pytest.raises(ConnectError, match="does not say where it comes from") as caught:
        SinkDeadLetter.of(b"k", b"v", [("mine", b"1")], timestamp=0.0, place=(0, 7))
    assert "context.headers.enable=true" in caught.value.fix
