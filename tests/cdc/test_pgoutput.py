"""The decoder on messages that are built by hand: every kind, in the orders that the protocol allows and in others."""

from __future__ import annotations

import contextlib
import gc
import itertools
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cdc import encoder as pg
from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.spill import Spill
from streamlab.cdc.values import TypeMap
from streamlab.errors import ChangeStreamError, ProtocolError

INT4, INT8, TEXT, BOOL, NUMERIC, TIMESTAMPTZ = 23, 20, 25, 16, 1700, 1184
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

ORDERS = pg.Table(
    16400,
    "shop",
    "orders",
    (("id", INT8), ("total", NUMERIC), ("placed_at", TIMESTAMPTZ), ("note", TEXT), ("paid", BOOL)),
    frozenset({"id"}),
)
PAIR = pg.Table(16500, "shop", "pair", (("a", INT4), ("b", TEXT)), frozenset({"a"}))
WHOLE = pg.Table(16600, "shop", "whole", (("a", INT4), ("b", TEXT)), frozenset({"a", "b"}), "f")


def whole(*changes: bytes, xid: int = 7, at: int = 100, time: datetime = TIME) -> list[bytes]:
    """One transaction of protocol 1."""
    return [pg.begin(xid, at, time), *changes, pg.commit(at, at + 8, time)]


def one(decoder: Decoder, *messages: bytes) -> Transaction:
    (transaction,) = decoder.receive(messages)
    return transaction


# -- whole transactions ---------------------------------------------------------------------------


def test_a_transaction_with_every_kind_of_change() -> None:
    transaction = one(
        Decoder(),
        ORDERS.relation(),
        *whole(
            ORDERS.insert(["1", "9.90", "2026-01-02 03:04:05.6+00", "näher", "t"]),
            ORDERS.update(["1", "NaN", None, pg.TOAST, "f"]),
            ORDERS.update(["2", "1", None, "x", "f"], key=["1", None, None, None, None]),
            ORDERS.delete(key=["2", None, None, None, None]),
            pg.truncate([16400]),
            pg.message("prefix", b"\0\xff", position=90),
        ),
    )
    inserted, updated, moved, deleted, truncated, message = transaction
    assert inserted == ChangeEvent(
        Operation.INSERT,
        "shop",
        "orders",
        {},
        {
            "id": 1,
            "total": Decimal("9.90"),
            "placed_at": datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC),
            "note": "näher",
            "paid": True,
        },
        TIME,
        "7",
        LSN(100),
        0,
        ("id",),
    )
    assert type(inserted) is ChangeEvent
    assert isinstance(inserted.position, LSN)
    assert updated.new_data["total"].is_nan()
    assert updated.new_data["note"] is UNCHANGED
    assert (updated.old_data, updated.new_data["placed_at"], updated.new_data["paid"]) == ({}, None, False)
    assert (moved.old_data, moved.new_data["id"], moved.operation) == ({"id": 1}, 2, Operation.UPDATE)
    assert (deleted.old_data, deleted.new_data, deleted.operation) == ({"id": 2}, {}, Operation.DELETE)
    assert (truncated.operation, truncated.table_name, truncated.primary_key) == (
        Operation.TRUNCATE,
        "orders",
        ("id",),
    )
    assert message.operation is Operation.MESSAGE
    assert message.new_data == {"prefix": "prefix", "content": b"\0\xff", "transactional": True}
    assert [each.ordinal for each in transaction] == list(range(6))
    assert {each.position for each in transaction} == {LSN(100)}
    assert (transaction.position, transaction.end_position) == (LSN(100), LSN(108))
    assert (transaction.transaction_id, transaction.commit_timestamp, transaction.origin) == ("7", TIME, "")


def test_transactions_come_when_their_commit_does_however_messages_are_portioned() -> None:
    messages = [
        PAIR.relation(),
        *whole(PAIR.insert(["1", "a"]), at=100),
        *whole(PAIR.insert(["2", "b"]), PAIR.insert(["3", "c"]), at=200),
    ]
    expected = [list(transaction) for transaction in Decoder().receive(messages)]
    assert [len(events) for events in expected] == [1, 2]
    decoder = Decoder()
    single = [list(transaction) for each in messages for transaction in decoder.receive([memoryview(each)])]
    assert single == expected


