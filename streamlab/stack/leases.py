"""Leases: which objects on the servers belong to which live process.

A lease is a file of names and a lock beside it. The process that made it holds the lock for as long
as it lives, and the kernel lets go of it when the process dies in any way: so a lease whose lock can be taken is
a dead one, without any guess about pids or clocks. A name is written down before the object
is made; so whatever exists is written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from streamlab.stack.home import Home, write_private
from streamlab.stack.objects import Kind, Ours

__all__ = ["Lease", "LeaseInfo", "dead", "live"]


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """What a lease file says. `started` is seconds since the epoch."""

    name: str
    slug: str
    pid: int
    started: float
    objects: tuple[Ours, ...]


class Lease:
    """The lease of this process for one namespace. Used by one thread at a time."""

    def __init__(self, home: Home, name: str, slug: str) -> None:
        home.prepare()
        self.path = home.leases / f"{name}.json"
        self._lock = filelock.FileLock(home.leases / f"{name}.lock", mode=0o600, thread_local=False)
        self._lock.acquire(timeout=0)
        self._info: dict[str, Any] = {"name": name, "slug": slug, "pid": os.getpid(), "started": time.time()}
        self.objects: list[Ours] = []
        self._write()

    def add(self, ours: Ours) -> None:
        """Write an object down, before it is made."""
        if ours not in self.objects:
            self.objects.append(ours)
            self._write()

    def keep(self, objects: list[Ours]) -> None:
        """Replace the list: what could not be dropped stays written down."""
        self.objects = list(objects)
        self._write()

    def _write(self) -> None:
        text = json.dumps({**self._info, "objects": [asdict(each) for each in self.objects]}, indent=1)
        write_private(self.path, text + "\n")

    def release(self, *, forget: bool = True) -> None:
        """Let go; `forget` deletes the list (nothing is left on the servers)."""
        if forget:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        if forget:
            Path(self._lock.lock_file).unlink(missing_ok=True)


def _read(path: Path) -> LeaseInfo | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        objects = tuple(Ours(Kind(each["kind"]), each["name"], each["server"]) for each in data["objects"])
        return LeaseInfo(data["name"], data["slug"], int(data["pid"]), float(data["started"]), objects)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def live(home: Home) -> list[LeaseInfo]:
    """Leases whose process lives."""
    found = []
    for path in sorted(home.leases.glob("*.json")) if home.leases.exists() else ():
        lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if info := _read(path):
                found.append(info)
        else:
            lock.release()
    return found


@contextlib.contextmanager
def dead(home: Home) -> Iterator[list[tuple[LeaseInfo, Path]]]:
    """Leases whose process has died, held for the block so that nobody else tidies them too."""
    with contextlib.ExitStack() as held:
        found = []
        for path in sorted(home.leases.glob("*.json")) if home.leases.exists() else ():
            lock = filelock.FileLock(path.with_suffix(".lock"), mode=0o600)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            held.callback(lock.release)
            if info := _read(path):
                found.append((info, path))
        yield found
