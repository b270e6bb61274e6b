"""Exercises of lesson 02, on the real servers: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streamlab import settings
from streamlab.lab import checks, lesson
from streamlab.lab.exercises import mysql_debezium as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "02_mysql_debezium"
CASES = [(name, known) for name, task in checks.exercises(SLUG).items() for known in task.wrong]


@pytest.fixture(scope="module")
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # One for all: the records of the first exercise are made once.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMLAB_RESULTS", str(tmp_path_factory.mktemp("lesson") / "results.json"))
        patch.setenv("STREAMLAB_LIVE", "0")
        with lesson(SLUG, needs=["mysql", "kafka", "connect"], seed=3) as running:
            yield running
            names = httpx.get(settings.connect_url() + "/connectors").json()
            left = [name for name in names if name.startswith(running.namespace.name)]
            assert not left, "a check leaves no connector, also where the answer is wrong"


def stub(copy: dict[Any, Any], key: dict[str, Any], value: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "answer", "seen"),
    [
        ("copy", stub, "After 19 records all 5 rows of the copy are as in the table"),
        ("settings", {"decimal.handling.mode": ...}, "Rows that say so: 1; records without a value: 1"),
    ],
)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any, name: str, answer: object, seen: str) -> None:
    task = checks.exercise(SLUG, name)
    checked = checks.evaluate(lab, task, answer)
    assert checked.result.outcome == "not attempted"
    assert checked.answer is task.solution
    assert seen in checked.result.detail


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


@pytest.mark.parametrize(("name", "known"), CASES, ids=[known.name for _, known in CASES])
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    checked = checks.evaluate(lab, checks.exercise(SLUG, name), known.answer)
    assert checked.result.outcome == "failed"
    assert known.hint in checked.rendered.text
    assert COUNTED[known.name] in checked.result.detail


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
