"""Exercises: their checks, reference solutions, and the wrong answers that deserve an answer.

A lesson's exercises stand in code, registered by a decorator, and so are tested three ways: the stub is
"not attempted", the reference solution passes, and each named wrong answer gets its hint::

    @checker(
        "01_postgres_cdc",
        "ack-order",
        solution=write_then_acknowledge,
        wrong=[WrongAnswer("acknowledged first", acknowledge_then_write,
                           "After the acknowledgement the server forgets; your process died before the write.")],
    )
    def ack_order(lab: Lesson, answer: Any) -> Verdict:
        lost = ...                                # kills a real reader between the two lines, and counts
        if lost:
            return missed(f"{lost} of 200 orders never reached the sink.", because="acknowledged first")
        return passed("200 of 200 orders reached the sink.")

The exercises of lesson ``NN_name`` are in the module ``streamlab.lab.exercises.name``, which is loaded
when the lesson begins.
"""

from __future__ import annotations

import importlib
import logging
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from streamlab.errors import CheckFailed, LessonError
from streamlab.lab.live import Rendered, note
from streamlab.lab.results import CheckResult
from streamlab.lab.stubs import is_stub

__all__ = [
    "Checked",
    "Exercise",
    "Verdict",
    "WrongAnswer",
    "checker",
    "evaluate",
    "exercise",
    "exercises",
    "load",
    "missed",
    "passed",
]

log = logging.getLogger(__name__)

Check = Callable[[Any, Any], "Verdict"]
"""A check gets the running lesson (`streamlab.lab.Lesson`) and the answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: whether the answer holds, what was seen, and which known mistake it was."""

    ok: bool
    seen: str
    because: str = ""


def passed(seen: str = "") -> Verdict:
    """The answer holds; `seen` says what was measured."""
    return Verdict(True, seen)


def missed(seen: str, because: str = "") -> Verdict:
    """The answer does not hold; `because` names one of the exercise's wrong answers, for its hint."""
    return Verdict(False, seen, because)


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """A mistake that many make: an example of it, and what to say to those who make it."""

    name: str
    answer: Any
    hint: str


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise of a lesson."""

    lesson: str
    name: str
    check: Check
    solution: Any
    wrong: tuple[WrongAnswer, ...] = ()

    def hint(self, verdict: Verdict) -> str:
        """The hint for a verdict; empty where the mistake is not a known one."""
        for known in self.wrong:
            if known.name == verdict.because:
                return known.hint
        return ""


@dataclass(frozen=True, slots=True)
class Checked:
    """An exercise's outcome, already shown. `answer` is what the lesson goes on with."""

    result: CheckResult
    answer: Any
    rendered: Rendered

    @property
    def passed(self) -> bool:
        """Whether the reader's own answer passed. False where it was not attempted."""
        return self.result.outcome == "passed"

    def __bool__(self) -> bool:
        return self.passed

    def _ipython_display_(self) -> None:
        """Show nothing: as the last expression of a cell it would be shown twice."""


_EXERCISES: dict[str, dict[str, Exercise]] = {}


def checker(lesson: str, name: str, *, solution: Any, wrong: Sequence[WrongAnswer] = ()) -> Callable[[Check], Check]:
    """Register the check of an exercise.

    Parameters
    ----------
    lesson, name : str
        The lesson's slug, and the exercise's name within it.
    solution : object
        The reference solution, which must pass.
    wrong : sequence of WrongAnswer
        Mistakes that are known, each with its hint.

    Raises
    ------
    LessonError
        The reference solution is a stub, or two wrong answers share a name.
    """
    if is_stub(solution):
        raise LessonError(f"The reference solution of {lesson}/{name} is a stub.", "Write it out.")
    if len({known.name for known in wrong}) != len(wrong):
        raise LessonError(f"Two wrong answers of {lesson}/{name} share a name.", "Name them apart.")

    def register(check: Check) -> Check:
        _EXERCISES.setdefault(lesson, {})[name] = Exercise(lesson, name, check, solution, tuple(wrong))
        return check

    return register


