"""Servers that benchmarks measure: in a home beside the user's own, so that no stack in use is touched.

The home belongs to this checkout, is made when a case first asks for it, and is deleted at the end of the run. What a
killed run left is deleted by the next one. A lock keeps two runs of one checkout from sharing it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock

from streamlab import settings
from streamlab.errors import HomeBusy, StackError
from streamlab.stack import Stack
from streamlab.stack.status import ServiceStatus

__all__ = ["ROOT", "Servers", "command", "own_home", "shielded"]

ROOT = Path(__file__).parents[1]


def own_home() -> Path:
    """The home of this checkout's benchmarks, beside the one in use."""
    checkout = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    used = settings.home()
    return used.with_name(f"{used.name}-bench-{checkout}")


class Servers:
    """The servers of one run. A context manager, which stops and deletes them; used by one thread at a time.

    Between entering and leaving, this process and its children have the benchmarks' home: addresses of the user's own
    servers, and knobs that change what is measured, are taken out of the environment.
    """

    def __init__(self) -> None:
        self.path = own_home()
        self._stack: Stack | None = None
        self._held = contextlib.ExitStack()
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._environment = dict(os.environ)
        os.environ["STREAMLAB_CACHE"] = str(settings.cache())
        os.environ["STREAMLAB_HOME"] = str(self.path)
        others = ("STREAMLAB_PORT_BASE", "STREAMLAB_LIVE", "STREAMLAB_AUTOSTART", "STREAMLAB_FAILPOINTS")
        for variable in (*settings.VARIABLES.values(), *others):
            os.environ.pop(variable, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        try:
            with self._held, shielded():
                if stack is not None:
                    stack.down(purge=True)
                    if self.path.exists():
                        (self.path / "lock").unlink(missing_ok=True)
                        self.path.rmdir()
        finally:
            os.environ.clear()
            os.environ.update(self._environment)

    @property
    def stack(self) -> Stack:
        """The stack, in a home that was empty when this run first asked for it.

        Raises
        ------
        HomeBusy
            Another run of this checkout's benchmarks has it.
        """
        if self._stack is None:
            self._lock()
            self._stack = Stack()
            self._stack.down(purge=True)
        return self._stack

    def _lock(self) -> None:
        cache = settings.cache()
        try:
            cache.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock = filelock.FileLock(cache / f".{self.path.name}.lock", mode=0o600)
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise HomeBusy(
                "The benchmarks of this checkout are running already; side by side they would spoil each other.",
                "Wait for that run to end.",
            ) from error
        except OSError as error:
            raise StackError(
                f"{cache} is not writable for you.", "Set STREAMLAB_CACHE to a directory of your own."
            ) from error
        # Undone from below: the file goes while the lock is held, so nobody else's is deleted.
        self._held.callback(lock.release)
        self._held.callback(Path(lock.lock_file).unlink, missing_ok=True)

    def up(self, services: Iterable[str] | None = None) -> None:
        """Start what does not run yet, all services by default; raise where one does not start."""
        for outcome in self.stack.up(services):
            if outcome.error is not None:
                raise outcome.error

    def running(self) -> list[ServiceStatus]:
        """Every service, as `streamlab status` tells.

        Raises
        ------
        StackError
            One of them does not run.
        """
        rows = self.stack.status()
        absent = [row.title for row in rows if row.state != "running"]
        if absent:
            raise StackError(f"Not running: {', '.join(absent)}.", "See: streamlab doctor")
        return rows


def command(*words: str, limit: float, cwd: Path = ROOT) -> str:
    """Run ``streamlab WORDS`` as a user does, in a process of its own; returns what it printed.

    When this process is interrupted, so is that one, and it has a minute to tidy up.

    Raises
    ------
    StackError
        It failed, with the end of what it said, or took longer than `limit` seconds.
    """
    # In a session of its own: Ctrl-C in a terminal reaches it once, from here, and not twice.
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlab", *words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    with process:
        try:
            output, _ = process.communicate(timeout=limit)
        except BaseException as error:
            with shielded():
                # Not SIGINT, which is ignored below a shell that started us in the background.
                process.terminate()
                try:
                    process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise StackError(f"streamlab {' '.join(words)} took longer than {limit:.0f} s.") from error
            raise
    if process.returncode:
        end = "\n".join(output.strip().splitlines()[-15:])
        raise StackError(f"streamlab {' '.join(words)} failed (exit code {process.returncode}):\n{end}")
    return output


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Let nobody interrupt the tidying up, which is bounded: a second Ctrl-C would leave servers behind."""
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
