"""Dead letters in memory: the implementation for tests, lessons and programs of one process."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from streamlab.dead_letters.contract import DeadLetter, Lane, LetterId, Status, Summary, aware
from streamlab.errors import StreamlabError

__all__ = ["InMemoryDeadLetters"]


def _order(letter_id: LetterId) -> tuple[int, int, int]:
    # By place and not by arrival: when a consumer goes back and reads again, an earlier record
    # arrives later, and has to be applied first all the same.
    return letter_id.position, letter_id.sequence, letter_id.partition


class InMemoryDeadLetters:
    """Dead letters that live as long as the process; any number of threads may share them.

    A transaction holds the store: other threads wait at their next call until it ends.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._letters: dict[LetterId, DeadLetter] = {}
        self._open: dict[Lane, list[LetterId]] = {}
        self._depth = 0
        self._undo: list[tuple[LetterId, DeadLetter | None]] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A unit of work, see `DeadLetters.transaction`."""
        with self._lock:
            savepoint = len(self._undo)
            self._depth += 1
            try:
                yield
            except BaseException:
                while len(self._undo) > savepoint:
                    self._put(*self._undo.pop(), undoable=False)
                raise
            finally:
                self._depth -= 1
                if not self._depth:
                    self._undo.clear()

    def _put(self, letter_id: LetterId, letter: DeadLetter | None, *, undoable: bool = True) -> None:
        before = self._letters.get(letter_id)
        if undoable and self._depth:
            self._undo.append((letter_id, before))
        if before is not None and before.status.open:
            lane = self._open[before.record.lane]
            lane.remove(letter_id)
            if not lane:
                del self._open[before.record.lane]
        if letter is None:
            self._letters.pop(letter_id, None)
            return
        self._letters[letter_id] = letter
        if letter.status.open:
            bisect.insort(self._open.setdefault(letter.record.lane, []), letter_id, key=_order)

    def park(self, letter: DeadLetter) -> bool:
        """Set a record aside, see `DeadLetters.park`."""
        if not letter.status.open:
            raise StreamlabError(
                "A letter that is closed cannot be parked.", "Use DeadLetter.failed or DeadLetter.behind."
            )
        with self._lock:
            present = self._letters.get(letter.id)
            if present is not None and present.status.open:
                return False
            self._put(letter.id, letter)
            return True

    def is_parked(self, lane: Lane) -> bool:
        """Whether later records of the lane have to be parked too."""
        with self._lock:
            return lane.key is not None and lane in self._open

    def parked_keys(self, group: str, source: str, keys: Collection[bytes]) -> frozenset[bytes]:
        """Those of the keys that are parked."""
        with self._lock:
            return frozenset(key for key in keys if self.is_parked(Lane(group, source, key)))

    def claim(
        self,
        group: str,
        *,
        now: datetime | None,
        lane: Lane | None = None,
        skip: Collection[LetterId] = (),
    ) -> DeadLetter | None:
        """The first letter of a lane that is due, see `DeadLetters.claim`."""
        with self._lock:
            heads = [
                self._letters[letter_id]
                for one, waiting in self._open.items()
                if one.group == group and (lane is None or one == lane)
                for letter_id in (waiting[:1] if one.key is not None else waiting)
                if letter_id not in skip
            ]
            due = [letter for letter in heads if now is None or letter.next_at <= now]
            return min(due, key=lambda letter: (letter.next_at, letter.id), default=None)

    def replayed(self, letter_id: LetterId, now: datetime) -> bool:
        """Close the first letter of a lane as applied."""
        with self._lock:
            letter = self._letters.get(letter_id)
            if letter is not None and letter.status.open and letter.record.key is not None:
                first = self._open[letter.record.lane][0]
                if first != letter_id:
                    raise StreamlabError(
                        f"{letter_id} is not the first of its key; {first} is.", "Replay or discard that one first."
                    )
            return self._close(letter_id, Status.REPLAYED, now)

    def discard(self, letter_id: LetterId, now: datetime) -> bool:
        """Close a letter as given up."""
        return self._close(letter_id, Status.DISCARDED, now)

    def _close(self, letter_id: LetterId, status: Status, now: datetime) -> bool:
        aware(now)
        with self._lock:
            letter = self._letters.get(letter_id)
            if letter is None or not letter.status.open:
                return False
            self._put(letter_id, letter.closed(status, now))
            return True

    def postpone(self, letter_id: LetterId, error: BaseException, *, now: datetime, next_at: datetime) -> bool:
        """Note another failed attempt."""
        with self._lock:
            letter = self._letters.get(letter_id)
            if letter is None or not letter.status.open:
                return False
            self._put(letter_id, letter.failed_again(error, now=now, next_at=next_at))
            return True

    def letters(self, group: str, *, status: Status | None = None, limit: int = 100) -> list[DeadLetter]:
        """Letters of a group, in the order of their places."""
        with self._lock:
            found = (one for one in self._letters.values() if one.id.group == group and status in {None, one.status})
            return sorted(found, key=lambda letter: letter.id)[:limit]

    def summary(self, group: str) -> Summary:
        """Depth, parked keys and the oldest letter of a group."""
        with self._lock:
            mine = [letter for letter in self._letters.values() if letter.id.group == group]
            return Summary(
                counts={status: sum(letter.status is status for letter in mine) for status in Status},
                parked_keys=sum(lane.group == group and lane.key is not None for lane in self._open),
                oldest_at=min((letter.parked_at for letter in mine if letter.status.open), default=None),
            )

    def purge(self, group: str, before: datetime) -> int:
        """Forget closed letters."""
        aware(before)
        with self._lock:
            old = [
                letter.id
                for letter in self._letters.values()
                if letter.id.group == group and not letter.status.open and letter.changed_at < before
            ]
            for letter_id in old:
                self._put(letter_id, None)
            return len(old)
