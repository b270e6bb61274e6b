"""Groups of workers: tasks move when one is killed, and the client goes on through any other. A standalone worker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import FileSink, FileSource
from streamlab.errors import ConnectorFailed, StackError
from streamlab.ops.servers import ServersCollector
from streamlab.ops.streams import look
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin
from streamlab.stack.services import WORKERS, with_workers
from streamlab.stack.standalone import ConnectStandalone

LIMIT = 90.0
TASKS = 6

soak = pytest.mark.skipif(not os.environ.get("STREAMLAB_SOAK"), reason="a long proof: make soak")


def wait(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def workers(stack: Stack) -> Iterator[Stack]:
    """Three workers, started as a person does; at the end the first one again."""
    command = [sys.executable, "-m", "streamlab", "up", "connect", "--workers", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[:-1]] == ["kafka", *WORKERS]
    yield stack
    # The others go with the first one, and nothing is told of them any more.
    assert set(stack.down(["connect"])) == set(WORKERS)
    assert {row.name for row in stack.status()}.isdisjoint(WORKERS[1:])
    stack.up()


@pytest.fixture
def three(workers: Stack) -> Iterator[Stack]:
    """The same, all three alive before and after.

    The last of a test's fixtures, so that they are alive again before connectors are deleted: a group of which some
    are gone takes ten seconds to notice.
    """
    workers.up(WORKERS)
    yield workers
    for each in processes(workers).values():
        each.send_signal(signal.SIGCONT)
    workers.up(WORKERS)


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("workers") as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that the workers' user can write too."""
    path = Path(tempfile.mkdtemp(prefix="streamlab-workers-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def processes(stack: Stack) -> dict[str, psutil.Process]:
    """The process of each worker by its address, as Connect names it."""
    rows = {row.name: row for row in stack.status()}
    return {f"{rows[n].host}:{rows[n].port}": psutil.Process(rows[n].pid) for n in WORKERS if n in rows and rows[n].pid}


def places(client: ConnectClient, name: str) -> set[str]:
    """Where the tasks run; nothing while one of them does not."""
    status = client.status(name)
    return {task.worker for task in status.tasks} if status.ready and len(status.tasks) == TASKS else set()


def spread(client: ConnectClient, namespace: Namespace, folder: Path) -> tuple[str, str, Path]:
    """A sink with a task for each partition of a topic, on all three workers: its name, the topic, the file."""
    name, topic, path = namespace.connector(), namespace.topic("spread"), folder / "lines"
    admin = kafka_admin()
    for future in admin.create_topics([NewTopic(topic, TASKS, 1)]).values():
        future.result(20)
    client.apply(name, FileSink(path=path, topics=[topic], more={"tasks.max": str(TASKS)}).configuration())
    wait(lambda: len(places(client, name)) == 3, "the tasks are not on three workers")
    return name, topic, path


def send(topic: str, text: str) -> set[str]:
    """A record into each partition; the lines that they become."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})
    for partition in range(TASKS):
        producer.produce(topic, f"{text} {partition}", partition=partition)
    assert producer.flush(30) == 0
    return {f"{text} {partition}" for partition in range(TASKS)}


def lines(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").splitlines())


# -- names -----------------------------------------------------------------------------------------------------------


def test_workers_are_asked_for_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_workers(["kafka", "connect"], 1) == ["kafka", "connect"]
    assert with_workers(["connect", "connect-3"], 3) == ["connect", "connect-3", "connect-2"]
    for count in (0, 4):
        with pytest.raises(StackError, match="1 to 3"):
            with_workers(["connect"], count)
    with pytest.raises(StackError, match="not named"):
        with_workers(["kafka"], 2)
    monkeypatch.setenv("STREAMLAB_CONNECT_URL", "http://127.0.0.1:1/, http://127.0.0.1:2")
    with pytest.raises(StackError, match="of your own"):
        with_workers(["connect"], 2)
    assert settings.connect_urls() == ["http://127.0.0.1:1", "http://127.0.0.1:2"]


# -- a group ---------------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_tasks_of_a_killed_worker_move_to_the_others_and_lose_nothing(
    namespace: Namespace, folder: Path, three: Stack
) -> None:
    with ConnectClient() as client:
        name, topic, path = spread(client, namespace, folder)
        before = send(topic, "before")
        wait(lambda: path.exists() and before <= lines(path), "not all partitions are read")
        running = processes(three)
        assert places(client, name) == set(running)
        # The first one: it is the one that the client asks.
        lost, victim = next(iter(running.items()))
        assert settings.connect_url().endswith(lost)
        victim.kill()
        victim.wait(10)
        rest = set(running) - {lost}
        # A change in the meantime, through whichever worker can make it: some have to forward it, to one that is gone.
        other = namespace.connector("other")
        client.apply(other, FileSink(path=folder / "other", topics=[topic]).configuration())
        while_moving = send(topic, "while moving")
        wait(lambda: places(client, name) == rest, "the tasks do not run on the workers that are left")
        after = send(topic, "after")
        wait(lambda: before | while_moving | after <= lines(path), "a task has not moved")
        assert client.wait_ready(other, limit=LIMIT).tasks[0].worker in rest
        (dead,) = (row for row in three.status() if row.state == "dead")
        assert dead.name == "connect"
        assert three.missing(WORKERS) == ["connect"]

        # It comes back, and gets a part of them again.
        states = {each.service: each.state for each in three.up(WORKERS)}
        assert states == {"kafka": "running", "connect": "started", "connect-2": "running", "connect-3": "running"}
        # Which ones is the group's affair; it was seen to move none of those that run. Of new ones the worker with the
        # fewest gets the most.
        third = namespace.connector("third")
        more = FileSink(path=folder / "third", topics=[topic], more={"tasks.max": str(TASKS)})
        client.apply(third, more.configuration())
        wait(lambda: any(lost in places(client, each) for each in (name, other, third)), "no task comes back")


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_worker_that_is_frozen_is_passed_over_and_changes_are_made_without_it(
    namespace: Namespace, folder: Path, three: Stack
) -> None:
    """What is to be changed is forwarded to the one that leads the group, until it is out of it: in a soak each is."""
    topic = namespace.topic("t")
    frozen = list(processes(three).items())[: None if os.environ.get("STREAMLAB_SOAK") else 1]
    for number, (silent, process) in enumerate(frozen):
        with ConnectClient(limit=90) as client:
            process.send_signal(signal.SIGSTOP)
            begin = time.monotonic()
            client.names()
            # Not the limit of a request to the only worker there is.
            assert time.monotonic() - begin < 20
            name = namespace.connector(f"made{number}")
            client.apply(name, FileSink(path=folder / name, topics=[topic]).configuration())
            status = client.wait_ready(name, limit=LIMIT)
            assert silent not in {part.worker for part in status.parts}
            process.send_signal(signal.SIGCONT)
            assert client.delete(name)


@pytest.mark.integration
@pytest.mark.timeout(300)
@soak
def test_a_worker_that_has_stopped_answering_is_passed_over(namespace: Namespace, folder: Path, three: Stack) -> None:
    with ConnectClient() as client:
        name, topic, path = spread(client, namespace, folder)
        running = processes(three)
        silent, process = next(iter(running.items()))
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        assert name in client.names()
        # Not the limit of a request to the only worker there is.
        assert time.monotonic() - begin < 20
        wait(lambda: places(client, name) == set(running) - {silent}, "the tasks of the silent worker do not move")
        after = send(topic, "after")
        wait(lambda: path.exists() and after <= lines(path), "a task has not moved")
        # It wakes up, finds that it is no member any more, ends its tasks, and joins again.
        process.send_signal(signal.SIGCONT)
        wait(lambda: places(client, name) == set(running), "it does not join again")


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGSTOP, id="deaf"), pytest.param(signal.SIGKILL, id="dead", marks=soak)]
)
def test_status_and_metrics_ask_any_worker_that_is_alive(
    namespace: Namespace, folder: Path, three: Stack, how: signal.Signals
) -> None:
    with ConnectClient() as client:
        name, topic = namespace.connector(), namespace.topic("lines")
        client.apply(name, FileSink(path=folder / "lines", topics=[topic]).configuration())
        client.wait_ready(name)
    running = list(processes(three).values())
    # All but the last one: the first is the one that would be asked.
    for each in running[:-1]:
        each.send_signal(how)
    (answer,) = ServersCollector(["connect"]).ask().answers
    assert answer.complete, answer.problem
    states = {each.labels[0] for each in answer.samples if each.metric == "CONNECTOR_STATE"}
    assert name in states
    seen = look(["connect"])
    assert "connect" not in seen.problems
    assert name in {each.name for each in seen.connectors}


@pytest.mark.integration
def test_each_worker_has_a_row_a_log_and_its_bound(three: Stack) -> None:
    rows = {row.name: row for row in three.status()}
    assert [rows[name].title for name in WORKERS] == [
        "Kafka Connect", "Kafka Connect, worker 2", "Kafka Connect, worker 3",
    ]  # fmt: skip
    assert len({rows[name].port for name in WORKERS}) == len({rows[name].pid for name in WORKERS}) == 3
    assert settings.connect_urls() == [f"http://127.0.0.1:{rows[name].port}" for name in WORKERS]
    for name in WORKERS:
        log = three.home.path / name / "log"
        wait(lambda log=log: "Joined group at generation" in log.read_text("utf-8"), "it does not join")  # type: ignore[misc]
        assert "-Xmx384m" in (three.home.path / name / "ConnectDistributed.args").read_text(encoding="utf-8")


@pytest.mark.integration
def test_the_log_that_is_named_is_of_the_worker_where_a_task_failed(namespace: Namespace, three: Stack) -> None:
    topic = namespace.topic("lines")
    names = [namespace.connector(f"broken{number}") for number in range(len(WORKERS))]
    with ConnectClient() as client:
        for name in names:
            client.apply(name, FileSink(path=Path("/proc/no/such"), topics=[topic]).configuration())
        seen: dict[str, str] = {}

        def failed() -> bool:
            seen.update({row.name: row.log for row in look(["connect"]).connectors if row.error})
            return set(names) <= seen.keys()

        wait(failed, "they do not fail")
        assert len({seen[name] for name in names}) > 1
        for name in names:
            log = (three.home.path / seen[name] / "log").read_text("utf-8")
            assert f"WorkerSinkTask{{id={name}-0}} Task threw an uncaught" in log
            with pytest.raises(ConnectorFailed) as caught:
                client.restart(name)
            assert caught.value.fix.removeprefix("See: streamlab logs ") in WORKERS


# -- standalone ------------------------------------------------------------------------------------------------------


def values(topic: str, count: int) -> list[str]:
    """The values of a topic of one partition: at least so many, and then whatever else there is."""
    configuration = {
        "bootstrap.servers": settings.kafka_bootstrap(),
        "group.id": "never committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer(configuration)
    found: list[str] = []
    deadline = time.monotonic() + LIMIT
    try:
        wait(lambda: topic in consumer.list_topics(timeout=10).topics, f"no topic {topic}")
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        while True:
            assert time.monotonic() < deadline, found
            if (message := consumer.poll(0.2)) is None:
                continue
            if (problem := message.error()) is None:
                found.append((message.value() or b"").decode())
            elif problem.code() == KafkaError._PARTITION_EOF and len(found) >= count:
                return found
    finally:
        consumer.close()


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_standalone_worker_that_was_killed_goes_on_from_its_file_of_offsets(
    stack: Stack, namespace: Namespace, folder: Path
) -> None:
    name, topic = namespace.name, namespace.topic("lines")
    path = folder / "lines"
    path.write_text("one\ntwo\n", encoding="utf-8")
    worker = stack.service("connect-standalone")
    assert isinstance(worker, ConnectStandalone)
    with pytest.raises(StackError, match="cannot be the name"):
        worker.give("../x", {})
    worker.give(name, FileSource(path=path, topic=topic).configuration())
    assert worker.connectors() == [name]
    try:
        assert [each.state for each in stack.up(["connect-standalone"]) if each.error is None][-1] == "started"
        (row,) = (each for each in stack.status() if each.name == "connect-standalone")
        with ConnectClient(settings.standalone_url()) as client:
            client.wait_ready(name)
            assert values(topic, 2) == ["one", "two"]
            wait(lambda: [each.offset for each in client.offsets(name)] == [{"position": 8}], "no offset")
        # It is no member of the group, and the group knows nothing of its connector.
        with ConnectClient() as group:
            assert name not in group.names()
        assert row.pid is not None
        process = psutil.Process(row.pid)
        process.kill()
        process.wait(10)
        with path.open("a", encoding="utf-8") as file:
            file.write("three\n")
        stack.up(["connect-standalone"])
        # What was committed is not sent again, and what came meanwhile is not lost.
        assert values(topic, 3) == ["one", "two", "three"]

        # Without the file it begins anew: nothing else tells how far it had come.
        stack.down(["connect-standalone"])
        worker.offsets.unlink()
        stack.up(["connect-standalone"])
        assert values(topic, 6) == ["one", "two", "three"] * 2
    finally:
        worker.take(name)
        stack.down(["connect-standalone"])
