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
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Literal, Self

from streamlab.cdc.binlog.connection import connect
from streamlab.cdc.binlog.log_reader import LogReader
from streamlab.cdc.binlog.position import BinlogPosition
from streamlab.cdc.binlog.snapshot import Snapshot
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.position import Position
from streamlab.cdc.source import Batch
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError
from streamlab.settings import MySQLAddress

__all__ = ["MySQLCDC", "MySQLSession"]

log = logging.getLogger(__name__)


class MySQLCDC(LogReader):
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

    _snapshot: Snapshot | None = None

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

    def _ends(self, upto: Any, position: Any) -> bool:
        # All rows of the snapshot end at one position, and so do those that come again.
        return self._snapshot is None and not self._again and super()._ends(upto, position)

    # -- acknowledgement --------------------------------------------------------------------------

    def _acknowledge(self, upto: Position | Transaction | Batch) -> None:
        for transaction in upto.transactions if isinstance(upto, Batch) else (upto,):
            while self._left and transaction in self._left:
                if self._left.popleft() is transaction:
                    break
        super()._acknowledge(upto)
        if self._books.handed_out is not None:
            # A change of the stream: every row of the snapshot came before it.
            self._left.clear()
        self._settle_snapshot()

    def close(self) -> None:
        """Let go of all connections and of the position file. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._forget_snapshot()
        super().close()


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
