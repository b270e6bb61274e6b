"""What reads a binary log: decoder, stream, positions, their file and acknowledgements together."""

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
from typing import Any, Literal

import pymysql

from streamlab.cdc import arguments
from streamlab.cdc.binlog.bookkeeping import Bookkeeping
from streamlab.cdc.binlog.connection import BinlogStream, connect
from streamlab.cdc.binlog.decoder import Decoder
from streamlab.cdc.binlog.position import BinlogPosition
from streamlab.cdc.binlog.preflight import Facts, check, gather
from streamlab.cdc.binlog.questions import LogQuestions
from streamlab.cdc.binlog.tables import Selection
from streamlab.cdc.connected import RECONNECT
from streamlab.cdc.followed import Followed
from streamlab.cdc.handling import Handlers
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.cdc.position_file import PositionFile
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.spill import Spill, default_directory
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import SettingsError, StreamLost
from streamlab.failpoints import failpoint
from streamlab.retry import RetryPolicy
from streamlab.settings import MySQLAddress

__all__ = ["LogReader"]

log = logging.getLogger(__name__)

_KEEP_EVERY = 0.05
"""Seconds between two writings of the position file; each waits for the disk."""
_SLICE = 0.25


class LogReader(Followed):
    """A reader of one server's log; see `streamlab.cdc.MySQLCDC` for its parameters, threads and delivery."""

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
        arguments.instance("address", address, (MySQLAddress, str), "a MySQLAddress, or a text: mysql://...")
        arguments.names("tables", tables)
        arguments.seconds("heartbeat", heartbeat, zero=False)
        arguments.instance("resume_after", resume_after, (BinlogPosition, str), "what was kept, a BinlogPosition")
        arguments.instance("checkpoint", checkpoint, (Path, str), "the Path of a file")
        arguments.instance("spill", spill, Path, "the Path of a directory")
        arguments.instance("reconnect", reconnect, RetryPolicy, "a RetryPolicy", optional=False)
        if server_id is not None and (type(server_id) is not int or not 0 < server_id < 1 << 32):
            raise SettingsError(f"{server_id} is no server_id.", "Use one from 1 to 4294967295, or leave it out.")
        super().__init__(name, Handlers(name, retry=retry, dead_letters=dead_letters, group=group or name))
        self.address = MySQLAddress.parse(address) if isinstance(address, str) else address
        self.tables = tuple(tables)
        self.server_id = server_id or (1 << 30) + secrets.randbelow(3 << 30)
        self._uuid = str(uuid.uuid4())
        self._heartbeat = heartbeat
        self._selection = Selection(tables, self.address.database)
        self._file = PositionFile(Path(checkpoint), name, BinlogPosition.parse) if checkpoint is not None else None
        if isinstance(resume_after, str):
            resume_after = BinlogPosition.parse(resume_after)
        self._lock = threading.RLock()
        self._books = Bookkeeping(resume_after)
        self._kept: BinlogPosition | None = None
        self._kept_at = 0.0
        self._mode = snapshot
        self._left: deque[Transaction] = deque()
        self._again: deque[Transaction] = deque()
        """Rows of a snapshot: that were handed out, and that are to come again."""
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} server_id={self.server_id} {self.address!r}>"

    # -- the stream -------------------------------------------------------------------------------

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
        failpoint("cdc.binlog.before_ack")
        with uninterrupted(), self._lock:
            self._acknowledge(upto)
        self._keep()
        failpoint("cdc.binlog.after_ack")

    def _acknowledge(self, upto: Position | Transaction | Batch) -> None:
        end = upto.end_position if isinstance(upto, (Transaction, Batch)) else upto
        if not isinstance(end, BinlogPosition):
            raise SettingsError(f"{upto!r} is no position of MySQL.", "Give the transaction, or a BinlogPosition.")
        if self._books.handed_out is not None:
            now = self._reader.acknowledge(end)
            if now is not None and now < end:
                log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.name, end)

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
        try:
            self._keep(now=True)
        finally:
            if self._file is not None:
                self._file.release()
            self._questions.close()