def test_in_transaction_between_begin_and_commit() -> None:
    decoder = Decoder()
    seen = []
    for message in [PAIR.relation(), *whole(PAIR.insert(["1", "a"]))]:
        decoder.receive([message])
        seen.append(decoder.in_transaction)
    assert seen == [False, True, True, False]


@pytest.mark.parametrize("binary", [False, True], ids=["generated", "general"])
def test_a_full_identity_has_whole_old_rows_and_merges_what_did_not_change(binary: bool) -> None:
    """Also where the generated decoder expects binary values, and leaves the row to the general one."""
    transaction = one(
        Decoder(binary=binary),
        WHOLE.relation(),
        *whole(
            WHOLE.update(["1", pg.TOAST], old=["1", "large"]),
            WHOLE.update(["1", pg.TOAST], old=["1", None]),
            WHOLE.delete(old=["1", "large"]),
        ),
    )
    assert [(dict(each.old_data), dict(each.new_data)) for each in transaction] == [
        ({"a": 1, "b": "large"}, {"a": 1, "b": "large"}),
        ({"a": 1, "b": None}, {"a": 1, "b": None}),
        ({"a": 1, "b": "large"}, {}),
    ]
    assert {each.primary_key for each in transaction} == {("a", "b")}


def test_a_new_description_of_a_table_holds_for_the_rows_behind_it() -> None:
    wider = pg.Table(PAIR.oid, "shop", "renamed", (("a", TEXT), ("b", TEXT), ("c", INT4)), frozenset({"a"}))
    transaction = one(
        Decoder(),
        PAIR.relation(),
        *whole(PAIR.insert(["1", "x"]), wider.relation(), wider.insert(["1", "x", "2"])),
    )
    assert [(each.table_name, each.new_data) for each in transaction] == [
        ("pair", {"a": 1, "b": "x"}),
        ("renamed", {"a": "1", "b": "x", "c": 2}),
    ]


def test_the_same_table_described_again_as_before_keeps_its_decoders() -> None:
    types = TypeMap()
    decoder = Decoder(types=types)
    messages = [PAIR.relation(), *whole(PAIR.insert(["1", "x"]))]
    decoder.receive(messages)
    before = dict(types.cache)
    decoder.receive(messages)
    assert len(before) == 1
    assert types.cache == before


def test_names_of_columns_and_tables_cannot_become_code() -> None:
    evil = """'}; raise SystemExit #\n"\\{x}"""
    table = pg.Table(1, evil, evil, ((evil, INT4), ("é", TEXT)), frozenset({evil}))
    (event,) = one(Decoder(), table.relation(), *whole(table.insert(["1", "x"])))
    assert (event.schema, event.table_name, event.new_data) == (evil, evil, {evil: 1, "é": "x"})


def test_tables_with_very_many_columns_and_with_none() -> None:
    wide = pg.Table(1, "s", "wide", tuple((f"c{at}", INT4) for at in range(1600)))
    empty = pg.Table(2, "s", "empty", ())
    many, none = one(
        Decoder(),
        wide.relation(),
        empty.relation(),
        *whole(wide.insert([str(at) for at in range(1600)]), empty.insert([])),
    )
    assert many.new_data == {f"c{at}": at for at in range(1600)}
    assert none.new_data == {}


def test_either_kind_of_value_is_read_whichever_is_expected() -> None:
    for binary in (False, True):
        first, second = one(
            Decoder(binary=binary),
            PAIR.relation(),
            *whole(PAIR.insert([b"\0\0\0\5", "text"]), PAIR.insert(["5", b"text"])),
        )
        assert first.new_data == second.new_data == {"a": 5, "b": "text"}


AWKWARD = [
    "",
    "t",
    "tt",
    "n",
    "u",
    "t\1",
    "\1t",
    "é",
    "t" * 116,
    "x" * 116,
    "x" * 127,
    "x" * 128,
    "x" * 255,
    "x" * 256,
    None,
]


