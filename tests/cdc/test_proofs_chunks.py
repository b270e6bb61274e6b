"""The rows of a table in chunks while others write: replica and table are equal, whenever the reader is killed."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from streamlab import settings
from streamlab.cdc import Checkpoint, Operation
from streamlab.cdc.incremental import PREFIX, ChunkProgress
from streamlab.errors import CannotCapture, SettingsError
from streamlab.ops.crash import crash_test
from streamlab.stack.namespace import Namespace

from .conftest import Shop
from .replica import END, Replica
from .replica import __file__ as program

pytestmark = pytest.mark.integration

SOAK = os.environ.get("STREAMLAB_SOAK") == "1"
ROWS = 200_000 if SOAK else 20_000
SECONDS = 10.0 if SOAK else 2.0


def write(schema: str, seed: int, until: float) -> int:
    """Change the table as several programs at once would; how many transactions that were."""
    chance, count = random.Random(seed), 0
    with psycopg.connect(
        settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}"
    ) as connection:
        while time.monotonic() < until:
            key = chance.randint(1, ROWS)
            try:
                with connection.transaction():
                    match chance.randrange(5):
                        case 0:
                            connection.execute("DELETE FROM big WHERE id = %s", [key])
                        case 1:
                            connection.execute("UPDATE big SET id = -id WHERE id = %s", [key])
                        case 2:
                            connection.execute(
                                "INSERT INTO big VALUES (%s, 'new', 0) ON CONFLICT (id) DO UPDATE SET n = big.n + 1",
                                [key],
                            )
                        case _:
                            connection.execute("UPDATE big SET n = n + 1 WHERE id BETWEEN %s AND %s", [key, key + 20])
            except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
                continue
            count += 1
    return count


class Big:
    """A table that is older than its slot, with writers, and an empty replica."""

    def __init__(self, shop: Shop, namespace: Namespace) -> None:
        self.shop, self.pool = shop, ThreadPoolExecutor(4)
        self.writing: list[Future[int]] = []
        self.over = threading.Event()
        shop.app.execute("CREATE TABLE big (id int PRIMARY KEY, note text, n int)")
        self.replica = Replica(shop.app, namespace.postgres_schema("replica"), ["big"])
        self.replica.create(shop.schema)
        Checkpoint("replica", schema=self.replica.schema).create_table(shop.app)
        shop.app.execute(f"CREATE TABLE {self.replica.schema}.progress (progress text)")
        self.cdc = shop.reader(tables=[f"{shop.schema}.big"])

    def prepare(self) -> None:
        schema = self.replica.schema
        self.cdc.drop()
        self.shop.app.execute(f"TRUNCATE big, {schema}.big, {schema}.progress, {schema}.checkpoints")
        self.shop.app.execute("INSERT INTO big SELECT i, 'old', 0 FROM generate_series(1, %s) i", [ROWS])
        self.cdc.initialize()
        until = time.monotonic() + SECONDS
        self.writing = [self.pool.submit(write, self.shop.schema, seed, until) for seed in range(2)]
        self.over.clear()
        self.pool.submit(self.end)

    def end(self) -> None:
        """Say that nothing more is written, again and again: it may be said while the rows are still read."""
        for each in self.writing:
            each.exception()
        with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as connection:
            while not self.over.wait(0.2):
                connection.execute("SELECT pg_logical_emit_message(true, %s, '')", [END])

    def rows(self, schema: str) -> list[Any]:
        self.over.set()
        assert all(each.result() > 50 for each in self.writing)
        return self.shop.app.execute(f"SELECT * FROM {schema}.big").fetchall()

    def program(self) -> list[str]:
        about = {
            "publication": self.shop.publication,
            "slot": self.shop.slot,
            "schema": self.replica.schema,
            "tables": ["big"],
            "chunks": f"{self.shop.schema}.big",
            "rows": ROWS // 10,
            "options": {},
        }
        return [sys.executable, program, json.dumps(about)]


@pytest.fixture
def big(stack: object) -> Iterator[Big]:
    with Namespace("test_cdc") as namespace:
        shop = Shop(namespace)
        it = Big(shop, namespace)
        try:
            yield it
        finally:
            it.over.set()
            it.pool.shutdown()
            shop.close()


def points(quick: str) -> list[Any]:
    soak = pytest.mark.skipif(not SOAK, reason="a long proof: STREAMLAB_SOAK=1")
    known = ("cdc.low_watermark", "cdc.chunk_read", "cdc.high_watermark", "cdc.before_chunk", "cdc.checkpoint_moved")
    return [pytest.param(each, marks=() if each == quick else soak) for each in known]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", points("cdc.chunk_read"))
def test_a_table_is_read_in_chunks_while_others_write_and_the_reader_is_killed(big: Big, point: str) -> None:
    report = crash_test(
        big.program(),
        [point],
        prepare=big.prepare,
        expected=lambda: big.rows(big.shop.schema),
        seen=lambda: big.rows(big.replica.schema),
        passes=(4,),
        control=SOAK,
        limit=200,
    )
    assert report.clean, report
    assert report[0].expected > ROWS / 2


# -- how it is used -----------------------------------------------------------------------------------


def test_rows_come_by_their_key_and_can_be_taken_up_again(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE pairs (a text, b numeric, note text, PRIMARY KEY (b, a))")
    shop.app.execute(
        "INSERT INTO pairs SELECT chr(97 + i % 3) || '''\\', i / 3 * 1.50, NULL FROM generate_series(1, 10) i"
    )
    cdc = shop.reader(tables=[f"{shop.schema}.pairs"])
    chunks = cdc.snapshot_chunks(f"{shop.schema}.pairs", chunk_rows=3)
    seen, kept = [], None
    for transaction in chunks:
        seen += [each for each in transaction if each.operation is Operation.SNAPSHOT]
        cdc.acknowledge(transaction)
        if len(seen) == 6:
            kept = str(chunks.progress)
            break
    chunks.close()
    assert kept is not None
    rest = cdc.snapshot_chunks(f"{shop.schema}.pairs", chunk_rows=3, resume=ChunkProgress.parse(kept))
    for transaction in rest:
        seen += [each for each in transaction if each.operation is Operation.SNAPSHOT]
    rows = shop.app.execute("SELECT b, a FROM pairs ORDER BY b, a").fetchall()
    assert [each.key for each in seen] == rows
    assert len({(each.position, each.ordinal) for each in seen}) == 10
    assert {type(each.new_data["b"]) for each in seen} == {Decimal}
    assert rest.progress.done
    assert rest.progress.rows == 10
    assert list(cdc.snapshot_chunks(f"{shop.schema}.pairs", resume=rest.progress)) == []


def test_the_stream_goes_on_meanwhile_and_after_it(shop: Shop) -> None:
    shop.insert(*range(5))
    cdc = shop.reader()
    seen: list[tuple[str, Any]] = []
    for transaction in cdc.snapshot_chunks(shop.orders, chunk_rows=2):
        for event in transaction:
            if event.operation is Operation.MESSAGE:
                assert event.new_data["prefix"] == PREFIX
            else:
                seen.append((event.operation, event.new_data["id"]))
        if len(seen) == 2:
            shop.insert(100)
            shop.app.execute("UPDATE orders SET note = 'changed' WHERE id = 4")
        cdc.acknowledge(transaction)
    # The last row is as new as its change, whichever came first.
    assert sorted(key for operation, key in seen if operation is Operation.SNAPSHOT) == [0, 1, 2, 3, 4]
    assert [(operation, key) for operation, key in seen if operation is not Operation.SNAPSHOT] == [
        (Operation.INSERT, 100),
        (Operation.UPDATE, 4),
    ]
    shop.insert(101)
    assert [event.new_data["id"] for each in cdc.transactions(until=1) for event in each] == [101]


def test_an_empty_table_is_done_at_once(shop: Shop) -> None:
    cdc = shop.reader()
    chunks = cdc.snapshot_chunks(shop.orders)
    assert [event.operation for each in chunks for event in each] == [Operation.MESSAGE] * 2
    assert chunks.progress == ChunkProgress(shop.schema, "orders", done=True)


def test_the_connection_that_reads_chunks_may_be_lost(shop: Shop) -> None:
    shop.insert(*range(6))
    cdc = shop.reader()
    seen = []
    for transaction in cdc.snapshot_chunks(shop.orders, chunk_rows=2):
        seen += [each.new_data["id"] for each in transaction if each.operation is Operation.SNAPSHOT]
        shop.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%pg_logical_emit%%' "
            "AND application_name = 'streamlab cdc setup'"
        )
    assert seen == list(range(6))


@pytest.mark.parametrize("resumed", [False, True])
def test_columns_change_while_a_table_is_read(shop: Shop, resumed: bool) -> None:
    shop.insert(*range(10))
    cdc = shop.reader()
    changes = [
        "ALTER TABLE orders DROP COLUMN note",
        "ALTER TABLE orders ADD COLUMN more text DEFAULT 'more'",
        "ALTER TABLE orders ALTER COLUMN total TYPE text USING 'about ' || total",
        "CREATE TYPE kind AS ENUM ('new', 'old'); ALTER TABLE orders ADD COLUMN kind kind[] DEFAULT '{old,new}'",
    ]
    seen: list[Any] = []
    chunks = cdc.snapshot_chunks(shop.orders, chunk_rows=2)
    while not chunks.progress.done:
        for transaction in chunks:
            rows = [dict(each.new_data) for each in transaction if each.operation is Operation.SNAPSHOT]
            seen += rows
            cdc.acknowledge(transaction)
            if rows and changes:
                shop.app.execute(changes.pop(0))
            if rows and resumed:
                break
        chunks.close()
        chunks = cdc.snapshot_chunks(shop.orders, chunk_rows=2, resume=chunks.progress)
    assert [each.pop("id") for each in seen] == [*range(10)]
    # The next chunk is read before the last one is handed out.
    before, dropped = {"note": "new", "total": Decimal("1.5")}, {"total": Decimal("1.5")}
    added = {**dropped, "more": "more"}
    texts = {"total": "about 1.5", "more": "more"}
    assert [each for at, each in enumerate(seen) if at % 2] == [
        before, dropped, added, texts, {**texts, "kind": ["old", "new"]}
    ]  # fmt: skip
    assert seen[::2] == seen[1::2]


def test_a_key_that_changes_while_a_table_is_read_is_said(shop: Shop) -> None:
    shop.insert(*range(4))
    chunks = shop.reader().snapshot_chunks(shop.orders, chunk_rows=2)
    while not chunks.progress.rows:
        next(chunks)
    shop.app.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, note)")
    with pytest.raises(CannotCapture, match="was id and is id, note now"):
        list(chunks)


def test_what_cannot_be_read_in_chunks_is_said(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE keyless (a int)")
    shop.app.execute("ALTER TABLE keyless REPLICA IDENTITY FULL")
    cdc = shop.reader(tables=[shop.orders, f"{shop.schema}.keyless"])
    with pytest.raises(CannotCapture, match="no key"):
        cdc.snapshot_chunks(f"{shop.schema}.keyless")
    with pytest.raises(CannotCapture, match="There is no table"):
        cdc.snapshot_chunks("nowhere")
    with pytest.raises(CannotCapture, match="does not hold"):
        cdc.snapshot_chunks(f"{shop.schema}.other")
    with pytest.raises(SettingsError, match="chunk_rows=0"):
        cdc.snapshot_chunks(shop.orders, chunk_rows=0)
    with pytest.raises(SettingsError, match="progress of a.b"):
        cdc.snapshot_chunks(shop.orders, resume=ChunkProgress("a", "b"))


def test_a_unique_index_that_is_the_identity_is_the_key(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL)")
    shop.app.execute("CREATE UNIQUE INDEX by_code ON indexed (code)")
    shop.app.execute("ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_code")
    shop.app.execute("INSERT INTO indexed VALUES (1, 'z'), (2, 'y')")
    cdc = shop.reader(tables=[f"{shop.schema}.indexed"])
    events = [each for transaction in cdc.snapshot_chunks(f"{shop.schema}.indexed") for each in transaction]
    assert [each.key for each in events if each.operation is Operation.SNAPSHOT] == [("y",), ("z",)]
