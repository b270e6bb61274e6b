"""A network that fails, by a proxy: nothing is lost or repeated, and no wait is without an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from streamlab import metrics, settings
from streamlab.errors import ChangeStreamError, StreamLost
from streamlab.ops.pipe import Cut, Direction
from streamlab.ops.proxy import Proxy
from streamlab.retry import RetryPolicy

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration

Fault = Callable[[Proxy], object]


@pytest.fixture
def proxy(stack: object) -> Iterator[Proxy]:
    about = conninfo_to_dict(settings.postgres_dsn("cdc"))
    with Proxy((str(about["host"]), int(str(about["port"])))) as proxy:
        yield proxy


def through(proxy: Proxy, **more: Any) -> str:
    return psycopg.conninfo.make_conninfo(
        str.__str__(proxy.postgres_dsn(settings.postgres_dsn("cdc"))), connect_timeout=2, **more
    )


FAULTS: dict[str, Fault] = {
    "reset": lambda it: it.cut(Cut.RESET),
    "closed": lambda it: it.cut(Cut.CLOSE),
    "stalled": Proxy.stall,
    "stalled to the reader": lambda it: it.stall(Direction.TO_CLIENT),
    "deaf to the reader": lambda it: it.go_deaf(Direction.TO_SERVER),
    "deaf to the server": lambda it: it.go_deaf(Direction.TO_CLIENT),
    "slow": lambda it: it.delay(0.3),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_network_does_each_change_comes_once(shop: Shop, proxy: Proxy, fault: str) -> None:
    """The fault comes in the midst of the stream, again and again, and lasts longer than the reader's patience."""
    cdc = shop.reader(initialize=False, dsn=through(proxy, options="-c wal_sender_timeout=1s"), silence=0.5)
    shop.reader().close()
    seen: list[int] = []

    def read() -> None:
        for transaction in cdc.transactions(until=400, idle=20):
            seen.extend(event.new_data["id"] for event in transaction)
            if len(seen) % 7 == 0:
                cdc.acknowledge(transaction)

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        for number in range(400):
            shop.insert(number)
            if number in {100, 250}:
                eventually(lambda least=number // 2: len(seen) > least or reading.done(), 30)
                FAULTS[fault](proxy)
                proxy.schedule([(0.8, Proxy.heal)])
        reading.result(60)
    assert seen == list(range(400))
    if fault not in {"slow", "deaf to the reader"}:  # the server bears that for longer
        assert metrics.CDC_RECONNECTS.labels(cdc.name)._value.get() >= 1


def test_a_server_that_is_not_reached_any_more_is_given_up_within_the_bounds(shop: Shop, proxy: Proxy) -> None:
    policy = RetryPolicy(attempts=50, seconds=1.5, base=0.05, cap=0.2)
    shop.reader().close()
    cdc = shop.reader(initialize=False, dsn=through(proxy), reconnect=policy)
    shop.insert(1, 2)
    transactions = cdc.transactions(until=3)
    cdc.acknowledge(next(transactions))
    next(transactions)
    proxy.refuse()
    proxy.cut()
    begin = time.monotonic()
    with pytest.raises(StreamLost):
        next(transactions)
    assert time.monotonic() - begin < 10
    proxy.heal()
    assert [event.new_data["id"] for each in cdc.transactions(until=1) for event in each] == [2]


def test_neither_close_nor_stop_wait_for_a_silent_network(shop: Shop, proxy: Proxy) -> None:
    shop.reader().close()
    cdc = shop.reader(initialize=False, dsn=through(proxy))
    shop.insert(1)
    cdc.add_handler(lambda event: None)
    cdc.start()
    eventually(lambda: cdc.acknowledged == cdc.received is not None)
    proxy.stall()
    begin = time.monotonic()
    cdc.stop()
    cdc.close()
    assert time.monotonic() - begin < 8
    proxy.cut()
    eventually(lambda: shop.walsender() is None)


def test_a_question_that_is_never_answered_is_given_up(shop: Shop, proxy: Proxy) -> None:
    shop.reader().close()
    cdc = shop.reader(initialize=False, dsn=through(proxy))
    shop.insert(1)
    (transaction,) = cdc.transactions(until=1)
    cdc.acknowledge(transaction)
    assert cdc.lag().size is not None
    proxy.stall()
    asking: Any = cdc._questions.connection
    asking.patience = 0.5
    answers: list[BaseException] = []

    def ask() -> None:
        try:
            cdc.lag()
        except ChangeStreamError as error:
            answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(20)  # half a second, and an attempt to connect anew
    proxy.cut()
    thread.join(20)
    assert isinstance(answers[0], StreamLost)
