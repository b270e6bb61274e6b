"""The collector waits while many objects are made, and is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from streamlab.cdc.garbage import uncollected


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    was = gc.isenabled()
    yield
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
        more = [[number] for number in range(20_000)]
    finally:
        gc.callbacks.remove(seen)
    assert len(kept) == len(more)
    assert inside == 0
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