@pytest.mark.parametrize("lazy", [False, True])
def test_columns_are_found_whatever_their_text_looks_like(lazy: bool) -> None:
    """A letter t and three zero bytes begin a short column, and nothing else in a row may be taken for that."""
    table = pg.Table(1, "s", "texts", (("a", TEXT), ("b", TEXT), ("c", TEXT)), frozenset({"a"}))
    rows = [list(row) for row in itertools.product(AWKWARD, repeat=3)]
    found = one(Decoder(lazy=lazy), table.relation(), *whole(*map(table.insert, rows)))
    assert [list(event.new_data.values()) for event in found] == rows


def test_a_row_of_short_texts_with_a_wrong_length_is_said() -> None:
    table = pg.Table(1, "s", "texts", (("a", TEXT), ("b", TEXT)), frozenset({"a"}))
    good = table.insert(["one", "three"])
    for at in (37, 45):  # the last bytes of both lengths
        for change in (-1, 1):
            bad = good[:at] + bytes([good[at] + change]) + good[at + 1 :]
            with pytest.raises(ProtocolError):
                Decoder().receive([table.relation(), *whole(bad)])


def test_a_message_outside_of_transactions_is_one_of_its_own() -> None:
    sent = datetime(2026, 5, 6, tzinfo=UTC)
    message = pg.message("p", b"x", position=500, transactional=False, sent=sent)
    transaction = one(Decoder(), message)
    assert (transaction.position, transaction.end_position) == (LSN(499), LSN(500))
    assert (transaction.commit_timestamp, transaction.transaction_id) == (sent, "")
    assert [event.new_data["transactional"] for event in transaction] == [False]


def test_a_transaction_without_changes_and_one_from_another_server() -> None:
    first, second = Decoder().receive(
        [*whole(at=100), pg.begin(8, 200), pg.origin("elsewhere", 50), pg.commit(200, 208)]
    )
    assert (len(first), first.origin, len(second), second.origin) == (0, "", 0, "elsewhere")


# -- lazy rows ------------------------------------------------------------------------------------


def test_lazy_events_are_to_a_reader_what_the_others_are() -> None:
    messages = [
        ORDERS.relation(),
        WHOLE.relation(),
        *whole(
            ORDERS.insert(["1", "9.90", None, "näher", "t"]),
            WHOLE.update(["1", pg.TOAST], old=["1", "large"]),
            ORDERS.delete(key=["2", None, None, None, None]),
        ),
    ]
    eager, lazy = one(Decoder(), *messages), one(Decoder(lazy=True), *messages)
    for expected, event in zip(eager, lazy, strict=True):
        assert type(event) is ChangeEvent
        assert event == expected
        assert expected == event
        assert event.key == expected.key
        assert dict(event.new_data) == expected.new_data
        assert {**event.old_data} == expected.old_data
        assert list(event.new_data.items()) == list(expected.new_data.items())
        assert bool(event.new_data) == bool(expected.new_data)
        assert repr(event.old_data) == repr(expected.old_data) or not expected.old_data
        assert event._repr_html_() == expected._repr_html_()
    row = next(iter(lazy)).new_data
    assert ("note" in row, "x" in row, row.get("x"), len(row)) == (True, False, None, 5)
    assert pickle.loads(pickle.dumps(row)) == row  # noqa: S301
    with pytest.raises(TypeError):
        hash(row)
    with pytest.raises(KeyError):
        row["x"]


def test_a_broken_lazy_row_raises_when_it_is_looked_at() -> None:
    (event,) = one(Decoder(lazy=True), PAIR.relation(), *whole(PAIR.insert(["no number", "x"])))
    for _ in range(2):
        with pytest.raises(ProtocolError, match="cannot be read"):
            event.new_data["a"]


# -- transactions in progress ---------------------------------------------------------------------


def streamed(xid: int, *messages: bytes, first: bool = True) -> list[bytes]:
    return [pg.stream_start(xid, first=first), *messages, pg.stream_stop()]


INTERLEAVED = [
    *streamed(10, PAIR.relation(10), PAIR.insert(["1", "a"], 10), PAIR.insert(["2", "gone"], 11)),
    *streamed(20, PAIR.relation(20), pg.origin("o"), PAIR.insert(["100", "b"], 20)),
    pg.stream_abort(10, 11),
    *streamed(30, PAIR.relation(30), PAIR.insert(["999", "never"], 30)),
    *streamed(10, PAIR.insert(["3", "c"], 12), pg.message("m", b"x", position=1, xid=10), first=False),
    pg.stream_abort(30, 30),
    pg.stream_commit(20, 400, 408, TIME),
    *streamed(10, pg.truncate([PAIR.oid], xid=10), first=False),
    pg.stream_commit(10, 500, 508, TIME),
    *whole(PAIR.insert(["7", "z"]), at=600),
]


