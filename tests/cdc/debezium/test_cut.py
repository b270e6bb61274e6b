"""Columns that are cut out of text are those that a parser reads, whatever stands in the records."""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from streamlab.cdc import ChangeEvent, Operation
from streamlab.cdc.debezium.cut import Form
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.frames import FrameMaker
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.records import Records
from streamlab.cdc.debezium.table import Table
from streamlab.cdc.debezium.values import UNAVAILABLE
from streamlab.errors import ChangeStreamError, ProtocolError

from .records import dumps, schema_of

ORDERS = {
    "id": "int", "note": "text", "total": "decimal", "at": "timestamptz", "paid": "bool", "part": "float",
    "more": "json",
}  # fmt: skip
TYPES = {"orders": ORDERS, "others": ORDERS}
FIELDS: list[dict[str, Any]] = [
    {"type": "int64", "field": "id"}, {"type": "string", "field": "note"}, {"type": "string", "field": "total"},
    {"type": "string", "name": "io.debezium.time.ZonedTimestamp", "field": "at"}, {"type": "boolean", "field": "paid"},
    {"type": "double", "field": "part"}, {"type": "string", "name": "io.debezium.data.Json", "field": "more"},
]  # fmt: skip
AWKWARD = st.sampled_from(
    [
        "", ",", "a,", ',"', '"', "\\", "a\nb", "\x00", "null", '","op":"d', ',"source":{', '"ts_us":1', "}",
        '{"id":1}', UNAVAILABLE, "ä€\U0001f600", '},"after":{', ',"after":null', "'", "\u2028",
    ]
)  # fmt: skip
TEXT = AWKWARD | st.text() | st.lists(AWKWARD, max_size=3).map("".join)
AT = st.datetimes().map(lambda each: f"{each:%Y-%m-%dT%H:%M:%S}.{each.microsecond:06}Z".zfill(27))
ROW = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "note": st.none() | TEXT,
        "total": st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
        "at": st.none() | AT | st.sampled_from([f"{each}Z" for each in ("2026-01-01T00:00:00", "2026-01-01T00:00:00.5",
                                                                       "12026-01-01T00:00:00", "no time")]),
        "paid": st.none() | st.booleans(),
        "part": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "more": st.none() | TEXT.map(json.dumps),
    }
)  # fmt: skip
KINDS = st.sampled_from(["c", "r", "u", "U", "d", "t"])
TIMES = st.sampled_from([1_796_059_151_505_056, 1_796_059_151_505_057]) | st.integers(0, 2**53)


def envelope(kind: str, before: dict[str, Any], after: dict[str, Any], micros: int, database: str) -> dict[str, Any]:
    """As Debezium 3.6 writes it; ``U`` is an update with the old row."""
    source = {
        "version": "3.6.0.Final", "connector": database, "name": "p", "ts_ms": micros // 1000, "snapshot": "false",
        "db": "shop", "sequence": '["28278648","28447376"]', "ts_us": micros, "ts_ns": micros * 1000,
    }  # fmt: skip
    source |= {"schema": "public", "table": "orders", "txId": 769} if database == "postgresql" else {"table": "orders"}
    return {
        "before": before if kind in "Ud" else None,
        "after": None if kind in "dt" else after,
        "source": source | {"xmin": None},
        "transaction": None,
        "op": kind.lower(),
        "ts_ms": 1_796_059_164_608,
        "ts_us": 1_796_059_164_608_202,
        "ts_ns": 1_796_059_164_608_202_194,
    }


CHANGES = st.lists(st.tuples(KINDS, ROW, ROW, TIMES), min_size=1, max_size=8)


def frames(values: list[bytes], *, cut: bool, schemas: bool = False, whole: bool = False) -> list[Any]:
    """Schema, table and data of each frame; made by cutting, or by parsing alone."""
    made = Records()
    made.add(values, [b'{"id":1}'] * len(values), 0, range(len(values)))
    decoder = Decoder(types=None if schemas else TYPES, replica_identity="full" if whole else "default")
    maker = FrameMaker(decoder, whole_before=whole)
    with pytest.MonkeyPatch.context() as patch:
        if not cut:
            patch.setattr(Table, "_learned", lambda self, sample: None)
        return [(each.schema, each.table_name, each.data) for each in maker.frames("t", made)]


def alike(values: list[bytes], **options: Any) -> None:
    """Both ways make the same, or both refuse."""
    try:
        wanted = frames(values, cut=False, **options)
    except ChangeStreamError as error:
        with pytest.raises(type(error)) as refused:
            frames(values, cut=True, **options)
        assert str(refused.value) == str(error)
        return
    found = frames(values, cut=True, **options)
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    for (_, _, one), (_, _, other) in zip(found, wanted, strict=True):
        assert_frame_equal(one, other)


@given(CHANGES, st.sampled_from(["postgresql", "mysql"]), st.booleans())
def test_what_is_cut_is_what_is_parsed(changes: list[Any], database: str, whole: bool) -> None:
    payloads = [envelope(*each, database) for each in changes]
    alike([dumps(each) for each in payloads], whole=whole)
    schema = schema_of(FIELDS, database)
    alike([dumps({"schema": schema, "payload": each}) for each in payloads], schemas=True, whole=whole)


def ordered(row: dict[str, Any]) -> dict[str, Any]:
    """Else not even a parser is asked: columns in another order are read one by one, and not of the same type."""
    return {name: row[name] for name in ORDERS}


