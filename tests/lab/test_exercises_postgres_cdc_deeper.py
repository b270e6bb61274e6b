"""The exercise of lesson 01b, on the real server: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab.exercising import attempted_rightly, missed, mistakes, publications, running, slots

from streamlab.cdc import UNCHANGED
from streamlab.lab import checks
from streamlab.lab.exercises import postgres_cdc_deeper as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "01b_postgres_cdc_deeper"
TASK = checks.exercise(SLUG, "unchanged")


@pytest.fixture(scope="module")
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(SLUG, ["postgres"], tmp_path_factory, [slots, publications]) as lesson:
        yield lesson


def stub(row: dict[str, Any], change: object) -> None: ...


def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any) -> None:
    answer = attempted_rightly(lab, TASK.name, stub, "All 20 rows of the copy are as in the table")
    assert answer is module.keep_what_is_there


COUNTED = {
    # Six whose photo was never replaced, and two of the last statement.
    "NULL over it": "8 are lost, in 0 stands something that is no photo, 0 are old ones, 0 are there",
    "the mark in the copy": "0 are lost, in 8 stands something that is no photo",
    "the first photo for ever": "0 are lost, in 0 stands something that is no photo, 6 are old ones, 4 are there",
    "NULL taken for unchanged": "0 are old ones, 4 are there and not in the table",
}


@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED[known.name])


def test_a_row_that_is_returned_counts_as_well(lab: Any) -> None:
    def returns(row: dict[str, Any], change: Any) -> dict[str, Any]:
        return row | {name: value for name, value in change.new_data.items() if value is not UNCHANGED}

    assert checks.evaluate(lab, TASK, returns).passed


def test_an_answer_that_does_nothing_is_told_so(lab: Any) -> None:
    verdict = TASK.check(lab, lambda row, change: row.clear())
    assert (verdict.ok, verdict.because) == (False, "")
    assert "20 of 20 rows of the copy have another id or title" in verdict.seen
