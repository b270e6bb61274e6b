"""The REST client of Kafka Connect, on a real worker."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pymysql
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streamlab import settings
from streamlab.connect import ConnectClient, ConnectorOffset
from streamlab.connect.answers import KeyProblem, first_lines
from streamlab.connect.connectors import FileSink, FileSource, mysql_source
from streamlab.connect.rest import Rest
from streamlab.errors import ConnectError, ConnectorFailed, ConnectorMissing, ConnectorRefused
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("connect_test") as made:
        yield made


@pytest.fixture
def client(stack: object) -> Iterator[ConnectClient]:
    with ConnectClient() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the worker's user can write too."""
    path = Path(tempfile.mkdtemp(prefix="streamlab-connect-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def configuration(namespace: Namespace) -> dict[str, str]:
    """A MySQL source for a table that is there."""
    database = namespace.mysql_database()
    with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database}`")
            cursor.execute(f"CREATE TABLE `{database}`.orders (id int PRIMARY KEY)")
    return mysql_source(prefix=namespace.topic_prefix(), database=database, tables=["orders"])


def lines(namespace: Namespace, folder: Path, *values: str) -> dict[str, str]:
    """A source that reads a file with these lines."""
    path = folder / "lines"
    path.write_text("".join(f"{value}\n" for value in values), encoding="utf-8")
    path.chmod(0o644)
    return FileSource(path=path, topic=namespace.topic("lines")).configuration()


def wait_offset(client: ConnectClient, name: str, position: int) -> ConnectorOffset:
    """Wait until a file source has committed a position."""
    deadline = time.monotonic() + 30
    while True:
        offsets = client.offsets(name)
        if offsets and offsets[0].offset == {"position": position}:
            return offsets[0]
        assert time.monotonic() < deadline, offsets
        time.sleep(0.05)


def records(topic: str) -> int:
    """How many records a topic of one partition holds; ends of transactions have offsets too, and are none."""
    configuration = {
        "bootstrap.servers": settings.kafka_bootstrap(),
        "group.id": "never committed",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer(configuration)
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        count = 0
        while True:
            message = consumer.poll(10)
            assert message is not None
            if (problem := message.error()) is not None:
                assert problem.code() == KafkaError._PARTITION_EOF, problem
                return count
            count += 1
    finally:
        consumer.close()


# -- plugins ---------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_plugins_and_their_keys_are_told(client: ConnectClient) -> None:
    kinds = {each.name: each.kind for each in client.plugins()}
    assert kinds["io.debezium.connector.mysql.MySqlConnector"] == "source"
    assert kinds["org.apache.kafka.connect.json.JsonConverter"] in {"converter", "header_converter"}
    keys = {each.name: each for each in client.keys("io.debezium.connector.mysql.MySqlConnector")}
    assert keys["database.password"].kind == "PASSWORD"
    assert keys["snapshot.mode"].default == "initial"
    with pytest.raises(ConnectError, match="404|no.*such|Unknown|not found"):
        client.keys("com.example.NoSuchConnector")


@pytest.mark.integration
def test_the_worker_validates_values_and_says_nothing_of_keys_that_nothing_reads(
    client: ConnectClient, configuration: dict[str, str]
) -> None:
    assert client.validate({**configuration, "table.inclde.list": "x", "database.server.name": "y"}) == []
    wrong = client.validate({**configuration, "snapshot.mode": "schema_only"})
    assert [each.key for each in wrong] == ["snapshot.mode"]
    del configuration["topic.prefix"]
    assert "topic.prefix" in {each.key for each in client.validate(configuration)}
    assert isinstance(client.validate(configuration)[0], KeyProblem)


# -- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_connector_becomes_ready_and_applying_it_again_changes_nothing(
    client: ConnectClient, namespace: Namespace, configuration: dict[str, str]
) -> None:
    name = namespace.connector()
    client.apply(name, configuration)
    status = client.wait_ready(name)
    assert (status.name, status.kind, status.state, len(status.tasks)) == (name, "source", "RUNNING", 1)
    client.apply(name, configuration)
    client.wait_ready(name)
    assert {key: client.configuration(name)[key] for key in configuration} == configuration
    assert name in client.names()
    assert name in {each.name for each in client.statuses()}


@pytest.mark.integration
def test_a_connector_is_known_at_once_although_the_worker_has_not_read_of_it_yet(
    client: ConnectClient, namespace: Namespace, folder: Path
) -> None:
    name = namespace.connector()
    client.apply(name, lines(namespace, folder))
    # The worker answers 404 to this for a moment; seen at each run.
    assert client.status(name).name == name


@pytest.mark.integration
def test_no_password_is_told_by_the_rest_interface(
    client: ConnectClient, namespace: Namespace, configuration: dict[str, str]
) -> None:
    name = namespace.connector()
    client.apply(name, configuration)
    client.wait_ready(name)
    secret = settings.mysql_address("cdc").secret()
    for path in ("", "/config", "/status", "/tasks"):
        assert secret not in httpx.get(f"{settings.connect_url()}/connectors/{name}{path}").text


@pytest.mark.integration
def test_a_configuration_that_the_lint_finds_wrong_does_not_reach_the_worker(
    client: ConnectClient, namespace: Namespace, configuration: dict[str, str]
) -> None:
    name = namespace.connector()
    wrong = {**configuration, "database.server.name": "x", "value.converter.schema.enable": "true"}
    with pytest.raises(ConnectorRefused) as caught:
        client.apply(name, wrong)
    assert "database.server.name is a name of former times" in caught.value.problem
    assert "Its name is topic.prefix now." in caught.value.fix
    assert "Did you mean value.converter.schemas.enable?" in caught.value.fix
    assert name not in client.names()


@pytest.mark.integration
def test_a_configuration_that_the_worker_refuses_says_why(
    client: ConnectClient, namespace: Namespace, configuration: dict[str, str]
) -> None:
    del configuration["topic.prefix"]
    with pytest.raises(ConnectorRefused, match=r"topic\.prefix"):
        client.apply(namespace.connector(), configuration, check=False)


# -- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_task_that_fails_raises_with_the_beginning_of_its_trace_and_a_correction_mends_it(
    client: ConnectClient, namespace: Namespace, folder: Path
) -> None:
    name = namespace.connector()
    topic = namespace.topic("rows")
    client.apply(name, FileSink(path=Path("/proc/no/such/file"), topics=[topic]).configuration())
    with pytest.raises(ConnectorFailed, match="task 0 failed: .*Couldn't find or create file") as caught:
        client.wait_ready(name)
    assert "\tat " not in caught.value.problem
    assert client.status(name).state == "FAILED"
    # A correction: what is told of the task of before is no news.
    client.apply(name, FileSink(path=folder / "rows", topics=[topic]).configuration())
    assert client.wait_ready(name).failed == ()


@pytest.mark.integration
def test_what_has_failed_starts_again_when_its_reason_is_gone(
    client: ConnectClient, namespace: Namespace, folder: Path
) -> None:
    name = namespace.connector()
    path = folder / "later"
    client.apply(name, FileSink(path=path / "rows", topics=[namespace.topic("rows")]).configuration())
    with pytest.raises(ConnectorFailed):
        client.wait_ready(name)
    with pytest.raises(ConnectorFailed):
        client.restart(name)
    path.mkdir()
    path.chmod(0o777)
    client.restart(name)
    assert client.status(name).ready
    assert (path / "rows").exists()
    # The same configuration again: the worker alone would leave a failed task as it is.
    path.rename(folder / "moved")
    with pytest.raises(ConnectorFailed):
        client.restart(name, only_failed=False)
    (folder / "moved").rename(path)
    client.apply(name, client.configuration(name))
    client.wait_ready(name)


def test_the_lines_of_a_trace_that_say_something() -> None:
    trace = "a.B: outer\n\tat x.Y(Z.java:1)\n\t... 7 more\nCaused by: c.D: inner\nmore of it\n\n\tat q\n"
    assert first_lines(trace) == "a.B: outer\nCaused by: c.D: inner\nmore of it"
    assert first_lines(trace, 1) == "a.B: outer"


# -- moving ----------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_connector_is_paused_resumed_and_stopped(client: ConnectClient, namespace: Namespace, folder: Path) -> None:
    name = namespace.connector()
    client.apply(name, lines(namespace, folder, "a"))
    client.wait_ready(name)
    client.pause(name)
    assert client.status(name).state == "PAUSED"
    client.resume(name)
    assert client.status(name).ready
    client.stop(name)
    assert (client.status(name).state, client.status(name).tasks) == ("STOPPED", ())
    client.stop(name)
    client.resume(name)
    assert client.status(name).ready


@pytest.mark.integration
def test_offsets_are_told_altered_and_forgotten_while_it_is_stopped(
    client: ConnectClient, namespace: Namespace, folder: Path
) -> None:
    name = namespace.connector()
    configuration = lines(namespace, folder, "one", "two", "three")
    client.apply(name, configuration)
    client.wait_ready(name)
    offset = wait_offset(client, name, len("one\ntwo\nthree\n"))
    assert records(configuration["topic"]) == 3
    with pytest.raises(ConnectError) as caught:
        client.reset_offsets(name)
    assert "Stop the connector first" in caught.value.fix

    client.stop(name)
    client.alter_offsets(name, [ConnectorOffset(offset.partition, {"position": len("one\ntwo\n")})])
    assert client.offsets(name)[0].offset == {"position": len("one\ntwo\n")}
    client.resume(name)
    wait_offset(client, name, len("one\ntwo\nthree\n"))
    assert records(configuration["topic"]) == 4

    client.stop(name)
    client.reset_offsets(name)
    assert client.offsets(name) == []
    client.resume(name)
    wait_offset(client, name, len("one\ntwo\nthree\n"))
    assert records(configuration["topic"]) == 7


@pytest.mark.integration
@pytest.mark.parametrize(("forget", "total"), [(False, 2), (True, 4)])
def test_a_deleted_connector_leaves_its_offsets_unless_they_are_forgotten(
    client: ConnectClient, namespace: Namespace, folder: Path, forget: bool, total: int
) -> None:
    name = namespace.connector()
    configuration = lines(namespace, folder, "a", "b")
    client.apply(name, configuration)
    wait_offset(client, name, 4)
    assert client.delete(name, forget=forget)
    assert not client.delete(name, forget=forget)
    assert name not in client.names()
    client.apply(name, configuration)
    client.wait_ready(name)
    wait_offset(client, name, 4)
    assert records(configuration["topic"]) == total


# -- what is not there -----------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_connector_that_does_not_exist_is_said_at_once_and_not_waited_for_for_ever(client: ConnectClient) -> None:
    nobody = "sl nobody made #this"
    begin = time.monotonic()
    for ask in (client.status, client.configuration, client.offsets, client.pause, client.stop, client.restart):
        with pytest.raises(ConnectorMissing):
            ask(nobody)
    assert time.monotonic() - begin < 10
    with pytest.raises(ConnectorMissing, match="sl nobody made #this"):
        client.wait_ready(nobody, limit=0.2)


@pytest.mark.integration
def test_a_rebalance_that_is_about_to_begin_is_waited_out(
    client: ConnectClient, namespace: Namespace, folder: Path
) -> None:
    """A deletion is seen before the group rebalances for it: what is asked of its leader just then is refused with 409.

    So it answers a restart, which another worker could have forwarded; a question that is never forwarded it refuses
    with 500 (`DistributedHerder.checkRebalanceNeeded`).
    """
    stays, goes = namespace.connector("stays"), [namespace.connector(f"goes{number}") for number in range(4)]
    sink = FileSink(path=folder / "out", topics=[namespace.topic("t")]).configuration()
    client.apply(stays, sink)
    client.wait_ready(stays)
    seen: list[tuple[str, int]] = []

    def heard(answer: httpx.Response) -> None:
        seen.append((answer.request.method, answer.status_code))

    client._rest._http.event_hooks["response"].append(heard)
    deadline = time.monotonic() + 60
    while ("POST", 409) not in seen:
        assert time.monotonic() < deadline, seen
        for name in goes:
            client.apply(name, sink)
            client.wait_ready(name)
        deleting = threading.Event()

        def restart(deleting: threading.Event = deleting) -> None:
            while not deleting.is_set():
                client.restart(stays)

        with ThreadPoolExecutor(2) as pool:
            restarts = [pool.submit(restart) for _ in range(2)]
            try:
                deleted = [client.delete(name) for name in goes]
            finally:
                deleting.set()
            for each in restarts:
                each.result(60)  # none was refused
        assert all(deleted)
    assert client.status(stays).ready


@pytest.mark.integration
def test_a_worker_that_is_starting_is_waited_for(
    client: ConnectClient, namespace: Namespace, folder: Path, stack: Stack
) -> None:
    """Its HTTP server is there before Connect is, and knows no page: no connector is missing, nothing was refused."""
    seen: list[tuple[int, str]] = []

    def heard(answer: httpx.Response) -> None:
        seen.append((answer.status_code, answer.headers.get("content-type", "")))

    client._rest._http.event_hooks["response"].append(heard)
    name, sink = namespace.connector(), FileSink(path=folder / "out", topics=[namespace.topic("t")]).configuration()
    client.apply(name, sink)
    client.wait_ready(name)
    deadline = time.monotonic() + 120
    while not any(status == 404 and "json" not in kind for status, kind in seen):
        assert time.monotonic() < deadline, seen
        (row,) = (each for each in stack.status() if each.name == "connect")
        assert row.pid is not None
        process = psutil.Process(row.pid)
        process.kill()
        process.wait(10)
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(stack.up, ["connect"])
            assert client.configuration(name)["topics"] == sink["topics"]
            client.apply(name, {**sink, "file": str(folder / f"out{len(seen)}")})
            assert [each.error for each in started.result(90)] == [None, None]
        client.wait_ready(name)


@pytest.mark.integration
def test_a_worker_that_still_reads_its_topics_is_waited_for(
    client: ConnectClient, namespace: Namespace, folder: Path, stack: Stack
) -> None:
    """It has its pages already, and knows no connector: 404, and only its health says that it is starting (503)."""
    seen: list[tuple[str, int]] = []

    def heard(answer: httpx.Response) -> None:
        seen.append((answer.request.url.path.rpartition("/")[2], answer.status_code))

    client._rest._http.event_hooks["response"].append(heard)
    name, sink = namespace.connector(), FileSink(path=folder / "out", topics=[namespace.topic("t")]).configuration()
    client.apply(name, sink)
    client.wait_ready(name)
    service = stack.service("connect")
    broker = psutil.Process(next(each.pid for each in stack.status() if each.name == "kafka"))
    deadline = time.monotonic() + 180
    while ("health", 503) not in seen:
        assert time.monotonic() < deadline, seen
        (row,) = (each for each in stack.status() if each.name == "connect")
        assert row.pid is not None
        process = psutil.Process(row.pid)
        process.kill()
        process.wait(10)
        service.log.unlink()
        with ConnectClient(limit=60) as fresh, ThreadPoolExecutor(2) as pool:
            # One that has made nothing, and waits for nothing that it has made.
            fresh._rest._http.event_hooks["response"].append(heard)
            started = pool.submit(stack.up, ["connect"])
            while not (service.log.exists() and "Herder starting" in service.log.read_text(encoding="utf-8")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            broker.suspend()
            try:
                asked = pool.submit(fresh.status, name)
                while not asked.done() and ("health", 503) not in seen:
                    time.sleep(0.05)
            finally:
                broker.resume()
            assert asked.result(90).name == name, seen
            assert [each.error for each in started.result(120)] == [None, None]
    client.wait_ready(name)
    assert ("status", 404) in seen


def test_a_worker_that_does_not_answer_is_named() -> None:
    rest = Rest("http://127.0.0.1:1")
    with pytest.raises(ConnectError, match="http://127.0.0.1:1 does not answer"):
        rest.request("GET", "/connectors", limit=0.3)
    rest.close()
