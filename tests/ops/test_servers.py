"""What servers are asked: real slots, groups and connectors, and servers that are down, deaf or unwilling."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pymysql
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from streamlab import metrics, settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import mysql_source
from streamlab.ops.servers import Answer, Asked, Sample, ServersCollector
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

MEBIBYTE = 2**20


@pytest.fixture
def names(stack: object) -> Iterator[Namespace]:
    with Namespace("ops_servers") as namespace:
        yield namespace


def ask(*services: str) -> dict[str, Answer]:
    return {answer.service: answer for answer in ServersCollector(services).ask().answers}


def values(answer: Answer, metric: str) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in answer.samples if sample.metric == metric}


def admin() -> psycopg.Connection[Any]:
    return psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True)


def make_slot(name: str) -> None:
    with admin() as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])


def write_wal(mebibytes: int) -> None:
    with admin() as connection:
        for _ in range(mebibytes):
            # In a transaction, whose commit has it written to disk.
            connection.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', %s))", [MEBIBYTE])


# -- PostgreSQL --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_an_orphan_slot_is_seen_to_hold_wal(names: Namespace) -> None:
    slot = names.slot("orphan")
    make_slot(slot)
    before = ask("postgres")["postgres"]
    write_wal(3)
    after = ask("postgres")["postgres"]
    key = (slot, "streamlab")
    assert after.up
    assert after.complete
    assert values(after, "SLOT_ACTIVE")[key] == 0
    assert values(after, "SLOT_WAL_STATUS")[(*key, "reserved")] == 1
    for metric in ("SLOT_LAG_BYTES", "SLOT_RETAINED_WAL_BYTES"):
        grown = values(after, metric)[key] - values(before, metric)[key]
        assert grown >= 3 * MEBIBYTE, metric
    assert values(after, "SLOT_LAG_BYTES")[key] <= values(after, "SLOT_RETAINED_WAL_BYTES")[key]


@pytest.mark.integration
def test_a_slot_that_is_read_is_active(names: Namespace) -> None:
    slot = names.slot("read")
    make_slot(slot)
    dsn = str.__str__(settings.postgres_dsn("cdc"))
    with closing(psycopg.connect(dsn, replication="database", autocommit=True)) as reader:
        start = f"START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'none')"
        assert reader.pgconn.exec_(start.encode()).status == psycopg.pq.ExecStatus.COPY_BOTH
        assert values(ask("postgres")["postgres"], "SLOT_ACTIVE")[slot, "streamlab"] == 1
    deadline = time.monotonic() + 30
    while values(ask("postgres")["postgres"], "SLOT_ACTIVE")[slot, "streamlab"] != 0:
        assert time.monotonic() < deadline


@pytest.mark.integration
def test_a_physical_slot_holds_wal_and_has_no_lag(names: Namespace) -> None:
    slot = names.slot("physical")
    with admin() as connection:
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    write_wal(1)
    answer = ask("postgres")["postgres"]
    assert values(answer, "SLOT_RETAINED_WAL_BYTES")[slot, ""] >= MEBIBYTE
    assert (slot, "") not in values(answer, "SLOT_LAG_BYTES")


# -- MySQL -------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_the_binary_log_grows_with_what_is_written(names: Namespace) -> None:
    database = names.mysql_database()
    before = ask("mysql")["mysql"]
    arguments = settings.mysql_address().arguments()
    with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
        cursor.execute(f"CREATE TABLE {database}.t (id int PRIMARY KEY, text longtext)")
        cursor.execute(f"INSERT INTO {database}.t VALUES (1, repeat('x', 500000))")
    after = ask("mysql")["mysql"]
    assert after.complete
    assert values(after, "BINLOG_BYTES")[()] - values(before, "BINLOG_BYTES")[()] >= 500_000
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("SHOW BINARY LOG STATUS")
        name = cursor.fetchone()[0]  # type: ignore[index]
    rotated = ask("mysql")["mysql"]
    assert values(rotated, "BINLOG_FILE_NUMBER")[()] == int(name.split(".")[1])
    assert values(rotated, "BINLOG_FILE_NUMBER")[()] > values(after, "BINLOG_FILE_NUMBER")[()]
    assert values(rotated, "BINLOG_FILES")[()] > values(after, "BINLOG_FILES")[()]


@pytest.mark.integration
def test_a_question_that_is_refused_is_told_apart_from_a_server_that_is_down(
    stack: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = settings.mysql_address("reader")
    dsn = f"mysql://{reader.user}:{quote(reader.secret(), safe='')}@{reader.host}:{reader.port}"
    monkeypatch.setenv("STREAMLAB_MYSQL_DSN", dsn)
    answer = ask("mysql")["mysql"]
    assert answer.up
    assert not answer.complete
    assert "REPLICATION CLIENT" in answer.problem
    assert reader.secret() not in repr(answer)


# -- Kafka -------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_the_lag_of_a_group_is_what_it_has_not_read(names: Namespace) -> None:
    topic, unread, group = names.topic("orders"), names.topic("unread"), names.group("readers")
    client = kafka_admin()
    for future in client.create_topics([NewTopic(topic, 2), NewTopic(unread, 1)]).values():
        future.result(timeout=30)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap()})
    for partition, count in ((0, 10), (1, 3)):
        for number in range(count):
            producer.produce(topic, str(number).encode(), partition=partition)
    assert producer.flush(30) == 0
    commits = [TopicPartition(topic, 0, 4), TopicPartition(topic, 1, 3)]
    request = [ConsumerGroupTopicPartitions(group, commits)]
    client.alter_consumer_group_offsets(request)[group].result(timeout=30)
    answer = ask("kafka")["kafka"]
    assert answer.complete, answer.problem
    lag = {key[1:]: value for key, value in values(answer, "CONSUMER_LAG_RECORDS").items() if key[0] == group}
    assert lag == {(topic, "0"): 6, (topic, "1"): 0}


# -- Kafka Connect -----------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_task_that_failed_is_told_apart_from_its_connector(names: Namespace) -> None:
    database, prefix, connector = names.mysql_database(), names.topic_prefix(), names.connector()
    arguments = settings.mysql_address().arguments()
    with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
        cursor.execute(f"CREATE TABLE {database}.t (id int PRIMARY KEY)")
        cursor.execute(f"INSERT INTO {database}.t VALUES (1)")
    configuration = {
        **mysql_source(prefix=prefix, database=database, tables=["t"]),
        # No record has this field, so the first one ends the task.
        "transforms": "broken",
        "transforms.broken.type": "org.apache.kafka.connect.transforms.ValueToKey",
        "transforms.broken.fields": "no_such_field",
    }
    with ConnectClient() as client:
        client.apply(connector, configuration)
    deadline = time.monotonic() + 60
    while True:
        answer = ask("connect")["connect"]
        if (connector, "0", "FAILED") in values(answer, "TASK_STATE"):
            break
        assert time.monotonic() < deadline, answer
    assert values(answer, "TASK_STATE")[connector, "0", "FAILED"] == 1
    assert values(answer, "CONNECTOR_STATE")[connector, "RUNNING"] == 1
    assert answer.complete


# -- one apart from the other ------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[tuple[int, list[socket.socket]]]:
    """A server that accepts connections and never says a word: its port, and who came."""
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    came.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in came:
                connection.close()


def addresses(port: int) -> dict[str, str]:
    return {
        "postgres": f"host=127.0.0.1 port={port} dbname=x user=x password=geheim",
        "mysql": f"mysql://x:geheim@127.0.0.1:{port}/x",
        "kafka": f"127.0.0.1:{port}",
        "connect": f"http://127.0.0.1:{port}",
    }


@pytest.mark.integration
def test_a_deaf_server_takes_nothing_from_the_others(
    stack: object, deaf: tuple[int, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLAB_MYSQL_DSN", addresses(deaf[0])["mysql"])
    answers = ask("postgres", "mysql", "kafka", "connect")
    assert {name for name, answer in answers.items() if answer.complete} == {"postgres", "kafka", "connect"}
    assert not answers["mysql"].up
    assert answers["mysql"].samples == ()


def test_a_scrape_of_deaf_servers_ends_and_their_threads_do_too(
    deaf: tuple[int, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service, address in addresses(deaf[0]).items():
        monkeypatch.setenv(settings.VARIABLES[service], address)
    asked = ServersCollector().ask()
    assert [(answer.service, answer.up) for answer in asked.answers] == [(service, False) for service in addresses(0)]
    assert all(answer.problem for answer in asked.answers)
    assert "geheim" not in repr(asked)
    # One after the other they would take more than eight seconds.
    assert max(answer.seconds for answer in asked.answers) < 6
    for thread in threading.enumerate():
        if thread.name.startswith("streamlab-ask-"):
            thread.join(20)
            assert not thread.is_alive()


def test_a_server_that_has_not_answered_is_not_asked_again(
    deaf: tuple[int, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, came = deaf
    monkeypatch.setenv("STREAMLAB_CONNECT_URL", addresses(port)["connect"])
    collector = ServersCollector(["connect"], limit=0.2)
    with ThreadPoolExecutor(4) as pool:
        for asked in [future.result(30) for future in [pool.submit(collector.ask) for _ in range(4)]]:
            assert asked.answers[0].problem == "No answer within 0 s."
    for thread in threading.enumerate():
        if thread.name == "streamlab-ask-connect":
            thread.join(20)
    # Where the machine is busy, it came only when nobody waited any more.
    assert len(came) == 1
    later = ServersCollector(["connect"], limit=8).ask().answers[0]
    assert "timed out" in later.problem
    assert len(came) == 2


@pytest.mark.parametrize("service", ["postgres", "mysql", "kafka", "connect"])
def test_a_closed_port_and_an_unknown_address_are_said(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMLAB_HOME", str(tmp_path / "none"))
    (unknown,) = ServersCollector([service]).ask().answers
    assert not unknown.up
    assert f"No address is known for {service}." in unknown.problem
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(settings.VARIABLES[service], addresses(closed.getsockname()[1])[service])
        (down,) = ServersCollector([service]).ask().answers
    assert not down.up
    assert down.problem.endswith(".")
    assert "\n" not in down.problem
    assert not (tmp_path / "none").exists()


# -- as metrics ----------------------------------------------------------------------------------------


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_sample_gets_the_name_and_the_labels_of_the_table() -> None:
    labels = {attribute: tuple(f"{label} of {attribute}" for label in one.labels)
              for attribute, one in metrics.ASKED.items()}  # fmt: skip
    samples = tuple(Sample(attribute, labels[attribute], 7.5) for attribute in metrics.ASKED)
    found = parsed(metrics.render(Asked((Answer("postgres", True, 0.25, samples),))))
    for attribute, one in metrics.ASKED.items():
        assert found[one.name, tuple(sorted(zip(one.labels, labels[attribute], strict=True)))] == 7.5
    assert found["streamlab_up", (("service", "postgres"),)] == 1
    assert found["streamlab_scrape_complete", (("service", "postgres"),)] == 1
    assert found["streamlab_scrape_duration_seconds", (("service", "postgres"),)] == 0.25


def test_registering_the_collector_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: ServersCollector) -> Asked:
        raise AssertionError("asked")

    monkeypatch.setattr(ServersCollector, "ask", refuse)
    registry = CollectorRegistry()
    registry.register(ServersCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ServersCollector())


@pytest.mark.integration
def test_served_figures_are_asked_for_at_each_request(names: Namespace) -> None:
    registry = CollectorRegistry()
    registry.register(ServersCollector(["postgres"]))
    slot = names.slot("served")
    key = ("streamlab_postgres_slot_active", (("database", "streamlab"), ("slot", slot)))
    with metrics.serve(registry=registry) as server:

        def read() -> dict[Any, float]:
            return parsed(httpx.get(server.url, timeout=30).text)

        assert key not in read()
        make_slot(slot)
        assert read()[key] == 0
