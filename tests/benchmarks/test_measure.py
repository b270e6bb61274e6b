"""The arithmetic of a benchmark: who is measured when, and what the figures say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import Row, order, ratios

FIGURES = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=20)


@given(parties=st.integers(1, 6), rounds=st.integers(0, 12))
def test_every_party_is_measured_once_a_round(parties: int, rounds: int) -> None:
    turns = list(order(parties, rounds))
    assert len(turns) == rounds
    assert all(sorted(turn) == list(range(parties)) for turn in turns)


@given(parties=st.integers(1, 6), pairs=st.integers(1, 6))
def test_nobody_goes_first_more_often(parties: int, pairs: int) -> None:
    turns = list(order(parties, 2 * pairs))
    places = [sum(turn.index(party) for turn in turns) for party in range(parties)]
    assert len(set(places)) == 1


@given(FIGURES)
def test_the_same_figures_have_ratio_one(figures: list[float]) -> None:
    assert set(ratios(figures, figures)) == {1.0}
    assert set(ratios(figures, figures, smaller_is_better=True)) == {1.0}


@given(FIGURES, st.floats(1.001, 1000))
def test_larger_is_better_whatever_the_unit(figures: list[float], factor: float) -> None:
    more = [factor * figure for figure in figures]
    assert min(ratios(more, figures)) > 1
    assert min(ratios(figures, more, smaller_is_better=True)) > 1


def test_a_ratio_is_taken_within_its_round() -> None:
    assert ratios([10, 40], [5, 10]) == (2, 4)
    assert ratios([2.0, 4.0], [8.0, 8.0], smaller_is_better=True) == (4, 2)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_what_cannot_be_compared_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"zip|above zero"):
        ratios(ours, theirs)


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "benchmark": "cdc",
        "case": "decode",
        "work": "decode rows",
        "unit": "rows/s",
        "reference": "other",
        "reference_figures": (100.0, 400.0, 100.0),
        "figures": (300.0, 400.0, 200.0),
        "goal": 2.0,
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


def test_the_result_is_the_median_of_the_ratios_and_not_the_ratio_of_the_medians() -> None:
    # Medians: 300 and 100. Ratios: 3, 1 and 2.
    assert row().ratios == (3, 1, 2)
    assert row().ratio == 2


def test_the_json_of_a_row() -> None:
    assert row().as_json() == {
        "benchmark": "cdc",
        "case": "decode",
        "reference": "other",
        "reference_rate": 100.0,
        "ours_rate": 300.0,
        "ratio": 2.0,
        "goal": 2.0,
        "met": True,
        "unit": "rows/s",
    }


@pytest.mark.parametrize(("goal", "met"), [(2.0, True), (2.1, False), (None, None)])
def test_a_goal_is_met_or_not_or_not_there(goal: float | None, met: bool | None) -> None:
    assert row(goal=goal).met is met


def test_a_figure_without_a_reference_is_only_shown() -> None:
    shown = row(reference=None, reference_figures=(), goal=None)
    assert (shown.ours, shown.theirs, shown.ratio, shown.met) == (300.0, None, None, None)


def test_a_case_that_failed_meets_no_goal_and_says_why() -> None:
    failed = row(figures=(), reference_figures=(), error="no server").as_json()
    assert (failed["ratio"], failed["ours_rate"], failed["met"], failed["error"]) == (None, None, False, "no server")
