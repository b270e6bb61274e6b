"""Frames: the same changes as the events of the same messages, in columns; broken bytes are a ProtocolError."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdc import encoder as pg
from cdc.test_pgoutput_properties import BINARIES, FULL, GOOD, Change, Described, expected, histories, whole
from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.frames import Frame, FrameBatch, FrameDecoder, lsn
from streamlab.cdc.frames.forms import numeric
from streamlab.cdc.frames.slices import Slices, Whole
from streamlab.cdc.frames.tables import META
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.values import TypeMap
from streamlab.errors import ProtocolError

SHARED = TypeMap()
"""One for all: it takes a while to make."""


def batches(decoder: FrameDecoder, messages: list[bytes], size: int) -> list[FrameBatch]:
    done = [each for at in range(0, len(messages), size) for each in decoder.receive(messages[at : at + size])]
    return done + decoder.flush()


Key = tuple[int, int]


def rows_of(found: list[FrameBatch]) -> dict[Key, tuple[Frame, dict[str, Any]]]:
    """All rows by their key; each key once."""
    rows: dict[Key, tuple[Frame, dict[str, Any]]] = {}
    for batch in found:
        for frame in batch:
            for row in frame.data.iter_rows(named=True):
                key = (row["position"], row["ordinal"])
                assert key not in rows
                rows[key] = (frame, row)
    return rows


def same(cell: Any, value: Any) -> bool:
    """Whether a cell says what an event's value says."""
    if isinstance(value, UUID):
        value = str(value)
    if isinstance(value, Decimal) and isinstance(cell, str):
        cell = Decimal(cell)
    return type(cell) is type(value) and cell == value


def agree(found: list[FrameBatch], wanted: list[ChangeEvent]) -> None:
    rows = rows_of(found)
    assert sorted(rows) == sorted((int(event.lsn), event.ordinal) for event in wanted)
    for event in wanted:
        frame, row = rows[int(event.lsn), event.ordinal]
        assert (frame.schema, frame.table_name, row["operation"]) == (event.schema, event.table_name, event.operation)
        assert row["ts"] == event.commit_timestamp
        assert frame.primary_key == event.primary_key
        data = event.old_data if event.operation is Operation.DELETE else event.new_data
        unchanged = []
        for name, value in data.items():
            if value is UNCHANGED:
                unchanged.append(name)
                value = None
            assert same(row[name], value), (name, row[name], value)
        assert (row["unchanged"] or []) == unchanged
        old = event.old_data if event.operation is Operation.UPDATE and event.old_data else None
        assert (row.get("old") is None) == (old is None)
        for name, value in (old or {}).items():
            assert same(row["old"][name], value), (name, row["old"], value)
        assert row["unfit"] is None


