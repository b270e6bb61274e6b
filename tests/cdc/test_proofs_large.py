"""Large transactions through `PostgreSQLCDC`: received while they are in progress, in bounded memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from streamlab import metrics, settings

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration

SOAK = os.environ.get("STREAMLAB_SOAK") == "1"


def small_memory() -> str:
    """A walsender that sends a transaction as soon as it has 64 kB of it."""
    return make_conninfo(str.__str__(settings.postgres_dsn("cdc")), options="-c logical_decoding_work_mem=64kB")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_transaction_in_progress_is_received_and_handed_out_at_its_commit(shop: Shop, protocol: int) -> None:
    cdc = shop.reader(dsn=small_memory(), protocol=protocol)
    transactions = cdc.transactions(idle=20)
    received = metrics.CDC_RECEIVED_BYTES.labels(cdc.name)._value
    with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={shop.schema}") as large:
        large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(1, 10000) i")
        with large.transaction():
            large.execute("SAVEPOINT a")
            large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(20001, 25000) i")
            large.execute("ROLLBACK TO a")
            large.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(30001, 32000) i")
        shop.insert(0)
        first = next(transactions)
        assert [event.new_data["id"] for event in first] == [0]
        assert received.get() > 1_000_000, "the large one is here, and is not committed"
        cdc.acknowledge(first)
        large.commit()
    second = next(transactions)
    assert [event.new_data["id"] for event in second] == [*range(1, 10001), *range(30001, 32001)]
    assert [event.ordinal for event in second] == list(range(12000))
    cdc.acknowledge(second)
    eventually(lambda: shop.confirmed() == str(second.end_position))


@pytest.mark.parametrize("protocol", [1, 2])
def test_the_changes_of_a_large_transaction_are_counted_when_it_is_handed_out(shop: Shop, protocol: int) -> None:
    cdc = shop.reader(dsn=small_memory(), protocol=protocol)
    cdc._events._decoder._spill.eager = 10_000  # type: ignore[attr-defined]
    with shop.app.transaction():
        # More than is received at once, however slow the reader is.
        shop.app.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(1, 12000) i")
        shop.app.execute("SAVEPOINT a")
        shop.app.execute("INSERT INTO orders SELECT i, repeat('x', 100), i FROM generate_series(12001, 14000) i")
        shop.app.execute("ROLLBACK TO a")
        shop.app.execute("UPDATE orders SET total = 0 WHERE id <= 200")
        shop.app.execute("DELETE FROM orders WHERE id <= 10")
        shop.app.execute("TRUNCATE orders")
        shop.app.execute("SELECT pg_logical_emit_message(true, 'a', 'b')")
    (transaction,) = cdc.transactions(until=1)
    assert not isinstance(transaction.changes, tuple), "it waits as bytes"
    names = ("insert", "update", "delete", "truncate", "message")
    counts = [metrics.CDC_EVENTS.labels(cdc.name, name)._value.get() for name in names]
    assert counts == [12000, 200, 10, 1, 1]
    assert len(list(transaction)) == len(transaction) == sum(counts)


_PEAK = """
import json, sys
from streamlab.cdc import PostgreSQLCDC
about = json.loads(sys.argv[1])
def megabytes():
    # Not getrusage: its peak is handed down from the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
dsn = sys.stdin.readline().strip()
"""

READER = (
    _PEAK
    + """
with PostgreSQLCDC(dsn, about["publication"], about["slot"], protocol=about["protocol"]) as cdc:
    transactions = cdc.transactions()
    cdc.acknowledge(next(transactions))
    before = megabytes()
    transaction = next(transactions)
    count = total = 0
    for event in transaction:
        assert event.ordinal == count
        count += 1
        total += event.new_data["id"]
    cdc.acknowledge(transaction)
print(json.dumps([count, total, before, megabytes()]))
"""
)

FRAMES = (
    _PEAK
    + """
