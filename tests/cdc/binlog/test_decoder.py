"""The decoder of the binary log, without a server: what went in comes out; what is broken is a `ProtocolError`."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import Operation, Transaction
from streamlab.cdc.binlog import BinlogPosition, GTIDSet, decoder
from streamlab.cdc.binlog.decoder import Decoder
from streamlab.cdc.binlog.events import Event, Query, truncated_table
from streamlab.cdc.binlog.json_binary import loads
from streamlab.cdc.binlog.packets import Packets
from streamlab.cdc.binlog.rowcode import KINDS, _Rows, row_decoder
from streamlab.cdc.binlog.table_map import read
from streamlab.cdc.binlog.tables import Selection
from streamlab.cdc.binlog.values import codec
from streamlab.cdc.spill import Spill
from streamlab.errors import CannotCapture, ChangeStreamError, ProtocolError, SettingsError

from . import encoder as my

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES: list[tuple[my.Kind, st.SearchStrategy[Any]]] = [
    (my.INT, st.integers(-(1 << 31), (1 << 31) - 1)),
    (my.UNSIGNED, st.integers(0, (1 << 64) - 1)),
    (my.MEDIUM, st.integers(-(1 << 23), (1 << 23) - 1)),
    (my.DOUBLE, st.floats(allow_nan=False)),
    (my.YEAR, st.just(0) | st.integers(1901, 2155)),
    (my.SHORT_TEXT, TEXTS),
    (my.LONG_TEXT, TEXTS | st.just("€" * 300)),
    (my.TEXT, TEXTS),
    (my.BLOB, st.binary(max_size=300)),
    (my.DATETIME, st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999))),
    (my.DECIMAL, st.decimals(-99_999_999, 99_999_999, places=4)),
    (my.ENUM, st.integers(0, 2)),
]
LABELS = ("", "a", "ö")


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[str, my.Kind]], list[list[Any]]]:
    chosen = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=12))
    names = draw(st.lists(NAMES, min_size=len(chosen), max_size=len(chosen), unique=True))
    row = st.tuples(*(st.none() | values for _, values in chosen)).map(list)
    rows = draw(st.lists(row, min_size=2, max_size=6).filter(lambda rows: len(rows) % 2 == 0))
    for before, after in pairwise(rows):
        # As in a log: what a row has of the one before it, such as the time of their statement.
        for index in draw(st.sets(st.integers(0, len(chosen) - 1))):
            after[index] = before[index]
    return [(name, kind) for name, (kind, _) in zip(names, chosen, strict=True)], rows


def expected(columns: list[tuple[str, my.Kind]], row: list[Any]) -> dict[str, Any]:
    return {
        name: LABELS[value] if kind is my.ENUM and value is not None else value
        for (name, kind), value in zip(columns, row, strict=True)
    }


def decoded(packets: list[bytes], **options: Any) -> list[Transaction]:
    return Decoder(**options).receive(packets)


@given(tables(), st.booleans())
def test_rows_come_out_as_they_went_in(table: tuple[Any, Any], checksums: bool) -> None:
    columns, rows = table
    kinds = [kind for _, kind in columns]
    log = my.Log(checksums=checksums)
    packets = [*log.begin_stream(), *log.begin(), log.table(columns)]
    packets += [log.rows(kind, kinds, rows) for kind in (30, 31, 32)]
    packets.append(log.commit())
    (transaction,) = decoded(packets)
    wanted = [expected(columns, row) for row in rows]
    count = len(rows)
    events = list(transaction)
    assert [event.ordinal for event in events] == list(range(2 * count + count // 2))
    assert [event.new_data for event in events[:count]] == wanted
    updates = events[count : count + count // 2]
    assert [event.old_data for event in updates] == wanted[::2]
    assert [event.new_data for event in updates] == wanted[1::2]
    assert [event.old_data for event in events[count + count // 2 :]] == wanted
    assert all(event.primary_key == (columns[0][0],) for event in events)
    assert transaction.transaction_id == f"{my.SOURCE}:1"
    assert transaction.commit_timestamp == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=my.MICROS)


@given(tables())
def test_the_generated_code_and_the_careful_reader_agree(table: tuple[Any, Any]) -> None:
    columns, rows = table
    log = my.Log(checksums=False)
    described = log.table(columns)
    made = read(described, len(described))
    codecs = [codec(column, index) for index, column in enumerate(made.columns)]
    stamp = (datetime.now(UTC), "x", BinlogPosition("a.000001", 4, GTIDSet()))
    for kind in KINDS:
        packet = log.rows(kind, [kind for _, kind in columns], rows)
        fast: list[Any] = []
        slow: list[Any] = []
        row_decoder(made, kind, {255: "utf8mb4"})(packet, len(packet), *stamp, fast, 3)
        _Rows(made, kind, codecs).read(packet, len(packet), *stamp, slow, 3)
        assert fast == slow


@given(tables(), st.data())
def test_what_is_broken_is_told(table: tuple[Any, Any], data: st.DataObject) -> None:
    columns, rows = table
    log = my.Log(checksums=False)
    packets = [*log.begin_stream(), *log.begin(), log.table(columns)]
    packets += [log.rows(30, [kind for _, kind in columns], rows), log.commit()]
    which = data.draw(st.integers(0, len(packets) - 1))
    packet = packets[which]
    if data.draw(st.booleans()):
        packets[which] = packet[: data.draw(st.integers(0, len(packet) - 1))]
    else:
        at = data.draw(st.integers(0, len(packet) - 1))
        packets[which] = packet[:at] + bytes([data.draw(st.integers(0, 255))]) + packet[at + 1 :]
    try:
        for transaction in decoded(packets):
            list(transaction)
    except (ProtocolError, CannotCapture, ChangeStreamError) as error:
        assert error.fix


@given(tables(), st.data())
def test_a_checksum_that_does_not_fit_is_refused(table: tuple[Any, Any], data: st.DataObject) -> None:
    columns, rows = table
    log = my.Log()
    packets = [*log.begin_stream(), *log.begin(), log.table(columns)]
    packets += [log.rows(30, [kind for _, kind in columns], rows), log.commit()]
    which = data.draw(st.integers(2, len(packets) - 1))
    at = data.draw(st.integers(6, len(packets[which]) - 1))
    packet = bytearray(packets[which])
    packet[at] ^= data.draw(st.integers(1, 255))
    packets[which] = bytes(packet)
    with pytest.raises(ProtocolError, match="checksum"):
        decoded(packets)


@given(st.binary(max_size=200))
def test_broken_json_is_a_value_error_or_a_value(data: bytes) -> None:
    for kind in range(16):
        with contextlib.suppress(ValueError, LookupError, struct.error, ArithmeticError):
            loads(bytes([kind]) + data)


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_packets_do_not_depend_on_how_they_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(
        len(each).to_bytes(3, "little") + bytes([(number + 1) & 0xFF]) + each for number, each in enumerate(payloads)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    packets = Packets()
    found = [
        each for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for each in packets.feed(stream[start:end])
    ]  # fmt: skip
    assert found == payloads


def test_a_payload_of_16_mib_goes_on_in_the_next_packet() -> None:
    first, rest = bytes(0xFFFFFF), b"rest"
    stream = b"\xff\xff\xff\x01" + first + b"\x04\0\0\x02" + rest
    assert Packets().feed(stream) == [first + rest]
    with pytest.raises(ProtocolError, match="bytes are missing"):
        Packets().feed(b"\0\0\0\x07")


def small(log: my.Log, number: int, rows: int = 1) -> list[bytes]:
    begun, described = log.begin(number), log.table([("id", my.INT)])
    return [*begun, described, log.rows(30, [my.INT], [[each] for each in range(rows)]), log.commit()]


def test_positions_go_on_beyond_4_gib() -> None:
    log = my.Log()
    reader = Decoder()
    reader.receive(log.begin_stream())
    places = []
    for number in range(1, 4):
        reader.offset = log.offset = log.offset + (3 << 30)
        places.append(log.offset)
        (transaction,) = reader.receive(small(log, number))
        assert transaction.position.offset == places[-1]  # type: ignore[attr-defined]
        assert transaction.end_position.offset == log.offset  # type: ignore[attr-defined]


def test_a_large_transaction_is_decoded_when_it_is_iterated() -> None:
    log = my.Log()
    reader = Decoder(spill=Spill(eager=100))
    packets = [*log.begin_stream(), *log.begin(), log.table([("id", my.INT)])]
    reader.receive(packets)
    for number in range(10):
        assert reader.receive([log.rows(30, [my.INT], [[2 * number], [2 * number + 1]])]) == []
    (transaction,) = reader.receive([log.commit()])
    for _ in range(2):
        assert [(event.ordinal, event.new_data["id"]) for event in transaction] == [(n, n) for n in range(20)]
    assert len(transaction) == 20
    assert reader.receive(small(log, 2))[0].changes


def test_a_stream_that_begins_anew_forgets_what_was_open() -> None:
    log = my.Log()
    reader = Decoder()
    reader.receive([*log.begin_stream(), *log.begin()])
    assert reader.in_transaction
    reader.restart(GTIDSet.parse(f"{my.SOURCE}:1-5"))
    assert not reader.in_transaction
    again = my.Log()
    (transaction,) = reader.receive([*again.begin_stream(), *small(again, 6)])
    assert str(transaction.end_position).endswith(f"{my.SOURCE}:1-6")


def test_events_outside_of_a_transaction_are_refused() -> None:
    log = my.Log()
    for packet in (log.commit(), log.table([("id", my.INT)]), log.rows(30, [my.INT], [[1]])):
        with pytest.raises(ProtocolError):
            decoded([*my.Log().begin_stream(), packet])
    with pytest.raises(ProtocolError, match="still open"):
        decoded([*log.begin_stream(), *log.begin(), *log.begin()])


@pytest.mark.parametrize(
    ("kind", "what"), [(34, "gtid_mode"), (40, "compression"), (39, "row_value_options"), (23, "v1_row"), (26, "log")]
)
def test_what_would_lose_changes_is_refused(kind: int, what: str) -> None:
    log = my.Log()
    with pytest.raises(ChangeStreamError) as refusal:
        decoded([*log.begin_stream(), log.event(kind, bytes(60))])
    assert what in refusal.value.fix


def test_rows_that_are_not_whole_are_refused() -> None:
    log = my.Log()
    row = bytes([7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 0b01, 0]) + bytes(4)
    columns = [("id", my.INT), ("n", my.INT)]
    with pytest.raises(CannotCapture, match="not logged whole"):
        decoded([*log.begin_stream(), *log.begin(), log.table(columns), log.event(30, row)])


def test_a_table_without_names_is_refused_where_it_is_wanted() -> None:
    log = my.Log()
    described = log.event(19, bytes([7, 0, 0, 0, 0, 0, 1, 0, 4]) + b"shop\0\x01t\0\x01\x03\0\0")
    begun = [*log.begin_stream(), *log.begin()]
    with pytest.raises(CannotCapture, match="binlog_row_metadata"):
        decoded([*begun, described])
    decoded([*begun, described], wanted=Selection(["shop.other"]))


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("TRUNCATE TABLE orders", ("shop", "orders")),
        ("truncate orders", ("shop", "orders")),
        ("/* a */ TRUNCATE /* b */ TABLE `a``b` . `c d`", ("a`b", "c d")),
        ("# why\nTRUNCATE TABLE x.y", ("x", "y")),
        ("CREATE TABLE t (a int)", None),
        ("ALTER TABLE t TRUNCATE PARTITION p", None),
    ],
)
def test_statements_that_empty_a_table(text: str, table: tuple[str, str] | None) -> None:
    assert truncated_table(Query("shop", text)) == table


def test_a_truncated_table_is_an_event() -> None:
    log = my.Log()
    begun, _ = log.begin()
    (transaction,) = decoded([*log.begin_stream(), begun, log.query("TRUNCATE TABLE t")])
    (event,) = transaction
    assert (event.operation, event.schema, event.table_name) == (Operation.TRUNCATE, "shop", "t")


def test_a_date_of_zeros_is_its_text() -> None:
    log = my.Log()
    zeros = my.Kind(18, b"\x06", lambda value: (0x8000000000).to_bytes(5, "big") + bytes(3))
    packets = [
        *log.begin_stream(),
        *log.begin(),
        log.table([("at", zeros)]),
        log.rows(30, [zeros], [[0]]),
        log.commit(),
    ]
    ((event,),) = decoded(packets)
    assert event.new_data == {"at": "0000-00-00 00:00:00.000000"}


def test_decimals_are_exact() -> None:
    for value in ("0.0001", "-0.0001", "12345678.9000", "-99999999.9999", "0.0000"):
        log = my.Log()
        row = log.rows(30, [my.DECIMAL], [[Decimal(value)]])
        packets = [*log.begin_stream(), *log.begin(), log.table([("d", my.DECIMAL)]), row, log.commit()]
        ((event,),) = decoded(packets)
        assert str(event.new_data["d"]) == value


def test_a_value_that_repeats_is_told_from_one_that_does_not() -> None:
    first, second = datetime(2026, 11, 30, 1, 2, 3, 4), datetime(2026, 11, 30, 1, 2, 3, 5)
    for times in ((first, first), (first, second), (first, None), (None, first), (first, second, first, None, first)):
        log = my.Log()
        rows = log.rows(30, [my.DATETIME], [[each] for each in times])
        packets = [*log.begin_stream(), *log.begin(), log.table([("at", my.DATETIME)]), rows, log.commit()]
        (transaction,) = decoded(packets)
        assert [event.new_data["at"] for event in transaction] == list(times)


def test_a_decimal_of_more_digits_than_its_type_has_is_told() -> None:
    wrong = replace(my.DECIMAL, write=lambda _: b"\x80\0\0\0" + (10_000).to_bytes(2, "big"))
    log = my.Log()
    row = log.rows(30, [wrong], [[0]])
    packets = [*log.begin_stream(), *log.begin(), log.table([("d", my.DECIMAL)]), row, log.commit()]
    with pytest.raises(ProtocolError, match="WRITE_ROWS"):
        decoded(packets)


def test_a_checksum_is_checked_without_a_copy() -> None:
    assert crc32(b"\0", decoder._BEFORE_ZERO) == 0
    assert crc32(b"event" + crc32(b"event").to_bytes(4, "little")) == decoder._WHOLE


def test_event_types_have_their_numbers() -> None:
    assert {kind: operation for kind, (operation, _, _) in KINDS.items()} == {
        Event.WRITE_ROWS: Operation.INSERT, Event.UPDATE_ROWS: Operation.UPDATE, Event.DELETE_ROWS: Operation.DELETE,
    }  # fmt: skip


def test_a_selection_names_tables_and_databases() -> None:
    wanted = Selection(["orders", "a.b", "c.*"], "shop")
    assert wanted("shop", "orders")
    assert wanted("a", "b")
    assert wanted("c", "anything")
    assert not wanted("a", "c")
    assert wanted.named == {("shop", "orders"), ("a", "b")}
    assert Selection()("x", "y")
    assert not Selection()("mysql", "user")
    with pytest.raises(SettingsError):
        Selection(["orders"])
