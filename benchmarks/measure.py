"""The arithmetic of a benchmark, without I/O: who is measured when, and what the figures say.

Noise of a machine (another program, a clock that is throttled) comes and goes over seconds. Ours and the references
are therefore measured side by side in every round, and change places from round to round: what hits one hits the other,
and going first is nobody's advantage. A ratio is taken within a round; the median over the rounds is
the result, and minimum and maximum show how far it can be trusted.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Row", "order", "ratios"]


def order(parties: int, rounds: int) -> Iterator[tuple[int, ...]]:
    """Who is measured in which order: one tuple of party numbers for each round, every second one reversed.

    Examples
    --------
    >>> list(order(2, 3))
    [(0, 1), (1, 0), (0, 1)]
    """
    forward = tuple(range(parties))
    for number in range(rounds):
        yield forward[::-1] if number % 2 else forward


def ratios(ours: Sequence[float], reference: Sequence[float], *, smaller_is_better: bool = False) -> tuple[float, ...]:
    """Ours against a reference, round by round; above 1 means that ours is the better one.

    Raises
    ------
    ValueError
        The two were not measured equally often, or a figure is not above zero.
    """
    if min(*ours, *reference) <= 0:
        raise ValueError("a figure of a measurement is not above zero")
    pairs = zip(ours, reference, strict=True)
    return tuple(theirs / own if smaller_is_better else own / theirs for own, theirs in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case against one reference: a line of the table, an entry of the JSON.

    Attributes
    ----------
    benchmark, case, work : str
        Which one, and what it does, in words.
    unit : str
        Unit of all figures: work per second, or a time or a size, of which less is better.
    reference : str or None
        What ours is compared with; None where a figure is only shown.
    reference_figures, figures : tuple of float
        Theirs and ours, one for each round.
    goal : float or None
        What the median of the ratios should at least be.
    error : str
        Why there are no figures; empty where there are.
    """

    benchmark: str
    case: str
    work: str
    unit: str
    reference: str | None = None
    reference_figures: tuple[float, ...] = ()
    figures: tuple[float, ...] = ()
    smaller_is_better: bool = False
    goal: float | None = None
    error: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each round; empty where there is nothing to compare."""
        if self.reference is None or not self.figures:
            return ()
        return ratios(self.figures, self.reference_figures, smaller_is_better=self.smaller_is_better)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios: larger is better."""
        return _median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal. A case that failed meets none."""
        if self.goal is None:
            return None
        return self.ratio is not None and self.ratio >= self.goal

    @property
    def ours(self) -> float | None:
        """The median of our figures."""
        return _median(self.figures)

    @property
    def theirs(self) -> float | None:
        """The median of the reference's figures."""
        return _median(self.reference_figures)

    def as_json(self) -> dict[str, str | float | bool | None]:
        """The entry of the JSON; ``error`` is there only where the case failed."""
        entry: dict[str, str | float | bool | None] = {
            "benchmark": self.benchmark,
            "case": self.case,
            "reference": self.reference,
            "reference_rate": self.theirs,
            "ours_rate": self.ours,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
            "unit": self.unit,
        }
        return {**entry, "error": self.error} if self.error else entry


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
