"""Benchmarks have servers of their own: the user's are neither measured nor reset, and none of theirs stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.servers import Servers, command, own_home
from streamlab import settings
from streamlab.errors import HomeBusy, StackError
from streamlab.stack import Home

ROOT = Path(__file__).parents[2]


def test_the_home_is_beside_the_one_in_use_and_is_another() -> None:
    assert own_home().parent == settings.home().parent
    assert own_home() != settings.home()


def test_the_environment_is_the_benchmarks_own_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_POSTGRES_DSN", "host=elsewhere")
    monkeypatch.setenv("STREAMLAB_FAILPOINTS", "cdc.before_ack")
    monkeypatch.delenv("STREAMLAB_CACHE", raising=False)
    before, own = dict(os.environ), own_home()
    with Servers() as servers:
        assert settings.home() == servers.path == own
        assert not settings.given("postgres")
        assert "STREAMLAB_FAILPOINTS" not in os.environ
    assert dict(os.environ) == before


def test_without_a_case_that_asks_for_servers_there_is_no_home() -> None:
    with Servers() as servers:
        pass
    assert not servers.path.exists()


def test_two_runs_of_one_checkout_do_not_share_servers() -> None:
    one, two = Servers(), Servers()
    with one:
        assert one.stack.status()
        with pytest.raises(HomeBusy, match="running already"):
            two.stack  # noqa: B018
    with two:
        assert two.stack.status()
    assert not two.path.exists()
    assert not list(settings.cache().glob(f".{two.path.name}*"))


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(StackError, match=r"streamlab logs qqq failed \(exit code 1\)[\s\S]*no service called qqq"):
        command("logs", "qqq", limit=60)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*\n", command("version", limit=60))


@pytest.mark.acceptance
@pytest.mark.integration
def test_ctrl_c_stops_the_servers_and_deletes_them() -> None:
    home = Home(own_home())
    # As in a terminal: below a program that ignores Ctrl-C, a child would ignore it too.
    text = (
        "import runpy, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv[1:] = ['stack:up']\nrunpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            pid = _pid_of_postgres(home, process)
        finally:
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    assert not psutil.pid_exists(pid)
    assert not home.path.exists()


def _pid_of_postgres(home: Home, process: subprocess.Popen[str]) -> int:
    """The pid of the benchmark's PostgreSQL, as soon as it was started."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        entry = home.read()["services"].get("postgres")
        if entry and entry["process"]:
            return int(entry["process"]["pid"])
        time.sleep(0.05)
    raise AssertionError("the benchmark started no server")
