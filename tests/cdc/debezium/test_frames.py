"""Frames of topics: the same as the events, made in another way; and through the real stack."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamlab.cdc import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.debezium import DebeziumSource, KafkaPosition, gathered
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.records import Records
from streamlab.cdc.debezium.table import Table as Shape
from streamlab.cdc.debezium.values import UNAVAILABLE
from streamlab.errors import ProtocolError, SettingsError

from .conftest import Table
from .records import ROW, base64, dumps, envelope, key_of, schema_of, with_schema


def records(*values: bytes, key: bytes | None = None) -> Records:
    made = Records()
    made.add(values, [key or key_of(1)] * len(values), 0, range(len(values)))
    return made


def made(*values: bytes, key: bytes | None = None, whole: bool = False, **options: Any) -> list[pl.DataFrame]:
    maker = FrameMaker(Decoder(**options), whole_before=whole)
    return [frame.data for frame in maker.frames("t", records(*values, key=key))]


T, C = "io.debezium.time.", "org.apache.kafka.connect.data."
COLUMNS: list[dict[str, Any]] = [
    *ROW,
    {
        "type": "bytes", "name": C + "Decimal", "field": "n",
        "parameters": {"scale": "3", "connect.decimal.precision": "12"},
    },
    {"type": "int64", "name": T + "MicroTimestamp", "field": "at"},
    {"type": "int64", "name": T + "Timestamp", "field": "ms"},
    {"type": "int32", "name": T + "Date", "field": "day"},
    {"type": "int64", "name": T + "MicroTime", "field": "time"},
    {"type": "string", "name": T + "ZonedTimestamp", "field": "zoned"},
    {"type": "double", "field": "d"},
    {"type": "boolean", "field": "b"},
    {"type": "bytes", "field": "blob"},
    {"type": "array", "items": {"type": "int32"}, "field": "many"},
]  # fmt: skip
BIG = st.integers(-(2**63), 2**63 - 1)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**31), 2**31 - 1),
        "total": st.none() | st.integers(-(10**36) + 1, 10**36 - 1).map(base64),
        "note": st.none() | st.text(),
        "n": st.none() | st.integers(-(10**12) + 1, 10**12 - 1).map(base64),
        "at": st.none() | st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
        "ms": st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999),
        "day": st.none() | st.integers(-719_162, 2_932_896),
        "time": st.none() | st.integers(-3_020_399_000_000, 3_020_399_000_000),
        "zoned": st.none()
        | st.datetimes().map(lambda each: f"{each:%Y-%m-%dT%H:%M:%S}.{each.microsecond:06}Z".zfill(27)),
        "d": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "b": st.none() | st.booleans(),
        "blob": st.none() | st.binary().map(lambda data: b64encode(data).decode()),
        "many": st.none() | st.lists(st.none() | st.integers(0, 9)),
    }
)


@given(st.lists(st.tuples(st.sampled_from("crud"), ROWS, ROWS), min_size=1, max_size=5))
def test_a_frame_says_what_the_events_say(changes: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    values = []
    for letter, before, after in changes:
        rows = {"before": None if letter in "cr" else before, "after": None if letter == "d" else after}
        values.append(dumps({"schema": schema_of(COLUMNS), "payload": envelope(1, op=letter, **rows)}))
    (frame,) = made(*values)
    decoder = Decoder()
    for row, value in zip(frame.iter_rows(named=True), values, strict=True):
        event = decoder.decode("t", KafkaPosition.at("t", 0, row["position"]), key_of(1), value)
        assert isinstance(event, ChangeEvent)
        assert row["operation"] == event.operation
        assert row["ts"] == event.commit_timestamp
        data = event.new_data or event.old_data
        assert {name: row[name] for name in data} == dict(data)
        old = event.old_data if event.operation is Operation.UPDATE else None
        assert row["old"] == (None if old is None else dict(old))
        assert row["unchanged"] is None and row["unfit"] is None


def test_columns_have_types_and_meta_columns_names_of_their_own() -> None:
    columns = [*COLUMNS, {"type": "string", "field": "old"}]
    row = {**dict.fromkeys(each["field"] for each in columns), "id": 1, "old": "mine"}
    (frame,) = made(dumps({"schema": schema_of(columns), "payload": envelope(1, after=row)}))
    assert frame["old_"].to_list() == ["mine"]
    assert frame.schema["n"] == pl.Decimal(12, 3)
    assert frame.schema["total"] == pl.Decimal(38, 2)
    assert frame.schema["at"] == pl.Datetime("us")
    assert frame.schema["zoned"] == pl.Datetime("us", "UTC")
    assert frame.schema["time"] == pl.Duration("us")
    assert frame.schema["blob"] == pl.Binary
    assert frame.columns[:5] == ["operation", "position", "partition", "ordinal", "ts"]
    assert frame.columns[-3:] == ["old", "unchanged", "unfit"]


def test_what_did_not_change_and_what_does_not_fit_are_not_mistaken_for_null() -> None:
    columns = [
        *ROW,
        {"type": "int64", "name": T + "MicroTimestamp", "field": "at"},
        {"type": "int32", "name": T + "Date", "field": "day"},
    ]
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    rows = [
        {"id": 1, "total": None, "note": UNAVAILABLE, "at": 1, "day": 1},
        {"id": 2, "total": None, "note": None, "at": 9223372036825200000, "day": -735160},
    ]
    values = [
        dumps(
            {
                "schema": schema_of(columns, "postgresql"),
                "payload": {"before": None, "after": row, "source": source, "op": "u"},
            }
        )
        for row in rows
    ]
    (frame,) = made(*values)
    assert frame["note"].to_list() == [None, None]
    assert frame["unchanged"].to_list() == [["note"], None]
    assert frame["day"].to_list() == [date(1970, 1, 2), None]
    assert frame["unfit"].to_list() == [
        None, [{"column": "at", "text": "9223372036825200000"}, {"column": "day", "text": "-735160"}],
    ]  # fmt: skip


def test_of_a_deleted_row_of_postgresql_the_key_alone_is_told() -> None:
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    payload = {"before": {"id": 1, "total": None, "note": ""}, "after": None, "source": source, "op": "d"}
    value = dumps({"schema": schema_of(ROW, "postgresql"), "payload": payload})
    assert made(value)[0].row(0, named=True)["note"] is None
    assert made(value, whole=True)[0].row(0, named=True)["note"] == ""


def test_json_without_schemas_and_records_of_other_kinds_go_one_by_one_or_together_alike() -> None:
    types = {"orders": {"id": "int", "total": "decimal", "note": "text"}}
    (frame,) = made(dumps(envelope(1)), dumps(envelope(2)), key=b'{"id":1}', types=types)
    assert frame.select("id", "total", "note").rows() == [(1, "1.50", "n"), (2, "1.50", "n")]
    modes = {"decimal.handling.mode": "string", "time.precision.mode": "isostring"}
    (singly,) = made(dumps(envelope(1)), dumps(envelope(2)), key=b'{"id":1}', configuration=modes)
    assert singly.select("id", "total", "note").rows() == frame.select("id", "total", "note").rows()
    # A number that is NaN is a text in JSON, and read one by one.
    columns = [*ROW, {"type": "double", "field": "d"}]
    values = [
        dumps(
            {
                "schema": schema_of(columns),
                "payload": envelope(1, after={"id": 1, "total": base64(150), "note": "", "d": each}),
            }
        )
        for each in (1.5, "NaN")
    ]
    (nan,) = made(*values)
    assert nan["d"].is_nan().to_list() == [False, True]
    assert nan["total"].to_list() == [Decimal("1.50")] * 2
    assert UNCHANGED not in nan["total"].to_list()


def test_two_schemas_in_one_batch_are_two_frames_and_a_bad_record_names_its_place() -> None:
    wider = [*ROW, {"type": "int32", "field": "more"}]
    payload = envelope(2)
    payload["after"]["more"] = 5
    frames = made(with_schema(envelope(1)), with_schema(payload, schema_of(wider)), with_schema(envelope(3)))
    assert [frame["position"].to_list() for frame in frames] == [[0], [1], [2]]
    with pytest.raises(ProtocolError, match="t/0:1"):
        made(with_schema(envelope(1)), with_schema(envelope(2)).replace(b'"op":"c"', b'"op":"?"'))
    with pytest.raises(ProtocolError, match="t/0:1"):
        made(with_schema(envelope(1)), json.dumps({"no": "record"}).encode())


# -- one by one, and together ---------------------------------------------------------------------------------------


def one_by_one(*values: bytes, **options: Any) -> list[pl.DataFrame]:
    """Frames of records of which none is read together with others."""

    def refuse(self: Shape, records: pl.DataFrame, key: tuple[str, ...]) -> Any:
        raise ValueError("not now")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shape, "read", refuse)
        return made(*values, **options)


OTHERS: list[dict[str, Any]] = [
    {"type": "string", "name": "io.debezium.data.Json", "field": "json"},
    {"type": "string", "name": "io.debezium.data.Uuid", "field": "uuid"},
    {"type": "string", "name": T + "IsoTime", "field": "iso"},
    {"type": "bytes", "name": "io.debezium.data.Bits", "parameters": {"length": "9"}, "field": "bits"},
    {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "field": "variable",
     "fields": [{"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}]},
    {"type": "float", "field": "f"}, {"type": "int16", "field": "small"},
    {"type": "array", "items": {"type": "string"}, "field": "texts"},
]  # fmt: skip
OTHER_ROWS = st.fixed_dictionaries(
    {
        "json": st.none() | st.dictionaries(st.text(), st.integers() | st.text()).map(json.dumps),
        "uuid": st.none() | st.uuids().map(str),
        "iso": st.none() | st.just("10:00:00.5Z"),
        "bits": st.none() | st.binary(min_size=2, max_size=2).map(lambda data: b64encode(data).decode()),
        "variable": st.none()
        | st.builds(lambda n, scale: {"scale": scale, "value": base64(n)}, BIG, st.integers(0, 9)),
        "f": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "small": st.none() | st.integers(-(2**15), 2**15 - 1),
        "texts": st.none() | st.lists(st.none() | st.text()),
    }
)
ALL_ROWS = st.builds(lambda one, other: one | other, ROWS, OTHER_ROWS)


@given(
    st.lists(st.tuples(st.sampled_from("crud"), ALL_ROWS, ALL_ROWS), min_size=1, max_size=4),
    st.sampled_from(["mysql", "postgresql"]), st.booleans(),
)  # fmt: skip
def test_what_is_read_one_by_one_is_what_is_read_together(changes: list[Any], database: str, whole: bool) -> None:
    values = []
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    for letter, before, after in changes:
        rows = {"before": None if letter in "cr" else before, "after": None if letter == "d" else after}
        payload = envelope(1, op=letter, **rows, **({"source": source} if database == "postgresql" else {}))
        values.append(dumps({"schema": schema_of([*COLUMNS, *OTHERS], database), "payload": payload}))
    (together,) = made(*values, whole=whole)
    (singly,) = one_by_one(*values, whole=whole)
    assert_frame_equal(singly, together)


@pytest.mark.parametrize("read", [made, one_by_one])
def test_arrays_that_did_not_change_are_told_like_any_other_value(read: Any) -> None:
    items = {"texts": "string", "small": "int16", "whole": "int32", "big": "int64", "plain": "boolean"}
    columns = [*ROW, *({"type": "array", "items": {"type": form}, "field": name} for name, form in items.items())]
    numbers = list(UNAVAILABLE.encode())
    left_out: dict[str, Any] = {"texts": [UNAVAILABLE], "small": numbers, "whole": numbers, "big": numbers}
    rows = [
        {"plain": [True], **left_out}, {"plain": None, **dict.fromkeys(left_out)},
        {"plain": [], **{name: [] for name in left_out}}, {"plain": [None], **{name: [None] for name in left_out}},
        {"plain": [None], "texts": ["a", UNAVAILABLE], "small": numbers[:-1], "whole": [*numbers, 1], "big": [95]},
    ]  # fmt: skip
    source = {"connector": "postgresql", "ts_us": 1, "ts_ms": 0, "db": "d", "schema": "s", "table": "t", "txId": 7}
    values = [
        dumps(
            {
                "schema": schema_of(columns, "postgresql"),
                "payload": {
                    "before": None,
                    "after": {"id": 1, "total": None, "note": "", **row},
                    "source": source,
                    "op": "u",
                },
            }
        )
        for row in rows
    ]
    (frame,) = read(*values)
    decoder = Decoder()
    for row, value in zip(frame.iter_rows(named=True), values, strict=True):
        event = decoder.decode("t", KafkaPosition.at("t", 0, 0), key_of(1), value)
        assert isinstance(event, ChangeEvent)
        absent = [name for name, each in event.new_data.items() if each is UNCHANGED]
        assert row["unchanged"] == (absent or None)
        assert {name: row[name] for name in items} == {
            name: None if name in absent else event.new_data[name] for name in items
        }
    assert frame["unchanged"].to_list() == [list(left_out), None, None, None, None]


def test_types_do_not_depend_on_what_else_is_in_a_batch() -> None:
    said = {"id": "int", "total": "decimal", "at": "timestamptz", "part": "float", "more": "json", "key": "uuid"}
    row = {
        "id": 1, "total": "1.50", "at": "2026-01-01T00:00:00.123456Z", "part": 0.5, "more": '{"a": 1}',
        "key": "00000000-0000-0000-0000-000000000001",
    }  # fmt: skip
    usual = dumps(envelope(1, after=row))
    others = [
        dumps(envelope(1, **each))
        for each in (
            {"after": {**row, "part": "NaN"}}, {"after": dict.fromkeys(row) | {"id": 1, "part": "Infinity"}},
            {"after": {**row, "part": "-Infinity"}, "before": row, "op": "u"},
        )
    ]  # fmt: skip
    (frame,) = made(usual, types={"orders": said})
    schema = dict(frame.schema)
    assert schema["total"] == pl.String and schema["more"] == pl.String
    for other in others:
        for values in ([other], [usual, other], [other, usual, other]):
            (odd,) = made(*values, types={"orders": said})
            assert dict(odd.schema) == schema
            assert pl.concat([frame, odd]).height == 1 + len(values)
    (both,) = made(usual, others[0], types={"orders": said})
    assert both["more"].to_list() == ['{"a": 1}'] * 2 and both["total"].to_list() == ["1.50"] * 2
    # In another order, and emptied in between.
    turned = dumps(envelope(2, after=dict(reversed(row.items()))))
    gone = dumps(envelope(3, op="t", before=None, after=None))
    (all_,) = made(usual, turned, others[0], gone, usual, types={"orders": said})
    assert dict(all_.schema) == schema and all_["position"].to_list() == [0, 1, 2, 3, 4]
    assert all_["operation"].to_list()[3] == "TRUNCATE" and all_["id"].to_list() == [1, 1, 1, None, 1]


def test_a_decimal_that_is_a_number_is_exact_and_not_read_as_base64() -> None:
    # ``decimal.format=NUMERIC``; four digits are base64 as well.
    rows = [{"id": 1, "total": each, "note": ""} for each in (1234, -1234, 12.5, 0, 10**30, 1.005)]
    values = [dumps({"schema": schema_of(), "payload": envelope(1, after=row)}) for row in rows]
    (frame,) = made(*values)
    assert frame.schema["total"] == pl.Decimal(38, 2)
    assert frame["total"].to_list() == [
        Decimal(1234),
        Decimal(-1234),
        Decimal("12.5"),
        Decimal(0),
        Decimal(10**30),
        None,
    ]
    assert frame["unfit"].to_list() == [None] * 5 + [[{"column": "total", "text": "1.005"}]]


WRONG: list[dict[str, Any]] = [
    {"total": 1.5}, {"total": 15}, {"total": 1234}, {"total": True}, {"note": 5}, {"note": True},
    {"note": {"a": 1}}, {"id": "5"}, {"id": 1.5}, {"id": True}, {"id": []}, {"id": 2**70}, {"part": "0.5"},
    {"part": True}, {"part": "NaN"}, {"part": 1}, {"paid": 1}, {"paid": "true"}, {"at": 5},
    {"more": 5}, {"more": {"a": 1}}, {"key": 7}, {"many": 5}, {"many": ["5"]}, {"many": [1.5]}, {"many": [1, None]},
    {"cents": 1234}, {"cents": 12.34}, {"cents": "!"}, {"any": 5}, {"any": "n"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("more", [0, 9])
def test_values_of_another_type_than_was_said_are_refused_as_events_are(wrong: dict[str, Any], more: int) -> None:
    said = {
        "id": "int", "total": "decimal", "note": "text", "part": "float", "paid": "bool", "at": "timestamptz",
        "more": "json", "key": "uuid", "many": "int[]", "any": "any",
        "cents": "org.apache.kafka.connect.data.Decimal(2)",
    }  # fmt: skip
    row = {
        "id": 1, "total": "1.50", "note": "n", "part": 0.5, "paid": True, "at": "2026-01-01T00:00:00.123456Z",
        "more": "{}", "key": "00000000-0000-0000-0000-000000000001", "many": [1], "cents": base64(5), "any": "a",
    }  # fmt: skip
    if "many" not in wrong:
        del row["many"]  # and the others are cut
    values = [dumps(envelope(1, after=row))] * more + [dumps(envelope(1, after=row | wrong))]
    decoder = Decoder(types={"orders": said})
    error = ""
    try:
        event = decoder.decode("t", KafkaPosition.at("t", 0, more), b'{"id":1}', values[-1])
        assert isinstance(event, ChangeEvent)
    except ProtocolError as refused:
        error = str(refused)
    if error:
        with pytest.raises(ProtocolError) as caught:
            made(*values, key=b'{"id":1}', types={"orders": said})
        assert str(caught.value) == error
        return
    (frame,) = made(*values, key=b'{"id":1}', types={"orders": said})
    (usual,) = made(values[0] if more else dumps(envelope(1, after=row)), key=b'{"id":1}', types={"orders": said})
    assert frame.schema == usual.schema
    (name,) = wrong
    found = frame[name].to_list()[-1]
    wanted = event.new_data[name]
    fit = frame["unfit"].to_list()[-1] is None
    assert found == wanted or str(found) == str(wanted) or not fit


@pytest.mark.integration
@pytest.mark.parametrize("piece", [7, 25_000])
def test_frames_of_a_real_topic_are_acknowledged_and_go_on(
    table: Table, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered, "_PIECE", piece)
    table.insert(*range(100))
    table.commit("UPDATE {} SET total = 2 WHERE id < 10", "DELETE FROM {} WHERE id = 5")
    with table.reader(transaction_topic=None) as source:
        first = next(source.frames(max_rows=10))
        assert first.of(table.name, table.captured.database).height >= 10
        (whole,) = source.frames(until=source.written(), max_wait=5)
        frame = whole.of(table.name, table.captured.database)
        assert frame["operation"].to_list() == ["INSERT"] * 100 + ["UPDATE"] * 10 + ["DELETE"]
        assert frame["position"].to_list() == sorted(frame["position"].to_list())
        assert frame["total"].to_list()[100:] == [Decimal("2.00")] * 11
        assert frame["old"].struct.field("total").to_list()[100] == Decimal("1.50")
        source.acknowledge(whole)
        assert list(source.frames(until=source.written())) == []
        table.insert(1000)
        # Events after frames, and frames again.
        assert [event.new_data["id"] for each in source.transactions(until=1) for event in each] == [1000]
        (rest,) = source.frames(until=1)
        assert rest.frames[0].data["id"].to_list() == [1000]
    with table.reader() as source, pytest.raises(SettingsError, match="do not put"):
        source.frames()
    assert isinstance(source, DebeziumSource)


@pytest.mark.parametrize(
    "arguments", [{"max_rows": 0}, {"max_rows": 1.5}, {"max_wait": -1.0}, {"idle": -1.0}, {"until": -1}]
)
def test_an_argument_that_cannot_be_used_is_refused(arguments: dict[str, Any]) -> None:
    with DebeziumSource("127.0.0.1:1", ["orders"], "readers") as source, pytest.raises(SettingsError):
        source.frames(**arguments)
