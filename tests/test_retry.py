"""Retries: never more attempts than allowed, never beyond the time, never for what no repetition helps."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlab import errors, metrics
from streamlab.errors import SettingsError
from streamlab.retry import Attempted, Failure, Outcome, RetriesExhausted, Retry, RetryPolicy, classify


@dataclass
class World:
    """Time and chance that a test decides: nothing sleeps, and every draw is known."""

    share: float = 1.0
    """Where in its interval each wait is drawn."""
    late: float = 0.0
    """How much longer than asked a pause takes."""
    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)
    draws: list[tuple[float, float]] = field(default_factory=list)
    seen: list[Attempted] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds + self.late

    def uniform(self, low: float, high: float) -> float:
        self.draws.append((low, high))
        return low + self.share * (high - low)

    def retry(
        self,
        policy: RetryPolicy | None = None,
        *,
        operation: str = "test.work",
        stop: threading.Event | None = None,
        classify: Callable[[object], Failure] = classify,
    ) -> Retry:
        return Retry(
            operation,
            policy,
            stop=stop,
            classify=classify,
            on_attempt=self.seen.append,
            clock=self.clock,
            sleep=self.sleep,
            uniform=self.uniform,
        )


@pytest.fixture
def world() -> World:
    return World()


def flaky(failures: int, error: Exception | None = None) -> Callable[[], str]:
    """Work that fails a number of times, then succeeds."""
    left = [failures]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise error or ConnectionResetError("gone")
        return "done"

    return work


def call(retry: Retry, work: Callable[[], str]) -> str:
    return retry.call(work)


def decorate(retry: Retry, work: Callable[[], str]) -> str:
    return retry(work)()


def iterate(retry: Retry, work: Callable[[], str]) -> str:
    for attempt in retry:
        with attempt:
            return work()
    raise AssertionError("the loop ended without a result and without an exception")


FORMS = pytest.mark.parametrize("run", [call, decorate, iterate])
Form = Callable[[Retry, Callable[[], str]], str]


@FORMS
def test_a_success_is_tried_once(run: Form, world: World) -> None:
    assert run(world.retry(), flaky(0)) == "done"
    assert world.pauses == []
    assert [one.outcome for one in world.seen] == [Outcome.SUCCEEDED]


@FORMS
def test_transient_failures_are_tried_again_until_one_attempt_succeeds(run: Form, world: World) -> None:
    assert run(world.retry(RetryPolicy(attempts=5, base=1, cap=4)), flaky(4)) == "done"
    assert world.pauses == [1, 2, 4, 4]
    assert [one.number for one in world.seen] == [1, 2, 3, 4, 5]
    assert [one.outcome for one in world.seen] == [Outcome.RETRIED] * 4 + [Outcome.SUCCEEDED]
    assert [one.wait for one in world.seen] == [1, 2, 4, 4, None]
    assert [one.elapsed for one in world.seen] == [0, 1, 3, 7, 11]
    first, last = world.seen[0], world.seen[-1]
    assert isinstance(first.error, ConnectionResetError)
    assert first.failure is Failure.TRANSIENT
    assert (last.error, last.failure) == (None, None)


@FORMS
def test_the_last_failure_is_the_cause(run: Form, world: World) -> None:
    error = ConnectionResetError("gone\nsecond line")
    with pytest.raises(RetriesExhausted) as caught:
        run(world.retry(RetryPolicy(attempts=3, base=1, cap=1)), flaky(9, error))
    exhausted = caught.value
    assert exhausted.__cause__ is error
    assert (exhausted.attempts, exhausted.elapsed, exhausted.reason) == (3, 2.0, "attempts")
    assert str(exhausted) == (
        "test.work failed 3 times in 2.0 s; the last error was ConnectionResetError: gone. "
        "Remove its cause, or allow more attempts."
    )
    assert isinstance(exhausted, errors.RetriesExhausted), "so that it is caught by its place in the tree of errors"
    assert world.seen[-1].outcome is Outcome.EXHAUSTED
    assert world.pauses == [1, 1], "there is no wait after the last attempt"


@FORMS
@pytest.mark.parametrize("failure", [Failure.DATA, Failure.FATAL])
def test_data_and_fatal_failures_are_never_tried_again(run: Form, failure: Failure, world: World) -> None:
    error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        run(world.retry(classify=lambda _: failure), flaky(1, error))
    assert caught.value is error, "it leaves as it is"
    assert [one.outcome for one in world.seen] == [Outcome.REFUSED]
    assert world.pauses == []


@FORMS
def test_a_transient_failure_does_not_hide_a_fatal_one_that_follows(run: Form, world: World) -> None:
    steps: Iterator[Exception] = iter([ConnectionResetError("gone"), PermissionError("not yours")])

    def work() -> str:
        raise next(steps)

    with pytest.raises(PermissionError):
        run(world.retry(), work)
    assert [one.outcome for one in world.seen] == [Outcome.RETRIED, Outcome.REFUSED]


@FORMS
def test_unknown_failures_get_fewer_attempts(run: Form, world: World) -> None:
    policy = RetryPolicy(attempts=10, unknown_attempts=2, seconds=1000)
    with pytest.raises(RetriesExhausted) as caught:
        run(world.retry(policy), flaky(99, KeyError("x")))
    assert caught.value.attempts == 2


def test_only_unknown_failures_count_against_their_bound(world: World) -> None:
    steps = iter([ConnectionResetError(), ConnectionResetError(), KeyError(), ConnectionResetError(), KeyError()])

    def work() -> str:
        raise next(steps)

    with pytest.raises(RetriesExhausted) as caught:
        world.retry(RetryPolicy(attempts=10, unknown_attempts=2, seconds=1000)).call(work)
    assert caught.value.attempts == 5


@FORMS
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_leaves_at_once(run: Form, interrupt: type[BaseException], world: World) -> None:
    def work() -> str:
        raise interrupt

    with pytest.raises(interrupt):
        run(world.retry(), work)
    assert world.pauses == []


@FORMS
def test_no_wait_reaches_beyond_the_time(run: Form, world: World) -> None:
    with pytest.raises(RetriesExhausted) as caught:
        run(world.retry(RetryPolicy(attempts=100, seconds=10, base=4, cap=4)), flaky(999))
    assert world.pauses == [4, 4], "a third wait would end at 12 s"
    assert (caught.value.reason, caught.value.elapsed) == ("time", 8)
    assert caught.value.fix.endswith("allow more seconds.")


def test_the_time_of_attempts_counts_too(world: World) -> None:
    def work() -> str:
        world.now += 6
        raise ConnectionResetError

    with pytest.raises(RetriesExhausted) as caught:
        world.retry(RetryPolicy(attempts=100, seconds=10, base=1, cap=1)).call(work)
    assert caught.value.attempts == 2
    assert caught.value.reason == "time"


def test_an_attempt_does_not_begin_when_the_pause_took_too_long(world: World) -> None:
    world.late = 20
    calls: list[float] = []

    def work() -> str:
        calls.append(world.now)
        raise ConnectionResetError

    with pytest.raises(RetriesExhausted) as caught:
        world.retry(RetryPolicy(seconds=10, base=1, cap=1)).call(work)
    assert len(calls) == caught.value.attempts == 1
    assert caught.value.reason == "time"


def test_an_attempt_knows_its_number_and_what_is_left_of_the_time(world: World) -> None:
    known = []
    for attempt in world.retry(RetryPolicy(seconds=10, base=3, cap=3)):
        with attempt:
            known.append((attempt.number, attempt.remaining))
            world.now += 2
            known.append((attempt.number, attempt.remaining))
            if attempt.number == 1:
                raise ConnectionResetError
            world.now += 100
            assert attempt.remaining == 0
    assert known == [(1, 10), (1, 8), (2, 5), (2, 3)]


def test_the_loop_ends_after_a_success(world: World) -> None:
    numbers = []
    for attempt in world.retry():
        with attempt:
            numbers.append(attempt.number)
    assert numbers == [1]


def test_an_attempt_that_is_not_used_is_refused_instead_of_looping_for_ever(world: World) -> None:
    with pytest.raises(SettingsError, match="with attempt"):
        for _ in world.retry():
            pass


outcomes = st.sampled_from([None, *Failure])


class Told(Exception):
    """An exception that carries its classification."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def told(error: object) -> Failure:
    assert isinstance(error, Told)
    return error.failure


