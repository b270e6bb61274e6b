"""A shop to capture: a schema with tables of its own, and readers whose objects go with the test."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.session import CDCSession
from streamlab.cdc.slot_reader import SlotReader
from streamlab.stack.namespace import Namespace


def eventually(condition: Callable[[], Any], limit: float = 15.0) -> Any:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.005)
    return value


def interrupted(work: Callable[[], None], delay: float) -> bool:
    """Do something, interrupted after a delay as by Ctrl-C; whether the interrupt came before its end.

    Exactly one interrupt comes, and it is caught here, wherever it strikes.
    """
    done = False
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        work()
        done = True
        while True:
            time.sleep(0.001)
    except KeyboardInterrupt:
        return not done
    except BaseException:
        timer.cancel()
        raise
    finally:
        timer.join()


class Shop:
    """Tables `orders` (with a key) and `other`, owned by the role app, and readers of them as the role cdc."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.schema = namespace.postgres_schema()
        self.app = psycopg.connect(settings.postgres_dsn("app"), autocommit=True)
        self.admin = psycopg.connect(settings.postgres_dsn("admin"), autocommit=True)
        for connection in (self.app, self.admin):
            connection.execute("SELECT set_config('search_path', %s, false)", [self.schema])
        self.app.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        self.app.execute("CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric)")
        self.app.execute("CREATE TABLE other (id int PRIMARY KEY)")
        self.orders = f"{self.schema}.orders"
        self.slot = namespace.slot()
        self.publication = namespace.publication()
        self.readers: list[SlotReader] = []

    def reader(self, *, initialize: bool = True, **options: Any) -> PostgreSQLCDC:
        dsn = options.pop("dsn", settings.postgres_dsn("cdc"))
        cdc = PostgreSQLCDC(
            dsn,
            options.pop("publication", self.publication),
            options.pop("slot_name", self.slot),
            **{"tables": [self.orders], "setup_dsn": settings.postgres_dsn("app"), **options},
        )
        self.readers.append(cdc)
        if initialize:
            cdc.initialize()
        return cdc

    def session(self, **options: Any) -> CDCSession:
        cdc = PostgreSQLCDC.session(
            options.pop("dsn", settings.postgres_dsn("cdc")),
            **{"tables": [self.orders], "setup_dsn": settings.postgres_dsn("app"), **options},
        )
        self.readers.append(cdc)
        return cdc

    def insert(self, *ids: int) -> None:
        """One transaction for each."""
        for each in ids:
            self.app.execute("INSERT INTO orders VALUES (%s, 'new', 1.5)", [each])

    def value(self, query: str, *arguments: Any) -> Any:
        row = self.admin.execute(query, arguments).fetchone()
        return None if row is None else row[0]

    def confirmed(self) -> Any:
        return self.value("SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", self.slot)

    def walsender(self) -> Any:
        """The process that serves the slot."""
        return self.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", self.slot)

    def kill_walsender(self) -> None:
        self.admin.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", [self.slot]
        )

    def close_sessions(self) -> None:
        """Let go of its own connections: the server is about to be killed."""
        self.app.close()
        self.admin.close()

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        self.close_sessions()


@pytest.fixture
def shop(stack: object) -> Iterator[Shop]:
    with Namespace("test_cdc") as namespace:
        shop = Shop(namespace)
        yield shop
        shop.close()