def test_transactions_in_progress_alternate_and_take_parts_back() -> None:
    second, first, third = Decoder(protocol=2).receive(INTERLEAVED)
    assert [(each.operation, dict(each.new_data)) for each in first] == [
        (Operation.INSERT, {"a": 1, "b": "a"}),
        (Operation.INSERT, {"a": 3, "b": "c"}),
        (Operation.MESSAGE, {"prefix": "m", "content": b"x", "transactional": True}),
        (Operation.TRUNCATE, {}),
    ]
    assert [each.ordinal for each in first] == [0, 1, 2, 3]
    assert {(each.position, each.transaction_id, each.commit_timestamp) for each in first} == {(LSN(500), "10", TIME)}
    assert (first.origin, second.origin, second.end_position) == ("", "o", LSN(408))
    assert [dict(each.new_data) for each in second] == [{"a": 100, "b": "b"}]
    # What a streamed transaction described is known from its commit on.
    assert [dict(each.new_data) for each in third] == [{"a": 7, "b": "z"}]


def test_protocol_4_tells_more_of_an_abort() -> None:
    messages = [*streamed(10, PAIR.relation(10), PAIR.insert(["1", "a"], 11)), pg.stream_abort(10, 11, position=90)]
    transaction = one(Decoder(protocol=4), *messages, pg.stream_commit(10, 500, 508))
    assert list(transaction) == []
    assert len(transaction) == 0


def test_in_transaction_while_one_is_in_progress() -> None:
    decoder = Decoder(protocol=2)
    seen = []
    for message in [*streamed(10, PAIR.relation(10)), pg.stream_abort(10, 10)]:
        decoder.receive([message])
        seen.append(decoder.in_transaction)
    assert seen == [True, True, True, False]


# -- large transactions ---------------------------------------------------------------------------


def in_portions(decoder: Decoder, messages: list[bytes], size: int = 7) -> list[Transaction]:
    return [each for at in range(0, len(messages), size) for each in decoder.receive(messages[at : at + size])]


