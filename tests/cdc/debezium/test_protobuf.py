"""Protobuf in Confluent's wire format, decoded without a registry: messages that Google's library wrote."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import ChangeEvent, Operation
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.proto_files import compiled
from streamlab.cdc.debezium.protobuf import ProtobufSchema
from streamlab.cdc.debezium.registry import Schemas
from streamlab.errors import CannotCapture, ProtocolError

from .as_protobuf import Converter, Nulls

AT = KafkaPosition.at("p.shop.orders", 0, 17)


def optional(kind: str, field: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "optional": True, "field": field, **more}


COLUMNS = [
    {"type": "int32", "optional": False, "field": "id"},
    optional("bytes", "total", name="org.apache.kafka.connect.data.Decimal", parameters={"scale": "2"}),
    optional("int64", "at", name="io.debezium.time.MicroTimestamp"),
    optional("int16", "small"),
    optional("string", "note"),
    optional("array", "tags", items={"type": "string", "optional": True}),
]
ENVELOPE: dict[str, Any] = {
    "type": "struct", "optional": False, "name": "p.shop.orders.Envelope",
    "fields": [
        {"type": "struct", "fields": COLUMNS, "optional": True, "name": "p.shop.orders.Value", "field": "before"},
        {"type": "struct", "fields": COLUMNS, "optional": True, "name": "p.shop.orders.Value", "field": "after"},
        {
            "type": "struct", "optional": False, "name": "io.debezium.connector.mysql.Source", "field": "source",
            "fields": [
                {"type": "string", "optional": False, "field": "connector"},
                {"type": "int64", "optional": False, "field": "ts_ms"}, optional("int64", "ts_us"),
                {"type": "string", "optional": False, "field": "db"}, optional("string", "table"),
                optional("string", "gtid"),
            ],
        },
        {"type": "string", "optional": False, "field": "op"},
    ],
}  # fmt: skip
KEY = {"type": "struct", "optional": False, "name": "p.shop.orders.Key", "fields": COLUMNS[:1]}
PAYLOAD: dict[str, Any] = {
    "before": {"id": -5, "total": None, "at": None, "small": None, "note": None, "tags": []},
    "after": {"id": 1, "total": "+x4=", "at": 1709210096789012, "small": -3, "note": "", "tags": ["a", "\u00e9"]},
    "source": {
        "connector": "mysql", "ts_ms": 1001, "ts_us": 1001000, "db": "shop", "table": "orders", "gtid": "u:1"
    },
    "op": "u",
}  # fmt: skip
TYPES = {"orders": {"id": "int", "at": "io.debezium.time.MicroTimestamp", "note": "any", "tags": "text[]"}}


def written(nulls: Nulls = "optional") -> tuple[dict[int, dict[str, Any]], bytes, bytes]:
    """Schemas by their numbers; a key, and a value."""
    key, value = Converter(KEY, nulls), Converter(ENVELOPE, nulls)
    schemas = {number: {"schema": each.text, "schemaType": "PROTOBUF"} for number, each in ((1, key), (2, value))}
    return schemas, numbered(1, key.message({"id": 1}).SerializeToString()), numbered(
        2, value.message(PAYLOAD).SerializeToString()
    )  # fmt: skip


def numbered(number: int, data: bytes, indexes: bytes = b"\0") -> bytes:
    return b"\0" + number.to_bytes(4, "big") + indexes + data


SCHEMAS, WRITTEN_KEY, WRITTEN = written()


def decoder(lookup: Callable[[int], dict[str, Any]] = lambda number: SCHEMAS[number], **options: Any) -> Decoder:
    return Decoder(registered=Schemas(lookup), **{"types": TYPES, **options})


@pytest.mark.parametrize("nulls", ["optional", "wrapper"])
def test_a_record_is_the_event_that_it_is_in_json(nulls: Nulls) -> None:
    schemas, key, value = written(nulls)
    asked: list[int] = []

    def lookup(number: int) -> dict[str, Any]:
        asked.append(number)
        return schemas[number]

    reads = decoder(lookup)
    for _ in range(2):
        event = reads.decode("t", AT, key, value)
        assert isinstance(event, ChangeEvent)
        assert (event.operation, event.schema, event.table_name) == (Operation.UPDATE, "shop", "orders")
        assert (event.transaction_id, event.primary_key, event.key) == ("u:1", ("id",), (1,))
        assert event.commit_timestamp == datetime(1970, 1, 1, 0, 0, 1, 1000, UTC)
        assert event.new_data == {
            "id": 1, "total": Decimal("-12.50"), "at": datetime(2024, 2, 29, 12, 34, 56, 789012), "small": -3,
            "note": "", "tags": ["a", "\u00e9"],
        }  # fmt: skip
        assert event.old_data == {"id": -5, "total": None, "at": None, "small": None, "note": None, "tags": []}
    assert sorted(asked) == [1, 2], "a schema is asked for once"


def test_what_a_message_does_not_say_has_to_be_said() -> None:
    value = numbered(2, WRITTEN[6:])
    with pytest.raises(CannotCapture, match=r"shop\.orders\.id comes as Protobuf"):
        decoder(types=None).decode("t", AT, None, value)
    with pytest.raises(CannotCapture, match=r"shop\.orders\.note comes as Protobuf"):
        decoder(types={"orders": {k: v for k, v in TYPES["orders"].items() if k != "note"}}).decode(
            "t", AT, None, value
        )
    modes = {"decimal.handling.mode": "precise", "time.precision.mode": "connect"}
    event = decoder(types=None, configuration=modes).decode("t", AT, None, value)
    assert isinstance(event, ChangeEvent)
    assert (event.new_data["total"], event.new_data["note"]) == (Decimal("-12.50"), "")
    with pytest.raises(CannotCapture):
        decoder(types=None, configuration={**modes, "time.precision.mode": "adaptive"}).decode("t", AT, None, value)


def test_a_structure_is_as_certain_as_what_is_in_it() -> None:
    for kind, certain in (("double", True), ("int64", False)):
        place = optional("struct", "place", name="p.Place", fields=[optional(kind, "x")])
        row = {**ENVELOPE["fields"][1], "fields": [optional("double", "id"), place]}
        schema = {**ENVELOPE, "fields": [{**row, "field": "before"}, row, *ENVELOPE["fields"][2:]]}
        made = Converter(schema)
        message = made.message({**PAYLOAD, "before": None, "after": {"id": 1.5, "place": {"x": 2}}})
        reads = decoder(lambda number: {"schema": made.text, "schemaType": "PROTOBUF"}, types=None)  # noqa: B023
        if certain:
            event = reads.decode("t", AT, None, numbered(2, message.SerializeToString()))
            assert isinstance(event, ChangeEvent)
            assert event.new_data == {"id": 1.5, "place": {"x": 2.0}}
        else:
            with pytest.raises(CannotCapture, match=r"orders\.place comes as Protobuf"):
                reads.decode("t", AT, None, numbered(2, message.SerializeToString()))


def test_messages_that_have_no_null_are_refused() -> None:
    schemas, key, value = written("")
    with pytest.raises(CannotCapture, match="have no NULL") as caught:
        decoder(lambda number: schemas[number]).decode("t", AT, key, value)
    assert "optional.for.nullables=true" in caught.value.fix


def test_a_message_is_found_by_its_indexes() -> None:
    # The envelope is the first message of the file; its Value the first one in it.
    long_form = numbered(2, WRITTEN[6:], b"\2\0")
    assert decoder().decode("t", AT, WRITTEN_KEY, long_form) == decoder().decode("t", AT, WRITTEN_KEY, WRITTEN)
    nested = 'syntax = "proto3"; message A { message B { int32 b = 1; } }'
    schemas = {**SCHEMAS, 1: {"schema": nested, "schemaType": "PROTOBUF"}}
    event = decoder(lambda number: schemas[number]).decode("t", AT, numbered(1, b"\x08\1", b"\4\0\0"), WRITTEN)
    assert isinstance(event, ChangeEvent)
    assert event.primary_key == ("b",)
    for indexes in (b"\2\2", b"\2\1", b"\1", b"\xfe\1", b"", b"\x80"):
        with pytest.raises(ProtocolError):
            decoder().decode("t", AT, None, numbered(2, WRITTEN[6:], indexes))


def test_a_schema_may_refer_to_others_as_text_and_compiled() -> None:
    inner = 'syntax = "proto3"; package a; message Row { optional int32 id = 1; }'
    middle = 'syntax = "proto3"; package a; import "deep/row.proto"; message Rows { repeated Row rows = 1; }'
    outer = (
        'syntax = "proto3"; import "rows.proto"; import "google/type/date.proto";'
        " message All { a.Rows rows = 1; google.type.Date day = 2; }"
    )
    texts = {"deep/row.proto": inner, "rows.proto": middle}
    file = compiled(outer, texts)
    message = GetMessageClass(file.message_types_by_name["All"])()
    message.rows.rows.add().id = 7
    message.day.year = 2026

    def binary(text: str) -> str:
        made = compiled(text, texts)
        return b64encode(made.serialized_pb).decode()

    again = compiled(binary(outer), {name: binary(each) for name, each in texts.items()})
    kind = GetMessageClass(again.message_types_by_name["All"])
    read = kind.FromString(message.SerializeToString())
    assert (read.rows.rows[0].id, read.day.year) == (7, 2026)


def test_what_is_no_schema_is_said() -> None:
    for text, others in (
        ("", {}), ("nothing", {}), ('syntax = "proto3";', {}),
        ('syntax = "proto3"; import "x.proto"; message A {}', {}),
        (b64encode(b"\xff").decode(), {}), ('syntax = "proto3"; message A {}', {"../x.proto": "message B {}"}),
        ('syntax = "proto3"; message A {}', {"/x.proto": "message B {}"}),
    ):  # fmt: skip
        with pytest.raises(ProtocolError, match="is no schema of Protobuf"):
            decoder(lambda number: {"schema": text, "schemaType": "PROTOBUF", "others": others}).decode(  # noqa: B023
                "t", AT, None, WRITTEN
            )


@given(st.data())
def test_damaged_bytes_are_an_event_or_a_protocol_error(data: st.DataObject) -> None:
    place = data.draw(st.integers(5, len(WRITTEN) - 1))
    byte = data.draw(st.integers(0, 255))
    broken = data.draw(st.sampled_from([WRITTEN[:place], WRITTEN[:place] + bytes([byte]) + WRITTEN[place + 1 :]]))
    try:
        DAMAGED.decode("t", AT, None, broken)
    except ProtocolError as error:
        assert "p.shop.orders/0:17" in str(error)
    except CannotCapture as error:
        assert "comes as Protobuf" in str(error)  # of another table than the types were said of


DAMAGED = decoder()
"""One for all examples: what it has learned of a schema does not depend on records."""


def test_notes_of_confluents_converter_are_read_where_they_stand() -> None:
    noted = (
        'syntax = "proto3"; import "confluent/meta.proto"; message A { option (confluent.message_meta).doc = "rows";'
        ' int32 a = 1 [(confluent.field_meta) = { params: [{ key: "connect.type", value: "int8" }], tags: "x" }];'
        ' int32 b = 2 [(confluent.field_meta).doc = "wide", deprecated = true]; }'
    )
    field, value = ProtobufSchema(compiled(noted, {})).read(b"\0\x08\1")
    assert [each["type"] for each in field["fields"]] == ["int8", "int32"]
    assert value == {"a": 1, "b": 0}
