"""Memory stays flat over ten minutes at pgbench's full speed: a long proof, `make soak`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

from streamlab import settings
from streamlab.stack import Stack

from .conftest import Shop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: make soak"),
]

SECONDS = 600

# Says each second how many changes it has read and how large it is. The wrong one keeps a little of each.
_READER = """
import json, sys, time
import psutil
from streamlab import settings
from streamlab.cdc import PostgreSQLCDC

publication, slot, end, leaks = json.loads(sys.argv[1])
me, kept, changes, said = psutil.Process(), [], 0, time.monotonic()
with PostgreSQLCDC(settings.postgres_dsn("cdc"), publication, slot, messages=True) as cdc:
    for transaction in cdc.transactions():
        for event in transaction:
            changes += 1
            if leaks:
                kept.append(event)
            if event.new_data.get("prefix") == end:
                cdc.acknowledge(transaction)
                sys.exit()
        cdc.acknowledge(transaction)
        if time.monotonic() >= said + 1:
            said = time.monotonic()
            print(json.dumps([changes, me.memory_info().rss / 1e6]), flush=True)
"""


@pytest.mark.parametrize("leaks", [False, True])
def test_memory_is_flat(shop: Shop, stack: Stack, leaks: bool, record_property: Callable[[str, object], None]) -> None:
    seconds = SECONDS // 10 if leaks else SECONDS
    pgbench = stack.service("postgres").bin / "pgbench"  # type: ignore[attr-defined]
    dsn = psycopg.conninfo.make_conninfo(
        str.__str__(settings.postgres_dsn("app")), options=f"-c search_path={shop.schema}"
    )
    run = [str(pgbench), "-n", dsn]
    subprocess.run([*run, "-i", "-q"], check=True, capture_output=True)
    shop.app.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
    shop.reader(tables=[f"{shop.schema}.pgbench_{name}" for name in ("accounts", "branches", "tellers", "history")])
    about = json.dumps([shop.publication, shop.slot, shop.slot, leaks])
    with subprocess.Popen([sys.executable, "-c", _READER, about], stdout=subprocess.PIPE, text=True) as reader:
        try:
            subprocess.run(
                [*run, "-c", "4", "-j", "2", "-T", str(seconds)], check=True, capture_output=True, timeout=seconds + 60
            )
            shop.app.execute("SELECT pg_logical_emit_message(true, %s, '')", [shop.slot])
            said, _ = reader.communicate(timeout=120)
        finally:
            reader.kill()
    assert reader.returncode == 0
    changes, sizes = zip(*(json.loads(line) for line in said.splitlines()), strict=True)
    assert len(sizes) > seconds // 2
    part = len(sizes) // 6
    # The first sixth is the warm-up: code and caches are loaded.
    grown = statistics.median(sizes[-part:]) - statistics.median(sizes[part : 2 * part])
    record_property("changes", changes[-1])
    record_property("megabytes", round(max(sizes)))
    print(f"{changes[-1]:,} changes in {seconds} s; at most {max(sizes):.0f} MB; grown by {grown:.1f} MB")  # noqa: T201
    assert (grown > 8) is leaks
