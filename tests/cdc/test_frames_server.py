"""Frames of what a real server sends, streamed values of every kind, and a backlog read through COPY."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
import pytest
from psycopg import sql

from cdc.server import Server, server
from cdc.test_values_server import VALUES, has_xml
from streamlab.cdc import LSN, ChangeEvent, Operation
from streamlab.cdc.catch_up import CatchUp
from streamlab.cdc.frames import FrameBatch, FrameDecoder
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.values import TypeMap
from streamlab.errors import ChangeStreamError

pytestmark = pytest.mark.integration


@pytest.fixture
def database(stack: object) -> Iterator[Server]:
    yield from server("test_frames")


def frames(database: Server, **options: str) -> list[FrameBatch]:
    decoder = FrameDecoder(types=TypeMap(database.resolve))
    return [*decoder.receive(database.messages(**options)), *decoder.flush()]


@pytest.mark.parametrize("binary", ["false", "true"])
def test_every_type_is_held_or_its_text_stands_beside(database: Server, binary: str) -> None:
    """Cast back to its type, what a frame holds is what the table has; what it cannot hold is written beside."""
    names = [name for name in VALUES if name != "xml" or has_xml(database)]
    columns = [f"c{at}" for at in range(len(names))]
    defined = ", ".join(f"{column} {name}" for column, name in zip(columns, names, strict=True))
    database.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {defined})")
    rows = max(map(len, VALUES.values())) + 1
    for at in range(rows):
        cells = [sql.Literal(VALUES[name][at] if at < len(VALUES[name]) else None) for name in names]
        database.execute(sql.SQL("INSERT INTO wide VALUES ({}, {})").format(at, sql.SQL(", ").join(cells)))
    (batch,) = frames(database, binary=binary)
    frame = batch.of("wide", database.schema)
    assert frame.height == rows
    (stored,) = [
        database.execute(f"SELECT {', '.join(f'{c}::text' for c in columns)} FROM wide ORDER BY id").fetchall()
    ]
    opaque = set()
    for row, texts in zip(frame.iter_rows(named=True), stored, strict=True):
        beside = {each["column"]: each["text"] for each in row["unfit"] or ()}
        for column, name, text in zip(columns, names, texts, strict=True):
            value = row[column]
            if text is None:
                assert value is None
                assert column not in beside
                continue
            found = beside[column] if value is None else value
            if isinstance(found, str) and binary == "true" and found.startswith("\\x") and name != "bytea":
                opaque.add(name)
                continue
            assert means(database, found, name, text), (name, found, text)
    # docs/frames.md: types whose binary form is not read.
    assert opaque <= BYTES


BYTES = {
    "money", "macaddr", "macaddr8", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector", "tsquery",
    "pg_snapshot", "txid_snapshot", "tid", "regclass", "regcollation", "regconfig", "regdictionary",
    "regnamespace", "regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype",
}  # fmt: skip


def means(database: Server, found: Any, name: str, text: str) -> bool:
    if isinstance(found, dict):
        found = f"{found['months']} mons {found['days']} days {found['microseconds']} microseconds"
    if isinstance(found, float):
        found = str(found)  # -0.0 would be a numeric, which has no sign there
    query = sql.SQL("SELECT CAST({} AS {})::text").format(sql.Literal(found), sql.SQL(name))
    if name in {"bpchar"}:
        return found.rstrip() == text.rstrip()
    row: Any = database.execute(query).fetchone()
    return row[0] == text


def test_numerics_users_types_and_old_values(database: Server) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    database.execute("CREATE DOMAIN amount AS int8")
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a numeric(12,2), b numeric(3,5), c numeric(2,-3), d numeric(38,10), "
        "e numeric(40,2), m mood, n amount, ms mood[], x text)"
    )
    database.execute("ALTER TABLE t ALTER x SET STORAGE EXTERNAL")
    database.execute(
        "INSERT INTO t VALUES (1, 12345.60, 0.00123, 12345, 1234567890123456789012345678.0123456789, 1.5, 'glad', 7, "
        "'{sad,NULL}', repeat('x', 5000)), (2, 'NaN', 0, 0, -0.0000000001, -1, 'sad', NULL, '{}', 'short')"
    )
    database.execute("UPDATE t SET id = 3 WHERE id = 1")
    database.execute("DELETE FROM t WHERE id = 2")
    for binary in ("false", "true"):
        (batch,) = frames(database, binary=binary)
        frame = batch.of("t", database.schema)
        schema = frame.schema
        assert [schema[name] for name in "abcdemn"] == [
            pl.Decimal(12, 2), pl.Decimal(5, 5), pl.Decimal(5, 0), pl.Decimal(38, 10), pl.String, pl.String, pl.Int64,
        ]  # fmt: skip
        first, second, moved, gone = frame.iter_rows(named=True)
        assert [first[name] for name in "abcd"] == [
            Decimal("12345.60"), Decimal("0.00123"), Decimal(12000), Decimal("1234567890123456789012345678.0123456789"),
        ]  # fmt: skip
        assert (Decimal(first["e"]), first["m"], first["n"], first["ms"]) == (Decimal("1.5"), "glad", 7, ["sad", None])
        assert (second["a"], second["d"]) == (None, Decimal("-0.0000000001"))
        assert second["unfit"] == [{"column": "a", "text": "NaN"}]
        assert (moved["operation"], moved["id"], moved["old"]) == (Operation.UPDATE, 3, {"id": 1})
        assert (moved["x"], moved["unchanged"]) == (None, ["x"])
        assert (gone["operation"], gone["id"], gone["old"], gone["a"]) == (Operation.DELETE, 2, None, None)


# -- the backlog ----------------------------------------------------------------------------------


def fill(database: Server, transactions: int, rows: int = 10) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS n (id int PRIMARY KEY, v text)")
    database.execute(
        "DO $$ DECLARE b int := coalesce((SELECT max(id) FROM n), 0); BEGIN "
        f"FOR k IN 1..{transactions} LOOP "
        f"INSERT INTO n SELECT b + (k - 1) * {rows} + g, 'v' FROM generate_series(1, {rows}) g; COMMIT; "
        "END LOOP; END $$"
    )


def events_of(database: Server) -> list[ChangeEvent]:
    return [event for transaction in database.decode() for event in transaction]


def confirmed(database: Server) -> LSN:
    row: Any = database.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", database.slot
    ).fetchone()
    return LSN.parse(row[0])


@pytest.mark.parametrize("rows", [1, 25, 100_000])
def test_a_backlog_comes_once_and_then_the_stream_goes_on(database: Server, rows: int) -> None:
    fill(database, 12)
    wanted = [(int(event.lsn), event.ordinal, event.new_data["id"]) for event in events_of(database)]
    assert len(wanted) == 120
    found = []
    with CatchUp(database.connection, database.slot, [database.publication], FrameDecoder(), rows=rows) as backlog:
        for batch in backlog:
            found += batch.of("n", database.schema).select("position", "ordinal", "id").rows()
            backlog.acknowledge(batch)
    assert found == wanted
    fill(database, 2)
    after = [event.new_data["id"] for event in events_of(database)]
    assert after == list(range(121, 141)), "the stream has a gap or an overlap"


def test_a_backlog_of_events(database: Server) -> None:
    fill(database, 4)
    database.execute("SELECT pg_logical_emit_message(false, 'p', 'c')")
    fill(database, 1)
    wanted = events_of(database)
    with CatchUp(
        database.connection, database.slot, [database.publication], Decoder(), binary=False, rows=15
    ) as backlog:
        found = []
        for transaction in backlog:
            found += list(transaction)
            backlog.acknowledge(transaction)
    assert [event[:4] for event in found if event.table_name] == [event[:4] for event in wanted]
    assert [event.new_data["content"] for event in found if not event.table_name] == [b"c"]


class Late(Decoder):
    """Hands out nothing of the first rows, as a reader does that has seen them or does not want them."""

    def receive(self, messages: Any) -> list[Any]:
        return [each for each in super().receive(messages) if max(event.new_data["id"] for event in each) > 30]


def test_a_chunk_of_which_nothing_is_handed_out_is_not_the_end(database: Server) -> None:
    """Whatever lies behind it has not been looked at: to move the slot there would lose it."""
    fill(database, 4)
    backlog = CatchUp(database.connection, database.slot, [database.publication], Late(), binary=False, rows=2)
    found = []
    for transaction in backlog:
        found += [event.new_data["id"] for event in transaction]
        backlog.acknowledge(transaction)
    assert found == list(range(31, 41))


def test_what_was_not_acknowledged_comes_again(database: Server) -> None:
    fill(database, 4)
    before = confirmed(database)
    backlog = CatchUp(database.connection, database.slot, [database.publication], FrameDecoder(), rows=11)
    first = next(iter(backlog))
    backlog.close()
    assert confirmed(database) == before
    again = CatchUp(database.connection, database.slot, [database.publication], Decoder(), binary=False)
    for transaction in again:
        assert next(iter(transaction)).new_data == {"id": 1, "v": "v"}
        assert transaction.position == first.frames[0].data["position"][0]
        again.acknowledge(transaction)
        again.acknowledge(LSN(1 << 60))  # clamped to what was handed out
        end = transaction.end_position
        break
    again.close()
    assert confirmed(database) == end
    assert [event.new_data["id"] for event in events_of(database)] == list(range(11, 41))
    with pytest.raises(ChangeStreamError, match="Acknowledge each batch"):
        list(CatchUp(database.connection, database.slot, [database.publication], FrameDecoder()))
    assert confirmed(database) == end


def test_an_abandoned_chunk_leaves_the_connection_usable(database: Server) -> None:
    fill(database, 10, 1000)
    backlog = CatchUp(database.connection, database.slot, [database.publication], FrameDecoder(max_rows=1))
    for batch in backlog:
        backlog.acknowledge(batch)
        break
    backlog.close()
    assert confirmed(database) == batch.end_position
    assert database.execute("SELECT 1").fetchone() == (1,)


CHILD = """
import sys, psycopg
from streamlab import failpoints
from streamlab.cdc.catch_up import CatchUp
from streamlab.cdc.frames import FrameDecoder
dsn, slot, publication = sys.argv[1:]
with psycopg.connect(dsn, autocommit=True) as connection:
    with CatchUp(connection, slot, [publication], FrameDecoder(max_rows=1), rows=25) as backlog:
        for batch in backlog:
            for frame in batch:
                for position, ordinal, row in frame.data.select("position", "ordinal", "id").rows():
                    print(position, ordinal, row, flush=True)
            backlog.acknowledge(batch)
