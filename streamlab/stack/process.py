"""Server processes: started apart from the terminal, known by pid and start time, ended by pid.

A pid alone says little: after a crash or a reboot the number may belong to somebody else's
process. So a process is recorded with its start time and with a text that its command line
contains, and whatever does not match all three is not ours and is never signalled. What we start carries
the room that it works in as a variable in its environment, too: so a server or a tool that a killed command
left behind, before it could write the pid down, is known as ours without a guess.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from streamlab.errors import StackError, StartFailed

__all__ = [
    "Cancelled",
    "ProcessRecord",
    "ServerUser",
    "end",
    "run_tool",
    "server_environment",
    "spawn",
    "stop",
    "strays",
    "tail",
    "wait_until",
]

MARK = "STREAMLAB_SERVER"
"""The variable by which our processes are known: the room of their service."""

# What a server gets of our environment. Nothing else: it may hold secrets, and servers may run as another user.
_PASSED_ON = (
    "PATH", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "JAVA_HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "SYSTEMROOT",
)  # fmt: skip


# A server outlives the command that started it, so nobody waits for it. Kept here, so that a long-lived
# parent (a kernel, a test run) reaps it when it ends, and Python does not warn of a child left running.
_CHILDREN: list[subprocess.Popen[bytes]] = []
_KEEPING = threading.Lock()
_EXEC_LIMIT = 2.0


class Cancelled(StackError):
    """The user asked to stop while servers were being installed or started."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Whom servers run as: the user itself, or an unprivileged one where we are root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> ServerUser:
        """Ourselves; as root, `postgres` if there is such a user, else `nobody`."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return cls("", -1, -1)
        import pwd

        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid)
        raise StackError(
            "PostgreSQL refuses to run as root, and there is neither a user 'postgres' nor 'nobody'.",
            "Run streamlab as an ordinary user.",
        )

    @property
    def other(self) -> bool:
        """Whether servers run as somebody else than this process."""
        return self.uid >= 0

    def popen_arguments(self) -> dict[str, Any]:
        """Arguments that make `subprocess` drop to this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.other else {}

    def own(self, path: Path | int) -> None:
        """Give a file (by path, or open) or directory to this user; nothing to do where that is ourselves."""
        if self.other:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process of ours: pid, start time (seconds since the epoch), a part of its command line."""

    pid: int
    created: float
    marker: str

    def process(self) -> psutil.Process | None:
        """The live process, or None where it has ended or the pid now belongs to another."""
        deadline = time.monotonic() + _EXEC_LIMIT
        while True:
            try:
                process = psutil.Process(self.pid)
                # The clock that start times are derived from may be adjusted by a second or two.
                if abs(process.create_time() - self.created) > 2.5 or process.status() == psutil.STATUS_ZOMBIE:
                    return None
                command = process.cmdline()
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                return None
            if command or time.monotonic() > deadline:
                return process if any(self.marker in part for part in command) else None
            # In the middle of exec(2), a moment after it was started: it has no command line yet.
            time.sleep(0.002)


def server_environment(**more: str) -> dict[str, str]:
    """What a server sees of the environment, in a locale in which every path can be written."""
    kept = {key: value for key in _PASSED_ON if (value := os.environ.get(key)) is not None}
    return {**kept, "LC_ALL": "C.UTF-8", **more}


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    user: ServerUser,
    marker: str,
    env: Mapping[str, str],
    room: Path,
) -> tuple[subprocess.Popen[bytes], ProcessRecord]:
    """Start a server in a session of its own, its output in `log`; the log before is kept as ``.1``."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    # The directory belongs to the servers' user: follow no link that it may have put there.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        user.own(descriptor)
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=room,
            env={**env, MARK: str(room)},
            start_new_session=True,
            **user.popen_arguments(),
        )
    finally:
        os.close(descriptor)
    with _KEEPING:
        _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None] + [process]
    try:
        created = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        created = time.time()
    return process, ProcessRecord(process.pid, created, marker)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, or an empty text where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    limit: float,
    log: Path,
    record: ProcessRecord,
    process: subprocess.Popen[bytes] | None = None,
    cancel: threading.Event,
) -> None:
    """Wait until a server is ready, watching the process too.

    Raises
    ------
    StartFailed
        The server ended (said at once, with the end of its log), or `limit` seconds passed.
    Cancelled
        `cancel` was set.
    """
    deadline = time.monotonic() + limit
    pause = 0.02
    while True:
        if cancel.is_set():
            raise Cancelled(f"Starting {what} was interrupted.", "Run the command again.")
        ended = process.poll() is not None if process is not None else record.process() is None
        if ended:
            code = f" with exit code {process.returncode}" if process is not None else ""
            raise StartFailed(f"{what} ended while starting{code}. The end of its log:\n{tail(log)}\n", f"Log: {log}")
        if ready():
            return
        if time.monotonic() > deadline:
            raise StartFailed(
                f"{what} was not ready after {limit:.0f} s. The end of its log:\n{tail(log)}\n", f"Log: {log}"
            )
        cancel.wait(pause)
        pause = min(pause * 1.3, 0.2)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise StackError(
            f"Process {process.pid} belongs to another user.", "Stop the stack as the user who started it."
        ) from error


