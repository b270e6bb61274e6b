"""A reader that leaves nothing behind: temporary slot, snapshot, stream and publication, all gone with its connections.

Everything happens on one replication connection: BEGIN; CREATE_REPLICATION_SLOT TEMPORARY (SNAPSHOT 'use'); COPY of the
tables; COMMIT; START_REPLICATION. The server drops the slot when that connection ends, however it ends. A publication
cannot be temporary: the session's own is dropped at its end, and that of a session which was killed by the next one; an
advisory lock that a session holds for its life tells the two apart.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import psycopg
from psycopg import sql

from streamlab.cdc import slots
from streamlab.cdc.decoding import Ended, ends_transaction
from streamlab.cdc.facts import Facts
from streamlab.cdc.framed import BulkReader
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.preflight import check
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.snapshot import Rows, Snapshot, SnapshotEvents, SnapshotProgress, tables_of
from streamlab.cdc.source import Batch
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError, SettingsError, SlotLost, SlotMissing, StreamLost
from streamlab.sql import load

if TYPE_CHECKING:
    from streamlab.cdc.frames import FrameBatch

__all__ = ["CDCSession"]

log = logging.getLogger(__name__)

_EVENTS: Final = 10_000
"""Events of a snapshot that are handed out together."""


class CDCSession(BulkReader):
    """Made by `PostgreSQLCDC.session`: a context manager, used as any reader.

    It differs in one thing. Nothing outlives it, so it acknowledges by itself: whoever asks for the next transaction
    has done with the last one. A new iteration begins with the transaction in which the last one was left.
    """

    resumable = False

    def __init__(
        self,
        dsn: str,
        tables: Sequence[str] = (),
        *,
        publication: str | None = None,
        snapshot: Literal["never", "initial", "only"] = "never",
        setup_dsn: str | None = None,
        slot_name: str | None = None,
        **options: Any,
    ) -> None:
        if snapshot not in {"never", "initial", "only"}:
            raise SettingsError(f"There is no snapshot={snapshot!r}.", "Use never, initial or only.")
        if publication is None and not tables:
            raise SettingsError("A session needs to know what to read.", "Give tables=[...] or publication=.")
        if options.get("resume_after"):
            raise SettingsError(
                "A session begins now, so what follows resume_after would be missing from it.",
                "Read a slot that was there by then: PostgreSQLCDC(..., resume_after=...).",
            )
        name = slot_name or f"streamlab_session_{secrets.token_hex(6)}"
        self._own_publication = publication is None
        super().__init__(dsn, publication or name, name, tables=tables, setup_dsn=setup_dsn, **options)
        self._mode = snapshot
        self._owner: psycopg.Connection[Any] | None = None
        self._stream: ReplicationStream | None = None
        self._snapshot: Snapshot | None = None
        self._progress: Snapshot | None = None
        self._taken_at = datetime.now(UTC)
        self._rows: Rows | None = None
        """What the snapshot's rows become, once some have."""
        self._facts_at_start: Facts | None = None
        self._began: LSN | None = None
        self._over = False
        self._left: deque[Any] = deque()
        self._again: deque[Any] = deque()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    @property
    def began(self) -> LSN | None:
        """The point of the log at which the snapshot was taken and the stream begins."""
        return self._began

    @property
    def snapshot_progress(self) -> SnapshotProgress | None:
        """How far the snapshot has come, from any thread; None where there is none, or the session is not open yet."""
        return None if self._progress is None else self._progress.progress

    def initialize(self) -> None:
        """Open the session; entering its block does the same."""
        self._open()

    def drop(self, *, publication: bool = True) -> None:
        """Close: there is nothing else to drop."""
        self.close()

    # -- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._stream is not None:
            return
        if self._over:
            raise SlotMissing(f"The session {self.slot_name} is over.", "Open a new one.")
        with closing(self._ordinary()) as connection:
            if self._two_phase:
                self._check_two_phase()
            if self._own_publication:
                self._preview(connection)
                self._publish()
            facts = self._facts(connection)
            check(facts, slot=False)
            self._catalog.look(connection, self.publication, binary=self._binary)
            self._facts_at_start = facts
            self._watch.begin(facts)
            stream = self._stream = ReplicationStream(
                self.dsn, bookkeeping=self._books, lock=self._lock, silence=self._silence
            )
            if self._mode != "never":
                stream.command(sql.SQL("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"))
            slot = stream.create_slot(
                self.slot_name,
                temporary=True,
                two_phase=self._two_phase,
                snapshot="nothing" if self._mode == "never" else "use",
            )
            self._began = slot.consistent_point
            self._books.confirmed(slot.consistent_point)
            if self._mode == "never":
                self._start()
                return
            # Rows that a policy hides from this role must not be left out in silence.
            stream.command(sql.SQL("SET LOCAL row_security = off"))
            tables, self._taken_at = tables_of(connection, self.publication), datetime.now(UTC)
            self._progress = self._snapshot = Snapshot(stream, tables, self._catalog.types, held=self._left)

    def _publish(self) -> None:
        owner = self._owner = slots.connect(self._setup_dsn)
        blocks = load("postgres_capture")
        for (name,) in owner.execute(blocks["session_publications"]).fetchall():
            if (owner.execute(blocks["session_lock"], [name]).fetchone() or (False,))[0]:
                log.info("dropping %s, which a killed session left", name)
                slots.drop_publication(owner, name)
                owner.execute(blocks["session_unlock"], [name])
        owner.execute(blocks["session_lock"], [self.publication])
        slots.create_publication(owner, self.publication, self.tables)

    def _start(self) -> None:
        stream, facts = self._stream, self._facts_at_start
        if stream is None or facts is None:
            raise ChangeStreamError("The session is not open.", "Use it in a with block.")
        stream.start(self.slot_name, [self.publication], options=self._options(facts))
        self._record(facts)
        self._reader.adopt(stream)

    def _connect(self, position: LSN) -> ReplicationStream:
        raise SlotMissing(
            f"The session {self.slot_name} is over, and its temporary slot went with it.", "Open a new one."
        )

    # -- iterations -------------------------------------------------------------------------------

    def _rewind(self) -> None:
        self._iterate(self._events)

    def _rewind_to(self, reader: StreamReader[Any]) -> None:
        if self._two_phase:
            raise SettingsError(
                "A session with two-phase commit gives no frames: its prepared transactions come as events alone.",
                "Open it without two_phase, or read events: cdc.batches().",
            )
        self._iterate(reader)

    def _iterate(self, reader: StreamReader[Any]) -> None:
        self._open()
        self._use(reader)
        with uninterrupted():
            self._again.extendleft(reversed(self._left))
            self._left.clear()
        reader.rewind()

    def _use(self, reader: StreamReader[Any]) -> None:
        """The connection cannot be made again, nor its beginning be read twice."""
        if reader is self._reader:
            return
        connection = self._reader.connection
        if self._rows is not None or (connection is not None and connection.received_bytes):
            raise SettingsError(
                "This session has been read already, as events or as frames, and goes on so.",
                "Open one session for events and another for frames.",
            )
        if connection is not None:
            self._reader.connection = None
            reader.adopt(connection)
        self._reader = reader

    def _next(self, timeout: float | None, upto: LSN | None = None) -> Transaction | None:
        found: Transaction | None = self._following(self._events, _EVENTS, timeout, upto)
        return found

    def _next_frames(self, timeout: float | None, upto: Any = None) -> FrameBatch | None:
        reader, stream = self._framed()
        found: FrameBatch | None = self._following(reader, stream.decoder.max_rows, timeout, upto)
        return found

    def _following(self, reader: StreamReader[Any], most: int, timeout: float | None, upto: Any) -> Any:
        with uninterrupted():
            if self._again:
                self._left.append(self._again.popleft())
                return self._left[-1]
        if self._snapshot is not None:
            try:
                rows = self._of_snapshot(self._snapshot, most, timeout)
            except StreamLost as error:
                raise SlotLost(
                    f"The connection of the session {self.slot_name} was lost in its snapshot.", "Open a new session."
                ) from error
            if rows is not None or self._snapshot is not None:
                return rows
        if self._mode == "only":
            return None
        return reader.get(timeout, upto)

    def _of_snapshot(self, snapshot: Snapshot, most: int, timeout: float | None) -> Any:
        if self._rows is None:
            self._rows = self._made_of_rows()
        while not self._stopping.is_set():
            rows = snapshot.get(0.1 if timeout is None else timeout, self._rows, most)
            if rows is not None:
                return rows
            if snapshot.done:
                self._complete(snapshot)
                return None
            if timeout is not None:
                return None
        return None

    def _made_of_rows(self) -> Rows:
        types, began = self._catalog.types, self._began or LSN(0)
        if self._reader is self._events:
            return SnapshotEvents(types, began, self._taken_at)
        with uninterrupted():  # half an import would stay
            from streamlab.cdc.frames.copied import SnapshotFrames

        return SnapshotFrames(types, began, self._taken_at, self._catalog.primary_keys)

    def _complete(self, snapshot: Snapshot) -> None:
        log.info("%s: the snapshot is complete: %d rows at %s", self.slot_name, snapshot.progress.rows, self._began)
        # A command that is cut in two would cost the connection, and with it the session.
        with uninterrupted():
            if self._stream is not None:
                self._stream.command(sql.SQL("COMMIT"))
            if self._mode == "initial":
                self._start()
            self._snapshot = None

    def _ends(self, upto: Any, position: Any) -> bool:
        # All rows of the snapshot end at one position, and so do those that come again.
        return self._snapshot is None and not self._again and super()._ends(upto, position)

    def _passed(self, what: Any) -> None:
        self.acknowledge(what)

    def acknowledge(self, upto: Position | Ended) -> None:
        """As for any reader; rows of the snapshot are let go of in the order in which they came."""
        each: Any
        for each in upto.transactions if isinstance(upto, Batch) else (upto,):
            while any(left is each for left in self._left):
                if self._left.popleft() is each:
                    break
        end = getattr(upto, "end_position", upto)
        # The snapshot's rows alone end where it began.
        if not isinstance(end, LSN) or self._began is None or end > self._began or not ends_transaction(upto):
            self._left.clear()
            super().acknowledge(upto)

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session: its slot and its own publication go. Idempotent."""
        self._over = True
        super().close()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._snapshot = None
        owner, self._owner = self._owner, None
        if owner is not None:
            try:
                slots.drop_publication(owner, self.publication)
            except (ChangeStreamError, psycopg.Error) as error:
                log.warning("%s was not dropped (%s); the next session does it", self.publication, error)
            finally:
                owner.close()