"""


@pytest.mark.parametrize("point", ["cdc.catch_up.before_advance", "cdc.catch_up.after_advance"])
def test_killed_between_the_acknowledgement_and_the_advance_nothing_is_lost(database: Server, point: str) -> None:
    fill(database, 8)
    wanted = [(int(event.lsn), event.ordinal, event.new_data["id"]) for event in events_of(database)]
    runs: list[list[tuple[int, ...]]] = []
    for number in range(2):
        environment = {**os.environ, "STREAMLAB_FAILPOINTS": f"{point}=kill"} if not number else dict(os.environ)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, psycopg_dsn(database), database.slot, database.publication],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        runs.append([tuple(map(int, line.split())) for line in done.stdout.splitlines()])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        free(database)
    assert len(runs) == 2
    assert sorted({row for run in runs for row in run}) == wanted, "a change was lost"
    again = set(runs[0]) & set(runs[1])
    # After the advance nothing comes again; before it exactly the chunk that was not advanced over.
    assert again == (set() if point.endswith("after_advance") else set(runs[0]))


def psycopg_dsn(database: Server) -> str:
    from streamlab import settings

    return str.__str__(settings.postgres_dsn("admin"))


def free(database: Server) -> None:
    """Wait until the server has seen that the reader is gone."""
    for _ in range(200):
        row: Any = database.execute(
            "SELECT active, pg_sleep(0.02) FROM pg_replication_slots WHERE slot_name = %s", database.slot
        ).fetchone()
        if not row[0]:
            return
    raise AssertionError("the slot is still in use")


def test_a_refused_query_is_psycopgs_error(database: Server) -> None:
    backlog = CatchUp(database.connection, "no_such_slot", [database.publication], FrameDecoder())
    with pytest.raises(psycopg.errors.UndefinedObject):
        list(backlog)
    assert database.execute("SELECT 1").fetchone() == (1,)


def test_arrays_and_composites_in_binary_are_text_that_postgresql_reads(database: Server) -> None:
    """Cast back, each is what the table has: JSON in an array, dates that no date holds, a null of JSON beside NULL."""
    database.execute("CREATE TYPE part AS (day date, doc jsonb, note text)")
    database.execute(
        "CREATE TABLE odd (id int PRIMARY KEY, days date[], docs jsonb[], lasting interval[], one part, parts part[])"
    )
    database.execute(
        """INSERT INTO odd VALUES (1, '{infinity,2024-01-01,NULL}', ARRAY['{"a": "b\\"c"}', 'null', NULL]::jsonb[],
        '{{1 mon,2 days},{00:00:01,NULL}}', ('-infinity', '[1, {"x": null}]', 'say "hi", \\ then'),
        ARRAY[ROW('infinity', 'null', NULL)::part, NULL])"""
    )
    (batch,) = frames(database, binary="true")
    (row,) = batch.of("odd", database.schema).iter_rows(named=True)
    assert row["unfit"] is None
    for column, kind in (
        ("days", "date[]"), ("docs", "jsonb[]"), ("lasting", "interval[]"), ("one", "part"), ("parts", "part[]"),
    ):  # fmt: skip
        same = database.execute(f"SELECT {column} IS NOT DISTINCT FROM %s::{kind} FROM odd", row[column]).fetchone()
        assert same == (True,), (column, row[column])
