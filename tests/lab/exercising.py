"""What the tests of every lesson's exercises do: a lesson to answer in, and what is asked of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from streamlab import settings
from streamlab.lab import Lesson, checks, lesson

__all__ = ["attempted_rightly", "connectors", "missed", "mistakes", "publications", "running", "slots"]

Left = Callable[[str], Sequence[object]]


def mistakes(slug: str) -> list[Any]:
    """The known mistakes of a lesson: the exercise, and what is wrong."""
    tasks = checks.exercises(slug)
    return [pytest.param(name, known, id=known.name) for name, task in tasks.items() for known in task.wrong]


@contextmanager
def running(
    slug: str, needs: Sequence[str], folder: pytest.TempPathFactory, left: Sequence[Left] = ()
) -> Iterator[Lesson]:
    """A lesson. In the end `left` is asked what its exercises have left behind under the lesson's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMLAB_RESULTS", str(folder.mktemp("lesson") / "results.json"))
        patch.setenv("STREAMLAB_LIVE", "0")
        with lesson(slug, needs=needs, seed=3) as lab:
            yield lab
            found = [each for ask in left for each in ask(lab.namespace.name)]
            assert not found, "a check leaves nothing, also where the answer is wrong"


def _named(question: str, name: str) -> list[object]:
    with psycopg.connect(settings.postgres_dsn("cdc")) as connection:
        return [row[0] for row in connection.execute(question, [name])]


def slots(name: str) -> list[object]:
    """Replication slots of that name."""
    return _named("SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, %s)", name)


def publications(name: str) -> list[object]:
    """Publications of that name."""
    return _named("SELECT pubname FROM pg_publication WHERE starts_with(pubname, %s)", name)


def connectors(name: str) -> list[object]:
    """Connectors of that name, as the worker itself tells them."""
    names = httpx.get(settings.connect_url() + "/connectors").raise_for_status().json()
    return [each for each in names if each.startswith(name)]


def attempted_rightly(lab: Lesson, name: str, stub: object, seen: str) -> Any:
    """What is there before anybody has answered does not count, and the solution passes; which is returned."""
    checked = checks.evaluate(lab, checks.exercise(lab.slug, name), stub)
    assert checked.result.outcome == "not attempted"
    assert seen in checked.result.detail
    return checked.answer


def missed(lab: Lesson, name: str, known: checks.WrongAnswer, seen: str) -> None:
    """A known mistake fails, for the reason that was counted, and gets its own hint."""
    checked = checks.evaluate(lab, checks.exercise(lab.slug, name), known.answer)
    assert checked.result.outcome == "failed"
    assert known.hint in checked.rendered.text
    assert seen in checked.result.detail
