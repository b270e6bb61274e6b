"""All metrics: one registry of this package's own, with every name, unit and label in one table.

Names follow the conventions of Prometheus ("Metric and label naming"): base units (seconds,
bytes) as a suffix, `_total` for what only grows, and the same meaning for one label name
everywhere. Two kinds stand in the table: those that this process keeps (`PROCESS`), which are
module attributes to be used as ``metrics.CDC_EVENTS.labels(source, "insert").inc()``, and those
that `streamlab.ops.servers` asks the servers for (`ASKED`).

The registry is not the global one of `prometheus_client`, so that a program that has metrics of
its own gets no surprises. That library is imported when the first metric is used, not with this
module: its HTTP parts cost more than everything else that `import streamlab.metrics` does.
Therefore write ``from streamlab import metrics`` and use the attributes, rather than importing
them by name.

Threads: every metric may be changed from any thread; `prometheus_client` locks each one.
"""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from streamlab.errors import PortTaken, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from prometheus_client import CollectorRegistry, Counter, Gauge
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

    REGISTRY: CollectorRegistry
    RETRY_ATTEMPTS: Counter
    RETRY_WAITING_SECONDS: Counter
    DEAD_LETTERS: Gauge
    DEAD_LETTERS_PARKED_KEYS: Gauge
    DEAD_LETTERS_OLDEST_AGE_SECONDS: Gauge
    CDC_RECEIVED_POSITION_BYTES: Gauge
    CDC_ACKNOWLEDGED_POSITION_BYTES: Gauge
    CDC_LAG_BYTES: Gauge
    CDC_LAG_SECONDS: Gauge
    CDC_RECEIVED_BYTES: Counter
    CDC_EVENTS: Counter
    CDC_TRANSACTIONS: Counter
    CDC_RECONNECTS: Counter
    CONNECT_RECORDS: Counter
    CONNECT_COMMITS: Counter
    CONNECT_SKIPPED: Counter
    CONNECT_RESTARTS: Counter
    CONNECT_LAG_SECONDS: Gauge
    STACK_START_SECONDS: Gauge

__all__ = ["ASKED", "LOOPBACK", "PROCESS", "Definition", "MetricsServer", "family", "render", "serve"]

LOOPBACK = "127.0.0.1"
"""The only address that `serve` listens on: metrics name tables, slots and topics."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What one metric is called and means.

    `name` is the name in the exposition, `_total` of a counter included.
    """

    kind: Literal["counter", "gauge"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Definition:
    return Definition("counter", f"streamlab_{name}", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Definition:
    return Definition("gauge", f"streamlab_{name}", text, labels)


PROCESS: dict[str, Definition] = {
    "RETRY_ATTEMPTS": _counter(
        "retry_attempts_total",
        "Attempts by their outcome: succeeded, retried, refused (no repetition helps), exhausted or stopped.",
        "operation",
        "outcome",
    ),
    "RETRY_WAITING_SECONDS": _counter("retry_waiting_seconds_total", "Time spent between attempts.", "operation"),
    "DEAD_LETTERS": _gauge(
        "dead_letters", "Dead letters by status: parked, behind, replayed or discarded.", "group", "status"
    ),
    "DEAD_LETTERS_PARKED_KEYS": _gauge(
        "dead_letters_parked_keys", "Keys whose later records wait behind a dead letter.", "group"
    ),
    "DEAD_LETTERS_OLDEST_AGE_SECONDS": _gauge(
        "dead_letters_oldest_age_seconds", "Age of the oldest open dead letter; 0 where there is none.", "group"
    ),
    # A log position is a count of bytes: an LSN as it is, or the offset in MySQL's binlog file. A
    # sample is a double, exact up to 2**53: 8 PiB of log.
    "CDC_RECEIVED_POSITION_BYTES": _gauge(
        "cdc_received_position_bytes", "Log position up to which changes were received.", "source"
    ),
    "CDC_ACKNOWLEDGED_POSITION_BYTES": _gauge(
        "cdc_acknowledged_position_bytes", "Log position up to which the server may forget.", "source"
    ),
    "CDC_LAG_BYTES": _gauge("cdc_lag_bytes", "Log that the server has written and nobody acknowledged.", "source"),
    "CDC_LAG_SECONDS": _gauge(
        "cdc_lag_seconds", "Time between the commit of the last received transaction and its arrival.", "source"
    ),
    "CDC_RECEIVED_BYTES": _counter("cdc_received_bytes_total", "Bytes of the change stream.", "source"),
    "CDC_EVENTS": _counter(
        "cdc_events_total", "Changes received: insert, update, delete, truncate or message.", "source", "operation"
    ),
    "CDC_TRANSACTIONS": _counter("cdc_transactions_total", "Committed transactions received.", "source"),
    "CDC_RECONNECTS": _counter("cdc_reconnects_total", "Connections made again after one was lost.", "source"),
    "CONNECT_RECORDS": _counter(
        "connect_records_total", "Records that Kafka has acknowledged, tombstones among them.", "connector"
    ),
    "CONNECT_COMMITS": _counter(
        "connect_commits_total", "Times that records and their offset were made durable together.", "connector"
    ),
    "CONNECT_SKIPPED": _counter(
        "connect_skipped_total", "Changes that came again and were in Kafka already.", "connector"
    ),
    "CONNECT_RESTARTS": _counter(
        "connect_restarts_total", "Times that the connector began anew after a failure.", "connector"
    ),
    "CONNECT_LAG_SECONDS": _gauge(
        "connect_lag_seconds", "Time between the last transaction's commit and its records' in Kafka.", "connector"
    ),
    "STACK_START_SECONDS": _gauge(
        "stack_start_seconds", "Time from starting a server until it was ready, at its last start.", "service"
    ),
}
"""The metrics that this process keeps, by attribute name."""

ASKED: dict[str, Definition] = {
    "UP": _gauge("up", "1 where the server answered, 0 where none is known or it did not.", "service"),
    "SCRAPE_COMPLETE": _gauge(
        "scrape_complete", "1 where the server answered every question, 0 where one was refused.", "service"
    ),
    "SCRAPE_SECONDS": _gauge("scrape_duration_seconds", "Time that asking the server took.", "service"),
    "SLOT_LAG_BYTES": _gauge(
        "postgres_slot_lag_bytes", "WAL written since the slot's confirmed_flush_lsn.", "slot", "database"
    ),
    "SLOT_RETAINED_WAL_BYTES": _gauge(
        "postgres_slot_retained_wal_bytes", "WAL kept for the slot: since its restart_lsn.", "slot", "database"
    ),
    "SLOT_ACTIVE": _gauge("postgres_slot_active", "1 while a reader is connected to the slot.", "slot", "database"),
    "SLOT_WAL_STATUS": _gauge(
        "postgres_slot_wal_status",
        "1 for the slot's wal_status: reserved, extended, unreserved or lost.",
        "slot",
        "database",
        "status",
    ),
    "BINLOG_BYTES": _gauge("mysql_binlog_bytes", "Size of all binary log files."),
    "BINLOG_FILES": _gauge("mysql_binlog_files", "Number of binary log files."),
    "BINLOG_FILE_NUMBER": _gauge("mysql_binlog_file_number", "Number of the binary log file that is written."),
    "BINLOG_POSITION_BYTES": _gauge("mysql_binlog_position_bytes", "Position in the binary log file that is written."),
    "CONSUMER_LAG_RECORDS": _gauge(
        "kafka_consumer_lag_records",
        "Offsets between the group's commit and the partition's end.",
        "group",
        "topic",
        "partition",
    ),
    "CONNECTOR_STATE": _gauge("connect_connector_state", "1 for the connector's state.", "connector", "state"),
    "TASK_STATE": _gauge("connect_task_state", "1 for the task's state.", "connector", "task", "state"),
}
"""The metrics that `streamlab.ops.servers` asks the servers for."""

_building = threading.Lock()


def _build() -> dict[str, Any]:
    from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

    class Registry(CollectorRegistry):
        """A registry without the `_created` series, which double every counter for no reader of ours."""

        def collect(self) -> Iterable[Metric]:
            for metric in super().collect():
                created = f"{metric.name}_created"
                metric.samples = [sample for sample in metric.samples if sample.name != created]
                yield metric

    registry = Registry()
    # process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds: named by convention, not by us.
    ProcessCollector(registry=registry)
    kinds = {"counter": Counter, "gauge": Gauge}
    built: dict[str, Any] = {
        attribute: kinds[one.kind](one.name, one.help, one.labels, registry=registry)
        for attribute, one in PROCESS.items()
    }
    built["REGISTRY"] = registry
    return built


def _find(name: str) -> Any:
    if name != "REGISTRY" and name not in PROCESS:
        raise AttributeError(f"module 'streamlab.metrics' has no attribute {name!r}")
    with _building:
        if "REGISTRY" not in globals():
            globals().update(_build())
    return globals()[name]


if not TYPE_CHECKING:  # hidden, or a type checker would believe in any attribute
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), "REGISTRY", *PROCESS})


