"""`PostgreSQLCDC` on a real server: what is acknowledged is past, what is not comes again, whatever happens between."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import metrics, settings
from streamlab.cdc import slots
from streamlab.cdc.event import Operation
from streamlab.cdc.position import LSN
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError, PublicationUnusable, SettingsError, SlotInUse, SlotLost, SlotUnusable

from .conftest import Shop, eventually, interrupted

pytestmark = pytest.mark.integration


def ids(transactions: Any) -> list[int]:
    return [event.new_data["id"] for transaction in transactions for event in transaction]


def reconnects(cdc: PostgreSQLCDC) -> float:
    value: float = metrics.CDC_RECONNECTS.labels(cdc.name)._value.get()
    return value


# -- what comes ---------------------------------------------------------------------------------------


def test_transactions_come_whole_and_in_the_order_of_their_commits(shop: Shop) -> None:
    cdc = shop.reader()
    with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={shop.schema}") as slow:
        slow.execute("INSERT INTO orders VALUES (1, 'begun first', 1)")
        shop.insert(2)
        slow.execute("UPDATE orders SET note = 'committed last' WHERE id = 1")
        slow.commit()
    with pytest.raises(ZeroDivisionError), shop.app.transaction():
        shop.insert(3)
        raise ZeroDivisionError
    shop.app.execute("DELETE FROM orders WHERE id = 2")
    first, second, third = cdc.transactions(until=3)
    assert [(each.operation, each.new_data["id"], each.ordinal) for each in second] == [
        (Operation.INSERT, 1, 0),
        (Operation.UPDATE, 1, 1),
    ]
    assert ids([first]) == [2]
    assert [dict(each.old_data) for each in third] == [{"id": 2}]
    assert first.position < first.end_position <= second.position < third.position
    assert cdc.received == third.end_position
    assert {each.position for each in second} == {second.position}


def test_the_key_of_a_change_is_unique_where_its_lsn_is_not(shop: Shop) -> None:
    """Pitfall 3."""
    cdc = shop.reader()
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 50) i")
    shop.insert(*range(100, 120))
    events = [event for transaction in cdc.transactions(until=21) for event in transaction]
    assert len({(each.position, each.ordinal) for each in events}) == len(events) == 70


def test_batches_hold_whole_transactions(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(*range(7))
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(100, 119) i")
    batches = list(cdc.batches(max_rows=5, max_wait=0.3, idle=0.5))
    assert [len(each.transactions) for each in batches] == [5, 3]
    assert [len(each) for each in batches] == [5, 22]
    cdc.acknowledge(batches[0])
    assert cdc.acknowledged == batches[0].end_position
    assert [len(each) for each in cdc.batches(max_rows=100, max_wait=0.3, idle=0.5)] == [22]


def test_tail_goes_on_from_call_to_call_and_takes_nothing_away(shop: Shop) -> None:
    cdc = shop.reader()
    shop.app.execute("INSERT INTO orders SELECT i FROM generate_series(1, 3) i")
    shop.insert(4)
    assert [each.new_data["id"] for each in cdc.tail(2)] == [1, 2]
    assert [each.new_data["id"] for each in cdc.tail(9, limit=0.3)] == [3, 4]
    assert cdc.tail(1, limit=0.1) == []
    assert ids(cdc.transactions(until=2)) == [1, 2, 3, 4]


def test_logical_messages_truncations_and_several_tables_come(shop: Shop) -> None:
    """Pitfall 19."""
    cdc = shop.reader(tables=[shop.orders, f"{shop.schema}.other"])
    with shop.app.transaction():
        shop.app.execute("INSERT INTO other VALUES (1)")
        shop.app.execute("SELECT pg_logical_emit_message(true, 'note', 'within')")
        shop.app.execute("TRUNCATE orders, other")
    (transaction,) = cdc.transactions(until=1)
    assert [each.operation for each in transaction] == [
        Operation.INSERT,
        Operation.MESSAGE,
        Operation.TRUNCATE,
        Operation.TRUNCATE,
    ]
    assert next(each.new_data["content"] for each in transaction if each.operation is Operation.MESSAGE) == b"within"


def messages_of(transactions: Iterable[Transaction]) -> list[str]:
    """What each transaction holds: the keys of rows, and messages by their content."""
    return [
        " ".join(str(each.new_data.get("id", each.new_data.get("content", b"").decode())) for each in transaction)
        for transaction in transactions
    ]


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (False, ["1 a", "2"]),
        (["theirs"], ["1 a", "c", "d b", "2"]),
        (True, ["1 a", "b", "c", "d b", "e", "2"]),
    ],
)
@pytest.mark.parametrize("eager", [4 << 20, 1])
def test_messages_alone_come_where_they_were_asked_for(shop: Shop, asked: Any, seen: list[str], eager: int) -> None:
    cdc = shop.reader(messages=asked)
    cdc._events._decoder._spill.eager = eager  # type: ignore[attr-defined]

    def emit(prefix: str, content: str, *, transactional: bool = True) -> None:
        shop.app.execute("SELECT pg_logical_emit_message(%s, %s, %s)", [transactional, prefix, content])

    with shop.app.transaction():
        shop.app.execute("INSERT INTO orders VALUES (1)")
        emit("ours", "a")
    emit("ours", "b")
    emit("theirs", "c", transactional=False)
    with shop.app.transaction():
        emit("theirs", "d")
        emit("ours", "b")
    emit("ours", "e", transactional=False)
    shop.app.execute("INSERT INTO orders VALUES (2)")
    found = list(cdc.transactions(until=cdc.written()))
    assert messages_of(found) == seen
    assert messages_of(cdc.transactions(until=cdc.written())) == seen, "they come again, the same"
    cdc.acknowledge(found[0])
    assert messages_of(cdc.transactions(until=cdc.written())) == seen[1:]
    cdc.acknowledge(found[-1])
    emit("ours", "f")
    written = cdc.written()
    assert messages_of(cdc.transactions(until=written)) == (["f"] if asked is True else [])
    if asked is not True:
        # A slot whose log holds nothing else does not stand still.
        # It is told of a keepalive behind what was acknowledged, which `flush` does not wait for.
        eventually(lambda: cdc.flush() >= written)


@pytest.mark.parametrize("backlog", [None, 0])
def test_messages_alone_make_no_batch_of_frames(shop: Shop, backlog: int | None) -> None:
    cdc = shop.reader()
    shop.app.execute("SELECT pg_logical_emit_message(true, 'theirs', 'a')")
    assert list(cdc.frames(until=cdc.written(), backlog=backlog, max_wait=0.01)) == []
    shop.insert(1)
    (batch,) = cdc.frames(until=1, backlog=backlog, max_wait=0.01)
    assert batch.of("orders", shop.schema)["id"].to_list() == [1]
    asking = shop.reader(slot_name=shop.namespace.slot("other"), messages=["theirs"])
    shop.app.execute("SELECT pg_logical_emit_message(true, 'theirs', 'a')")
    (batch,) = asking.frames(until=1, backlog=backlog, max_wait=0.01)
    assert batch.of("", "")["prefix"].to_list() == ["theirs"]


def test_another_readers_watermarks_are_no_transactions(shop: Shop) -> None:
    shop.insert(1, 2, 3)
    other = shop.reader(slot_name=shop.namespace.slot("other"))
    cdc = shop.reader()
    marked = list(cdc.snapshot_chunks(shop.orders, chunk_rows=1))
    assert len(marked) == 6
    assert list(other.transactions(until=other.written())) == []
    # Its own, too, once the snapshot is over.
    assert list(cdc.transactions(until=cdc.written())) == []


@pytest.mark.parametrize(("protocol", "binary"), [(1, True), (2, False), (3, False), (4, True)])
def test_every_protocol_brings_the_same(shop: Shop, protocol: int, binary: bool) -> None:
    cdc = shop.reader(protocol=protocol, binary=binary)
    shop.app.execute("INSERT INTO orders SELECT i, 'x', i FROM generate_series(1, 20) i")
    (transaction,) = cdc.transactions(until=1)
    assert [int(each.new_data["total"]) for each in transaction] == list(range(1, 21))


def test_types_that_users_made_are_read_also_when_they_are_made_while_the_stream_runs(shop: Shop) -> None:
    shop.app.execute("CREATE TYPE mood AS ENUM ('calm', 'busy')")
    shop.app.execute("ALTER TABLE orders ADD COLUMN moods mood[]")
    cdc = shop.reader()
    transactions = cdc.transactions()
    shop.app.execute("INSERT INTO orders (id, moods) VALUES (1, '{calm,busy}')")
    assert next(iter(next(transactions))).new_data["moods"] == ["calm", "busy"]
    shop.app.execute("CREATE TYPE place AS (shelf int, row text)")
    shop.app.execute("ALTER TABLE orders ADD COLUMN place place")
    shop.app.execute("INSERT INTO orders (id, place) VALUES (2, '(7,top)')")
    assert next(iter(next(transactions))).new_data["place"] == (7, "top")


def test_a_table_with_full_identity_still_tells_its_primary_key(shop: Shop) -> None:
    shop.app.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    cdc = shop.reader()
    shop.insert(1)
    ((event,),) = cdc.transactions(until=1)
    assert event.primary_key == ("id",)


# -- acknowledgement ----------------------------------------------------------------------------------


def test_what_is_acknowledged_is_past_and_what_is_not_comes_again(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2, 3)
    first, second, _ = cdc.transactions(until=3)
    cdc.acknowledge(first)
    assert ids(cdc.transactions(until=2)) == [2, 3]
    cdc.acknowledge(second)
    cdc.close()
    again = shop.reader(initialize=False)
    assert ids(again.transactions(until=1)) == [3]
    assert shop.confirmed() == str(second.end_position)


def test_acknowledging_the_commit_lsn_brings_the_transaction_again(shop: Shop) -> None:
    """Pitfall 1: the end of the commit record is what an acknowledgement says."""
    cdc = shop.reader()
    shop.insert(1, 2)
    (first,) = cdc.transactions(until=1)
    cdc.acknowledge(first.position)
    assert ids(cdc.transactions(until=1)) == [1]
    cdc.acknowledge(first.end_position)
    assert ids(cdc.transactions(until=1)) == [2]


def test_an_acknowledgement_beyond_what_was_handed_out_loses_nothing(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """Pitfall 2: the server would believe it, and drop later commits in silence."""
    cdc = shop.reader()
    shop.insert(1)
    (first,) = cdc.transactions(until=1)
    cdc.acknowledge(LSN(first.end_position + 100_000_000))
    assert "not handed out yet" in caplog.text
    assert cdc.acknowledged == first.end_position
    shop.insert(2)
    assert ids(cdc.transactions(until=1)) == [2]
    cdc.close()
    assert ids(shop.reader(initialize=False).transactions(until=1)) == [2]


def test_acknowledgements_are_monotonic(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2)
    first, second = cdc.transactions(until=2)
    cdc.acknowledge(second)
    cdc.acknowledge(first)
    assert cdc.acknowledged == second.end_position
    with pytest.raises(SettingsError, match="no position"):
        cdc.acknowledge("0/1")  # type: ignore[arg-type]


def test_a_slot_cannot_be_rewound_below_what_was_confirmed(shop: Shop) -> None:
    """Pitfall 4: a position from before is no way back."""
    cdc = shop.reader()
    shop.insert(1, 2)
    first, second = cdc.transactions(until=2)
    cdc.acknowledge(second)
    cdc.close()
    again = shop.reader(initialize=False, resume_after=first.position)
    assert list(again.transactions(idle=0.5)) == []


def test_a_position_that_the_sink_kept_is_skipped_to(shop: Shop) -> None:
    """Pitfall 5: the effect was stored, and the reader died before it acknowledged."""
    cdc = shop.reader()
    shop.insert(1, 2, 3)
    kept = [transaction.end_position for transaction in cdc.transactions(until=2)][-1]
    cdc.close()
    assert isinstance(kept, LSN)
    again = shop.reader(initialize=False, resume_after=kept)
    (third,) = again.transactions(until=1)
    assert ids([third]) == [3]
    # The server is told, too.
    again.close()
    assert shop.confirmed() == str(kept)


def test_a_position_of_another_server_is_refused(shop: Shop) -> None:
    cdc = shop.reader(resume_after=None)
    with pytest.raises(SlotUnusable, match="has written only up to"):
        next(shop.reader(initialize=False, resume_after=LSN(1 << 60)).transactions())
    cdc.close()


def test_the_server_is_told_soon_while_reading_goes_on(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2)
    transactions = cdc.transactions()
    for _ in range(2):
        transaction = next(transactions)
        cdc.acknowledge(transaction)
    # Nobody reads: the stream's own thread says it.
    eventually(lambda: shop.confirmed() == str(transaction.end_position), 5)


def test_traffic_that_is_not_published_moves_an_idle_slot(shop: Shop) -> None:
    """Pitfall 7: otherwise a quiet slot keeps the log for ever."""
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=20)
    cdc.acknowledge(next(transactions))
    before = LSN.parse(shop.confirmed())
    reader = threading.Thread(target=lambda: next(transactions, None))
    reader.start()
    shop.app.execute("INSERT INTO other SELECT generate_series(1, 2000)")
    written = LSN.parse(shop.value("SELECT pg_current_wal_lsn()::text"))
    eventually(lambda: LSN.parse(shop.confirmed()) >= written)
    assert written > before + 100_000
    cdc.stop()
    reader.join(5)
    assert cdc.lag().size is not None


def test_an_unacknowledged_transaction_holds_the_slot_whatever_else_is_written(shop: Shop) -> None:
    """The other side of pitfall 7."""
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=0.7)
    first = next(transactions)
    shop.app.execute("INSERT INTO other SELECT generate_series(1, 2000)")
    assert list(transactions) == []
    cdc.close()
    assert LSN.parse(shop.confirmed()) <= first.position


# -- the connection -----------------------------------------------------------------------------------


def test_a_reader_that_pauses_keeps_its_stream(shop: Shop) -> None:
    """Pitfall 6: without status updates the server ends it after wal_sender_timeout."""
    dsn = psycopg.conninfo.make_conninfo(settings.postgres_dsn("cdc"), options="-c wal_sender_timeout=1s")
    cdc = shop.reader(dsn=dsn)
    shop.insert(1)
    transactions = cdc.transactions(until=2)
    assert ids([next(transactions)]) == [1]
    served_by = shop.walsender()
    time.sleep(2.5)  # the pause is what is tested
    shop.insert(2)
    assert ids(transactions) == [2]
    assert shop.walsender() == served_by
    assert reconnects(cdc) == 0


def test_a_stream_that_is_cut_goes_on_without_loss_or_repetition(shop: Shop) -> None:
    """Pitfall 8: the end of the stream is no end of the data."""
    cdc = shop.reader()
    seen = []
    transactions = cdc.transactions(until=30)
    for number in range(30):
        shop.insert(number)
        if number % 10 == 5:
            shop.kill_walsender()
        transaction = next(transactions)
        seen += ids([transaction])
        if number % 3 == 0:
            cdc.acknowledge(transaction)
    assert seen == list(range(30))
    assert reconnects(cdc) == 3


def test_what_waits_in_the_reader_when_it_is_cut_comes_again(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(*range(10))
    transactions = cdc.transactions(idle=1)
    seen = ids([next(transactions)])
    shop.kill_walsender()
    eventually(lambda: shop.walsender() is None)
    shop.insert(10)
    seen += ids(transactions)
    assert seen == list(range(11))


def test_a_restart_of_the_server_is_survived(shop: Shop, stack: Any) -> None:
    cdc = shop.reader()
    seen: list[int] = []
    cdc.add_handler(lambda event: seen.append(event.new_data["id"]))
    cdc.start()
    shop.insert(1, 2)
    eventually(lambda: seen == [1, 2])
    stack.down(["postgres"])
    stack.up(["postgres"])
    with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={shop.schema}") as app:
        app.execute("INSERT INTO orders VALUES (3)")
    eventually(lambda: 3 in seen, 30)
    cdc.stop()
    assert seen == [1, 2, 3]


def test_a_server_that_falls_silent_is_given_up(shop: Shop) -> None:
    """A stopped process keeps its connection, and answers nothing."""
    cdc = shop.reader(silence=0.6)
    shop.insert(1)
    transactions = cdc.transactions(until=2)
    seen = ids([next(transactions)])
    walsender = shop.walsender()
    os.kill(walsender, signal.SIGSTOP)
    go_on = threading.Timer(1.5, os.kill, (walsender, signal.SIGCONT))
    go_on.start()
    try:
        shop.insert(2)
        seen += ids(transactions)
    finally:
        go_on.join()
    assert seen == [1, 2]
    assert reconnects(cdc) == 1


def test_a_second_reader_waits_for_the_first_and_is_told_by_whom_the_slot_is_held(shop: Shop) -> None:
    """Pitfall 12: 55006 is worth waiting for, for a while."""
    first = shop.reader()
    shop.insert(1)
    assert len(first.tail(1)) == 1
    second = shop.reader(initialize=False)
    second._reader._policies = (second._reader._policies[0].__class__(attempts=3, seconds=0.3, base=0.01, cap=0.1),) * 2
    with pytest.raises(SlotInUse, match=f"process {shop.walsender()}"):
        next(second.transactions())
    patient = shop.reader(initialize=False)
    closing = threading.Timer(0.3, first.close)
    closing.start()
    assert ids(patient.transactions(until=1)) == [1]
    closing.join()


def test_a_slot_is_dropped_once_the_server_has_ended_its_own_reader(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is in the midst of a large row notices much later that its reader has gone: here it is stopped."""
    monkeypatch.setattr(slots, "_FREED", 0.1)
    caplog.set_level(logging.INFO, "streamlab.cdc.slots")
    cdc = shop.reader()
    shop.insert(1)
    assert len(cdc.tail(1)) == 1
    walsender = shop.walsender()
    os.kill(walsender, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        try:
            dropping = pool.submit(cdc.drop)
            eventually(lambda: dropping.done() or "own process" in caplog.text)
            assert not dropping.done(), dropping.exception()
            assert shop.walsender() == walsender
        finally:
            os.kill(walsender, signal.SIGCONT)
        dropping.result(30)
    assert shop.confirmed() is None


def test_a_slot_that_another_reads_is_not_waited_for_as_long(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_FREED", 0.1)
    shop.insert(1)
    former = shop.reader()
    assert former.tail(1, limit=0.1) == []
    former.close()
    reading = shop.reader()
    shop.insert(2)
    assert len(reading.tail(1)) == 1
    with pytest.raises(SlotInUse, match="is being read"):
        former.drop()
    reading.close()
    former.drop()
    assert shop.confirmed() is None


def test_a_slot_that_lost_its_log_is_refused_and_not_made_again(shop: Shop) -> None:
    """Pitfall 12: to make it again in silence would be a silent loss."""
    cdc = shop.reader()
    cdc.close()
    try:
        shop.admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        shop.admin.execute("SELECT pg_reload_conf()")
        for number in range(6):
            shop.admin.execute("SELECT pg_switch_wal()")
            shop.insert(number)
        shop.admin.execute("CHECKPOINT")
        status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
        eventually(lambda: shop.value(status, shop.slot) == "lost")
    finally:
        shop.admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.admin.execute("SELECT pg_reload_conf()")
    for attempt in (cdc.initialize, lambda: next(cdc.transactions())):
        with pytest.raises(SlotLost, match="changes that it stood for are gone") as caught:
            attempt()
        assert "cdc.drop(), cdc.initialize()" in caught.value.fix
    cdc.drop()
    cdc.initialize()
    shop.insert(100)
    assert ids(cdc.transactions(until=1)) == [100]


# -- publications -------------------------------------------------------------------------------------


def test_changes_from_before_the_publication_are_an_error_and_not_silence(shop: Shop) -> None:
    """Pitfall 11: PostgreSQL 18 only warns."""
    cdc = shop.reader()
    shop.app.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(shop.publication)))
    with pytest.raises(PublicationUnusable, match="There is no publication"):
        next(cdc.transactions())
    shop.insert(1)
    cdc.initialize()
    shop.insert(2)
    with pytest.raises(PublicationUnusable, match="leaves out changes"):
        next(cdc.transactions(idle=5))


