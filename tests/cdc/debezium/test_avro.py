"""Avro in Confluent's wire format, decoded without a registry: bytes that fastavro 1.13.1 wrote for the schema here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import ChangeEvent, Operation
from streamlab.cdc.debezium.avro import AvroSchema, zigzag
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.registry import Registry, Schemas
from streamlab.errors import CannotCapture, ProtocolError, StreamLost

AT = KafkaPosition.at("p.shop.orders", 0, 17)


def optional(kind: Any, name: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None}


ROW = {
    "type": "record", "name": "Value", "connect.name": "p.shop.orders.Value",
    "fields": [
        {"name": "id", "type": "int"},
        optional(
            {
                "type": "bytes", "scale": 2, "precision": 10, "connect.version": 1, "logicalType": "decimal",
                "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"},
                "connect.name": "org.apache.kafka.connect.data.Decimal",
            },
            "total",
        ),
        optional({"type": "long", "connect.version": 1, "connect.name": "io.debezium.time.MicroTimestamp"}, "at"),
        optional({"type": "int", "connect.type": "int16"}, "small"),
        optional("double", "ratio"),
        optional("bytes", "blob"),
        optional({"type": "array", "items": ["null", "string"]}, "tags"),
        optional({"type": "map", "values": "string"}, "more"),
    ],
}  # fmt: skip
SOURCE = {
    "type": "record", "name": "Source", "namespace": "io.debezium.connector.mysql",
    "fields": [
        {"name": "connector", "type": "string"}, {"name": "ts_ms", "type": "long"}, optional("long", "ts_us"),
        {"name": "db", "type": "string"}, optional("string", "table"), optional("string", "gtid"),
    ],
    "connect.name": "io.debezium.connector.mysql.Source",
}  # fmt: skip
ENVELOPE = {
    "type": "record", "name": "Envelope", "namespace": "p.shop.orders", "connect.name": "p.shop.orders.Envelope",
    "fields": [
        optional(ROW, "before"), optional("Value", "after"), {"name": "source", "type": SOURCE},
        {"name": "op", "type": "string"}, optional("long", "ts_ms"),
    ],
}  # fmt: skip
KEY = {"type": "record", "name": "Key", "namespace": "p.shop.orders", "fields": [{"name": "id", "type": "int"}]}
SCHEMAS = {1: {"schema": json.dumps(KEY)}, 2: {"schema": json.dumps(ENVELOPE), "schemaType": "AVRO"}}

WRITTEN = bytes.fromhex(
    "02090002a898d3ca8fa189060205020000000000000440020400ff0200020002020204fb1e02a898d3ca8fa1890602050200"
    "0000000000f87f020400ff0206020261000204c3a9000202026b0276000a6d7973716cd20f02d0987a0873686f70020c6f72"
    "646572730206753a3102750204"
)
WRITTEN_KEY = bytes.fromhex("02")


def numbered(number: int, data: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + data


def decoder(lookup: Callable[[int], dict[str, Any]] = lambda number: SCHEMAS[number]) -> Decoder:
    return Decoder(registered=Schemas(lookup))


def test_a_record_is_the_event_that_it_is_in_json() -> None:
    asked: list[int] = []

    def lookup(number: int) -> dict[str, Any]:
        asked.append(number)
        return SCHEMAS[number]

    reads = decoder(lookup)
    for _ in range(2):
        event = reads.decode("t", AT, numbered(1, WRITTEN_KEY), numbered(2, WRITTEN))
        assert isinstance(event, ChangeEvent)
        assert (event.operation, event.schema, event.table_name) == (Operation.UPDATE, "shop", "orders")
        assert (event.transaction_id, event.primary_key, event.key) == ("u:1", ("id",), (1,))
        assert event.commit_timestamp == datetime(1970, 1, 1, 0, 0, 1, 1000, UTC)
        new = dict(event.new_data)
        assert math.isnan(new.pop("ratio"))
        same = {"at": datetime(2024, 2, 29, 12, 34, 56, 789012), "small": -3, "blob": b"\0\xff"}
        assert new == {"id": 1, "total": Decimal("-12.50"), "tags": ["a", None, "\u00e9"], "more": {"k": "v"}, **same}
        assert event.old_data == {"id": -5, "total": None, "ratio": 2.5, "tags": [], "more": {}, **same}
    assert sorted(asked) == [1, 2], "a schema is asked for once"


def test_the_same_in_connects_terms() -> None:
    field = AvroSchema(SCHEMAS[2]["schema"]).field
    assert field["name"] == "p.shop.orders.Envelope"
    before, after = field["fields"][:2]
    assert before["fields"] == after["fields"]
    assert [each["type"] for each in after["fields"]] == [
        "int32", "bytes", "int64", "int16", "double", "bytes", "array", "map",
    ]  # fmt: skip


def test_a_schema_may_refer_to_others() -> None:
    parts = {
        "schema": json.dumps(
            {**ENVELOPE, "fields": [optional("p.shop.orders.Value", "before"), *ENVELOPE["fields"][1:]]}
        )
    }  # type: ignore[index]
    value = {**ROW, "namespace": "p.shop.orders"}
    found = {2: {**parts, "others": {"p.shop.orders.Value": json.dumps(value)}}, 1: SCHEMAS[1]}
    event = decoder(lambda number: found[number]).decode("t", AT, None, numbered(2, WRITTEN))
    assert isinstance(event, ChangeEvent)
    assert event.new_data["id"] == 1


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers(number: int) -> None:
    left, data = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        data.append(left & 0x7F | 0x80)
        left >>= 7
    data.append(left)
    assert zigzag(bytes(data), 0) == (number, len(data))


@given(st.data())
def test_damaged_bytes_are_an_event_or_a_protocol_error(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(WRITTEN) - 1))
    byte = data.draw(st.integers(0, 255))
    broken = data.draw(st.sampled_from([WRITTEN[:place], WRITTEN[:place] + bytes([byte]) + WRITTEN[place + 1 :]]))
    try:
        decoder().decode("t", AT, None, numbered(2, broken))
    except ProtocolError as error:
        assert "p.shop.orders/0:17" in str(error)


def test_what_is_not_read_is_said() -> None:
    with pytest.raises(CannotCapture, match="JSON"):
        decoder(lambda number: {"schema": "", "schemaType": "JSON"}).decode("t", AT, None, numbered(2, WRITTEN))
    for text in ("", "{}", '"nothing"', '{"type": "record"}', '["int", "string"]'):
        with pytest.raises(ProtocolError):
            decoder(lambda number: {"schema": text}).decode("t", AT, None, numbered(2, WRITTEN))  # noqa: B023


def test_a_registry_that_is_not_there_is_a_sentence_without_its_password() -> None:
    registry = Registry("http://user:secret@127.0.0.1:1")
    with pytest.raises(StreamLost, match="does not answer") as caught:
        registry.schema(1)
    assert "secret" not in str(caught.value) + repr(registry)
