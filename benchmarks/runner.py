"""Runs cases: ours and the references interleaved, round by round. A case that fails is a row too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from benchmarks.case import Bench, Benchmark, Case
from benchmarks.measure import Row, order
from streamlab.errors import StreamlabError

__all__ = ["Listener", "run", "run_case"]

log = logging.getLogger(__name__)


@runtime_checkable
class Closing(Protocol):
    """What cases share and has to be undone."""

    def close(self) -> None:
        """Undo it. Called once, after the last case of a benchmark."""


class Listener(Protocol):
    """Told how far a run is."""

    def case(self, name: str, rounds: int) -> None:
        """A case begins."""

    def round(self, number: int) -> None:
        """A round of it is done; 1 is the first."""


def run(chosen: Sequence[tuple[Benchmark, Sequence[Case[Any]]]], bench: Bench, listener: Listener) -> Iterator[Row]:
    """Run cases one after the other; a failure does not keep the next from running.

    Yields
    ------
    Row
        One for each case and reference, as soon as it is known.
    """
    for benchmark, cases in chosen:
        for case in cases:
            yield from run_case(benchmark.name, case, bench, listener)
        for made in bench.shared.values():
            if isinstance(made, Closing):
                made.close()
        bench.shared.clear()


def run_case(benchmark: str, case: Case[Any], bench: Bench, listener: Listener) -> list[Row]:
    """Measure one case; one row for each reference, or a single one where there is none."""
    rounds = case.quick_rounds if bench.quick else case.rounds
    listener.case(f"{benchmark}:{case.name}", rounds)
    parties = (case.ours, *(reference.measure for reference in case.references))
    figures: list[list[float]] = [[] for _ in parties]
    error = ""
    try:
        with case.setup(bench) as made:
            for number, turn in enumerate(order(len(parties), rounds), 1):
                for party in turn:
                    figures[party].append(_positive(parties[party](made)))
                listener.round(number)
    except Exception as failure:
        # Whatever it was, the other cases run, and the exit code tells. What has no sentence of ours shows its trace.
        level = logging.DEBUG if isinstance(failure, StreamlabError) else logging.WARNING
        log.log(level, "%s:%s failed", benchmark, case.name, exc_info=True)
        error = str(failure).strip() or type(failure).__name__
        figures = [[] for _ in parties]
    return [
        Row(
            benchmark=benchmark,
            case=case.name,
            work=case.work,
            unit=case.unit,
            smaller_is_better=case.smaller_is_better,
            figures=tuple(figures[0]),
            reference=reference.name if reference else None,
            reference_figures=tuple(figures[place]) if reference else (),
            goal=reference.goal if reference else None,
            error=error,
        )
        for place, reference in enumerate(case.references or (None,), 1)
    ]


def _positive(figure: float) -> float:
    if figure <= 0:
        raise ValueError(f"measured {figure}, which is no figure to compare")
    return figure


def cases_of(chosen: Iterable[tuple[Benchmark, Sequence[Case[Any]]]]) -> int:
    """How many cases a choice has."""
    return sum(len(cases) for _, cases in chosen)
