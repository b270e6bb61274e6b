"""The collector waits while many objects are made, and is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from streamlab.cdc.garbage import as_usual, uncollected


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    was, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    (gc.enable if was else gc.disable)()


def test_nothing_is_collected_within() -> None:
    gc.enable()
    passes: list[str] = []

    def seen(phase: str, _info: dict[str, int]) -> None:
        passes.append(phase)

    gc.callbacks.append(seen)
    try:
        with uncollected():
            kept = [[number] for number in range(20_000)]
            inside = len(passes)
        few = [[number] for number in range(300)]
        behind = len(passes)
        more = [[number] for number in range(20_000)]
    finally:
        gc.callbacks.remove(seen)
    assert len(kept) == len(more) > len(few)
    assert inside == behind == 0
    assert passes, "the collector did not go on"


def test_it_goes_on_after_an_error() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="x"), uncollected():
        raise ValueError("x")
    assert gc.isenabled()


def test_one_that_is_off_stays_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_thresholds_are_as_they_were_when_no_more_follows() -> None:
    gc.enable()
    gc.set_threshold(500, 7, 9)
    for _ in range(3):
        with uncollected():
            kept = [[number] for number in range(2_000)]
        assert len(kept) < gc.get_threshold()[0] < 3_500, "it is raised again and again"
        del kept
    as_usual()
    assert gc.get_threshold() == (500, 7, 9)
    gc.set_threshold(900, 7, 9)
    as_usual()
    assert gc.get_threshold() == (900, 7, 9)


def test_thresholds_that_say_never_are_left_alone() -> None:
    gc.enable()
    gc.set_threshold(0, 7, 9)
    with uncollected():
        pass
    assert gc.get_threshold() == (0, 7, 9)
