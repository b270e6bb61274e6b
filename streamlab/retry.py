"""Try again: classified, bounded in attempts and in time, with full jitter.

What may be tried again is decided by `streamlab.failures.classify`; how often and for how long by
a `RetryPolicy`; tenacity runs the loop. Three forms of the same thing::

    retry = Retry("cdc.connect", RetryPolicy(attempts=10, seconds=60), stop=stopping)

    connection = retry.call(psycopg.connect, dsn)

    @retry
    def connect(): ...

    for attempt in retry:
        with attempt:
            connection = psycopg.connect(dsn, connect_timeout=ceil(attempt.remaining))

A failure that is the record's fault, or that no repetition helps, leaves at once as it is. When
the bounds are reached, `RetriesExhausted` carries the last failure as its `__cause__`.

The wait before attempt n + 1 is drawn evenly from 0 to min(cap, base * 2**(n - 1)): "full
jitter", which empties a crowd of waiting clients fastest (Marc Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015). No attempt begins after the time is over, and no wait
reaches beyond it: with nothing but waiting left, the loop gives up at once. An attempt that runs
is not interrupted; `Attempt.remaining` is what it may pass on as its own limit.

Retry only what is safe to repeat: a COMMIT whose answer was lost may have happened. Such work
needs an identity by which its repetition is recognised.

A `Retry` holds no state of a run: threads may share it, and calls may nest.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import random
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NoReturn, ParamSpec, Self, TypeVar

from streamlab import errors, metrics
from streamlab.errors import SettingsError
from streamlab.failures import Failure, classify, error_code, must_abort

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from types import TracebackType

    import tenacity

__all__ = [
    "Attempt",
    "Attempted",
    "Failure",
    "Outcome",
    "RetriesExhausted",
    "Retry",
    "RetryPolicy",
    "classify",
    "error_code",
    "must_abort",
]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_DOUBLINGS = 60  # beyond any cap; keeps the power from overflowing


class RetriesExhausted(errors.RetriesExhausted):
    """The last of a bounded number of attempts failed; `__cause__` is that failure.

    Attributes
    ----------
    attempts : int
        How many attempts were made; 0 where the stop event was set before the first.
    elapsed : float
        Seconds from the first attempt until giving up.
    reason : {"attempts", "time", "stopped"}
        Which bound was reached.
    """

    attempts: int = 0
    elapsed: float = 0.0
    reason: Literal["attempts", "time", "stopped"] = "attempts"


class Outcome(Enum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    """It failed, and another follows after a wait."""
    REFUSED = "refused"
    """It failed in a way that no repetition helps."""
    EXHAUSTED = "exhausted"
    """It failed and was the last one allowed."""
    STOPPED = "stopped"
    """It failed, and the stop event is set."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, for how long, and how far apart.

    Parameters
    ----------
    attempts : int
        Most attempts, the first among them.
    seconds : float
        No attempt begins later than this after the first one.
    base, cap : float
        Seconds: the longest first wait, and the longest wait at all.
    unknown_attempts : int
        Most attempts that may fail in an unknown way; fewer, because a fault of the record looks
        like this too.

    Raises
    ------
    SettingsError
        A bound is missing: not positive, not finite, or a cap below the base.
    """

    attempts: int = 8
    seconds: float = 30.0
    base: float = 0.1
    cap: float = 5.0
    unknown_attempts: int = 3

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.unknown_attempts < 1:
            raise SettingsError(
                "A retry needs at least one attempt.", "Give attempts and unknown_attempts of 1 or more."
            )
        if not (0 < self.seconds < math.inf and 0 < self.base <= self.cap < math.inf):
            raise SettingsError(
                f"A retry with seconds={self.seconds}, base={self.base} and cap={self.cap} has no bound.",
                "Give positive, finite seconds and a cap that is not below the base.",
            )

    def longest_wait(self, number: int) -> float:
        """The upper end, in seconds, of the wait after attempt `number` (1, 2, ...)."""
        return min(self.cap, math.ldexp(self.base, min(number - 1, _DOUBLINGS)))


@dataclass(frozen=True, slots=True)
class Attempted:
    """What a callback is told after every attempt.

    `elapsed` is in seconds since the first attempt began; `wait` is the pause that follows, None
    where none does.
    """

    operation: str
    number: int
    outcome: Outcome
    elapsed: float
    error: BaseException | None = None
    failure: Failure | None = None
    wait: float | None = None


class Attempt:
    """One attempt of the iterator form: a context manager around the work."""

    def __init__(self, run: _Run, manager: tenacity.AttemptManager) -> None:
        self._run = run
        self._manager = manager
        self.number: int = manager.retry_state.attempt_number

    @property
    def remaining(self) -> float:
        """Seconds that are left of the policy's time, never negative."""
        return max(0.0, self._run.retry.policy.seconds - self._run.elapsed())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is not None and not isinstance(error, Exception):
            return False  # an interrupt or an exit is nobody's to swallow
        if error is None:
            # Noted here and not in the loop: after a `return` or `break` the loop never comes back.
            self._run.note(self.number, Outcome.SUCCEEDED)
        return self._manager.__exit__(kind, error, trace)


