"""SIGKILL of a walsender, and of PostgreSQL, while it is read: on a server of the test's own. It goes on, complete."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from streamlab import settings
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace

from .conftest import Shop, eventually

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]


@pytest.fixture
def own(another_home: Path) -> Iterator[Stack]:
    """A PostgreSQL of this test's own; what used to be the suite's is not touched."""
    servers = Stack()
    (outcome,) = servers.up(["postgres"])
    assert outcome.error is None
    yield servers
    servers.down(purge=True)


class Writer(threading.Thread):
    """Inserts one row a transaction, and goes on when the server is back; knows what was committed for sure."""

    def __init__(self, schema: str) -> None:
        super().__init__()
        self.schema, self.over, self.committed = schema, threading.Event(), list[int]()
        self.number = 0

    def run(self) -> None:
        options = f"-c search_path={self.schema}"
        while not self.over.is_set():
            try:
                with psycopg.connect(settings.postgres_dsn("app"), autocommit=True, options=options) as connection:
                    while not self.over.is_set():
                        self.number += 1
                        connection.execute("INSERT INTO orders VALUES (%s)", [self.number])
                        self.committed.append(self.number)
            except psycopg.OperationalError:
                self.over.wait(0.05)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", [1, pytest.param(4, marks=pytest.mark.skipif(
    os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1"))])  # fmt: skip
def test_what_was_committed_comes_once_whatever_of_the_server_is_killed(own: Stack, protocol: int) -> None:
    rounds = 5 if os.environ.get("STREAMLAB_SOAK") == "1" else 1
    seen: list[int] = []
    with Namespace("test_cdc") as namespace:
        shop = Shop(namespace)
        schema, slot = shop.schema, shop.slot
        cdc = shop.reader(protocol=protocol)
        cdc.add_handler(lambda event: seen.append(event.new_data["id"]))
        cdc.start()
        shop.close_sessions()
        writer = Writer(schema)
        writer.start()
        try:
            for _ in range(rounds):
                reads_on(seen)
                with psycopg.connect(settings.postgres_dsn("admin")) as admin:
                    row: Any = admin.execute(
                        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [slot]
                    ).fetchone()
                os.kill(row[0], signal.SIGKILL)  # PostgreSQL ends all its sessions, and recovers
                reads_on(seen)
                os.kill(postmaster(own), signal.SIGKILL)
                assert [each.error for each in own.up(["postgres"])] == [None]
                reads_on(seen)
        finally:
            writer.over.set()
            writer.join()
        with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={schema}") as app:
            rows = [number for (number,) in app.execute("SELECT id FROM orders ORDER BY id")]
        eventually(lambda: len(seen) >= len(rows), 30)
        cdc.stop()
        cdc.close()
    assert seen == rows
    # What the server had said to be committed is there; of what it had not, what it has committed nevertheless.
    assert set(writer.committed) <= set(rows)
    assert len(set(rows) - set(writer.committed)) <= 2 * rounds


def postmaster(stack: Stack) -> int:
    data = stack.service("postgres").room / "data"
    return int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0])


def reads_on(seen: list[int]) -> None:
    """A few more rows come."""
    least, deadline = len(seen) + 30, time.monotonic() + 60
    while len(seen) < least:
        assert time.monotonic() < deadline, f"only {len(seen)} rows"
        time.sleep(0.01)
