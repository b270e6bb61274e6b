"""Handlers in a thread: what fails stops the stream before the acknowledgement, or goes where a policy says."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import InMemoryDeadLetters, Status, replay
from streamlab.errors import ChangeStreamError, SettingsError
from streamlab.retry import RetryPolicy

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration

QUICK = RetryPolicy(attempts=4, seconds=10, base=0.001, cap=0.01)


class Sink:
    """Keeps what it is given, and fails as it is told."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.fails: dict[int, list[Exception]] = {}

    def __call__(self, event: ChangeEvent) -> None:
        number = (event.new_data or event.old_data)["id"]
        if self.fails.get(number):
            raise self.fails[number].pop(0)
        self.seen.append(number)


def run(cdc: PostgreSQLCDC, handler: Any) -> None:
    cdc.add_handler(handler)
    cdc.start()


def test_handlers_see_every_change_in_order_and_then_it_is_acknowledged(shop: Shop) -> None:
    cdc, sink, whole = shop.reader(), Sink(), list[Transaction]()
    cdc.add_transaction_handler(whole.append)
    run(cdc, sink)
    assert cdc.running
    shop.insert(1, 2)
    shop.app.execute("INSERT INTO orders VALUES (3), (4)")
    eventually(lambda: len(whole) == 3)
    cdc.stop()
    assert not cdc.running
    assert sink.seen == [1, 2, 3, 4]
    cdc.close()
    assert shop.confirmed() == str(whole[-1].end_position)


def test_a_handler_that_raises_stops_the_stream_and_stop_hands_the_error_on(shop: Shop) -> None:
    cdc, sink = shop.reader(), Sink()
    sink.fails[2] = [ValueError("no such product")]
    run(cdc, sink)
    shop.insert(1, 2, 3)
    eventually(lambda: not cdc.running)
    assert shop.walsender() is None, "another reader can have the slot"
    with pytest.raises(ValueError, match="no such product"):
        cdc.stop()
    cdc.stop()
    cdc.start()
    eventually(lambda: sink.seen == [1, 2, 3])
    cdc.stop()


async def later(event: object) -> None:
    """Does nothing until somebody awaits it."""


class Later:
    async def __call__(self, event: object) -> None:
        """Does nothing until somebody awaits it."""


def test_a_coroutine_is_no_handler(shop: Shop) -> None:
    cdc = shop.reader()

    def one_by_one(event: object) -> Any:
        yield event

    for handler in (later, Later(), one_by_one):
        with pytest.raises(SettingsError, match="acknowledged and lost"):
            cdc.add_handler(handler)
        with pytest.raises(SettingsError, match="acknowledged and lost"):
            cdc.add_transaction_handler(handler)
    with pytest.raises(ChangeStreamError, match="no handler"):
        cdc.start()


@pytest.mark.parametrize("options", [{}, {"retry": QUICK, "dead_letters": InMemoryDeadLetters()}], ids=["", "policies"])
def test_a_coroutine_that_comes_back_stops_the_stream_before_the_acknowledgement(
    shop: Shop, options: dict[str, Any]
) -> None:
    cdc, before = shop.reader(**options), shop.confirmed()
    run(cdc, lambda event: later(event))
    shop.insert(1)
    eventually(lambda: not cdc.running)
    with pytest.raises(SettingsError, match="acknowledged and lost"):
        cdc.stop()
    assert shop.confirmed() == before


