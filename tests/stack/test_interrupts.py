"""Ctrl-C and SIGKILL at any moment of `up`: nothing is left behind, or the next command knows it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from streamlab.stack import DEFAULT, SERVICES, Home, Stack
from streamlab.stack.process import strays

pytestmark = [pytest.mark.integration, pytest.mark.acceptance, pytest.mark.timeout(180)]

_UP = """
import sys
from streamlab.stack import Stack

print("begin", flush=True)
try:
    outcomes = Stack().up(listener=lambda service, text: print(service, text, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
sys.exit(any(outcome.error is not None for outcome in outcomes))
"""


class Up:
    """`up` of everything in a process of its own; what it says is read as it comes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _UP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until(self, text: str) -> Up:
        """Wait for a line of its output; or for its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == text:
                break
        return self

    def signal(self, number: int, delay: float = 0.0) -> int:
        """Send it a signal, `delay` seconds from now; its exit code."""
        timer = threading.Timer(delay, lambda: self.process.send_signal(number))
        timer.start()
        output, errors = self.process.communicate(timeout=60)
        timer.cancel()
        timer.join()
        assert "Traceback" not in errors, errors
        assert "shutting down" not in output
        return self.process.returncode


def left(home: Home) -> list[str]:
    """Processes that work for this home, or in it."""
    found = {process for name in SERVICES for process in strays(home.path / name, home.user)}
    for process in psutil.process_iter():
        try:
            # PostgreSQL's backends overwrite their environment.
            if Path(process.cwd()).is_relative_to(home.path):
                found.add(process)
        except (psutil.Error, OSError):
            continue
    return [repr(process) for process in found]


MOMENTS = random.Random(1974)


def test_an_interrupted_up_leaves_no_process_and_no_lock(another_home: Path, stack: Stack) -> None:
    """From the first line of a new home's installation to the last server's start."""
    home = Home()
    assert home != stack.home
    moments = [("begin", MOMENTS.uniform(0, 0.6)), ("connect starting", MOMENTS.uniform(0, 1.5))]
    if os.environ.get("STREAMLAB_SOAK"):
        moments += [("begin", MOMENTS.uniform(0, 0.6)), ("postgres starting", MOMENTS.uniform(0, 0.3))]
    for text, delay in moments:
        code = Up().until(text).signal(signal.SIGINT, delay)
        assert code == 130, (text, delay)
        assert left(home) == [], (text, delay)
        if home.path.exists():
            with home.locked(limit=0.5):
                assert home.read()["services"] == {}
            assert not [path.name for path in home.path.rglob("init*") if path.parent.name in SERVICES]
    outcomes = Stack(home).up()
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == []
    assert {outcome.state for outcome in outcomes} == {"started"}
    # What ran before is not ended by an interrupted `up`.
    (server,) = strays(home.path / "kafka", home.user)
    server.kill()
    server.wait(10)
    assert Up().until("kafka starting").signal(signal.SIGINT, MOMENTS.uniform(0, 0.5)) == 130
    assert {row.name: row.state for row in Stack(home).status()} == {
        "postgres": "running", "mysql": "running", "kafka": "stopped", "connect": "running",
    }  # fmt: skip
    Stack(home).down()
    assert left(home) == []


def test_a_killed_up_leaves_nothing_that_the_next_command_does_not_know(another_home: Path, stack: Stack) -> None:
    home = Home()
    moments = [("begin", MOMENTS.uniform(0, 0.6)) for _ in range(1)]
    moments += [("mysql starting", MOMENTS.uniform(0, 0.1)), ("connect starting", MOMENTS.uniform(0, 1.0))]
    for text, delay in moments:
        assert Up().until(text).signal(signal.SIGKILL, delay) == -signal.SIGKILL, (text, delay)
    outcomes = Stack(home).up()
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == []
    rows = {row.name: row for row in Stack(home).status()}
    for name, row in rows.items():
        assert row.state == "running"
        # One of each: none of those before runs beside it, as a server or as a tool.
        assert [process.pid for process in strays(home.path / name, home.user)] == [row.pid]
    Up().until("begin").signal(signal.SIGKILL)
    assert sorted(Stack(home).down(purge=True)) == sorted(DEFAULT)
    assert left(home) == []
    Up().until("kafka starting").signal(signal.SIGKILL, 0.05)
    Stack(home).down(purge=True)
    assert left(home) == []
