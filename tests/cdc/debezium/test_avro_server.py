"""Avro as Debezium's connectors write it through the converter, read with the schemas of the real registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pymysql
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from streamlab import settings
from streamlab.cdc import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.debezium import DebeziumSource
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import Format, MySQLSource, Unwrap
from streamlab.stack.namespace import Namespace

from .orders import orders

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

AVRO: dict[str, Any] = {"key_format": Format.AVRO, "value_format": Format.AVRO}
FIELDS = ("op", "table", "source.ts_ms")
BEGIN, UPDATE, DELETE = Operation.SNAPSHOT, Operation.UPDATE, Operation.DELETE


@pytest.fixture
def namespace(registry: object) -> Iterator[Namespace]:
    with Namespace("avro") as made:
        made.subject_prefix()
        yield made


def unwrap(where: str) -> Unwrap:
    return Unwrap(deletes="rewrite-with-tombstone", fields=(*FIELDS, where))


def versions(topic: str) -> list[int]:
    with SchemaRegistryClient({"url": settings.registry_url()}) as schemas:
        return list(schemas.get_versions(f"{topic}-value"))


class Reader:
    """A reader of one topic."""

    def __init__(self, namespace: Namespace, topic: str, group: str = "") -> None:
        self.source = DebeziumSource(
            settings.kafka_bootstrap(), [topic], namespace.group(group), schema_registry=settings.registry_url()
        )

    def told(self, count: int) -> list[ChangeEvent]:
        """The changes since the last time, which have to be so many."""
        found: list[ChangeEvent] = []
        for each in self.source.transactions(idle=60):
            found += each
            self.source.acknowledge(each)
            if len(found) >= count:
                break
        assert len(found) == count, f"{len(found)} of {count} changes came"
        return found


def told(events: Sequence[ChangeEvent]) -> list[Any]:
    return [(each.operation, each.key, each.old_data, each.new_data) for each in events]


MYSQL_ROW: dict[str, Any] = {
    "id": 1, "total": Decimal("-12.50"), "huge": Decimal("12345678901234567890123456789.123456789"),
    "small": -3, "day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, 4, 5, 678901),
    "zoned": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "length": timedelta(hours=-100, microseconds=-5),
    "ratio": 2.5, "data": b"\0\xff", "note": "é", "more": {"a": [1, None]}, "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize("unwrapped", [False, True], ids=["envelopes", "unwrapped"])
def test_mysql_in_avro_is_read_with_its_types_and_through_an_alter(namespace: Namespace, unwrapped: bool) -> None:
    database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
    with (
        pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection,
        connection.cursor() as cursor,
        ConnectClient() as client,
    ):
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"CREATE DATABASE {database}")
        cursor.execute(
            f"CREATE TABLE {database}.orders (id int PRIMARY KEY, total decimal(10,2), huge decimal(38,9),"
            " small smallint, day date, at datetime(6), zoned timestamp, length time(6), ratio double,"
            " data varbinary(9), note text, more json, nothing int)"
        )
        values = (
            "-12.50, 12345678901234567890123456789.123456789, -3, '2026-01-02', '2026-01-02 03:04:05.678901',"
            " '2026-01-02 03:04:05', '-100:00:00.000005', 2.5, x'00ff', 'é', '{\"a\": [1, null]}', NULL"
        )
        cursor.execute(f"INSERT INTO {database}.orders VALUES (1, {values})")
        source = MySQLSource(
            prefix=prefix, database=database, tables=["orders"], decimals="precise",
            transforms=[unwrap("db")] if unwrapped else (), **AVRO,
        )  # fmt: skip
        client.apply(name, source.configuration())
        client.wait_ready(name)
        topic = f"{prefix}.{database}.orders"
        reader = Reader(namespace, topic)
        with reader.source:
            (first,) = reader.told(1)
            assert (first.operation, first.schema, first.table_name) == (BEGIN, database, "orders")
            assert (first.primary_key, first.key) == (("id",), (1,))
            assert dict(first.new_data) == MYSQL_ROW
            assert versions(topic) == [1]

            cursor.execute(f"INSERT INTO {database}.orders VALUES (2, {values})")
            cursor.execute(f"UPDATE {database}.orders SET total = 0.01 WHERE id = 2")
            # In the middle of the stream, with the reader where it is: the next record names another schema.
            cursor.execute(f"ALTER TABLE {database}.orders ADD COLUMN paid decimal(6,3)")
            cursor.execute(f"UPDATE {database}.orders SET paid = 1.250 WHERE id = 1")
            cursor.execute(f"DELETE FROM {database}.orders WHERE id = 2")
            insert, update, altered, delete = reader.told(4)
            assert [each.operation for each in (insert, update, altered, delete)] == [
                Operation.INSERT, UPDATE, UPDATE, DELETE,
            ]  # fmt: skip
            second = {**MYSQL_ROW, "id": 2}
            assert dict(insert.new_data) == second
            assert dict(update.new_data) == {**second, "total": Decimal("0.01")}
            assert dict(altered.new_data) == {**MYSQL_ROW, "paid": Decimal("1.250")}
            assert dict(delete.old_data) == {**second, "total": Decimal("0.01"), "paid": None}
            assert (delete.key, delete.new_data) == ((2,), {})
            if not unwrapped:
                assert dict(update.old_data) == second
                assert insert.transaction_id.count(":") == 1, "the GTID"
            assert versions(topic) == [1, 2]
            assert {each.key for each in (insert, update)} == {(2,)}

            # A reader that begins anew meets both schemas.
            again = Reader(namespace, topic, "again")
            with again.source:
                events = again.told(5)
                assert told(events) == told([first, insert, update, altered, delete])
            with Reader(namespace, topic, "frames").source as cdc:
                rows: list[dict[str, Any]] = []
                for batch in cdc.frames(idle=60):
                    rows += [row for frame in batch for row in frame.data.to_dicts()]
                    if len(rows) >= len(events):
                        break
                shown = [event.new_data or event.old_data for event in events]
                assert [row["operation"] for row in rows] == [event.operation.value for event in events]
                for name in ("id", "total", "at", "length", "data", "paid"):
                    assert [row.get(name) for row in rows] == [row.get(name) for row in shown], name


POSTGRES_ROW: dict[str, Any] = {
    "id": 1, "total": Decimal("-12.50"), "loose": Decimal("1.23456789012345678901234567890"), "small": -3,
    "day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, 4, 5, 678901),
    "zoned": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "clock": time(23, 59, 59, 999999),
    "ratio": 2.5, "data": b"\0\xff", "note": "é", "more": {"a": [1, None]},
    "who": UUID("00000000-0000-0000-0000-000000000001"), "tags": ["a", None], "totals": [Decimal("1.5"), None],
    "nothing": None, "part": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("unwrapped", [False, True], ids=["envelopes", "unwrapped"])
def test_postgresql_in_avro_is_read_with_its_types_and_through_an_alter(namespace: Namespace, unwrapped: bool) -> None:
    columns = (
        "id int PRIMARY KEY, total numeric(10,2), loose numeric, small smallint, day date,"
        " at timestamp, zoned timestamptz, clock time, ratio float8, data bytea, note text, more jsonb, who uuid,"
        " tags text[], totals numeric(4,1)[], nothing int, part real"
    )
    with orders(namespace, columns) as table:

        def insert(number: int, note: str = "'é'") -> None:
            table.execute(
                f"INSERT INTO orders VALUES ({number}, -12.50, 1.23456789012345678901234567890, -3, '2026-01-02',"
                " '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05.678901+00', '23:59:59.999999', 2.5, '\\x00ff',"
                f" {note}, '{{{{\"a\": [1, null]}}}}', '00000000-0000-0000-0000-000000000001', ARRAY['a', NULL],"
                " ARRAY[1.5, NULL], NULL, 0.1)"
            )

        insert(1)
        table.capture(transforms=[unwrap("schema")] if unwrapped else (), **AVRO)
        reader = Reader(namespace, table.topic)
        with reader.source:
            (first,) = reader.told(1)
            assert (first.operation, first.schema, first.table_name) == (BEGIN, table.schema, "orders")
            assert (first.primary_key, first.key) == (("id",), (1,))
            assert dict(first.new_data) == POSTGRES_ROW

            insert(2, "repeat('x', 9000)")
            table.execute("UPDATE orders SET total = 0.01 WHERE id = 2")
            table.execute("ALTER TABLE orders ADD COLUMN paid numeric(6,3)")
            table.execute("UPDATE orders SET paid = 1.250 WHERE id = 1")
            table.execute("DELETE FROM orders WHERE id = 2")
            made, update, altered, delete = reader.told(4)
            assert [each.operation for each in (made, update, altered, delete)] == [
                Operation.INSERT, UPDATE, UPDATE, DELETE,
            ]  # fmt: skip
            second = {**POSTGRES_ROW, "id": 2, "note": "x" * 9000}
            assert dict(made.new_data) == second
            # The large value did not change, and the log does not repeat it.
            assert dict(update.new_data) == {**second, "total": Decimal("0.01"), "note": UNCHANGED}
            assert dict(altered.new_data) == {**POSTGRES_ROW, "paid": Decimal("1.250")}
            assert (delete.old_data, delete.key) == ({"id": 2}, (2,))
            assert versions(table.topic) == [1, 2]