def descriptors(directory: Path) -> int:
    """Open files in a directory; they have no name there."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        # The one that lists the directory is gone by now.
        with contextlib.suppress(FileNotFoundError):
            count += link.readlink().is_relative_to(directory)
    return count


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    """One that keeps next to nothing in memory."""
    spill = Spill(tmp_path / "spill", memory=100, eager=1000)
    yield spill
    spill.close()
    gc.collect()
    assert descriptors(tmp_path) == 0
    assert list((tmp_path / "spill").iterdir()) == []


def large(streaming: bool) -> list[bytes]:
    """A transaction that changes its table in the middle, and one behind it that relies on that."""
    wider = pg.Table(PAIR.oid, "shop", "pair", (("a", INT4), ("b", TEXT), ("c", INT8)), frozenset({"a"}))
    xid = 10 if streaming else None
    rows = [
        PAIR.relation(xid),
        *(PAIR.insert([str(at), "x" * 50], xid) for at in range(40)),
        pg.truncate([PAIR.oid], xid=xid),
        pg.message("m", b"x", position=9, xid=xid),
        wider.relation(xid),
        *(wider.insert([str(at), None, "7"], xid) for at in range(40)),
    ]
    after = whole(wider.insert(["1", "y", "8"]), at=900)
    if streaming:
        blocks = [each for at in range(0, len(rows), 10) for each in streamed(10, *rows[at : at + 10], first=not at)]
        gone = [*streamed(10, *[PAIR.insert(["5", "gone"], 11)] * 20, first=False), pg.stream_abort(10, 11)]
        return [*blocks[:12], *gone, *blocks[12:], pg.stream_commit(10, 500, 508, TIME), *after]
    return [pg.begin(10, 500, TIME), *rows, pg.commit(500, 508, TIME), *after]


@pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
def test_a_large_transaction_is_read_from_disk_as_often_as_one_likes(
    spill: Spill, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, after = Decoder(protocol=2).receive(large(streaming))
    # Smaller than a message: each is read in several goes.
    monkeypatch.setattr("streamlab.cdc.spill._CHUNK", 20)
    assert spill.directory is not None
    decoder = Decoder(protocol=2, spill=spill)
    transaction, behind = in_portions(decoder, large(streaming))
    assert descriptors(spill.directory) == 1
    assert len(transaction) == len(expected) == 82
    assert list(transaction) == list(expected)
    assert list(transaction) == list(expected)
    first, second = iter(transaction), iter(transaction)
    assert [next(first), next(second), next(first)] == [*list(expected)[:1] * 2, list(expected)[1]]
    assert list(behind) == list(after)
    assert (transaction.position, transaction.commit_timestamp) == (LSN(500), TIME)
    for each in (behind, transaction, transaction):
        each.close()
    assert list(behind) == list(after)
    assert descriptors(spill.directory) == 0
    with pytest.raises(ChangeStreamError, match="given back when the reader went on"):
        list(transaction)
    with pytest.raises(ChangeStreamError, match="given back when the reader went on"):
        list(first)


def test_a_large_transaction_that_nobody_keeps_is_gone_from_disk(spill: Spill) -> None:
    assert spill.directory is not None
    transactions = in_portions(Decoder(protocol=2, spill=spill), large(True))
    assert descriptors(spill.directory) == 1
    del transactions
    gc.collect()
    assert descriptors(spill.directory) == 0


@pytest.mark.parametrize("end", ["abort", "reset", "close"])
def test_what_does_not_end_in_a_commit_is_gone_from_disk(spill: Spill, end: str) -> None:
    decoder = Decoder(protocol=2, spill=spill)
    in_portions(decoder, [*streamed(10, PAIR.relation(10), *(PAIR.insert(["1", "x"], 10) for _ in range(20)))])
    assert spill.directory is not None
    assert descriptors(spill.directory) == 1
    if end == "abort":
        decoder.receive([pg.stream_abort(10, 10)])
    elif end == "reset":
        decoder.reset()
        assert not decoder.in_transaction
    else:
        decoder.close()
    assert descriptors(spill.directory) == 0


def test_a_broken_row_of_a_large_transaction_raises_where_it_is_read(spill: Spill) -> None:
    spill.eager = 10
    decoder = Decoder(protocol=2, spill=spill)
    (transaction,) = in_portions(
        decoder, [PAIR.relation(), *whole(*(PAIR.insert([value, "x"]) for value in [*"12345678", "no number"]))], 4
    )
    events = iter(transaction)
    assert [next(events).new_data["a"] for _ in range(8)] == list(range(1, 9))
    with pytest.raises(ProtocolError, match="cannot be read"):
        next(events)


# -- two-phase commit -----------------------------------------------------------------------------


def test_prepared_transactions_wait_for_their_second_phase() -> None:
    decoder = Decoder(protocol=3)
    wider = pg.Table(PAIR.oid, "shop", "pair", (("a", INT4), ("b", TEXT), ("c", INT8)), frozenset({"a"}))
    assert (
        decoder.receive(
            [
                PAIR.relation(),
                pg.begin_prepare(10, "one", 100, 108),
                pg.origin("o"),
                PAIR.insert(["1", "a"]),
                pg.prepare(10, "one", 100, 108),
                *streamed(20, PAIR.relation(20), PAIR.insert(["2", "b"], 20), PAIR.insert(["3", "c"], 21)),
                pg.stream_abort(20, 21),
                pg.stream_prepare(20, "two", 200, 208),
            ]
        )
        == []
    )
    assert (decoder.in_transaction, decoder.hold) == (True, LSN(100))
    between = one(decoder, wider.relation(), *whole(wider.insert(["9", "z", "1"]), at=300))
    assert len(between) == 1
    second = one(decoder, pg.commit_prepared(20, "two", 400, 408, TIME))
    assert (second.gid, second.position, second.end_position, second.commit_timestamp) == (
        "two",
        LSN(400),
        LSN(408),
        TIME,
    )
    assert [(dict(each.new_data), each.position) for each in second] == [({"a": 2, "b": "b"}, LSN(400))]
    # The table has been described anew since then; what was described before must not come back.
    assert [dict(each.new_data) for each in one(decoder, *whole(wider.insert(["5", "y", "2"]), at=410))] == [
        {"a": 5, "b": "y", "c": 2}
    ]
    assert decoder.hold == LSN(100)
    first = one(decoder, pg.commit_prepared(10, "one", 500, 508))
    assert (first.gid, first.origin, [dict(each.new_data) for each in first]) == ("one", "o", [{"a": 1, "b": "a"}])
    assert (decoder.in_transaction, decoder.hold) == (False, None)
    assert decoder.receive([pg.rollback_prepared(30, "never seen", 1, 2)]) == []


# -- what the protocol does not allow --------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [PAIR.relation(), PAIR.insert(["1", "x"])],
        [pg.commit(100, 108)],
        [pg.begin(7, 100), pg.begin(8, 200)],
        [pg.begin(7, 100), pg.commit(101, 108)],
        [pg.begin(7, 100), PAIR.insert(["1", "x"])],
        [pg.begin(7, 100), pg.truncate([1])],
        [pg.begin(7, 100), pg.stream_start(8, first=True)],
        [pg.truncate([1])],
        [pg.message("m", b"", position=1)],
        [pg.origin("o")],
        [pg.stream_start(7, first=False)],
        [pg.stream_start(7, first=True), pg.stream_start(8, first=True)],
        [pg.stream_start(7, first=True), pg.begin(8, 100)],
        [pg.stream_start(7, first=True), pg.commit(100, 108)],
        [pg.stream_start(7, first=True), pg.stream_commit(7, 100, 108)],
        [pg.stream_stop()],
        [pg.stream_commit(7, 100, 108)],
        [pg.begin_prepare(7, "g", 100, 108), pg.commit(100, 108)],
        [pg.begin_prepare(7, "g", 100, 108), pg.prepare(7, "h", 100, 108)],
        [pg.begin(7, 100), pg.prepare(7, "g", 100, 108)],
        [pg.stream_prepare(7, "g", 100, 108)],
        [pg.commit_prepared(7, "g", 100, 108)],
        [
            pg.begin_prepare(7, "g", 100, 108),
            pg.prepare(7, "g", 100, 108),
            pg.begin_prepare(8, "g", 200, 208),
            pg.prepare(8, "g", 200, 208),
        ],
        [pg.packed(b"?")],
        [pg.packed(b"")],
        [b""],
        [b"k" + bytes(17)],
        [b"r" + pg.begin(7, 100)[1:]],
        [pg.packed(b"B" + bytes(8) + b"\x7f" + bytes(7) + bytes(4))],
    ],
)
def test_what_the_protocol_does_not_allow_is_said(messages: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        Decoder(protocol=4).receive(messages)


@pytest.mark.parametrize(
    "row",
    [
        ["x", "y"],
        ["1"],
        ["1", "2", "3"],
        [b"\0\0\5", "x"],
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_row_that_is_none_of_its_table_is_said(row: list[pg.Value], binary: bool) -> None:
    with pytest.raises(ProtocolError):
        Decoder(binary=binary).receive([PAIR.relation(), *whole(PAIR.insert(row))])


@pytest.mark.parametrize("protocol", [1, 2])
def test_messages_of_a_later_protocol_are_refused(protocol: int) -> None:
    later = [
        [pg.stream_start(7, first=True)],
        [pg.begin_prepare(7, "g", 100, 108)],
    ]
    for messages in later[protocol - 1 :]:
        with pytest.raises(ProtocolError, match="not of this protocol version"):
            Decoder(protocol=protocol).receive(messages)
    with pytest.raises(ProtocolError, match="no protocol version 5"):
        Decoder(protocol=5)


def test_a_decoder_is_of_use_again_after_a_reset() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        decoder.receive([PAIR.relation(), pg.begin(7, 100), pg.begin(8, 100)])
    decoder.reset()
    assert not decoder.in_transaction
    assert len(one(decoder, PAIR.relation(), *whole(PAIR.insert(["1", "x"])))) == 1


def test_times_before_and_after_the_epoch() -> None:
    for time in (datetime(1999, 1, 1, tzinfo=UTC), TIME, TIME + timedelta(microseconds=1)):
        assert one(Decoder(), *whole(time=time)).commit_timestamp == time
