"""The contract of dead letters: the facts, and what every implementation does with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable

from streamlab.errors import StreamlabError
from streamlab.failures import error_code

__all__ = ["DeadLetter", "DeadLetters", "Lane", "LetterId", "Record", "Status", "Summary"]

_MESSAGE_LENGTH = 2000


class Status(Enum):
    """Where a letter stands."""

    PARKED = "parked"
    """It failed, and waits for its next attempt."""
    BEHIND = "behind"
    """Never tried: an earlier record of its key is parked."""
    REPLAYED = "replayed"
    """Applied by a replay."""
    DISCARDED = "discarded"
    """Given up by a person."""

    @property
    def open(self) -> bool:
        """Whether the letter still waits, and keeps its key parked."""
        return self in {Status.PARKED, Status.BEHIND}


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """The identity of a record: the place it was read from, for one consumer group.

    `position` grows along the partition (Kafka's offset; an LSN as a number); `sequence` is the
    ordinal of a change within its position, 0 where a position holds one record.
    """

    group: str
    source: str
    partition: int
    position: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """Records that have to keep their order: those of one key, from one source, for one group."""

    group: str
    source: str
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read; `payload` None is a tombstone. Its content stays out of the repr."""

    id: LetterId
    key: bytes | None
    payload: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)

    @property
    def lane(self) -> Lane:
        """The lane whose order the record has to keep."""
        return Lane(self.id.group, self.id.source, self.key)


def aware(*times: datetime) -> None:
    """Refuse times without a time zone."""
    if any(time.tzinfo is None for time in times):
        raise StreamlabError("A time without a time zone was given.", "Use datetime.now(UTC).")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was set aside, and why. Make one with `failed` or `behind`.

    `sqlstate` is the server's code for the error, see `streamlab.failures.error_code`; `attempts`
    counts the failed ones; `next_at` is when a replay may try it; `changed_at` is when it got its status.
    """

    record: Record
    status: Status
    parked_at: datetime
    next_at: datetime
    changed_at: datetime
    attempts: int = 0
    error_class: str = ""
    message: str = field(default="", repr=False)
    sqlstate: str | None = None

    def __post_init__(self) -> None:
        aware(self.parked_at, self.next_at, self.changed_at)

    @property
    def id(self) -> LetterId:
        """The identity of the record."""
        return self.record.id

    @classmethod
    def failed(
        cls, record: Record, error: BaseException, *, attempts: int, now: datetime, next_at: datetime
    ) -> DeadLetter:
        """A letter for a record that was tried and failed."""
        return cls(record, Status.PARKED, now, next_at, now)._with(error, attempts)

    @classmethod
    def behind(cls, record: Record, *, now: datetime) -> DeadLetter:
        """A letter for a record that was not tried, because its key is parked."""
        return cls(record, Status.BEHIND, now, now, now)

    def _with(self, error: BaseException, attempts: int) -> DeadLetter:
        kind = type(error)
        return replace(
            self,
            attempts=attempts,
            error_class=f"{kind.__module__}.{kind.__qualname__}",
            message=str(error)[:_MESSAGE_LENGTH],
            sqlstate=error_code(error),
        )

    def failed_again(self, error: BaseException, *, now: datetime, next_at: datetime) -> DeadLetter:
        """The letter after one more failed attempt."""
        return replace(self, status=Status.PARKED, next_at=next_at, changed_at=now)._with(error, self.attempts + 1)

    def closed(self, status: Status, now: datetime) -> DeadLetter:
        """The letter after it was replayed or discarded."""
        return replace(self, status=status, changed_at=now)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of one group: letters by status, keys that are parked, when the oldest open letter was parked."""

    counts: Mapping[Status, int]
    parked_keys: int
    oldest_at: datetime | None

    @property
    def depth(self) -> int:
        """How many letters are open."""
        return sum(count for status, count in self.counts.items() if status.open)


@runtime_checkable
class DeadLetters(Protocol):
    """What a consumer needs of dead letters. All changes belong to the unit of work they are made in.

    What threads may share is said by the implementation. Times are aware; `now` is always given,
    so that one clock serves the consumer and its letters.
    """

    def transaction(self) -> AbstractContextManager[object]:
        """A unit of work: what is done within is kept together or, on an exception, undone together; may nest."""

    def park(self, letter: DeadLetter) -> bool:
        """Set a record aside. An open letter of the same identity stays as it is (False); a closed one opens again."""

    def is_parked(self, lane: Lane) -> bool:
        """Whether later records of the lane have to be parked too; never for a key of None."""

    def parked_keys(self, group: str, source: str, keys: Collection[bytes]) -> frozenset[bytes]:
        """Those of the keys that are parked: `is_parked` for a batch."""

    def claim(
        self,
        group: str,
        *,
        now: datetime | None,
        lane: Lane | None = None,
        skip: Collection[LetterId] = (),
    ) -> DeadLetter | None:
        """The first letter of a lane that is due, the longest due lane first.

        Until the surrounding transaction ends, no other caller is given a letter of that lane.

        Parameters
        ----------
        group : str
            Whose letters.
        now : datetime or None
            Letters with a later `next_at` are not due; None takes all as due.
        lane : Lane, optional
            Only this lane (with a key of None: all records of its source without a key).
        skip : collection of LetterId, optional
            Letters that are not to be given; what waits behind them is not given either.
        """

    def replayed(self, letter_id: LetterId, now: datetime) -> bool:
        """Close the first letter of a lane as applied; False where no such letter is open.

        Raises
        ------
        StreamlabError
            An earlier letter of its lane is open.
        """

    def discard(self, letter_id: LetterId, now: datetime) -> bool:
        """Close a letter as given up, wherever in its lane it is; False where no such letter is open."""

    def postpone(self, letter_id: LetterId, error: BaseException, *, now: datetime, next_at: datetime) -> bool:
        """Note another failed attempt; the lane stays parked. False where no such letter is open."""

    def letters(self, group: str, *, status: Status | None = None, limit: int = 100) -> list[DeadLetter]:
        """Letters of a group, by source, partition, position and sequence."""

    def summary(self, group: str) -> Summary:
        """Depth, parked keys and the oldest letter of a group."""

    def purge(self, group: str, before: datetime) -> int:
        """Forget closed letters that were closed before a time; how many there were."""
