"""What reads a replication slot, permanent or temporary: decoder, stream, positions and acknowledgements together."""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from streamlab.cdc import arguments, gathering, slots
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.asked import AskedFor
from streamlab.cdc.catalog import CatalogTypes
from streamlab.cdc.connected import RECONNECT
from streamlab.cdc.decoding import StreamDecoder, Taker
from streamlab.cdc.facts import Facts
from streamlab.cdc.handling import Handlers
from streamlab.cdc.incremental import PREFIX
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.position import LSN
from streamlab.cdc.preflight import check
from streamlab.cdc.questions import SlotQuestions
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.recording import About, Recorder
from streamlab.cdc.replication import ReplicationStream
from streamlab.cdc.slot_progress import SlotProgress
from streamlab.cdc.spill import Spill, default_directory
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.watch import PublicationWatch
from streamlab.dead_letters import DeadLetters
from streamlab.errors import SettingsError
from streamlab.retry import RetryPolicy
from streamlab.settings import Dsn

if TYPE_CHECKING:
    import psycopg

__all__ = ["SlotReader"]

_LAST: Final = (1 << 64) - 1
"""The last LSN that there can be."""


class SlotReader(SlotProgress):
    """A reader of one slot; see `streamlab.cdc.PostgreSQLCDC` for its parameters, threads and delivery."""

    position_type = LSN

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
        messages: bool | Collection[str] = False,
    ) -> None:
        _check_names(dsn, slot_name, publication, setup_dsn)
        arguments.names("tables", tables)
        arguments.instance("resume_after", resume_after, int, "what was kept, an LSN: LSN.parse('0/16B3748')")
        if resume_after is not None:
            # As a plain number: an LSN below 0 is shown as a text that nobody knows.
            plain = resume_after if isinstance(resume_after, bool) else int(resume_after)
            arguments.count("resume_after", plain, least=0, most=_LAST)
        arguments.count("protocol", protocol, most=4)
        for option, value in (("binary", binary), ("lazy", lazy), ("two_phase", two_phase)):
            arguments.flag(option, value)
        arguments.seconds("silence", silence, zero=False)
        arguments.instance("reconnect", reconnect, RetryPolicy, "a RetryPolicy", optional=False)
        arguments.instance("spill", spill, Path, "the Path of a directory")
        arguments.instance("record", record, (Path, str), "the Path of a new file")
        arguments.instance("tap", tap, Taker, "something that takes messages: streamlab.lab.Inspector()")
        if group is not None:
            arguments.name_of("a group", group)
        super().__init__(
            slot_name, Handlers(slot_name, retry=retry, dead_letters=dead_letters, group=group or slot_name)
        )
        self.dsn = Dsn(str.__str__(dsn))
        self.publication, self.slot_name, self.tables = publication, slot_name, tuple(tables)
        self._setup_dsn = Dsn(str.__str__(setup_dsn or dsn))
        self._resume_after = LSN(resume_after or 0)
        self._protocol, self._binary, self._two_phase, self._silence = protocol, binary, two_phase, silence
        self._lazy, self._spill = lazy, spill or default_directory()
        self._reconnect = reconnect
        self._lock = threading.RLock()
        self._books = Bookkeeping(self._resume_after)
        self._catalog = CatalogTypes(self._ordinary)
        self._record_to = record
        self._recorder: Recorder | None = None
        self._served_by: set[int] = set()
        """Processes of the server that have read the slot for this object."""
        self._questions = SlotQuestions(self._ordinary, slot_name)
        self._takers: list[Taker] = [] if tap is None else [tap]
        self._asked_for = AskedFor(messages, lambda: PREFIX if self._chunked == self._iteration else None)
        self._watch = PublicationWatch(self._look_beside)
        self._chunked = -1
        """The iteration that reads chunks: their watermarks are messages."""
        self._events = self._stream_reader(self._decoder(protocol))
        self._reader = self._events

    def __repr__(self) -> str:
        return f"<{type(self).__name__} slot={self.slot_name} publication={self.publication} dsn={self.dsn!r}>"

    def _decoder(self, protocol: int) -> Decoder:
        return Decoder(
            protocol=protocol,
            binary=self._binary,
            lazy=self._lazy,
            types=self._catalog.types,
            spill=Spill(self._spill),
            primary_keys=self._catalog.primary_keys,
            ask_key=self._catalog.ask_key,
        )

    def _stream_reader(self, decoder: StreamDecoder[Any], **options: Any) -> StreamReader[Any]:
        """A reader that shares positions, connection and takers with the others of this object: one reads at a time."""
        return StreamReader(
            self.slot_name,
            self._connect,
            decoder,
            bookkeeping=self._books,
            lock=self._lock,
            stopping=self._stopping,
            resumable=self.resumable,
            reconnect=self._reconnect,
            takers=self._takers,
            wanted=self._asked_for,
            watch=self._watch,
            **options,
        )

    def _use(self, reader: StreamReader[Any]) -> None:
        """From now on this one reads."""
        if reader is not self._reader:
            self._reader.disconnect()
            self._reader = reader

    def _preview(self, connection: psycopg.Connection[Any]) -> None:
        """Refuse before the publication exists: a table without an identity could not be updated any more."""
        check(gathering.preview(connection, self._facts(connection), self.tables), slot=False)

    def _facts(self, connection: psycopg.Connection[Any]) -> Facts:
        return gathering.gather(
            connection,
            publication=self.publication,
            slot=self.slot_name,
            tables=self.tables,
            resume_after=self._resume_after,
        )

    def _look_beside(self) -> Facts:
        with closing(self._ordinary()) as connection:
            return self._facts(connection)

    def _ordinary(self) -> psycopg.Connection[Any]:
        return slots.connect(self.dsn)

    # -- the stream -------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self, position: LSN) -> ReplicationStream:
        """A stream that begins after a position."""

    def _options(self, facts: Facts) -> dict[str, str]:
        options = {"proto_version": str(self._protocol), "messages": "true"}
        if self._catalog.sends_binary:
            options["binary"] = "true"
        if self._protocol > 1:
            options["streaming"] = "parallel" if self._protocol > 3 else "on"
        if facts.slot is not None and facts.slot.two_phase:
            self._check_two_phase()
            options["two_phase"] = "on"
        return options

    def _check_two_phase(self) -> None:
        if self._protocol < 3:
            # The server would send prepared transactions all the same, as messages that this protocol does not have.
            raise SettingsError(
                f"Protocol {self._protocol} has no two-phase commit, and the slot {self.slot_name} has it.",
                "Read it with protocol=3 or 4, or use a slot without two_phase.",
            )

    def _record(self, facts: Facts) -> None:
        """A stream has begun: write down what it brings, if that is asked for."""
        for taker in self._takers:
            taker.restart()
        if self._record_to is None or self._recorder is not None:
            return
        about = About(
            ".".join(map(str, divmod(facts.server.version, 10_000))),
            protocol=self._protocol,
            binary=self._catalog.sends_binary,
            publications=(self.publication,),
            start=self._books.start,
            primary_keys=self._catalog.primary_keys,
        )
        recorder = self._recorder = Recorder(self._record_to, about)
        self._takers.append(recorder)
        if self._catalog.resolved:
            recorder.types(self._catalog.resolved.values())
        self._catalog.tell = recorder.types

    def _rewind(self) -> None:
        self._use(self._events)
        self._events.rewind()

    def _open(self) -> None:
        self._reader.open()

    def _next(self, timeout: float | None, upto: LSN | None = None) -> Transaction | None:
        return self._events.get(timeout, upto)

    def _disconnect(self) -> None:
        self._reader.disconnect()

    def close(self) -> None:
        """Let go of all connections. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._reader.disconnect()
        if self._recorder is not None:
            self._recorder.close()
        self._questions.close()


def _check_names(dsn: object, slot_name: object, publication: object, setup_dsn: object) -> None:
    """Say what is no such thing, before a server is asked."""
    arguments.instance("setup_dsn", setup_dsn, str, "the address as a string: postgresql://...")
    if not isinstance(dsn, str):
        raise SettingsError(f"dsn is a {type(dsn).__name__}, and no address.", "Give a string: postgresql://...")
    if not isinstance(slot_name, str) or not re.fullmatch("[a-z0-9_]{1,63}", slot_name):
        raise SettingsError(
            f"{slot_name!r} cannot be the name of a replication slot.",
            "Use lower-case letters, digits and underscores, at most 63 of them.",
        )
    arguments.name_of("a publication", publication)
