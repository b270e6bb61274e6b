"""`doctor`: finds what is wrong, says what to do, changes nothing and ends soon."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from streamlab import settings
from streamlab.stack import Stack, leases, ports
from streamlab.stack.doctor import Finding, Verdict, examine
from streamlab.stack.home import Home
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import Kind, Ours


def found(subject: str) -> list[Finding]:
    return [finding for finding in examine() if finding.subject == subject]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that does not exist yet."""
    path = tmp_path / "home"
    monkeypatch.setenv("STREAMLAB_HOME", str(path))
    return path


def contents(path: Path) -> dict[str, tuple[int, float, int]]:
    return {
        str(each.relative_to(path)): (each.stat().st_size, each.stat().st_mtime, each.stat().st_mode)
        for each in path.rglob("*")
    }


# -- the command ---------------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamlab", "doctor", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.integration
def test_a_good_machine_is_ready(stack: object) -> None:
    result = command("--json")
    assert result.returncode == 0, result.stdout
    document = json.loads(result.stdout)
    assert set(document) == {"ok", "findings"}
    assert document["ok"] is True
    assert all(set(finding) == {"subject", "verdict", "detail", "fix"} for finding in document["findings"])
    subjects = {finding["subject"] for finding in document["findings"]}
    assert {"Python", "Java", "Maven", "Disk", "Memory", "Home", "Cache", "Ports", "PostgreSQL", "Kafka"} <= subjects


def test_a_home_of_broken_json_fails_with_its_fix(home: Path) -> None:
    home.mkdir()
    (home / "stack.json").write_text("{half")
    result = command(STREAMLAB_HOME=str(home))
    assert result.returncode == 1
    assert "stack.json is not readable as JSON." in result.stdout
    assert "→ Run: streamlab down --purge" in result.stdout
    assert "This machine is not ready" in result.stdout
    assert list(home.iterdir()) == [home / "stack.json"]


# -- places --------------------------------------------------------------------------------------------


def test_nothing_is_made_where_there_is_no_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_CACHE", str(tmp_path / "deep" / "cache"))
    findings = list(examine())
    assert list(tmp_path.iterdir()) == []
    assert [finding.detail for finding in findings if finding.subject == "PostgreSQL"] == ["not started"]


def test_a_place_that_is_a_file_is_said(home: Path) -> None:
    home.write_text("")
    failed = {finding.subject: finding for finding in examine() if finding.verdict is Verdict.FAIL}
    assert {"Home", "State"} <= set(failed)
    assert "STREAMLAB_HOME" in failed["Home"].fix
    assert "STREAMLAB_HOME" in failed["State"].fix


def test_a_directory_of_other_things_is_no_home(home: Path) -> None:
    home.mkdir()
    (home / "thesis.tex").touch()
    (finding,) = found("Home")
    assert finding.verdict is Verdict.FAIL


def test_a_home_of_another_user_is_said(home: Path, tmp_path: Path) -> None:
    """As a user who may read the package and enter, but not read, a home of somebody else."""
    home.mkdir(mode=0o700)
    (home / "stack.json").write_text('{"format": 1, "services": {}}')
    if os.geteuid() == 0:
        (home / "leases").mkdir()
        drop: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    else:
        home.chmod(0o000)
        drop = {}
    script = (
        "import json, dataclasses\n"
        "from streamlab.stack.doctor import examine\n"
        "print(json.dumps([dataclasses.asdict(each) for each in examine()]))\n"
    )
    environment = {**os.environ, "STREAMLAB_HOME": str(home), "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}
    for directory in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and directory.name.startswith("pytest-"):
            directory.chmod(0o711)
    try:
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd="/", capture_output=True, text=True, timeout=90,
            check=False, **drop,
        )  # fmt: skip
    except PermissionError:
        pytest.skip("the interpreter lies where other users cannot enter")
    finally:
        home.chmod(0o700)
    if "No module named" in result.stderr or "Permission denied" in result.stderr:
        pytest.skip("the package lies where other users cannot enter")
    assert result.returncode == 0, result.stderr
    failed = [finding for finding in json.loads(result.stdout) if finding["verdict"] == "fail"]
    assert {"Home", "State"} <= {finding["subject"] for finding in failed}
    assert all(finding["fix"] for finding in failed)


# -- ports ---------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_with_its_holder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ports.free_base("doctor")
    monkeypatch.setenv("STREAMLAB_PORT_BASE", str(base))
    with socket.create_server((ports.HOST, base + ports.PORTS["kafka-controller"])) as server:
        (finding,) = found("Port")
        assert finding.verdict is Verdict.FAIL
        assert finding.detail.startswith(f"{server.getsockname()[1]} (kafka-controller) is taken by ")
        assert f"(pid {os.getpid()})" in finding.detail
        assert "STREAMLAB_PORT_BASE" in finding.fix
    assert found("Port") == []
    monkeypatch.setenv("STREAMLAB_PORT_BASE", "70000")
    assert [finding.verdict for finding in found("Ports")] == [Verdict.FAIL]


