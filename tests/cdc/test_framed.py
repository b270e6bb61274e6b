"""Frames and backlogs of `PostgreSQLCDC`: the same changes as its events, once each, whatever happens meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from streamlab import metrics, settings
from streamlab.cdc.frames import FrameBatch
from streamlab.cdc.position import LSN
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.recording import Recording
from streamlab.errors import CannotCapture, ChangeStreamError, NotAcknowledged, SettingsError

from .conftest import Shop, interrupted

pytestmark = pytest.mark.integration

Row = tuple[int, int, int]
"""Position, ordinal, id."""


def rows(batches: Iterable[FrameBatch]) -> list[Row]:
    return [
        row for batch in batches for frame in batch for row in frame.data.select("position", "ordinal", "id").rows()
    ]


def events(transactions: Any) -> list[Row]:
    return [(int(e.position), e.ordinal, (e.new_data or e.old_data)["id"]) for each in transactions for e in each]


def acknowledged(cdc: PostgreSQLCDC, batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        yield batch
        cdc.acknowledge(batch)


def fill(shop: Shop, transactions: int, of: int = 10, first: int = 1) -> None:
    shop.app.execute(
        f"DO $$ BEGIN FOR k IN 0..{transactions - 1} LOOP INSERT INTO orders "
        f"SELECT {first} + k * {of} + g, 'x', g FROM generate_series(0, {of - 1}) g; COMMIT; END LOOP; END $$"
    )


@contextmanager
def writing(shop: Shop, first: int) -> Iterator[list[int]]:
    """Another session that inserts one row a transaction."""
    over, written = threading.Event(), []

    def write() -> None:
        number = first
        while not over.is_set():
            shop.admin.execute("INSERT INTO orders VALUES (%s)", [number])
            written.append(number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield written
    finally:
        over.set()
        writer.join()


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("backlog", [0, None])
def test_frames_say_what_events_say(shop: Shop, binary: bool, backlog: int | None) -> None:
    cdc = shop.reader(binary=binary)
    fill(shop, 30)
    shop.app.execute("UPDATE orders SET note = 'y' WHERE id < 20")
    shop.app.execute("DELETE FROM orders WHERE id < 10")
    wanted = events(cdc.transactions(until=32))
    batches = list(cdc.frames(max_rows=100, backlog=backlog, until=cdc.written()))
    assert rows(batches) == wanted
    assert sum(batch.transactions for batch in batches) == 32
    first = batches[0].of("orders", shop.schema)
    assert first.row(0, named=True)["note"] == "x"
    # Nothing was acknowledged, so it comes again, as either.
    assert rows(cdc.frames(backlog=backlog, until=1)) == wanted
    assert events(cdc.transactions(until=32)) == wanted
    cdc.acknowledge(batches[0])
    assert events(cdc.transactions(until=cdc.written())) == wanted[len(batches[0]) :]


@pytest.mark.parametrize("kind", ["frames", "catch up"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_backlog_and_the_stream_fit_together_while_others_write(shop: Shop, kind: str, cut: bool) -> None:
    cdc = shop.reader()
    fill(shop, 300)
    found: list[Row] = []
    with writing(shop, 100_000) as written:
        if kind == "frames":
            stream: Iterator[Any] = cdc.frames(max_rows=200, max_wait=0.05, backlog=0)
            take: Any = rows
        else:
            stream, take = cdc.catch_up(rows=700), events
        for number, batch in enumerate(acknowledged(cdc, stream)):
            found += take([batch])
            if cut and number in {2, 6}:
                shop.kill_walsender()  # or what reads the chunk
            if found[-1][2] >= 100_000 and len(written) > 50:
                cdc.acknowledge(batch)
                break
        if kind == "frames":
            assert found[-1][2] >= 100_000
    assert found[-1][2] >= 3000, "the backlog was read"
    found += events(cdc.transactions(until=cdc.written()))
    assert [each[2] for each in found] == [*range(1, 3001), *written]
    assert len(set(found)) == len(found)
    assert cdc.positions().confirmed is not None


def test_a_backlog_that_is_not_acknowledged_goes_on_as_a_stream(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamlab")
    cdc = shop.reader()
    fill(shop, 100)
    assert [each[2] for each in rows(cdc.frames(max_rows=50, backlog=0, idle=0.3))] == [*range(1, 1001)]
    assert "read through COPY" in caplog.text
    assert "the stream goes on here" in caplog.text
    assert cdc.positions().confirmed == LSN.parse(shop.confirmed())
    assert len(rows(cdc.frames(backlog=0, until=1))) == 1000, "it comes again"


def test_a_connection_that_is_lost_repeats_nothing(shop: Shop) -> None:
    cdc = shop.reader()
    found = []
    fill(shop, 10)
    for number, batch in enumerate(cdc.frames(max_rows=30, max_wait=0.05, backlog=None)):
        found += [each[2] for each in rows([batch])]
        if number in {0, 3}:
            shop.kill_walsender()
        fill(shop, 1, first=1000 + 10 * number)
        if number == 8:
            break
    assert found[:100] == [*range(1, 101)]
    assert len(set(found)) == len(found)
    assert cdc.acknowledged is None or cdc.acknowledged < batch.end_position


@pytest.mark.parametrize("backlog", [0, None])
def test_a_large_transaction_comes_in_parts_each_once(shop: Shop, backlog: int | None) -> None:
    cdc = shop.reader()
    shop.insert(0)
    fill(shop, 1, 60_000)
    shop.insert(90_000)
    batches = cdc.frames(max_rows=2000, max_wait=0.05, backlog=backlog)
    assert cdc._framing is not None
    cdc._framing[1].decoder.max_bytes = 100_000
    found: list[Row] = []
    parts = 0
    for batch in acknowledged(cdc, batches):
        found += rows([batch])
        parts += not batch.complete
        if parts == 2:
            shop.kill_walsender()
        if not batch.complete:
            assert batch.end_position <= found[-1][0], "to acknowledge it acknowledges nothing of its own"
        if found[-1][2] == 90_000:
            cdc.acknowledge(batch)
            break
    assert parts >= 2
    assert [each[2] for each in found] == [0, *range(1, 60_001), 90_000]
    assert [each[1] for each in found[1:-1]] == list(range(60_000))
    # One that is left in the midst comes again from its begin.
    fill(shop, 1, 60_000, first=100_000)
    for batch in acknowledged(cdc, cdc.frames(backlog=backlog)):
        if not batch.complete:
            break
    cdc.acknowledge(batch)
    again = rows(acknowledged(cdc, cdc.frames(backlog=backlog, until=cdc.written())))
    assert [each[2] for each in again if each[2] >= 100_000] == [*range(100_000, 160_000)]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_frames_of_transactions_in_progress(shop: Shop, protocol: int) -> None:
    dsn = make_conninfo(str.__str__(settings.postgres_dsn("cdc")), options="-c logical_decoding_work_mem=64kB")
    cdc = shop.reader(dsn=dsn, protocol=protocol)
    stream = cdc.frames(max_rows=1500, max_wait=0.05, backlog=None)
    assert cdc._framing is not None
    cdc._framing[1].decoder.max_bytes = 300_000
    received = metrics.CDC_RECEIVED_BYTES.labels(cdc.name)._value
    small = 100_000
    with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={shop.schema}") as large:
        large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(1, 5000) i")
        large.execute("SAVEPOINT a")
        large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(20001, 22000) i")
        while received.get() < 900_000:  # the savepoint's rows too, before it is rolled back
            shop.insert(small)
            assert [each[2] for each in rows([next(stream)])] == [small], "the large one is not committed"
            small += 1
        large.execute("ROLLBACK TO a")
        large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(30001, 32000) i")
        large.commit()
    shop.insert(90_000)
    found: list[Row] = []
    for batch in stream:
        found += rows([batch])
        if found[-1][2] == 90_000:
            break
    assert [each[2] for each in found] == [*range(1, 5001), *range(30001, 32001), 90_000]
    assert [each[1] for each in found[:-1]] == list(range(7000))
    cdc.close()
    before = small - 100_000
    assert events(shop.reader(initialize=False).transactions(until=before + 2))[before:] == found


def test_a_session_gives_frames_and_acknowledges_by_itself(shop: Shop) -> None:
    with shop.session() as cdc:
        stream = cdc.frames(max_rows=10, max_wait=0.05)
        shop.insert(1)
        first = next(stream)
        shop.insert(2)
        second = next(stream)
        assert cdc.acknowledged == first.end_position
        # The one that was left comes again.
        assert rows([next(cdc.frames(max_wait=0.05))]) == rows([second])
        with pytest.raises(SettingsError, match="has been read already"):
            next(cdc.transactions())
    with shop.session() as cdc, pytest.raises(SettingsError, match=r"until=cdc.written\(\)"):
        next(cdc.catch_up())


def test_a_slot_that_is_held_for_a_moment_is_waited_for(shop: Shop) -> None:
    fill_from = shop.reader()
    fill(shop, 3)
    next(fill_from.transactions())
    closing = threading.Timer(0.3, fill_from.close)
    closing.start()
    found = rows(shop.reader(initialize=False).frames(backlog=0, until=1))
    closing.join()
    assert [each[2] for each in found] == [*range(1, 31)]


def test_a_slot_with_two_phase_commit_is_refused(shop: Shop) -> None:
    cdc = shop.reader(protocol=3, two_phase=True)
    for iterate in (cdc.frames, lambda: cdc.frames(backlog=None), cdc.catch_up):
        with pytest.raises(CannotCapture, match="two-phase"):
            next(iterate())
    shop.insert(1)
    assert len(list(cdc.transactions(until=1))) == 1


def test_interrupts_take_nothing_away(shop: Shop) -> None:
    cdc = shop.reader()
    fill(shop, 400)
    seen: list[Row] = []

    def read() -> None:
        for batch in acknowledged(cdc, cdc.frames(max_rows=100, backlog=0, until=cdc.written())):
            seen.extend(rows([batch]))

    moment = random.Random(3)
    hits = sum(interrupted(read, moment.uniform(0.0, 0.06)) for _ in range(15))
    read()
    assert [each[2] for each in sorted(set(seen))] == [*range(1, 4001)]
    assert hits > 2
    state = "SELECT wal_status = 'reserved' FROM pg_replication_slots WHERE slot_name = %s"
    assert shop.value(state, shop.slot)


def test_stop_ends_a_backlog_and_metrics_and_the_recorder_see_it(shop: Shop, tmp_path: Any) -> None:
    cdc = shop.reader(record=tmp_path / "all.slrec")
    fill(shop, 100)
    before = metrics.CDC_EVENTS.labels(cdc.name, "insert")._value.get()
    found = []
    for batch in acknowledged(cdc, cdc.frames(max_rows=100, backlog=0)):
        found += rows([batch])
        if len(found) >= 300:
            cdc.stop()
    assert len(found) < 1000
    assert metrics.CDC_EVENTS.labels(cdc.name, "insert")._value.get() == before + len(found)
    found += rows(acknowledged(cdc, cdc.frames(backlog=0, until=cdc.written())))
    assert [each[2] for each in found] == [*range(1, 1001)]
    shop.insert(5000)
    found += rows(cdc.frames(backlog=None, until=1))
    cdc.close()
    with Recording.open(tmp_path / "all.slrec").source() as source:
        recorded = events(source.transactions())
    assert sorted(set(recorded)) == found


# -- events of a backlog --------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_a_backlog_of_events_has_to_be_acknowledged(shop: Shop, lazy: bool) -> None:
    cdc = shop.reader(lazy=lazy, binary=lazy)
    fill(shop, 20)
    wanted = events(cdc.transactions(until=20))
    assert events(acknowledged(cdc, cdc.catch_up(rows=35))) == wanted
    assert list(cdc.catch_up()) == []
    fill(shop, 20, first=1000)
    with pytest.raises(NotAcknowledged, match="Acknowledge each"):
        list(cdc.catch_up(rows=35))
    (first, *_) = acknowledged(cdc, cdc.catch_up())
    assert events([first])[0][2] == 1000
    shop.insert(5000)
    assert [each[2] for each in events(cdc.transactions(until=1))] == [5000]


def test_one_that_is_left_moves_the_slot_behind_what_was_acknowledged(shop: Shop) -> None:
    cdc = shop.reader()
    fill(shop, 10)
    for number, transaction in enumerate(cdc.catch_up()):
        if number == 3:
            break
        cdc.acknowledge(transaction)
    assert cdc.flush() == cdc.acknowledged
    assert [each[2] for each in events(cdc.transactions(until=7))] == [*range(31, 101)]


# -- until, and acknowledgements that can be waited for -------------------------------------------


def test_until_what_is_written_ends_without_waiting(shop: Shop) -> None:
    cdc = shop.reader(tables=[shop.orders])
    assert list(cdc.transactions(until=cdc.written())) == []
    shop.insert(*range(5))
    shop.app.execute("INSERT INTO other SELECT generate_series(1, 1000)")  # not ours, and behind the last of ours
    now = cdc.written()
    found = list(cdc.transactions(until=now))
    assert [each[2] for each in events(found)] == [*range(5)]
    assert [len(each) for each in cdc.batches(max_rows=2, until=now)] == [2, 2, 1]
    assert [len(each) for each in cdc.frames(max_rows=100, until=now)] == [5]
    assert len(list(cdc.transactions(until=found[2].end_position))) == 3
    assert len(list(cdc.transactions(until=found[2].position))) == 3
    cdc.acknowledge(found[-1])
    for _ in range(3):
        # Nothing comes, and the server has been told everything: it has to be asked.
        assert list(cdc.transactions(until=cdc.written())) == []
    assert list(cdc.transactions(until=now)) == []
    with pytest.raises(SettingsError, match="neither a count nor a position"):
        cdc.transactions(until="now")  # type: ignore[arg-type]


def test_until_holds_over_a_lost_connection(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2, 3)
    stream = cdc.transactions(until=cdc.written())
    first = next(stream)
    cdc.acknowledge(first)
    shop.kill_walsender()
    assert [each[2] for each in events(stream)] == [2, 3]


def test_flush_waits_until_the_slot_has_confirmed(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(*range(3))
    first, second, _third = cdc.transactions(until=3)
    cdc.acknowledge(first)
    assert cdc.flush() == first.end_position == LSN.parse(shop.confirmed())
    positions = cdc.positions()
    assert positions.confirmed == first.end_position
    assert positions.restart is not None
    assert positions.restart <= first.end_position <= positions.written
    cdc.acknowledge(second)
    cdc.close()
    assert cdc.flush() >= second.end_position, "also where nobody reads any more"
    with shop.session() as session:
        shop.insert(7)
        (transaction,) = session.transactions(until=1)
        assert session.flush() >= transaction.end_position


def test_flush_says_when_the_server_has_not_confirmed(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1)
    (transaction,) = cdc.transactions(until=1)
    cdc.acknowledge(transaction)
    pid = shop.walsender()
    cdc._reader.tell = lambda: True  # type: ignore[method-assign]
    cdc._reader.connection._streaming = False  # type: ignore[union-attr]
    with pytest.raises(ChangeStreamError, match="has confirmed"):
        cdc.flush(timeout=0.2)
    assert shop.walsender() == pid
