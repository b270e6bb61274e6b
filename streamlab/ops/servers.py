"""What servers can be asked: replication slots, binary log, consumer lag, connectors, as Prometheus metrics.

A custom collector (`prometheus_client.registry.Collector`): nothing is kept, the servers are asked at each scrape.
Each service is asked in a thread of its own with its own limits, so that one that is down or deaf is reported as
``streamlab_up 0`` after a few seconds and takes nothing from the others. While a service has not answered, it is
not asked a second time: scrapes that overlap share the answer.

Sources: PostgreSQL's view ``pg_replication_slots``; MySQL's ``SHOW BINARY LOGS`` and ``SHOW BINARY LOG STATUS``;
Kafka's admin requests ListGroups, OffsetFetch and ListOffsets; Kafka Connect's ``GET /connectors?expand=status``.
Names, labels and units are in `streamlab.metrics.ASKED`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamlab import metrics, settings
from streamlab.errors import NotRunning, StreamlabError
from streamlab.sql import load

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Answer", "Asked", "Sample", "ServersCollector"]

LIMIT = 4.0
"""Seconds that a scrape waits for a service at most; Prometheus itself gives up after ten."""

_CONNECT_LIMIT = 2
_QUESTION_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: the attribute in `streamlab.metrics.ASKED`, the values of its labels, the value."""

    metric: str
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What one service told. `problem` is a sentence where it did not answer, or refused a question."""

    service: str
    up: bool
    seconds: float
    samples: tuple[Sample, ...] = ()
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether every question was answered."""
        return self.up and not self.problem


@dataclass(slots=True)
class _Told:
    """What has been learned of a service so far; filled by its question."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    up: bool = False

    def add(self, metric: str, value: float, *labels: object) -> None:
        self.samples.append(Sample(metric, tuple(str(label) for label in labels), float(value)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What all services told, at one time. A collector too: it yields the same figures again."""

    answers: tuple[Answer, ...]

    def collect(self) -> Iterator[Metric]:
        """One family for each of `streamlab.metrics.ASKED`, in its order; also those without a sample."""
        found: dict[str, list[Sample]] = {attribute: [] for attribute in metrics.ASKED}
        for answer in self.answers:
            found["UP"].append(Sample("UP", (answer.service,), float(answer.up)))
            found["SCRAPE_COMPLETE"].append(Sample("SCRAPE_COMPLETE", (answer.service,), float(answer.complete)))
            found["SCRAPE_SECONDS"].append(Sample("SCRAPE_SECONDS", (answer.service,), answer.seconds))
            for sample in answer.samples:
                found[sample.metric].append(sample)
        for attribute, samples in found.items():
            family = metrics.family(attribute)
            for sample in samples:
                family.add_metric(list(sample.labels), sample.value)
            yield family


