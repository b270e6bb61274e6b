"""Records with schemas in the registry: Avro through Kafka Connect, Avro and Protobuf through Confluent's libraries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from psycopg import sql

from streamlab import settings
from streamlab.connect import ConnectClient, lint
from streamlab.connect.connectors import FileSource, Format, JDBCSink, MySQLSource, Unwrap
from streamlab.connect.connectors.common import AVRO_CONVERTER
from streamlab.connect.findings import Kind
from streamlab.errors import ConnectorFailed, NotRunning
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

LIMIT = 60.0
AVRO: dict[str, Any] = {"key_format": Format.AVRO, "value_format": Format.AVRO}


@pytest.fixture
def namespace(registry: object) -> Iterator[Namespace]:
    with Namespace("schemas") as made:
        yield made


@pytest.fixture
def client(registry: object) -> Iterator[ConnectClient]:
    with ConnectClient() as made:
        yield made


@pytest.fixture
def schemas(registry: object) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": settings.registry_url()}) as made:
        yield made


@pytest.fixture
def cursor(stack: object) -> Iterator[Any]:
    with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
        with connection.cursor() as made:
            yield made


def messages(topic: str, count: int) -> list[Message]:
    """The first records of a topic of one partition."""
    configuration = {
        "bootstrap.servers": settings.kafka_bootstrap(),
        "group.id": "never committed",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "log_level": 0,
    }
    consumer = Consumer(configuration)
    found: list[Message] = []
    deadline = time.monotonic() + LIMIT
    try:
        while topic not in consumer.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"no topic {topic}"
            time.sleep(0.05)
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while len(found) < count:
            assert time.monotonic() < deadline, found
            if (message := consumer.poll(0.2)) is None:
                continue
            if (problem := message.error()) is not None:
                assert problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, problem
                continue
            found.append(message)
        return found
    finally:
        consumer.close()


def wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# -- without servers -------------------------------------------------------------------------------------------------


def test_avro_is_clean_under_the_lint_and_a_misspelt_key_of_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_MYSQL_DSN", "mysql://app:s3cret@127.0.0.1:3333/shop")
    monkeypatch.setenv("STREAMLAB_KAFKA_BOOTSTRAP", "127.0.0.1:9999")
    monkeypatch.setenv("STREAMLAB_CONNECT_URL", "http://127.0.0.1:8888")
    monkeypatch.setenv("STREAMLAB_CONNECT_MYSQL_PASSWORD", "${env:PASSWORD}")
    monkeypatch.setenv("STREAMLAB_REGISTRY_URL", "http://127.0.0.1:7777/")
    made = MySQLSource(prefix="p", database="shop", tables=["orders"], **AVRO).configuration()
    assert lint(made) == []
    for role in ("key", "value"):
        assert made[f"{role}.converter"] == AVRO_CONVERTER
        assert made[f"{role}.converter.apicurio.registry.url"] == "http://127.0.0.1:7777/apis/registry/v2"
    assert made["schema.name.adjustment.mode"] == "avro"

    (wrong,) = lint({**made, "value.converter.apicurio.registry.auto-registr": "true"})
    assert wrong.fix == "Did you mean value.converter.apicurio.registry.auto-register?"
    # What the JSON converter reads has no effect on this one.
    (idle,) = lint({**made, "value.converter.schemas.enable": "true"})
    assert (idle.key, idle.kind) == ("value.converter.schemas.enable", Kind.UNKNOWN)


@pytest.mark.integration
def test_avro_without_a_registry_says_what_to_start(another_home: object) -> None:
    with pytest.raises(NotRunning, match="streamlab up registry"):
        Format.AVRO.keys("value")


# -- Avro through Kafka Connect --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_what_connect_writes_as_avro_confluents_reader_reads_through_a_compatible_change_and_not_through_another(
    client: ConnectClient, namespace: Namespace, schemas: SchemaRegistryClient, cursor: Any
) -> None:
    database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
    namespace.subject_prefix()
    # Names that Avro does not take.
    cursor.execute(f"CREATE DATABASE `{database}`")
    table = f"`{database}`.`or-ders`"
    cursor.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, total decimal(10,2), `paid on` date)")
    cursor.execute(f"INSERT INTO {table} VALUES (1, 1.50, '2026-01-02')")
    source = MySQLSource(
        prefix=prefix, database=database, tables=["or-ders"], decimals="precise", transforms=[Unwrap()], **AVRO
    )
    client.apply(name, source.configuration())
    client.wait_ready(name)
    topic = f"{prefix}.{database}.or-ders"
    reader = AvroDeserializer(schemas)  # type: ignore[no-untyped-call]

    def read(count: int, how: Any = reader) -> list[Any]:
        context = SerializationContext(topic, MessageField.VALUE)
        return [how(each.value(), context) for each in messages(topic, count)]

    first = {"id": 1, "total": Decimal("1.50"), "paid_on": (date(2026, 1, 2) - date(1970, 1, 1)).days}
    assert read(1) == [first]
    key = messages(topic, 1)[0].key()
    assert reader(key, SerializationContext(topic, MessageField.KEY)) == {"id": 1}

    # A new column that has a default: who reads with the newer schema reads the older records too.
    cursor.execute(f"ALTER TABLE {table} ADD COLUMN note varchar(20) NOT NULL DEFAULT 'none'")
    cursor.execute(f"INSERT INTO {table} VALUES (2, 2.50, NULL, 'two')")
    second = {"id": 2, "total": Decimal("2.50"), "paid_on": None, "note": "two"}
    assert read(2) == [first, second]
    assert schemas.get_versions(f"{topic}-value") == [1, 2]
    assert schemas.get_versions(f"{topic}-key") == [1]
    newest = schemas.get_latest_version(f"{topic}-value").schema.schema_str
    assert read(2, AvroDeserializer(schemas, newest)) == [{**first, "note": "none"}, second]  # type: ignore[no-untyped-call]

    # One that has none: the older records could not be read. The registry refuses, and the task says so.
    cursor.execute(f"ALTER TABLE {table} ADD COLUMN amount int NOT NULL")
    cursor.execute(f"INSERT INTO {table} VALUES (3, 3.50, NULL, 'three', 3)")
    wait(lambda: client.status(name).state == "FAILED", "the task does not fail")
    with pytest.raises(ConnectorFailed, match=f"Incompatible artifact: {topic}-value"):
        client.wait_ready(name)
    assert schemas.get_versions(f"{topic}-value") == [1, 2]
    assert read(2) == [first, second]

    # The change that was refused is not lost: with a rule that allows it, the task goes on where it failed.
    schemas.set_compatibility(f"{topic}-value", "NONE")
    client.restart(name)
    assert read(3)[2] == {**second, "id": 3, "total": Decimal("3.50"), "note": "three", "amount": 3}


@pytest.mark.integration
def test_a_sink_reads_avro_with_its_types(client: ConnectClient, namespace: Namespace, cursor: Any) -> None:
    database, prefix, schema = namespace.mysql_database(), namespace.topic_prefix(), namespace.postgres_schema()
    source, sink = namespace.connector("source"), namespace.connector("sink")
    namespace.subject_prefix()
    cursor.execute(f"CREATE DATABASE `{database}`")
    cursor.execute(f"CREATE TABLE `{database}`.orders (id int PRIMARY KEY, total decimal(10,2), day date, at datetime)")
    cursor.execute(f"INSERT INTO `{database}`.orders VALUES (1, 1.50, '2026-01-02', '2026-01-02 03:04:05')")
    tables = MySQLSource(prefix=prefix, database=database, tables=["orders"], decimals="precise", **AVRO)
    topic = f"{prefix}.{database}.orders"
    rows = sql.SQL("SELECT id, total, day::text, at::text FROM {}").format(sql.Identifier(schema, "orders"))
    with psycopg.connect(str.__str__(settings.postgres_dsn("app")), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        client.apply(source, tables.configuration())
        client.wait_ready(source)
        client.apply(sink, JDBCSink(topics=[topic], table=f"{schema}.orders", **AVRO).configuration())

        def found() -> list[tuple[Any, ...]]:
            try:
                return connection.execute(rows).fetchall()
            except psycopg.errors.UndefinedTable:
                return []

        wait(lambda: bool(found()) or bool(client.status(sink).failed), "no row in PostgreSQL")
        client.wait_ready(sink)
        assert found() == [(1, Decimal("1.50"), "2026-01-02", "2026-01-02 03:04:05")]


@pytest.mark.integration
def test_text_is_avro_too(client: ConnectClient, namespace: Namespace, schemas: SchemaRegistryClient) -> None:
    topic = namespace.topic("lines")
    namespace.subject_prefix()
    source = FileSource(path=Path("/etc/os-release"), topic=topic, value_format=Format.AVRO)
    client.apply(namespace.connector(), source.configuration())
    reader = AvroDeserializer(schemas)  # type: ignore[no-untyped-call]
    (line,) = messages(topic, 1)
    told = reader(line.value(), SerializationContext(topic, MessageField.VALUE))
    assert told == Path("/etc/os-release").read_text(encoding="utf-8").splitlines()[0]


# -- Confluent's serializers in Python -------------------------------------------------------------------------------


def make_topic(name: str) -> None:
    admin = kafka_admin()
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(20)


def produced(topic: str, value: bytes) -> bytes:
    """A value, once it has been through the broker."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(30) == 0
    return messages(topic, 1)[0].value() or b""