def family(attribute: str) -> GaugeMetricFamily:
    """An empty family of `ASKED`, to be filled with ``add_metric(label_values, value)``."""
    from prometheus_client.metrics_core import GaugeMetricFamily

    one = ASKED[attribute]
    return GaugeMetricFamily(one.name, one.help, labels=one.labels)


def render(registry: Collector | None = None) -> str:
    """The metrics in Prometheus' text format (0.0.4).

    Parameters
    ----------
    registry : Collector, optional
        Another registry than this package's own, or anything else that yields families when it is collected.
    """
    from prometheus_client import generate_latest

    return generate_latest(_find("REGISTRY") if registry is None else registry).decode()


class MetricsServer:
    """An HTTP server for one registry, in a thread of this process; made by `serve`.

    Any thread may close it; a second `close` does nothing. The thread does not keep the process
    alive.
    """

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self._closing = threading.Lock()
        self._closed = False
        self.port: int = server.server_port
        self.url = f"http://{LOOPBACK}:{self.port}/metrics"

    def __repr__(self) -> str:
        return f"<MetricsServer {self.url}{' closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and free the port. Returns within a second."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(timeout=5)


def serve(port: int = 0, registry: CollectorRegistry | None = None) -> MetricsServer:
    """Serve the metrics over HTTP, on the loopback address alone, from a thread of this process.

    Parameters
    ----------
    port : int
        0 lets the system choose a free one: read it from the handle's `port`.
    registry : CollectorRegistry, optional
        Another registry than this package's own.

    Raises
    ------
    PortTaken
        Another program listens on the port.
    SettingsError
        The port is no port, or this user may not listen on it.
    """
    from prometheus_client import start_http_server

    if not 0 <= port <= 65535:
        raise SettingsError(f"{port} is not a port.", "Give a number from 1 to 65535, or 0 for any free one.")
    try:
        server, thread = start_http_server(
            port, addr=LOOPBACK, registry=_find("REGISTRY") if registry is None else registry
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Port {port} is in use by another program.", "Give another port, or 0 for any free one."
            ) from error
        raise SettingsError(f"Port {port} cannot be used: {error.strerror}.", "Give a port above 1023.") from error
    thread.name = f"streamlab-metrics-{server.server_port}"
    return MetricsServer(server, thread)
