"""SIGKILL of the broker and of PostgreSQL in mid-run, on servers of the test's own: the connector goes on, complete."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import psycopg
import pytest
from cdc.conftest import Shop, eventually
from cdc.test_proofs_server_killed import Writer, postmaster

from streamlab import settings
from streamlab.cdc import LSN, PostgreSQLCDC
from streamlab.connect import DatabaseSourceConnector
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace

from .topics import records

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

soak = pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")


@pytest.fixture
def own(another_home: object) -> Iterator[Stack]:
    """Servers of this test's own; what used to be the suite's is not touched."""
    servers = Stack()
    assert [each.error for each in servers.up(["postgres", "kafka"])] == [None, None]
    yield servers
    servers.down(purge=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("transactional", [True, pytest.param(False, marks=soak)])
def test_what_was_committed_arrives_whatever_is_killed(own: Stack, transactional: bool) -> None:
    rounds = 3 if os.environ.get("STREAMLAB_SOAK") == "1" else 1
    with Namespace("connect_killed") as namespace:
        shop = Shop(namespace)
        shop.reader()
        schema, slot, publication = shop.schema, shop.slot, shop.publication
        prefix = namespace.topic_prefix()
        topic = f"{prefix}.{schema}.orders"
        shop.close_sessions()

        def source(after: str | None) -> PostgreSQLCDC:
            resume = LSN.parse(after) if after else None
            return PostgreSQLCDC(settings.postgres_dsn("cdc"), publication, slot, lazy=True, resume_after=resume)

        connector = DatabaseSourceConnector(
            namespace.name, source, prefix=prefix, transactional=transactional, max_wait=0.02
        )
        connector.start()
        writer = Writer(schema)
        writer.start()

        def goes_on() -> None:
            least = (connector.offset.records if connector.offset else 0) + 50
            eventually(lambda: not connector.running or (connector.offset and connector.offset.records > least), 120)
            if not connector.running:
                connector.stop()

        try:
            for _ in range(rounds):
                goes_on()
                os.kill(broker(own), signal.SIGKILL)
                assert [each.error for each in own.up(["kafka"])] == [None]
                goes_on()
                os.kill(postmaster(own), signal.SIGKILL)
                assert [each.error for each in own.up(["postgres"])] == [None]
                goes_on()
        finally:
            writer.over.set()
            writer.join()
        with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={schema}") as app:
            rows = [number for (number,) in app.execute("SELECT id FROM orders ORDER BY id")]
        eventually(lambda: connector.offset and connector.offset.records >= len(rows), 60)
        connector.stop()
        connector.close()
        found = records(topic)
        shop.close()
    assert set(writer.committed) <= set(rows)
    ids = [each.key["id"] for each in found]
    if transactional:
        assert ids == rows
    else:
        changes: dict[object, object] = {}
        for each in found:
            assert changes.setdefault(each.change, (each.key, each.value)) == (each.key, each.value)
        assert list(dict.fromkeys(ids)) == rows


def broker(stack: Stack) -> int:
    (pid,) = (each.pid for each in stack.status() if each.name == "kafka")
    assert pid is not None
    return pid


def test_a_stop_does_not_wait_for_a_broker_that_is_gone(own: Stack) -> None:
    with Namespace("connect_killed") as namespace:
        shop = Shop(namespace)
        shop.reader()
        connector = DatabaseSourceConnector(
            namespace.name, lambda after: shop.reader(initialize=False), prefix=namespace.topic_prefix()
        )
        connector.start()
        shop.insert(1)
        eventually(lambda: connector.offset is not None)
        os.kill(broker(own), signal.SIGKILL)
        shop.insert(2)
        stopped = threading.Thread(target=connector.stop)
        stopped.start()
        stopped.join(20)
        assert not stopped.is_alive()
        connector.close()
        assert [each.error for each in own.up(["kafka"])] == [None]
        shop.close()
