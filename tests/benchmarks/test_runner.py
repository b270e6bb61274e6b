"""Cases are run interleaved, with their setup around them; a case that fails does not hide, and stops nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.case import Bench, Benchmark, Case, Reference, limit
from benchmarks.references import References
from benchmarks.runner import run, run_case
from benchmarks.servers import Servers
from streamlab.errors import StreamlabError


class Seen:
    """What a run did, in order; also its listener."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def case(self, name: str, rounds: int) -> None:
        self.events.append(f"{name} {rounds}")

    def round(self, number: int) -> None:
        self.events.append(f"round {number}")

    @contextmanager
    def setup(self, _bench: Bench) -> Iterator[Seen]:
        self.events.append("setup")
        try:
            yield self
        finally:
            self.events.append("teardown")

    def party(self, name: str, figure: float) -> Callable[[Seen], float]:
        def measure(made: Seen) -> float:
            made.events.append(name)
            return figure

        return measure


def bench(*, quick: bool = False) -> Bench:
    return Bench(quick, Servers(), References())


def failing(_made: Seen) -> float:
    raise StreamlabError("It does not work.", "Do it otherwise.")


def test_ours_and_the_references_change_places_in_every_round() -> None:
    seen = Seen()
    case = Case(
        name="x",
        work="work",
        unit="rows/s",
        setup=seen.setup,
        ours=seen.party("ours", 30.0),
        references=(Reference("a", seen.party("a", 10.0), 2.0), Reference("b", seen.party("b", 20.0))),
        rounds=3,
    )
    rows = run_case("bench", case, bench(), seen)
    assert seen.events == [
        "bench:x 3",
        "setup",
        *("ours", "a", "b", "round 1"),
        *("b", "a", "ours", "round 2"),
        *("ours", "a", "b", "round 3"),
        "teardown",
    ]
    assert [(row.reference, row.ratios, row.goal) for row in rows] == [("a", (3, 3, 3), 2.0), ("b", (1.5,) * 3, None)]


def test_quick_takes_the_small_number_of_rounds() -> None:
    seen = Seen()
    case = Case(name="x", work="w", unit="s", setup=seen.setup, ours=seen.party("ours", 1.0), rounds=9, quick_rounds=2)
    (row,) = run_case("bench", case, bench(quick=True), seen)
    assert seen.events.count("ours") == 2
    assert (row.reference, row.figures) == (None, (1.0, 1.0))


def test_a_limit_divided_by_the_figure_is_the_ratio() -> None:
    seen = Seen()
    case = Case(
        name="x",
        work="w",
        unit="s",
        smaller_is_better=True,
        setup=seen.setup,
        ours=seen.party("ours", 4.0),
        references=(limit(8.0, "8 s"),),
    )
    (row,) = run_case("bench", case, bench(), seen)
    assert (row.ratio, row.goal, row.met, row.reference) == (2.0, 1.0, True, "limit: 8 s")


def test_a_case_that_fails_is_a_row_for_each_reference_and_the_next_case_runs() -> None:
    seen = Seen()
    references = (Reference("a", seen.party("a", 1.0), 2.0), Reference("b", failing, 3.0))
    broken = Case(name="broken", work="w", unit="s", setup=seen.setup, ours=seen.party("o", 1.0), references=references)
    whole = Case(name="whole", work="w", unit="s", setup=seen.setup, ours=seen.party("ours", 1.0), rounds=1)
    rows = list(run([(Benchmark("bench", (broken, whole)), [broken, whole])], bench(), seen))
    assert [(row.case, row.reference, row.met, row.figures) for row in rows] == [
        ("broken", "a", False, ()),
        ("broken", "b", False, ()),
        ("whole", None, None, (1.0,)),
    ]
    assert "It does not work. Do it otherwise." in rows[0].error
    assert seen.events.count("teardown") == 2


@pytest.mark.parametrize("figure", [0.0, -1.0])
def test_a_figure_that_compares_with_nothing_fails_its_case(figure: float, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    case = Case(name="x", work="w", unit="s", setup=seen.setup, ours=seen.party("ours", figure))
    (row,) = run_case("bench", case, bench(), seen)
    assert "no figure to compare" in row.error
    # What has no sentence of ours comes with its trace.
    assert caplog.records[0].exc_info


def test_ctrl_c_ends_the_run_after_the_teardown() -> None:
    seen = Seen()

    def interrupted(_made: Seen) -> float:
        raise KeyboardInterrupt

    case = Case(name="x", work="w", unit="s", setup=seen.setup, ours=interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_case("bench", case, bench(), seen)
    assert seen.events[-1] == "teardown"


def test_what_cases_share_ends_with_their_benchmark() -> None:
    seen, found = Seen(), []

    @contextmanager
    def sharing(bench: Bench) -> Iterator[None]:
        found.append(sorted(bench.shared))
        bench.shared["servers"] = 1
        yield

    case: Case[None] = Case(name="x", work="w", unit="s", setup=sharing, ours=lambda _made: 1.0, rounds=1)
    list(run([(Benchmark("a", (case, case)), [case, case]), (Benchmark("b", (case,)), [case])], bench(), seen))
    assert found == [[], ["servers"], []]
