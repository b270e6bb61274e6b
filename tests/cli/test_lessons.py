"""`list`, `run`: lessons by the real command."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from cli.command import start, streamlab

from streamlab.errors import LessonError, UnknownParameter
from streamlab.lab import runner


def notebook(path: Path, *cells: str, parameters: str = "") -> Path:
    """A lesson without servers: a parameters cell, then others."""
    made = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *(nbformat.v4.new_code_cell(cell) for cell in cells),
        ],
        metadata={
            "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"},
            "streamlab": {"title": path.stem, "minutes": [1, 1], "needs": []},
        },
    )
    nbformat.write(made, path)
    return path


def summary(folder: Path) -> list[dict[str, Any]]:
    (run,) = folder.iterdir()
    rows: list[dict[str, Any]] = json.loads((run / "summary.json").read_text(encoding="utf-8"))["lessons"]
    return rows


def test_list_names_every_lesson() -> None:
    document = json.loads(streamlab("list", "--json").stdout)
    assert [row["lesson"] for row in document["lessons"]] == [lesson.slug for lesson in runner.lessons()]
    for row in document["lessons"]:
        assert list(row) == ["lesson", "title", "minutes", "needs"]


# -- parameters --------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> list[runner.Lesson]:
    notebook(tmp_path / "a.ipynb", parameters="rows = 10\nname = 'x'")
    notebook(tmp_path / "b.ipynb", parameters="rows = 1.5\nseed = 7")
    return [runner.find(str(tmp_path / name)) for name in ("a.ipynb", "b.ipynb")]


def test_each_lesson_gets_its_own_values_in_its_own_types(two: list[runner.Lesson]) -> None:
    values = runner.parameters_for(two, ["rows=5", "seed=3", "name=7"])
    assert values == {"a": {"rows": 5, "name": "7"}, "b": {"rows": 5.0, "seed": 3}}
    assert type(values["a"]["rows"]) is int
    assert type(values["b"]["rows"]) is float
    assert runner.parameters_for(two, []) == {}


def test_a_parameter_that_no_lesson_has_is_refused_with_the_nearest_name(two: list[runner.Lesson]) -> None:
    with pytest.raises(UnknownParameter, match=r"None of these lessons has a parameter sede\. Did you mean seed\?"):
        runner.parameters_for(two, ["rows=5", "sede=3"])
    with pytest.raises(UnknownParameter, match=r"a has no parameter seed\. "):
        runner.parameters_for(two[:1], ["seed=3"])
    with pytest.raises(LessonError, match=r"rows=5\.5: rows is a whole number\. Its default is 10\."):
        runner.parameters_for(two, ["rows=5.5"])
    for text in ("rows", "=5"):
        with pytest.raises(LessonError, match=f"-p {text} is not of the form name=value"):
            runner.parameters_for(two, [text])


def test_two_lessons_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        notebook(tmp_path / name / "a.ipynb")
    result = streamlab("run", tmp_path / "one" / "a.ipynb", tmp_path / "two" / "a.ipynb", "-o", tmp_path / "runs")
    assert result.returncode == 1
    assert "have the same name" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = streamlab("run", notebook(tmp_path / "a.ipynb"), "-o", tmp_path / "file")
    assert result.returncode == 1
    assert "cannot be made: Not a directory." in result.stderr
    assert "--output" in result.stderr
    assert "Traceback" not in result.stderr


# -- runs ----------------------------------------------------------------------------------------------


@pytest.mark.acceptance
def test_a_failure_is_told_and_the_next_lesson_runs(tmp_path: Path) -> None:
    fails = notebook(tmp_path / "fails.ipynb", "1 / nothing", parameters="nothing = 1")
    works = notebook(tmp_path / "works.ipynb", "assert (rows, type(rows)) == (5, int)", parameters="rows = 1")
    arguments = ("-p", "nothing=0", "-p", "rows=5", "-o", tmp_path / "runs", "--json")
    # The first is named twice and runs once.
    result = streamlab("run", fails, works, fails, *arguments)
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["lessons"] == summary(tmp_path / "runs")
    assert [(row["lesson"], row["outcome"]) for row in document["lessons"]] == [
        ("fails", "failed"),
        ("works", "passed"),
    ]
    assert "ZeroDivisionError" in document["lessons"][0]["error"]
    kept = Path(document["folder"]) / "fails.ipynb"
    assert f"kept: {kept}" in result.stderr
    assert "ZeroDivisionError" in kept.read_text(encoding="utf-8")
    assert "WARNING" not in result.stderr


@pytest.mark.acceptance
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_cell_and_ends_the_batch(tmp_path: Path, number: signal.Signals) -> None:
    waits = notebook(
        tmp_path / "waits.ipynb",
        f"""
import atexit, os, pathlib, time
here = pathlib.Path({str(tmp_path)!r})
def drop():
    time.sleep(4)  # as long as connectors take
    (here / "dropped").touch()
atexit.register(drop)
try:
    (here / "draft").write_text(str(os.getpid()))
    (here / "draft").rename(here / "pid")
    time.sleep(300)
except KeyboardInterrupt:
    (here / "tidied").touch()
    raise
""",
    )
    never = notebook(tmp_path / "never.ipynb")
    running = start("run", waits, never, "-o", tmp_path / "runs")
    running.wait_for((tmp_path / "pid").exists, "the cell")
    running.send(number)
    assert running.end() == 130
    assert running.said[-1] == "Interrupted.\n", running.said
    assert "Traceback" not in "".join(running.said), running.said
    assert (tmp_path / "tidied").exists()
    assert (tmp_path / "dropped").exists()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert [(row["lesson"], row["outcome"], row["error"]) for row in summary(tmp_path / "runs")] == [
        ("waits", "failed", "Interrupted.")
    ]
    (kept,) = (tmp_path / "runs").glob("*/waits.ipynb")
    assert "KeyboardInterrupt" in kept.read_text(encoding="utf-8")
