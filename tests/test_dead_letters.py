"""Dead letters: the store in memory keeps the contract, the breaker trips when it should, metrics tell the depth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab import metrics
from streamlab.dead_letters import (
    BreakerPolicy,
    CircuitBreaker,
    DeadLetter,
    InMemoryDeadLetters,
    Lane,
    publish,
    replay,
    replay_delay,
)
from streamlab.errors import SettingsError
from tests.contracts.dead_letters import T0, DeadLettersContract, behind, dead_letters_machine, failed, record


class TestInMemory(DeadLettersContract):
    @contextmanager
    def stores(self) -> Iterator[InMemoryDeadLetters]:
        yield InMemoryDeadLetters()


TestInMemoryStateful = dead_letters_machine(InMemoryDeadLetters, examples=80).TestCase


def test_the_content_of_a_record_stays_out_of_its_repr() -> None:
    shown = repr(failed(record(1)))
    assert "payload" not in shown
    assert "trace" not in shown
    assert "no such product" not in shown


def test_the_servers_code_is_kept() -> None:
    error = psycopg.errors.UniqueViolation("duplicate key")
    letter = DeadLetter.failed(record(1), error, attempts=1, now=T0, next_at=T0)
    assert (letter.error_class, letter.sqlstate) == ("psycopg.errors.UniqueViolation", "23505")


def test_a_long_message_is_cut() -> None:
    letter = DeadLetter.failed(record(1), ValueError("x" * 10_000), attempts=1, now=T0, next_at=T0)
    assert len(letter.message) == 2000


def test_a_transaction_holds_up_other_threads() -> None:
    store = InMemoryDeadLetters()
    inside, answered = threading.Event(), threading.Event()
    answers: list[bool] = []

    def ask() -> None:
        inside.wait(5)
        answers.append(store.is_parked(Lane("g", "s", b"k")))
        answered.set()

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyError), store.transaction():
        store.park(failed(record(1)))
        inside.set()
        assert not answered.wait(0.1), "another thread saw what was not yet kept"
        raise KeyError
    thread.join(5)
    assert answers == [False]


def test_threads_park_and_replay_without_losing_a_letter() -> None:
    store = InMemoryDeadLetters()
    applied: list[int] = []
    stop = threading.Event()

    def park(start: int) -> None:
        for position in range(start, start + 200):
            one = record(position, b"%d" % (position % 5))
            store.park(behind(one) if store.is_parked(one.lane) else failed(one))

    def work() -> None:
        while not stop.is_set():
            replay(store, "g", lambda letter: applied.append(letter.id.position), force=True)

    replayer = threading.Thread(target=work)
    parkers = [threading.Thread(target=park, args=(start,)) for start in (0, 1000, 2000)]
    for thread in (replayer, *parkers):
        thread.start()
    for thread in parkers:
        thread.join(30)
    stop.set()
    replayer.join(30)
    replay(store, "g", lambda letter: applied.append(letter.id.position), force=True)
    assert sorted(applied) == [start + n for start in (0, 1000, 2000) for n in range(200)]


def test_replay_waits_longer_after_every_failure_up_to_an_hour() -> None:
    delays = [replay_delay(attempts) for attempts in range(1, 200)]
    assert delays[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
    assert delays == sorted(delays)
    assert delays[-1] == timedelta(hours=1)


@pytest.mark.parametrize("point", ["claimed", "handled", "committed"])
def test_replay_can_be_killed_at_each_of_its_steps(point: str, tmp_path: Path) -> None:
    # The effects are lines that reach the file before the kill: which ones stand there tells where it died.
    script = tmp_path / "replayer.py"
    script.write_text(
        "import os, sys\n"
        "from streamlab.dead_letters import InMemoryDeadLetters, replay\n"
        "from tests.contracts.dead_letters import failed, record\n"
        "store = InMemoryDeadLetters()\n"
        "for n in (1, 2, 3): store.park(failed(record(n)))\n"
        "replay(store, 'g', lambda letter: os.write(1, b'%d\\n' % letter.id.position), force=True)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        env={
            **os.environ,
            "STREAMLAB_FAILPOINTS": f"dead_letters.{point}=kill@2",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert result.stdout.split() == (["1"] if point == "claimed" else ["1", "2"])


def test_the_metrics_tell_depth_keys_and_age() -> None:
    store = InMemoryDeadLetters()
    group = "metrics-of-dead-letters"
    old = datetime.now(UTC) - timedelta(seconds=90)
    store.park(failed(record(1, group=group), now=old))
    store.park(behind(record(2, group=group)))
    publish(store, group)

    def value(name: str, **labels: str) -> float:
        found = metrics.REGISTRY.get_sample_value(name, {"group": group, **labels})
        assert found is not None, name
        return found

    assert value("streamlab_dead_letters", status="parked") == 1
    assert value("streamlab_dead_letters", status="behind") == 1
    assert value("streamlab_dead_letters", status="discarded") == 0
    assert value("streamlab_dead_letters_parked_keys") == 1
    first = value("streamlab_dead_letters_oldest_age_seconds")
    # T0, the second letter's time, lies before `old`
    assert first == pytest.approx((datetime.now(UTC) - min(old, T0)).total_seconds(), abs=5)
    assert value("streamlab_dead_letters_oldest_age_seconds") > first, "the age grows between two looks"
    for position in (1, 2):
        store.discard(record(position, group=group).id, T0)
    publish(store, group)
    assert value("streamlab_dead_letters_oldest_age_seconds") == 0
    assert value("streamlab_dead_letters", status="discarded") == 2


@given(outcomes=st.lists(st.booleans(), max_size=80), window=st.integers(1, 20), data=st.data())
def test_the_breaker_trips_exactly_when_the_share_is_reached(
    outcomes: list[bool], window: int, data: st.DataObject
) -> None:
    minimum = data.draw(st.integers(1, window))
    threshold = data.draw(st.sampled_from([0.1, 0.25, 0.5, 1.0]))
    breaker = CircuitBreaker(BreakerPolicy(threshold, window, minimum))
    tripped = False
    for number, bad in enumerate(outcomes, 1):
        (breaker.failed if bad else breaker.passed)()
        last = outcomes[max(0, number - window) : number]
        tripped = tripped or (len(last) >= minimum and sum(last) >= threshold * len(last))
        assert breaker.share == pytest.approx(sum(last) / len(last))
        assert breaker.tripped is tripped
    breaker.reset()
    assert not breaker.tripped
    assert breaker.share == 0


def test_an_outage_trips_the_breaker_and_a_few_bad_records_do_not() -> None:
    breaker = CircuitBreaker(BreakerPolicy(threshold=0.1, window=1000, minimum=100))
    for _ in range(50):
        breaker.passed(19)
        breaker.failed()
    assert not breaker.tripped
    assert breaker.share == pytest.approx(0.05)
    breaker.failed(100)
    assert breaker.tripped
    assert "tripped" in repr(breaker)


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"minimum": 0},
        {"window": 10, "minimum": 11},
        {"threshold": float("nan")},
    ],
)
def test_a_breaker_without_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        BreakerPolicy(**values)  # type: ignore[arg-type]
