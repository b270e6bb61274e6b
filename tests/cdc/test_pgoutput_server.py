"""The decoder on what a real server sends: identities, TOAST, definitions that change, transactions in progress."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.range import Range

from cdc.server import Server, server
from streamlab.cdc import UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.changes import SpooledChanges
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.spill import Spill
from streamlab.cdc.values import TypeMap
from streamlab.errors import ProtocolError

pytestmark = pytest.mark.integration

IMMEDIATE = "SET debug_logical_replication_streaming = immediate"
"""Streams every change at once, as if it did not fit into logical_decoding_work_mem."""


@pytest.fixture
def database(stack: object) -> Iterator[Server]:
    yield from server("test_pgoutput")


@pytest.fixture
def prepared(stack: object) -> Iterator[Server]:
    yield from server("test_pgoutput", two_phase=True)


def events(database: Server, **options: Any) -> list[ChangeEvent]:
    return [event for transaction in database.decode(**options) for event in transaction]


def shown(changes: Any) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(str(each.operation), dict(each.old_data), dict(each.new_data)) for each in changes]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_old_rows_hold_what_the_replica_identity_says(database: Server, binary: bool, lazy: bool) -> None:
    database.execute("CREATE TABLE t (a int, k int PRIMARY KEY, b text)")
    database.execute("INSERT INTO t VALUES (1, 10, 'x')")
    database.execute("UPDATE t SET b = 'y'")
    database.execute("UPDATE t SET k = 11")
    database.execute("DELETE FROM t")
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    database.execute("INSERT INTO t VALUES (2, 20, NULL)")
    database.execute("UPDATE t SET b = 'z'")
    database.execute("DELETE FROM t")
    found = events(database, binary=binary, lazy=lazy)
    assert shown(found) == [
        ("INSERT", {}, {"a": 1, "k": 10, "b": "x"}),
        ("UPDATE", {}, {"a": 1, "k": 10, "b": "y"}),
        ("UPDATE", {"k": 10}, {"a": 1, "k": 11, "b": "y"}),
        ("DELETE", {"k": 11}, {}),
        ("INSERT", {}, {"a": 2, "k": 20, "b": None}),
        ("UPDATE", {"a": 2, "k": 20, "b": None}, {"a": 2, "k": 20, "b": "z"}),
        ("DELETE", {"a": 2, "k": 20, "b": "z"}, {}),
    ]
    assert {each.primary_key for each in found[:4]} == {("k",)}
    assert {each.primary_key for each in found[4:]} == {("a", "k", "b")}
    assert {(each.schema, each.table_name) for each in found} == {(database.schema, "t")}


def test_the_primary_key_of_a_table_with_full_identity_can_be_given(database: Server) -> None:
    database.execute("CREATE TABLE t (a int, k int PRIMARY KEY)")
    database.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    database.execute("INSERT INTO t VALUES (1, 2)")
    (oid,) = database.execute("SELECT 't'::regclass::oid").fetchone() or (0,)
    (transaction,) = Decoder(primary_keys={oid: ("k",)}).receive(database.messages())
    assert [each.key for each in transaction] == [(2,)]


def test_the_position_is_the_commit_and_its_end_is_where_the_next_may_begin(database: Server) -> None:
    database.execute("CREATE TABLE t (a int PRIMARY KEY)")
    database.execute("INSERT INTO t VALUES (1), (2)")
    database.execute("INSERT INTO t VALUES (3)")
    xids = [row for (row,) in database.execute("SELECT DISTINCT xmin::text FROM t ORDER BY 1")]
    first, second = (each for each in database.decode() if len(each))
    assert first.position < first.end_position <= second.position < second.end_position
    assert [(each.position, each.ordinal) for each in first] == [(first.position, 0), (first.position, 1)]
    assert [first.transaction_id, second.transaction_id] == xids
    # What the server itself calls the end: from there on nothing of the first comes again.
    database.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", database.slot, str(first.end_position))
    assert [each.position for each in database.decode() if len(each)] == [second.position]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_an_unchanged_large_value_is_no_null(database: Server, identity: str, binary: bool) -> None:
    """pgoutput leaves it out even under FULL; there the old row has it."""
    database.execute("CREATE TABLE t (k int PRIMARY KEY, big text, n int)")
    database.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    database.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    database.execute("INSERT INTO t VALUES (1, repeat('x', 9000), 1)")
    database.execute("UPDATE t SET n = 2")
    database.execute("UPDATE t SET k = 2")
    inserted, updated, moved = events(database, binary=binary)
    big = "x" * 9000
    assert inserted.new_data["big"] == big
    expected = big if identity == "FULL" else UNCHANGED
    assert [updated.new_data["big"], moved.new_data["big"]] == [expected, expected]
    assert updated.new_data["n"] == 2
    assert moved.old_data == ({"k": 1, "big": big, "n": 2} if identity == "FULL" else {"k": 1})


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_definitions_that_change_within_a_transaction(database: Server, streaming: bool) -> None:
    database.execute("CREATE TABLE t (k int PRIMARY KEY, a int)")
    with database.connection.transaction():
        database.execute("INSERT INTO t VALUES (1, 1)")
        database.execute("ALTER TABLE t ADD COLUMN b text DEFAULT 'new'")
        database.execute("INSERT INTO t VALUES (2, 2, 'x')")
        database.execute("ALTER TABLE t RENAME a TO c")
        database.execute("ALTER TABLE t ALTER c TYPE numeric")
        database.execute("INSERT INTO t VALUES (3, 3.5)")
        database.execute("ALTER TABLE t DROP COLUMN b")
        database.execute("UPDATE t SET c = 4 WHERE k = 3")
        database.execute("CREATE TABLE other (k int PRIMARY KEY)")
        database.execute("INSERT INTO other VALUES (9)")
    database.execute("INSERT INTO t VALUES (5, 5)")
    if streaming:
        database.execute(IMMEDIATE)
        found = events(database, protocol=2, streaming="on")
    else:
        found = events(database)
    assert shown(found) == [
        ("INSERT", {}, {"k": 1, "a": 1}),
        ("INSERT", {}, {"k": 2, "a": 2, "b": "x"}),
        # The second ALTER rewrites the table; pgoutput leaves that out, since it only makes a new heap.
        ("INSERT", {}, {"k": 3, "c": Decimal("3.5"), "b": "new"}),
        ("UPDATE", {}, {"k": 3, "c": Decimal(4)}),
        ("INSERT", {}, {"k": 9}),
        ("INSERT", {}, {"k": 5, "c": Decimal(5)}),
    ]


def test_truncate_is_one_event_for_each_table(database: Server) -> None:
    database.execute("CREATE TABLE a (k int PRIMARY KEY)")
    database.execute("CREATE TABLE b (k int PRIMARY KEY REFERENCES a)")
    database.execute("INSERT INTO a VALUES (1)")
    database.execute("TRUNCATE a CASCADE")
    *_, one, two = events(database)
    assert {(one.operation, one.table_name), (two.operation, two.table_name)} == {
        (Operation.TRUNCATE, "a"),
        (Operation.TRUNCATE, "b"),
    }
    assert (one.ordinal, two.ordinal, one.new_data, one.old_data) == (0, 1, {}, {})


def test_logical_messages_within_a_transaction_and_outside(database: Server) -> None:
    database.execute("CREATE TABLE t (k int PRIMARY KEY)")
    with database.connection.transaction():
        database.execute("INSERT INTO t VALUES (1)")
        database.execute("SELECT pg_logical_emit_message(true, 'inside', 'é')")
        database.execute("SELECT pg_logical_emit_message(false, 'outside', '\\xff'::bytea)")
    transactions = [each for each in database.decode(messages="true") if len(each)]
    outside, inside = transactions
    assert [each.new_data for each in outside] == [{"prefix": "outside", "content": b"\xff", "transactional": False}]
    assert [str(each.operation) for each in inside] == ["INSERT", "MESSAGE"]
    assert [each.new_data for each in inside][1] == {"prefix": "inside", "content": "é".encode(), "transactional": True}
    # The commit record follows the message directly, and still each has a key of its own.
    assert outside.position < outside.end_position <= inside.position
    assert {each.position for each in transactions} == {outside.position, inside.position}
    assert outside.transaction_id == ""
    # Acknowledged, it does not come again.
    database.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", database.slot, str(outside.end_position))
    assert [each.position for each in database.decode(messages="true") if len(each)] == [inside.position]


def test_a_transaction_tells_where_it_came_from(database: Server) -> None:
    name = f"origin_{database.slot}"
    database.execute("CREATE TABLE t (k int PRIMARY KEY)")
    database.execute("SELECT pg_replication_origin_create(%s)", name)
    try:
        database.execute("SELECT pg_replication_origin_session_setup(%s)", name)
        with database.connection.transaction():
            database.execute("SELECT pg_replication_origin_xact_setup('0/1234', now())")
            database.execute("INSERT INTO t VALUES (1)")
        database.execute("SELECT pg_replication_origin_session_reset()")
        database.execute("INSERT INTO t VALUES (2)")
        found = [each for each in database.decode() if len(each)]
        assert [each.origin for each in found] == [name, ""]
        database.execute(IMMEDIATE)
        found = [each for each in database.decode(protocol=2, streaming="on") if len(each)]
        assert [each.origin for each in found] == [name, ""]
    finally:
        database.execute("SELECT pg_replication_origin_drop(%s)", name)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_types_that_users_make(database: Server, binary: bool) -> None:
    for statement in (
        "CREATE TYPE mood AS ENUM ('sad', 'öde', 'with space')",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE DOMAIN stricter AS positive CHECK (VALUE > 1)",
        'CREATE TYPE pair AS (n int, "a b" text, m mood)',
        "CREATE TYPE nested AS (p pair, list numeric[], made timestamptz)",
        "CREATE TYPE floats AS RANGE (subtype = float8)",
        "CREATE DOMAIN listed AS int[]",
        "CREATE TABLE t (k int PRIMARY KEY, e mood, es mood[], d stricter, ds positive[], p pair, ps pair[])",
        "ALTER TABLE t ADD n nested, ADD r floats, ADD rs floats_multirange, ADD l listed, ADD whole nested[]",
    ):
        database.execute(statement)
    database.execute(
        "INSERT INTO t VALUES (1, 'öde', '{sad,NULL,\"with space\"}', 2, '{1,2}', (1, 'q\"u\\o,te)', 'sad'), "
        "ARRAY[(1,'x',NULL)::pair, NULL], ((NULL, '', 'sad'), '{1.5,NULL}', '2026-01-01 00:00+00'), '[1,2.5)', "
        "'{[1,2),[3,4)}', '{{1,2},{3,4}}', ARRAY[((5,NULL,NULL),'{}',NULL)::nested])"
    )
    (event,) = events(database, binary=binary)
    row = event.new_data
    assert (row["e"], row["es"], row["d"], row["ds"]) == ("öde", ["sad", None, "with space"], 2, [1, 2])
    assert row["p"] == (1, 'q"u\\o,te)', "sad")
    assert (row["p"].n, row["p"].m, type(row["p"]).__name__) == (1, "sad", "pair")
    assert row["ps"] == [(1, "x", None), None]
    assert row["n"].p == (None, "", "sad")
    assert row["n"].list == [Decimal("1.5"), None]
    assert row["n"].made.isoformat() == "2026-01-01T00:00:00+00:00"
    assert row["r"] == Range(1.0, 2.5)
    assert list(row["rs"]) == [Range(1.0, 2.0), Range(3.0, 4.0)]
    assert row["l"] == [[1, 2], [3, 4]]
    assert row["whole"] == [((5, None, None), [], None)]


def test_without_the_catalog_the_types_of_users_are_text(database: Server) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad')")
    database.execute("CREATE TYPE pair AS (a int, b text)")
    database.execute("CREATE TABLE t (k int PRIMARY KEY, m mood, p pair)")
    database.execute("INSERT INTO t VALUES (1, 'sad', (1, 'x'))")
    (transaction,) = (each for each in Decoder().receive(database.messages()) if len(each))
    assert [each.new_data for each in transaction] == [{"k": 1, "m": "sad", "p": "(1,x)"}]


# -- transactions in progress ---------------------------------------------------------------------


def workload(database: Server) -> None:
    """Two transactions whose blocks alternate, with savepoints that are taken back, and one that is rolled back."""
    database.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    other = database.another()
    try:
        first, second = database.connection, other
        first.execute("BEGIN")
        second.execute("BEGIN")
        first.execute("INSERT INTO t VALUES (1, 'first')")
        second.execute("INSERT INTO t VALUES (100, 'second')")
        first.execute("SAVEPOINT a")
        first.execute("INSERT INTO t VALUES (2, 'gone')")
        first.execute("SAVEPOINT b")
        first.execute("INSERT INTO t VALUES (3, 'gone too')")
        first.execute("RELEASE b")
        first.execute("ROLLBACK TO a")
        first.execute("INSERT INTO t VALUES (4, 'kept')")
        second.execute("SAVEPOINT c")
        second.execute("UPDATE t SET v = 'changed' WHERE k = 100")
        second.execute("RELEASE c")
        first.execute("DELETE FROM t WHERE k = 1")
        second.execute("SELECT pg_logical_emit_message(true, 'm', 'x')")
        second.execute("COMMIT")
        first.execute("COMMIT")
        first.execute("BEGIN")
        first.execute("INSERT INTO t VALUES (5, 'never')")
        first.execute("ROLLBACK")
        first.execute("TRUNCATE t")
    finally:
        other.close()


def facts(transactions: list[Transaction]) -> list[Any]:
    return [
        (each.position, each.end_position, each.transaction_id, each.commit_timestamp, list(each))
        for each in transactions
        if len(each)
    ]


@pytest.mark.parametrize(
    ("protocol", "streaming"), [(2, "on"), (3, "on"), (4, "on"), (4, "parallel"), (2, "off"), (4, "off")]
)
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_streamed_transactions_are_the_same_as_whole_ones(
    database: Server, protocol: int, streaming: str, binary: bool
) -> None:
    workload(database)
    expected = facts(database.decode(messages="true"))
    database.execute(IMMEDIATE)
    messages = database.messages(protocol=protocol, streaming=streaming, messages="true")
    kinds = {chr(each[25]) for each in messages}
    assert (kinds >= {"S", "E", "c", "A"}) == (streaming != "off")
    assert facts(database.decode(protocol=protocol, streaming=streaming, messages="true", binary=binary)) == expected
    assert [len(each) for *_, each in expected] == [3, 3, 1]


def test_a_decoder_of_protocol_1_refuses_a_stream_of_protocol_2(database: Server) -> None:
    workload(database)
    database.execute(IMMEDIATE)
    with pytest.raises(ProtocolError, match="not of this protocol version"):
        Decoder(protocol=1).receive(database.messages(protocol=2, streaming="on"))


def test_a_table_first_described_in_a_savepoint_that_is_taken_back(database: Server) -> None:
    database.execute("CREATE TABLE t (k int PRIMARY KEY)")
    with database.connection.transaction():
        database.execute("SAVEPOINT a")
        database.execute("INSERT INTO t VALUES (1)")
        database.execute("ALTER TABLE t ADD COLUMN v text")
        database.execute("INSERT INTO t VALUES (2, 'x')")
        database.execute("ROLLBACK TO a")
        database.execute("INSERT INTO t VALUES (3)")
    database.execute("INSERT INTO t VALUES (4)")
    database.execute(IMMEDIATE)
    expected = [("INSERT", {}, {"k": 3}), ("INSERT", {}, {"k": 4})]
    assert shown(events(database)) == expected
    assert shown(events(database, protocol=2, streaming="on")) == expected


# -- two-phase commit -----------------------------------------------------------------------------


def test_a_prepared_transaction_comes_at_its_second_phase(prepared: Server) -> None:
    gid = prepared.slot
    prepared.execute("CREATE TABLE t (k int PRIMARY KEY)")
    prepared.forget()
    prepared.execute("BEGIN")
    prepared.execute("INSERT INTO t VALUES (1), (2)")
    prepared.execute(f"PREPARE TRANSACTION '{gid}'")
    other = prepared.another()
    try:
        other.execute("INSERT INTO t VALUES (3)")
        decoder = Decoder(protocol=3)
        messages = prepared.messages(protocol=3)
        (between,) = decoder.receive(messages)
        assert [each.key for each in between] == [(3,)]
        assert decoder.in_transaction
        assert decoder.hold is not None
        assert decoder.hold < between.position
        other.execute(f"COMMIT PREPARED '{gid}'")
        (committed,) = decoder.receive(prepared.messages(protocol=3)[len(messages) :])
        assert [each.key for each in committed] == [(1,), (2,)]
        assert (committed.gid, committed.position > between.position) == (gid, True)
        assert {each.position for each in committed} == {committed.position}
        assert not decoder.in_transaction
        assert decoder.hold is None
    finally:
        other.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_prepared_and_rolled_back(prepared: Server, streamed: bool) -> None:
    gid = prepared.slot
    prepared.execute("CREATE TABLE t (k int PRIMARY KEY)")
    prepared.forget()
    for key, outcome in ((1, "ROLLBACK"), (2, "COMMIT")):
        prepared.execute("BEGIN")
        prepared.execute("INSERT INTO t VALUES (%s)" % key)  # noqa: UP031
        prepared.execute(f"PREPARE TRANSACTION '{gid}'")
        prepared.execute(f"{outcome} PREPARED '{gid}'")
    if streamed:
        prepared.execute(IMMEDIATE)
    options = {"streaming": "on"} if streamed else {}
    messages = prepared.messages(protocol=3, **options)
    assert ("p" if streamed else "P") in {chr(each[25]) for each in messages}
    (transaction,) = prepared.decode(protocol=3, **options)
    assert [(each.key, each.position) for each in transaction] == [((2,), transaction.position)]


def test_what_was_acknowledged_at_the_hold_comes_again_after_a_crash(prepared: Server) -> None:
    """And what was acknowledged beyond it is lost: the server sends the commit alone, and the decoder says so."""
    gid = prepared.slot
    prepared.execute("CREATE TABLE t (k int PRIMARY KEY)")
    prepared.forget()
    prepared.execute("BEGIN")
    prepared.execute("INSERT INTO t VALUES (1)")
    prepared.execute(f"PREPARE TRANSACTION '{gid}'")
    decoder = Decoder(protocol=3, types=TypeMap())
    decoder.receive(prepared.messages(protocol=3))
    prepared.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", prepared.slot, str(decoder.hold))
    decoder.reset()
    prepared.execute("INSERT INTO t VALUES (2)")
    prepared.execute(f"COMMIT PREPARED '{gid}'")
    found = decoder.receive(prepared.messages(protocol=3))
    assert [[each.key for each in transaction] for transaction in found] == [[(2,)], [(1,)]]
    prepared.execute("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", prepared.slot, str(found[0].end_position))
    decoder.reset()
    with pytest.raises(ProtocolError, match=f"The prepared transaction '{gid}' was committed"):
        decoder.receive(prepared.messages(protocol=3))


def test_a_transaction_that_is_too_large_for_the_server_and_for_us(database: Server, tmp_path: Path) -> None:
    """Streamed because of logical_decoding_work_mem, spilled by us; a replica made of it equals the table."""
    database.execute("CREATE TABLE t (k int PRIMARY KEY, v text)")
    with database.connection.transaction():
        database.execute("INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 3000) AS g")
        database.execute("SAVEPOINT a")
        database.execute("INSERT INTO t SELECT g, 'gone' FROM generate_series(5001, 6000) AS g")
        database.execute("ROLLBACK TO a")
        database.execute("UPDATE t SET v = 'w' WHERE k % 3 = 0")
        database.execute("DELETE FROM t WHERE k % 7 = 0")
    database.execute("SET logical_decoding_work_mem = '64kB'")
    messages = database.messages(protocol=2, streaming="on")
    spill = Spill(tmp_path, memory=10_000, eager=10_000)
    decoder = Decoder(protocol=2, spill=spill)
    found = [each for at in range(0, len(messages), 100) for each in decoder.receive(messages[at : at + 100])]
    (large,) = (each for each in found if len(each))
    assert {chr(each[25]) for each in messages} >= set("SEcA")
    assert isinstance(large.changes, SpooledChanges)
    replica: dict[int, str] = {}
    for event in large:
        if event.operation is Operation.DELETE:
            del replica[event.old_data["k"]]
        else:
            replica[event.new_data["k"]] = event.new_data["v"]
    assert replica == dict(database.execute("SELECT k, v FROM t").fetchall())
    large.close()
