"""`workload`: how fast the shop fills a server, its own planning and its ledger included.

The references are the limits that the project sets itself, on 2 cores; the ratio is the rate divided by the limit. That
the tables are what was committed is checked after each measurement, and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.case import Bench, Benchmark, Case, floor
from streamlab import settings
from streamlab.stack import Home
from streamlab.stack.namespace import Namespace
from streamlab.workload import MySQLTarget, PostgresTarget, throughput

__all__ = ["BENCHMARK"]

SIZE = 1000
"""Rows a transaction."""

Measure = Callable[[str, int], float]
"""Mix and rows -> rows a second."""


@contextmanager
def _target(service: str, bench: Bench) -> Iterator[Measure]:
    bench.servers.up()
    with Namespace("workload_benchmark", Home()) as namespace:

        def measure(mix: str, rows: int) -> float:
            if service == "postgres":
                target: Any = PostgresTarget(settings.postgres_dsn(), namespace.postgres_schema())
            else:
                target = MySQLTarget(settings.mysql_address(), namespace.mysql_database())
            done = throughput(target, mix=mix, size=SIZE, rows=rows // 10 if bench.quick else rows)
            return done.rows_per_second

        yield measure


def _cases() -> Iterator[Case[Any]]:
    for service, title in (("postgres", "PostgreSQL"), ("mysql", "MySQL")):
        yield Case(
            name=f"{service}-inserts",
            work=f"inserts into {title}, {SIZE} rows a transaction",
            unit="rows/s",
            setup=partial(_target, service),
            ours=lambda measure: measure("inserts", 60_000),
            references=(floor(20_000, "20,000 rows/s"),),
            rounds=5,
            quick_rounds=1,
        )
        yield Case(
            name=f"{service}-mixed",
            work=f"all kinds of changes in {title}, {SIZE} rows a transaction",
            unit="rows/s",
            setup=partial(_target, service),
            ours=lambda measure: measure("balanced", 20_000),
            rounds=3,
            quick_rounds=1,
        )


BENCHMARK = Benchmark("workload", tuple(_cases()))