def module_name(lesson: str) -> str:
    """The module of a lesson's exercises: ``01_postgres_cdc`` -> ``streamlab.lab.exercises.postgres_cdc``.

    The slug of an optional part has a letter behind the number: ``01b_postgres_cdc_deeper``.
    """
    return "streamlab.lab.exercises." + re.sub(r"^\d+[a-z]?_", "", lesson).replace("-", "_")


def load(lesson: str) -> ModuleType | None:
    """Load the module that registers a lesson's exercises; None where the lesson has none."""
    name = module_name(lesson)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def exercises(lesson: str) -> dict[str, Exercise]:
    """The exercises of a lesson that are registered by now, by name."""
    return dict(_EXERCISES.get(lesson, {}))


def exercise(lesson: str, name: str) -> Exercise:
    """One exercise.

    Raises
    ------
    LessonError
        The lesson has none of that name.
    """
    known = exercises(lesson)
    if name not in known:
        raise LessonError(f"Lesson {lesson} has no exercise {name!r}.", f"Known: {', '.join(sorted(known)) or 'none'}.")
    return known[name]


def evaluate(lab: Any, task: Exercise, answer: Any) -> Checked:
    """Check an answer and say what came of it; nothing is shown and nothing recorded yet.

    An answer that was not attempted is replaced by the reference solution, which then must pass itself.

    Raises
    ------
    LessonError
        The reference solution does not pass: the lesson is broken, not the reader's answer.
    """
    if is_stub(answer):
        verdict = _run(lab, task, task.solution)
        if not verdict.ok:
            raise LessonError(
                f"The reference solution of {task.lesson}/{task.name} does not pass: {verdict.seen}",
                "This is a fault of the lesson: please report it.",
            )
        return Checked(
            CheckResult(task.name, "not attempted", verdict.seen),
            task.solution,
            note(
                "open",
                f"{task.name}: not attempted yet. The lesson goes on with the reference solution.",
                f"It is marked as such, and not counted as passed. With it: {verdict.seen}" if verdict.seen else "",
            ),
        )
    verdict = _run(lab, task, answer)
    if verdict.ok:
        return Checked(
            CheckResult(task.name, "passed", verdict.seen),
            answer,
            note("passed", f"{task.name}: passed.", verdict.seen),
        )
    return Checked(
        CheckResult(task.name, "failed", verdict.seen),
        answer,
        note("missed", f"{task.name}: not yet. {verdict.seen}", task.hint(verdict)),
    )


def failure(task: Exercise, checked: Checked) -> CheckFailed:
    """The error that a batch run raises for a wrong answer."""
    hint = "\n".join(checked.rendered.text.splitlines()[1:]).strip()
    return CheckFailed(f"{task.lesson}/{task.name} did not pass: {checked.result.detail}", hint)


def _run(lab: Any, task: Exercise, answer: Any) -> Verdict:
    try:
        verdict = task.check(lab, answer)
    except LessonError:
        raise
    except Exception as error:
        log.debug("%s/%s: the answer raised", task.lesson, task.name, exc_info=True)
        return missed(f"It raised {type(error).__name__}: {error}{_where(error, answer)}", because=type(error).__name__)
    for known in task.wrong:
        # A plain value that equals a known mistake needs no diagnosis.
        if not verdict.ok and not verdict.because and not callable(known.answer) and _same(known.answer, answer):
            return missed(verdict.seen, because=known.name)
    if not verdict.ok and verdict.because and not task.hint(verdict):
        raise LessonError(
            f"The check of {task.lesson}/{task.name} names the mistake {verdict.because!r}, which is not registered.",
            "Add a WrongAnswer of that name.",
        )
    return verdict


def _same(known: Any, answer: Any) -> bool:
    try:
        return type(known) is type(answer) and bool(known == answer)
    except Exception:  # noqa: BLE001  comparing what a reader made may raise anything
        return False


def _where(error: BaseException, answer: Any) -> str:
    """The line of the reader's own code that raised, where it was that code."""
    code = getattr(getattr(answer, "__func__", answer), "__code__", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if code is not None and frame.filename == code.co_filename and frame.line:
            return f" (in the line: {frame.line})"
    return ""
