"""`postgres_cdc`: how fast changes come out of PostgreSQL, against PostgreSQL's own client.

The same log is drained through fresh copies of one slot. 1 is pg_recvlogical, which writes text to /dev/null; ours
make values. Absolute figures say little: server and reader share the machine.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.case import Bench, Benchmark, Case, Reference
from benchmarks.cdc_backlog import PUBLICATION, Backlog, backlog
from benchmarks.references import References, rate
from streamlab.cdc.catch_up import CatchUp
from streamlab.cdc.frames import FrameDecoder
from streamlab.cdc.garbage import as_usual, uncollected
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.stack.postgres import PostgreSQL

__all__ = ["BENCHMARK"]

# -- readers ----------------------------------------------------------------------------------------------------------


def _events(way: str, made: Backlog, *, lazy: bool = False) -> float:
    """Changes per second of `PostgreSQLCDC`: events, each value looked at; with `lazy` none."""
    with made.slot() as slot:
        begin = time.perf_counter()
        found = 0
        with PostgreSQLCDC(made.dsn(way), PUBLICATION, slot, lazy=lazy, binary=lazy) as cdc:
            for transaction in cdc.transactions():
                found += len(transaction) if lazy else _look(transaction)
                cdc.acknowledge(transaction)
                if found >= made.changes:
                    break
            seconds = time.perf_counter() - begin
    made.check(found)
    return found / seconds


def _look(transaction: Transaction) -> int:
    count = 0
    for event in transaction:
        for _value in (event.new_data or event.old_data).values():
            pass
        count += 1
    return count


def _catch_up(way: str, made: Backlog) -> float:
    """Changes per second of lazy events of a backlog that is read through COPY."""
    with made.slot() as slot:
        begin = time.perf_counter()
        found = 0
        with PostgreSQLCDC(made.dsn(way), PUBLICATION, slot, lazy=True, binary=True) as cdc:
            for transaction in cdc.catch_up():
                found += len(transaction)
                cdc.acknowledge(transaction)
            seconds = time.perf_counter() - begin
    made.check(found)
    return found / seconds


def _frames(way: str, made: Backlog, *, backlog: int | None) -> float:
    """Changes per second of frames: of a backlog that is read through COPY, or without one of the stream itself."""
    with made.slot() as slot:
        begin = time.perf_counter()
        found = 0
        with PostgreSQLCDC(made.dsn(way), PUBLICATION, slot, binary=True) as cdc:
            for batch in cdc.frames(until=made.end, backlog=backlog):
                found += len(batch)
                cdc.acknowledge(batch)
            seconds = time.perf_counter() - begin
    made.check(found)
    return found / seconds


def _pypgoutput(what: str, made: tuple[Backlog, References]) -> float:
    backlog_, references = made
    changes = backlog_.changes if what == "decoders" else min(backlog_.changes, 200_000)  # one of it takes 40 us
    with backlog_.slot() as slot:
        return rate(
            references.run(
                Path(__file__).with_name("pypgoutput_reader.py"), what, slot, PUBLICATION, str(changes),
                env={"BENCH_DSN": str.__str__(backlog_.dsn("tcp"))},
            )
        )  # fmt: skip


# -- decoding alone ---------------------------------------------------------------------------------------------------


@contextmanager
def _messages(bench: Bench) -> Iterator[dict[bool, list[bytes]]]:
    """What the slot holds, in memory, as text and in binary."""
    with backlog(bench) as made, psycopg.connect(str.__str__(made.dsn("unix")), autocommit=True) as connection:
        found = {}
        for binary in (False, True):
            keep = _Keep()
            with made.slot() as slot:
                for _ in CatchUp(connection, slot, [PUBLICATION], keep, rows=200_000, binary=binary):
                    pass
            found[binary] = keep.messages
        yield found


class _Keep:
    """A decoder that only keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def receive(self, messages: Any) -> tuple[Any, ...]:
        self.messages += messages
        return ()

    def reset(self) -> None:
        self.messages = []


def _offline(make: Callable[[], Any], binary: bool, made: dict[bool, list[bytes]]) -> float:
    """Changes per second of processor time."""
    messages, decoder = made[binary], make()
    found = 0
    begin = time.process_time()
    for at in range(0, len(messages), 2000):
        with uncollected():  # as the readers do
            done = decoder.receive(messages[at : at + 2000])
        found += sum(map(len, done))
    if isinstance(decoder, FrameDecoder):
        found += sum(map(len, decoder.flush()))
    seconds = time.process_time() - begin
    as_usual()
    return found / seconds


# -- latency ----------------------------------------------------------------------------------------------------------

_SCRIPT = "INSERT INTO sl_bench_ticks DEFAULT VALUES;\n"
_RATE = 1000


