"""Frames of a session's snapshot: typed as the stream's are, and followed by them with no gap and no overlap."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from psycopg import sql

from streamlab.cdc.event import Operation
from streamlab.cdc.frames import FrameBatch
from streamlab.cdc.frames.copied import split
from streamlab.cdc.frames.slices import NULL
from streamlab.cdc.frames.tables import META
from streamlab.cdc.snapshot import SnapshotProgress, fields
from streamlab.errors import ProtocolError, SettingsError

from .conftest import Shop, interrupted
from .test_values_server import VALUES

# -- COPY's text form -----------------------------------------------------------------------------

_WRITTEN = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}
_VALUES = st.none() | st.text(st.sampled_from("\\\\\\Nnbt\b\f\n\r\t\vaé"), max_size=6)


def written(row: Sequence[str | None]) -> bytes:
    """A row as the server writes it; sources: `CopyAttributeOutText` in PostgreSQL's copyto.c."""
    cells = ["\\N" if each is None else "".join(_WRITTEN.get(letter, letter) for letter in each) for each in row]
    return ("\t".join(cells) + "\n").encode()


@given(st.integers(1, 4).flatmap(lambda count: st.lists(st.lists(_VALUES, min_size=count, max_size=count), min_size=1)))
def test_rows_are_split_into_what_was_written(rows: list[list[str | None]]) -> None:
    copied = [written(row) for row in rows]
    whole, columns, _, _ = split(copied, len(rows[0]))
    found = [
        [
            None if letter == NULL else whole.data[at : at + size].decode()
            for letter, at, size in zip(*each, strict=True)
        ]
        for each in columns
    ]
    assert [list(row) for row in zip(*found, strict=True)] == rows
    assert [fields(row, [str] * len(rows[0])) for row in copied] == rows


@pytest.mark.parametrize("rows", [[b"a\n"], [b"a\tb\n", b"a\n"], [b"a\tb\tc\n"], [b"a\tb\tc\n", b"d\n"], [b"a\tb"]])
def test_a_row_of_another_shape_is_no_row(rows: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="does not have 2 columns"):
        split(rows, 2)


# -- as frames of the stream ----------------------------------------------------------------------


def ids(batch: FrameBatch) -> list[int]:
    return [each for frame in batch for each in frame.data["id"]]


