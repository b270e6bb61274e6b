"""What flows: connectors with their state, lag and last error; topics; consumer groups and how far they are behind.

What a person asks of a running stack. The figures that Prometheus asks for are those of `streamlab.ops.servers`;
the lags are taken from there. Every question runs in a thread of its own and is waited for a few seconds at most.

The lag of a connector is counted where its source counts. A sink is a consumer group, ``connect-<name>``: records. A
PostgreSQL source is a replication slot: bytes of WAL since its confirmed position. A MySQL source has committed a
position in the binary log: bytes from there to the log's end, as long as both lie in one file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamlab import settings
from streamlab.errors import StreamlabError
from streamlab.ops.servers import LIMIT, Answer, ServersCollector

if TYPE_CHECKING:
    from streamlab.connect import ConnectClient, ConnectorStatus

__all__ = ["ConnectorRow", "GroupRow", "Streams", "TopicRow", "look"]

_SECONDS = 3


@dataclass(frozen=True, slots=True)
class ConnectorRow:
    """One connector. A lag is None where it is not known; `error` is the last one, empty where nothing has failed.

    `log` is the service whose log tells more of the error; empty where there is none, or streamlab does not have it.
    """

    name: str
    kind: str
    state: str
    tasks_running: int
    tasks: int
    lag_records: int | None
    lag_bytes: int | None
    error: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class TopicRow:
    """One topic. `offsets` is how many lie between its beginnings and its ends: records, and ends of transactions."""

    name: str
    partitions: int
    offsets: int | None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One consumer group that has committed something. `lag_records` is over all of its partitions."""

    name: str
    topics: tuple[str, ...]
    lag_records: int


@dataclass(frozen=True, slots=True)
class Streams:
    """What flows at one time. `problems` are sentences, by service, where something could not be asked."""

    connectors: tuple[ConnectorRow, ...] = ()
    topics: tuple[TopicRow, ...] = ()
    groups: tuple[GroupRow, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)


def look(services: Iterable[str], *, limit: float = LIMIT) -> Streams:
    """Ask the services that run; returns after about `limit` seconds at the latest.

    Parameters
    ----------
    services : iterable of str
        Those that are known to run: of ``connect``, ``kafka``, ``postgres``, ``mysql``.
    limit : float
        Seconds that are waited at most.
    """
    running = set(services)
    deadline = time.monotonic() + limit
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}

    def ask(name: str, question: Callable[[], Any]) -> threading.Thread:
        def answer() -> None:
            try:
                found[name] = question()
            except StreamlabError as error:
                problems[name] = error.problem
            except Exception as error:  # noqa: BLE001 - a server may fail in any way; the others are still told of
                problems[name] = f"{type(error).__name__}: {error}"

        # A daemon: a deaf server must not keep the process from ending.
        thread = threading.Thread(target=answer, name=f"streamlab-look-{name}", daemon=True)
        thread.start()
        return thread

    asked = [each for each in ("postgres", "mysql", "kafka") if each in running]
    threads = {"figures": ask("figures", lambda: ServersCollector(asked, limit=limit).ask().answers)}
    if "kafka" in running:
        threads["kafka"] = ask("kafka", _topics)
    if running & set(settings.CONNECT_WORKERS):
        threads["connect"] = ask("connect", _connectors)
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()) + (0.2 if name == "figures" else 0.0))
        if thread.is_alive():
            problems[name] = f"No answer within {limit:.0f} s."
    figures = {answer.service: answer for answer in found.get("figures", ())}
    # The servers' own answers say more of the same.
    problems |= {name: each.problem for name, each in figures.items() if each.problem and name == "kafka"}
    problems.pop("figures", None)
    groups = _groups(figures.get("kafka"))
    rows = tuple(_row(each, figures, groups) for each in found.get("connect", ()))
    return Streams(rows, found.get("kafka", ()), groups, problems)


# -- Kafka -----------------------------------------------------------------------------------------------------------


