"""The exercises of the lessons: the reference passes, and each known mistake is told from it and gets its own hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamlab.lab import Lesson, checks, lesson, runner
from streamlab.lab.exercises.start_here import from_commit

pytestmark = pytest.mark.integration

# A lesson with a module of its own has its exercises tested there, with what each answer costs.
SLUGS = [
    each.slug
    for each in runner.lessons()
    if not Path(__file__).with_name(f"test_exercises_{checks.module_name(each.slug).rpartition('.')[2]}.py").exists()
]


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, stack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lesson]:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "results.json"))
    monkeypatch.setenv("STREAMLAB_LIVE", "1")
    checks.load(request.param)
    started = lesson(request.param, needs=runner.find(request.param).needs)
    yield started
    started.close()


@pytest.mark.parametrize("lab", SLUGS, indirect=True)
def test_a_reference_passes_and_a_known_mistake_gets_its_hint(lab: Lesson) -> None:
    exercises = checks.exercises(lab.slug)
    assert exercises
    for task in exercises.values():
        assert checks.evaluate(lab, task, task.solution).passed, task.name
        for mistake in task.wrong:
            checked = checks.evaluate(lab, task, mistake.answer)
            assert not checked.passed, (task.name, mistake.name)
            assert mistake.hint in checked.rendered.text, (task.name, mistake.name, checked.rendered.text)


@pytest.mark.parametrize("lab", ["00_start_here"], indirect=True)
def test_a_delay_is_a_finite_number(lab: Lesson) -> None:
    def returns(value: object) -> Callable[..., object]:
        return lambda change, received: value

    task = checks.exercise("00_start_here", "delay")
    for value in (float("nan"), float("inf"), "0.001", None, True):
        checked = checks.evaluate(lab, task, returns(value))
        assert checked.result.outcome == "failed"
        assert f"returned {value!r}, which is not a number of seconds" in checked.result.detail


@pytest.mark.parametrize("lab", ["00_start_here"], indirect=True)
def test_a_right_delay_passes_also_where_the_change_came_late(lab: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlab.lab.exercises import start_here

    # Any real delay is longer than this, as it is longer than the real one on a machine that stalls.
    monkeypatch.setattr(start_here, "HELD_OPEN", 0.0)
    task = checks.exercise("00_start_here", "delay")
    checked: Any = checks.evaluate(lab, task, from_commit)
    assert checked.passed, checked.result.detail
