"""How long a thread waits for Python's lock: shorter within a block, as before behind the last one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from streamlab.cdc.switching import taking_turns


@pytest.fixture(autouse=True)
def interval() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_it_is_shorter_within_and_as_before_behind_an_error_too(interval: float) -> None:
    with pytest.raises(KeyError), taking_turns():
        assert sys.getswitchinterval() < interval / 10
        raise KeyError
    assert sys.getswitchinterval() == interval


def test_blocks_of_several_threads_overlap(interval: float) -> None:
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with taking_turns():
            inside.set()
            assert over.wait(30)

    thread = threading.Thread(target=other)
    with taking_turns():
        thread.start()
        assert inside.wait(30)
    assert sys.getswitchinterval() < interval / 10
    over.set()
    thread.join()
    assert sys.getswitchinterval() == interval


def test_what_somebody_else_sets_stays(interval: float) -> None:
    with taking_turns():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)
    sys.setswitchinterval(0.00001)
    with taking_turns():
        assert sys.getswitchinterval() == pytest.approx(0.00001)
    assert sys.getswitchinterval() == pytest.approx(0.00001)
    sys.setswitchinterval(0.005)
    with taking_turns():
        assert sys.getswitchinterval() < interval / 10
    assert sys.getswitchinterval() == interval
