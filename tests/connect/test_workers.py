"""Groups of workers: tasks move when one is killed, and the client goes on through any other. A standalone worker."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import FileSink
from streamlab.errors import StackError
from streamlab.stack import Stack
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin
from streamlab.stack.services import WORKERS, with_workers

LIMIT = 90.0
TASKS = 6


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
    stack.down(WORKERS[1:])
    stack.up()


@pytest.fixture
def three(workers: Stack) -> Iterator[Stack]:
    """The same, all three alive before and after."""
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
    three: Stack, namespace: Namespace, folder: Path
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
        while_moving = send(topic, "while moving")
        rest = set(running) - {lost}
        wait(lambda: places(client, name) == rest, "the tasks do not run on the workers that are left")
        after = send(topic, "after")
        wait(lambda: before | while_moving | after <= lines(path), "a task has not moved")
        (dead,) = (row for row in three.status() if row.state == "dead")
        assert dead.name == "connect"
        assert three.missing(WORKERS) == ["connect"]

        # It comes back, and gets a part of them again.
        states = {each.service: each.state for each in three.up(WORKERS)}
        assert states == {"kafka": "running", "connect": "started", "connect-2": "running", "connect-3": "running"}
        wait(lambda: places(client, name) == set(running), "the tasks do not come back")


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_change_in_the_middle_of_a_rebalance_is_made_through_any_worker(
    three: Stack, namespace: Namespace, folder: Path
) -> None:
    """Workers answer 409 then; and 500 where the one that leads is gone."""
    seen: dict[int, str] = {}
    stopped = threading.Event()

    def ask() -> None:
        # What the client does not show: a plain request each time.
        with httpx.Client(timeout=5) as http:
            while not stopped.wait(0.02):
                for url in settings.connect_urls()[1:]:
                    try:
                        answer = http.put(f"{url}/connectors/{name}/config", json=configuration)
                    except httpx.TransportError:
                        continue
                    if not answer.is_success:
                        seen[answer.status_code] = answer.text

    with ConnectClient() as client:
        name, _, path = spread(client, namespace, folder)
        configuration = FileSink(path=path, topics=["none"], more={"tasks.max": "1"}).configuration()
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            victim = next(iter(processes(three).values()))
            victim.kill()
            victim.wait(10)
            wait(lambda: 409 in seen, f"no conflict was seen: {seen}")
            other = namespace.connector("other")
            client.apply(other, {**configuration, "topics": namespace.topic("other")})
            assert client.wait_ready(other, limit=LIMIT).ready
        finally:
            stopped.set()
            asking.join(10)
    assert seen[409]


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_worker_that_has_stopped_answering_is_passed_over(three: Stack, namespace: Namespace, folder: Path) -> None:
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
def test_each_worker_has_a_row_a_log_and_its_bound_and_all_go_with_the_first(three: Stack) -> None:
    rows = {row.name: row for row in three.status()}
    assert [rows[name].title for name in WORKERS] == [
        "Kafka Connect", "Kafka Connect, worker 2", "Kafka Connect, worker 3",
    ]  # fmt: skip
    assert len({rows[name].port for name in WORKERS}) == len({rows[name].pid for name in WORKERS}) == 3
    assert settings.connect_urls() == [f"http://127.0.0.1:{rows[name].port}" for name in WORKERS]
    for name in WORKERS:
        log = (three.home.path / name / "log").read_text(encoding="utf-8")
        assert "Joined group at generation" in log
        assert "-Xmx384m" in (three.home.path / name / "ConnectDistributed.args").read_text(encoding="utf-8")
    assert set(three.down(["connect"])) == set(WORKERS)
    assert {row.name for row in three.status()}.isdisjoint(WORKERS[1:])
