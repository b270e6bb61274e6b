"""PostgreSQL's write-ahead log through Debezium into Kafka, and an outbox that is routed on its way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from connect.reading import UNCHANGED, Copy, Message, Topics
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.connect import ConnectClient, PostgreSQLSignals
from streamlab.connect.connectors import OutboxRouter, PostgreSQLSource, Predicate, Unwrap
from streamlab.stack.namespace import Namespace
from streamlab.workload import TABLES, PostgresTarget, Shop

pytestmark = pytest.mark.integration

READ = [*TABLES, "large", "plain", "outbox"]


@dataclass
class Source:
    """A shop in a schema, with a connector that reads it and three more tables."""

    client: ConnectClient
    schema: str
    prefix: str
    name: str
    shop: Shop
    topics: Topics
    signals: PostgreSQLSignals
    connection: psycopg.Connection[Any]

    def topic(self, table: str) -> str:
        return f"{self.prefix}.{self.schema}.{table}"

    def execute(self, query: str, *parameters: Any) -> Any:
        cursor = self.connection.execute(query, parameters or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else None

    def notified(self, kind: str, signal: str) -> None:
        self.topics.wait(
            f"{self.prefix}.notifications",
            lambda read: any((each.value["type"], each.value["id"]) == (kind, signal) for each in read),
        )


@pytest.fixture(scope="module")
def source(stack: object) -> Iterator[Source]:
    with Namespace("debezium_pg") as namespace, ConnectClient() as client, Topics() as topics:
        schema, prefix, name = namespace.postgres_schema(), namespace.topic_prefix(), namespace.connector()
        slot, publication = namespace.slot(), namespace.publication()
        dsn = str.__str__(settings.postgres_dsn("app"))
        with (
            psycopg.connect(dsn, autocommit=True, options=f"-c search_path={schema}") as connection,
            Shop(PostgresTarget(dsn, schema), customers=9, products=4) as shop,
        ):
            shop.create()
            shop.run(transactions=20)
            signals = PostgreSQLSignals(connection, f"{schema}.signals")
            made = Source(client, schema, prefix, name, shop, topics, signals, connection)
            made.execute("CREATE TABLE large (id int PRIMARY KEY, note text)")
            made.execute("INSERT INTO large SELECT n, 'made' FROM generate_series(0, 9) n")
            made.execute("CREATE TABLE plain (id int PRIMARY KEY, note text)")
            made.execute("ALTER TABLE plain REPLICA IDENTITY FULL")
            made.execute("CREATE TABLE beats (id int PRIMARY KEY, at timestamptz)")
            made.execute("INSERT INTO beats VALUES (1, now())")
            made.execute(
                "CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text,"
                " payload jsonb)"
            )
            role = str(conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))["user"])
            signals.create()
            for statement in (
                "GRANT USAGE ON SCHEMA {schema} TO {role}",
                "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
                "GRANT UPDATE ON beats TO {role}",
                # The signals too: the source meets them in what it reads. And the beats: of what is not published the
                # slot hears nothing, and stays where it is.
                "CREATE PUBLICATION {publication} FOR TABLE {tables}, signals, beats",
            ):
                connection.execute(
                    sql.SQL(statement).format(
                        schema=sql.Identifier(schema),
                        role=sql.Identifier(role),
                        publication=sql.Identifier(publication),
                        tables=sql.SQL(", ").join(map(sql.Identifier, READ)),
                    )
                )
            signals.grant(role)
            client.apply(name, configuration(prefix, schema, slot, publication).configuration())
            client.wait_ready(name)
            yield made


def configuration(prefix: str, schema: str, slot: str, publication: str) -> PostgreSQLSource:
    return PostgreSQLSource(
        prefix=prefix,
        schema=schema,
        tables=READ,
        slot=slot,
        publication=publication,
        times="isostring",
        heartbeat=0.2,
        heartbeat_query=f"UPDATE {schema}.beats SET at = now()",
        signals=f"{schema}.signals",
        chunk_rows=4,
        notifications=True,
        transforms=[
            OutboxRouter(topic=f"{prefix}.${{routedByValue}}s", only=Predicate.topics("outbox", r".*\.outbox")),
            Unwrap(deletes="rewrite-with-tombstone", fields=["op"], only=Predicate.topics("plain", r".*\.plain")),
        ],
    )


def test_the_shop_is_read_first_and_then_followed(source: Source) -> None:
    copy = Copy(source.topics, source.prefix, source.schema)
    source.shop.run(transactions=40)
    source.shop.run(transactions=10, mix={"erase_customer": 1, "place_order": 2})
    assert copy.follow(source.shop.ledger) == ()
    told = [each for topic in copy.topics for each in source.topics.messages[topic]]
    assert {each.value["op"] for each in told if each.value} == {"r", "c", "u", "d"}
    # A table whose identity is its key tells of a deleted row its key alone; behind it stands a tombstone.
    for topic in copy.topics:
        messages = source.topics.messages[topic]
        for number, each in enumerate(messages):
            if each.value and each.value["op"] == "d":
                assert {name: each.value["before"][name] for name in each.key} == each.key
                assert (messages[number + 1].key, messages[number + 1].value) == (each.key, None)


def test_a_large_value_that_did_not_change_is_not_told_again(source: Source) -> None:
    """The photo of a product lies outside of its row, and the log does not repeat it (TOAST)."""
    copy = Copy(source.topics, source.prefix, source.schema)
    assert copy.follow(source.shop.ledger) == ()
    before = len(source.topics.messages[source.topic("products")])
    source.shop.run(transactions=5, mix={"reprice_product": 1})
    changed = source.topics.wait(source.topic("products"), lambda read: read[before:])[before:]
    assert changed[0].value["after"]["photo"] == UNCHANGED


def copied(messages: list[Message]) -> list[int]:
    """Keys that an incremental snapshot read."""
    return [each.key["id"] for each in messages if each.value and each.value["source"]["snapshot"] == "incremental"]


def test_an_incremental_snapshot_reads_the_rows_that_are_asked_for(source: Source) -> None:
    large = f"{source.schema}.large"
    with source.connection.transaction():
        name = source.signals.execute_snapshot(large, where={large: "id >= 3"})
        source.signals.pause_snapshot()
    source.notified("PAUSED", name)
    source.execute("UPDATE large SET note = 'changed' WHERE id = 9")
    source.signals.resume_snapshot()
    source.notified("COMPLETED", name)
    read = source.topics.wait(source.topic("large"), lambda read: copied(read)[-1:] == [9])
    assert sorted(copied(read)) == [3, 4, 5, 6, 7, 8, 9]
    assert {each.key["id"]: each.value["after"]["note"] for each in read}[9] == "changed"


def test_heartbeats_move_the_slot_on_while_the_tables_rest(source: Source) -> None:
    heard = len(source.topics.wait(f"{source.prefix}.heartbeat", lambda read: read))
    query = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name LIKE %s"
    first = source.execute(query, f"{source.prefix}%")
    beat = source.execute("SELECT at FROM beats")
    source.topics.wait(
        f"{source.prefix}.heartbeat",
        lambda read: (
            len(read) > heard
            and source.execute("SELECT at FROM beats") > beat
            and source.execute(query, f"{source.prefix}%") > first
        ),
    )


def test_unwrapped_rows_tell_what_happened_to_them(source: Source) -> None:
    source.execute("INSERT INTO plain VALUES (1, 'a')")
    source.execute("UPDATE plain SET note = 'b'")
    source.execute("DELETE FROM plain")
    read = source.topics.wait(source.topic("plain"), lambda read: len(read) == 4)
    assert [each.value for each in read] == [
        {"id": 1, "note": "a", "__deleted": "false", "__op": "c"},
        {"id": 1, "note": "b", "__deleted": "false", "__op": "u"},
        {"id": 1, "note": "b", "__deleted": "true", "__op": "d"},
        None,
    ]
    assert {json.dumps(each.key) for each in read} == {'{"id": 1}'}


def test_a_row_of_the_outbox_arrives_where_it_is_routed_to(source: Source) -> None:
    identities = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
    insert = "INSERT INTO outbox VALUES (%s, %s, %s, %s, %s)"
    with source.connection.transaction():
        source.execute(insert, identities[0], "order", "17", "OrderPlaced", json.dumps({"total": 3, "lines": [1, 2]}))
        source.execute(insert, identities[1], "customer", "5", "CustomerMoved", json.dumps({"to": "Łódź"}))
        # Who writes an outbox takes the row away in the same transaction: what counts is the log.
        source.execute("DELETE FROM outbox")
    (order,) = source.topics.wait(f"{source.prefix}.orders", lambda read: read)
    (customer,) = source.topics.wait(f"{source.prefix}.customers", lambda read: read)
    assert (order.key, order.value) == ("17", {"total": 3, "lines": [1, 2]})
    assert (customer.key, customer.value) == ("5", {"to": "Łódź"})
    assert [each.headers["id"] for each in (order, customer)] == identities
    assert [each.headers["type"] for each in (order, customer)] == ["OrderPlaced", "CustomerMoved"]