@given(histories(), st.integers(1, 9), st.sampled_from([1, 3, 1000]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_frames_say_what_events_say(
    history: tuple[list[Described], list[list[Change]]], size: int, max_rows: int
) -> None:
    messages = whole(*history)
    wanted = [event for number, each in enumerate(history[1]) for event in expected(number, each)]
    events = [event for transaction in Decoder(types=SHARED).receive(messages) for event in transaction]
    assert events == wanted
    decoder = FrameDecoder(max_rows=max_rows, types=SHARED)
    found = batches(decoder, messages, size)
    agree(found, wanted)
    assert not decoder.in_transaction
    assert sum(batch.transactions for batch in found) == len(history[1])
    assert found[-1].end_position == 100 * len(history[1]) + 8
    assert all(batch.complete for batch in found)


# -- batches --------------------------------------------------------------------------------------

T = pg.Table(1, "shop", "orders", (("id", 23), ("note", 25)), frozenset({"id"}))
OTHER = pg.Table(2, "shop", "items", (("id", 23),), frozenset({"id"}))


def transaction(number: int, *messages: bytes) -> list[bytes]:
    return [pg.begin(number, 100 * number), *messages, pg.commit(100 * number, 100 * number + 8)]


def test_a_part_never_ends_where_a_transaction_did_that_comes_again() -> None:
    """To acknowledge it would acknowledge the transaction, whose rest is still to come."""
    decoder = FrameDecoder(max_rows=10, max_bytes=200, types=SHARED)
    messages = [T.relation(), *transaction(1, *(T.insert([str(n), "x" * 40]) for n in range(9)))]
    found = [*decoder.receive(messages[:6]), *decoder.receive(messages[6:]), *decoder.flush()]
    assert [(each.complete, each.end_position) for each in found] == [(False, 0), (True, 108)]
    assert found[0].commit_timestamp == found[1].commit_timestamp
    decoder.reset(after=LSN(50))
    (part,) = decoder.receive(messages[:6])
    assert (part.complete, part.end_position) == (False, 50)


def test_a_batch_is_cut_between_transactions() -> None:
    decoder = FrameDecoder(max_rows=4, types=SHARED)
    first, second = transaction(1, T.insert(["1", "a"]), T.insert(["2", "b"])), transaction(2, T.insert(["3", None]))
    assert decoder.receive([T.relation(), *first[:2]]) == []
    assert decoder.in_transaction
    (batch,) = decoder.receive([*first[2:], *second[:2]])
    assert (batch.end_position, batch.transactions, len(batch)) == (108, 1, 2)
    assert decoder.in_transaction
    assert decoder.flush() == []
    assert decoder.receive(second[2:]) == []
    assert decoder.in_transaction, "it was not handed out"
    (rest,) = decoder.flush()
    assert (rest.end_position, rest.transactions, len(rest)) == (208, 1, 1)
    assert not decoder.in_transaction


def test_a_transaction_that_is_too_large_comes_in_parts() -> None:
    decoder = FrameDecoder(max_rows=10, max_bytes=2000)
    rows = [T.insert([str(number), "x" * 100]) for number in range(50)]
    before, large = transaction(1, T.insert(["0", ""])), transaction(2, *rows)
    found = batches(decoder, [T.relation(), *before, *large], 5)
    assert len(found) > 3
    parts = [batch for batch in found if not batch.complete]
    assert parts
    assert {batch.end_position for batch in parts} == {108}, "acknowledging a part must not lose the rest"
    assert found[-1].complete
    assert found[-1].end_position == 208
    assert sum(batch.transactions for batch in found) == 2
    keys = [key for key in rows_of(found) if key[0] == 200]
    assert sorted(keys) == [(200, number) for number in range(50)]


def test_a_table_that_is_altered_within_a_transaction_makes_two_frames() -> None:
    altered = pg.Table(1, "shop", "orders", (("id", 23), ("note", 25), ("more", 20)), frozenset({"id"}))
    messages = transaction(
        1, T.relation(), T.insert(["1", "a"]), altered.relation(), altered.insert(["2", "b", "7"]),
        altered.relation(), altered.insert(["3", "c", None]),
    )  # fmt: skip
    (batch,) = batches(FrameDecoder(types=SHARED), messages, 99)
    assert [frame.data.columns[4:-3] for frame in batch] == [["id", "note"], ["id", "note", "more"]]
    together = batch.of("orders", "shop")
    assert together["id"].to_list() == [1, 2, 3]
    assert together["more"].to_list() == [None, 7, None]
    assert batch.of("nothing").height == 0


def test_truncate_and_messages_have_rows_of_their_own() -> None:
    messages = [
        T.relation(), OTHER.relation(),
        *transaction(
            1, T.insert(["1", "a"]), pg.truncate([2, 1]), T.insert(["2", "b"]),
            pg.message("p", b"in", position=50), OTHER.insert(["5"]),
        ),
        pg.message("q", b"out", position=150, transactional=False, sent=pg.EPOCH + timedelta(1)),
    ]  # fmt: skip
    (batch,) = batches(FrameDecoder(types=SHARED), messages, 99)
    orders, items, logical = batch.frames
    assert orders.data.select("operation", "ordinal", "id").rows() == [
        ("INSERT", 0, 1), ("TRUNCATE", 2, None), ("INSERT", 3, 2),
    ]  # fmt: skip
    assert items.data.select("operation", "ordinal", "id").rows() == [("TRUNCATE", 1, None), ("INSERT", 5, 5)]
    assert logical.data.select("position", "ordinal", "prefix", "content", "transactional").rows() == [
        (100, 4, "p", b"in", True), (149, 0, "q", b"out", False),
    ]  # fmt: skip
    assert logical.data["ts"].to_list() == [pg.EPOCH, pg.EPOCH + timedelta(1)]
    assert (batch.end_position, batch.transactions) == (150, 2)
    events: list[Transaction] = Decoder().receive(messages)
    assert [(e.lsn, e.ordinal, e.operation) for each in events for e in each] == sorted(
        (LSN(row["position"]), row["ordinal"], row["operation"]) for _, row in rows_of([batch]).values()
    )


def test_columns_that_are_named_like_ours_get_another_name() -> None:
    table = pg.Table(1, "s", "t", (("ts", 23), ("ts_", 23), ("operation", 25)), frozenset({"ts"}))
    (batch,) = batches(
        FrameDecoder(types=SHARED),
        transaction(1, table.relation(), table.update(["1", "2", "x"], key=["3", None, None])),
        99,
    )
    (row,) = batch.frames[0].data.iter_rows(named=True)
    assert (row["ts__"], row["ts_"], row["operation_"], row["operation"]) == (1, 2, "x", "UPDATE")
    assert row["old"] == {"ts__": 3}


# -- values ---------------------------------------------------------------------------------------


def test_what_a_column_cannot_hold_is_null_and_its_text_stands_beside() -> None:
    table = pg.Table(1, "s", "t", (("id", 23), ("at", 1184), ("day", 1082), ("text", 25)), frozenset({"id"}))
    infinite = struct.pack("!q", 2**63 - 1)
    messages = transaction(
        1, table.relation(),
        table.insert(["1", "infinity", "0044-03-15 BC", "a\udcff"]),
        table.insert([struct.pack("!i", 2), infinite, struct.pack("!i", 3_000_000), b"\xff"]),
        table.insert(["3", "2026-01-01 00:00:00+00", "2026-01-01", "fit"]),
    )  # fmt: skip
    (batch,) = batches(FrameDecoder(types=SHARED), messages, 99)
    frame = batch.frames[0].data
    assert frame["at"].to_list() == [None, None, datetime(2026, 1, 1, tzinfo=UTC)]
    assert frame["day"].null_count() == 2
    assert frame["text"].to_list() == [None, None, "fit"]
    beside = [{each["column"]: each["text"] for each in row or ()} for row in frame["unfit"].to_list()]
    assert beside == [
        {"at": "infinity", "day": "0044-03-15 BC", "text": "\\x61ff"},
        {"at": "infinity", "day": "10213-09-21", "text": "\\xff"},
        {},
    ]


@given(
    st.integers(1, 38).flatmap(lambda precision: st.tuples(st.just(precision), st.integers(0, precision))), st.data()
)
@settings(max_examples=150, deadline=None)
def test_numerics_are_exact_in_both_forms(declared: tuple[int, int], data: st.DataObject) -> None:
    precision, scale = declared
    units = st.integers(-(10**precision) + 1, 10**precision - 1) | st.sampled_from([0, 1, -1, 10**precision - 1])
    values = [
        Decimal(unit).scaleb(-scale, Context(prec=60)) for unit in data.draw(st.lists(units, min_size=1, max_size=8))
    ]
    form = numeric((precision << 16 | scale) + 4)
    assert form.dtype == pl.Decimal(precision, scale)
    assert form.text(pl.Series([f"{value:f}" for value in values])).to_list() == values
    if form.binary is not None:
        pieces = [pg.numeric(value) for value in values]
        sizes = [len(piece) for piece in pieces]
        start = pl.Series([0, *sizes[:-1]]).cum_sum().to_numpy()
        slices = Slices.of(
            Whole(b"".join(pieces)), start, pl.Series(sizes).to_numpy(), pl.Series([True] * len(sizes)).to_numpy()
        )
        assert form.binary(slices).to_list() == values
    else:
        assert precision > 35


def test_types() -> None:
    table = pg.Table(1, "s", "t", tuple((name, oid) for name, oid, _ in TYPES), frozenset({"i2"}))
    cells = [value for _, _, value in TYPES]
    (batch,) = batches(FrameDecoder(types=SHARED), transaction(1, table.relation(), table.insert(cells)), 9)
    schema = dict(batch.frames[0].data.schema)
    assert {name: schema.pop(name) for name in META} == {
        "operation": pl.Enum([each.value for each in Operation]), "position": pl.UInt64, "ordinal": pl.UInt32,
        "ts": pl.Datetime("us", "UTC"), "old": pl.Struct({"i2": pl.Int16}), "unchanged": pl.List(pl.String),
        "unfit": pl.List(pl.Struct({"column": pl.String, "text": pl.String})),
    }  # fmt: skip
    assert schema == {
        "b": pl.Boolean, "i2": pl.Int16, "i4": pl.Int32, "i8": pl.Int64, "oid": pl.UInt32, "f4": pl.Float32,
        "f8": pl.Float64, "n": pl.String, "x": pl.String, "raw": pl.Binary, "u": pl.String, "j": pl.String,
        "d": pl.Date, "t": pl.Time, "ts_": pl.Datetime("us"), "tz": pl.Datetime("us", "UTC"),
        "iv": pl.Struct({"months": pl.Int32, "days": pl.Int32, "microseconds": pl.Int64}),
        "l": pl.List(pl.Int32), "r": pl.String,
    }  # fmt: skip
    (row,) = batch.frames[0].data.iter_rows(named=True)
    assert row["iv"] == {"months": 13, "days": -2, "microseconds": -14_706_700_000}
    assert (row["l"], row["raw"], row["f8"]) == ([1, None, 3], b"\x00\xff", float("inf"))


TYPES = [
    ("b", 16, "t"), ("i2", 21, "-1"), ("i4", 23, "1"), ("i8", 20, "1"), ("oid", 26, "4294967295"), ("f4", 700, "1.5"),
    ("f8", 701, "Infinity"), ("n", 1700, "1.50"), ("x", 1043, "x"), ("raw", 17, "\\x00ff"),
    ("u", 2950, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), ("j", 114, "{}"), ("d", 1082, "2026-02-28"),
    ("t", 1083, "01:02:03.5"), ("ts", 1114, "2026-02-28 01:02:03.5"), ("tz", 1184, "2026-02-28 01:02:03+05:30"),
    ("iv", 1186, "1 year 1 mon -2 days -04:05:06.7"), ("l", 1007, "{1,NULL,3}"), ("r", 3904, "[1,10)"),
]  # fmt: skip


def test_pandas_by_one_call() -> None:
    table = pg.Table(1, "s", "t", (("id", 23), ("n", 20), ("b", 16), ("f", 701), ("at", 1184)), frozenset({"id"}))
    messages = transaction(
        1, table.relation(), table.insert(["1", "2", "t", "1.5", "2026-01-01 00:00:00+00"]),
        table.insert(["2", None, None, None, None]),
    )  # fmt: skip
    (batch,) = batches(FrameDecoder(types=SHARED), messages, 99)
    frame = batch.to_pandas()["s", "t"]
    assert list(map(str, frame.dtypes[["position", "id", "n", "b", "f", "at"]])) == [
        "uint64", "int32", "Int64", "boolean", "float64", "datetime64[us, UTC]",
    ]  # fmt: skip
    assert frame["operation"].tolist() == ["INSERT", "INSERT"]
    assert frame["at"][0] == pd.Timestamp("2026-01-01", tz="UTC")
    assert pd.isna(frame["n"][1])
    assert pd.isna(frame["at"][1])


def test_positions_are_shown_as_postgresql_shows_them() -> None:
    frame = pl.DataFrame({"position": pl.Series([0x16B3748, 5 << 32], dtype=pl.UInt64)})
    assert frame.select(lsn())["position"].to_list() == ["0/16B3748", "5/0"]


# -- broken bytes ---------------------------------------------------------------------------------

BROKEN = [GOOD[0], *GOOD[2:13]]


def decode(messages: list[bytes]) -> list[FrameBatch]:
    return batches(FrameDecoder(types=SHARED), messages, 99)


def test_the_good_bytes_are_good() -> None:
    assert sum(map(len, decode(BROKEN))) == 9


@pytest.mark.parametrize("more", [b"", b"x"])
def test_a_message_of_another_length_is_a_protocol_error(more: bytes) -> None:
    for at, message in enumerate(BROKEN):
        for cut in range(0, len(message), 1) if not more else [len(message)]:
            with pytest.raises(ProtocolError):
                decode([*BROKEN[:at], message[:cut] + more, *BROKEN[at + 1 :]])


@given(
    st.lists(
        st.tuples(st.integers(0, len(BROKEN) - 1), st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3
    )
)
@example([(10, 722, 0)])  # a logical message that ends at 0/0
@settings(max_examples=150, deadline=None)
def test_changed_bytes_give_a_protocol_error_or_nothing_worse(changed: list[tuple[int, int, int]]) -> None:
    messages = list(BROKEN)
    for at, place, value in changed:
        message = bytearray(messages[at])
        message[25 + place % (len(message) - 25)] = value
        messages[at] = bytes(message)
    with contextlib.suppress(ProtocolError):
        for batch in decode(messages):
            for frame in batch:
                frame.data.rows()


@given(st.lists(st.integers(0, len(BROKEN) - 1), max_size=20))
@settings(max_examples=100, deadline=None)
def test_messages_in_any_order_give_a_protocol_error_or_nothing_worse(order: list[int]) -> None:
    with contextlib.suppress(ProtocolError):
        decode([BROKEN[at] for at in order])


@pytest.mark.parametrize("at", [1, 11])
def test_a_time_beyond_pythons_is_a_protocol_error(at: int) -> None:
    message = bytearray(BROKEN[at])
    place = 34 if at == 1 else 43
    message[place : place + 8] = struct.pack("!q", 2**62)
    with pytest.raises(ProtocolError, match="time is out of range"):
        decode([*BROKEN[:at], bytes(message), *BROKEN[at + 1 :]])


def test_other_protocols_are_refused() -> None:
    with pytest.raises(ProtocolError, match="version 1"):
        decode([pg.stream_start(1, first=True), FULL.insert(BINARIES, 1)])
