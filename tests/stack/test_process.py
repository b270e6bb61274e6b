"""Server processes: known for certain, ended in bounded time, and nobody else's ever touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from streamlab.errors import StackError, StartFailed
from streamlab.stack.process import (
    MARK,
    Cancelled,
    ServerUser,
    run_tool,
    server_environment,
    spawn,
    stop,
    strays,
    tail,
    wait_until,
)

OURSELVES = ServerUser("", -1, -1)
LOYAL = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


class Server:
    """A small process in place of a server."""

    def __init__(self, room: Path, program: str = LOYAL) -> None:
        self.room, self.log = room, room / "log"
        self.process, self.record = spawn(
            [sys.executable, "-c", program, "marker of this server"],
            log=self.log, user=OURSELVES, marker="marker of this server", env=server_environment(), room=room,
        )  # fmt: skip

    def wait(self) -> Server:
        wait_until(
            lambda: "up" in tail(self.log), what="the server", limit=20, log=self.log, record=self.record,
            cancel=threading.Event(),
        )  # fmt: skip
        return self


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(program: str = LOYAL, room: Path = tmp_path) -> Server:
        servers.append(Server(room, program))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(10)


def test_a_server_is_known_by_pid_start_time_and_command(start: Callable[..., Server]) -> None:
    record = start().record
    assert record.process() == psutil.Process(record.pid)
    assert replace(record, created=record.created - 60).process() is None
    assert replace(record, marker="of another").process() is None


def test_a_server_is_known_from_its_first_moment_on(tmp_path: Path) -> None:
    """While exec(2) replaces the program there is no command line; that must not look like another's process."""
    for _ in range(100):
        process, record = spawn(
            ["sleep", "600"], log=tmp_path / "log", user=OURSELVES, marker="600", env=server_environment(),
            room=tmp_path,
        )  # fmt: skip
        try:
            assert record.process() is not None
        finally:
            process.kill()
            process.wait(10)


def test_a_pid_that_now_belongs_to_another_is_left_alone(start: Callable[..., Server]) -> None:
    """The record of a dead server, whose number was given to a process of the same kind."""
    innocent = start().wait()
    for record in (
        replace(innocent.record, created=innocent.record.created - 60),
        replace(innocent.record, marker="--datadir=/var/lib/somewhere"),
    ):
        assert stop(record, how=signal.SIGKILL, limit=1) is False
    assert innocent.process.poll() is None


