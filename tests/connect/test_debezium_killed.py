"""SIGKILL of MySQL, of the broker and of the Connect worker while the shop writes: the topics still tell all of it.

Delivery is at least once, so records may come again; the newest row of each key has to be what the ledger of the shop
says, and what SELECT says.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest
from connect.reading import Copy, Message, Topics

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import MySQLSource
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace
from streamlab.workload import TABLES, MySQLTarget, Shop

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

LONG = os.environ.get("STREAMLAB_SOAK") == "1"
ROUNDS, RATE = (12, 400) if LONG else (1, 200)


@dataclass
class Followed:
    """A shop that is written to, and its copy out of topics."""

    client: ConnectClient
    connector: str
    shop: Shop
    topics: Topics
    copy: Copy

    def goes_on(self, since: float) -> None:
        """Wait until a change has come that was made after a time, in seconds since 1970."""

        def newer(read: list[Message]) -> bool:
            # The times of a binary log are whole seconds.
            return any(each.value and each.value["source"]["ts_ms"] / 1000 > since + 1 for each in reversed(read))

        self.topics.wait(self.copy.topics, newer, limit=120)

    def repeated(self) -> int:
        """How many records of changes came more than once."""
        seen = [
            (name, source["file"], source["pos"], source["row"])
            for name in self.copy.topics
            for each in self.topics.messages[name]
            if each.value and (source := each.value["source"])["snapshot"] == "false"
        ]
        return len(seen) - len(set(seen))


@pytest.fixture(scope="module")
def followed(stack: Stack) -> Iterator[Followed]:
    with Namespace("debezium_killed") as namespace, ConnectClient() as client, Topics() as topics:
        database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
        with Shop(MySQLTarget(settings.mysql_address("app"), database), customers=50, products=10) as shop:
            shop.create()
            source = MySQLSource(prefix=prefix, database=database, tables=list(TABLES), times="isostring")
            client.apply(name, source.configuration())
            client.wait_ready(name)
            yield Followed(client, name, shop, topics, Copy(topics, prefix, database))


@pytest.fixture
def servers(stack: Stack) -> Iterator[Stack]:
    yield stack
    assert [str(each.error) for each in stack.up() if each.error] == []


def kill(stack: Stack, name: str) -> None:
    (row,) = (row for row in stack.status() if row.name == name)
    assert row.pid is not None
    process = psutil.Process(row.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


@pytest.mark.timeout(1800 if LONG else 240)
@pytest.mark.parametrize("victim", ["mysql", "kafka", "connect"])
def test_nothing_is_lost_whatever_is_killed(
    followed: Followed, servers: Stack, victim: str, record_property: Callable[[str, object], None]
) -> None:
    before = len(followed.shop.ledger)
    dice = random.Random(victim)
    with followed.shop.running(RATE, size=3):
        followed.goes_on(time.time() - 1)
        for _ in range(ROUNDS):
            if LONG:
                # At another place of its work each time.
                threading.Event().wait(dice.uniform(0, 2))
            kill(servers, victim)
            assert {each.error for each in servers.up([victim])} == {None}
            followed.goes_on(time.time())
        followed.client.wait_ready(followed.connector)
    assert len(followed.shop.ledger) > before
    assert followed.copy.follow(followed.shop.ledger) == ()
    assert followed.shop.compare() == ()
    record_property("repeated", followed.repeated())
    record_property("changes", followed.shop.ledger.changes)
