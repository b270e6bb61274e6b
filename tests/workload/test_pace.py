"""The pacer, on a time that the test makes up: it has no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.errors import StreamlabError
from streamlab.workload.pace import Pacer

rates = st.floats(0.1, 1e5)
works = st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 5)), min_size=1, max_size=60)


@given(rates, st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_who_is_never_late_keeps_the_rate_exactly(rate: float, units: list[int]) -> None:
    pacer, now = Pacer(rate), 100.0
    for each in units:
        now += pacer.wait(now)
        pacer.did(each, now)
    assert now + pacer.wait(now) - 100.0 == pytest.approx(sum(units) / rate, rel=1e-6, abs=1e-6)


@given(rates, works)
def test_nobody_is_faster_than_the_rate_and_one_catch_up(rate: float, made: list[tuple[int, float]]) -> None:
    """Between any two begins: at most the rate's share of that time, of the catch-up, and one work."""
    pacer, now = Pacer(rate, catch_up=1.0), 0.0
    begun = []
    for units, slow in made:
        now += pacer.wait(now)
        pacer.did(units, now)
        begun.append((now, units))
        now += slow
    for first in range(len(begun)):
        done = 0
        for at, units in begun[first:]:
            assert done <= rate * (at - begun[first][0] + 1.0) * (1 + 1e-6) + 1e-3
            done += units


@given(rates)
def test_what_was_missed_long_ago_is_not_caught_up(rate: float) -> None:
    pacer = Pacer(rate, catch_up=1.0)
    pacer.did(1, 0.0)
    pacer.did(1, 1000.0)
    assert pacer.wait(1000.0) == pytest.approx(max(0.0, 1 / rate - 1.0), abs=1e-6)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(StreamlabError, match="no rate"):
        Pacer(rate)