def _topics() -> tuple[TopicRow, ...]:
    """The topics that are no server's own."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    listed = admin.list_topics(timeout=_SECONDS).topics
    counts = {name: len(topic.partitions) for name, topic in sorted(listed.items()) if not name.startswith("_")}
    spans: dict[str, int | None] = dict.fromkeys(counts, 0)
    if not counts:
        return ()
    for sign, spec in ((1, OffsetSpec.latest()), (-1, OffsetSpec.earliest())):  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(name, number): spec for name, count in counts.items() for number in range(count)}
        for partition, future in admin.list_offsets(wanted, request_timeout=_SECONDS).items():
            before = spans[partition.topic]
            try:
                told = future.result(timeout=_SECONDS)
            except KafkaException:
                # It may have gone meanwhile.
                spans[partition.topic] = None
            else:
                spans[partition.topic] = None if before is None else before + sign * int(told.offset)
    return tuple(TopicRow(name, count, spans[name]) for name, count in counts.items())


def _groups(told: Answer | None) -> tuple[GroupRow, ...]:
    lags: dict[str, int] = {}
    topics: dict[str, set[str]] = {}
    for sample in told.samples if told else ():
        if sample.metric == "CONSUMER_LAG_RECORDS":
            group, topic, _ = sample.labels
            lags[group] = lags.get(group, 0) + int(sample.value)
            topics.setdefault(group, set()).add(topic)
    return tuple(GroupRow(name, tuple(sorted(topics[name])), lags[name]) for name in sorted(lags))


# -- Kafka Connect ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Connector:
    status: ConnectorStatus
    configuration: dict[str, str]
    position: dict[str, Any]


def _connectors() -> list[_Connector]:
    from streamlab.connect import ConnectClient
    from streamlab.connect.rest import answering

    with ConnectClient(answering(settings.connect_urls(), _SECONDS)) as client:
        configurations = client.configurations()
        return [
            _Connector(status, configurations.get(status.name, {}), _position(client, status))
            for status in client.statuses()
        ]


def _position(client: ConnectClient, status: ConnectorStatus) -> dict[str, Any]:
    """Where a source has come to, as far as it has committed that."""
    if status.kind != "source":
        return {}
    try:
        told = client.offsets(status.name)
    except StreamlabError:
        # It has gone meanwhile, or its plugin cannot be loaded.
        return {}
    return dict(told[0].offset or {}) if len(told) == 1 else {}


def _row(each: _Connector, figures: dict[str, Answer], groups: tuple[GroupRow, ...]) -> ConnectorRow:
    status = each.status
    failed = next(iter(status.failed), None)
    behind = {group.name: group.lag_records for group in groups}
    return ConnectorRow(
        name=status.name,
        kind=status.kind,
        state=status.state,
        tasks_running=sum(part.state == "RUNNING" for part in status.tasks),
        tasks=len(status.tasks),
        lag_records=behind.get(f"connect-{status.name}") if status.kind == "sink" else None,
        lag_bytes=_bytes_behind(each, figures) if status.kind == "source" else None,
        error=failed.error if failed else "",
        log=settings.connect_worker(failed.worker) if failed else "",
    )


def _bytes_behind(each: _Connector, figures: dict[str, Answer]) -> int | None:
    """The log that a source of a database has not committed yet."""
    cls = each.configuration.get("connector.class", "")
    if cls.endswith("PostgresConnector") and "postgres" in figures:
        slot = each.configuration.get("slot.name", "debezium")
        lags = {s.labels[0]: int(s.value) for s in figures["postgres"].samples if s.metric == "SLOT_LAG_BYTES"}
        return lags.get(slot)
    if cls.endswith("MySqlConnector") and "mysql" in figures and {"file", "pos"} <= set(each.position):
        now = {sample.metric: int(sample.value) for sample in figures["mysql"].samples}
        number = str(each.position["file"]).rpartition(".")[2]
        if number.isdecimal() and now.get("BINLOG_FILE_NUMBER") == int(number):
            return max(0, now["BINLOG_POSITION_BYTES"] - int(each.position["pos"]))
    return None