@pytest.mark.integration
@pytest.mark.parametrize("binary", [False, True])
def test_the_same_rows_are_the_same_in_both(shop: Shop, binary: bool) -> None:
    try:
        shop.app.execute("SELECT '<a/>'::xml")
        names = list(VALUES)
    except psycopg.errors.FeatureNotSupported:
        names = [name for name in VALUES if name != "xml"]
    shop.app.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    shop.app.execute("CREATE DOMAIN amount AS int8")
    shop.app.execute("CREATE TYPE pair AS (a int, b text)")
    own = {
        "numeric(12,2)": ["12345.60", "-0.01", "NaN"], "numeric(38,10)": ["1234567890123456789012345678.0123456789"],
        "numeric(2,-3)": ["12345"], "char(5)": ["ab"], "timestamp(0)": ["2026-01-01 10:00:00"], "mood": ["glad"],
        "mood[]": ["{sad,NULL}"], "amount": ["7"], "pair": ['(1,"a\tb")'],
        "text[]": ['{a,NULL,"\\\\ \t"}', "{{a},{b}}"],
    }  # fmt: skip
    values = {**{name: VALUES[name] for name in names}, **own}
    defined = ", ".join(f"c{at} {name}" for at, name in enumerate(values))
    shop.app.execute(f"CREATE TABLE wide (gone int, id int PRIMARY KEY, position int, {defined})")
    shop.app.execute("ALTER TABLE wide ADD twice int GENERATED ALWAYS AS (id * 2) STORED")
    shop.app.execute("ALTER TABLE wide DROP gone")
    columns = ", ".join(f"c{at}" for at in range(len(values)))
    for row in range(max(map(len, values.values())) + 1):
        cells = [sql.Literal(each[row] if row < len(each) else None) for each in values.values()]
        shop.app.execute(
            sql.SQL("INSERT INTO wide (id, position, {}) VALUES ({}, 5, {})").format(
                sql.SQL(columns), row, sql.SQL(", ").join(cells)  # type: ignore[arg-type]
            )
        )  # fmt: skip
    with shop.session(tables=[f"{shop.schema}.wide"], snapshot="initial", binary=binary) as cdc:
        stream = cdc.frames(max_wait=0.05)
        (copied,) = next(stream)
        shop.app.execute(
            f"INSERT INTO wide (id, position, {columns}) SELECT id + 1000, position, {columns} FROM wide ORDER BY id"
        )
        (streamed,) = next(stream)
    assert copied.data.schema == streamed.data.schema
    assert "twice" not in copied.data.columns
    assert (copied.schema, copied.table_name, copied.primary_key) == (shop.schema, "wide", ("id",))
    assert streamed.primary_key == ("id",)
    assert set(copied.data["operation"]) == {"SNAPSHOT"}
    assert copied.data["ordinal"].to_list() == list(range(len(copied)))
    assert (streamed.data["id"] - 1000).to_list() == copied.data["id"].to_list()
    same = [name for name in copied.data.columns if name not in META and name != "id"]
    if binary:  # what has no form of its own is another text there: docs/frames.md
        exact = {f"c{at}" for at, name in enumerate(values) if name in {"text", "varchar", "name", "uuid", "mood"}}
        same = [name for name in same if copied.data.schema[name] != pl.String or name in exact]
    else:
        same += ["unfit", "unchanged", "old"]
        assert copied.data["unfit"].null_count() < len(copied)
    assert len(same) > 25
    assert_frame_equal(copied.data.select(same), streamed.data.select(same))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("identity", "key", "old"),
    [("DEFAULT", ("id",), ["id"]), ("FULL", ("id",), ["id", "a", "b"]), ("USING INDEX other_key", ("a",), ["a"])],
)
def test_a_tables_identity_is_that_of_the_stream(shop: Shop, identity: str, key: tuple[str], old: list[str]) -> None:
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b text)")
    shop.app.execute("CREATE UNIQUE INDEX other_key ON t (a)")
    shop.app.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    shop.app.execute("INSERT INTO t VALUES (1, 2, 'x')")
    with shop.session(tables=[f"{shop.schema}.t"], snapshot="initial") as cdc:
        stream = cdc.frames(max_wait=0.05)
        (copied,) = next(stream)
        shop.app.execute("UPDATE t SET id = 2, a = 3")
        (streamed,) = next(stream)
    assert copied.primary_key == streamed.primary_key == key
    assert copied.data.schema == streamed.data.schema
    assert [each.name for each in copied.data.schema["old"].fields] == old  # type: ignore[attr-defined]
    assert pl.concat([copied.data, streamed.data])["b"].to_list() == ["x", "x"]


