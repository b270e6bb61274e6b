"""Exercises of lesson 01, on the real server: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from streamlab import settings
from streamlab.lab import checks, lesson
from streamlab.lab.exercises import postgres_cdc as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "01_postgres_cdc"
CASES = [(name, known) for name, task in checks.exercises(SLUG).items() for known in task.wrong]


@pytest.fixture
def lab(stack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "results.json"))
    monkeypatch.setenv("STREAMLAB_LIVE", "0")
    with lesson(SLUG, needs=["postgres"], seed=3) as running:
        yield running
        with psycopg.connect(settings.postgres_dsn("cdc")) as connection:
            left = connection.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, %s)", [running.namespace.name]
            ).fetchall()
        assert not left, "a check leaves no slot, also where the answer is wrong"


def stub(tx: object, sink: object, cdc: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "answer", "seen"),
    [
        ("ack-order", stub, "killed twice: 0 of 60 orders never reached the sink, 1 came twice"),
        ("slots", dict.fromkeys(module.CURE, ...), "All 50 orders reached the warehouse"),
    ],
)
def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any, name: str, answer: object, seen: str) -> None:
    task = checks.exercise(SLUG, name)
    checked = checks.evaluate(lab, task, answer)
    assert checked.result.outcome == "not attempted"
    assert checked.answer is task.solution
    assert seen in checked.result.detail


COUNTED = {
    "acknowledged first": "1 of 60 orders never reached the sink, 0 came twice",
    "acknowledged its position": "0 of 60 orders never reached the sink, 3 came twice",
    "never acknowledged": "0 of 60 orders never reached the sink, 60 came twice",
    "never written": "60 of 60",
    "the warehouse lost orders": "50 of 50",
    "a slot in use": "55006",
    "left alone": "warehouse still holds the log of 40 orders",
}


@pytest.mark.parametrize(("name", "known"), CASES, ids=[known.name for _, known in CASES])
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    checked = checks.evaluate(lab, checks.exercise(SLUG, name), known.answer)
    assert checked.result.outcome == "failed"
    assert known.hint in checked.rendered.text
    assert COUNTED.get(known.name, "") in checked.result.detail


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
