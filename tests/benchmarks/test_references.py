"""References in an environment of their own: made once, asked in a process each, ended with their children."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.references import REQUIREMENTS, References, answer, rate
from streamlab.errors import StreamlabError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> References:
    """An environment without packages: quick to make, and nothing is fetched."""
    monkeypatch.setenv("STREAMLAB_CACHE", str(tmp_path / "cache"))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# none\n", encoding="utf-8")
    return References(requirements)


def program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_reference_has_an_exact_version_and_no_address() -> None:
    lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*( ; .+)?", line)] == []


def test_the_last_line_is_the_answer() -> None:
    found = answer("x", 'a library prints\n{"work": 100, "seconds": 0.5}\n')
    assert found == {"work": 100, "seconds": 0.5}
    assert rate(found) == 200.0


@pytest.mark.parametrize("output", ["", "no json", "[1, 2]", '{"work": 1}\nbye'])
def test_another_answer_is_refused(output: str) -> None:
    with pytest.raises(StreamlabError, match="did not end with a line of JSON"):
        answer("x", output)


@pytest.mark.parametrize("found", [{}, {"work": 1}, {"work": 1, "seconds": 0}, {"work": "many", "seconds": 1}])
def test_an_answer_without_figures_has_no_rate(found: dict[str, object]) -> None:
    with pytest.raises(StreamlabError, match="A reference answered"):
        rate(found)


def test_another_file_is_another_environment(tmp_path: Path) -> None:
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    one.write_text("a==1\n", encoding="utf-8")
    two.write_text("a==2\n", encoding="utf-8")
    assert References(one).name == References(one).name != References(two).name


def test_a_program_runs_in_the_environment_and_not_in_ours(empty: References, tmp_path: Path) -> None:
    text = """
import importlib.util, json, os, sys
found = importlib.util.find_spec("psycopg") is not None
print(json.dumps({"prefix": sys.prefix, "found": found, "arguments": sys.argv[1:], "secret": os.environ["SECRET"]}))
"""
    found = empty.run(program(tmp_path, text), "a", "b", env={"SECRET": "s"})
    assert found == {
        "prefix": str(tmp_path / "cache" / empty.name),
        "found": False,
        "arguments": ["a", "b"],
        "secret": "s",
    }


def test_a_program_that_fails_says_why(empty: References, tmp_path: Path) -> None:
    with pytest.raises(StreamlabError, match=r"exit code 1\)[\s\S]*ZeroDivisionError"):
        empty.run(program(tmp_path, "1 / 0"))


def test_a_program_is_ended_with_its_children(empty: References, tmp_path: Path) -> None:
    text = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""
    pid = tmp_path / "pid"
    empty.python()
    with pytest.raises(StreamlabError, match="took longer than 1 s"):
        empty.run(program(tmp_path, text), str(pid), limit=1)
    assert gone(int(pid.read_text()))


def gone(pid: int) -> bool:
    """Whether a process has ended; where nobody collects it, it may stay as a zombie."""
    try:
        process = psutil.Process(pid)
        process.wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.integration
def test_two_runs_at_once_make_the_environment_once_and_pypgoutput_works_in_it(tmp_path: Path) -> None:
    path = program(tmp_path, 'import json, pypgoutput\nprint(json.dumps({"name": pypgoutput.__name__}))')
    text = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.references import References\n"
        "print(References(tell=print).run(Path(sys.argv[1]))['name'])"
    )
    env = {**os.environ, "STREAMLAB_CACHE": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen([sys.executable, "-c", text, str(path)], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=150)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert [lines[-1] for lines in outputs] == ["pypgoutput", "pypgoutput"]
    assert sum("installing the references" in lines for lines in outputs) == 1
