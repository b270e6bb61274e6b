"""`stack`: how quickly the servers start and are clean again, what they take, and what an import costs.

The references are the limits that the project sets itself, on 2 cores: the ratio is the limit divided by the figure,
and 1 is enough. The servers are warm: downloaded, started once before, and stopped. Commands are
measured as a user runs them, with the start of Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymysql
from confluent_kafka.cimpl import NewTopic
from psycopg import sql

from benchmarks.case import Bench, Benchmark, Case, limit
from benchmarks.servers import ROOT, Servers, command
from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import mysql_source
from streamlab.errors import StackError
from streamlab.stack import DEFAULT
from streamlab.stack.objects import kafka_admin

__all__ = ["BENCHMARK"]

MIB = 2**20

# -- import -----------------------------------------------------------------------------------------------------------

_IMPORT = """
from time import perf_counter
begin = perf_counter()
import streamlab
print(perf_counter() - begin)
"""


def _import_seconds(_made: None) -> float:
    """The time that an interpreter which has just started takes for `import streamlab`."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


# -- starts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """One warm start of everything. Times in seconds, memory in bytes."""

    seconds: float
    each: dict[str, float]
    memory: int


class Starts:
    """Warm starts, each made once and looked at by several cases.

    Making one ends with servers that are up.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._made: list[Start] = []
        # The first start fetches, unpacks and initialises: what is measured comes after it.
        servers.up()

    def __iter__(self) -> Iterator[Start]:
        number = 0
        while True:
            if number == len(self._made):
                self._made.append(self._make())
            yield self._made[number]
            number += 1

    def _make(self) -> Start:
        command("down", limit=120)
        begin = time.perf_counter()
        command("up", limit=300)
        seconds = time.perf_counter() - begin
        rows = self._servers.running()
        each = {row.name: row.start_seconds for row in rows if row.start_seconds is not None}
        return Start(seconds, each, sum(row.rss_bytes for row in rows))


@contextmanager
def _starts(bench: Bench) -> Iterator[Iterator[Start]]:
    if "starts" not in bench.shared:
        bench.shared["starts"] = Starts(bench.servers)
    yield iter(bench.shared["starts"])


def _own_time(service: str, starts: Iterator[Start]) -> float:
    return next(starts).each[service]


# -- reset ------------------------------------------------------------------------------------------------------------

SCHEMAS, SLOTS, DATABASES, TOPICS, CONNECTORS = 5, 3, 3, 8, 2


@contextmanager
def _up(bench: Bench) -> Iterator[Servers]:
    bench.servers.up()
    yield bench.servers


def _reset(_servers: Servers) -> float:
    """Seconds that `streamlab reset` takes for servers that were used; that they are clean is looked at."""
    _use()
    begin = time.perf_counter()
    command("reset", limit=120)
    seconds = time.perf_counter() - begin
    if left := _left():
        raise StackError(f"reset left {', '.join(left)}.", "See: streamlab logs")
    return seconds


def _use() -> None:
    """Make what lessons make: schemas with rows, slots, databases, topics, connectors that run."""
    with psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True) as connection:
        for number in range(SCHEMAS):
            schema = sql.Identifier(f"sl_bench_{number}")
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            connection.execute(
                sql.SQL("CREATE TABLE {}.things AS SELECT n FROM generate_series(1, 10000) AS n").format(schema)
            )
        for number in range(SLOTS):
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (f"sl_bench_{number}",))
    databases = [f"sl_bench_{number}" for number in range(DATABASES)]
    address = settings.mysql_address("admin").arguments()
    with closing(pymysql.connect(**address, autocommit=True)) as mysql, mysql.cursor() as cursor:
        for database in databases:
            cursor.execute(f"CREATE DATABASE {database}")
            cursor.execute(f"CREATE TABLE {database}.things (n INT PRIMARY KEY)")
            cursor.execute(f"INSERT INTO {database}.things VALUES (1), (2), (3)")  # noqa: S608 - a name from above
    # Kept in a variable: a client that nobody holds ends before its answer comes.
    kafka = kafka_admin()
    made = kafka.create_topics([NewTopic(f"sl_bench_{number}", 3, 1) for number in range(TOPICS)])
    for future in made.values():
        future.result(30)
    with ConnectClient() as connect:
        names = [f"sl_bench_{number}" for number in range(CONNECTORS)]
        for name, database in zip(names, databases, strict=False):
            connect.apply(name, mysql_source(prefix=name, database=database, tables=["things"]))
        for name in names:
            connect.wait_ready(name)


def _left() -> list[str]:
    """What of it is still there."""
    with psycopg.connect(str.__str__(settings.postgres_dsn("admin"))) as connection:
        query = "SELECT slot_name FROM pg_replication_slots UNION ALL SELECT nspname FROM pg_namespace"
        left = [str(name) for (name,) in connection.execute(query)]
    with closing(pymysql.connect(**settings.mysql_address("admin").arguments())) as mysql, mysql.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        left += [str(name) for (name,) in cursor.fetchall()]
    left += kafka_admin().list_topics(timeout=10).topics
    left += httpx.get(f"{settings.connect_url()}/connectors", timeout=10).raise_for_status().json()
    return [name for name in left if name.startswith("sl_bench_")]


# -- lessons ----------------------------------------------------------------------------------------------------------


def _lesson(slug: str, _servers: Servers) -> float:
    """Seconds that a lesson takes in batch, with its defaults, on servers that are up."""
    with tempfile.TemporaryDirectory(prefix="streamlab-bench-") as folder:
        begin, failure = time.perf_counter(), None
        try:
            command("run", slug, "--no-start", "--output", folder, limit=600)
        except StackError as error:
            failure = error
        seconds = time.perf_counter() - begin
        lesson = _outcome(Path(folder))
    if lesson and lesson["outcome"] != "passed":
        raise StackError(f"{lesson['outcome']}: {lesson['error']}", f"Run: streamlab run {slug}") from failure
    if failure or not lesson:
        raise failure or StackError(f"streamlab run {slug} left no summary.")
    return seconds


def _outcome(folder: Path) -> dict[str, Any]:
    """What the only run below a folder says of its only lesson; empty where it did not get so far."""
    summaries = list(folder.glob("*/summary.json"))
    if not summaries:
        return {}
    (lesson,) = json.loads(summaries[0].read_text(encoding="utf-8"))["lessons"]
    return dict(lesson)


def _cases() -> Iterator[Case[Any]]:
    yield Case(
        name="import",
        work="import streamlab",
        unit="s",
        smaller_is_better=True,
        ours=_import_seconds,
        references=(limit(0.15, "0.15 s"),),
        rounds=31,
        quick_rounds=5,
    )
    yield Case(
        name="up",
        work="everything up, warm",
        unit="s",
        smaller_is_better=True,
        setup=_starts,
        ours=lambda starts: next(starts).seconds,
        references=(limit(8.0, "8 s"),),
        rounds=5,
        quick_rounds=1,
    )
    for service in DEFAULT:
        yield Case(
            name=f"up-{service}",
            work=f"start of {service}, beside the others",
            unit="s",
            smaller_is_better=True,
            setup=_starts,
            ours=partial(_own_time, service),
            rounds=5,
            quick_rounds=1,
        )
    yield Case(
        name="memory",
        work="memory of the servers, just started",
        unit="MiB",
        smaller_is_better=True,
        setup=_starts,
        ours=lambda starts: next(starts).memory / MIB,
        references=(limit(1.4 * 1024, "1.4 GiB"),),
        rounds=5,
        quick_rounds=1,
    )
    yield Case(
        name="reset",
        work="reset of servers that lessons have used",
        unit="s",
        smaller_is_better=True,
        setup=_up,
        ours=_reset,
        references=(limit(5.0, "5 s"),),
        rounds=5,
        quick_rounds=1,
    )
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb")):
        yield Case(
            name=f"lesson-{path.stem}",
            work="a lesson in batch, with its defaults",
            unit="s",
            smaller_is_better=True,
            setup=_up,
            ours=partial(_lesson, path.stem),
            references=(limit(30.0, "30 s"),),
            rounds=3,
            quick_rounds=1,
        )


BENCHMARK = Benchmark("stack", tuple(_cases()))
