"""Benchmarks and cases are chosen by name; what is not known is refused with the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import catalogue, stack
from benchmarks.catalogue import choose
from streamlab.errors import StreamlabError

ROOT = Path(__file__).parents[2]


def names(*chosen: str) -> list[str]:
    return [f"{benchmark.name}:{case.name}" for benchmark, cases in choose(chosen) for case in cases]


def test_no_name_is_everything() -> None:
    assert names() == [f"{each.name}:{case.name}" for each in catalogue.BENCHMARKS for case in each.cases]


def test_a_benchmark_is_all_its_cases_and_a_case_is_itself() -> None:
    assert names("stack") == [f"stack:{case.name}" for case in stack.BENCHMARK.cases]
    assert names("stack:memory", "stack:import") == ["stack:import", "stack:memory"]
    assert names("stack:import", "stack") == names("stack")


@pytest.mark.parametrize(
    ("name", "near"), [("stak", "stack"), ("stack:imprt", "stack:import"), ("stack:postgres", "stack:up-postgres")]
)
def test_the_nearest_name_is_told(name: str, near: str) -> None:
    with pytest.raises(StreamlabError, match=f"no benchmark called {name}") as caught:
        choose([name])
    assert caught.value.fix == f"Did you mean {near}?"


def test_without_a_near_name_all_are_told() -> None:
    with pytest.raises(StreamlabError, match="There are: stack, stack:import"):
        choose(["qqqqqqqq"])


def test_names_are_unique_and_every_lesson_has_its_case() -> None:
    every = names()
    assert len(every) == len(set(every))
    lessons = {f"stack:lesson-{path.stem}" for path in (ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb")}
    assert lessons
    assert lessons <= set(every)


def test_each_benchmark_is_described() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for each in catalogue.BENCHMARKS:
        assert f"## `{each.name}`" in page
        for case in each.cases:
            name = "lesson-NAME" if case.name.startswith("lesson-") else case.name
            name = "up-SERVICE" if name.startswith("up-") else name
            assert f"| `{name}` |" in page, name
