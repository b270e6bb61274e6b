"""``python -m benchmarks``, and `make bench` above it, as a user runs them, with a case that is really measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import __main__ as command
from benchmarks.case import Benchmark, Case
from streamlab.errors import StreamlabError

ROOT = Path(__file__).parents[2]
KEYS = ["benchmark", "case", "reference", "reference_rate", "ours_rate", "ratio", "goal", "met", "unit"]
ORIGIN = ["date", "commit", "quick", "cores"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "benchmarks", *words)


def test_a_case_is_measured_shown_and_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = bench("stack:import", "--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    heading, line = (" ".join(each.split()) for each in done.stdout.splitlines())
    assert heading == "work reference ours ratio (min/median/max) goal met"
    assert line.startswith("stack:import import streamlab limit: 0.15 s ")
    (row,) = json.loads(path.read_text(encoding="utf-8"))
    assert list(row) == KEYS + ORIGIN
    assert row["quick"] is True
    assert (row["benchmark"], row["case"], row["unit"], row["goal"]) == ("stack", "import", "s", 1.0)
    assert row["ratio"] == pytest.approx(0.15 / row["ours_rate"])
    assert row["met"] == (row["ratio"] >= 1)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    done = bench("stack:imprt")
    assert done.returncode == 1
    assert "There is no benchmark called stack:imprt." in done.stderr
    assert "Did you mean stack:import?" in done.stderr
    assert done.stdout == ""


def test_a_json_that_could_not_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(StreamlabError, match="cannot be written"):
        command.main(["stack"], json_file=tmp_path / "missing" / "x.json")


@pytest.mark.parametrize("words", [("stack:import",), ("stack:import", "stack:imprt")])
def test_make_passes_everything_on(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "figures of a run.json"
    done = run("make", "bench", f"NAME={' '.join(words)}", "QUICK=1", f"JSON={path}")
    if len(words) == 1:
        assert done.returncode == 0, done.stderr
        assert [row["case"] for row in json.loads(path.read_text(encoding="utf-8"))] == ["import"]
        assert "stack:import: 5 rounds" in done.stderr
    else:
        assert done.returncode != 0
        assert "no benchmark called stack:imprt" in done.stderr


def chosen(*cases: Case[Any]) -> Any:
    return lambda _names: [(Benchmark("b", cases), list(cases))]


def failing(_made: None) -> float:
    raise StreamlabError("There is no such thing.")


GOOD: Case[None] = Case(name="good", work="w", unit="s", ours=lambda _made: 1.0, rounds=1)
BAD: Case[None] = Case(name="bad", work="w", unit="s", ours=failing)


def test_a_case_that_fails_is_the_exit_code_and_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    monkeypatch.setattr(command, "choose", chosen(BAD, GOOD))
    before = dict(os.environ)
    with pytest.raises(typer.Exit) as caught:
        command.main(json_file=path)
    assert caught.value.exit_code == 1
    bad, good = json.loads(path.read_text(encoding="utf-8"))
    assert (bad["case"], bad["ours_rate"], bad["error"]) == ("bad", None, "There is no such thing.")
    assert list(good) == KEYS + ORIGIN
    assert good["quick"] is False
    assert "b:bad failed: There is no such thing." in capsys.readouterr().err
    assert dict(os.environ) == before


def test_an_interrupted_run_writes_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_made: None) -> float:
        raise KeyboardInterrupt

    case: Case[None] = Case(name="x", work="w", unit="s", ours=interrupted)
    monkeypatch.setattr(command, "choose", chosen(GOOD, case))
    with pytest.raises(KeyboardInterrupt):
        command.main(json_file=tmp_path / "figures.json")
    assert list(tmp_path.iterdir()) == []
