"""The real command in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LIMIT = 90.0


@dataclass
class Running:
    """A command under way, and what it has said on standard error."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._readers = [
            threading.Thread(target=lambda: self.said.extend(iter(self.process.stderr.readline, ""))),  # type: ignore[union-attr]
            threading.Thread(target=lambda: self.printed.extend(iter(self.process.stdout.readline, ""))),  # type: ignore[union-attr]
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"no {what}: {self.said}"
            time.sleep(0.01)

    def wait_for_line(self, text: str) -> None:
        self.wait_for(lambda: any(text in line for line in (*self.said, *self.printed)), text)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit code, once all that was said has been read."""
        code = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


def _environment(changes: dict[str, str | None]) -> dict[str, str]:
    # The width and colours of the terminal that the suite runs in are not the test's.
    values = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR", "NO_COLOR"}}
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
    return values


def streamlab(*arguments: str | Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run `python -m streamlab` to its end, with changes to the environment; never raises for its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "streamlab", *map(str, arguments)],
        env=_environment(changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )


def start(*arguments: str | Path, **changes: str | None) -> Running:
    """Start `python -m streamlab` and go on."""
    return Running(
        subprocess.Popen(
            [sys.executable, "-m", "streamlab", *map(str, arguments)],
            env=_environment(changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    )


def processes(text: str | Path) -> list[psutil.Process]:
    """Other processes that have a text in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(str(text) in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