@settings(max_examples=300, deadline=None)
@given(
    script=st.lists(st.tuples(outcomes, st.floats(0, 3)), min_size=1, max_size=30),
    attempts=st.integers(1, 12),
    unknown_attempts=st.integers(1, 12),
    seconds=st.floats(0.01, 60),
    base=st.floats(0.001, 3),
    stretch=st.floats(1, 50),
    share=st.floats(0, 1),
    late=st.floats(0, 0.5),
    run=st.sampled_from([call, decorate, iterate]),
)
def test_the_bounds_hold_whatever_happens(
    script: list[tuple[Failure | None, float]],
    attempts: int,
    unknown_attempts: int,
    seconds: float,
    base: float,
    stretch: float,
    share: float,
    late: float,
    run: Form,
) -> None:
    world = World(share=share, late=late)
    policy = RetryPolicy(attempts, seconds, base, base * stretch, unknown_attempts)
    begun = world.now
    made: list[tuple[float, Failure | None]] = []
    longest = 0.0

    def work() -> str:
        nonlocal longest
        failure, duration = script[min(len(made), len(script) - 1)]
        made.append((world.now - begun, failure))
        world.now += duration
        longest = duration
        if failure is not None:
            raise Told(failure)
        return "done"

    result: object
    try:
        result = run(world.retry(policy, classify=told), work)
    except (Told, RetriesExhausted) as error:
        result = error
    elapsed = world.now - begun
    kinds = [failure for _, failure in made]

    assert 1 <= len(made) <= attempts
    assert all(start == 0 or start < seconds for start, _ in made), "an attempt began after the time was over"
    assert elapsed <= max(seconds, 0) + longest + late + 1e-6, "only the last attempt may reach beyond the time"
    assert kinds.count(Failure.UNKNOWN) <= unknown_attempts
    assert all(kind in {Failure.TRANSIENT, Failure.UNKNOWN} for kind in kinds[:-1]), "tried again what never helps"
    for number, (wait, (low, high)) in enumerate(zip(world.pauses, world.draws, strict=False), 1):
        assert low == 0
        assert high == pytest.approx(min(policy.cap, base * 2 ** (number - 1)))
        assert 0 <= wait <= high
    assert [one.number for one in world.seen] == list(range(1, len(made) + 1)), "one call for every attempt"

    last = kinds[-1]
    if last is None:
        assert result == "done"
    elif last in {Failure.DATA, Failure.FATAL}:
        assert isinstance(result, Told)
    else:
        assert isinstance(result, RetriesExhausted)
        assert isinstance(result.__cause__, Told)
        assert result.attempts == len(made)
        assert result.elapsed == pytest.approx(elapsed)
        full = len(made) == attempts or kinds.count(Failure.UNKNOWN) == unknown_attempts
        assert (result.reason == "attempts") is full or result.reason == "time"


