"""A group of Connect workers of a lesson's own, on the broker that is there: to be killed, one after the other.

The workers of the stack serve whoever uses it, other lessons too. These are started in a home beside it, with a group
and topics of their own, and are gone with the lesson; those of a lesson that was killed go when the next one asks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock
import psutil

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.errors import ConnectError, LessonError
from streamlab.stack import Home, Stack
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import delete_topics, kafka_admin
from streamlab.stack.services import WORKERS

__all__ = ["Workers"]

_START_LIMIT: Final = 170.0
_TOPICS: Final = ("configs", "offsets", "status")


class Workers:
    """Some workers, a client of them, and a directory that they can write. A context manager; for one thread.

    Parameters
    ----------
    namespace : Namespace
        The run whose workers they are.
    count : int
        How many: 1 to 3.

    Attributes
    ----------
    client : ConnectClient
        It asks whichever worker answers.
    folder : Path
        Gone with the workers.

    Raises
    ------
    LessonError
        They do not start.
    """

    def __init__(self, namespace: Namespace, count: int) -> None:
        used = settings.home()
        _tidy(used)
        self._home = Home(used.with_name(f"{used.name}-workers-{namespace.run}"))
        self._lock = _lock(self._home.path)
        self._lock.acquire(timeout=0)
        self.folder = _folder(self._home.path)
        self.folder.mkdir()
        # The workers may run as another user.
        self.folder.chmod(0o777)
        try:
            self._start(count)
            self.client = ConnectClient(list(self.alive))
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, count: int) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in settings.VARIABLES.values()}
        environment["STREAMLAB_HOME"] = str(self._home.path)
        environment["STREAMLAB_CACHE"] = str(settings.cache())
        environment[settings.VARIABLES["kafka"]] = settings.kafka_bootstrap()
        command = [sys.executable, "-m", "streamlab", "up", "connect", "--workers", str(count)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_START_LIMIT, check=False
        )
        if done.returncode:
            raise LessonError(f"{count} workers did not start: {done.stderr.strip()[-500:]}", "See: streamlab doctor")

    @property
    def alive(self) -> dict[str, int]:
        """Address -> process, of the workers that run."""
        rows = [row for row in Stack(self._home).status() if row.name in WORKERS and row.state == "running"]
        return {f"http://{row.host}:{row.port}": row.pid for row in rows if row.pid}

    def kill(self, worker: str) -> None:
        """End a worker as `kill -9` does.

        Parameters
        ----------
        worker : str
            As Connect names it: ``host:port``.
        """
        process = psutil.Process(self.alive[f"http://{worker}"])
        process.kill()
        process.wait(10)

    def places(self, connector: str, tasks: int) -> dict[int, str]:
        """Task -> worker, once so many run and none of them on a worker that is dead; until then it waits.

        Raises
        ------
        LessonError
            They do not within a minute.
        """
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # While the group divides its work anew, a worker may not answer.
            with contextlib.suppress(ConnectError):
                status = self.client.status(connector)
                found = {part.task: part.worker for part in status.tasks if part.task is not None}
                if status.ready and len(found) == tasks and set(found.values()) <= self._names():
                    return found
            time.sleep(0.1)
        raise LessonError(f"The tasks of {connector} do not run.", f"See: {self._home.path}")

    def wait(self, done: Callable[[], bool], limit: float = 60.0) -> None:
        """Wait until something holds, such as of a file in `folder`.

        Raises
        ------
        LessonError
            It does not, in so many seconds.
        """
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                raise LessonError(f"What was waited for has not come in {limit:.0f} s.", f"See: {self._home.path}")
            time.sleep(0.05)

    def _names(self) -> set[str]:
        return {url.removeprefix("http://") for url in self.alive}

    def close(self) -> None:
        """End the workers, and delete what they wrote. Idempotent."""
        self.client.close()
        self._remove()

    def _remove(self) -> None:
        with self._lock:
            _purge(self._home)
        self._lock.release(force=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _lock(path: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(settings.cache() / f".{path.name}.lock", mode=0o600)


def _folder(path: Path) -> Path:
    """Where the workers of a home may write, whoever they run as: by its name, so that it is found again."""
    return Path(tempfile.gettempdir()) / path.name


def _purge(home: Home) -> None:
    """Servers, directories, and what the group kept in topics, which bear a mark of the home's path."""
    Stack(home).down(purge=True)
    shutil.rmtree(_folder(home.path), ignore_errors=True)
    if home.path.exists():
        (home.path / "lock").unlink(missing_ok=True)
        home.path.rmdir()
    mark = f"{zlib.crc32(os.fsencode(home.path)):08x}"
    _delete(f"connect_{name}_{mark}" for name in _TOPICS)


def _delete(names: Iterable[str]) -> None:
    admin = kafka_admin()
    there = admin.list_topics(timeout=20).topics
    delete_topics(admin, [name for name in names if name in there])


def _tidy(used: Path) -> None:
    """Remove the workers of runs that are dead."""
    for path in used.parent.glob(f"{used.name}-workers-*"):
        lock = _lock(path)
        with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
            _purge(Home(path))
            Path(lock.lock_file).unlink(missing_ok=True)
