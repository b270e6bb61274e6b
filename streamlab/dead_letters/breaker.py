"""A circuit breaker for dead letters: many failures mean an outage and not many bad records."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from streamlab.errors import SettingsError

__all__ = ["BreakerPolicy", "CircuitBreaker"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When failures are too many.

    Parameters
    ----------
    threshold : float
        The share of failed records, above 0 and up to 1, that is too much itself already.
    window : int
        How many of the last records are looked at.
    minimum : int
        No verdict before that many records were seen, or the first bad one would be 100 %.

    Raises
    ------
    SettingsError
        A value is out of its range.
    """

    threshold: float = 0.1
    window: int = 1000
    minimum: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise SettingsError(f"A threshold of {self.threshold} is no share.", "Give one above 0 and up to 1.")
        if not 1 <= self.minimum <= self.window:
            raise SettingsError(
                f"A minimum of {self.minimum} does not fit a window of {self.window}.",
                "Give a minimum from 1 to the window.",
            )


class CircuitBreaker:
    """Watches the share of records that failed among the last ones.

    Count records while their transaction is still open, and ask `tripped` before it commits: a
    batch that trips the breaker is rolled back whole, nothing of it is parked, and the consumer
    stops. Records that are only parked behind another one count as passed: they say nothing about
    an outage. Once tripped, it stays so until `reset`. Any number of threads may share one.
    """

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self.policy = policy or BreakerPolicy()
        self._lock = threading.Lock()
        self._window: deque[bool] = deque(maxlen=self.policy.window)
        self._failed = 0
        self._tripped = False

    def __repr__(self) -> str:
        return f"<CircuitBreaker {'tripped' if self._tripped else 'closed'} at {self.share:.0%} failed>"

    def passed(self, count: int = 1) -> None:
        """Count records that were applied."""
        self._count(False, count)

    def failed(self, count: int = 1) -> None:
        """Count records that failed and were parked."""
        self._count(True, count)

    def _count(self, failed: bool, count: int) -> None:
        with self._lock:
            for _ in range(count):
                if len(self._window) == self.policy.window:
                    self._failed -= self._window[0]
                self._window.append(failed)
                self._failed += failed
                enough = len(self._window) >= self.policy.minimum
                if enough and self._failed >= self.policy.threshold * len(self._window):
                    self._tripped = True

    @property
    def share(self) -> float:
        """The share of failed records in the window; 0 where nothing was seen."""
        with self._lock:
            return self._failed / len(self._window) if self._window else 0.0

    @property
    def tripped(self) -> bool:
        """Whether the consumer has to stop."""
        return self._tripped

    def reset(self) -> None:
        """Start anew, after a person has looked."""
        with self._lock:
            self._window.clear()
            self._failed = 0
            self._tripped = False