# -- servers of the user's own ---------------------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that lets clients connect and never says a word."""
    with socket.create_server((ports.HOST, 0), backlog=64) as server:
        yield server.getsockname()[1]


def test_servers_that_do_not_answer_are_said_within_seconds(
    home: Path, deaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service, address in {
        "postgres": f"host=127.0.0.1 port={deaf} user=x password=geheim",
        "mysql": f"mysql://x:geheim@127.0.0.1:{deaf}/x",
        "kafka": f"127.0.0.1:{deaf}",
        "connect": f"http://127.0.0.1:{deaf}",
    }.items():
        monkeypatch.setenv(settings.VARIABLES[service], address)
    begin = time.monotonic()
    findings = {finding.subject: finding for finding in examine()}
    # One after the other, each with its five seconds, would take twenty.
    assert time.monotonic() - begin < 18
    for title in ("PostgreSQL", "MySQL", "Kafka", "Kafka Connect"):
        assert findings[title].verdict is Verdict.FAIL
        assert "STREAMLAB_" in findings[title].fix
    assert "geheim" not in repr(findings)
    assert findings["Java"].detail.startswith("not needed")


# -- leftovers -------------------------------------------------------------------------------------------


def test_what_a_dead_lesson_left_is_told_and_not_touched(another_home: Path) -> None:
    died = leases.Lease(Home(), "sl_05_gone_abcdef", "05_gone")
    died.add(Ours(Kind.SCHEMA, "sl_05_gone_abcdef", "127.0.0.1:1/x"))
    died.release(forget=False)
    lives = leases.Lease(Home(), "sl_06_here_abcdef", "06_here")
    try:
        before = contents(another_home)
        (leftover,) = found("Leftover")
        assert leftover.verdict is Verdict.WARN
        assert leftover.detail == "05_gone died and left 1 object (sl_05_gone_abcdef)"
        assert "streamlab reset" in leftover.fix
        (lesson,) = found("Lesson")
        assert lesson.detail == f"06_here runs (pid {os.getpid()})"
        assert contents(another_home) == before
    finally:
        lives.release()


@pytest.mark.integration
def test_slots_are_told_by_who_reads_them(stack: Stack) -> None:
    with Namespace("doctor") as names:
        ours, orphan = names.slot("ours"), "sl_doctor_orphan"
        with psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True) as connection:
            for slot in (ours, orphan):
                connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
            try:
                slots = {finding.detail.split()[1]: finding for finding in found("Slot")}
            finally:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [orphan])
    assert slots[orphan].verdict is Verdict.WARN
    assert slots[orphan].detail.endswith("MiB of WAL, and nobody reads it")
    assert slots[orphan].fix == f"Read it, or drop it: SELECT pg_drop_replication_slot('{orphan}')"
    assert slots[ours].verdict is Verdict.OK
    assert slots[ours].detail.endswith("; lesson doctor runs")


# -- programs --------------------------------------------------------------------------------------------


@pytest.fixture
def bare(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without programs and downloads; the directory is its PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for directory in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and directory.name.startswith(("pytest-", "popen-", "test_")):
            directory.chmod(0o711)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("STREAMLAB_CACHE", str(tmp_path / "cache"))
    return programs


def program(path: Path, says: str) -> None:
    path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\necho '{says}' >&2\n")
    path.chmod(0o755)


def test_programs_that_are_missing_or_too_old_are_said(bare: Path, tmp_path: Path) -> None:
    findings = {finding.subject: finding for finding in examine()}
    assert findings["Java"].verdict is Verdict.WARN
    assert findings["Java"].detail.startswith("none on PATH")
    assert findings["Maven"].verdict is Verdict.FAIL
    program(bare / "java", 'openjdk version "11.0.2" 2019')
    program(bare / "mvn", "Apache Maven 3.9.6 (x)")
    program(bare / "mysqld", "mysqld  Ver 8.0.36 for Linux on x86_64")
    findings = {finding.subject: finding for finding in examine()}
    assert findings["Java"].detail.startswith("11.0.2 is too old")
    assert findings["Maven"] == Finding("Maven", Verdict.OK, "3.9.6")
    assert findings["MySQL program"].verdict is Verdict.FAIL
    assert findings["MySQL program"].detail == f"{bare / 'mysqld'} is 8.0.36"
    assert "8.4" in findings["MySQL program"].fix
    program(bare / "java", 'openjdk version "21" 2023')
    assert found("Java")[0] == Finding("Java", Verdict.OK, "21")
