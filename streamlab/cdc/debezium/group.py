"""A reader's place in its group: which partitions are ours, how far they are acknowledged, and what is committed.

Nothing is read here. Partitions come and go while a consumer is polled; whoever reads is told what has gone, for what
waits of these comes again elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from streamlab.cdc.debezium.bookkeeping import Bookkeeping
from streamlab.cdc.debezium.consumer import Member
from streamlab.cdc.debezium.position import KafkaPosition, Partition
from streamlab.cdc.debezium.questions import TopicQuestions
from streamlab.cdc.interrupts import uninterrupted
from streamlab.errors import LogPurged, StreamLost
from streamlab.failpoints import failpoint

__all__ = ["Group"]

log = logging.getLogger(__name__)

_COMMIT_EVERY: Final = 0.05
"""Seconds between two commits; each waits for the broker."""
_ASK_EVERY: Final = 0.2
"""Seconds between questions who has a partition that is waited for."""


class Group:
    """What one reader has of its group. One thread reads; `acknowledge` and `commit` may be called from any.

    Parameters
    ----------
    bootstrap, name : str
        Which servers, which group.
    topics : sequence of str
        As for `Member`.
    start : {"earliest", "latest"}
        Where a partition begins of which the group has no offset.
    begin : mapping
        Partition -> offset with which it begins, whatever the group has.
    options : mapping
        Of librdkafka.
    gone : callable
        Is told which partitions have gone.

    Attributes
    ----------
    member : Member or None
        None before `join`, and after `leave`.
    books : Bookkeeping
        To be used under `lock`.
    held : set of Partition
        Those of which no more is fetched, whether `pause` holds or not.
    """

    def __init__(
        self,
        bootstrap: str,
        name: str,
        topics: Sequence[str],
        *,
        start: Literal["earliest", "latest"],
        begin: Mapping[Partition, int],
        options: Mapping[str, Any],
        gone: Callable[[set[Partition]], None],
    ) -> None:
        self.bootstrap, self.name, self.topics = bootstrap, name, tuple(topics)
        self._start, self._begin, self._options, self._tell = start, dict(begin), dict(options), gone
        self.questions = TopicQuestions(bootstrap, self.topics, self._options)
        self.lock = threading.RLock()
        self.books = Bookkeeping()
        self.member: Member | None = None
        self.held: set[Partition] = set()
        self.paused = False
        """What is wanted; `obey` does it."""
        self._is_paused = False
        self._committed: dict[Partition, int] = {}
        self._committed_at = 0.0
        self._elsewhere: set[Partition] = set()
        """Partitions that other members of the group have, as far as that was asked."""
        self._asked_at = 0.0
        self._given_back: set[str] = set()

    @property
    def joined(self) -> bool:
        """Whether the group has said what is ours."""
        return self.member is not None and self.member.joined

    def join(self) -> Member:
        """The member; it joins the group, if there is none.

        Raises
        ------
        ChangeStreamError
            The broker does not answer.
        """
        if self.member is None:
            member = Member(
                self.bootstrap, self.name, self.topics, options=self._options, begin=self._begin, start=self._start,
                assigned=self._assigned, revoked=self._revoked,
            )  # fmt: skip
            try:
                member.open()
            except BaseException:
                member.close()
                raise
            self.member = member
        return self.member

    def leave(self, tidy: Callable[[], None]) -> None:
        """Commit what is acknowledged, and leave; `tidy` is called behind that, in any case. Idempotent."""
        member, self.member = self.member, None
        if member is None:
            return
        with uninterrupted():
            self.member = member
            with suppress(StreamLost):
                self.commit(now=True)
            self.member = None
            try:
                member.close()
            finally:
                self.held.clear()
                with self.lock:
                    self.books.revoked(list(self.books.cursor))
                    self._committed.clear()
                self._is_paused = False
                tidy()

    # -- partitions -------------------------------------------------------------------------------

    def _assigned(self, offsets: dict[Partition, int]) -> None:
        with self.lock:
            self._elsewhere = set()
            for place, offset in offsets.items():
                self.books.assigned(place, offset)
                if self._start == "earliest":
                    self._committed[place] = offset
                # Else it is committed soon: the next reader would begin at the end of that time.
        if self._is_paused and self.member is not None:
            self.member.pause(list(offsets))
        log.info("%s: reads %s", self.name, KafkaPosition.of(offsets) or "nothing yet")

    def _revoked(self, partitions: list[Partition], lost: bool) -> None:
        """What waits here of these partitions comes again elsewhere; what is acknowledged is committed first."""
        if not lost:
            with suppress(StreamLost):
                self.commit(now=True)
        gone = set(partitions)
        with self.lock:
            self._elsewhere = set()
            self._given_back |= {topic for topic, _ in gone}
            self.books.revoked(gone)
            for place in gone:
                self._committed.pop(place, None)
                self.held.discard(place)
        self._tell(gone)
        log.info("%s: %s %s", self.name, "lost" if lost else "gave back", sorted(gone))

    def check(self) -> None:
        """Of topics whose partitions were taken away, some may not be there any more.

        Raises
        ------
        LogPurged
            One was deleted.
        """
        if not self._given_back or self.member is None:
            return
        topics, self._given_back = self._given_back, set()
        for topic in topics:
            if not self.member.is_there(topic):
                raise LogPurged(
                    f"The topic {topic} was deleted while {self.name} read it: what it held and was not read is gone.",
                    "Begin with a new snapshot, when there is such a topic again.",
                )

    def seek(self) -> None:
        """Fetch again from where this iteration is; what was fetched and not handed out comes again.

        Raises
        ------
        KafkaException
            The consumer cannot.
        """
        if self.member is not None and self.books.cursor:
            self.member.seek(self.books.cursor)

    # -- pause and resume -------------------------------------------------------------------------

    def obey(self) -> None:
        """Have the consumer fetch or not, as `paused` says."""
        if self.paused != self._is_paused and self.member is not None:
            self._is_paused = self.paused
            self.member.pause([each for each in self.books.cursor if each not in self.held], on=self.paused)

    def hold(self, place: Partition, *, on: bool) -> None:
        """Fetch no more of a partition, or go on."""
        if on == (place in self.held):
            return
        (self.held.add if on else self.held.discard)(place)
        if self.member is not None:
            self.member.pause([place], on=on)

    def fetch_all(self) -> None:
        """After a `seek` from the beginning of an iteration: nothing is held, nor paused any more."""
        self.held.clear()
        self._is_paused = False

    # -- how far it is ----------------------------------------------------------------------------

    def reached(self, upto: KafkaPosition) -> bool:
        """Whether this iteration has come so far in all partitions of it, but for those that other members have."""
        missing = self.books.missing(upto) - self._elsewhere
        if not missing:
            return True
        now = time.monotonic()
        if missing & self.books.cursor.keys() or self.member is None or now < self._asked_at + _ASK_EVERY:
            return False
        self._asked_at = now
        self._elsewhere = self.questions.of_others(self.name, self.member.id)
        return missing <= self._elsewhere

    def acknowledge(self, end: KafkaPosition) -> None:
        """The effect of everything up to here is durable; it is committed soon."""
        failpoint("cdc.debezium.before_ack")
        with uninterrupted(), self.lock:
            if not self.books.acknowledge(end):
                log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.name, end)
        self.commit()
        failpoint("cdc.debezium.after_ack")

    def commit(self, *, now: bool = False) -> None:
        """Have the group note what is acknowledged, if it is new and the last time is not just over.

        Raises
        ------
        StreamLost
            It has not, and it was to be done now.
        """
        member = self.member
        if member is None or (not now and time.monotonic() - self._committed_at < _COMMIT_EVERY):
            return
        with uninterrupted(), self.lock:
            books, known = self.books.acknowledged, self._committed
            changed = {place: offset for place, offset in books.items() if known.get(place) != offset}
            if not changed:
                return
            try:
                failpoint("cdc.before_commit")
                member.commit(changed)
                failpoint("cdc.after_commit")
            except StreamLost as error:
                log.warning("%s: %s", self.name, error)
                if now:
                    raise
            else:
                self._committed.update(changed)
            self._committed_at = time.monotonic()