class _Run:
    """The state of one run of the loop, and the hooks that tenacity calls."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.started = retry.clock()
        self.unknown = 0
        self.failure: Failure | None = None
        self.last: BaseException | None = None
        self.made = 0
        self.reason: Literal["attempts", "time", "stopped"] = "attempts"

    def elapsed(self) -> float:
        return self.retry.clock() - self.started

    def note(self, number: int, outcome: Outcome, wait: float | None = None) -> None:
        operation = self.retry.operation
        metrics.RETRY_ATTEMPTS.labels(operation, outcome.value).inc()
        if self.retry.on_attempt is not None:
            error, failure = (None, None) if outcome is Outcome.SUCCEEDED else (self.last, self.failure)
            self.retry.on_attempt(Attempted(operation, number, outcome, self.elapsed(), error, failure, wait))

    def again(self, state: tenacity.RetryCallState) -> bool:
        self.made = state.attempt_number
        self.last = state.outcome.exception() if state.outcome is not None else None
        if self.last is None:
            return False
        self.failure = self.retry.classify(self.last)
        if self.failure in {Failure.DATA, Failure.FATAL}:
            self.note(self.made, Outcome.REFUSED)
            return False
        self.unknown += self.failure is Failure.UNKNOWN
        return True

    def wait(self, state: tenacity.RetryCallState) -> float:
        return self.retry.uniform(0.0, self.retry.policy.longest_wait(state.attempt_number))

    def stop(self, state: tenacity.RetryCallState) -> bool:
        policy = self.retry.policy
        if self.stopping():
            self.reason = "stopped"
        elif self.made >= policy.attempts or self.unknown >= policy.unknown_attempts:
            self.reason = "attempts"
        elif self.elapsed() + state.upcoming_sleep >= policy.seconds:
            self.reason = "time"
        else:
            return False
        return True

    def stopping(self) -> bool:
        return self.retry.stop is not None and self.retry.stop.is_set()

    def before_sleep(self, state: tenacity.RetryCallState) -> None:
        wait = state.upcoming_sleep
        log.info(
            "%s failed (%s), attempt %d of %d; the next follows in %.2f s",
            self.retry.operation,
            type(self.last).__name__,
            self.made,
            self.retry.policy.attempts,
            wait,
        )
        self.note(self.made, Outcome.RETRIED, wait)

    def pause(self, seconds: float) -> None:
        begun = self.retry.clock()
        if self.retry.sleep is not None:
            self.retry.sleep(seconds)
        elif self.retry.stop is not None:
            self.retry.stop.wait(seconds)
        else:
            time.sleep(seconds)
        metrics.RETRY_WAITING_SECONDS.labels(self.retry.operation).inc(max(0.0, self.retry.clock() - begun))
        if self.stopping():
            self.reason = "stopped"
            self.fail()
        if self.elapsed() >= self.retry.policy.seconds:  # the system woke us late
            self.reason = "time"
            self.fail()

    def give_up(self, state: tenacity.RetryCallState) -> NoReturn:
        self.note(self.made, Outcome.STOPPED if self.reason == "stopped" else Outcome.EXHAUSTED)
        self.fail()

    def fail(self) -> NoReturn:
        elapsed = self.elapsed()
        times = "once" if self.made == 1 else f"{self.made} times"
        problem = f"{self.retry.operation} failed {times} in {elapsed:.1f} s"
        if self.reason == "stopped":
            problem = f"{self.retry.operation} was stopped after {self.made} attempts"
        if self.last is not None:
            text = str(self.last).strip().partition("\n")[0].rstrip(".")
            problem += f"; the last error was {type(self.last).__name__}{': ' if text else ''}{text}"
        fix = {
            "attempts": "Remove its cause, or allow more attempts.",
            "time": "Remove its cause, or allow more seconds.",
            "stopped": "Start it again where the stop was not meant.",
        }[self.reason]
        exhausted = RetriesExhausted(f"{problem}.", fix)
        exhausted.attempts, exhausted.elapsed, exhausted.reason = self.made, elapsed, self.reason
        raise exhausted from self.last


class Retry:
    """Runs work again until it succeeds, fails for good, or reaches a bound.

    Parameters
    ----------
    operation : str
        What is tried, as ``room.verb``: a label of metrics and the subject of messages.
    policy : RetryPolicy, optional
        The bounds.
    stop : threading.Event, optional
        Setting it ends a wait at once; no attempt begins while it is set.
    classify : callable, optional
        Another judgement of failures than `streamlab.failures.classify`.
    on_attempt : callable, optional
        Called after every attempt, in the thread that made it. What it raises leaves the loop.
    clock, sleep, uniform : callable, optional
        Time and chance, for tests: seconds that only grow, a pause, an even draw from an interval.

    Raises
    ------
    RetriesExhausted
        From every form, when a bound is reached or the stop event is set.
    """

    def __init__(
        self,
        operation: str,
        policy: RetryPolicy | None = None,
        *,
        stop: threading.Event | None = None,
        classify: Callable[[object], Failure] = classify,
        on_attempt: Callable[[Attempted], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.operation = operation
        self.policy = policy or RetryPolicy()
        self.stop = stop
        self.classify = classify
        self.on_attempt = on_attempt
        self.clock = clock
        self.sleep = sleep
        self.uniform = uniform

    def __repr__(self) -> str:
        return f"Retry({self.operation!r}, {self.policy!r})"

    def _begin(self) -> tuple[_Run, tenacity.Retrying]:
        import tenacity  # it imports asyncio, and tornado where there is one: 50 ms that only users of retries pay

        run = _Run(self)
        if run.stopping():
            run.reason = "stopped"
            run.fail()
        return run, tenacity.Retrying(
            sleep=run.pause,
            stop=run.stop,
            wait=run.wait,
            retry=run.again,
            before_sleep=run.before_sleep,
            retry_error_callback=run.give_up,
        )

    def call(self, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `work` until it returns, and return what it returned."""
        run, engine = self._begin()
        result = engine(functools.partial(work, *args, **kwargs))
        run.note(run.made, Outcome.SUCCEEDED)
        return result

    def __call__(self, work: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each of its calls is a run of its own.

        Raises
        ------
        SettingsError
            The function is a generator or a coroutine: calling it does no work yet.
        """
        if inspect.isgeneratorfunction(work) or inspect.iscoroutinefunction(work):
            raise SettingsError(
                f"{work.__qualname__} is a generator or a coroutine, whose call cannot fail.",
                "Use the iterator form inside it.",
            )

        @functools.wraps(work)
        def retried(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.call(work, *args, **kwargs)

        return retried

    def __iter__(self) -> Iterator[Attempt]:
        """Yield attempts; do the work in ``with attempt:``. The loop ends after one that succeeds."""
        run, engine = self._begin()
        for manager in engine:
            yield Attempt(run, manager)
            if manager.retry_state.outcome is None:
                raise SettingsError(
                    f"An attempt of {self.operation} was not used.", "Put the work in a block: with attempt: ..."
                )