@given(
    base=st.floats(1e-6, 1e6), stretch=st.floats(1, 1e6), number=st.integers(1, 10_000), attempts=st.integers(1, 10_000)
)
def test_the_longest_wait_doubles_up_to_the_cap(base: float, stretch: float, number: int, attempts: int) -> None:
    policy = RetryPolicy(attempts=attempts, base=base, cap=base * stretch)
    longest = policy.longest_wait(number)
    assert longest <= policy.cap
    assert policy.longest_wait(1) == base
    assert policy.longest_wait(number + 1) == pytest.approx(min(policy.cap, 2 * longest))


def test_waits_are_drawn_from_the_whole_interval() -> None:
    """Full jitter, with the real source of chance: the draws spread over the interval from 0 to its end."""
    pauses: list[float] = []
    policy = RetryPolicy(attempts=2, base=1, cap=1)
    for _ in range(400):
        with pytest.raises(RetriesExhausted):
            Retry("test.jitter", policy, sleep=pauses.append).call(flaky(9))
    assert all(0 <= pause <= 1 for pause in pauses)
    for part in range(10):
        inside = sum(part / 10 <= pause <= (part + 1) / 10 for pause in pauses)
        assert 10 <= inside <= 90, f"{inside} of 400 between {part / 10} and {(part + 1) / 10}"