class Latency:
    """pgbench commits a thousand transactions a second while a handler receives them; each run is measured twice."""

    def __init__(self, made: Backlog, postgres: PostgreSQL, seconds: int) -> None:
        self._made, self._postgres, self._seconds = made, postgres, seconds
        self._ours: list[float] = []
        self._theirs: list[float] = []

    def ours(self) -> float:
        """Milliseconds from the commit to the handler, of 99 % of transactions."""
        if not self._ours:
            self._measure()
        return self._ours.pop()

    def theirs(self) -> float:
        """Milliseconds that pgbench waited for its commit, of 99 %."""
        if not self._theirs:
            self._measure()
        return self._theirs.pop()

    def _measure(self) -> None:
        dsn = self._made.dsn("unix")
        late: list[float] = []
        total = _RATE * self._seconds
        with psycopg.connect(str.__str__(dsn), autocommit=True) as admin:
            admin.execute("CREATE TABLE sl_bench_ticks (id bigserial PRIMARY KEY)")
            try:
                with PostgreSQLCDC.session(dsn, ["sl_bench_ticks"]) as cdc, tempfile.TemporaryDirectory() as folder:
                    bench = self._pgbench(Path(folder))
                    for transaction in cdc.transactions(idle=2.0):
                        late.append(time.time() - transaction.commit_timestamp.timestamp())
                        cdc.acknowledge(transaction)
                    if bench.wait(60):
                        raise subprocess.CalledProcessError(bench.returncode, "pgbench")
                    logs = Path(folder).glob("log*")
                    waits = [int(line.split()[2]) for log in logs for line in log.read_text().splitlines()]
            finally:
                admin.execute("DROP TABLE sl_bench_ticks")
        if len(late) != len(waits) or len(late) < total / 2:
            raise RuntimeError(f"pgbench committed {len(waits)} of {total}, and {len(late)} were received")
        self._ours.append(_p99(late) * 1e3)
        self._theirs.append(_p99(waits) / 1e3)

    def _pgbench(self, folder: Path) -> subprocess.Popen[bytes]:
        script = folder / "tick.sql"
        script.write_text(_SCRIPT)
        return subprocess.Popen(
            [
                self._postgres.bin / "pgbench", "--no-vacuum", "--client", "4", "--rate", str(_RATE), "--time",
                str(self._seconds), "--file", script, "--log", "--log-prefix", folder / "log",
                str.__str__(self._made.dsn("unix")),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _p99(values: list[Any]) -> float:
    return float(sorted(values)[max(0, math.ceil(len(values) * 0.99) - 1)])


@contextmanager
def _latency(bench: Bench) -> Iterator[Latency]:
    with backlog(bench) as made:
        service = bench.servers.stack.service("postgres")
        assert isinstance(service, PostgreSQL)
        yield Latency(made, service, 3 if bench.quick else 20)


# -- cases ------------------------------------------------------------------------------------------------------------

Measure = Callable[[Any], float]


def _against(way: str, goal: float | None) -> Reference[Any]:
    return Reference("pg_recvlogical", partial(_recvlogical, way), goal)


def _recvlogical(way: str, made: Any) -> float:
    backlog_: Backlog = made[0] if isinstance(made, tuple) else made
    return backlog_.pg_recvlogical(way)


@contextmanager
def _with_references(bench: Bench) -> Iterator[tuple[Backlog, References]]:
    with backlog(bench) as made:
        yield made, bench.references


def _case(name: str, work: str, ours: Measure, *references: Reference[Any], **options: Any) -> Case[Any]:
    return Case(
        name=name, work=work, ours=ours, references=references,
        **{"unit": "rows/s", "setup": backlog, "rounds": 5, "quick_rounds": 1, **options},
    )  # fmt: skip


def _beside(measure: Measure) -> Measure:
    return lambda made: measure(made[0])


def _cases() -> Iterator[Case[Any]]:
    for way, events, lazy in (("unix", 0.6, 0.8), ("tcp", 1.4, None)):
        yield _case(f"events-{way}", "typed events, every value read", partial(_events, way), _against(way, events))
        yield _case(
            f"lazy-{way}", "lazy events, counted", partial(_events, way, lazy=True), _against(way, lazy)
        )  # fmt: skip
        yield _case(
            f"frames-{way}", "Polars frames, backlog by COPY", partial(_frames, way, backlog=0), _against(way, 0.95)
        )
        yield _case(
            f"frames-stream-{way}", "Polars frames, stream", partial(_frames, way, backlog=None), _against(way, None)
        )
    yield _case("catch-up-unix", "lazy events, backlog by COPY", partial(_catch_up, "unix"), _against("unix", 0.8))
    for name, ours, goal in (
        ("events", partial(_events, "tcp"), 3.5),
        ("frames", partial(_frames, "tcp", backlog=0), 5.0),
    ):
        peers: list[Reference[Any]] = [
            Reference("psycopg2 + pypgoutput, text", partial(_pypgoutput, "decoders"), goal),
            Reference("psycopg2 + pypgoutput, typed", partial(_pypgoutput, "events"), goal),
        ]
        yield _case(f"{name}-python", f"{name} over TCP", _beside(ours), *peers, setup=_with_references, rounds=3)
    for name, make, binary in (
        ("events", Decoder, False),
        ("lazy", partial(Decoder, lazy=True, binary=True), True),
        ("frames", partial(FrameDecoder, max_rows=50_000), True),
    ):
        yield _case(
            f"decode-{name}", f"{name} from memory, per CPU-s", partial(_offline, make, binary), setup=_messages
        )
    yield _case(
        "latency", "commit to handler, 99 %, at 1000 tx/s", Latency.ours,
        Reference("pgbench's own wait", Latency.theirs),
        setup=_latency, unit="ms", smaller_is_better=True, rounds=3,
    )  # fmt: skip


BENCHMARK = Benchmark("postgres_cdc", tuple(_cases()))