def test_work_that_goes_on_in_another_thread_stops_the_stream_too(shop: Shop) -> None:
    cdc, before, done = shop.reader(), shop.confirmed(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        run(cdc, lambda event: pool.submit(done.wait, 10))
        shop.insert(1)
        eventually(lambda: not cdc.running)
        done.set()
    with pytest.raises(SettingsError, match="acknowledged while the work goes on"):
        cdc.stop()
    assert shop.confirmed() == before


def test_an_error_that_nobody_asked_for_leaves_the_block(shop: Shop) -> None:
    sink = Sink()
    sink.fails[1] = [ValueError("no such product")]
    with pytest.raises(ValueError, match="no such product"), shop.reader() as cdc:
        run(cdc, sink)
        shop.insert(1)
        eventually(lambda: not cdc.running)


def test_what_can_succeed_later_is_tried_again(shop: Shop) -> None:
    cdc, sink = shop.reader(retry=QUICK), Sink()
    sink.fails[1] = [psycopg.errors.SerializationFailure("try again"), ConnectionError("gone")]
    run(cdc, sink)
    shop.insert(1, 2)
    eventually(lambda: sink.seen == [1, 2])
    cdc.stop()


def test_an_outage_stops_the_stream_whatever_the_policy(shop: Shop) -> None:
    letters = InMemoryDeadLetters()
    cdc, sink = shop.reader(retry=QUICK, dead_letters=letters), Sink()
    sink.fails[1] = [ConnectionError("gone") for _ in range(10)]
    run(cdc, sink)
    shop.insert(1)
    eventually(lambda: not cdc.running)
    with pytest.raises(ConnectionError):
        cdc.stop()
    assert letters.letters(shop.slot) == []


def test_a_change_that_cannot_be_handled_is_set_aside_and_its_row_waits_behind_it(shop: Shop) -> None:
    letters = InMemoryDeadLetters()
    cdc, sink = shop.reader(retry=QUICK, dead_letters=letters), Sink()
    bad = [psycopg.errors.CheckViolation("no")] * 1 + [ValueError("no")] * 10
    sink.fails[1] = bad
    run(cdc, sink)
    shop.insert(1, 2)
    shop.app.execute("UPDATE orders SET note = 'later' WHERE id IN (1, 2)")
    eventually(lambda: sink.seen == [2, 2])
    eventually(lambda: len(letters.letters(shop.slot)) == 2)
    cdc.stop()
    first, second = letters.letters(shop.slot)
    assert [first.status, second.status] == [Status.PARKED, Status.BEHIND]
    assert first.sqlstate == "23514"
    assert json.loads(first.record.payload or b"")["new"]["note"] == "new"
    assert first.record.key == second.record.key
    notes: list[str] = []
    done = replay(
        letters, shop.slot, lambda letter: notes.append(json.loads(letter.record.payload or b"")["new"]["note"]),
        force=True,
    )  # fmt: skip
    assert (done.applied, notes) == (2, ["new", "later"])


def test_stop_waits_for_the_transaction_that_is_being_handled(shop: Shop) -> None:
    cdc, inside, go_on = shop.reader(), threading.Event(), threading.Event()
    handled: list[ChangeEvent] = []

    def slow(event: ChangeEvent) -> None:
        inside.set()
        assert go_on.wait(10)
        handled.append(event)

    run(cdc, slow)
    shop.insert(1, 2)
    assert inside.wait(10)
    with pytest.raises(ChangeStreamError, match="has not returned"):
        cdc.stop(limit=0.05)
    go_on.set()
    cdc.stop()
    assert len(handled) == 1
    cdc.close()
    assert shop.confirmed() == str(cdc.acknowledged)


def test_a_handler_may_stop_the_stream(shop: Shop) -> None:
    cdc = shop.reader()
    run(cdc, lambda _event: cdc.stop())
    shop.insert(1, 2)
    eventually(lambda: not cdc.running)
    cdc.stop()
    assert [event.new_data["id"] for (event,) in cdc.transactions(until=1)] == [2]


def test_misuse_is_said(shop: Shop) -> None:
    cdc = shop.reader()
    with pytest.raises(ChangeStreamError, match="no handler"):
        cdc.start()
    run(cdc, Sink())
    with pytest.raises(ChangeStreamError, match="being read already"):
        cdc.start()
    with pytest.raises(ChangeStreamError, match="thread reads"):
        cdc.transactions()
    cdc.stop()


def test_a_stream_that_cannot_be_opened_is_said_by_start(shop: Shop) -> None:
    cdc = shop.reader(initialize=False)
    cdc.add_handler(print)
    with pytest.raises(ChangeStreamError, match="There is no publication"):
        cdc.start()