@pytest.mark.parametrize(
    "values",
    [
        {"attempts": 0},
        {"unknown_attempts": 0},
        {"seconds": 0},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"base": 0},
        {"base": 2, "cap": 1},
        {"cap": float("inf")},
    ],
)
def test_a_policy_without_bounds_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        RetryPolicy(**values)  # type: ignore[arg-type]


@FORMS
def test_nothing_is_tried_once_the_stop_event_is_set(run: Form, world: World) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(RetriesExhausted) as caught:
        run(world.retry(stop=stop), flaky(0))
    assert (caught.value.attempts, caught.value.reason, caught.value.__cause__) == (0, "stopped", None)
    assert world.seen == []
    assert "stopped after 0 attempts" in str(caught.value)


@FORMS
def test_a_stop_during_an_attempt_makes_it_the_last(run: Form, world: World) -> None:
    stop = threading.Event()

    def work() -> str:
        stop.set()
        raise ConnectionResetError

    with pytest.raises(RetriesExhausted) as caught:
        run(world.retry(stop=stop), work)
    assert (caught.value.attempts, caught.value.reason) == (1, "stopped")
    assert [one.outcome for one in world.seen] == [Outcome.STOPPED]
    assert classify(caught.value) is Failure.FATAL, "an outer retry must not undo the stop"


def test_a_stop_during_an_attempt_that_succeeds_changes_nothing(world: World) -> None:
    stop = threading.Event()

    def work() -> str:
        stop.set()
        return "done"

    assert world.retry(stop=stop).call(work) == "done"


@FORMS
def test_a_stop_ends_a_wait_at_once(run: Form) -> None:
    """In real time: a wait of up to ten minutes is left within moments of the event."""
    stop = threading.Event()
    waiting = threading.Event()
    ended: list[tuple[float, BaseException]] = []

    def announce(attempted: Attempted) -> None:
        if attempted.outcome is Outcome.RETRIED:
            waiting.set()

    retry = Retry(
        "test.stop",
        RetryPolicy(seconds=3600, base=600, cap=600),
        stop=stop,
        on_attempt=announce,
        uniform=lambda _, high: high,
    )

    def work() -> None:
        try:
            run(retry, flaky(9))
        except RetriesExhausted as error:
            ended.append((time.monotonic(), error))

    thread = threading.Thread(target=work)
    thread.start()
    assert waiting.wait(30)
    stopped = time.monotonic()
    stop.set()
    thread.join(30)
    ((at, error),) = ended
    assert at - stopped < 2
    assert isinstance(error, RetriesExhausted)
    assert (error.reason, error.attempts) == ("stopped", 1)
    assert isinstance(error.__cause__, ConnectionResetError)


def test_without_stop_event_and_without_a_tests_clock_it_really_waits() -> None:
    begun = time.monotonic()
    retry = Retry("test.wait", RetryPolicy(base=0.02, cap=0.02), uniform=lambda _, high: high)
    assert retry.call(flaky(3)) == "done"
    assert 0.06 <= time.monotonic() - begun < 5


