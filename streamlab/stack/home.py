"""A home: one stack's state on disk, and the lock that guards it.

::

    <home>/            0700; as root 0711, so that servers that refuse root can reach their data
      stack.json       addresses, pids with start times, versions: what `streamlab.settings` reads; no secret
      lock             held while a command changes the stack
      secrets/         0700: password and option files, 0600 each
      leases/          one file for each live run of a lesson
      <service>/       data, configuration and log of one server, owned by the user it runs as
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from streamlab import settings
from streamlab.errors import HomeBusy, StackError, UnusableState
from streamlab.stack import ports
from streamlab.stack.process import ServerUser

__all__ = ["Home", "write_private"]

_MADE_HERE = {"lock", "stack.json", "secrets", "leases", *ports.PORTS}
"""Names of what lies in a home; `purge` deletes these and nothing else."""


def write_private(path: Path, text: str, owner: ServerUser | None = None) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if owner is not None:
                owner.own(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class Home:
    """Paths, state and lock of one stack. May be shared by threads; processes are kept apart by the lock."""

    path: Path = field(default_factory=settings.home)
    cache: Path = field(default_factory=settings.cache)
    user: ServerUser = field(default_factory=ServerUser.current)

    # -- directories ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the directories, with their modes; refuse places that cannot serve.

        Raises
        ------
        StackError
            A directory cannot be written, or the servers' user could not reach it.
        """
        mode = 0o711 if self.user.other else 0o700
        self._refuse_strange()
        for directory in (self.path, self.cache):
            try:
                fresh = not directory.exists()
                directory.mkdir(parents=True, exist_ok=True)
                if fresh:
                    directory.chmod(mode)
            except OSError as error:
                variable = "STREAMLAB_HOME" if directory == self.path else "STREAMLAB_CACHE"
                raise StackError(
                    f"{directory} cannot be made: {error.strerror}.", f"Set {variable} to a directory of your own."
                ) from error
            # A cache that cannot be written still serves what it holds.
            needed = os.W_OK | os.X_OK if directory == self.path else os.X_OK
            if not os.access(directory, needed):
                variable = "STREAMLAB_HOME" if directory == self.path else "STREAMLAB_CACHE"
                what = "writable" if directory == self.path else "readable"
                raise StackError(f"{directory} is not {what} for you.", f"Set {variable} to a directory of your own.")
            self._reachable(directory)
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        self.leases.mkdir(mode=0o700, exist_ok=True)

    def exists(self) -> bool:
        """Whether there is anything of this home.

        Raises
        ------
        StackError
            It lies where we may not look.
        """
        try:
            return self.path.exists()
        except OSError as error:
            raise StackError(
                f"{self.path} is not readable for you.", "Set STREAMLAB_HOME to a directory of your own."
            ) from error

    def _refuse_strange(self) -> None:
        """A home has its directory to itself: one that holds other things is refused, and so never purged."""
        try:
            names = {entry.name for entry in self.path.iterdir() if entry != self.cache}
        except OSError:
            return  # not there yet; or not ours to read, which is said next
        if names and not names & _MADE_HERE:
            raise StackError(
                f"{self.path} is no home of streamlab: it holds {min(names)}.",
                "Set STREAMLAB_HOME to a directory that does not exist yet.",
            )

    def _reachable(self, directory: Path) -> None:
        """As root: the servers' user must be able to enter every directory on the way."""
        if not self.user.other:
            return
        for step in (*reversed(directory.resolve().parents), directory.resolve()):
            status = step.stat()
            if status.st_uid == self.user.uid:
                allowed = status.st_mode & stat.S_IXUSR
            elif status.st_gid == self.user.gid:
                allowed = status.st_mode & stat.S_IXGRP
            else:
                allowed = status.st_mode & stat.S_IXOTH
            if not allowed:
                raise StackError(
                    f"As root, servers run as user '{self.user.name}', who cannot enter {step} "
                    f"(mode {stat.S_IMODE(status.st_mode):04o}).",
                    "Set STREAMLAB_HOME and STREAMLAB_CACHE to directories that this user can reach, "
                    "such as ones below /var/lib.",
                )

    @property
    def secrets(self) -> Path:
        """The directory of password and option files."""
        return self.path / "secrets"

    @property
    def leases(self) -> Path:
        """The directory of leases of live runs."""
        return self.path / "leases"

    def room(self, service: str) -> Path:
        """The directory of one service, made on first use, owned by the user that it runs as."""
        path = self.path / service
        if not path.exists():
            path.mkdir(mode=0o700)
            self.user.own(path)
        return path

    # -- lock -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, limit: float = 300.0) -> Iterator[None]:
        """Hold the home's lock: one command at a time changes the stack.

        Raises
        ------
        HomeBusy
            Another process held the lock for `limit` seconds.
        """
        self.prepare()
        lock = filelock.FileLock(self.path / "lock", mode=0o600)
        try:
            lock.acquire(timeout=limit, poll_interval=0.05)
        except filelock.Timeout as error:
            raise HomeBusy(
                f"Another streamlab command has been changing {self.path} for {limit:.0f} s.",
                "Wait for it to end, or end it.",
            ) from error
        except OSError as error:
            raise StackError(
                f"{self.path} is not writable for you.", "Set STREAMLAB_HOME to a directory of your own."
            ) from error
        try:
            yield
        finally:
            lock.release()

    # -- state ------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """The state of this home; a fresh one where there is none."""
        path = self.path / "stack.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"format": settings.STATE_FORMAT, "services": {}}
        except PermissionError as error:
            raise StackError(
                f"{path} belongs to another user.", "Set STREAMLAB_HOME to a directory of your own."
            ) from error
        except OSError as error:
            raise StackError(
                f"{path} cannot be read: {error.strerror}.", "Set STREAMLAB_HOME to a directory of your own."
            ) from error
        except ValueError as error:
            raise UnusableState(f"{path} is not readable as JSON.", "Run: streamlab down --purge") from error
        if not isinstance(state, dict) or state.get("format") != settings.STATE_FORMAT:
            raise UnusableState(
                f"{path} was written by another version of streamlab.",
                "Run `streamlab down --purge` with that version, or set STREAMLAB_HOME to another directory.",
            )
        return state

    def forget_broken_state(self) -> None:
        """Delete a state that is no JSON at all: what runs is known by its marks. The caller holds the lock."""
        path = self.path / "stack.json"
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            path.unlink()

    def write(self, state: dict[str, Any]) -> None:
        """Write the state, whole or not at all."""
        write_private(self.path / "stack.json", json.dumps(state, indent=1, sort_keys=True) + "\n")

    def port_base(self) -> int:
        """The base of this home's block of ports: what the environment asks for, what was kept, or a free one."""
        if (asked := ports.base_from_environment()) is not None:
            return asked
        state = self.read()
        if "port_base" in state:
            return int(state["port_base"])
        if self.path == settings.default_home() and ports.block_is_free(ports.DEFAULT_BASE):
            # Elsewhere, and where another user's stack has the usual ports: a block of its own.
            return ports.DEFAULT_BASE
        return ports.free_base(str(self.path))

    def keep_ports(self) -> None:
        """Write down the block of ports, so that it stays the same. The caller holds the lock."""
        base = self.port_base()
        state = self.read()
        if state.get("port_base") != base:
            state["port_base"] = base
            self.write(state)

    def password(self, name: str) -> str:
        """The generated password of that name, made at its first use and kept (0600)."""
        path = self.secrets / f"{name}.password"
        try:
            return path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            password = secrets.token_urlsafe(24)
            write_private(path, password + "\n")
            return password

    def remove(self) -> None:
        """Delete the home's state and data. The caller has stopped every server of it."""
        for entry in sorted(self.path.iterdir()) if self.path.exists() else ():
            graves = entry.name.startswith((_GRAVE, ".stack.json."))
            if entry.name == "lock" or not (entry.name in _MADE_HERE or graves):
                continue
            if not entry.is_dir() or entry.is_symlink():
                entry.unlink(missing_ok=True)
            elif graves:
                _remove_tree(entry)
            else:
                # Out of the way in one step: half a data directory would look like a whole one.
                grave = Path(tempfile.mkdtemp(dir=self.path, prefix=_GRAVE))
                entry.rename(grave / entry.name)
                _remove_tree(grave)


_GRAVE = ".gone."


def _remove_tree(path: Path) -> None:
    # A server that is just ending may still write: try again, for a bounded time.
    deadline = time.monotonic() + 5.0
    while True:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.05)
