"""Exercises: three ways, hints, answers that raise, and lessons that are broken themselves."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from streamlab.errors import CheckFailed, LessonError
from streamlab.lab import checks
from streamlab.lab.checks import Exercise, Verdict, WrongAnswer, checker, evaluate, missed, passed

_numbers = itertools.count()


def twice(x: int) -> int:
    return 2 * x


def squared(x: int) -> int:
    return x * x


def unwritten(x: int) -> int: ...


def double(lab: Any, answer: Callable[[int], int]) -> Verdict:
    lab.append(answer)
    if (seen := answer(3)) != 6:
        return missed(f"3 became {seen}.", "squared" if seen == 9 else "")
    return passed("3 became 6.")


def made(check: checks.Check = double, solution: Any = twice, wrong: tuple[WrongAnswer, ...] | None = None) -> Exercise:
    """An exercise of a lesson of its own."""
    lesson = f"{next(_numbers):02}_made"
    known = (WrongAnswer("squared", squared, "Twice, not by itself."),) if wrong is None else wrong
    checker(lesson, "double", solution=solution, wrong=known)(check)
    return checks.exercise(lesson, "double")


def test_a_stub_is_not_attempted_and_the_lesson_goes_on_with_the_solution() -> None:
    asked: list[Any] = []
    checked = evaluate(asked, made(), unwritten)
    assert (checked.result.outcome, checked.passed, bool(checked)) == ("not attempted", False, False)
    assert checked.answer is twice
    assert asked == [twice]
    assert "not attempted yet" in checked.rendered.text
    assert "not counted as passed. With it: 3 became 6." in checked.rendered.text


def test_the_solution_passes() -> None:
    checked = evaluate([], made(), twice)
    assert (checked.result.outcome, checked.result.detail, bool(checked)) == ("passed", "3 became 6.", True)
    assert checked.rendered.text == "\u2713 double: passed.\n  3 became 6."


def test_a_known_mistake_gets_its_hint_and_another_one_none() -> None:
    task = made()
    known = evaluate([], task, squared)
    assert known.result.outcome == "failed"
    assert known.answer is squared
    assert known.rendered.text == "\u25b3 double: not yet. 3 became 9.\n  Twice, not by itself."
    other = evaluate([], task, lambda x: x + 4)
    assert other.rendered.text == "\u25b3 double: not yet. 3 became 7."


def test_a_batch_run_is_ended_with_what_was_seen_and_the_hint() -> None:
    task = made()
    error = checks.failure(task, evaluate([], task, squared))
    assert isinstance(error, CheckFailed)
    assert error.problem == f"{task.lesson}/double did not pass: 3 became 9."
    assert error.fix == "Twice, not by itself."


def test_an_answer_that_raises_has_not_passed_and_its_line_is_named() -> None:
    def broken(x: int) -> int:
        return x // 0

    checked = evaluate([], made(), broken)
    assert checked.result.outcome == "failed"
    assert "ZeroDivisionError" in checked.result.detail
    assert checked.result.detail.endswith("(in the line: return x // 0)")


def test_an_exception_can_be_a_known_mistake() -> None:
    known = (WrongAnswer("ZeroDivisionError", lambda x: x // 0, "Nothing can be divided by nothing."),)
    checked = evaluate([], made(wrong=known), lambda x: x // 0)
    assert checked.rendered.text.endswith("Nothing can be divided by nothing.")


def test_an_interrupt_is_no_wrong_answer() -> None:
    def stopped(x: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate([], made(), stopped)


def test_a_lesson_error_is_the_lessons_own() -> None:
    def unfit(_lab: Any, _answer: Any) -> Verdict:
        raise LessonError("The server went away.")

    with pytest.raises(LessonError, match="The server went away"):
        evaluate([], made(unfit), twice)


def test_a_mistake_that_is_not_registered_is_a_fault_of_the_lesson() -> None:
    with pytest.raises(LessonError, match="names the mistake 'squared', which is not registered"):
        evaluate([], made(wrong=()), squared)


def test_a_solution_that_does_not_pass_is_a_fault_of_the_lesson() -> None:
    task = made(solution=squared)
    with pytest.raises(LessonError, match="reference solution of .* does not pass: 3 became 9"):
        evaluate([], task, ...)


def test_a_plain_value_that_equals_a_known_mistake_is_diagnosed() -> None:
    def seven(_lab: Any, answer: Any) -> Verdict:
        return passed() if answer == 7 else missed(f"Not {answer!r}.")

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ArithmeticError

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "odd"

    known = (WrongAnswer("one too few", 6, "Count the last one too."), WrongAnswer("odd", Odd(), "Never said."))
    task = made(seven, 7, known)
    assert evaluate([], task, 6).rendered.text.endswith("Count the last one too.")
    # 6.0 == 6, but is another kind of answer; and what cannot be compared is no known mistake.
    assert evaluate([], task, 6.0).rendered.text == "\u25b3 double: not yet. Not 6.0."
    assert evaluate([], made(lambda _lab, _answer: missed("No."), 7, known), Odd()).rendered.text.endswith("No.")


def test_registration_refuses_a_stub_and_two_mistakes_of_one_name() -> None:
    with pytest.raises(LessonError, match="is a stub"):
        checker("x", "y", solution=unwritten)
    with pytest.raises(LessonError, match="share a name"):
        checker("x", "y", solution=twice, wrong=[WrongAnswer("a", 1, "."), WrongAnswer("a", 2, ".")])
    assert checks.exercises("x") == {}


def test_an_unknown_exercise_names_the_known_ones() -> None:
    task = made()
    with pytest.raises(LessonError, match=r"no exercise 'treble'. Known: double\."):
        checks.exercise(task.lesson, "treble")
    with pytest.raises(LessonError, match="Known: none"):
        checks.exercise("99_nothing", "double")


def test_a_lesson_without_exercises_has_no_module() -> None:
    assert checks.load("98_no_such_lesson") is None
    assert checks.module_name("03_event-store") == "streamlab.lab.exercises.event_store"
    assert checks.module_name("01b_postgres_cdc_deeper") == "streamlab.lab.exercises.postgres_cdc_deeper"
    assert isinstance(checks.load("00_start_here"), ModuleType)
    assert "delay" in checks.exercises("00_start_here")


def test_a_module_that_misses_something_else_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlab.lab import exercises

    (tmp_path / "hollow.py").write_text("import no_such_module_anywhere\n", encoding="utf-8")
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        checks.load("97_hollow")
    assert "streamlab.lab.exercises.hollow" not in sys.modules


def test_an_outcome_at_the_end_of_a_cell_is_not_shown_twice() -> None:
    assert evaluate([], made(), twice)._ipython_display_() is None