def test_a_publication_that_goes_while_it_is_read_is_an_error(shop: Shop) -> None:
    """Pitfall 11, in the middle of a stream."""
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=5)
    assert ids([next(transactions)]) == [1]
    shop.app.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(shop.publication)))
    shop.insert(2)
    with pytest.raises(PublicationUnusable, match="leaves out changes"):
        next(transactions)


def test_a_table_that_left_the_publication_is_noticed_when_the_stream_is_taken_up_again(shop: Shop) -> None:
    """Pitfall 11, after a reconnect."""
    cdc = shop.reader(tables=[shop.orders, f"{shop.schema}.other"])
    shop.insert(1)
    transactions = cdc.transactions(idle=5)
    assert ids([next(transactions)]) == [1]
    shop.app.execute(sql.SQL("ALTER PUBLICATION {} DROP TABLE other").format(sql.Identifier(shop.publication)))
    shop.kill_walsender()
    with pytest.raises(PublicationUnusable, match="SET TABLE"):
        next(transactions)


# -- interrupts, stop and close -----------------------------------------------------------------------


# An interrupt between the making and the keeping of a connection leaves it to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_leave_slot_and_reader_usable(shop: Shop) -> None:
    """Pitfall 9: also between two instructions of the reader, while data flows."""
    cdc = shop.reader()
    shop.app.execute("DO $$ BEGIN FOR i IN 1..1500 LOOP INSERT INTO orders VALUES (i); COMMIT; END LOOP; END $$")
    seen: set[int] = set()

    def read() -> None:
        for transaction in cdc.transactions(idle=2):
            seen.update(ids([transaction]))
            cdc.acknowledge(transaction)
            if len(seen) == 1500:
                break

    moment = random.Random(7)
    interrupts = sum(interrupted(read, moment.uniform(0, 0.15)) for _ in range(30))
    read()
    assert seen == set(range(1, 1501))
    assert interrupts > 5
    shop.insert(9999)
    assert ids(cdc.transactions(until=1)) == [9999]


