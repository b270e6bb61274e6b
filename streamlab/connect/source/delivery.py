"""What a batch of the source becomes in Kafka: one commit of records and offset, or several for a large transaction."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaException

from streamlab import metrics
from streamlab.cdc.event import Operation
from streamlab.cdc.transaction import Transaction
from streamlab.connect.source.offsets import Covered, Offsets, Stored
from streamlab.connect.source.records import Records
from streamlab.connect.source.sender import Sender, refused
from streamlab.failpoints import failpoint

__all__ = ["Delivery"]

_NONE: Final = Stored("", -1, snapshot=False, resume_after="", records=0)


class Delivery:
    """Takes transactions and commits them. One for each beginning of a connector; used by one thread.

    Parameters
    ----------
    name : str
        The connector's, for metrics.
    sender : Sender
        The producer.
    records : Records
        What makes records of changes.
    offsets : Offsets
        Where the offset goes.
    stored : Stored or None
        What Kafka holds at the beginning.
    max_rows : int
        A transaction with more changes is committed in parts of so many.
    """

    def __init__(
        self, name: str, sender: Sender, records: Records, offsets: Offsets, stored: Stored | None, *, max_rows: int
    ) -> None:
        self.stored = stored
        self._sender, self._records, self._offsets, self._max_rows = sender, records, offsets, max_rows
        self._covered = Covered(stored)
        self._open = False
        self._last: tuple[Transaction, int, bool, bool] | None = None
        """What the next commit says: transaction, ordinal, whether of a snapshot, whether to its end."""
        self._changes = self._sent = 0
        self._count_records = metrics.CONNECT_RECORDS.labels(name)
        self._count_commits = metrics.CONNECT_COMMITS.labels(name)
        self._count_skipped = metrics.CONNECT_SKIPPED.labels(name)

    def add(self, transaction: Transaction) -> None:
        """Produce the records of a transaction that are not in Kafka yet.

        Raises
        ------
        NotDelivered
            Kafka does not take them.
        """
        size = len(transaction)
        first = next(iter(transaction), None)
        snapshot = first is not None and first.operation is Operation.SNAPSHOT
        after = self._covered.upto(transaction, snapshot=snapshot)
        if after >= 0 and first is not None:
            # Ordinals of a snapshot go on from one of its transactions to the next.
            known = min(size, max(0, after + 1 - first.ordinal))
            self._count_skipped.inc(known)
            if known == size:
                return
        large = size > self._max_rows
        if large:
            self.commit()  # what came before is not held up
        self._begin()
        try:
            self._produce(transaction, after, large=large, snapshot=snapshot)
        except KafkaException as error:
            raise refused(error, "Sending a record") from error

    def _begin(self) -> None:
        if not self._open:
            self._sender.begin()
            self._open = True

    def _produce(self, transaction: Transaction, after: int, *, large: bool, snapshot: bool) -> None:
        produce, sent = self._sender.produce, 0
        stamp = int(transaction.commit_timestamp.timestamp() * 1000)
        last, part = after, 0
        for topic, value, key, headers, ordinal in self._records.of(transaction, after):
            if large and ordinal != last:
                if part == self._max_rows:
                    self._sent += sent
                    self._last, sent, part = (transaction, last, snapshot, False), 0, 0
                    self.commit()
                    self._begin()
                part += 1
                self._changes += 1
                last = ordinal
            while True:
                try:
                    produce(topic, value, key, -1, None, None, stamp, headers)
                    break
                except BufferError:
                    self._sender.room()
            sent += 1
        self._sent += sent
        if not large:
            self._changes += len(transaction)
        end = max(event.ordinal for event in transaction) if snapshot else len(transaction) - 1
        self._last = (transaction, end, snapshot, True)

    def commit(self) -> None:
        """Make what was added durable, and its offset with it. When it raises, nobody knows whether it is.

        Raises
        ------
        Fenced
            Another connector of this name has begun.
        NotDelivered
            Kafka has not confirmed it.
        """
        if self._last is None:
            return
        stored = self._next()
        sender = self._sender
        failpoint("connect.before_flush")
        if not sender.transactional:
            sender.flush()  # no offset is written for what may still be lost
        failpoint("connect.before_offset")
        sender.send(self._offsets.topic, stored.encode(), self._offsets.key, 0)
        sender.flush()
        failpoint("connect.after_flush")
        failpoint("connect.before_commit")
        sender.commit()
        failpoint("connect.after_commit")
        self.stored, self._last, self._open = stored, None, False
        self._count_records.inc(self._sent)
        self._count_commits.inc()
        self._changes = self._sent = 0

    def _next(self) -> Stored:
        assert self._last is not None  # noqa: S101 - the caller has looked
        transaction, ordinal, snapshot, whole = self._last
        before = self.stored or _NONE
        # The rest of a snapshot would be missing behind its position, and the rest of a transaction behind its end.
        resume = str(transaction.end_position) if whole and not snapshot else before.resume_after
        return Stored(str(transaction.position), ordinal, snapshot, resume, before.records + self._changes)
