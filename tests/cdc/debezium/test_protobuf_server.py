"""Protobuf in Confluent's wire format, with schemas in the real registry: the changes that real connectors wrote.

A connector writes JSON with schemas. Each record is written again as Confluent's converter would (`as_protobuf`), the
schema registered as text, as the converter does it, or by Confluent's serializer in Python, compiled. Both topics have
to tell the same changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pymysql
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from streamlab import settings
from streamlab.cdc import ChangeEvent, Operation
from streamlab.cdc.debezium import DebeziumSource
from streamlab.cdc.debezium.proto_files import compiled
from streamlab.cdc.debezium.registry import Registry
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import Format, MySQLSource, Unwrap
from streamlab.errors import CannotCapture
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

from .as_protobuf import Converter, Nulls
from .orders import orders

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

LIMIT = 60.0
JSON: dict[str, Any] = {"key_format": Format.JSON_WITH_SCHEMAS, "value_format": Format.JSON_WITH_SCHEMAS}
OPERATIONS = [Operation.SNAPSHOT, Operation.INSERT, Operation.UPDATE, Operation.UPDATE, Operation.DELETE]


@pytest.fixture
def namespace(registry: object) -> Iterator[Namespace]:
    with Namespace("proto") as made:
        made.subject_prefix()
        yield made


def written(topic: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values of the first records of a topic of one partition."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap(), "group.id": "never", "isolation.level": "read_committed"}
    )
    found: list[tuple[bytes | None, bytes | None]] = []
    deadline = time.monotonic() + LIMIT
    try:
        while topic not in consumer.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
            message = consumer.poll(0.2)
            if message is not None:
                assert message.error() is None
                found.append((message.key(), message.value()))
        return found
    finally:
        consumer.close()


def write_again(topic: str, records: list[tuple[bytes | None, bytes | None]], by: str, nulls: Nulls, rule: str) -> None:
    """The same records as Protobuf, in another topic."""
    admin = kafka_admin()
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(20)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    converters: dict[str, Converter] = {}
    with SchemaRegistryClient({"url": settings.registry_url()}) as schemas:
        # Fields are numbered by their places: a column that comes moves those that the transformation adds behind them.
        schemas.set_compatibility(f"{topic}-value", rule)

        def made(content: bytes | None, field: MessageField) -> bytes | None:
            if content is None:
                return None
            read = json.loads(content)
            known = json.dumps(read["schema"])
            converter = converters.get(known) or converters.setdefault(known, Converter(read["schema"], nulls))
            message = converter.message(read["payload"])
            if by == "python":
                context = SerializationContext(topic, field)
                return bytes(ProtobufSerializer(converter.kind, schemas)(message, context) or b"")
            number = schemas.register_schema(f"{topic}-{field}", Schema(converter.text, "PROTOBUF"))
            # One zero stands for the first message of the file.
            return b"\0" + number.to_bytes(4, "big") + b"\0" + message.SerializeToString()

        for key, value in records:
            producer.produce(topic, made(value, MessageField.VALUE), made(key, MessageField.KEY))
    assert producer.flush(30) == 0


def read(namespace: Namespace, topic: str, count: int, **options: Any) -> list[ChangeEvent]:
    found: list[ChangeEvent] = []
    group = namespace.group(f"reader{len(options)}")
    with DebeziumSource(settings.kafka_bootstrap(), [topic], group, **options) as source:
        for each in source.transactions(idle=30):
            found += each
            if len(found) >= count:
                break
    assert len(found) == count
    return found


def compare(
    namespace: Namespace, topic: str, configuration: Mapping[str, str], types: Mapping[str, Mapping[str, str]],
    by: str, nulls: Nulls = "optional", rule: str = "BACKWARD",
) -> list[ChangeEvent]:  # fmt: skip
    records = written(topic, len(OPERATIONS) + 1)  # a tombstone behind the last one
    again = namespace.topic("again")
    write_again(again, records, by, nulls, rule)
    registry = {"schema_registry": settings.registry_url()}
    # Nobody has said what the numbers and texts are.
    with pytest.raises(CannotCapture, match="comes as Protobuf, which does not say"):
        read(namespace, again, 1, **registry)
    theirs = read(namespace, topic, len(OPERATIONS))
    ours = read(namespace, again, len(OPERATIONS), configuration=configuration, types=types, **registry)
    assert [each.operation for each in ours] == OPERATIONS
    for one, other in zip(theirs, ours, strict=True):
        assert one._replace(position=other.position) == other
        assert [type(each) for each in one.new_data.values()] == [type(each) for each in other.new_data.values()]
    with SchemaRegistryClient({"url": settings.registry_url()}) as schemas:
        assert schemas.get_versions(f"{again}-value") == [1, 2]
    return ours


@pytest.mark.parametrize(
    ("unwrapped", "by", "nulls"),
    [
        (False, "text", "optional"),
        (True, "text", "optional"),
        (False, "python", "optional"),
        (False, "text", "wrapper"),
    ],
)
def test_mysql_in_protobuf_is_what_it_is_in_json(namespace: Namespace, unwrapped: bool, by: str, nulls: Nulls) -> None:
    database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
    with (
        pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection,
        connection.cursor() as cursor,
        ConnectClient() as client,
    ):
        cursor.execute(f"CREATE DATABASE {database}")
        table = f"{database}.orders"
        cursor.execute(
            f"CREATE TABLE {table} (id int PRIMARY KEY, total decimal(10,2), small smallint NOT NULL, day date,"
            " at datetime(3), zoned timestamp NULL, clock time(3), ratio double, part float, data varbinary(9),"
            " note text, more json, big bigint, nothing int)"
        )
        values = (
            "-12.50, -3, '2026-01-02', '2026-01-02 03:04:05.678', '2026-01-02 03:04:05', '23:59:59.999', 2.5, 0.1,"
            " x'00ff', '', '{\"a\": [1, null]}', 9007199254740993, NULL"
        )
        cursor.execute(f"INSERT INTO {table} VALUES (1, {values})")
        unwrap = Unwrap(deletes="rewrite-with-tombstone", fields=("op", "table", "db", "source.ts_ms"))
        source = MySQLSource(
            prefix=prefix, database=database, tables=["orders"], decimals="precise", times="connect",
            transforms=[unwrap] if unwrapped else (), **JSON,
        )  # fmt: skip
        client.apply(name, source.configuration())
        client.wait_ready(name)
        topic = f"{prefix}.{database}.orders"
        written(topic, 1)
        cursor.execute(f"INSERT INTO {table} VALUES (2, {values})")
        cursor.execute(f"UPDATE {table} SET total = 0.01, small = 0, note = NULL WHERE id = 2")
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN paid decimal(6,3)")
        cursor.execute(f"UPDATE {table} SET paid = 1.250 WHERE id = 1")
        cursor.execute(f"DELETE FROM {table} WHERE id = 2")
        types = {"orders": {"zoned": "timestamptz", "more": "json"}}
        rule = "NONE" if unwrapped else "BACKWARD"
        ours = compare(namespace, topic, source.configuration(), types, by, nulls, rule)
        assert (ours[1].new_data["note"], ours[2].new_data["note"]) == ("", None)
        assert (ours[2].new_data["small"], ours[2].new_data["nothing"]) == (0, None)
        assert ours[1].new_data["big"] == 9007199254740993


@pytest.mark.parametrize("by", ["text", "python"])
def test_postgresql_in_protobuf_is_what_it_is_in_json(namespace: Namespace, by: str) -> None:
    columns = (
        "id int PRIMARY KEY, total numeric(10,2), loose numeric, small smallint, day date,"
        " at timestamp, zoned timestamptz, clock time, flag boolean, part real, data bytea, note text, more jsonb,"
        " who uuid, tags text[], numbers int[], spot point, nothing int"
    )
    with orders(namespace, columns) as table:
        row = (
            "-12.50, 1.2345678901234567890123, -3, '2026-01-02', '2026-01-02 03:04:05.678901',"
            " '2026-01-02 03:04:05.678901+00', '23:59:59.999999', true, 0.1, '\\x00ff', repeat('x', 9000),"
            " '{{\"a\": 1}}', '00000000-0000-0000-0000-000000000001', ARRAY['a', ''], ARRAY[1, 0], '(1,2)', NULL"
        )
        table.execute(f"INSERT INTO orders VALUES (1, {row})")
        source = table.capture(times="isostring", **JSON)
        written(table.topic, 1)
        table.execute(f"INSERT INTO orders VALUES (2, {row})")
        table.execute("UPDATE orders SET total = 0.01 WHERE id = 2")
        table.execute("ALTER TABLE orders ADD COLUMN paid numeric(6,3)")
        table.execute("UPDATE orders SET paid = 1.250 WHERE id = 1")
        table.execute("DELETE FROM orders WHERE id = 2")
        types = {
            f"{table.schema}.orders": {
                "day": "date", "at": "timestamp", "zoned": "timestamptz", "clock": "time", "more": "json", "who": "uuid"
            }
        }  # fmt: skip
        compare(namespace, table.topic, source.configuration(), types, by)


def test_what_a_schema_refers_to_is_asked_for_to_its_ends(namespace: Namespace) -> None:
    prefix = namespace.subject_prefix()
    texts = {
        "row": 'syntax = "proto3"; package a; message Row { optional int32 id = 1; }',
        "rows": 'syntax = "proto3"; package a; import "row.proto"; message Rows { repeated Row rows = 1; }',
        "all": (
            'syntax = "proto3"; package a; import "rows.proto"; import "row.proto";'
            " message All { Rows a = 1; Row b = 2; }"
        ),
    }
    needs = {"row": (), "rows": ("row",), "all": ("rows", "row")}
    with SchemaRegistryClient({"url": settings.registry_url()}) as schemas:
        for name, text in texts.items():
            others = [SchemaReference(f"{each}.proto", f"{prefix}/{each} of a", 1) for each in needs[name]]
            number = schemas.register_schema(f"{prefix}/{name} of a", Schema(text, "PROTOBUF", others))
    found = Registry(settings.registry_url()).schema(number)
    assert list(found["others"]) == ["row.proto", "rows.proto"], "each behind what it needs itself"
    kind = compiled(found["schema"], found["others"]).message_types_by_name["All"]
    assert kind.fields_by_name["a"].message_type.full_name == "a.Rows"
