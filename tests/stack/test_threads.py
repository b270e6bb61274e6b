"""Several things at once, also where the interpreter ends."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from streamlab.stack.threads import side_by_side


def test_results_come_in_order_from_threads_that_wait_for_each_other() -> None:
    together = threading.Barrier(3)

    def work(number: int) -> tuple[int, str]:
        together.wait(10)
        return number, threading.current_thread().name.rpartition("_")[0]

    assert side_by_side(work, range(3), name="test-threads") == [(number, "test-threads") for number in range(3)]
    assert side_by_side(work, [], name="test-threads") == []


def test_one_that_fails_keeps_none_of_the_others() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number < 2:
            raise ValueError(number)
        done.append(number)

    with pytest.raises(ValueError, match="0"):
        side_by_side(work, range(5), name="test-threads", most=1)
    assert done == [2, 3, 4]


def test_while_the_interpreter_ends_one_comes_after_the_other() -> None:
    script = """
import atexit, threading
from streamlab.stack.threads import side_by_side
def work(number):
    if number == 1:
        raise ValueError(number)
    print(number, threading.current_thread() is threading.main_thread())
def tidy():
    try:
        side_by_side(work, range(4), name="late")
    except ValueError as error:
        print("raised", error)
atexit.register(tidy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["0 True", "2 True", "3 True", "raised 1"]
    assert done.stderr == ""
