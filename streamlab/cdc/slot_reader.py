"""What reads a replication slot, permanent or temporary: decoder, stream, positions and acknowledgements together."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from streamlab.cdc import slots
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.catalog import CatalogTypes
from streamlab.cdc.followed import Followed
from streamlab.cdc.handling import Handlers
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.preflight import Facts, check
from streamlab.cdc.reader import RECONNECT, StreamReader, Taker
from streamlab.cdc.recording import About, Recorder
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import SettingsError
from streamlab.failpoints import failpoint
from streamlab.retry import RetryPolicy
from streamlab.settings import Dsn
from streamlab.sql import load

if TYPE_CHECKING:
    import psycopg

__all__ = ["SlotReader"]

log = logging.getLogger(__name__)


class SlotReader(Followed):
    """A reader of one slot; see `streamlab.cdc.PostgreSQLCDC` for its parameters, threads and delivery."""

    resumable = True
    """Whether the slot outlives this object."""

    def __init__(
        self,
        dsn: str,
        publication: str,
        slot_name: str,
        *,
        tables: Sequence[str] = (),
        setup_dsn: str | None = None,
        resume_after: LSN | None = None,
        protocol: int = 1,
        binary: bool = False,
        lazy: bool = False,
        two_phase: bool = False,
        retry: RetryPolicy | None = None,
        dead_letters: DeadLetters | None = None,
        group: str | None = None,
        reconnect: RetryPolicy = RECONNECT,
        silence: float = 60.0,
        spill: Path | None = None,
        record: Path | str | None = None,
        tap: Taker | None = None,
    ) -> None:
        super().__init__(
            slot_name, Handlers(slot_name, retry=retry, dead_letters=dead_letters, group=group or slot_name)
        )
        self.dsn = Dsn(str.__str__(dsn))
        self.publication, self.slot_name, self.tables = publication, slot_name, tuple(tables)
        self._setup_dsn = Dsn(str.__str__(setup_dsn or dsn))
        self._resume_after = LSN(resume_after or 0)
        self._protocol, self._binary, self._two_phase, self._silence = protocol, binary, two_phase, silence
        self._reconnect = reconnect
        self._lock = threading.RLock()
        self._books = Bookkeeping(self._resume_after)
        self._catalog = CatalogTypes(self._ordinary)
        self._record_to = record
        self._recorder: Recorder | None = None
        self._asking: psycopg.Connection[Any] | None = None
        self._asking_lock = threading.Lock()
        decoder = Decoder(
            protocol=protocol,
            binary=binary,
            lazy=lazy,
            types=self._catalog.types,
            spill=Spill(spill or _spill_directory()),
            primary_keys=self._catalog.primary_keys,
        )
        self._reader = StreamReader(
            slot_name,
            self._connect,
            decoder,
            bookkeeping=self._books,
            lock=self._lock,
            stopping=self._stopping,
            resumable=self.resumable,
            reconnect=reconnect,
        )
        if tap is not None:
            self._reader.takers.append(tap)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} slot={self.slot_name} publication={self.publication} dsn={self.dsn!r}>"

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

    def _preview(self, connection: psycopg.Connection[Any]) -> None:
        """Refuse before the publication exists: a table without an identity could not be updated any more."""
        check(slots.preview(connection, self._facts(connection), self.tables), slot=False)

    def _facts(self, connection: psycopg.Connection[Any]) -> Facts:
        return slots.gather(
            connection,
            publication=self.publication,
            slot=self.slot_name,
            tables=self.tables,
            resume_after=self._resume_after,
        )

    def _ordinary(self) -> psycopg.Connection[Any]:
        return slots.connect(self.dsn)

    # -- the stream -------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self, position: LSN) -> ReplicationStream:
        """A stream that begins after a position."""

    def _options(self, facts: Facts) -> dict[str, str]:
        options = {"proto_version": str(self._protocol), "messages": "true"}
        if self._binary:
            options["binary"] = "true"
        if self._protocol > 1:
            options["streaming"] = "parallel" if self._protocol > 3 else "on"
        if self._protocol > 2 and facts.slot is not None and facts.slot.two_phase:
            options["two_phase"] = "on"
        return options

    def _record(self, facts: Facts) -> None:
        """A stream has begun: write down what it brings, if that is asked for."""
        for taker in self._reader.takers:
            taker.restart()
        if self._record_to is None or self._recorder is not None:
            return
        about = About(
            ".".join(map(str, divmod(facts.server.version, 10_000))),
            protocol=self._protocol,
            binary=self._binary,
            publications=(self.publication,),
            start=self._books.start,
            primary_keys=self._catalog.primary_keys,
        )
        recorder = self._recorder = Recorder(self._record_to, about)
        self._reader.takers.append(recorder)
        if self._catalog.resolved:
            recorder.types(self._catalog.resolved)
        self._catalog.tell = recorder.types

    def _rewind(self) -> None:
        self._reader.rewind()

    def _open(self) -> None:
        self._reader.open()

    def _next(self, timeout: float | None) -> Transaction | None:
        return self._reader.get(timeout)

    def _disconnect(self) -> None:
        self._reader.disconnect()

    # -- acknowledgement --------------------------------------------------------------------------

    @property
    def received(self) -> LSN | None:
        """End of the last transaction that was handed out."""
        return self._books.handed_out or None

    @property
    def streamed(self) -> LSN | None:
        """How far the stream was received: beyond `received`, where transactions wait here or are still open."""
        return self._books.write or None

    @property
    def acknowledged(self) -> LSN | None:
        """Up to where the server may forget."""
        return max(self._books.flush, self._books.acknowledged) or None

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable. The server is told within milliseconds, and at `close`.

        Parameters
        ----------
        upto : Transaction, Batch or LSN
            A transaction stands for its `end_position`. An LSN that is less, such as its `position`, brings the
            transaction again. Never goes backwards, and never beyond what was handed out.
        """
        end = upto.end_position if isinstance(upto, (Transaction, Batch)) else upto
        if not isinstance(end, LSN):
            raise SettingsError(f"{upto!r} is no position of PostgreSQL.", "Give the transaction, or an LSN.")
        failpoint("cdc.before_ack")
        if end > self._reader.acknowledge(end):
            log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.slot_name, end)
        failpoint("cdc.after_ack")

    def lag(self) -> Lag:
        """How far this reader is behind the server. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        with self._asking_lock:
            for attempt in (1, 2):
                if self._asking is None or self._asking.closed:
                    self._asking = self._ordinary()
                try:
                    row: Any = self._asking.execute(load("postgres_capture")["written"]).fetchone()
                    break
                except slots.LOST as error:
                    self._asking.close()
                    if attempt == 2:
                        raise slots.refused(error, "The question for the lag") from error
        return self._reader.lag(LSN.parse(row[0]))

    def close(self) -> None:
        """Let go of all connections. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._reader.disconnect()
        if self._recorder is not None:
            self._recorder.close()
        with self._asking_lock:
            if self._asking is not None:
                self._asking.close()
                self._asking = None


def _spill_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"streamlab-spill-{os.getuid()}"
