"""What every service of the stack offers, and the parts they share.

A service is one class with the same small interface: install, start, ready, stop, address, log.
This module's classes run servers as plain processes; another provider of the same interface (a
container engine) would stand beside them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from streamlab.errors import PortTaken, StackError
from streamlab.stack import ports
from streamlab.stack.cache import Cache
from streamlab.stack.home import Home
from streamlab.stack.process import ProcessRecord

__all__ = ["Context", "Service", "version_numbers"]

_LEAVING = 3.0
"""Seconds that a process whose port nobody can be named for gets to be gone."""

_SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path, the closing zero included, on the strictest system."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a service works with: its home, the way to be interrupted, and whom to tell of progress."""

    home: Home
    cache: Cache
    cancel: threading.Event
    report: Callable[[str, str], None]
    """Called with the service's name and what it is doing now; from any thread."""


class Service(ABC):
    """One server of the stack. Used by one thread at a time."""

    name: ClassVar[str]
    title: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    """Services whose processes must exist before this one's is started."""
    port_names: ClassVar[tuple[str, ...]] = ()
    start_limit: ClassVar[float] = 60.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_limit: ClassVar[float] = 20.0

    def __init__(self, context: Context) -> None:
        self.context = context
        self.home = context.home
        self.base = context.home.port_base()

    # -- to be provided ---------------------------------------------------------------------------

    @abstractmethod
    def install(self) -> None:
        """Fetch what the server needs and prepare its data directory. Cheap where that was done."""

    @abstractmethod
    def start(self) -> ProcessRecord:
        """Start the process and return at once; `ready` tells when it serves.

        Raises
        ------
        PortTaken
            Another program listens on one of its ports.
        """

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers now. Never waits longer than a second or two."""

    @abstractmethod
    def address(self) -> dict[str, Any]:
        """Where and as whom clients reach it, as `streamlab.settings` reads it. No secret in it."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The server's version, known after `install`."""

    def started(self) -> None:  # noqa: B027 - most servers need nothing more
        """Called once the server is ready: accounts, databases. Idempotent."""

    def ending(self) -> None:  # noqa: B027 - most servers just end
        """Called before a server is told to end, so that nothing keeps it from that. Never raises."""

    def ended(self, *, served: bool) -> None:
        """Called once the process has ended; `served` tells whether it was ready before. Idempotent."""
        with contextlib.suppress(OSError):
            self._short.rmdir()

    def cache_entries(self) -> list[str]:
        """Names of the cache entries that the server runs from."""
        return []

    def mend(self, *, launched: bool) -> str:
        """Throw away what is broken of the files that the server runs from; says what was.

        Called when installing failed, or a server that was launched died. Every byte is read, so it is slow.
        """
        broken = [p for entry in self.cache_entries() if (p := self.context.cache.discard_if_broken(entry))]
        return broken[0] if broken else ""

    # -- shared -----------------------------------------------------------------------------------

    @property
    def room(self) -> Path:
        """The directory of its data, configuration and log."""
        return self.home.room(self.name)

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return self.home.path / self.name / "log"

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self.base + ports.PORTS[self.name]

    @property
    def _short(self) -> Path:
        return Path(tempfile.gettempdir()) / f"streamlab-{zlib.crc32(os.fsencode(self.room)):08x}"

    def directory_of(self, socket: str) -> Path:
        """Where a Unix socket of that name lies: in the service's room, or in a short path where that is too long.

        Raises
        ------
        StackError
            The short path is somebody else's.
        """
        if len(os.fsencode(self.room / socket)) < _SOCKET_PATH_LIMIT:
            return self.room
        short = self._short
        owner = self.home.user.uid if self.home.user.other else os.geteuid()
        if not short.exists():
            short.mkdir(mode=0o700)
            self.home.user.own(short)
        if short.is_symlink() or short.stat().st_uid != owner:
            raise StackError(f"{short} belongs to another user.", "Set STREAMLAB_HOME to a shorter path.")
        return short

    def report(self, text: str) -> None:
        """Say what is being done now."""
        self.context.report(self.name, text)

    def check_ports(self) -> None:
        """Refuse to start where another program listens.

        Raises
        ------
        PortTaken
            With the program's name, and what to do.
        """
        for name in (self.name, *self.port_names):
            port = self.base + ports.PORTS[name]
            deadline = time.monotonic() + _LEAVING
            while not ports.is_free(port):
                holder = ports.holder(port)
                # A server that was killed a moment ago still has its port, and nobody can be named any more.
                if holder == ports.UNKNOWN and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise PortTaken(
                    f"{self.title} needs port {port}, and {holder} listens there.",
                    "End that program, or set STREAMLAB_PORT_BASE to another block of ports.",
                )


def version_numbers(version: str) -> tuple[int, ...]:
    """``9.7.4`` as (9, 7, 4), which can be compared."""
    return tuple(int(part) for part in version.split("."))
