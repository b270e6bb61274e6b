"""Every benchmark, and how one or several of their cases are chosen by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import postgres_cdc, stack, which_cdc, workload
from benchmarks.case import Benchmark, Case
from streamlab.errors import StreamlabError

__all__ = ["BENCHMARKS", "choose"]

BENCHMARKS: tuple[Benchmark, ...] = (
    stack.BENCHMARK,
    workload.BENCHMARK,
    postgres_cdc.BENCHMARK,
    which_cdc.BENCHMARK,
)
"""A new one is a module with a `BENCHMARK`, and stands here."""


def choose(
    names: Iterable[str], benchmarks: Sequence[Benchmark] = BENCHMARKS
) -> list[tuple[Benchmark, list[Case[Any]]]]:
    """The cases that names stand for: ``stack`` is all of a benchmark, ``stack:import`` one case; no name is all.

    They run in the order of the benchmarks, each once.

    Raises
    ------
    StreamlabError
        Nothing is called so; the nearest name is in the message.
    """
    wanted = set(names)
    known = [name for each in benchmarks for name in (each.name, *(f"{each.name}:{case.name}" for case in each.cases))]
    for name in sorted(wanted):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
            raise StreamlabError(f"There is no benchmark called {name}.", hint)
    chosen = []
    for each in benchmarks:
        whole = not wanted or each.name in wanted
        cases = [case for case in each.cases if whole or f"{each.name}:{case.name}" in wanted]
        if cases:
            chosen.append((each, cases))
    return chosen
