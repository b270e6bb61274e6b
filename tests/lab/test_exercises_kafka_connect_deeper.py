"""The exercise of lesson 06b, on the real registry: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab.exercising import attempted_rightly, missed, mistakes, running

from streamlab.lab import checks
from streamlab.lab.exercises import kafka_connect_deeper as module
from streamlab.lab.protobuf import message

SLUG = "06b_kafka_connect_deeper"
TASK = checks.exercise(SLUG, "changes")


@pytest.fixture(scope="module")
def lab(registry: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(SLUG, ["registry"], tmp_path_factory) as lesson:
        yield lesson
    with module.registry() as client:
        left = [subject for subject in client.get_subjects() if subject.startswith(lesson.namespace.name)]
    assert left == [], "the schemas that a check registers go with the lesson"


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any) -> None:
    answer = attempted_rightly(lab, TASK.name, dict.fromkeys(module.CHANGES, ...), "takes 3 of 6")
    assert answer == {name: number in {0, 2, 4} for number, name in enumerate(module.CHANGES)}


COUNTED = {
    "only what adds": "2 of 6 are otherwise. a field is dropped: taken; int becomes long: taken",
    "whatever adds": "1 of 6 are otherwise. a field without a default: refused",
    "a name is only a name": "a field gets another name: refused",
    "text can be read as a number": "string becomes int: refused",
}


@pytest.mark.integration
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED[known.name])


@pytest.mark.integration
@pytest.mark.timeout(120)
def test_an_answer_that_leaves_changes_out_is_told_so(lab: Any) -> None:
    verdict = TASK.check(lab, {"int becomes long": True})
    assert not verdict.ok
    assert "the 6 changes" in verdict.seen


def test_a_message_is_what_its_numbers_say() -> None:
    order, renumbered = message("order", id=(int, 1), note=(str, 2)), message("order", note=(str, 1), id=(int, 2))
    written = order(id=7, note="x").SerializeToString()
    assert written == b"\x08\x07\x12\x01x"
    read = renumbered.FromString(written)
    # Neither field is found: what is under a number has another type there.
    assert (read.id, read.note) == (0, "")
