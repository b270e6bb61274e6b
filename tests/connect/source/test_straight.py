"""Rows straight from PostgreSQL's text to JSON: the same records, byte for byte, as by way of values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cdc import encoder as pg
from cdc.server import Server, server
from cdc.test_pgoutput_properties import KINDS, NAMES
from cdc.test_values_server import VALUES, kinds
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg import sql
from psycopg.postgres import types as builtin

from streamlab.cdc import Operation, Transaction
from streamlab.cdc.lazy import LazyRow
from streamlab.cdc.pgoutput import Decoder
from streamlab.connect.source.records import Records, topics_below
from streamlab.connect.source.straight import straight
from streamlab.errors import ProtocolError

STRAIGHT = {
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "text", "varchar", "bpchar", "name", "uuid",
    "date", "timestamp", "timestamptz", "bit", "varbit", "xml", "pg_lsn", "xid", "xid8", "macaddr", "money",
}  # fmt: skip
"""Types whose rows have to go straight, if they hold nothing awkward."""
KEPT = [kind for kind in KINDS if kind.oid != 17]


def records(transactions: list[Transaction], **options: Any) -> list[Any]:
    made = Records("c", topics_below("p"), **options)
    return [record for transaction in transactions for record in made.of(transaction)]


def rows(transaction: Transaction) -> list[LazyRow]:
    return [event.new_data for event in transaction if isinstance(event.new_data, LazyRow)]


def directly(row: LazyRow, key: tuple[str, ...] = ()) -> Any:
    received = row.received()
    assert received is not None
    message, at, form = received
    encode = straight(form, key)
    return encode and encode(message, at)


@st.composite
def changes(draw: st.DrawFn) -> tuple[pg.Table, list[list[pg.Value]]]:
    chosen = draw(st.lists(st.sampled_from(KEPT), min_size=1, max_size=8))
    names = draw(st.lists(NAMES, min_size=len(chosen), max_size=len(chosen), unique=True))
    key = draw(st.sets(st.sampled_from(names)))
    values = [st.none() | kind.values.map(kind.text) for kind in chosen]
    found = draw(st.lists(st.tuples(*values).map(list), min_size=1, max_size=5))
    if draw(st.booleans()):
        found[0][draw(st.integers(0, len(chosen) - 1))] = pg.TOAST
    columns = tuple((name, kind.oid) for name, kind in zip(names, chosen, strict=True))
    return pg.Table(7, "s", "t", columns, key=frozenset(key)), found


def log(table: pg.Table, found: list[list[pg.Value]]) -> list[bytes]:
    inserts = [table.insert(row) for row in found if pg.TOAST not in row]
    return [pg.begin(5, 100), table.relation(), *inserts, *map(table.update, found), pg.commit(100, 200)]


def outcome(messages: list[bytes], *, lazy: bool) -> Any:
    try:
        return records(Decoder(lazy=lazy).receive(messages))
    except Exception as error:  # noqa: BLE001 - of either way it is looked at
        return type(error), str(error)


@given(changes())
def test_records_are_the_same(drawn: tuple[pg.Table, list[list[pg.Value]]]) -> None:
    messages = log(*drawn)
    assert outcome(messages, lazy=True) == outcome(messages, lazy=False)


@given(changes(), st.data())
def test_what_is_cut_short_is_told(drawn: tuple[pg.Table, list[list[pg.Value]]], data: st.DataObject) -> None:
    messages = log(*drawn)
    assume(all(pg.TOAST not in row for row in drawn[1]))  # else it may be that which is told
    which = data.draw(st.integers(2, len(messages) - 2))
    messages[which] = messages[which][: data.draw(st.integers(33, len(messages[which]) - 1))]
    assert outcome(messages, lazy=True)[0] is ProtocolError


TABLE = pg.Table(7, "s", "t", (("id", 23), ('"n"', 25), ("at", 1184)), key=frozenset({"id"}))


@pytest.mark.parametrize(
    "text", ["", "plain", 'a"b', "a\\b", "\x01", "line\n", "\x7f", "ü", "€" * 100, "x" * 300, "unchanged", "cat", "%"]
)
@pytest.mark.parametrize(
    "at", ["2026-11-30 01:02:03.123456+00", "2026-11-30 01:02:03.1+00", "0044-03-15 01:02:03+00 BC"]
)
def test_awkward_texts_go_straight_too(text: str, at: str) -> None:
    messages = log(TABLE, [["1", text, at], ["-2", None, at]])
    (transaction,) = Decoder(lazy=True).receive(messages)
    assert all(directly(row) is not None for row in rows(transaction))
    assert records([transaction]) == records(Decoder().receive(messages))


def test_a_text_that_is_no_unicode_is_written_as_every_other() -> None:
    messages = log(TABLE, [["1", "\udcff", "infinity"]])
    (transaction,) = Decoder(lazy=True).receive(messages)
    assert [directly(row) for row in rows(transaction)] == [None, None]
    assert records([transaction]) == records(Decoder().receive(messages))


def test_a_value_that_is_none_of_its_type_is_refused_as_every_other() -> None:
    for values in (["x", "", "infinity"], ["1", "", "2026"]):
        messages = log(TABLE, [values])
        assert outcome(messages, lazy=True) == outcome(messages, lazy=False)


def test_a_row_that_somebody_looked_at_has_the_same_record() -> None:
    messages = log(TABLE, [["1", "x", "infinity"]])
    (transaction,) = Decoder(lazy=True).receive(messages)
    assert [row["id"] for row in rows(transaction)] == [1, 1]
    assert records([transaction]) == records(Decoder().receive(messages))


def test_binary_values_are_decoded() -> None:
    table = pg.Table(7, "s", "t", (("id", 23),), key=frozenset({"id"}))
    messages = log(table, [[b"\0\0\0\7"]])
    (transaction,) = Decoder(lazy=True, binary=True).receive(messages)
    assert directly(rows(transaction)[0]) is None
    assert records([transaction])[0][2] == b'{"id":7}'


def test_a_table_is_met_again_with_another_column_and_another_key() -> None:
    after = pg.Table(7, "s", "t", (("id", 23), ("line", 23)), key=frozenset({"id", "line"}))
    before = pg.Table(7, "s", "t", (("id", 23),), key=frozenset({"id"}))
    messages = [pg.begin(5, 100), before.relation(), before.insert(["1"]), after.relation(), after.insert(["1", "2"])]
    messages += [before.relation(), before.update(["3"]), pg.commit(100, 200)]
    found = records(Decoder(lazy=True).receive(messages))
    assert [key for _, _, key, _, _ in found] == [b'{"id":1}', b'{"id":1,"line":2}', b'{"id":3}']
    assert found == records(Decoder().receive(messages))


# -- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(stack: object) -> Iterator[Server]:
    yield from server("test_straight")


@pytest.mark.integration
def test_every_type_of_postgresql_has_the_same_records(database: Server) -> None:
    """Each type in a table of its own, and those that go straight in one, with changes of every kind."""
    known = kinds(database)
    plain = [kind for kind in known if kind in STRAIGHT]
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(f"c {kind}"), sql.SQL(kind)) for kind in plain
    )  # fmt: skip
    database.execute(sql.SQL("CREATE TABLE together (id int PRIMARY KEY, {})").format(columns))
    for kind in known:
        name = sql.Identifier(f"of {kind}")
        database.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, v {})").format(name, sql.SQL(kind)))
        for at, value in enumerate([*VALUES[kind], None]):
            database.execute(
                sql.SQL("INSERT INTO {} VALUES ({}, {}::{})").format(name, at, value, sql.SQL(kind))
            )  # fmt: skip
            if kind in plain:
                database.execute(
                    sql.SQL("INSERT INTO together (id, {}) VALUES ({}, {}::{})").format(
                        sql.Identifier(f"c {kind}"), plain.index(kind) * 100 + at, value, sql.SQL(kind)
                    )
                )
        for statement in ("UPDATE {} SET v = v", "UPDATE {} SET id = id + 1000", "DELETE FROM {}"):
            database.execute(sql.SQL(statement).format(name))
    lazy, decoded = database.decode(lazy=True), database.decode()
    straightly = {
        event.table_name
        for transaction in lazy
        for event in transaction
        if event.operation is Operation.INSERT and isinstance(event.new_data, LazyRow) and directly(event.new_data)
    }
    assert straightly >= {f"of {kind}" for kind in plain} | {"together"}
    for headers in (True, False):
        assert records(lazy, headers=headers) == records(decoded, headers=headers)


def test_types_are_those_of_postgresql() -> None:
    assert {info.name for info in builtin} >= STRAIGHT
