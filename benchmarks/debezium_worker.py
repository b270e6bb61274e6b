"""Debezium as fast as it gets here: a worker of the benchmark's own, tuned fairly, and a topic that it fills.

The stack's worker has the quick compiler alone and a small heap, since it shares a laptop with all the rest. This one
has the optimising compiler and 1.5 GB, batches of 8192 changes and of 512 KiB, no schemas in its records, and is warm
when it is measured: it has captured 600,000 rows before. It delivers at least once, as it does by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import psutil
from confluent_kafka import Consumer, TopicPartition

from benchmarks.which_tables import TABLE, Table
from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import MySQLSource, PostgreSQLSource
from streamlab.errors import StackError
from streamlab.stack import Stack
from streamlab.stack.connect import Connect
from streamlab.stack.services import SERVICES

__all__ = ["TUNED", "Debezium", "Usage", "end_of", "tuned_worker"]

TUNED = {
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "poll.interval.ms": "10",
    "producer.override.batch.size": "524288",
    "producer.override.linger.ms": "20",
    "producer.override.buffer.memory": "134217728",
}
"""What is set beyond the defaults; a producer's default is acks=all and idempotence."""

_WAIT = 300.0


class _Worker(Connect):
    """The stack's worker with the optimising compiler and a large heap."""

    heap: ClassVar[str] = "1536m"
    compiler: ClassVar[tuple[str, ...]] = ()

    def _settings(self) -> dict[str, str]:
        # The connector that it is compared with is idempotent: neither writes transactions of Kafka.
        return {**super()._settings(), "exactly.once.source.support": "disabled"}


@contextmanager
def tuned_worker(stack: Stack) -> Iterator[psutil.Process]:
    """The worker, in the place of the stack's own."""
    usual = SERVICES["connect"]
    stack.down(["connect"])
    SERVICES["connect"] = _Worker
    try:
        for outcome in stack.up(["connect"]):
            if outcome.error is not None:
                raise outcome.error
        pid = next(row.pid for row in stack.status() if row.name == "connect")
        if pid is None:
            raise StackError("The worker has no process.")
        yield psutil.Process(pid)
        stack.down(["connect"])
    finally:
        SERVICES["connect"] = usual


@dataclass(frozen=True, slots=True)
class Usage:
    """What one reading took."""

    rate: float
    """Rows per second."""
    processor: float
    """Seconds of processor time per 100,000 rows."""
    memory: float
    """MiB."""


class Debezium:
    """One source of the tuned worker, stopped between the measurements. Used by one thread.

    Parameters
    ----------
    table : Table
        What it captures.
    worker : psutil.Process
        The worker.
    """

    def __init__(self, table: Table, worker: psutil.Process) -> None:
        self.table, self._worker = table, worker
        self.name = f"which-{table.kind}"
        self.topic = f"{self.name}.{table.where}.{TABLE}"
        self._client = ConnectClient()
        shared: dict[str, Any] = {
            "prefix": self.name, "tables": [TABLE], "snapshot": "no_data", "times": "isostring", "more": TUNED,
        }  # fmt: skip
        self.configuration = (
            PostgreSQLSource(schema=table.where, slot="sl_which_debezium", publication=TABLE, **shared)
            if table.kind == "postgres"
            else MySQLSource(database=table.where, **shared)
        ).configuration()
        self._client.apply(self.name, self.configuration)
        self._client.wait_ready(self.name)
        # Rows from before it began are not captured: it has begun when one is.
        self._until(lambda: self._touch() > 0)
        self._settled()
        self._missed = table.rows - end_of(self.topic)
        self._client.stop(self.name)

    def _touch(self) -> int:
        self.table.one()
        time.sleep(0.2)
        return end_of(self.topic)

    def _pending(self) -> int:
        return self.table.rows - self._missed - end_of(self.topic)

    def measure(self, rows: int) -> Usage:
        """Catch up with at least so many rows, which were written while it was stopped: from its first to its last."""
        self.table.fill(max(0, rows - self._pending()))
        pending = self._pending()
        self._client.resume(self.name)
        self._until(lambda: self._pending() < pending, pause=0.01)
        begin, cpu, count = time.perf_counter(), _processor(self._worker), self._pending()
        self._until(lambda: self._pending() <= 0, pause=0.01)
        seconds, cpu = time.perf_counter() - begin, _processor(self._worker) - cpu
        memory = self._worker.memory_info().rss / 2**20
        self._client.stop(self.name)
        return Usage(count / seconds, cpu / count * 100_000, memory)

    def _settled(self) -> None:
        last = -1
        while (now := end_of(self.topic)) != last:
            last = now
            time.sleep(0.5)

    def _until(self, done: Callable[[], bool], pause: float = 0.0) -> None:
        deadline = time.monotonic() + _WAIT
        while not done():
            if time.monotonic() > deadline:
                state = self._client.status(self.name).state
                raise StackError(
                    f"{self.name} ({state}) has {end_of(self.topic)} of {self.table.rows} rows after {_WAIT:.0f} s.",
                    "See: streamlab logs connect",
                )
            time.sleep(pause)

    def start(self) -> None:
        """Let it run and catch up, for measurements of latency."""
        self._client.resume(self.name)
        self._until(lambda: self._pending() <= 0, pause=0.1)

    def stop(self) -> None:
        """Keep it from taking anything from other measurements."""
        self._client.stop(self.name)

    def close(self) -> None:
        """Delete it."""
        self._client.delete(self.name)
        self._client.close()


def _processor(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


_consumer: Consumer | None = None


def end_of(topic: str) -> int:
    """How many records a topic of one partition has; 0 where it does not exist yet."""
    global _consumer
    if _consumer is None:
        # A topic that was asked for before it was there is looked for again at once, not in five minutes.
        _consumer = Consumer(
            {"bootstrap.servers": settings.kafka_bootstrap(), "group.id": "sl_which_watch", "log_level": 0,
             "topic.metadata.refresh.interval.ms": 200}
        )  # fmt: skip
    try:
        _, high = _consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10, cached=False)
    except Exception as error:  # whatever it is that librdkafka raises for a topic that is not there
        if "UNKNOWN" in str(error):
            return 0
        raise
    return int(high)