def stop(record: ProcessRecord, *, how: int = signal.SIGTERM, limit: float = 20.0) -> bool:
    """End a process of ours: politely, and after `limit` seconds with SIGKILL.

    Returns
    -------
    bool
        Whether there was something to end. A pid that now belongs to another process is left alone.
    """
    process = record.process()
    if process is None:
        return False
    end(process, how=how, limit=limit)
    return True


def end(process: psutil.Process, *, how: int = signal.SIGTERM, limit: float = 20.0) -> None:
    """End a process that is known to be ours, as `stop` does.

    Raises
    ------
    StackError
        It belongs to another user, or does not end even when killed.
    """
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        children = process.children(recursive=True)
    _signal(process, how)
    if not _gone(process, limit):
        _signal(process, signal.SIGKILL)
        if not _gone(process, 10.0):
            raise StackError(
                f"Process {process.pid} does not end, though it was killed.", "Look at what it waits for: ps -l -p PID"
            )
    # Children of a killed server (PostgreSQL's backends) notice by themselves; until then its port is not free.
    psutil.wait_procs(children, timeout=5.0)
    with _KEEPING:
        _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


def strays(room: Path, user: ServerUser) -> list[psutil.Process]:
    """Live processes that were started for a room, written down or not."""
    users = {os.geteuid(), user.uid} if hasattr(os, "geteuid") else set()
    found = []
    for pid in psutil.pids():
        try:
            process = psutil.Process(pid)
            if users and process.uids().real not in users:
                continue
            if process.environ().get(MARK) == str(room) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            # It has ended meanwhile, or does not let itself be read: then it is not known to be ours.
            continue
    return found


def _gone(process: psutil.Process, limit: float) -> bool:
    """Wait until a process has ended; whether it did.

    One that has ended and whose parent does not collect it has ended too: a server that a notebook's kernel started
    stays such a zombie for as long as that kernel is busy.
    """
    deadline = time.monotonic() + limit
    try:
        while True:
            with contextlib.suppress(psutil.TimeoutExpired):
                # Where it is a child of ours, this collects it.
                process.wait(max(0.0, min(0.1, deadline - time.monotonic())))
                return True
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            if time.monotonic() > deadline:
                return False
    except psutil.NoSuchProcess:
        return True


def run_tool(
    command: Sequence[str],
    *,
    what: str,
    cancel: threading.Event,
    limit: float = 600.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    room: Path | None = None,
    user: ServerUser | None = None,
) -> str:
    """Run a tool to its end, interruptibly; its output is returned, and shown when it fails.

    `room` is the service that it works for: should we be killed, the next command finds the tool and ends it.

    Raises
    ------
    StackError
        The tool failed or took longer than `limit` seconds.
    Cancelled
        `cancel` was set.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**(os.environ if env is None else env), **({MARK: str(room)} if room else {})},
        cwd=cwd,
        start_new_session=True,
        **(user.popen_arguments() if user else {}),
    )
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.extend(process.stdout or ()), daemon=True)
    reader.start()
    deadline = time.monotonic() + limit
    problem = ""
    try:
        while process.poll() is None:
            if cancel.wait(0.03):
                raise Cancelled(f"{what} was interrupted.", "Run the command again.")
            if time.monotonic() > deadline:
                problem = f"{what} took longer than {limit:.0f} s."
                break
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(5.0)
        if process.stdout:
            process.stdout.close()
    text = b"".join(output).decode("utf-8", "replace").strip()
    if problem or process.returncode:
        end = "\n".join(text.splitlines()[-15:])
        raise StackError(problem or f"{what} failed (exit code {process.returncode}):\n{end}\n")
    return text
