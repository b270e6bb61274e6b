"""`DebeziumSource`: the changes of a database that Debezium has written to Kafka, as the same `ChangeEvent`s.

A topic is a log of its own. It keeps order within a partition, and knows nothing of the source's transactions; so each
change stands for itself, in a `Transaction` of one, unless the topic of Debezium's transaction metadata is read too:
then they are put together again, over all topics.

Positions are Kafka's offsets, and the group's committed offsets say how far its readers have come: an offset is
committed when the change before it is acknowledged, and never by itself. A record that Debezium has written twice,
since it was killed in between, comes twice, at two positions.

Source: Debezium's manual; Kafka's protocol guide, "Group membership"; docs/values.md for what values become.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from streamlab.cdc import arguments
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.topic_reader import TopicReader
from streamlab.cdc.debezium.transactions import Passed
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.errors import ChangeStreamError, SettingsError

if TYPE_CHECKING:
    from streamlab.cdc.debezium.frames import FrameMaker
    from streamlab.cdc.debezium.gathered import Batches, Gathered
    from streamlab.cdc.frames import FrameBatch

__all__ = ["DebeziumSource"]

_MOMENT: Final = 0.01
"""Seconds after which it is looked again whether something has come, while a batch is decoded."""


class DebeziumSource(TopicReader):
    """A member of a consumer group that reads topics of a Debezium source.

    ::

        with DebeziumSource(bootstrap, ["shop.shop.orders"], "warehouse") as cdc:
            for transaction in cdc.transactions():
                store(transaction)
                cdc.acknowledge(transaction)

    Each iteration begins after the last acknowledgement: what was handed out and not acknowledged comes again. Within
    one iteration nothing comes twice, as long as its partitions are not given to another member and back. An
    interrupted cell takes nothing away.

    Delivery: at least once, in the order of each partition; in commit order with `transaction_topic`. Keyed by
    ``(position, ordinal)``: the place in Kafka, and the number in the source's transaction where that is known.

    Threads: one iterates; `acknowledge`, `lag`, `pause`, `resume`, `stop` and the properties may be used from any.
    Partitions come and go while it iterates. Whoever does not come back for the next change within
    ``max.poll.interval.ms`` (five minutes; see `options`) loses them: `pause` in place of that.

    Parameters
    ----------
    bootstrap : str
        Kafka's bootstrap servers.
    topics : sequence of str
        Names, of full envelopes or unwrapped rows; they may not exist yet. One that begins with ``^`` is a regular
        expression.
    group : str
        The consumer group. Its readers share the partitions, and what each has acknowledged is kept under its name.
    transaction_topic : str, optional
        ``<prefix>.transaction`` of a connector with ``provide.transaction.metadata=true``: transactions of the source
        are put together. One reader has to have all topics then.
    start : {"earliest", "latest"}
        Where the group begins in a partition of which it has committed nothing.
    resume_after : KafkaPosition or str, optional
        Where to begin in the partitions that it names, whatever the group has committed: the end of what the sink
        holds.
    types : mapping, optional
        For JSON without schemas, and Protobuf: ``table`` or ``schema.table`` -> column -> type, as docs/values.md
        lists them.
    configuration : mapping, optional
        For the same: the connector's configuration; or at least its ``decimal.handling.mode=string`` and
        ``time.precision.mode=isostring``, which make sure that no value is mistaken for another.
    replica_identity : {"default", "full"}
        Of PostgreSQL's tables. With ``default`` the old row is its key, for that is what PostgreSQL logs; Debezium
        fills the rest with NULL and 0, which is left out here.
    schema_registry : str, optional
        URL of a registry that speaks Confluent's protocol, for Avro and Protobuf.
    retry, dead_letters : RetryPolicy and DeadLetters, optional
        What becomes of a change whose handler fails, see `streamlab.cdc.handling`. By default the stream stops.
    patience : float
        Seconds that a broker may be away, and that a transaction may lack changes, until that is an error.
    options : mapping, optional
        Of librdkafka, such as ``security.protocol`` or ``max.poll.interval.ms``.
    """

    _maker: FrameMaker | None = None

    def frames(
        self, *, max_rows: int = 50_000, max_wait: float = 0.5, until: int | Position | None = None,
        idle: float | None = None,
    ) -> Iterator[FrameBatch]:  # fmt: skip
        """Changes as Polars frames, one for each table and batch, from the last acknowledgement on; see docs/frames.md.

        ::

            for batch in cdc.frames():
                for frame in batch:
                    store(frame.schema, frame.table_name, frame.data)
                cdc.acknowledge(batch)

        All that holds for `transactions` holds here, where each change stands for itself. No object is made for a value
        of JSON with schemas, nor of JSON without where `types` has all columns; other records are read one by one.

        Parameters
        ----------
        max_rows : int
            Records from which on they are decoded together; a batch may hold some more. About as many again are
            held for the next batch, while one is decoded.
        max_wait : float
            Seconds that a record waits for others.
        until : int or KafkaPosition, optional
            As for `transactions`: so many batches, or up to a position.
        idle : float, optional
            End when nothing came for so many seconds.

        Raises
        ------
        SettingsError
            There is a `transaction_topic`: frames do not put transactions together. Or an argument cannot be used.
        ChangeStreamError
            The topics cannot be read, or a record cannot.
        """
        from streamlab.cdc.debezium.frames import FrameMaker
        from streamlab.cdc.debezium.gathered import Batches

        if self._assembler is not None:
            raise SettingsError(
                "Frames do not put the source's transactions together.",
                "Leave transaction_topic out: each change has its place in its topic.",
            )
        ends = self._ends_by(until, idle)
        arguments.count("max_rows", max_rows)
        arguments.seconds("max_wait", max_wait)
        maker = self._maker = self._maker or FrameMaker(
            self._decoder, whole_before=self._replica_identity == "full"
        )  # fmt: skip
        iteration = self._begin()
        if self._waiting:
            self._drop()  # decoded as events, and to come again
        batches = self._batches = Batches(maker)
        return self._framed(iteration, batches, ends, idle, max_rows, max_wait)

    def _framed(
        self, iteration: int, batches: Batches, ends: tuple[int | None, Any], idle: float | None, max_rows: int,
        max_wait: float,
    ) -> Iterator[FrameBatch]:  # fmt: skip
        numbers = count(1)

        def following(timeout: float | None, upto: KafkaPosition | None) -> FrameBatch | None:
            last = next(numbers) == ends[0]
            return self._next_frames(batches, timeout, upto, max_rows, max_wait, last=last)

        try:
            yield from self._each(iteration, following, ends, idle)
        finally:
            batches.clear()

    def _next_frames(
        self, batches: Batches, timeout: float | None, upto: KafkaPosition | None, max_rows: int, max_wait: float, *,
        last: bool,
    ) -> FrameBatch | None:  # fmt: skip
        group = self._group
        while self._gather(batches, timeout, upto, max_rows, max_wait):
            full = batches.turn()
            if full.large and not last:
                full.begin()
                self._ahead(batches, full, upto, max_rows)
            if batches.lost(group.books.cursor):
                continue
            if self._stopping.is_set():
                return None
            return self._handed_out(batches, full)
        return None

    def _gather(
        self, batches: Batches, timeout: float | None, upto: KafkaPosition | None, max_rows: int, max_wait: float
    ) -> bool:
        """Receive until there is a batch; False where there is none."""
        group = self._group
        now = time.monotonic()
        deadline, due = None if timeout is None else now + timeout, now + max_wait
        waiting = group.joined
        while not self._stopping.is_set():
            if batches.lost(group.books.cursor):
                # A partition went to another member while records of it were gathered: all are fetched again.
                error = batches.error
                batches.clear()
                self._drop()
                group.fetch_all()
                if error is not None:
                    raise error  # such as that its topic was deleted, which is told once
            gathered, now = batches.next, time.monotonic()
            found, paused = gathered.count, group.paused
            reached = upto is not None and self._reached_with(upto, gathered.ends)
            error = batches.error or self._waiting.error
            if found and not paused and (found >= max_rows or now >= due or reached or error is not None):
                return True
            if not found and error is not None:
                raise error
            if not found and gathered.ends:
                with group.lock:
                    group.books.passed(gathered.ends)
                gathered.ends.clear()
            if not found and upto is not None and group.reached(upto):
                return False
            if not found and deadline is not None and now >= deadline and waiting:
                return False
            self._collect(gathered, 0.1 if paused or not found else min(0.1, max(0.0, due - now)))
            group.commit()
            if not found and gathered.count:
                due = time.monotonic() + max_wait
            if not waiting and group.joined:
                waiting, deadline = True, None if timeout is None else time.monotonic() + timeout
        return False

    def _ahead(self, batches: Batches, full: Gathered, upto: KafkaPosition | None, max_rows: int) -> None:
        """Receive for the next batch, while one is decoded, or must not be handed out."""
        group, gathered = self._group, batches.next
        while not self._stopping.is_set() and not batches.lost(group.books.cursor):
            decoded, paused = full.done, group.paused
            if decoded and not paused:
                return
            room = gathered.count < max_rows and batches.error is None and not self._waiting
            if room and upto is not None:
                room = not self._reached_with(upto, batches.ends)
            received = 0
            if paused or room:
                try:
                    received = self._collect(gathered, 0.1 if decoded else 0.0)
                except ChangeStreamError as error:
                    batches.error = error  # in its turn, behind what came before
                group.commit()
                if gathered.count >= max_rows:
                    gathered.begin()
            if not received and not decoded:
                full.wait(_MOMENT)

    def _handed_out(self, batches: Batches, full: Gathered) -> FrameBatch:
        from streamlab.cdc.debezium.frames import last_time
        from streamlab.cdc.frames.batch import FrameBatch

        frames, end = full.frames(), KafkaPosition.of(full.ends)
        with uninterrupted(), self._group.lock:
            self._group.books.hand_out(end)
            # What was received when there was an error may not be there.
            self._loose = bool(batches.next.ends) or batches.error is not None
            batches.full = None
        return FrameBatch(frames, end, last_time(frames), transactions=full.count)

    def _reached_with(self, upto: KafkaPosition, ends: Passed) -> bool:
        """Whether what is received reaches so far."""
        return all(ends.get(place, 0) >= upto.offsets[place] for place in self._group.books.missing(upto))