def test_an_interrupt_while_waiting_keeps_the_connection(shop: Shop) -> None:
    """Pitfall 9: psycopg's own wait would have cancelled the stream."""
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions()
    cdc.acknowledge(next(transactions))
    served_by = shop.walsender()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(transactions)
    timer.join()
    shop.insert(2)
    assert ids(cdc.transactions(until=1)) == [2]
    assert shop.walsender() == served_by


def test_a_new_iteration_ends_the_old_one(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2)
    old = cdc.transactions()
    next(old)
    assert ids(cdc.transactions(until=1)) == [1]
    with pytest.raises(ChangeStreamError, match="another one was begun"):
        next(old)


def test_stop_ends_an_iteration_from_another_thread(shop: Shop) -> None:
    cdc = shop.reader()
    ended: list[list[Transaction]] = []
    thread = threading.Thread(target=lambda: ended.append(list(cdc.transactions())))
    thread.start()
    eventually(shop.walsender)
    cdc.stop()
    thread.join(5)
    assert ended == [[]]


def test_close_frees_the_slot_at_once_and_tells_the_last_acknowledgement(shop: Shop) -> None:
    cdc = shop.reader()
    for number in range(5):
        shop.insert(number)
        (transaction,) = cdc.transactions(until=1)
        cdc.acknowledge(transaction)
        cdc.close()
        assert shop.walsender() is None
        assert shop.confirmed() == str(transaction.end_position)


