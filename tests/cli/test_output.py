"""How the command line speaks, whatever it is connected to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.command import streamlab

from streamlab import __version__
from streamlab.__main__ import main

# Costs too much for a start that only prints help.
HEAVY = {
    "confluent_kafka",
    "filelock",
    "httpx",
    "pandas",
    "papermill",
    "polars",
    "prometheus_client",
    "psutil",
    "psycopg",
    "pymysql",
    "IPython",
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The command line in this process: quick, for what needs no process of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["streamlab", *arguments])
        return main()

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['streamlab', '--help']\n"
        "from streamlab.__main__ import main\n"
        "code = main()\n"
        f"print(code, sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    for command in ("up", "down", "status", "doctor", "reset", "logs", "metrics", "list", "run", "lab", "test", "nb"):
        assert f"\n  {command} " in result.stdout
    assert result.stdout.splitlines()[-1] == "0 []"


def test_version() -> None:
    assert streamlab("version").stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (["up", "kafak"], "There is no service called kafak.", "Did you mean kafka?"),
        (["down", "mysq"], "There is no service called mysq.", "Did you mean mysql?"),
        (["logs", "conect"], "There is no service called conect.", "Did you mean connect?"),
        (["up", "xyzzy"], "There is no service called xyzzy.", "Services: postgres, mysql, kafka, connect, "),
        (["down", "--purge", "mysql"], "--purge deletes the data of every service.", "streamlab down --purge"),
        (["run", "00_start_her"], "There is no lesson called 00_start_her.", "Did you mean 00_start_here?"),
        (["run", "nothing.ipynb"], "There is no notebook nothing.ipynb.", "streamlab list"),
        (["run", "00", "-p", "rwos"], "-p rwos is not of the form name=value.", "Parameters: "),
        (["metrics", "--serve", "99999"], "99999 is not a port.", "Give a number"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence_with_its_fix(
    call: Callable[..., int],
    arguments: list[str],
    problem: str,
    fix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMLAB_HOME", str(tmp_path / "none"))
    assert call(*arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first == problem
    assert second.startswith("  → ")
    assert fix in second
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["statsu"], "Did you mean 'status'?"), (["up", "--all"], "No such option"), (["logs"], "Missing argument")],
)
def test_wrong_usage_has_an_exit_code_of_its_own(
    call: Callable[..., int], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "version"])
def test_a_reader_that_has_gone_makes_no_noise(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "streamlab", command], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert result.stderr == b""
    assert result.returncode in {0, 141}


def test_an_encoding_without_our_signs_is_no_error(tmp_path: Path) -> None:
    home = tmp_path / "Bücher 書"
    result = streamlab("status", STREAMLAB_HOME=str(home), PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "?  PostgreSQL" in result.stdout
    result = streamlab("status", "--json", STREAMLAB_HOME=str(home), PYTHONIOENCODING="ascii")
    assert json.loads(result.stdout)["home"] == str(home)


def test_a_narrow_terminal_breaks_no_row(tmp_path: Path) -> None:
    result = streamlab("status", COLUMNS="60", STREAMLAB_HOME=str(tmp_path / "none"))
    lines = result.stdout.splitlines()
    assert len(lines[0]) <= 60
    assert [line.split()[1] for line in lines[1:5]] == ["PostgreSQL", "MySQL", "Kafka", "Kafka"]
    assert "…" not in result.stdout


def test_colour_is_for_terminals_and_can_be_declined(tmp_path: Path) -> None:
    home = str(tmp_path / "none")
    assert "\x1b[3" in streamlab("up", "xyzzy", STREAMLAB_HOME=home, FORCE_COLOR="1").stderr
    assert "\x1b[3" not in streamlab("up", "xyzzy", STREAMLAB_HOME=home, FORCE_COLOR="1", NO_COLOR="1").stderr
