"""The decoder against an encoder: whatever happened comes out as it went in; whatever is broken is a ProtocolError."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc import encoder as pg
from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.event import NOTHING
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.spill import Spill
from streamlab.cdc.values import TypeMap
from streamlab.errors import ProtocolError

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
MOMENTS = st.datetimes(timezones=st.just(UTC))


@dataclass(frozen=True)
class Kind:
    """A type: its OID, its values, and how the server would write one."""

    oid: int
    values: st.SearchStrategy[Any]
    text: Callable[[Any], str]
    binary: Callable[[Any], bytes]


def array(values: list[Any]) -> str:
    return "{" + ",".join("NULL" if each is None else quoted(each) for each in values) + "}"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def binary_array(values: list[Any]) -> bytes:
    head = struct.pack("!iiI", bool(values), None in values, 25) + (
        struct.pack("!ii", len(values), 1) if values else b""
    )
    return head + b"".join(
        struct.pack("!i", -1) if each is None else struct.pack("!i", len(each.encode())) + each.encode()
        for each in values
    )


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
DECIMALS = st.decimals(allow_nan=False, places=4, min_value=-(10**30), max_value=10**30) | st.sampled_from(
    [Decimal("0"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("1E+3"), Decimal("0.00000000000000001")]
)

KINDS = [
    Kind(16, st.booleans(), lambda value: "t" if value else "f", lambda value: bytes([value])),
    Kind(21, st.integers(-(2**15), 2**15 - 1), str, lambda value: struct.pack("!h", value)),
    Kind(23, st.integers(-(2**31), 2**31 - 1), str, lambda value: struct.pack("!i", value)),
    Kind(20, st.integers(-(2**63), 2**63 - 1), str, lambda value: struct.pack("!q", value)),
    Kind(701, st.floats(allow_nan=False), repr, lambda value: struct.pack("!d", value)),
    Kind(1700, DECIMALS, lambda value: f"{value:f}", pg.numeric),
    Kind(25, TEXT, str, lambda value: value.encode()),
    Kind(17, st.binary(max_size=20), lambda value: "\\x" + value.hex(), bytes),
    Kind(2950, st.uuids(), str, lambda value: value.bytes),
    Kind(
        1184,
        MOMENTS,
        lambda value: value.isoformat(" ").replace("+00:00", "+00"),
        lambda value: struct.pack("!q", pg.micros(value)),
    ),
    Kind(
        1114,
        st.datetimes(),
        lambda value: value.isoformat(" "),
        lambda value: struct.pack("!q", pg.micros(value.replace(tzinfo=UTC))),
    ),
    Kind(1009, st.lists(TEXT | st.none(), max_size=4), array, binary_array),
]


@dataclass
class Described:
    """A table of the encoder, and the kinds of its columns."""

    table: pg.Table
    kinds: list[Kind]


@st.composite
def tables(draw: st.DrawFn, oid: int) -> Described:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    names = draw(st.lists(NAMES, min_size=len(kinds), max_size=len(kinds), unique=True))
    identity = draw(st.sampled_from("df"))
    key = frozenset(names if identity == "f" else draw(st.sets(st.sampled_from(names), min_size=1)))
    columns = tuple((name, kind.oid) for name, kind in zip(names, kinds, strict=True))
    return Described(pg.Table(oid, draw(NAMES), draw(NAMES), columns, key, identity), kinds)


@st.composite
def rows(draw: st.DrawFn, described: Described, *, unchanged: bool = False) -> tuple[list[pg.Value], list[Any]]:
    """The cells of a row as they are sent, and their values."""
    cells: list[pg.Value] = []
    values: list[Any] = []
    for kind in described.kinds:
        form = draw(st.sampled_from("nttbb" + "u" * unchanged))
        value = None if form == "n" else UNCHANGED if form == "u" else draw(kind.values)
        cells.append(
            None
            if form == "n"
            else pg.TOAST
            if form == "u"
            else kind.text(value)
            if form == "t"
            else kind.binary(value)
        )
        values.append(value)
    return cells, values


Change = tuple[Operation, Described, dict[str, Any], dict[str, Any], Callable[[int | None], bytes]]


@st.composite
def changes(draw: st.DrawFn, described: Described) -> Change:
    table = described.table
    names = [name for name, _ in table.columns]
    operation = draw(st.sampled_from([Operation.INSERT, Operation.UPDATE, Operation.DELETE]))
    cells, values = draw(rows(described, unchanged=operation is Operation.UPDATE))
    new = dict(zip(names, values, strict=True))
    if operation is Operation.INSERT:
        return operation, described, {}, new, lambda xid: table.insert(cells, xid)
    old_cells, old_values = draw(rows(described))
    old = dict(zip(names, old_values, strict=True))
    whole = table.identity == "f"
    sent: dict[str, Any] = {"old": old_cells} if whole else {}
    if not whole:
        old = {name: value for name, value in old.items() if name in table.key}
        sent = {"key": [cell if name in table.key else None for name, cell in zip(names, old_cells, strict=True)]}
    if operation is Operation.DELETE:
        return operation, described, old, {}, lambda xid: table.delete(**sent, xid=xid)
    if not whole and draw(st.booleans()):
        old, sent = {}, {}
    new = {name: old.get(name, value) if value is UNCHANGED and whole else value for name, value in new.items()}
    return operation, described, old, new, lambda xid: table.update(cells, **sent, xid=xid)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Described], list[list[Change]]]:
    described = [draw(tables(oid)) for oid in range(1, draw(st.integers(1, 3)) + 1)]
    one = st.sampled_from(described).flatmap(changes)
    return described, draw(st.lists(st.lists(one, max_size=4), min_size=1, max_size=3))


def expected(number: int, transaction: list[Change]) -> list[ChangeEvent]:
    return [
        ChangeEvent(
            operation,
            described.table.schema,
            described.table.name,
            old,
            new,
            pg.EPOCH + timedelta(seconds=number),
            str(number + 1),
            LSN(100 * (number + 1)),
            ordinal,
            tuple(name for name, _ in described.table.columns if name in described.table.key),
        )
        for ordinal, (operation, described, old, new, _) in enumerate(transaction)
    ]


def whole(described: list[Described], transactions: list[list[Change]]) -> list[bytes]:
    messages = [each.table.relation() for each in described]
    for number, transaction in enumerate(transactions):
        time = pg.EPOCH + timedelta(seconds=number)
        messages.append(pg.begin(number + 1, 100 * (number + 1), time))
        messages += [encode(None) for *_, encode in transaction]
        messages.append(pg.commit(100 * (number + 1), 100 * (number + 1) + 8, time))
    return messages


def streamed(described: list[Described], transactions: list[list[Change]]) -> list[bytes]:
    """All at once: the first change of each, the second of each, and so on; then the commits."""
    messages: list[bytes] = []
    for turn in range(max(map(len, transactions), default=0) + 1):
        for number, transaction in enumerate(transactions):
            xid = number + 1
            block = [] if turn else [each.table.relation(xid) for each in described]
            block += [encode(xid) for *_, encode in transaction[turn : turn + 1]]
            messages += [pg.stream_start(xid, first=not turn), *block, pg.stream_stop()]
    for number in range(len(transactions)):
        at = 100 * (number + 1)
        messages.append(pg.stream_commit(number + 1, at, at + 8, pg.EPOCH + timedelta(seconds=number)))
    return messages


def in_portions(decoder: Decoder, messages: list[bytes], size: int) -> list[Transaction]:
    return [each for at in range(0, len(messages), size) for each in decoder.receive(messages[at : at + size])]


@given(histories(), st.booleans(), st.booleans(), st.integers(1, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_happened_comes_out_as_it_went_in(
    history: tuple[list[Described], list[list[Change]]], binary: bool, lazy: bool, size: int
) -> None:
    wanted = [expected(number, transaction) for number, transaction in enumerate(history[1])]
    for messages in (whole(*history), streamed(*history)):
        found = in_portions(Decoder(protocol=2, binary=binary, lazy=lazy), messages, size)
        assert [list(each) for each in found] == wanted
        assert [len(each) for each in found] == [len(each) for each in wanted]
        for transaction, events in zip(found, wanted, strict=True):
            for event, other in zip(transaction, events, strict=True):
                # Equality does not tell 1 from True or 1.0.
                for mine, theirs in ((event.new_data, other.new_data), (event.old_data, other.old_data)):
                    assert [type(value) for value in mine.values()] == [type(value) for value in theirs.values()]


@pytest.fixture(scope="module")
def spill(tmp_path_factory: pytest.TempPathFactory) -> Spill:
    return Spill(tmp_path_factory.mktemp("spill"), memory=50, eager=50)


@given(histories(), st.integers(1, 9))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_through_the_disk_it_comes_out_the_same(
    spill: Spill, history: tuple[list[Described], list[list[Change]]], size: int
) -> None:
    wanted = [expected(number, transaction) for number, transaction in enumerate(history[1])]
    for messages in (whole(*history), streamed(*history)):
        found = in_portions(Decoder(protocol=2, spill=spill), messages, size)
        assert [list(each) for each in found] == wanted


# -- broken bytes ---------------------------------------------------------------------------------

FULL = pg.Table(
    7, "s", "t", tuple((f"c{at}", kind.oid) for at, kind in enumerate(KINDS)), frozenset({"c1"}), "d"
)  # fmt: skip
SAMPLES: list[Any] = [
    True, -3, 70000, 2**40, 1.5, Decimal("12345.6789"), "text", b"\0\xff", UUID(int=5),
    datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2026, 1, 2), ["a", None, 'b"'],
]  # fmt: skip
TEXTS: list[pg.Value] = [kind.text(value) for kind, value in zip(KINDS, SAMPLES, strict=True)]
BINARIES: list[pg.Value] = [kind.binary(value) for kind, value in zip(KINDS, SAMPLES, strict=True)]
GOOD = [
    FULL.relation(), pg.type_(99, "s", "mood"),
    pg.begin(1, 100), pg.origin("o"), FULL.insert(TEXTS), FULL.insert(BINARIES), FULL.update(TEXTS, key=BINARIES),
    FULL.update(BINARIES, old=TEXTS), FULL.delete(key=TEXTS), FULL.delete(old=BINARIES), pg.truncate([7, 7]),
    pg.message("p", b"content", position=50), pg.commit(100, 108),
    pg.message("p", b"content", position=50, transactional=False),
    pg.stream_start(2, first=True), FULL.relation(2), FULL.insert(TEXTS, 2), FULL.insert(BINARIES, 3),
    pg.truncate([7], xid=2), pg.message("p", b"", position=9, xid=2), pg.stream_stop(), pg.stream_abort(2, 3),
    pg.stream_commit(2, 200, 208),
    pg.begin_prepare(4, "g", 300, 308), FULL.insert(TEXTS), pg.prepare(4, "g", 300, 308),
    pg.commit_prepared(4, "g", 400, 408), pg.rollback_prepared(5, "h", 1, 2),
    pg.stream_start(6, first=True), FULL.relation(6), FULL.insert(TEXTS, 6), pg.stream_stop(),
    pg.stream_prepare(6, "i", 500, 508), pg.commit_prepared(6, "i", 600, 608),
]  # fmt: skip


PARTS = [(2, 13), (13, 14), (14, 23), (23, 27), (27, 28), (28, 34)]
"""Which of them belong together: transactions, and messages of their own."""


def broken(at: int, message: bytes) -> list[bytes]:
    """The part with one message replaced, and the description of the table."""
    start, end = next((part for part in PARTS if part[0] <= at < part[1]), (0, 2))
    return [*GOOD[:2][:start], *GOOD[start:at], message, *GOOD[at + 1 : end]]


TYPES = TypeMap()
"""One for all: decoders are compiled once."""

TAKEN_BACK = 17
"""A row of a subtransaction that is aborted: nobody looks at it."""


def decode(messages: list[bytes], **options: bool) -> list[ChangeEvent]:
    """All of it, rows included; a broken one may only raise ProtocolError."""
    decoder = Decoder(protocol=4, types=TYPES, **options)  # type: ignore[arg-type]
    events = [event for transaction in decoder.receive(messages) for event in transaction]
    for event in events:
        assert isinstance(event, ChangeEvent)
        dict(event.new_data)
        dict(event.old_data)
    return events


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_good_bytes_are_good(binary: bool, lazy: bool) -> None:
    events = decode(GOOD, binary=binary, lazy=lazy)
    assert len(events) == 15
    assert len([event for start, _ in PARTS for event in decode(broken(start, GOOD[start]), lazy=lazy)]) == 15
    row = {f"c{at}": value for at, value in enumerate(SAMPLES)}
    assert events[0].new_data == events[1].new_data == events[3].old_data == row
    assert events[5].new_data == NOTHING


@pytest.mark.parametrize("binary", [False, True])
def test_every_message_that_is_cut_anywhere_is_a_protocol_error(binary: bool) -> None:
    for at, message in enumerate(GOOD):
        if at == TAKEN_BACK:
            continue
        for cut in range(len(message)):
            with pytest.raises(ProtocolError):
                decode(broken(at, message[:cut]), binary=binary)


@pytest.mark.parametrize("binary", [False, True])
def test_every_message_with_a_byte_behind_it_is_a_protocol_error(binary: bool) -> None:
    for at, message in enumerate(GOOD):
        if at == TAKEN_BACK:
            continue
        with pytest.raises(ProtocolError):
            decode(broken(at, message + b"x"), binary=binary)


@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3
    ),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_changed_bytes_give_a_protocol_error_or_nothing_worse(
    changed: list[tuple[int, int, int]], binary: bool, lazy: bool
) -> None:
    messages = list(GOOD)
    for at, place, value in changed:
        message = bytearray(messages[at])
        message[25 + place % (len(message) - 25)] = value
        messages[at] = bytes(message)
    with contextlib.suppress(ProtocolError):
        decode(messages, binary=binary, lazy=lazy)


@given(st.lists(st.integers(0, len(GOOD) - 1), max_size=20), st.booleans())
@settings(max_examples=80, deadline=None)
def test_messages_in_any_order_give_a_protocol_error_or_nothing_worse(order: list[int], binary: bool) -> None:
    with contextlib.suppress(ProtocolError):
        decode([GOOD[at] for at in order], binary=binary)


@given(st.lists(st.binary(max_size=60).map(pg.packed) | st.binary(max_size=60), max_size=5), st.booleans())
@settings(max_examples=80, deadline=None)
def test_noise_gives_a_protocol_error_or_nothing_worse(noise: list[bytes], binary: bool) -> None:
    with contextlib.suppress(ProtocolError):
        decode([*GOOD[:3], *noise], binary=binary)


@pytest.mark.parametrize("transactional", [False, True])
def test_no_logical_message_ends_at_nothing(transactional: bool) -> None:
    """Its own position would be one less than nothing."""
    (at,) = [n for n, message in enumerate(GOOD) if message[25:26] == b"M" and bool(message[26] & 1) is transactional][
        :1
    ]
    message = bytearray(GOOD[at])
    message[27:35] = bytes(8)
    with pytest.raises(ProtocolError, match="0/0"):
        decode(broken(at, bytes(message)))
