"""Debezium's envelopes: pure, and through the real MySQL, Connect and Kafka."""

from __future__ import annotations

import json

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab import settings
from streamlab.cdc.debezium import DebeziumTail, event_of
from streamlab.cdc.event import Operation
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import mysql_source
from streamlab.errors import ChangeStreamError, ProtocolError, StreamlabError
from streamlab.sql import mysql_identifier
from streamlab.stack.namespace import Namespace

SOURCE = {"db": "shop", "table": "orders", "file": "binlog.000001", "pos": 4, "row": 1, "ts_ms": 1000, "gtid": "u:1"}


def test_an_envelope_with_and_without_schema_is_the_same_event() -> None:
    envelope = {"op": "u", "before": {"id": 1}, "after": {"id": 2}, "source": SOURCE}
    event = event_of(json.dumps(envelope).encode())
    assert event == event_of(json.dumps({"schema": {}, "payload": envelope}).encode())
    assert (event.operation, event.schema, event.table_name) == (Operation.UPDATE, "shop", "orders")
    assert (event.position, event.ordinal, event.transaction_id) == ("binlog.000001:4", 1, "u:1")
    assert event.commit_timestamp.isoformat() == "1970-01-01T00:00:01+00:00"


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()),
    )
)
def test_anything_else_is_a_protocol_error(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        event_of(value)


@pytest.mark.integration
def test_rows_of_mysql_arrive_through_connect_and_kafka(stack: object) -> None:
    with Namespace("test_debezium") as namespace, ConnectClient() as connect:
        database = namespace.mysql_database()
        with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
            cursor = connection.cursor()
            orders = f"{mysql_identifier(database)}.orders"
            cursor.execute(f"CREATE DATABASE {mysql_identifier(database)}")
            cursor.execute(f"CREATE TABLE {orders} (id int PRIMARY KEY, total decimal(10,2))")
            cursor.execute(f"INSERT INTO {orders} VALUES (1, 9.90)")
            configuration = mysql_source(prefix=namespace.topic_prefix(), database=database, tables=["orders"])
            password = settings.mysql_address("cdc").secret()
            assert password not in json.dumps(configuration)
            connect.apply(namespace.connector(), configuration)
            connect.apply(namespace.connector(), configuration)
            connect.wait_ready(namespace.connector())
            topic = f"{namespace.name}.{database}.orders"
            with DebeziumTail(settings.kafka_bootstrap(), topic=topic, group=namespace.group()) as tail:
                (before,) = tail.changes(1)
                cursor.execute(f"UPDATE {orders} SET total = 1 WHERE id = 1")
                cursor.execute(f"DELETE FROM {mysql_identifier(database)}.orders")
                updated, deleted = tail.changes(2)
        assert (before.operation, updated.operation, deleted.operation) == (
            Operation.SNAPSHOT,
            Operation.UPDATE,
            Operation.DELETE,
        )
        assert before.new_data == {"id": 1, "total": "9.90"}
        assert updated.old_data == {"id": 1, "total": "9.90"}
        assert deleted.new_data == {}
        assert namespace.close() == []


@pytest.mark.integration
def test_a_refused_configuration_and_a_silent_topic_are_sentences(stack: object) -> None:
    with Namespace("test_debezium") as namespace, ConnectClient() as connect:
        with pytest.raises(StreamlabError, match="refuses"):
            connect.apply(namespace.connector(), {"connector.class": "no.such.Connector"})
        with DebeziumTail(settings.kafka_bootstrap(), topic=namespace.topic("none"), group=namespace.group()) as tail:
            with pytest.raises(ChangeStreamError, match="No change came"):
                next(tail.changes(1, limit=0.5))