def test_a_reader_that_is_forgotten_lets_go_of_the_slot(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1)
    assert len(cdc.tail(1)) == 1
    shop.readers.remove(cdc)
    with pytest.warns(ResourceWarning):
        del cdc
        gc.collect()
        eventually(lambda: shop.walsender() is None)


def test_the_password_is_shown_nowhere(shop: Shop) -> None:
    cdc = shop.reader(initialize=False, dsn="host=127.0.0.1 port=1 user=u password=hunter2 dbname=d")
    assert "hunter2" not in repr(cdc) + str(cdc) + repr(cdc.dsn) + f"{cdc.dsn}"
    with pytest.raises(ChangeStreamError) as caught:
        cdc.initialize()
    assert "hunter2" not in str(caught.value)


def test_events_are_counted(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2)
    shop.app.execute("DELETE FROM orders")
    list(cdc.transactions(until=3))
    text = metrics.render()
    assert f'streamlab_cdc_events_total{{operation="insert",source="{shop.slot}"}} 2.0' in text
    assert f'streamlab_cdc_events_total{{operation="delete",source="{shop.slot}"}} 2.0' in text
    assert f'streamlab_cdc_transactions_total{{source="{shop.slot}"}} 3.0' in text


def test_lag_says_how_much_log_was_not_acknowledged(shop: Shop) -> None:
    cdc = shop.reader()
    shop.app.execute("INSERT INTO orders SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")
    (transaction,) = cdc.transactions(until=1)
    lag = cdc.lag()
    assert lag.size is not None
    assert lag.size > 500_000
    assert lag.seconds is not None
    assert 0 <= lag.seconds < 60
    cdc.acknowledge(transaction)
    assert (cdc.lag().size or 0) < lag.size / 10
