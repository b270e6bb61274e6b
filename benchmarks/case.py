"""What a benchmark is made of: cases, each with ours and its references, on servers of the benchmarks' own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from benchmarks.references import References
from benchmarks.servers import Servers

__all__ = ["Bench", "Benchmark", "Case", "Reference", "floor", "limit"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """What the setup of a case may use.

    Attributes
    ----------
    quick : bool
        Whether small work is enough: to see that it runs.
    servers : Servers
        Servers of the benchmarks' own.
    references : References
        The environment of references that do not fit into ours.
    shared : dict
        What cases of one run share, by a name that its maker chooses; after each benchmark it is emptied, and what has
        a `close` is closed.
    """

    quick: bool
    servers: Servers
    references: References
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference(Generic[T]):
    """What ours is compared with.

    Attributes
    ----------
    name : str
        As it stands in the table.
    measure : callable
        Measures once, on what the case's setup made; returns a figure in the case's unit.
    goal : float, optional
        What ours should at least reach against it, as a ratio.
    """

    name: str
    measure: Callable[[T], float]
    goal: float | None = None


def limit(value: float, text: str) -> Reference[Any]:
    """A fixed limit in place of another program: met where the limit divided by the figure is at least 1."""
    return Reference(f"limit: {text}", lambda _made: value, 1.0)


def floor(value: float, text: str) -> Reference[Any]:
    """A rate that should be reached, in place of another program: met where the figure divided by it is at least 1."""
    return Reference(f"at least: {text}", lambda _made: value, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[T]):
    """One measurement.

    Attributes
    ----------
    name : str
        Chosen on the command line as ``benchmark:name``.
    work : str
        What is done, in a few words.
    unit : str
        Such as ``rows/s``; with `smaller_is_better` such as ``s`` or ``MiB``.
    ours : callable
        Measures once, on what `setup` made; returns a figure. What it raises fails the case.
    references : tuple of Reference
        May be empty: then the figure is only shown.
    setup : callable
        A context manager that makes what the measurements use, and takes it away. Its time is not measured.
    rounds, quick_rounds : int
        How often each party is measured.
    """

    name: str
    work: str
    unit: str
    ours: Callable[[T], float]
    references: tuple[Reference[T], ...] = ()
    setup: Callable[[Bench], AbstractContextManager[T]] = lambda _bench: nullcontext()  # type: ignore[assignment, return-value]
    smaller_is_better: bool = False
    rounds: int = 5
    quick_rounds: int = 2


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A name and its cases."""

    name: str
    cases: tuple[Case[Any], ...]