@given(CHANGES, st.sampled_from(["postgresql", "mysql"]))
def test_what_is_cut_is_what_the_events_say(changes: list[Any], database: str) -> None:
    values = [dumps(envelope(kind, ordered(old), ordered(new), at, database)) for kind, old, new, at in changes]
    rows = [row for _, _, data in frames(values, cut=True, whole=True) for row in data.iter_rows(named=True)]
    decoder = Decoder(types=TYPES, replica_identity="full")
    for row, value in zip(sorted(rows, key=lambda each: each["position"]), values, strict=True):
        event = decoder.decode("t", KafkaPosition.at("t", 0, row["position"]), b'{"id":1}', value)
        assert isinstance(event, ChangeEvent)
        assert (row["operation"], row["ts"]) == (event.operation, event.commit_timestamp)
        data = event.new_data or event.old_data
        # A row that is read alone has the others as other types.
        names = {"id", "note", "paid", "part"} & data.keys() - set(row["unchanged"] or ())
        assert {name: row[name] for name in names} == {name: data[name] for name in names}
        had = event.operation is Operation.UPDATE and bool(event.old_data)
        assert (row["old"] is not None) == had
        assert not had or row["old"]["id"] == event.old_data["id"]


PLAIN = {"id": 1, "note": "n", "total": "1.50", "at": "2026-01-01T00:00:00.123456Z", "paid": True, "part": 0.5,
         "more": "{}"}  # fmt: skip


def plain(number: int, kind: str = "c", **changes: Any) -> dict[str, Any]:
    row = {**PLAIN, "id": number}
    return {**envelope(kind, row, row, 1_796_059_151_505_056 + number, "postgresql"), **changes}


def test_all_kinds_are_cut_and_none_of_them_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_parsed", lambda self, text: pytest.fail(f"{text.len()} records are parsed"))
    values = [dumps(plain(number, kind)) for number, kind in enumerate("cUudrcUd")]
    ((schema, table, data),) = frames(values, cut=True, whole=True)
    assert (schema, table) == ("public", "orders")
    assert data["operation"].to_list() == [
        "INSERT", "UPDATE", "UPDATE", "DELETE", "SNAPSHOT", "INSERT", "UPDATE", "DELETE",
    ]  # fmt: skip
    assert data["id"].to_list() == list(range(8))
    assert data["old"].is_not_null().to_list() == [each == "U" for each in "cUudrcUd"]
    assert data["ts"].is_sorted() and data["ts"].n_unique() == 8


def test_one_odd_record_is_parsed_alone_and_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, usual = [], Table._parsed

    def counted(self: Table, text: pl.Series) -> pl.DataFrame:
        parsed.append(text.len())
        return usual(self, text)

    monkeypatch.setattr(Table, "_parsed", counted)
    payloads = [plain(number) for number in range(10)]
    payloads[4]["after"]["note"] = 'says "a,"'
    ((_, _, data),) = frames([dumps(each) for each in payloads], cut=True)
    assert parsed == [1]
    assert data["id"].to_list() == list(range(10))
    assert data["note"].to_list() == ["n"] * 4 + ['says "a,"'] + ["n"] * 5


def test_other_tables_orders_and_columns_in_the_midst_are_seen() -> None:
    odd = plain(3)
    for other in (
        {**odd, "source": {**odd["source"], "table": "others"}},
        {**odd, "source": dict(reversed(odd["source"].items()))},
        {**odd, "after": dict(reversed(odd["after"].items()))},
        {**odd, "after": {**odd["after"], "added": 1}},
        {**odd, "after": {name: value for name, value in odd["after"].items() if name != "paid"}},
        {**odd, "transaction": {"id": "1:2", "total_order": 1, "data_collection_order": 1}},
        {**odd, "op": "u", "source": {**odd["source"], "ts_us": None}},
        {**odd, "op": "d"}, dict(reversed(odd.items())),
    ):  # fmt: skip
        for values in ([plain(1), plain(2), other, plain(4)], [other, plain(1), plain(2), plain(4)]):
            alike([dumps(each) for each in values])
    spaced = json.dumps(odd).encode()
    alike([dumps(plain(1)), spaced, dumps(plain(2))])


def test_a_record_that_is_cut_short_is_refused_wherever_that_is() -> None:
    whole = dumps(plain(2))
    for size in range(1, len(whole)):
        with pytest.raises(ProtocolError, match="t/0:1"):
            frames([dumps(plain(1)), whole[:size], dumps(plain(3)), dumps(plain(4))], cut=True)


def test_a_damaged_byte_is_seen_or_stands_where_nothing_is_read() -> None:
    columns = dict(zip(PLAIN, (pl.Int64, *[pl.String] * 3, pl.Boolean, pl.Float64, pl.String), strict=True))
    sample = dumps(plain(1)).decode()
    form = Form(sample, columns, time="ts_us", where="schema")
    begin, end = sample.index(',"source":{'), sample.index(',"op":')
    unread = set(range(begin + len(',"source":{'), end))
    for name in ("ts_us", "schema", "table"):
        at = sample.index(f'"{name}":')
        unread -= set(range(at, sample.index(",", at)))
    damaged = [
        sample[:at] + letter + sample[at + 1 :]
        for letter in '",}{:0n\\ '
        for at in range(len(sample))
        if at not in unread and sample[at] != letter
    ]
    raw = form.cut(pl.Series(damaged)).raw
    assert 0 < raw.height < len(damaged) / 4
    for row in raw.iter_rows(named=True):
        found = damaged[row["index"]]
        if re.search(r":-?0[0-9]", found):
            continue  # a digit that is another one is not seen by anybody
        payload = json.loads(found)
        assert (row["now"], row["op"], row["time"]) == (
            payload["after"], payload["op"], payload["source"]["ts_us"],
        ), found  # fmt: skip