def test_a_dead_server_and_one_that_nobody_waited_for_are_not_running(start: Callable[..., Server]) -> None:
    server = start()
    server.process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.Process(server.record.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.record.process() is None
    server.process.wait(10)
    assert server.record.process() is None
    assert stop(server.record) is False


def test_stop_is_polite_and_then_kills(start: Callable[..., Server]) -> None:
    polite, deaf, frozen = start().wait(), start(DEAF).wait(), start().wait()
    frozen.process.send_signal(signal.SIGSTOP)
    assert stop(polite.record, limit=10)
    assert polite.process.wait(1) in (-signal.SIGTERM, 0)
    for server in (deaf, frozen):
        begin = time.monotonic()
        assert stop(server.record, limit=0.3)
        assert 0.3 <= time.monotonic() - begin < 8
        assert not psutil.pid_exists(server.record.pid)


def test_a_server_that_its_parent_does_not_collect_has_ended(start: Callable[..., Server]) -> None:
    """A kernel started it, and `down` ends it from another process."""
    server = start().wait()
    program = (
        "import sys\nfrom streamlab.stack.process import ProcessRecord, stop\n"
        "print(stop(ProcessRecord(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]), limit=60))"
    )
    record = server.record
    done = subprocess.run(
        [sys.executable, "-c", program, str(record.pid), str(record.created), record.marker],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == "True", done.stderr
    # Not killed: SIGTERM was enough.
    assert server.process.wait(10) == -signal.SIGTERM


def test_waiting_ends_at_once_when_the_server_dies_and_shows_its_log(start: Callable[..., Server]) -> None:
    server = start("import sys; print('no space for the frobnicator'); sys.exit(3)")
    with pytest.raises(
        StartFailed, match="(?s)The server ended while starting.*no space for the frobnicator"
    ) as caught:
        wait_until(
            lambda: False, what="The server", limit=60, log=server.log, record=server.record, cancel=threading.Event()
        )
    assert str(server.log) in caught.value.fix


def test_waiting_is_bounded_and_can_be_given_up(start: Callable[..., Server]) -> None:
    server = start().wait()
    with pytest.raises(StartFailed, match="(?s)was not ready after 0 s.*up"):
        wait_until(lambda: False, what="It", limit=0.1, log=server.log, record=server.record, cancel=threading.Event())
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(Cancelled):
        wait_until(lambda: False, what="It", limit=60, log=server.log, record=server.record, cancel=given_up)


def test_the_log_is_private_and_the_one_before_is_kept(start: Callable[..., Server]) -> None:
    first = start("print('first')")
    first.process.wait(20)
    second = start("print('second')")
    second.process.wait(20)
    assert tail(second.log) == "second"
    assert tail(second.log.with_name("log.1")) == "first"
    assert second.log.stat().st_mode & 0o777 == 0o600


def test_the_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine", encoding="utf-8")
    # A link to what does not exist is not moved away as an old log.
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels|symbolic"):
        Server(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_server_sees_nothing_of_our_environment_that_could_be_a_secret(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMLAB_POSTGRES_DSN", "postgresql://me:s3cret@elsewhere/x")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    monkeypatch.setenv("SOME_CLOUD_TOKEN", "s3cret")
    server = start().wait()
    seen = psutil.Process(server.record.pid).environ()
    assert "s3cret" not in " ".join(seen.values())
    assert seen[MARK] == str(tmp_path)
    assert seen["LC_ALL"] == "C.UTF-8"
    assert seen["PATH"] == os.environ["PATH"]


def test_what_was_started_for_a_room_is_found_without_a_record(start: Callable[..., Server], tmp_path: Path) -> None:
    """Others are not: the same program without the mark, or for another room."""
    rooms = [tmp_path / name for name in ("a", "ä b")]
    for room in rooms:
        room.mkdir()
    servers = [start(room=room).wait() for room in rooms]
    stranger = subprocess.Popen(
        [sys.executable, "-c", LOYAL, str(rooms[0])], cwd=rooms[0], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        for room, server in zip(rooms, servers, strict=True):
            assert [process.pid for process in strays(room, OURSELVES)] == [server.record.pid]
        assert strays(tmp_path, OURSELVES) == []
    finally:
        stranger.kill()
        stranger.wait(10)


def test_a_tool_returns_its_output_and_shows_it_when_it_fails() -> None:
    never = threading.Event()
    assert run_tool([sys.executable, "-c", "print('Grüße')"], what="greeting", cancel=never) == "Grüße"
    with pytest.raises(StackError, match=r"(?s)the tool failed \(exit code 7\).*because of me"):
        run_tool(
            [sys.executable, "-c", "import sys; print('because of me', file=sys.stderr); sys.exit(7)"],
            what="the tool",
            cancel=never,
        )


def test_a_tool_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
    )
    with pytest.raises(StackError, match="the tool took longer than 0 s"):
        run_tool([sys.executable, "-c", child], what="the tool", cancel=threading.Event(), limit=0.4, room=tmp_path)
    given_up = threading.Event()
    threading.Timer(0.4, given_up.set).start()
    with pytest.raises(Cancelled, match="the tool was interrupted"):
        run_tool([sys.executable, "-c", child], what="the tool", cancel=given_up, room=tmp_path)
    deadline = time.monotonic() + 5
    while (left := strays(tmp_path, OURSELVES)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
