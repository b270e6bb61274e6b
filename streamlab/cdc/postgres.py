"""`PostgreSQLCDC`: the changes of a PostgreSQL, from its write-ahead log, with whole transactions in commit order.

The log is decoded by the server (plug-in pgoutput) for a publication, which says what, and a replication slot, which
says how far. The slot keeps the log until its reader acknowledges; so nothing is lost while the reader is away, and a
slot that is forgotten fills the disk: `drop` it, or use a `session`, whose slot goes with its connection.

Delivery is at least once, in commit order, keyed by ``(position, ordinal)``. It becomes exactly once in effect where
the sink stores the position in its own transaction, and hands it back as `resume_after` when it starts.

Source: PostgreSQL's manual, "Logical Decoding" and "Streaming Replication Protocol".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from streamlab.cdc import arguments, gathering, slots
from streamlab.cdc.chunks import ChunkedSnapshot, ChunkReader
from streamlab.cdc.facts import Facts
from streamlab.cdc.framed import BulkReader
from streamlab.cdc.incremental import ChunkProgress
from streamlab.cdc.position import LSN
from streamlab.cdc.preflight import check
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.session import CDCSession
from streamlab.cdc.transaction import Transaction
from streamlab.errors import SettingsError, SlotLost, SlotMissing, SlotUnusable

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgreSQLCDC"]

log = logging.getLogger(__name__)


class PostgreSQLCDC(BulkReader):
    """A reader of one replication slot.

    ::

        with PostgreSQLCDC(dsn, publication="shop", slot_name="warehouse", tables=["orders"]) as cdc:
            cdc.initialize()
            for transaction in cdc.transactions():
                store(transaction)
                cdc.acknowledge(transaction)

    Each iteration begins after the last acknowledgement: what was handed out and not acknowledged comes again. Within
    one iteration nothing comes twice, whatever happens to the connection. An interrupted cell takes nothing away.

    Threads: one iterates; `acknowledge`, `lag`, `stop` and the properties may be used from any.

    Parameters
    ----------
    dsn : str
        As a role with REPLICATION, and SELECT on the tables.
    publication : str
        Says which tables.
    slot_name : str
        Says how far this reader has come. One reader at a time.
    tables : sequence of str, optional
        What the publication has to hold, and is made for, exactly. By default it is taken as it is. Should one leave it
        while it is read, the server just sends nothing more of it: within half a minute the iteration ends with
        `PublicationUnusable`; of a publication that is taken as it is, a warning says so.
    setup_dsn : str, optional
        As the role that owns the tables, which makes and drops the publication. By default `dsn`.
    resume_after : LSN, optional
        The end of the last transaction whose effect the sink holds: it and all before it are passed over, and
        acknowledged. The slot has to be the one that was read by then. One that was made anew has lost what lies
        between, and PostgreSQL does not tell them apart: a slot that keeps nothing any more from there on gets a
        warning, as does one that was quiet for long.
    protocol : int
        Of pgoutput, 1 to 4. From 2 on, large transactions come while they are in progress; from 3 on, a slot that was
        made with `two_phase` sends prepared ones.
    binary : bool
        Whether values travel in PostgreSQL's binary form. Where a published column has none (an array of ``aclitem``),
        they travel as text, and that is logged.
    lazy : bool
        Whether a row is decoded when it is first looked at.
    two_phase : bool
        Whether the slot is made so; it cannot be changed later.
    retry, dead_letters : RetryPolicy and DeadLetters, optional
        What becomes of a change whose handler fails, see `streamlab.cdc.handling`. By default the stream stops.
    group : str, optional
        Whose dead letters these are; by default the slot's name.
    reconnect : RetryPolicy
        For how long a lost connection is made again.
    silence : float
        Seconds without a sign of life after which a connection counts as lost.
    spill : Path, optional
        A directory for transactions that do not fit into memory.
    record : Path, optional
        A new file, to which the stream is written as it is received, until `close`; `streamlab.cdc.Recording` reads it.
        Rows of a snapshot are not in it, for they are not in the log.
    tap : Taker, optional
        Gets the messages as they are received, before they are decoded: `streamlab.lab.Inspector` is one.
    messages : bool or collection of str
        Whether transactions are handed out that hold logical messages and nothing else, or the prefixes of those that
        are. The server sends every program's to each reader of its database. Beside rows messages come in any case.
    """

    @staticmethod
    def session(
        dsn: str,
        tables: Sequence[str] = (),
        *,
        publication: str | None = None,
        snapshot: Literal["never", "initial", "only"] = "never",
        setup_dsn: str | None = None,
        slot_name: str | None = None,
        **options: Any,
    ) -> CDCSession:
        """A reader that leaves nothing behind: its temporary slot goes with its connection, however that ends.

        ::

            with PostgreSQLCDC.session(dsn, ["orders"], snapshot="initial") as cdc:
                for transaction in cdc.transactions():
                    ...

        Parameters
        ----------
        dsn : str
            As a role with REPLICATION, and SELECT on the tables.
        tables : sequence of str
            What to read. May be left out where a publication is given.
        publication : str, optional
            By default one of the session's own is made, and dropped at the end.
        snapshot : {"never", "initial", "only"}
            Whether the rows that are there come first, as SNAPSHOT events or in frames, and whether the stream follows:
            from exactly there, with no gap and no overlap. `CDCSession.snapshot_progress` tells how far it has come.
        setup_dsn : str, optional
            As the role that owns the tables, which makes the publication. By default `dsn`.
        slot_name : str, optional
            Of the temporary slot; by default a random one.
        **options
            As for `PostgreSQLCDC`.
        """
        return CDCSession(
            dsn,
            tables,
            publication=publication,
            snapshot=snapshot,
            setup_dsn=setup_dsn,
            slot_name=slot_name,
            **options,
        )

    def snapshot_chunks(
        self, table: str, *, chunk_rows: int = 10_000, resume: ChunkProgress | None = None
    ) -> ChunkedSnapshot:
        """The stream, with the rows that a table holds already added to it in chunks, by its key.

        ::

            chunks = cdc.snapshot_chunks("shop.orders", resume=kept)
            for transaction in chunks:
                with sink.transaction():
                    store(transaction)
                    keep(chunks.progress)
                cdc.acknowledge(transaction)

        For tables that are too big to be read at once: the stream goes on meanwhile, nothing is locked, and a reader
        that was killed goes on behind its last chunk. The rows come as SNAPSHOT events at the end of a transaction that
        marks their place in the log (a MESSAGE event): what came before is older than they are, what comes after is
        newer. A chunk that was handed out and neither kept nor acknowledged is read again; its rows may then come
        twice, with other positions, so apply them by their key. The iteration ends with the last chunk; go on with
        `transactions`. Columns may be added, dropped or changed meanwhile: each chunk comes with those that it was read
        with.

        One assumption: a transaction that was handed out before the snapshot began is visible to everybody when it
        does. It may not be where it still waits for a synchronous standby.

        Parameters
        ----------
        table : str
            One that is published, with a key; a partition, where partitions are published.
        chunk_rows : int
            How many rows are read, and kept in memory, at once.
        resume : ChunkProgress, optional
            Where an earlier snapshot was left.

        Raises
        ------
        CannotCapture
            There is no such table, it is not published, or has no key.
        """

        arguments.name_of("a table", table)
        arguments.instance("resume", resume, ChunkProgress, "the progress that was kept")

        def facts(connection: psycopg.Connection[Any]) -> Facts:
            return gathering.gather(connection, publication=self.publication, slot=self.slot_name, tables=[table])

        def stream() -> Iterator[Transaction]:
            transactions = self.transactions()
            self._chunked = self._iteration
            return transactions

        reader = ChunkReader(self._ordinary, facts, self.publication, self._catalog.types, chunk_rows)
        return ChunkedSnapshot(stream, reader, resume=resume, retry=self._reconnect, stopping=self._stopping)

    # -- setting up -------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Check what has to hold, and make the publication and the slot where they are missing, in this order.

        Idempotent, also while this object reads. Never makes again a slot that was lost, and never changes a
        publication that is there.

        Raises
        ------
        CannotCapture
            A setting, a privilege, a table or the publication is not as it has to be; the message says what to do.
        SlotUnusable
            The slot belongs to something else, is lost, or is in use.
        """
        with closing(self._ordinary()) as connection:
            facts = self._facts_beside(connection)
            check(facts, slot=False, publication=False)
            if facts.publication is None:
                if not self.tables:
                    raise SettingsError(
                        f"There is no publication {self.publication}, and no tables to make it for.",
                        "Name them: tables=[...].",
                    )
                self._preview(connection)
                with closing(slots.connect(self._setup_dsn)) as owner:
                    slots.create_publication(owner, self.publication, self.tables)
                if facts.slot is not None:
                    log.warning(
                        "%s: the slot is older than its publication %s, which was made just now: should a change lie "
                        "between them, the stream refuses to go on",
                        self.slot_name,
                        self.publication,
                    )
            facts = self._facts_beside(connection)
            check(facts, slot=False)
            if self._two_phase if facts.slot is None else facts.slot.two_phase:
                self._check_two_phase()
            elif self._two_phase:
                raise SlotUnusable(
                    f"The slot {self.slot_name} was made without two-phase commit, and that cannot be changed.",
                    "Leave two_phase out; or drop the slot, and make it again.",
                )
            if facts.slot is None:
                if self._resume_after:
                    raise SlotMissing(
                        f"There is no replication slot {self.slot_name}, and with it what follows {self._resume_after} "
                        "is gone: a new one begins now.",
                        "Begin with a new snapshot: without resume_after, and with an empty sink.",
                    )
                slots.create_slot(connection, self.slot_name, two_phase=self._two_phase)
                check(self._facts(connection))

    def _facts_beside(self, connection: psycopg.Connection[Any]) -> Facts:
        """The facts, in which this object's own stream does not count as another reader."""
        facts, stream = self._facts(connection), self._reader.connection
        if not isinstance(stream, ReplicationStream) or facts.slot is None:
            return facts
        if facts.slot.active_pid != stream.backend_pid:
            return facts
        return replace(facts, slot=replace(facts.slot, active_pid=None))

    def drop(self, *, publication: bool = True) -> None:
        """Close, and drop the slot and the publication. Repeatable.

        Parameters
        ----------
        publication : bool
            False leaves the publication, for other readers of it.

        Raises
        ------
        SlotInUse
            Another reader holds the slot.
        CannotCapture
            The role may not drop the publication.
        """
        self.close()
        with closing(self._ordinary()) as connection:
            slots.drop_slot(connection, self.slot_name, own=self._served_by)
        if publication:
            with closing(slots.connect(self._setup_dsn)) as owner:
                slots.drop_publication(owner, self.publication)

    def _connect(self, position: LSN) -> ReplicationStream:
        """Check again, since a server can change between two connections; then start the stream."""
        with closing(self._ordinary()) as connection:
            try:
                facts = self._inspect(connection)
            except SlotMissing as error:
                if not (last := max(self._books.cursor, self._books.acknowledged)):
                    raise
                raise SlotLost(
                    f"The replication slot {self.slot_name} was dropped while it was read, and with it what follows "
                    f"{last} is gone.",
                    "Begin with a new snapshot and an empty sink: cdc.drop(), cdc.initialize().",
                ) from error
        two_phase = "two_phase" in self._options(facts)
        with self._lock:
            self._books.connected(two_phase=two_phase)
        if two_phase:
            position = LSN(0)  # where the slot is; beyond it lie transactions that were prepared and are wanted
        stream = ReplicationStream(self.dsn, bookkeeping=self._books, lock=self._lock, silence=self._silence)
        try:
            self._served_by.add(stream.backend_pid)
            stream.start(self.slot_name, [self.publication], options=self._options(facts), position=position)
            self._record(facts)
        except BaseException:
            stream.close(graceful=False)
            raise
        return stream
