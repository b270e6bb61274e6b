"""Exercises of lesson 01, on the real server: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab.exercising import attempted_rightly, missed, mistakes, running, slots

from streamlab.lab import checks
from streamlab.lab.exercises import postgres_cdc as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "01_postgres_cdc"


@pytest.fixture(scope="module")
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(SLUG, ["postgres"], tmp_path_factory, [slots]) as lesson:
        yield lesson


def stub(tx: object, sink: object, cdc: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "answer", "seen"),
    [
        ("ack-order", stub, "killed twice: 0 of 60 orders never reached the sink, 1 came twice"),
        ("slots", dict.fromkeys(module.CURE, ...), "All 50 orders reached the warehouse"),
    ],
)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any, name: str, answer: object, seen: str) -> None:
    assert attempted_rightly(lab, name, answer, seen) is checks.exercise(SLUG, name).solution


COUNTED = {
    "acknowledged first": "1 of 60 orders never reached the sink, 0 came twice",
    "acknowledged its position": "0 of 60 orders never reached the sink, 3 came twice",
    "never acknowledged": "0 of 60 orders never reached the sink, 60 came twice",
    "never written": "60 of 60",
    "the warehouse lost orders": "50 of 50",
    "a slot in use": "55006",
    "left alone": "warehouse still holds the log of 40 orders",
}


@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED.get(known.name, ""))


@pytest.mark.parametrize(
    ("slot", "verb", "because", "seen"),
    [
        ("warehouse", "advance", "the warehouse lost orders", "40 of 50"),
        ("search", "leave", "left alone", "search still holds the log of 40 orders"),
        ("trial", "leave", "left alone", "trial still holds the log of 40 orders"),
        ("trial", "read on", "it fills again", "trial holds the log of 10"),
        ("dashboard", "advance", "a slot in use", "55006"),
    ],
)
def test_other_decisions_about_slots(lab: Any, slot: str, verb: str, because: str, seen: str) -> None:
    verdict = checks.exercise(SLUG, "slots").check(lab, {**module.CURE, slot: verb})
    assert (verdict.ok, verdict.because) == (False, because)
    assert seen in verdict.seen


def test_an_answer_that_raises_is_shown_with_its_line(lab: Any) -> None:
    def handle(tx: Any, sink: Any, cdc: Any) -> None:
        cdc.acknowlege(tx)

    checked = checks.evaluate(lab, checks.exercise(SLUG, "ack-order"), handle)
    assert checked.result.outcome == "failed"
    assert "cdc.acknowlege(tx)" in checked.result.detail
