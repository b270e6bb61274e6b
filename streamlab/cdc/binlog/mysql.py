"""`MySQLCDC`: the changes of a MySQL, from its binary log, with whole transactions in commit order.

The server keeps its log for a time, and knows nothing of its readers; so a reader keeps its own position: the set of
transactions that it has. Either in a file (`checkpoint`), or where its effect goes, in the same transaction; then it is
handed back as `resume_after`. A position holds on every server of a topology, so a reader may go on at another one.

Delivery is at least once, in commit order, keyed by ``(position, ordinal)``. It becomes exactly once in effect where
the sink stores the position in its own transaction.

Source: MySQL's manual, "Replication with Global Transaction Identifiers", "The Binary Log".
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pymysql

from streamlab.cdc.binlog.bookkeeping import Bookkeeping
from streamlab.cdc.binlog.connection import BinlogStream, connect
from streamlab.cdc.binlog.decoder import Decoder
from streamlab.cdc.binlog.place import PositionFile
from streamlab.cdc.binlog.position import BinlogPosition
from streamlab.cdc.binlog.preflight import Facts, check, gather
from streamlab.cdc.binlog.questions import LogQuestions
from streamlab.cdc.binlog.snapshot import Snapshot
from streamlab.cdc.binlog.tables import Selection
from streamlab.cdc.connected import RECONNECT
from streamlab.cdc.followed import Followed
from streamlab.cdc.handling import Handlers
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.spill import Spill, default_directory
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import ChangeStreamError, SettingsError, StreamLost
from streamlab.failpoints import failpoint
from streamlab.retry import RetryPolicy
from streamlab.settings import MySQLAddress

__all__ = ["MySQLCDC", "MySQLSession"]

log = logging.getLogger(__name__)

_KEEP_EVERY = 0.05
"""Seconds between two writings of the position file; each waits for the disk."""
_SLICE = 0.25


class MySQLCDC(Followed):
    """A reader of one server's binary log.

    ::

        with MySQLCDC(address, "warehouse", tables=["shop.orders"], checkpoint=path) as cdc:
            cdc.initialize()
            for transaction in cdc.transactions():
                store(transaction)
                cdc.acknowledge(transaction)

    Each iteration begins after the last acknowledgement: what was handed out and not acknowledged comes again. Within
    one iteration nothing comes twice, whatever happens to the connection. An interrupted cell takes nothing away.

    Threads: one iterates; `acknowledge`, `lag`, `stop` and the properties may be used from any.

    Parameters
    ----------
    address : MySQLAddress or str
        As a role with REPLICATION SLAVE and REPLICATION CLIENT; for a snapshot also RELOAD, and SELECT on the tables.
        A text is ``mysql://user:password@host:port/database``.
    name : str
        Of this reader, for its position file, its metrics and its dead letters.
    tables : sequence of str
        Which ones: ``database.table``, ``table`` in the address's database, ``database.*``. By default all.
    checkpoint : Path, optional
        A file that keeps the position. Without one the reader begins, each time that it is made, at `resume_after`
        or at the end of the log.
    resume_after : BinlogPosition or str, optional
        The end of the last transaction whose effect the sink holds; it goes before what the file holds.
    snapshot : {"never", "initial", "only"}
        Whether the rows that are there come first, as SNAPSHOT events, where there is no position yet; and whether the
        stream follows, from exactly there. A snapshot that was not acknowledged to its end is made again.
    server_id : int, optional
        One that no server and no other replica has; by default drawn.
    retry, dead_letters : RetryPolicy and DeadLetters, optional
        What becomes of a change whose handler fails, see `streamlab.cdc.handling`. By default the stream stops.
    group : str, optional
        Whose dead letters these are; by default the reader's name.
    reconnect : RetryPolicy
        For how long a lost connection is made again.
    heartbeat : float
        Seconds between signs of life of a server that has nothing to send.
    spill : Path, optional
        A directory for transactions that do not fit into memory.
    """

    position_type = BinlogPosition

    def __init__(
        self,
        address: MySQLAddress | str,
        name: str = "mysql",
        *,
        tables: Sequence[str] = (),
        checkpoint: Path | str | None = None,
        resume_after: BinlogPosition | str | None = None,
        snapshot: Literal["never", "initial", "only"] = "never",
        server_id: int | None = None,
        retry: RetryPolicy | None = None,
        dead_letters: DeadLetters | None = None,
        group: str | None = None,
        reconnect: RetryPolicy = RECONNECT,
        heartbeat: float = 10.0,
        spill: Path | None = None,
    ) -> None:
        if snapshot not in {"never", "initial", "only"}:
            raise SettingsError(f"There is no snapshot={snapshot!r}.", "Use never, initial or only.")
        if server_id is not None and not 0 < server_id < 1 << 32:
            raise SettingsError(f"{server_id} is no server_id.", "Use one from 1 to 4294967295, or leave it out.")
        super().__init__(name, Handlers(name, retry=retry, dead_letters=dead_letters, group=group or name))
        self.address = MySQLAddress.parse(address) if isinstance(address, str) else address
        self.tables = tuple(tables)
        self.server_id = server_id or (1 << 30) + secrets.randbelow(3 << 30)
        self._uuid = str(uuid.uuid4())
        self._heartbeat = heartbeat
        self._selection = Selection(tables, self.address.database)
        self._file = PositionFile(Path(checkpoint), name) if checkpoint is not None else None
        if isinstance(resume_after, str):
            resume_after = BinlogPosition.parse(resume_after)
        self._lock = threading.RLock()
        self._books = Bookkeeping(resume_after)
        self._kept: BinlogPosition | None = None
        self._kept_at = 0.0
        self._mode = snapshot
        self._snapshot: Snapshot | None = None
        self._left: deque[Transaction] = deque()
        self._again: deque[Transaction] = deque()
        self._questions = LogQuestions(lambda: connect(self.address))
        self._charsets: dict[int, str] = {}
        self._decoder = Decoder(
            charsets=self._charsets,
            wanted=self._selection,
            spill=Spill(spill or default_directory()),
        )
        self._reader = StreamReader(
            name,
            self._connect,
            self._decoder,
            bookkeeping=self._books,
            lock=self._lock,
            stopping=self._stopping,
            reconnect=reconnect,
        )

    @staticmethod
    def session(
        address: MySQLAddress | str,
        tables: Sequence[str] = (),
        *,
        snapshot: Literal["never", "initial", "only"] = "never",
        name: str | None = None,
        **options: Any,
    ) -> MySQLSession:
        """A reader that keeps nothing: it begins at the end of the log, or with a snapshot, and acknowledges by itself.

        ::

            with MySQLCDC.session(address, ["shop.orders"], snapshot="initial") as cdc:
                for transaction in cdc.transactions():
                    ...

        Parameters
        ----------
        address, tables, snapshot, **options
            As for `MySQLCDC`.
        name : str, optional
            By default a random one.
        """
        return MySQLSession(
            address, name or f"streamlab_session_{secrets.token_hex(6)}", tables=tables, snapshot=snapshot, **options
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} server_id={self.server_id} {self.address!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            if error is None:
                raise  # what stopped the thread is not swallowed; beside another error it was logged
        finally:
            self.close()

    # -- setting up -------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Check what has to hold, and note in the position file, where it is new, that the stream begins here.

        Idempotent. With a snapshot it begins where that is taken.

        Raises
        ------
        CannotCapture
            A setting, a privilege or a table is not as it has to be; the message says what to do.
        LogPurged
            The server has no log any more of what comes after the position.
        CheckpointError
            The position file cannot be used.
        """
        try:
            with closing(connect(self.address)) as connection:
                facts = self._look(connection, wanted=self._selection.named)
            if self._mode == "never":
                self._begin_at(facts)
                self._keep(now=True)
        except BaseException:
            if self._file is not None and self._reader.connection is None:
                self._file.release()
            raise

    def drop(self) -> None:
        """Close, and delete the position file. Repeatable."""
        self.close()
        if self._file is not None:
            self._file.forget()

    def _look(self, connection: pymysql.Connection[Any], *, wanted: Collection[tuple[str, str]] = ()) -> Facts:
        """Take the position file, ask the server, and judge. A table may be dropped while the stream is read."""
        if self._file is not None:
            kept = self._file.acquire()
            with self._lock:
                if self._books.acknowledged is None and kept is not None:
                    self._books.begin(kept)
                    self._kept = kept
        facts = gather(connection)
        self._charsets.update(facts.charsets)
        check(
            facts, wanted=wanted, begin=self._books.start, server_id=self.server_id, uuid=self._uuid
        )  # fmt: skip
        return facts

    def _begin_at(self, facts: Facts) -> None:
        with self._lock:
            if self._books.start is None and facts.place is not None:
                self._books.begin(facts.place)

    def _connect(self, position: BinlogPosition | None) -> BinlogStream:
        """Check again, since a server can change between two connections; then start the stream."""
        with closing(connect(self.address)) as connection:
            facts = self._look(connection)
        self._begin_at(facts)
        start = self._books.start if position is None else position
        if start is None:
            raise StreamLost("The server does not say where its log is.", "It is asked again.")
        stream = BinlogStream(self.address, server_id=self.server_id, uuid=self._uuid, heartbeat=self._heartbeat)
        try:
            stream.start(start.gtids)
        except BaseException:
            stream.close(graceful=False)
            raise
        self._decoder.restart(start.gtids)
        return stream

    # -- iterations -------------------------------------------------------------------------------

    def _rewind(self) -> None:
        with uninterrupted():
            self._again.extendleft(reversed(self._left))
            self._left.clear()
        self._reader.rewind()

    def _open(self) -> None:
        if not self._begin_snapshot():
            self._reader.open()

    def _begin_snapshot(self) -> bool:
        """Take a snapshot where one is wanted and there is no position yet; whether one is being read."""
        if self._snapshot is not None:
            return True
        if self._mode == "never" or self._books.start is not None:
            return False
        with closing(connect(self.address)) as connection:
            facts = self._look(connection, wanted=self._selection.named)
        if self._books.start is not None:
            return False  # the position file has one
        tables = sorted(each for each in facts.tables if self._selection(*each))
        self._snapshot = Snapshot(self.address, tables, self._left)
        return True

    def _next(self, timeout: float | None, upto: BinlogPosition | None = None) -> Transaction | None:
        if self._again:
            with uninterrupted():
                self._left.append(self._again.popleft())
                return self._left[-1]
        if self._begin_snapshot() and (rows := self._rows()) is not None:
            return rows
        if self._mode == "only" or self._stopping.is_set():
            return None
        return self._changes(timeout, upto)

    def _rows(self) -> Transaction | None:
        snapshot = self._snapshot
        if snapshot is None or self._stopping.is_set():
            return None
        try:
            rows = snapshot.get()
        except ChangeStreamError:
            self._forget_snapshot()
            raise
        if rows is None:
            snapshot.close()
            with uninterrupted(), self._lock:
                # From here on the stream is read, though rows may still wait for their acknowledgement.
                self._books.origin = self._books.cursor = snapshot.position
                self._snapshot = None
                self._settle_snapshot()
            log.info("%s: the snapshot is complete: %d rows at %s", self.name, snapshot.rows, snapshot.position)
        return rows

    def _forget_snapshot(self) -> None:
        """Let go of a snapshot that was not read to its end: the next one is another."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()
            self._left.clear()
            self._again.clear()

    def _settle_snapshot(self) -> None:
        """The stream's beginning is acknowledged once all rows of the snapshot are."""
        if self._snapshot is None and not self._left and not self._again:
            self._books.settle()

    def _changes(self, timeout: float | None, upto: BinlogPosition | None) -> Transaction | None:
        # In slices, so that the position of a quiet stream is kept too.
        if self._reader.connection is None:
            self._reader.open()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopping.is_set():
            left = _SLICE if deadline is None else max(0.0, min(_SLICE, deadline - time.monotonic()))
            transaction = self._reader.get(left, upto)
            self._keep()
            if transaction is not None or (deadline is not None and time.monotonic() >= deadline):
                return transaction
            if upto is not None and self._books.passed(upto):
                return None
        return None

    def _disconnect(self) -> None:
        self._reader.disconnect()
        self._keep(now=True)

    # -- acknowledgement --------------------------------------------------------------------------

    @property
    def received(self) -> BinlogPosition | None:
        """End of the last transaction that was handed out."""
        return self._books.handed_out

    @property
    def acknowledged(self) -> BinlogPosition | None:
        """From where a reader goes on that is made anew."""
        return self._books.acknowledged

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable. It is in the position file soon, and at `close`.

        Parameters
        ----------
        upto : Transaction, Batch or BinlogPosition
            A transaction stands for its `end_position`. A position that is less brings the transaction again. Never
            goes backwards, and never beyond what was handed out.
        """
        failpoint("cdc.before_ack")
        with uninterrupted(), self._lock:
            for transaction in upto.transactions if isinstance(upto, Batch) else (upto,):
                while self._left and transaction in self._left:
                    if self._left.popleft() is transaction:
                        break
            end = upto.end_position if isinstance(upto, (Transaction, Batch)) else upto
            if not isinstance(end, BinlogPosition):
                raise SettingsError(f"{upto!r} is no position of MySQL.", "Give the transaction, or a BinlogPosition.")
            if self._books.handed_out is not None:
                # A change of the stream: every row of the snapshot came before it.
                self._left.clear()
                now = self._reader.acknowledge(end)
                if now is not None and now < end:
                    log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.name, end)
            self._settle_snapshot()
        self._keep()
        failpoint("cdc.after_ack")

    def _keep(self, *, now: bool = False) -> None:
        """Write the position, if it is another one and the last writing is not just over."""
        if self._file is None:
            return
        with uninterrupted(), self._lock:
            position = self._books.acknowledged
            if position is None or position is self._kept:
                return
            if now or time.monotonic() - self._kept_at >= _KEEP_EVERY:
                self._file.write(position)
                self._kept, self._kept_at = position, time.monotonic()

    def lag(self) -> Lag:
        """How far this reader is behind the server: bytes of its log. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        position = self._books.acknowledged
        size = None if position is None else self._questions.behind(position)
        return Lag(size, self._reader.seconds)

    def written(self) -> BinlogPosition:
        """Where the server's log ends now: ``until=cdc.written()`` reads what is there, and ends. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        return self._questions.written()

    def close(self) -> None:
        """Let go of all connections and of the position file. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._reader.disconnect()
        self._forget_snapshot()
        try:
            self._keep(now=True)
        finally:
            if self._file is not None:
                self._file.release()
            self._questions.close()


class MySQLSession(MySQLCDC):
    """Made by `MySQLCDC.session`: a context manager, used as any reader.

    It differs in one thing. Nothing outlives it, so it acknowledges by itself: whoever asks for the next transaction
    has done with the last one. A new iteration begins with the transaction in which the last one was left.
    """

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def _passed(self, what: Any) -> None:
        self.acknowledge(what)