@pytest.mark.integration
def test_snapshot_and_stream_fit_together_while_others_write(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'old', i FROM generate_series(1, 30000) i")
    over = threading.Event()

    def write() -> None:
        number = 100_000
        while not over.is_set():
            shop.admin.execute("INSERT INTO orders VALUES (%s, 'new', 0)", [number])
            shop.admin.execute("UPDATE orders SET total = total + 1 WHERE id = %s", [1 + number % 30000])
            shop.admin.execute("DELETE FROM orders WHERE id = %s", [30000 - number % 30000])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    replica: dict[int, Any] = {}
    keys: list[tuple[int, int]] = []

    def apply(batch: FrameBatch) -> None:
        for frame in batch:
            for row in frame.data.iter_rows(named=True):
                keys.append((row["position"], row["ordinal"]))
                if row["operation"] == Operation.DELETE:
                    del replica[row["id"]]
                else:
                    # An insert of a row that is there would be an overlap, an update of one that is not a gap.
                    assert (row["id"] in replica) is (row["operation"] == Operation.UPDATE)
                    replica[row["id"]] = (row["note"], row["total"])

    try:
        with shop.session(snapshot="initial") as cdc:
            stream = cdc.frames(max_rows=700, max_wait=0.05)
            for batch in stream:
                assert len(batch) <= 700
                apply(batch)
                if cdc.snapshot_progress.done:
                    break
            for _ in range(10):
                apply(next(stream))
            over.set()
            writer.join()
            cdc.acknowledge(cdc.received)  # what was handed out last would come again
            for batch in cdc.frames(until=cdc.written()):
                apply(batch)
    finally:
        over.set()
        writer.join()
    rows = shop.app.execute("SELECT id, note, total::text FROM orders").fetchall()
    assert replica == {number: (note, total) for number, note, total in rows}
    assert keys == sorted(set(keys))
    assert len(keys) > 30_000


@pytest.mark.integration
def test_a_snapshot_alone_ends_by_itself_and_tells_its_progress(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'old', i FROM generate_series(1, 25000) i")
    shop.app.execute("INSERT INTO other SELECT i FROM generate_series(1, 40) i")
    shop.app.execute("ANALYZE orders, other")
    both = [shop.orders, f"{shop.schema}.other"]
    told: list[SnapshotProgress | None] = []
    with shop.session(tables=both, snapshot="only") as cdc:
        assert cdc.snapshot_progress == SnapshotProgress("", "", 0, 25_040, False)
        batches = []
        for batch in cdc.frames(max_rows=4000):
            batches.append(batch)
            asking = threading.Thread(target=lambda: told.append(cdc.snapshot_progress))
            asking.start()
            asking.join()
        assert list(cdc.frames()) == []
    assert [len(batch) for batch in batches] == [*[4000] * 6, 1000, 40]
    assert all(len(batch.frames) == 1 and batch.end_position == cdc.began for batch in batches)
    data = [frame.data for batch in batches for frame in batch]
    assert [each for one in data for each in one["ordinal"]] == list(range(25_040))
    assert {each for one in data for each in one["position"]} == {cdc.began}
    assert sorted(each for batch in batches[:7] for each in ids(batch)) == list(range(1, 25_001))
    counts = [each.rows for each in told if each is not None]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert [each.table for each in told if each is not None] == ["orders"] * 7 + ["other"]
    assert [each.done for each in told if each is not None] == [False] * 7 + [True]
    assert cdc.snapshot_progress == SnapshotProgress(shop.schema, "other", 25_040, 25_040, True)
    with shop.session() as cdc:
        assert cdc.snapshot_progress is None


@pytest.mark.integration
def test_an_iteration_begins_where_the_last_one_was_left(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 5) i")
    with shop.session(snapshot="initial") as cdc:
        shop.insert(10)
        assert ids(next(cdc.frames(max_rows=2))) == [1, 2]
        assert [ids(each) for each in cdc.frames(max_rows=2, until=2)] == [[1, 2], [3, 4]], "nobody asked for the next"
        with pytest.raises(SettingsError, match="has been read already"):
            next(cdc.transactions())
        batch = next(cdc.frames())
        assert ids(batch) == [5]
        cdc.acknowledge(batch)
        assert [ids(each) for each in cdc.frames(until=cdc.written(), max_wait=0.05)] == [[10]]
    with shop.session(snapshot="initial") as cdc:
        next(cdc.transactions())
        with pytest.raises(SettingsError, match="has been read already"):
            next(cdc.frames())
        assert len([event for each in cdc.transactions(until=cdc.written()) for event in each]) == 6
    with shop.session(snapshot="initial") as cdc:
        assert [len(each) for each in cdc.frames(idle=0.5)] == [6]
    with shop.session(two_phase=True, protocol=3) as cdc, pytest.raises(SettingsError, match="gives no frames"):
        cdc.frames()


@pytest.mark.integration
def test_rows_are_handed_out_before_they_fill_the_memory(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, repeat('x', 1000000) FROM generate_series(1, 40) i")
    with shop.session(snapshot="only") as cdc:
        found = [len(batch) for batch in cdc.frames()]
    assert sum(found) == 40
    assert len(found) > 1


@pytest.mark.integration
def test_interrupts_take_nothing_from_a_snapshot(shop: Shop) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, 'a\tb' FROM generate_series(1, 20000) i")
    seen: list[int] = []
    last: list[int] = []
    with shop.session(snapshot="initial") as cdc:
        shop.insert(20001)

        def read() -> None:
            for batch in cdc.frames(max_rows=500, idle=2):
                if ids(batch) != last:  # what was left in the midst comes again
                    seen.extend(ids(batch))
                    last[:] = ids(batch)
                if 20001 in last:
                    break

        moment = random.Random(7)
        interrupts, tries = 0, 0
        while interrupts <= 5 and tries < 100:
            interrupts += interrupted(read, moment.uniform(0, 0.01))
            tries += 1
        read()
    assert sorted(set(seen)) == list(range(1, 20002))
    assert interrupts
