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

from streamlab.cdc import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.debezium import DebeziumSource, KafkaPosition, gathered
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.records import Records
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
