"""Reading in bulk: frames in place of events, and a backlog through COPY before the stream.

Both are ways to read the same slot, with the positions, acknowledgements and limits of `SlotReader`. Frames need the
extra ``frames``; nothing of it is imported before they are asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from streamlab.cdc import arguments, slots
from streamlab.cdc.backlog import ROWS, Backlog
from streamlab.cdc.connected import FIRST, first_time, persist
from streamlab.cdc.decoding import HandedOut, StreamDecoder
from streamlab.cdc.facts import Facts
from streamlab.cdc.patience import PatientConnection
from streamlab.cdc.position import Position
from streamlab.cdc.preflight import check
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.slot_log import SlotLog
from streamlab.cdc.slot_reader import SlotReader
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.errors import CannotCapture, SettingsError, SlotLost
from streamlab.retry import Retry

if TYPE_CHECKING:
    import psycopg

    from streamlab.cdc.frames import FrameBatch
    from streamlab.cdc.frames.stream import FrameStream

__all__ = ["BACKLOG", "PART", "BulkReader"]

log = logging.getLogger(__name__)

H = TypeVar("H", bound=HandedOut)

BACKLOG: Final = 64 << 20
"""Bytes of log behind the slot from which on `frames` reads what waits through COPY."""

PART: Final = 16 << 20
"""Bytes of a transaction from which on it is handed out in parts: decoding takes some ten times as much."""

_PATIENCE = 600.0
"""Seconds for moving a slot: the server reads the log on the way."""


class BulkReader(SlotReader):
    """A reader of one slot that also gives frames; see `streamlab.cdc.PostgreSQLCDC`."""

    _framing: tuple[StreamReader[FrameBatch], FrameStream] | None = None

    def frames(
        self, *, max_rows: int = 50_000, max_wait: float = 0.5, until: int | Position | None = None,
        idle: float | None = None, backlog: int | None = BACKLOG,
    ) -> Iterator[FrameBatch]:  # fmt: skip
        """Changes as Polars frames, one for each table and batch, from the last acknowledgement on; see docs/frames.md.

        ::

            for batch in cdc.frames():
                for frame in batch:
                    store(frame.schema, frame.table_name, frame.data)
                cdc.acknowledge(batch)

        All that holds for `transactions` holds here: at least once, in commit order, keyed by ``(position, ordinal)``;
        over lost connections, and within one iteration nothing twice. A batch holds whole transactions. One beyond 16
        MiB comes in parts, of which all but the last have `complete` False and may be acknowledged like any other.

        Where much log waits when the iteration begins, it is read by SQL through COPY, in chunks, and the stream goes
        on from exactly there. For that the slot has to be moved: where a chunk is not acknowledged once it is handed
        out, the stream goes on at once, which is slower and as good. A session has no backlog: where it has a snapshot,
        the rows of that come first, as batches of one frame.

        Parameters
        ----------
        max_rows : int
            Messages from which on they are decoded together. A batch holds what was received by then, so often more;
            one of a snapshot never.
        max_wait : float
            Seconds that a transaction waits for others.
        until : int or LSN, optional
            As for `transactions`: so many batches, or up to a position; ``until=cdc.written()`` is what the log holds
            now. The last batch can go beyond the position.
        idle : float, optional
            End when nothing came for so many seconds. A backlog that is being read is not idle.
        backlog : int, optional
            Bytes of log behind the slot from which on COPY is used; None never.

        Raises
        ------
        CannotCapture
            The slot has two-phase commit, whose messages frames do not read. (SettingsError, of a session.)
        ChangeStreamError
            The stream cannot be read, or not any more.
        """
        ends = self._ends_by(until, idle)
        arguments.count("max_rows", max_rows)
        arguments.seconds("max_wait", max_wait)
        if backlog is not None:
            arguments.count("backlog", backlog, least=0)
        reader, decoder = self._framed()
        iteration = self._begin(lambda: self._rewind_to(reader))
        decoder.decoder.max_rows, decoder.max_wait = max_rows, max_wait
        ahead = None if backlog is None or not self.resumable else backlog
        if ahead is None:
            return self._each(iteration, self._next_frames, ends, idle)

        def begin() -> Backlog[FrameBatch] | None:
            if reader.connection is not None:
                return None
            # A reader that has just ended may hold the slot for a moment.
            retry = Retry("cdc.connect", FIRST, stop=self._stopping, classify=first_time)
            facts = persist(retry, self._look)
            waiting = 0 if facts is None else facts.server.written - self._books.start
            if facts is None or waiting < ahead:
                return None
            log.info("%s: %d bytes of log wait, and are read through COPY", self.slot_name, waiting)
            return self._backlog(decoder, strict=False)

        return self._behind(iteration, begin, reader, self._each(iteration, self._next_frames, ends, idle))

    def catch_up(self, *, rows: int = ROWS) -> Iterator[Transaction]:
        """What the log holds now, as transactions, by SQL through COPY: the fastest way through a backlog of events.

        ::

            for transaction in cdc.catch_up():
                store(transaction)
                cdc.acknowledge(transaction)
            for transaction in cdc.transactions():
                ...

        Ends when all that was in the log at its begin has been handed out. `transactions` and `frames` then go on
        behind what was acknowledged, with no gap and no overlap. Positions, keys and delivery are as there.

        **Acknowledge each transaction before you ask for the next one.** The log is read in chunks, and the slot is
        moved behind a chunk before the next is read: at the end of each, and of the last one, everything that was
        handed out has to be acknowledged.

        Parameters
        ----------
        rows : int
            Messages of a chunk, which the server keeps in memory or in a temporary file.

        Raises
        ------
        NotAcknowledged
            A chunk was not. Nothing is lost: what was not acknowledged comes again.
        SettingsError
            An argument cannot be used, or this is a session, whose slot no other connection can read.
        CannotCapture
            The slot has two-phase commit.
        ChangeStreamError
            The slot cannot be read, or the connection could not be made again within the bounds.
        """
        arguments.count("rows", rows)
        if not self.resumable:
            raise SettingsError(
                "A temporary slot can be read by its own connection alone, so a session cannot catch up through COPY.",
                "Read the stream up to here: cdc.transactions(until=cdc.written()).",
            )
        iteration, events = self._begin(), self._events

        def begin() -> Backlog[Transaction]:
            events.disconnect()  # a connection of the stream would hold the slot
            return self._backlog(self._decoder(1), strict=True, rows=rows)

        def following(timeout: float | None, upto: Any) -> Transaction | None:
            return events.get(timeout, stream=False)

        return self._behind(iteration, begin, events, self._each(iteration, following, (None, None), None))

    # -- frames -----------------------------------------------------------------------------------

    def _next_frames(self, timeout: float | None, upto: Any = None) -> FrameBatch | None:
        return self._framed()[0].get(timeout, upto)

    def _framed(self) -> tuple[StreamReader[FrameBatch], FrameStream]:
        self._framing = self._framing or self._frame_reader()
        return self._framing

    def _rewind_to(self, reader: StreamReader[Any]) -> None:
        self._use(reader)
        reader.rewind()

    def _frame_reader(self) -> tuple[StreamReader[FrameBatch], FrameStream]:
        from streamlab.cdc.frames import FrameDecoder
        from streamlab.cdc.frames.stream import FrameStream, operations, transactions
        from streamlab.cdc.frames.streamed import Streamed

        types, keys, ask_key = self._catalog.types, self._catalog.primary_keys, self._catalog.ask_key
        decoder = FrameStream(
            FrameDecoder(types=types, primary_keys=keys, ask_key=ask_key, max_bytes=PART),
            lambda: (self._books.start, reader.part),
            streamed=None if self._protocol == 1 else Streamed(Spill(self._spill)),
        )
        reader: StreamReader[FrameBatch] = self._stream_reader(
            decoder, gathering=decoder, count=operations, whole=transactions
        )
        return reader, decoder

    # -- the backlog ------------------------------------------------------------------------------

    def _behind(
        self, iteration: int, begin: Callable[[], Backlog[H] | None], reader: StreamReader[H], items: Iterator[H]
    ) -> Iterator[H]:
        """An iteration with a backlog before its stream."""
        backlog = None
        self._current(iteration)
        try:
            backlog = reader.backlog = begin()
            yield from items
        finally:
            if backlog is not None and reader.backlog is backlog:
                # It was left in the midst: what is decoded and was not handed out comes again.
                reader.disconnect()

    def _look(self) -> Facts:
        with closing(self._ordinary()) as connection:
            return self._inspect(connection)

    def _inspect(self, connection: psycopg.Connection[Any], *, bulk: bool = False) -> Facts:
        """Check what has to hold before the slot is read, and note where it stands."""
        facts = self._facts(connection)
        check(facts)
        self._watch.begin(facts)
        if facts.slot is not None and facts.slot.two_phase and (bulk or self._reader is not self._events):
            raise CannotCapture(
                f"The slot {self.slot_name} has two-phase commit: its prepared transactions come as events of the "
                "stream alone.",
                "Use cdc.transactions() or cdc.batches(), or another slot, made without two_phase.",
            )
        self._catalog.look(connection, self.publication, binary=self._binary)
        if facts.slot is not None and facts.slot.confirmed is not None:
            with self._lock:
                if self._reader.again and facts.slot.confirmed > self._books.flush:
                    raise SlotLost(
                        f"While the connection was lost, the slot {self.slot_name} was moved to "
                        f"{facts.slot.confirmed}, beyond {self._books.flush}, which is what this reader has "
                        "acknowledged: changes between them are gone.",
                        "It was dropped and made again, or another program has read it. Begin with a new snapshot; or, "
                        "if that program has handled them, iterate anew.",
                    )
                if facts.moved_past and not self._books.flush:
                    log.warning(
                        "%s: the slot stands at %s, and keeps nothing any more of what follows %s, where the sink "
                        "stands. Right, if nobody but this reader has ever moved it: then nothing of the publication "
                        "lies between. If it was made anew, changes are missing: begin with a new snapshot",
                        self.slot_name, facts.slot.confirmed, self._resume_after,
                    )  # fmt: skip
                self._books.confirmed(facts.slot.confirmed)
        return facts

    def _backlog(self, decoder: StreamDecoder[Any], *, strict: bool, rows: int = ROWS) -> Backlog[Any]:
        return Backlog(
            self.slot_name, self._connect_log, decoder, bookkeeping=self._books, lock=self._lock,
            stopping=self._stopping, takers=self._takers, reconnect=self._reconnect, strict=strict, rows=rows,
        )  # fmt: skip

    def _connect_log(self) -> SlotLog:
        connection = slots.connect(self.dsn)
        try:
            facts = self._inspect(connection, bulk=True)
            self._served_by.add(connection.info.backend_pid)
            # A chunk lasts as long as the caller takes to store it.
            slots.bound(connection, 0)
            if isinstance(connection, PatientConnection):
                connection.patience = _PATIENCE
            self._record(facts)
            return SlotLog(
                connection, self.slot_name, [self.publication],
                binary=self._catalog.sends_binary, heads=bool(self._takers),
                moved=facts.slot.confirmed if facts.slot is not None else None, stopping=self._stopping,
            )  # fmt: skip
        except BaseException:
            connection.close()
            raise
