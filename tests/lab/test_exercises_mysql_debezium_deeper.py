"""The exercise of lesson 02b, on the real server: the stub, the solution, and each named mistake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from lab.exercising import attempted_rightly, missed, mistakes, running

from streamlab import settings
from streamlab.lab import checks, lesson
from streamlab.lab.exercises import mysql_debezium_deeper as module

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SLUG = "02b_mysql_debezium_deeper"
TASK = checks.exercise(SLUG, "place")


@pytest.fixture
def lab(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # One for each: the check goes on where the shop's tables stand.
    with running(SLUG, ["mysql"], tmp_path_factory) as lesson:
        yield lesson


def stub(sink: object, tx: object) -> None: ...


def test_a_stub_is_not_attempted_and_the_solution_passes(lab: Any) -> None:
    # Two rows, the place, the commit.
    seen = "Killed at 4 places, with 8 rows each: 0 lost, 0 there twice"
    assert attempted_rightly(lab, TASK.name, stub, seen) is module.keep_together


COUNTED = {
    "rows first": "Killed at 5 places, with 8 rows each: 0 lost, 4 there twice",
    "place first": "Killed at 5 places, with 8 rows each: 6 lost, 0 there twice",
    # Also after the commit, and always the last transaction before the kill.
    "where it begins": "0 lost, ",
    "row by row": "Killed at 6 places, with 8 rows each: 0 lost, ",
    "without a place": "0 lost, ",
    "without a commit": "After the program has ended nothing is there",
}


@pytest.mark.parametrize(("name", "known"), mistakes(SLUG))
def test_a_known_mistake_is_measured_and_gets_its_hint(lab: Any, name: str, known: checks.WrongAnswer) -> None:
    missed(lab, name, known, COUNTED[known.name])


def test_the_order_of_rows_and_place_within_one_commit_is_free(lab: Any) -> None:
    def place_in_front(sink: module.Sink, tx: Any) -> None:
        sink.place(tx.end_position)
        for event in tx:
            sink.add(event.new_data["id"])
        sink.commit()

    assert checks.evaluate(lab, TASK, place_in_front).passed


def test_what_is_no_function_is_told_so(lab: Any) -> None:
    verdict = TASK.check(lab, ["add", "place", "commit"])
    assert not verdict.ok
    assert "a function of sink and tx" in verdict.seen


def test_signals_may_be_written_by_debezium_until_the_lesson_ends(
    stack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "results.json"))
    role = settings.mysql_address("cdc")

    def grants(name: str) -> list[str]:
        with pymysql.connect(**role.arguments(database="")) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GRANTS")
            return [grant for (grant,) in cursor.fetchall() if name in grant]

    with lesson(SLUG, needs=["mysql"]) as running:
        signals = running.signals()
        signals.execute_snapshot(f"{running.mysql.database}.orders")
        (granted,) = grants(running.namespace.name)
        assert "INSERT, DELETE" in granted
    assert grants(running.namespace.name) == []
