"""Exercises of lesson 02, on the real servers: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab.exercising import attempted_rightly, connectors, missed, mistakes, running

from streamlab.lab import checks
from streamlab.lab.exercises import mysql_debezium as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "02_mysql_debezium"


@pytest.fixture(scope="module")
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # One for all: the records of the first exercise are made once.
    with running(SLUG, ["mysql", "kafka", "connect"], tmp_path_factory, [connectors]) as lesson:
        yield lesson


def stub(copy: dict[Any, Any], key: dict[str, Any], value: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "answer", "seen"),
    [
        ("copy", stub, "After 19 records all 5 rows of the copy are as in the table"),
        ("settings", {"decimal.handling.mode": ...}, "Rows that say so: 1; records without a value: 1"),
    ],
)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any, name: str, answer: object, seen: str) -> None:
    assert attempted_rightly(lab, name, answer, seen) is checks.exercise(SLUG, name).solution


COUNTED = {
    "only what comes after": "3 rows of the copy are not in the table any more, 0 of 5",
    "a tombstone is an error": "raised TypeError",
    "the key of no row": "raised TypeError",
    "only the stream": "1 of 5 are lost",
    "the row before": "are not as in the table",
    "former names": "Rows that say so: 0; records without a value: 0",
    "not even a tombstone": "Rows that say so: 0; records without a value: 0",
    "no tombstone": "Rows that say so: 1; records without a value: 0",
    "a setting without its converter": "Each value carries its schema",
    "bytes for an amount": "arrives as 'B8Y='",
    "binary fractions": "arrives as 19.9.",
}


@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED[known.name])


def test_a_copy_may_be_kept_under_any_key(lab: Any) -> None:
    def by_text(copy: dict[Any, Any], key: dict[str, Any], value: dict[str, Any] | None) -> None:
        copy.pop(str(key), None)
        if value and value["after"]:
            copy[str(key)] = value["after"]

    assert checks.evaluate(lab, checks.exercise(SLUG, "copy"), by_text).passed


def test_a_setting_that_the_connector_refuses_is_said(lab: Any) -> None:
    checked = checks.evaluate(lab, checks.exercise(SLUG, "settings"), {**module.SETTINGS, "max.batch.size": "many"})
    assert checked.result.outcome == "failed"
    assert "max.batch.size" in checked.result.detail
    assert not checks.exercise(SLUG, "settings").check(lab, ["string"]).ok
