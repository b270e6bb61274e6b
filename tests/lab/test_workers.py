"""Workers of a lesson's own: killed, their tasks move; and nothing of them is left, whoever ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streamlab import settings
from streamlab.connect.connectors import FileSink
from streamlab.connect.source.offsets import make_topics
from streamlab.errors import LessonError
from streamlab.lab.workers import Workers
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

pytestmark = [pytest.mark.integration, pytest.mark.acceptance, pytest.mark.timeout(300)]


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("workers") as made:
        yield made


def homes() -> list[Path]:
    used = settings.home()
    return list(used.parent.glob(f"{used.name}-workers-*"))


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{settings.home().name}-workers-*"))


def topics() -> set[str]:
    return {name for name in kafka_admin().list_topics(timeout=20).topics if name.startswith("connect_")}


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_tasks_of_one_that_is_killed_move_to_the_other(namespace: Namespace) -> None:
    topic, name = namespace.topic("lines"), namespace.name
    make_topics(kafka_admin(), [topic], partitions=2, settings={})
    with Workers(namespace, 2) as workers:
        processes = list(workers.alive.values())
        sink = FileSink(path=workers.folder / "lines", topics=[topic], more={"tasks.max": "2"})
        workers.client.apply(name, sink.configuration())
        before = workers.places(name, 2)
        assert len(set(before.values())) == 2
        workers.kill(before[0])
        assert len(workers.alive) == 1
        assert set(workers.places(name, 2).values()) == {before[1]}
        assert settings.connect_url() not in workers.alive
    assert not any(map(runs, processes))
    assert homes() == []
    assert topics() == set()
    assert folders() == []


def test_more_than_there_can_be_are_refused_and_nothing_is_left(namespace: Namespace) -> None:
    with pytest.raises(LessonError, match="1 to 3 workers"):
        Workers(namespace, 4)
    assert homes() == folders() == []


def test_those_of_a_killed_run_go_with_the_next(namespace: Namespace) -> None:
    program = (
        "import sys; from streamlab.lab.workers import Workers; from streamlab.stack.namespace import Namespace;"
        "made = Workers(Namespace('workers'), 1); print(*made.alive.values(), flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    with process:
        assert process.stdout is not None
        (pid,) = map(int, process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
    assert runs(pid)
    assert len(homes()) == len(folders()) == 1
    with Workers(namespace, 1):
        assert not runs(pid)
        assert len(homes()) == len(folders()) == 1
    assert homes() == folders() == []
    assert topics() == set()
