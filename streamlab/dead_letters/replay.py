"""Replay: try parked records again, first-in first-out per key, for any implementation of the contract."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamlab import metrics
from streamlab.dead_letters.contract import DeadLetter, DeadLetters, Lane, LetterId
from streamlab.failpoints import failpoint
from streamlab.failures import Failure, classify

__all__ = ["Replayed", "publish", "replay", "replay_delay"]

_FIRST_DELAY = timedelta(minutes=1)
_LONGEST_DELAY = timedelta(hours=1)
_DOUBLINGS = 10  # beyond the longest delay; keeps the power small


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one replay did: letters that were applied, and letters that failed again."""

    applied: int
    failed: int


def replay_delay(attempts: int) -> timedelta:
    """The pause after a number of failed attempts: a minute, doubled each time, at most an hour."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * (1 << min(attempts - 1, _DOUBLINGS)))


def replay(
    letters: DeadLetters,
    group: str,
    handler: Callable[[DeadLetter], object],
    *,
    lane: Lane | None = None,
    force: bool = False,
    limit: int | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    delay: Callable[[int], timedelta] = replay_delay,
    classify: Callable[[object], Failure] = classify,
) -> Replayed:
    """Try the letters of a group that are due, each in a transaction of its own.

    A letter whose handler fails again stays first of its key, and the rest of its key waits;
    other keys go on. Each letter is tried once at most.

    Parameters
    ----------
    letters : DeadLetters
        The store. Where it shares the handler's connection, effect and removal are one commit.
    group : str
        Whose letters.
    handler : callable
        Applies a letter, and raises when it cannot.
    lane : Lane, optional
        Only this key.
    force : bool
        Try also what is not due yet: for a person who has removed the cause.
    limit : int, optional
        Most letters to try.
    clock, delay, classify : callable, optional
        The time, the pause after so many failed attempts, and the judgement of failures.

    Raises
    ------
    Exception
        What the handler raised, if it was a failure that is not the record's fault
        (`Failure.TRANSIENT` or `Failure.FATAL`): the letter stays as it was and the replay ends.
    """
    applied = 0
    failed: set[LetterId] = set()
    while limit is None or applied + len(failed) < limit:
        now = clock()
        with letters.transaction():
            letter = letters.claim(group, now=None if force else now, lane=lane, skip=failed)
            if letter is None:
                break
            failpoint("dead_letters.claimed")
            try:
                with letters.transaction():  # so that a failed handler undoes its own work and keeps the claim
                    handler(letter)
                    failpoint("dead_letters.handled")
                    letters.replayed(letter.id, now)
            except Exception as error:
                if classify(error) in {Failure.TRANSIENT, Failure.FATAL}:
                    raise
                letters.postpone(letter.id, error, now=now, next_at=now + delay(letter.attempts + 1))
                failed.add(letter.id)
            else:
                applied += 1
        failpoint("dead_letters.committed")
    return Replayed(applied, len(failed))


def publish(letters: DeadLetters, group: str) -> None:
    """Bring the metrics of a group up to date: letters by status, parked keys, age of the oldest.

    The age goes on growing between calls; the counts are as old as the call.
    """
    summary = letters.summary(group)
    for status, count in summary.counts.items():
        metrics.DEAD_LETTERS.labels(group, status.value).set(count)
    metrics.DEAD_LETTERS_PARKED_KEYS.labels(group).set(summary.parked_keys)
    since = summary.oldest_at.timestamp() if summary.oldest_at is not None else None
    metrics.DEAD_LETTERS_OLDEST_AGE_SECONDS.labels(group).set_function(
        lambda: 0.0 if since is None else max(0.0, time.time() - since)
    )