backlog = 0 if about["backlog"] else None
with PostgreSQLCDC(dsn, about["publication"], about["slot"], protocol=about["protocol"], binary=True) as cdc:
    count = total = before = 0
    for batch in cdc.frames(until=cdc.written(), max_wait=0.05, backlog=backlog):
        data = batch.of("orders", about["schema"])
        if before == 0:
            # The small one: code and caches are loaded.
            assert data["id"].to_list() == [0]
            before = megabytes()
            data = data.clear()
        if len(data):
            assert data["ordinal"].to_list() == list(range(count, count + len(data)))
        count += len(data)
        total += sum(data["id"].to_list()) if len(data) else 0
        cdc.acknowledge(batch)
print(json.dumps([count, total, before, megabytes()]))
"""
)


def read_large(shop: Shop, program: str, rows: int, **about: Any) -> tuple[int, int, float, float]:
    """A reader in a process of its own: what it counts and adds up, and its peak before and after, in megabytes."""
    shop.reader(protocol=about["protocol"]).close()
    shop.insert(0)
    about |= {"publication": shop.publication, "slot": shop.slot, "schema": shop.schema}
    with subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(about)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            shop.app.execute("INSERT INTO orders SELECT i, 'note ' || i, 9.90 FROM generate_series(1, %s) i", [rows])
            said, wrong = process.communicate(small_memory(), timeout=1500)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, wrong
    count, total, before, after = json.loads(said)
    return count, total, before, after


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", [1, 2, 3, 4] if SOAK else [1, 4])
def test_memory_is_bounded_whatever_the_size_of_a_transaction(shop: Shop, protocol: int, record_property: Any) -> None:
    """As events, 300,000 of these rows take 210 MB."""
    rows = 5_000_000 if SOAK else 300_000
    count, total, before, after = read_large(shop, READER, rows, protocol=protocol)
    assert (count, total) == (rows, rows * (rows + 1) // 2)
    record_property("megabytes", round(after))
    assert after < 200
    assert SOAK or after - before < 70


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("protocol", "backlog"), [(1, False), (4, False), (1, True)] if SOAK else [(1, False)])
def test_memory_of_frames_is_bounded_whatever_the_size_of_a_transaction(
    shop: Shop, protocol: int, backlog: bool, record_property: Any
) -> None:
    """A part of 16 MiB is decoded at once. All of a million rows at once take 700 MB."""
    rows = 5_000_000 if SOAK else 1_000_000
    count, total, before, after = read_large(shop, FRAMES, rows, protocol=protocol, backlog=backlog)
    assert (count, total) == (rows, rows * (rows + 1) // 2)
    record_property("megabytes", round(after))
    assert after - before < 300


SPILLING = """
import sys
from pathlib import Path
from streamlab import settings
from streamlab.cdc import PostgreSQLCDC
with PostgreSQLCDC(settings.postgres_dsn("cdc"), *sys.argv[1:3], protocol=2, spill=Path(sys.argv[3])) as cdc:
    (transaction,) = cdc.transactions(until=1)
    print(len(transaction), sum(event.new_data["id"] for event in transaction))
    cdc.acknowledge(transaction)
"""


def test_a_reader_that_is_killed_while_it_spills_loses_nothing_and_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.reader(protocol=2).close()
    shop.app.execute("INSERT INTO orders SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i")
    command = [sys.executable, "-c", SPILLING, shop.publication, shop.slot, str(tmp_path)]
    for number, point in enumerate(("cdc.in_spill=kill@1", "cdc.in_spill=kill@3", "")):
        ended = subprocess.run(
            command,
            env={**os.environ, "STREAMLAB_FAILPOINTS": point},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == (0 if number == 2 else -signal.SIGKILL), ended.stderr
        assert list(tmp_path.iterdir()) == []
    assert ended.stdout.split() == ["60000", str(60000 * 60001 // 2)]
    assert list(shop.reader(initialize=False).transactions(idle=0.3)) == []
