"""Lessons are clean, and a batch job says which one failed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamlab.lab import hygiene, runner

LESSONS = [lesson.slug for lesson in runner.lessons()]


@pytest.mark.parametrize("slug", LESSONS)
def test_notebook_is_clean(slug: str) -> None:
    found = hygiene.findings(runner.find(slug).path)
    assert not found, "\n".join(str(each) for each in found)


NAMES = {
    "postgres": "PostgreSQL", "mysql": "MySQL", "kafka": "Kafka", "connect": "Kafka Connect",
    "registry": "schema registry",
}  # fmt: skip


@pytest.mark.parametrize("slug", LESSONS)
def test_its_minutes_and_services_are_the_same_wherever_they_are_said(slug: str) -> None:
    lesson = runner.find(slug)
    title, (reading, exercises), needs = lesson.title, lesson.minutes, [NAMES[name] for name in lesson.needs]
    first = json.loads(lesson.path.read_text(encoding="utf-8"))["cells"][0]["source"]
    root = lesson.path.parents[1]
    (row,) = (line for line in (root / "README.md").read_text(encoding="utf-8").splitlines() if f"{slug}.ipynb" in line)
    page = (root / "docs" / "lessons.md").read_text(encoding="utf-8")
    chapter = page.split(f"\n## {slug}\n")[1].split("\n## ")[0]
    minutes = f"{reading} minutes of reading, {exercises} of exercises"
    for text in ("".join(first), chapter):
        flat = " ".join(text.split())
        assert title in flat
        said = re.search(rf"{minutes}\W+[Nn]eeds ([^(.;\xb7]*)", flat)
        assert said is not None, flat
        assert re.split(r", | and ", said[1].strip().replace(" a schema", " schema")) == needs
    assert [part.strip() for part in row.split("|")][2:5] == [title, f"{reading} + {exercises}", ", ".join(needs)]


@pytest.mark.acceptance
@pytest.mark.timeout(240)
def test_a_lesson_that_fails_is_kept_and_named(tmp_path: Path) -> None:
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("limit = 7"), nbformat.v4.new_code_cell("1 / 0")]
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "77_broken.ipynb")
    command = [
        sys.executable, "-m", "streamlab", "run", "--no-start", "-o", str(tmp_path / "runs"),
        str(tmp_path / "77_broken.ipynb"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ZeroDivisionError" in done.stdout
    assert "Traceback" not in done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    (row,) = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["lessons"]
    assert (row["lesson"], row["outcome"]) == ("77_broken", "failed")
    assert set(row) == {"lesson", "outcome", "seconds", "checks_passed", "checks_total", "error"}
    assert (folder / "77_broken.ipynb").exists()
    assert "77_broken" in (folder / "index.html").read_text(encoding="utf-8")
    wrong = subprocess.run([*command, "-p", "limt=8"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert wrong.returncode == 1
    assert "has no parameter limt. \n".strip() in wrong.stderr
    assert "Did you mean limit?" in wrong.stderr


def test_parameters_keep_their_types() -> None:
    defaults = {"name": "x", "count": 3, "rate": 1.5, "live": False, "rates": [1]}
    given = ["name=007", "count=12", "rate=2", "live=true", "rates=[1, 2]"]
    assert runner.typed("lesson", defaults, given) == {
        "name": "007", "count": 12, "rate": 2.0, "live": True, "rates": [1, 2],
    }  # fmt: skip
