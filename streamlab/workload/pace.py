"""Keeping a rate: the virtual scheduling algorithm (GCRA, ITU-T I.371), without a clock of its own.

The pacer holds the instant at which the next work is due. Work of n units moves that instant by
n / rate. Who is late may catch up, but only what was missed in the last `catch_up` seconds: a server
that was away for a minute is not met with a minute's work at once.
"""

from __future__ import annotations

from math import inf, isfinite

from streamlab.errors import StreamlabError

__all__ = ["Pacer"]


class Pacer:
    """Says how long to wait before the next work. Pure; used by one thread.

    `now` is seconds on any clock that only grows. The first work may begin at once.

    Parameters
    ----------
    rate : float
        Units a second, above zero.
    catch_up : float
        Seconds of missed work that may be done late, without a pause.

    Raises
    ------
    StreamlabError
        The rate is not above zero.
    """

    def __init__(self, rate: float, catch_up: float = 1.0) -> None:
        if not (isfinite(rate) and rate > 0):
            raise StreamlabError(f"{rate} is no rate.", "Give a number above zero, or None for as fast as it goes.")
        self.rate = rate
        self.catch_up = catch_up
        self._due = -inf

    def wait(self, now: float) -> float:
        """Seconds until the next work may begin; 0 where it may begin now."""
        return max(0.0, self._due - now)

    def did(self, units: float, now: float) -> None:
        """Say that work of so many units was begun at `now`."""
        oldest = now if self._due == -inf else now - self.catch_up
        self._due = max(self._due, oldest) + units / self.rate
