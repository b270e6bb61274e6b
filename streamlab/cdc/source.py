"""What every reader of changes keeps, whichever log it reads: `ChangeSource`.

A source hands out transactions in commit order, and forgets nothing until it is told to: `acknowledge` says that the
effect of everything up to a position is durable. What was not acknowledged comes again after a crash, keyed alike.

The contract is tested on every source by one suite (tests/contracts/change_source.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from types import TracebackType
from typing import Any, Final, Protocol, Self

from streamlab.cdc import arguments
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.position import Position
from streamlab.cdc.transaction import Transaction
from streamlab.errors import SettingsError

__all__ = ["Batch", "ChangeSource", "Lag", "LateBatch", "Run", "enough"]

_CHANGES: Final = attrgetter("changes")


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a reader is behind. Both are None where nothing is known yet.

    Attributes
    ----------
    size : int or None
        Bytes of log that were written and not acknowledged (records, for Kafka).
    seconds : float or None
        Time between the commit of the last transaction that was received and its arrival.
    """

    size: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Whole transactions, as many as fit: never a part of one. Two are equal if their transactions are.

    Attributes
    ----------
    transactions : tuple of Transaction
        At least one, in commit order.
    """

    transactions: tuple[Transaction, ...]

    @property
    def end_position(self) -> Position:
        """What an acknowledgement of the batch says."""
        return self.transactions[-1].end_position

    def __iter__(self) -> Iterator[ChangeEvent]:
        # Where each transaction is one change, a generator would take as long as all the rest of reading it.
        return chain.from_iterable(map(_CHANGES, self.transactions))

    def __len__(self) -> int:
        return sum(map(len, map(_CHANGES, self.transactions)))

    def __eq__(self, other: object) -> bool:
        return self.transactions == other.transactions if isinstance(other, Batch) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.transactions)


class Run(Protocol):
    """Transactions that follow one another, by their changes."""

    @property
    def end_position(self) -> Position:
        """Where the last of them ends."""
        ...

    def transactions(self) -> Iterable[Transaction]:
        """The transactions, made now."""
        ...

    def __iter__(self) -> Iterator[ChangeEvent]: ...

    def __len__(self) -> int: ...


class LateBatch(Batch):
    """A batch whose transactions are made when somebody asks for them: most ask for the changes alone.

    Parameters
    ----------
    parts : sequence of Transaction or Run
        At least one, in commit order.
    """

    __slots__ = ("_made", "_parts")
    _made: tuple[Transaction, ...] | None
    _parts: Sequence[Transaction | Run]

    def __init__(self, parts: Sequence[Transaction | Run]) -> None:
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_made", None)

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """At least one, in commit order; the same ones each time."""
        made = self._made
        if made is None:
            made = tuple(
                chain.from_iterable(
                    (each,) if isinstance(each, Transaction) else each.transactions() for each in self._parts
                )
            )
            object.__setattr__(self, "_made", made)
        return made

    @property
    def end_position(self) -> Position:
        """What an acknowledgement of the batch says."""
        return self._parts[-1].end_position

    def __iter__(self) -> Iterator[ChangeEvent]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (self.transactions,)


class ChangeSource(Protocol):
    """A reader of changes. One thread iterates; `acknowledge`, `lag` and `stop` may be called from any.

    Delivery: at least once, in commit order. A source that is opened again goes on after the last acknowledgement.
    """

    @property
    def name(self) -> str:
        """The name of the source: for PostgreSQL the slot's."""
        ...

    @property
    def received(self) -> Position | None:
        """End of the last transaction that was handed out."""
        ...

    @property
    def acknowledged(self) -> Position | None:
        """Up to where the source may forget."""
        ...

    def written(self) -> Position:
        """Where the source's log ends now. Asks the source."""
        ...

    def transactions(self, *, until: int | Position | None = None, idle: float | None = None) -> Iterator[Transaction]:
        """Transactions in commit order, from the last acknowledgement on.

        What was handed out by an earlier iteration and not acknowledged comes again; within one iteration nothing does.
        A new iteration ends the one before.

        Parameters
        ----------
        until : int or Position, optional
            A count: end after so many. A position: end when the source has nothing more that ends at or before it, or
            after the first transaction that ends there or beyond; so ``until=source.written()`` reads what the log
            holds now. By default go on until `stop`.
        idle : float, optional
            End when nothing came for so many seconds.
        """
        ...

    def batches(
        self, *, max_rows: int = 10_000, max_wait: float = 0.5, until: int | Position | None = None,
        idle: float | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """Whole transactions together: until a batch has `max_rows` changes or `max_wait` seconds have passed."""
        ...

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable. Monotonic; never beyond what was received."""
        ...

    def lag(self) -> Lag:
        """How far this reader is behind the source."""
        ...

    def stop(self) -> None:
        """End the iteration soon. Where the source reads in a thread of its own, wait for it and raise its error."""
        ...

    def close(self) -> None:
        """Let go of connections. Idempotent. What was not acknowledged comes again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def enough(until: int | Position | None, kind: type) -> tuple[int | None, Any]:
    """When an iteration has brought enough: after how many, or at which position; for sources of such positions.

    Raises
    ------
    SettingsError
        It is neither.
    """
    if until is None:
        return None, None
    if type(until) is int:
        arguments.count("until", until, least=0)
        return until, None
    if not isinstance(until, kind):
        raise SettingsError(
            f"until={until!r} is neither a count nor a position of this source.",
            "For what is in the log now: until=cdc.written().",
        )
    return None, until