class ServersCollector:
    """Asks the servers that `streamlab.settings` names, at each `collect`. Threads may share it.

    Parameters
    ----------
    services : iterable of str, optional
        By default all of them.
    limit : float
        Seconds that are waited for a service at most.
    """

    def __init__(self, services: Iterable[str] | None = None, *, limit: float = LIMIT) -> None:
        self._services = tuple(_QUESTIONS if services is None else services)
        self._limit = limit
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[Future[Answer], float]] = {}

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry; asks nobody."""
        for attribute in metrics.ASKED:
            yield metrics.family(attribute)

    def collect(self) -> Iterator[Metric]:
        """Ask, and yield one family for each metric."""
        yield from self.ask().collect()

    def ask(self) -> Asked:
        """Ask every service, side by side; returns after `limit` seconds at the latest."""
        futures = {service: self._question(service) for service in self._services}
        deadline = time.monotonic() + self._limit
        answers = []
        for service, (future, began) in futures.items():
            try:
                answers.append(future.result(max(0.0, deadline - time.monotonic())))
            except TooLate:
                seconds = time.monotonic() - began
                answers.append(Answer(service, False, seconds, problem=f"No answer within {seconds:.0f} s."))
        return Asked(tuple(answers))

    def _question(self, service: str) -> tuple[Future[Answer], float]:
        with self._lock:
            asked = self._asked.get(service)
            if asked is not None and not asked[0].done():
                return asked
            future: Future[Answer] = Future()
            # A daemon: a deaf server must not keep the process from ending.
            thread = threading.Thread(
                target=lambda: future.set_result(_ask(service)), name=f"streamlab-ask-{service}", daemon=True
            )
            self._asked[service] = (future, time.monotonic())
            thread.start()
            return self._asked[service]


def _ask(service: str) -> Answer:
    begin = time.monotonic()
    told = _Told()
    try:
        _QUESTIONS[service](told)
    except NotRunning as error:
        told.problems.append(str(error))
    except StreamlabError as error:
        told.problems.append(error.problem)
    except Exception as error:  # noqa: BLE001 - a server may fail in any way; the others are still told of
        told.problems.append(_sentence(error))
    return Answer(service, told.up, time.monotonic() - begin, tuple(told.samples), " ".join(told.problems))


def _sentence(error: BaseException) -> str:
    """What a driver says, on one line: pymysql's errors are (number, text), Kafka's hold an object."""
    first = error.args[-1] if error.args else ""
    text = " ".join(str(getattr(first, "str", lambda: first)() or error).split()).rstrip(".")
    return f"{text or type(error).__name__}."


# -- PostgreSQL ---------------------------------------------------------------------------------------


def _postgres(told: _Told) -> None:
    import psycopg

    dsn = settings.postgres_dsn("reader")
    blocks = load("servers")
    with psycopg.connect(
        dsn,
        connect_timeout=_CONNECT_LIMIT,
        # A host that has vanished is noticed, although nothing more is sent to it.
        tcp_user_timeout=_QUESTION_LIMIT * 1000,
        application_name="streamlab metrics",
        autocommit=True,
    ) as connection:
        told.up = True
        connection.execute(blocks["bounded"], [f"{_QUESTION_LIMIT}s"])
        rows = connection.execute(blocks["slots"]).fetchall()
    for name, database, active, status, lag, retained in rows:
        told.add("SLOT_ACTIVE", active, name, database)
        if status:
            told.add("SLOT_WAL_STATUS", 1, name, database, status)
        if lag is not None:
            told.add("SLOT_LAG_BYTES", lag, name, database)
        if retained is not None:
            told.add("SLOT_RETAINED_WAL_BYTES", retained, name, database)


# -- MySQL --------------------------------------------------------------------------------------------


def _mysql(told: _Told) -> None:
    import pymysql

    # The capturing role: it has REPLICATION CLIENT, which both questions need.
    address = settings.mysql_address("cdc")
    limits = {"connect_timeout": _CONNECT_LIMIT, "read_timeout": _QUESTION_LIMIT, "write_timeout": _QUESTION_LIMIT}
    blocks = load("servers")
    with pymysql.connect(**{**address.arguments(database=""), **limits}) as connection:
        told.up = True
        with connection.cursor() as cursor:
            cursor.execute(blocks["binlog_files"])
            sizes = [int(row[1]) for row in cursor.fetchall()]
            cursor.execute(blocks["binlog_position"])
            row = cursor.fetchone()
    told.add("BINLOG_FILES", len(sizes))
    told.add("BINLOG_BYTES", sum(sizes))
    if row:
        told.add("BINLOG_FILE_NUMBER", int(str(row[0]).rpartition(".")[2]))
        told.add("BINLOG_POSITION_BYTES", int(row[1]))


# -- Kafka --------------------------------------------------------------------------------------------


def _kafka(told: _Told) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    client.list_topics(timeout=_CONNECT_LIMIT)
    told.up = True
    listed = client.list_consumer_groups(request_timeout=_QUESTION_LIMIT).result(timeout=_QUESTION_LIMIT)
    told.problems += [_sentence(error) for error in listed.errors]
    asked = {
        # The client takes one group at a time; they are under way together.
        group.group_id: client.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group.group_id)], request_timeout=_QUESTION_LIMIT
        )[group.group_id]
        for group in listed.valid
    }
    committed: list[tuple[str, Any]] = []
    for group, future in asked.items():
        partitions = _answered(told, future)
        committed += [(group, each) for each in (partitions.topic_partitions if partitions else ()) if each.offset >= 0]
    ends = _ends(client, told, {(each.topic, each.partition) for _, each in committed})
    for group, each in committed:
        if (end := ends.get((each.topic, each.partition))) is not None:
            # The end was asked for later; a topic that was made anew may still end before the commit.
            told.add("CONSUMER_LAG_RECORDS", max(0, end - each.offset), group, each.topic, each.partition)


def _ends(client: Any, told: _Told, partitions: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    if not partitions:
        return {}
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(topic, number): latest for topic, number in sorted(partitions)}
    ends = {}
    for partition, future in client.list_offsets(wanted, request_timeout=_QUESTION_LIMIT).items():
        if (result := _answered(told, future)) is not None:
            ends[partition.topic, partition.partition] = int(result.offset)
    return ends


def _answered(told: _Told, future: Any) -> Any:
    """A result, or None: where a group or topic has gone meanwhile silently, else with the problem noted."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        return future.result(timeout=_QUESTION_LIMIT)
    except KafkaException as error:
        gone = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_TOPIC_OR_PART}
        if error.args[0].code() not in gone:
            told.problems.append(_sentence(error))
        return None


# -- Kafka Connect ------------------------------------------------------------------------------------


def _connect(told: _Told) -> None:
    import httpx

    from streamlab.connect.rest import answering

    limits = httpx.Timeout(_QUESTION_LIMIT, connect=_CONNECT_LIMIT)
    # Each worker of a group answers for all of it.
    worker = answering(settings.connect_urls(), _CONNECT_LIMIT)
    answer = httpx.get(f"{worker}/connectors", params={"expand": "status"}, timeout=limits)
    told.up = True
    if not answer.is_success:
        told.problems.append(f"{answer.request.url} answers with status {answer.status_code}.")
        return
    for name, about in sorted(answer.json().items()):
        # A connector that was made a moment ago may have no status yet.
        status = about.get("status")
        if not status:
            continue
        told.add("CONNECTOR_STATE", 1, name, status["connector"]["state"])
        for task in status["tasks"]:
            told.add("TASK_STATE", 1, name, task["id"], task["state"])


_QUESTIONS: dict[str, Callable[[_Told], None]] = {
    "postgres": _postgres,
    "mysql": _mysql,
    "kafka": _kafka,
    "connect": _connect,
}