@pytest.mark.integration
def test_avro_of_confluents_serializer_shares_the_registry(
    namespace: Namespace, schemas: SchemaRegistryClient, stack: object
) -> None:
    topic = namespace.topic("python")
    namespace.subject_prefix()
    make_topic(topic)
    context = SerializationContext(topic, MessageField.VALUE)
    text = '{"type": "record", "name": "row", "fields": [{"name": "id", "type": "int"}]}'
    value = AvroSerializer(schemas, text)({"id": 7}, context)
    assert AvroDeserializer(schemas)(produced(topic, value), context) == {"id": 7}  # type: ignore[no-untyped-call]
    assert schemas.get_versions(f"{topic}-value") == [1]


def row_type(file: str, **fields: int) -> Any:
    """A message type ``row``, made without a compiler: field -> its number; strings."""
    described = descriptor_pb2.FileDescriptorProto(name=file, package="schemas", syntax="proto3")
    message = described.message_type.add(name="row")
    for name, number in fields.items():
        message.field.add(
            name=name,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("schemas.row"))


@pytest.mark.integration
def test_protobuf_evolves_compatibly_and_an_incompatible_change_is_refused(
    namespace: Namespace, schemas: SchemaRegistryClient, stack: object
) -> None:
    topic = namespace.topic("proto")
    namespace.subject_prefix()
    make_topic(topic)
    context = SerializationContext(topic, MessageField.VALUE)

    def write(kind: Any, **values: str) -> bytes:
        return ProtobufSerializer(kind, schemas)(kind(**values), context)

    before, after = row_type("row.proto", id=1), row_type("row.proto", id=1, note=2)
    value = produced(topic, write(before, id="one"))
    newer = write(after, id="two", note="new")
    read = ProtobufDeserializer(after, {"use.deprecated.format": False}, schemas)
    assert [(each.id, each.note) for each in (read(value, context), read(newer, context))] == [
        ("one", ""),
        ("two", "new"),
    ]
    assert schemas.get_versions(f"{topic}-value") == [1, 2]
    with pytest.raises((SchemaRegistryError, SerializationError), match="Incompatible artifact"):
        write(row_type("row.proto", id=2, note=1), id="three")
