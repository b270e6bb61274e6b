"""Debezium's records without a server: every type, every form of a record, and whatever is none."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.envelope import Mark
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.times import day_text
from streamlab.cdc.debezium.values import UNAVAILABLE, reader
from streamlab.errors import CannotCapture, ProtocolError, SettingsError

from .records import ROW, base64, dumps, envelope, key_of, schema_of, with_schema

TEXT_MODES = {"decimal.handling.mode": "string", "time.precision.mode": "isostring"}
AT = KafkaPosition.at("p.shop.orders", 0, 17)


def decode(value: bytes | None, key: bytes | None = None, headers: Any = None, **options: Any) -> Any:
    return Decoder(**options).decode("p.shop.orders", AT, key, value, headers)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


# -- values ----------------------------------------------------------------------------------------------------------

T, C, D = "io.debezium.time.", "org.apache.kafka.connect.data.", "io.debezium.data."
MYSQL, POSTGRES = "mysql", "postgresql"
UID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
FINE = "2024-02-29T12:34:56.123456789Z"
M = datetime(2024, 2, 29, 12, 34, 56)


def f(form: str, name: str = "", source: str = "", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": form, **({"name": name} if name else {}), **more}
    return {**made, "parameters": {"__debezium.source.column.type": source}} if source else made


EVERY: list[tuple[str, dict[str, Any], Any, Any]] = [
    (MYSQL, f("int64", T + "Timestamp"), 1709210096789, M.replace(microsecond=789000)),
    (MYSQL, f("int64", C + "Timestamp"), -1, datetime(1969, 12, 31, 23, 59, 59, 999000)),
    (MYSQL, f("int64", T + "MicroTimestamp"), 1709210096789012, M.replace(microsecond=789012)),
    (MYSQL, f("int64", T + "NanoTimestamp"), 1709210096789012000, M.replace(microsecond=789012)),
    (POSTGRES, f("int64", T + "NanoTimestamp"), 1, "1970-01-01 00:00:00.000000001"),
    (POSTGRES, f("int64", T + "MicroTimestamp"), 9223372036825200000, "infinity"),
    (POSTGRES, f("int64", T + "MicroTimestamp"), -9223372036832400000, "-infinity"),
    (POSTGRES, f("int64", T + "MicroTimestamp"), 327403382400000000, "12345-01-01 00:00:00"),
    (POSTGRES, f("int64", C + "Timestamp"), 9223372036825200, "infinity"),
    (POSTGRES, f("int64", T + "NanoTimestamp"), (1 << 63) - 1, "infinity"),
    (MYSQL, f("string", T + "IsoTimestamp"), "2024-02-29T12:34:56Z", M),
    (POSTGRES, f("string", T + "IsoTimestamp"), "+12345-01-01T00:00:00Z", "+12345-01-01T00:00:00Z"),
    (MYSQL, f("string", T + "ZonedTimestamp"), "2024-02-29T12:34:56.7Z", M.replace(microsecond=700000, tzinfo=UTC)),
    (POSTGRES, f("string", T + "ZonedTimestamp"), "2024-02-29T12:00:00+02:00", datetime(2024, 2, 29, 10, tzinfo=UTC)),
    (POSTGRES, f("string", T + "ZonedTimestamp"), FINE, FINE),
    (POSTGRES, f("string", T + "ZonedTimestamp"), "-infinity", "-infinity"),
    (MYSQL, f("int32", T + "Date"), 19782, date(2024, 2, 29)),
    (MYSQL, f("int32", C + "Date"), -719162, date(1, 1, 1)),
    (POSTGRES, f("int32", T + "Date"), -735160, "0044-03-15 BC"),
    (POSTGRES, f("string", T + "IsoDate"), "2024-02-29Z", date(2024, 2, 29)),
    (POSTGRES, f("int32", T + "Time"), 45296789, time(12, 34, 56, 789000)),
    (POSTGRES, f("int64", T + "MicroTime"), 45296789012, time(12, 34, 56, 789012)),
    (POSTGRES, f("int64", T + "MicroTime"), 86400000000, "24:00:00"),
    (POSTGRES, f("int64", T + "NanoTime"), 1000, time(0, 0, 0, 1)),
    (POSTGRES, f("int64", T + "NanoTime"), 1, "00:00:00.000000001"),
    (MYSQL, f("int64", T + "MicroTime"), -360001500000, -timedelta(hours=100, seconds=1.5)),
    (MYSQL, f("int64", T + "NanoTime"), -360001500000000, -timedelta(hours=100, seconds=1.5)),
    (MYSQL, f("int32", C + "Time"), 1500, timedelta(seconds=1.5)),
    (POSTGRES, f("string", T + "IsoTime"), "12:34:56.789012Z", time(12, 34, 56, 789012)),
    (MYSQL, f("string", T + "IsoTime"), "12:34:56Z", timedelta(hours=12, minutes=34, seconds=56)),
    (POSTGRES, f("string", T + "ZonedTime"), "10:34:56.5Z", time(10, 34, 56, 500000, UTC)),
    (MYSQL, f("int32", T + "Year"), 2024, 2024),
    (POSTGRES, f("string", T + "Interval"), "P0Y0M3DT4H5M6.7S", timedelta(days=3, hours=4, minutes=5, seconds=6.7)),
    (POSTGRES, f("string", T + "Interval"), "P1Y2M3DT0H0M-0.5S", (14, 3, -500000)),
    (POSTGRES, f("int64", T + "MicroDuration"), 1500000, timedelta(seconds=1.5)),
    (POSTGRES, f("int64", T + "NanoDuration"), 1500000000, timedelta(seconds=1.5)),
    (
        MYSQL, f("bytes", C + "Decimal", parameters={"scale": "4"}),
        "5dtk4O9fk2lQDg==", Decimal("-12345678901234567890.1234"),
    ),
    (MYSQL, f("bytes", C + "Decimal", parameters={"scale": "2"}), "AA==", Decimal("0.00")),
    (MYSQL, f("bytes", C + "Decimal", parameters={"scale": "0"}), 17, Decimal(17)),
    (POSTGRES, f("struct", D + "VariableScaleDecimal", fields=[]), {"scale": 2, "value": "MDk="}, Decimal("123.45")),
    (POSTGRES, f("string", source="NUMERIC"), "NAN", "NaN"),
    (MYSQL, f("string", source="DECIMAL"), "1.50", Decimal("1.50")),
    (MYSQL, f("int64", source="BIGINT UNSIGNED"), -1, (1 << 64) - 1),
    (MYSQL, f("boolean", source="BIT"), True, b"\1"),
    (POSTGRES, f("boolean", source="BIT"), False, "0"),
    (POSTGRES, {"type": "boolean"}, True, True),
    (MYSQL, f("bytes", D + "Bits", parameters={"length": "12"}), "Awo=", b"\x0a\x03"),
    (POSTGRES, f("bytes", D + "Bits", parameters={"length": "12"}), "Awo=", "101000000011"),
    (MYSQL, {"type": "bytes"}, "AP8=", b"\x00\xff"),
    (MYSQL, {"type": "double"}, "-Infinity", -math.inf),
    (MYSQL, {"type": "float"}, 1, 1.0),
    (MYSQL, f("string", D + "Json"), '{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
    (POSTGRES, f("string", D + "Uuid"), UID, UUID(UID)),
    (POSTGRES, f("string", D + "Xml"), "<a/>", "<a/>"),
    (MYSQL, f("string", D + "Enum", parameters={"allowed": "a,b"}), "b", "b"),
    (MYSQL, f("string", D + "EnumSet", parameters={"allowed": "x,y"}), "x,y", "x,y"),
    (POSTGRES, f("struct", D + "geometry.Point", fields=[]), {"x": 1.0, "y": 2.5}, "(1,2.5)"),
    (
        MYSQL, f("struct", D + "geometry.Point", fields=[]),
        {"x": 1.0, "y": 2.0, "wkb": "AP8=", "srid": 4326}, b"\xe6\x10\0\0\0\xff",
    ),
    (MYSQL, f("struct", D + "geometry.Geometry", fields=[]), {"wkb": "AP8=", "srid": None}, b"\0\0\0\0\0\xff"),
    (
        POSTGRES, f("struct", D + "geometry.Geometry", fields=[]),
        {"wkb": "AP8=", "srid": 4326}, {"wkb": b"\0\xff", "srid": 4326},
    ),
    (MYSQL, {"type": "array", "name": D + "FloatVector", "items": {"type": "float"}}, [1.0, 2.5], b"\0\0\x80?\0\0 @"),
    (POSTGRES, {"type": "array", "items": {"type": "int32"}}, [1, None, 3], [1, None, 3]),
    (POSTGRES, {"type": "array", "items": f("int32", T + "Date")}, [19723, None], [date(2024, 1, 1), None]),
    (POSTGRES, {"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}, {"a": None}, {"a": None}),
    (
        POSTGRES, {"type": "map", "keys": f("int32", T + "Date"), "values": {"type": "bytes"}},
        [[0, "AP8="]], {date(1970, 1, 1): b"\0\xff"},
    ),
    (POSTGRES, {"type": "struct", "fields": [{"type": "bytes", "field": "b"}]}, {"b": "AP8="}, {"b": b"\0\xff"}),
]  # fmt: skip


@pytest.mark.parametrize(("database", "field", "wire", "value"), EVERY)
def test_every_type(database: str, field: dict[str, Any], wire: Any, value: Any) -> None:
    read = reader(field, database)
    made = wire if read is None else read(wire)
    if value == "NaN":
        assert made.is_nan()
        return
    assert made == value
    assert type(made) is type(value) or isinstance(made, tuple)


def test_every_type_in_an_envelope_and_nulls() -> None:
    for database in (MYSQL, POSTGRES):
        cases = [(f"c{index}", *each[1:]) for index, each in enumerate(EVERY) if each[0] == database]
        schema = schema_of([{**field, "field": name} for name, field, _, _ in cases], database)
        source = {
            "connector": database,
            "ts_us": 1,
            "ts_ms": 0,
            "db": "d",
            "schema": "s",
            "table": "t",
            "txId": 7,
            "gtid": "g:1",
        }
        for row in ({name: wire for name, _, wire, _ in cases}, dict.fromkeys(name for name, *_ in cases)):
            payload = {"before": None, "after": row, "source": source, "op": "c"}
            event = decode(dumps({"schema": schema, "payload": payload}))
            wanted = {name: value if row[name] is not None else None for name, _, _, value in cases}
            found = {name: "NaN" if value != value else value for name, value in event.new_data.items()}
            assert found == wanted
            assert event.schema == ("d" if database == MYSQL else "s")
            assert event.transaction_id == ("g:1" if database == MYSQL else "7")


@given(st.integers(-(10**40), 10**40), st.integers(0, 30))
def test_decimals_are_exact(unscaled: int, scale: int) -> None:
    read = reader({"type": "bytes", "name": C + "Decimal", "parameters": {"scale": str(scale)}})
    assert read is not None
    assert read(base64(unscaled)).as_tuple() == Decimal(f"{unscaled}E-{scale}").as_tuple()


@given(st.dates())
def test_days_beyond_python_are_counted_as_within(day: date) -> None:
    assert day_text(day.toordinal() - 719_163) == day.isoformat()


@given(st.datetimes())
def test_moments(moment: datetime) -> None:
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert reader(f("int64", T + "MicroTimestamp"))(micros) == moment  # type: ignore[misc]
    assert reader({"name": T + "IsoTimestamp"})(moment.isoformat() + "Z") == moment  # type: ignore[misc]


# -- records ---------------------------------------------------------------------------------------------------------


def test_an_envelope_with_and_without_schema_is_the_same_event() -> None:
    changes = {"op": "u", "before": {"id": 1, "total": "2.50", "note": None}}
    with_types = decode(with_schema(envelope(1, **changes)), key_of(1))
    types = {"orders": {"id": "int", "total": "decimal", "note": "text"}}
    without = decode(dumps(envelope(1, **changes)), b'{"id":1}', types=types)
    assert with_types == without
    assert with_types == ChangeEvent(
        Operation.UPDATE, "shop", "orders", {"id": 1, "total": Decimal("2.50"), "note": None},
        {"id": 1, "total": Decimal("1.50"), "note": "n"}, datetime(1970, 1, 1, 0, 0, 1, 1000, UTC), "u:1", AT, 0,
        ("id",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("letter", "operation"),
    [("c", "INSERT"), ("r", "SNAPSHOT"), ("t", "TRUNCATE"), ("d", "DELETE")],
)
def test_operations(letter: str, operation: str) -> None:
    row = {"id": 1, "total": "1.50", "note": "n"}
    changes = {"c": {}, "r": {}, "t": {"after": None}, "d": {"before": row, "after": None}}[letter]
    for value in (with_schema(envelope(1, op=letter, **changes)), dumps(envelope(1, op=letter, **changes))):
        event = decode(value, key_of(1), configuration=TEXT_MODES)
        assert event.operation == operation
        assert bool(event.new_data) == (letter in "cr")
        assert bool(event.old_data) == (letter == "d")


def test_what_is_nothing_to_a_reader() -> None:
    for value in (
        None,
        b"",
        b'{"ts_ms":17}',
        b'{"ddl":"CREATE TABLE t","source":{}}',
        b'{"schema":null,"payload":null}',
    ):
        assert decode(value) is None


def test_marks_of_transactions() -> None:
    begin = {"status": "BEGIN", "id": "u:3", "event_count": None, "data_collections": None, "ts_ms": 1}
    end = {
        "status": "END", "id": "u:3", "event_count": 3, "ts_ms": 1,
        "data_collections": [{"data_collection": "shop.orders", "event_count": 3}],
    }  # fmt: skip
    fields = [{"type": "string", "field": name} for name in end]
    for value, mark in ((begin, Mark(True, "u:3", {})), (end, Mark(False, "u:3", {"shop.orders": 3}))):
        assert decode(dumps(value)) == mark
        assert decode(dumps({"schema": {"type": "struct", "fields": fields}, "payload": value})) == mark


def test_a_number_in_a_transaction_is_the_ordinal_where_transactions_are_put_together() -> None:
    block = {"id": "u:1", "total_order": 5, "data_collection_order": 2}
    for value in (with_schema(envelope(1, transaction=block)), dumps(envelope(1, transaction=block))):
        decoder = Decoder(grouped=True, configuration=TEXT_MODES)
        event = decoder.decode("t", AT, None, value)
        assert isinstance(event, ChangeEvent)
        assert (event.ordinal, decoder.transaction) == (4, block)
        assert decode(value, configuration=TEXT_MODES).ordinal == 0


def test_logical_messages() -> None:
    source = {"connector": "postgresql", "ts_ms": 1, "schema": "", "table": "", "db": "d", "txId": 5}
    payload = {"op": "m", "ts_ms": 1, "source": source, "message": {"prefix": "p", "content": b64(b"\0x")}}
    event = decode(dumps(payload))
    assert event.operation is Operation.MESSAGE
    assert event.new_data == {"prefix": "p", "content": b"\0x", "transactional": True}
    assert decode(dumps({**payload, "source": {**source, "txId": None}})).new_data["transactional"] is False


def test_a_value_that_did_not_change_is_not_null() -> None:
    row = [*ROW, {"type": "bytes", "field": "blob"}, {"type": "array", "items": {"type": "string"}, "field": "many"}]
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    after = {"id": 1, "total": None, "note": UNAVAILABLE, "blob": b64(UNAVAILABLE.encode()), "many": [UNAVAILABLE]}
    payload = {"before": None, "after": after, "source": source, "op": "u"}
    whole = {"id": 1, "total": None, "note": UNCHANGED, "blob": UNCHANGED, "many": UNCHANGED}
    assert decode(dumps({"schema": schema_of(row, "postgresql"), "payload": payload})).new_data == whole
    assert decode(dumps(payload), configuration=TEXT_MODES).new_data == whole
    # A text that only has it in it is one.
    after["note"] = f"it is {UNAVAILABLE}"
    assert decode(dumps(payload), configuration=TEXT_MODES).new_data["note"] == after["note"]


def test_of_an_old_row_that_postgresql_does_not_log_the_key_alone_is_told() -> None:
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    payload = {"before": {"id": 1, "total": None, "note": "x"}, "after": None, "source": source, "op": "d"}
    value = dumps({"schema": schema_of(ROW, "postgresql"), "payload": payload})
    assert decode(value, key_of(1)).old_data == {"id": 1}
    assert decode(value, key_of(1), replica_identity="full").old_data == payload["before"]
    assert decode(dumps(payload), b'{"id":1}', configuration=TEXT_MODES).old_data == {"id": 1}


def test_numbers_as_json_are_exact_too() -> None:
    value = with_schema(envelope(1)).replace(base64(150).encode(), b"X").replace(b'"X"', b"12345678901234567890.10")
    assert str(decode(value).new_data["total"]) == "12345678901234567890.10"


def test_a_schema_is_read_once_and_another_one_when_the_table_is_altered() -> None:
    decoder = Decoder()
    first, second = with_schema(envelope(1)), with_schema(envelope(2))
    added = [*ROW, {"type": "boolean", "field": "päid"}]
    payload = envelope(3)
    payload["after"]["päid"] = True
    third = with_schema(payload, schema_of(added))
    events = [decoder.decode("t", AT, None, each) for each in (first, second, third, second, third)]
    assert [each.new_data["id"] for each in events if isinstance(each, ChangeEvent)] == [1, 2, 3, 2, 3]
    assert len(decoder._values["t"]._known) == 2
    assert events[2].new_data["päid"] is True  # type: ignore[union-attr]


def test_another_way_to_write_the_same_json_is_read_too() -> None:
    document = json.loads(with_schema(envelope(1)))
    plain = decode(with_schema(envelope(1)), key_of(1))
    for value in (
        json.dumps(document, indent=1),
        json.dumps({"payload": document["payload"], "schema": document["schema"]}),
    ):
        assert decode(value.encode(), key_of(1)) == plain


# -- unwrapped -------------------------------------------------------------------------------------------------------

ADDED = {
    "__deleted": "false",
    "__op": "c",
    "__table": "orders",
    "__db": "shop",
    "__source_ts_ms": 1001,
    "__gtid": "u:1",
}


def unwrapped(row: dict[str, Any]) -> bytes:
    fields = [
        *ROW,
        *({"type": "int64" if "ts" in name else "string", "field": name} for name in row if name[:2] == "__"),
    ]
    return dumps({"schema": {"type": "struct", "fields": fields, "name": "p.shop.orders.Value"}, "payload": row})


def test_an_unwrapped_row_says_as_much_as_was_added_to_it() -> None:
    event = decode(unwrapped({"id": 1, "total": base64(150), "note": None, **ADDED}), key_of(1))
    assert event == ChangeEvent(
        Operation.INSERT, "shop", "orders", {}, {"id": 1, "total": Decimal("1.50"), "note": None},
        datetime(1970, 1, 1, 0, 0, 1, 1000, UTC), "u:1", AT, 0, ("id",),
    )  # fmt: skip
    gone = {**ADDED, "__deleted": "true", "__op": "d"}
    event = decode(unwrapped({"id": 1, "total": base64(150), "note": None, **gone}), key_of(1))
    assert (event.operation, event.new_data) == (Operation.DELETE, {})
    assert event.old_data == {"id": 1, "total": Decimal("1.50"), "note": None}
    bare = decode(
        dumps({"id": 1, "total": "1.50", "note": UNAVAILABLE, **ADDED}), b'{"id":1}', configuration=TEXT_MODES
    )
    assert bare.new_data == {"id": 1, "total": "1.50", "note": UNCHANGED}


def test_what_was_added_may_stand_in_headers() -> None:
    row = {"id": 1, "total": base64(150), "note": None, "__deleted": "false"}
    headers = [(name, str(value).encode()) for name, value in ADDED.items()]
    headers.append(("__debezium.context.taskId", b"0"))
    event = decode(unwrapped(row), key_of(1), lambda: headers)
    assert (event.operation, event.table_name, event.transaction_id) == (Operation.INSERT, "orders", "u:1")


@pytest.mark.parametrize("missing", ["__deleted", "__op", "__table", "__db", "__source_ts_ms"])
def test_an_unwrapped_row_that_does_not_say_enough_is_refused_with_what_to_add(missing: str) -> None:
    added = {name: value for name, value in ADDED.items() if name != missing}
    for value in (unwrapped({"id": 1, "total": None, "note": None, **added}), dumps({"id": 1, **added})):
        with pytest.raises(ProtocolError, match=r"add\.fields=op,table,db,source\.ts_ms") as caught:
            decode(value, configuration=TEXT_MODES)
        assert missing in str(caught.value)


# -- JSON without schemas --------------------------------------------------------------------------------------------


def test_without_types_and_without_a_word_of_the_connector_it_is_refused() -> None:
    value = dumps(envelope(1))
    for options in (
        {}, {"configuration": {"decimal.handling.mode": "string"}}, {"types": {"other": {"id": "int"}}},
        {"configuration": {**TEXT_MODES, "time.precision.mode": "connect"}},
    ):  # fmt: skip
        with pytest.raises(CannotCapture, match="JSON without schemas"):
            decode(value, **options)
    with pytest.raises(CannotCapture, match=r"time\.precision\.mode=connect"):
        decode(value, configuration={**TEXT_MODES, "time.precision.mode": "connect"})
    with pytest.raises(CannotCapture, match=r"orders\.note .* its type was not said"):
        decode(value, types={"shop.orders": {"id": "int", "total": "decimal"}})
    assert decode(value, configuration=TEXT_MODES).new_data == {"id": 1, "total": "1.50", "note": "n"}


def test_a_column_that_appears_later_is_refused_too() -> None:
    decoder = Decoder(types={"orders": {"id": "int", "total": "decimal", "note": "text"}})
    assert decoder.decode("t", AT, None, dumps(envelope(1)))
    assert decoder.decode("t", AT, None, dumps(envelope(2)))
    payload = envelope(3)
    payload["after"]["paid"] = 1
    with pytest.raises(CannotCapture, match=r"orders\.paid"):
        decoder.decode("t", AT, None, dumps(payload))


def test_types_that_are_said_make_values() -> None:
    payload = envelope(1)
    payload["after"] = {"d": "2024-02-29Z", "m": 1709210096789012, "n": "BOI=", "a": ["2024-01-01Z"], "x": {"y": 1}}
    types = {
        "shop.orders": {
            "d": "date", "m": "io.debezium.time.MicroTimestamp", "n": "org.apache.kafka.connect.data.Decimal(2)",
            "a": "date[]", "x": "any",
        }
    }  # fmt: skip
    assert decode(dumps(payload), types=types).new_data == {
        "d": date(2024, 2, 29), "m": M.replace(microsecond=789012), "n": Decimal("12.50"),
        "a": [date(2024, 1, 1)], "x": {"y": 1},
    }  # fmt: skip
    payload["after"]["d"] = 19782
    with pytest.raises(ProtocolError, match="the column d"):
        decode(dumps(payload), types=types)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decimal", 1.1), ("decimal", 5), ("decimal", "AKw="), ("decimal[]", ["1.5", 1.5]), ("decimal[]", "1.5"),
        ("int", "x"), ("int", 1.5), ("int", True), ("int[]", [1, "2"]), ("bool", "yes"), ("bool", 1), ("text", 1),
        ("float", "1.5"), ("float", False), ("bytes", 1), ("date", 19782), ("timestamp", 1_700_000_000_000_000),
        ("uuid", 1), ("io.debezium.time.Year", "2024"), ("io.debezium.data.Enum", 1),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_the_type_that_was_said_is_refused(name: str, value: Any) -> None:
    decoder = Decoder(types={"orders": {"id": "int", "total": name}})
    payload = envelope(1)
    payload["after"] = {"id": 1, "total": None}
    assert decoder.decode("t", AT, None, dumps(payload))
    # The first records of a topic are read with care, the later ones on the common road.
    for _ in range(3):
        with pytest.raises(ProtocolError, match="the column total"):
            decoder.decode("t", AT, None, dumps({**payload, "after": {"id": 1, "total": value}}))
        assert decoder.decode("t", AT, None, dumps(payload))


def test_a_value_that_fits_the_type_that_was_said_is_taken() -> None:
    payload = envelope(1)
    types = {"f": "float", "n": "float", "b": "bool", "t": "text[]", "i": "int[]", "w": "float", "y": "any[]"}
    payload["after"] = {"f": 1.5, "n": "NaN", "b": False, "t": ["a", None], "i": [1, None], "w": 2, "y": [1, "x"]}
    made = decode(dumps(payload), types={"orders": types}).new_data
    assert str(made.pop("n")) == "nan"
    assert made == {"f": 1.5, "b": False, "t": ["a", None], "i": [1, None], "w": 2.0, "y": [1, "x"]}
    assert type(made["w"]) is float


@pytest.mark.parametrize("types", [{"orders": "int"}, {"orders": {"id": 1}}, {"orders": ["id"]}])
def test_types_are_said_of_columns(types: Any) -> None:
    with pytest.raises(SettingsError, match="which type each column has"):
        Decoder(types=types)


@pytest.mark.parametrize(
    "name", ["money", "", "date[", "io.debezium.time.Never", "org.apache.kafka.connect.data.Decimal"]
)
def test_a_type_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="There is no type"):
        Decoder(types={"t": {"c": name}})


# -- what is no record -----------------------------------------------------------------------------------------------


def test_a_value_of_another_type_names_its_column() -> None:
    payload = envelope(1)
    payload["after"]["total"] = "???"
    with pytest.raises(ProtocolError, match="the column total") as caught:
        decode(with_schema(payload))
    assert "p.shop.orders/0:17" in str(caught.value)
    assert "resume_after='p.shop.orders/0:18'" in str(caught.value)


def test_a_value_in_confluents_format_asks_for_a_registry() -> None:
    with pytest.raises(ProtocolError, match="schema_registry"):
        decode(b"\0\0\0\0\1abc")


ANYTHING = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(lambda value: json.dumps(value).encode()),
)


@given(ANYTHING)
def test_anything_else_is_a_protocol_error(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(value, configuration=TEXT_MODES)


@given(st.data())
def test_a_damaged_record_is_an_event_or_a_protocol_error(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from([with_schema(envelope(1)), unwrapped({"id": 1, "total": None, "note": "", **ADDED})])
    )
    decoder = Decoder()
    decoder.decode("t", AT, None, whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = data.draw(st.sampled_from([whole[:place], whole[:place] + b"?" + whole[place + 1 :]]))
    try:
        decoder.decode("t", AT, None, broken)
    except ProtocolError as error:
        assert "p.shop.orders/0:17" in str(error)


@given(key=st.binary(max_size=20))
def test_whatever_the_key_is(key: bytes) -> None:
    try:
        event = decode(with_schema(envelope(1)), key)
    except ProtocolError:
        return
    assert event.new_data["id"] == 1
