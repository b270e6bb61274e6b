"""Exercises of lesson 06, on the real servers: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab.exercising import attempted_rightly, connectors, missed, mistakes, running, slots

from streamlab.errors import LessonError
from streamlab.lab import checks
from streamlab.lab.carrying import ORDERS, Carrying
from streamlab.lab.exercises import kafka_connect as module
from streamlab.lab.second import SecondDatabase

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SLUG = "06_kafka_connect"


@pytest.fixture(scope="module")
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(SLUG, ["postgres", "kafka", "connect"], tmp_path_factory, [connectors, slots]) as lesson:
        yield lesson


@pytest.mark.parametrize(
    ("name", "answer", "seen"),
    [
        ("sink", dict.fromkeys(module.SETTINGS, ...), "came 3 rows: 0 that are deleted, 0 that are not as they should"),
        ("steps", [...], "killed 2 times: 0 of 12 orders never reached the topic, 1 came twice"),
    ],
)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any, name: str, answer: object, seen: str) -> None:
    assert attempted_rightly(lab, name, answer, seen) is checks.exercise(SLUG, name).solution


COUNTED = {
    "deleted rows stay": "came 4 rows: 1 that are deleted",
    "every record is a new row": "duplicate key",
    "one record stops them all": "Tolerance exceeded",
    "nobody knows which": "and 0 dead letters for 1 broken record",
    "acknowledged first": "2 of 12 orders never reached the topic, 0 came twice",
    "acknowledged what is not sent": "1 of 12 orders never reached the topic, 0 came twice",
    "never flushed": "6 of 6 orders never reached the topic",
    "never acknowledged": "0 of 6 orders never reached the topic, 1 came twice",
}


@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED[known.name])


@pytest.mark.parametrize(
    ("name", "answer"),
    [("sink", {"insert.mode": 1}), ("steps", "produce"), ("steps", ["flush", "flush"]), ("steps", ["send", "flush"])],
)
def test_what_is_no_answer_is_said_to_be_none(lab: Any, name: str, answer: object) -> None:
    verdict = checks.exercise(SLUG, name).check(lab, answer)
    assert not verdict.ok
    assert verdict.seen.startswith("Give ")


def test_the_connector_repeats_nothing_and_what_it_took_back_lies_in_the_topic(lab: Any) -> None:
    with Carrying(lab) as carrying:
        report = carrying.connector(["connect.after_flush"])
        assert report.clean, report
        assert sorted(carrying.records()) == list(range(1, ORDERS + 1))
        assert len(carrying.records(committed=False)) > ORDERS


def test_a_row_that_does_not_come_is_not_waited_for_without_end(lab: Any) -> None:
    with SecondDatabase(lab, "waited") as second, pytest.raises(LessonError, match="Row 7 of orders has not come"):
        second.wait("orders", 7, limit=0.3)
