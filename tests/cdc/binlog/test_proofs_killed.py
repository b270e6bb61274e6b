"""SIGKILL of MySQL, and of its connections, while it is read: on a server of the test's own. It goes on, complete."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace

from .conftest import MySQLShop

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]


@pytest.fixture
def own(another_home: Path) -> Iterator[Stack]:
    """A MySQL of this test's own; what used to be the suite's is not touched."""
    servers = Stack()
    (outcome,) = servers.up(["mysql"])
    assert outcome.error is None
    yield servers
    servers.down(purge=True)


class Writer(threading.Thread):
    """Inserts one row a transaction, and goes on when the server is back; knows what was committed for sure."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self.database, self.over, self.committed = database, threading.Event(), list[int]()
        self.number = 0

    def run(self) -> None:
        while not self.over.is_set():
            try:
                with MySQLShop.connect("app", self.database) as connection, connection.cursor() as cursor:
                    while not self.over.is_set():
                        self.number += 1
                        cursor.execute("INSERT INTO orders (id) VALUES (%s)", (self.number,))
                        self.committed.append(self.number)
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError):
                self.over.wait(0.05)


@pytest.mark.timeout(300)
def test_what_was_committed_comes_once_whatever_is_killed(own: Stack, tmp_path: Path) -> None:
    rounds = 5 if os.environ.get("STREAMLAB_SOAK") == "1" else 1
    seen: list[int] = []
    with Namespace("test_binlog") as namespace:
        shop = MySQLShop(namespace, tmp_path)
        cdc = shop.reader()
        cdc.add_handler(lambda event: seen.append(event.new_data["id"]))
        cdc.start()
        database = shop.database
        writer = Writer(database)
        writer.start()
        try:
            for _ in range(rounds):
                reads_on(seen)
                for thread in shop.dumps(cdc):
                    shop.execute(f"KILL {thread}")
                reads_on(seen)
                os.kill(server(own), signal.SIGKILL)
                assert [each.error for each in own.up(["mysql"])] == [None]
                reads_on(seen)
                shop.admin = shop.connect("admin", database)
        finally:
            writer.over.set()
            writer.join()
        rows = [number for (number,) in shop.execute("SELECT id FROM orders ORDER BY id")]
        deadline = time.monotonic() + 30
        while len(seen) < len(rows):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cdc.stop()
        shop.close()
    assert seen == rows
    assert set(writer.committed) <= set(rows)
    assert len(set(rows) - set(writer.committed)) <= 2 * rounds


def server(stack: Stack) -> int:
    return int((stack.service("mysql").room / "pid").read_text(encoding="utf-8"))


def reads_on(seen: list[int]) -> None:
    """A few more rows come."""
    least, deadline = len(seen) + 30, time.monotonic() + 60
    while len(seen) < least:
        assert time.monotonic() < deadline, f"only {len(seen)} rows"
        time.sleep(0.01)