def test_a_decorated_function_keeps_its_name_and_its_arguments(world: World) -> None:
    failing = [True]

    @world.retry()
    def add(first: int, *, second: int) -> int:
        """Add."""
        if failing.pop() if failing else False:
            raise ConnectionResetError
        return first + second

    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert add(1, second=2) == 3
    assert [one.number for one in world.seen] == [1, 2]


def test_arguments_of_any_name_reach_the_work(world: World) -> None:
    def work(**named: int) -> dict[str, int]:
        return named

    named = {"fn": 1, "work": 2, "self": 3, "args": 4}
    assert world.retry().call(work, **named) == named


def test_generators_and_coroutines_are_refused(world: World) -> None:
    def produce() -> Iterator[int]:
        yield 1

    async def wait() -> None: ...

    for work in (produce, wait):
        with pytest.raises(SettingsError, match="iterator form"):
            world.retry()(work)


def test_what_the_callback_raises_leaves_the_loop() -> None:
    def stop_here(_: Attempted) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        Retry("test.callback", on_attempt=stop_here).call(flaky(1))


def test_calls_nest_and_threads_share() -> None:
    """One object: a run within a run, and eight threads at once, each with its own count."""
    world = World(share=0)
    retry = Retry("test.share", RetryPolicy(attempts=4, seconds=1e6), sleep=lambda _: None, uniform=world.uniform)
    assert retry.call(lambda: retry.call(flaky(3)) + retry.call(flaky(3))) == "donedone"
    results: list[object] = []

    def work() -> None:
        for failures in (0, 1, 2, 3, 4):
            try:
                results.append(retry.call(flaky(failures)))
            except RetriesExhausted as error:
                results.append(error.attempts)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results.count("done") == 32
    assert results.count(4) == 8


def test_exhausted_retries_within_retries_are_judged_by_their_cause(world: World) -> None:
    inner = world.retry(RetryPolicy(attempts=2, seconds=1000))
    outer = world.retry(RetryPolicy(attempts=3, seconds=1000))
    with pytest.raises(RetriesExhausted) as caught:
        outer.call(lambda: inner.call(flaky(99)))
    assert caught.value.attempts == 3
    assert isinstance(caught.value.__cause__, RetriesExhausted)


def test_attempts_and_waiting_are_counted(world: World) -> None:
    def value(name: str, **labels: str) -> float:
        return metrics.REGISTRY.get_sample_value(name, {"operation": "test.counted", **labels}) or 0.0

    def attempts(outcome: str) -> float:
        return value("streamlab_retry_attempts_total", outcome=outcome)

    retry = world.retry(RetryPolicy(attempts=3, base=1, cap=2, seconds=1000), operation="test.counted")
    retry.call(flaky(2))
    with pytest.raises(RetriesExhausted):
        retry.call(flaky(9))
    with pytest.raises(PermissionError):
        retry.call(flaky(1, PermissionError()))
    iterate(retry, flaky(0))
    counted = {outcome.value: attempts(outcome.value) for outcome in Outcome}
    assert counted == {"succeeded": 2, "retried": 4, "refused": 1, "exhausted": 1, "stopped": 0}
    assert value("streamlab_retry_waiting_seconds_total") == 6


def test_a_retry_shows_what_it_does(world: World) -> None:
    assert repr(world.retry()) == (
        "Retry('test.work', RetryPolicy(attempts=8, seconds=30.0, base=0.1, cap=5.0, unknown_attempts=3))"
    )


def test_importing_it_imports_neither_tenacity_nor_a_driver() -> None:
    script = (
        "import sys, streamlab.retry\n"
        "heavy = 'tenacity asyncio tornado psycopg pymysql confluent_kafka httpx prometheus_client'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
