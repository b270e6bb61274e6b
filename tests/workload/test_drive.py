"""Transactions in a thread: its end, its errors, its bounds."""

from __future__ import annotations

import threading

import pytest

from streamlab.errors import StreamlabError
from streamlab.retry import Retry, RetryPolicy
from streamlab.workload.drive import Running, Throughput, drive


def test_a_run_ends_with_the_transaction_that_reaches_its_bound() -> None:
    assert drive(lambda stop: 3, transactions=4, rows=None, rate=None, per="rows").rows == 12
    assert drive(lambda stop: 3, transactions=None, rows=10, rate=None, per="rows").transactions == 4
    with pytest.raises(StreamlabError, match="without an end"):
        drive(lambda stop: 3, transactions=None, rows=None, rate=None, per="rows")


def test_leaving_the_block_ends_the_thread() -> None:
    reached = threading.Event()

    def step(stop: threading.Event) -> int:
        reached.set()
        return 1

    with Running(step, rate=None, per="rows") as running:
        assert reached.wait(10)
        assert running.alive
    assert not running.alive
    assert running.throughput().transactions >= 1


def test_a_slow_rate_does_not_hold_the_end_up() -> None:
    reached = threading.Event()

    def step(stop: threading.Event) -> int:
        reached.set()
        return 1

    with Running(step, rate=0.0001, per="transactions") as running:
        assert reached.wait(10)
    assert running.throughput().transactions == 1


def test_an_error_of_the_thread_is_handed_on_once() -> None:
    def step(stop: threading.Event) -> int:
        raise ZeroDivisionError

    running = Running(step, rate=None, per="rows")
    with pytest.raises(ZeroDivisionError), running:
        pass
    running.stop()


def test_an_error_of_the_block_wins_and_names_the_other() -> None:
    def step(stop: threading.Event) -> int:
        raise ZeroDivisionError("in the thread")

    with pytest.raises(KeyError) as caught, Running(step, rate=None, per="rows"):
        raise KeyError("in the block")
    assert any("in the thread" in note for note in caught.value.__notes__)


def test_a_stop_between_two_attempts_is_no_error() -> None:
    tried = threading.Event()

    def lost() -> int:
        tried.set()
        raise ConnectionResetError

    def step(stop: threading.Event) -> int:
        return Retry("test.step", RetryPolicy(attempts=100, seconds=60, base=5, cap=5), stop=stop).call(lost)

    with Running(step, rate=None, per="rows") as running:
        assert tried.wait(10)
    assert running.throughput() == Throughput(0, 0, running.throughput().seconds)


def test_a_rate_counts_rows_or_transactions_and_nothing_else() -> None:
    with pytest.raises(StreamlabError, match="counted in cakes"):
        Running(lambda stop: 1, rate=1.0, per="cakes")  # type: ignore[arg-type]
