"""pgbench (TPC-B) at full speed while it is read: a replica made from the events equals the tables, by checksum."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from streamlab import settings
from streamlab.cdc import Checkpoint
from streamlab.stack.namespace import Namespace

from .conftest import Shop
from .replica import END, Replica, checksum
from .replica import __file__ as program

pytestmark = pytest.mark.integration

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")


class Bench:
    """pgbench's tables in the shop's schema, captured while they are still empty, and an empty replica."""

    def __init__(self, shop: Shop, namespace: Namespace, stack: Any) -> None:
        self.shop, self.pgbench = shop, stack.service("postgres").bin / "pgbench"
        dsn = str.__str__(settings.postgres_dsn("app"))
        self.dsn = psycopg.conninfo.make_conninfo(dsn, options=f"-c search_path={shop.schema}")
        self.run("-i", "-I", "dtp", "-q")
        # History has no key; nothing is updated there, but the publication would let it be.
        shop.app.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
        self.replica = Replica(shop.app, namespace.postgres_schema("replica"), TABLES)
        self.replica.create(shop.schema)
        Checkpoint("replica", schema=self.replica.schema).create_table(shop.app)
        self.slot, self.publication = shop.slot, shop.publication
        shop.reader(tables=[f"{shop.schema}.{table}" for table in TABLES])

    def run(self, *arguments: str) -> str:
        ended = subprocess.run(
            [str(self.pgbench), "-n", *arguments, self.dsn], capture_output=True, text=True, timeout=1500, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def fill_and_run(self, seconds: int) -> int:
        """100,000 accounts in one transaction, then TPC-B from four clients; how many transactions that were."""
        self.run("-i", "-I", "g", "-q")
        said = self.run("-c", "4", "-j", "2", "-T", str(seconds))
        with psycopg.connect(settings.postgres_dsn("app")) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, %s, '')", [END])
        found = re.search(r"transactions actually processed: (\d+)", said)
        assert found is not None
        return int(found[1])

    def killed_after(self, seconds: float, protocol: int, form: str) -> int:
        """Run the replica as a process that is killed if it lives so long; its exit code."""
        about = {
            "publication": self.publication,
            "slot": self.slot,
            "schema": self.replica.schema,
            "tables": TABLES,
            "options": {"protocol": protocol, "binary": form == "binary"},
        }
        with subprocess.Popen([sys.executable, program, json.dumps(about)]) as child:
            try:
                return child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                return child.wait()

    def compare(self, count: int) -> None:
        for table in TABLES:
            ours = checksum(self.shop.admin, self.replica.schema, table)
            assert ours == checksum(self.shop.admin, self.shop.schema, table), table
            assert ours[0] == {"pgbench_accounts": 100_000, "pgbench_history": count}.get(table, ours[0])


@pytest.fixture
def bench(stack: object) -> Iterator[Bench]:
    with Namespace("test_cdc") as namespace:
        shop = Shop(namespace)
        try:
            yield Bench(shop, namespace, stack)
        finally:
            shop.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_a_replica_of_pgbench_equals_its_tables(bench: Bench, pool: ThreadPoolExecutor) -> None:
    running = pool.submit(bench.fill_and_run, 3)
    # A new reader after a few batches, which goes on where the replica stands.
    while not bench.replica.follow(bench.publication, bench.slot, until=6):
        pass
    count = running.result()
    assert count > 100
    bench.compare(count)


@pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("protocol", "form"), [(1, "text"), (4, "binary")])
def test_a_replica_whose_reader_is_killed_again_and_again_equals_pgbench(
    bench: Bench, pool: ThreadPoolExecutor, protocol: int, form: str, record_property: Callable[[str, object], None]
) -> None:
    running = pool.submit(bench.fill_and_run, 150)
    moment = random.Random(4)
    kills = 0
    while (code := bench.killed_after(moment.uniform(1.0, 8.0) if running.running() else 300, protocol, form)) != 0:
        assert code == -signal.SIGKILL
        kills += 1
    count = running.result()
    record_property("transactions", count)
    record_property("kills", kills)
    assert kills >= 5
    bench.compare(count)
