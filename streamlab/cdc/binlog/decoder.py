"""The decoder of MySQL's binary log: packets in, `Transaction`s out. No I/O.

Each transaction of the log gives one `Transaction`, also where it holds nothing that is wanted: then without changes,
for its identifier has to get into the set that a reader goes on from. Its time and position are known where it begins,
so events are made at once; what is beyond the bounds of `Spill` waits as bytes, and is decoded when it is iterated.

A transaction that is prepared (XA) waits here for its commit. Until then its identifier is in no position that is
handed out, so the server sends it again to whoever goes on from one.

What would lose changes without a word is refused: rows that are not logged whole, statements in place of rows,
compressed transactions, transactions without an identifier.

Source: see `streamlab.cdc.binlog.events`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final
from zlib import crc32

from streamlab.cdc.binlog import events as wire
from streamlab.cdc.binlog.charsets import KNOWN
from streamlab.cdc.binlog.events import BODY, CHECKSUM, EPOCH, Event, Gtid, Query, malformed
from streamlab.cdc.binlog.position import BinlogPosition, GTIDSet
from streamlab.cdc.binlog.tables import SKIP, LargeChanges, Selection, Tables, Wanted
from streamlab.cdc.binlog.unreadable import refuse_event, refuse_statement
from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.wire import MALFORMED
from streamlab.errors import ChangeStreamError, ProtocolError

__all__ = ["Decoder"]

_ROWS = frozenset({30, 31, 32})
_TABLE_MAP = 19
_ID: Final = slice(BODY, BODY + 6)
_BEFORE_ZERO: Final = 0xF6A7026
"""A CRC32 that becomes 0 with the zero before an event: so an event is checked without a copy of it."""
_WHOLE: Final = 0x2144DF1C
"""The CRC32 of anything that ends with its own CRC32."""
_XA = re.compile(r"XA\s+(START|END|COMMIT|ROLLBACK)\s+(.*)", re.IGNORECASE | re.DOTALL)
_ORDINARY: Final = Selection()


class Decoder:
    """Decodes one stream. Used by one thread.

    After an error it is of no use until `restart`.

    Parameters
    ----------
    charsets : mapping of int to str
        Collation -> character set; by default those that every server has.
    wanted : callable, optional
        (schema, table) -> whether its changes are decoded; by default all but MySQL's own tables.
    spill : Spill, optional
        Where large transactions wait; by default in memory, without a bound.

    Attributes
    ----------
    file, offset : str and int
        How far the log was read.
    gtids : GTIDSet
        What is past.
    """

    def __init__(
        self, *, charsets: Mapping[int, str] = KNOWN, wanted: Wanted = _ORDINARY, spill: Spill | None = None
    ) -> None:
        self._spill = spill or Spill()
        self._wanted = wanted
        self._tables = Tables(charsets, wanted)
        self._kinds: dict[int, Callable[[bytes, int], Transaction | None]] = {
            Event.QUERY: self._query, Event.XID: self._commit, Event.GTID: self._gtid,
            Event.GTID_TAGGED: self._gtid_tagged, Event.TABLE_MAP: self._table_map, Event.ROTATE: self._rotate,
            Event.XA_PREPARE: self._xa_prepare, Event.HEARTBEAT: self._heartbeat, Event.HEARTBEAT_V2: self._heartbeat,
        }  # fmt: skip
        self.gtids = GTIDSet()
        self.restart(self.gtids)

    def restart(self, gtids: GTIDSet) -> None:
        """A stream begins, in which a set of transactions is past. What was incomplete is forgotten: it comes again."""
        self._spill.close()
        self._tables.clear()
        self.gtids = self._origin = gtids
        self.file, self.offset = "", 0
        self._checksum = 0
        self._described = False
        self._prepared: dict[str, tuple[Gtid, list[ChangeEvent], LargeChanges | None]] = {}
        self._clear()

    def reset(self) -> None:
        """Forget what is incomplete, and begin where the stream last began."""
        self.restart(self._origin)

    def close(self) -> None:
        """Give back memory and disk."""
        self.reset()

    def _clear(self) -> None:
        self._begun: Gtid | None = None
        self._inside = False
        self._events: list[ChangeEvent] = []
        self._waiting: LargeChanges | None = None
        self._size = 0

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or prepared."""
        return self._begun is not None or bool(self._prepared)

    @property
    def hold(self) -> GTIDSet | None:
        """The prepared transactions, which are in no position yet, see above; None while there is none."""
        if not self._prepared:
            return None
        gtids = GTIDSet()
        for begun, _, _ in self._prepared.values():
            gtids = gtids.add(begun.source, begun.number)
        return gtids

    @property
    def place(self) -> BinlogPosition:
        """How far the log was read, as a position."""
        return BinlogPosition(self.file, self.offset, self.gtids)

    def receive(self, packets: Sequence[bytes]) -> list[Transaction]:
        """Take packets, and give the transactions that they completed, in the order of their commits.

        Parameters
        ----------
        packets : sequence of bytes
            Each a whole packet of the stream: a zero, and an event.

        Raises
        ------
        ProtocolError
            A packet is not what the protocol allows, at this place or at all.
        CannotCapture
            The log holds what cannot be read as rows; the message says what to set.
        ChangeStreamError
            A large transaction could not be written to disk, or the log itself says that it lacks events.
        """
        done: list[Transaction] = []
        tables = self._tables
        # What most packets are is decided here, since this runs for every one.
        for packet in packets:
            try:
                kind = packet[5]
                checksum = self._checksum
                if checksum and crc32(packet, _BEFORE_ZERO) != _WHOLE and kind != Event.FORMAT_DESCRIPTION:
                    raise ValueError("its checksum does not fit")
                end = len(packet) - checksum
                if kind in _ROWS and self._inside:
                    prefix = packet[5:6] + packet[_ID]
                    decode = tables.rows.get(prefix) or tables.decoder(prefix)
                    if self._waiting is None:
                        events = self._events
                        decode(packet, end, self._time, self._xid, self._position, events, len(events))
                    elif decode is not SKIP:
                        self._waiting.spool.append(packet)
                    continue
                if kind == _TABLE_MAP and self._inside and self._waiting is None:
                    if packet[BODY:end] != tables.last:
                        tables.learn(packet, end)
                    continue
                transaction = self._other(packet, kind, end)
            except ProtocolError:
                raise
            except MALFORMED as error:
                raise malformed(packet, str(error) or "it is cut short") from error
            if transaction is not None:
                done.append(transaction)
        self._bound(packets)
        return done

    def _bound(self, packets: Sequence[bytes]) -> None:
        """Keep memory within its bounds."""
        if self._begun is not None and self._waiting is None:
            self._size += sum(map(len, packets))
            if self._size > self._spill.eager:
                # From here on, this transaction waits as bytes.
                self._waiting = LargeChanges(self._spill.spool(), self._tables.copy(), self._checksum)
        self._spill.relieve()

    def _other(self, packet: bytes, kind: int, end: int) -> Transaction | None:
        if packet[0] != 0 or end < BODY:
            raise ValueError("it is no event")
        if kind in _ROWS:
            raise ValueError("it is outside of a transaction")
        handler = self._kinds.get(kind)
        if handler is not None:
            return handler(packet, end)
        refuse_event(kind)
        if kind == Event.FORMAT_DESCRIPTION:
            self._checksum = CHECKSUM if wire.checksummed(packet) else 0
            self._described = True
        return None

    def _moved(self, packet: bytes) -> int:
        """The place of an event's end, in whole: the header has its low 32 bits alone."""
        low = wire.header_end(packet)
        offset = (self.offset >> 32) << 32 | low
        return offset if offset >= self.offset else offset + (1 << 32)

    # -- places -----------------------------------------------------------------------------------

    def _rotate(self, packet: bytes, end: int) -> None:
        if not self._described and crc32(packet[1:-CHECKSUM]) == int.from_bytes(packet[-CHECKSUM:], "little"):
            end = len(packet) - CHECKSUM  # the first event comes before it is said whether there are checksums
        self.file, self.offset = wire.rotation(packet, end)

    def _heartbeat(self, packet: bytes, end: int) -> None:
        told = wire.heartbeat(packet, end)
        if told is not None and self._begun is None and told[0] == self.file:
            self.offset = max(self.offset, told[1])

    # -- transactions -----------------------------------------------------------------------------

    def _gtid(self, packet: bytes, end: int) -> None:
        self._begin(packet, Gtid.read(packet, end))

    def _gtid_tagged(self, packet: bytes, end: int) -> None:
        self._begin(packet, Gtid.read_tagged(packet, end))

    def _begin(self, packet: bytes, begun: Gtid) -> None:
        if self._begun is not None:
            raise ValueError("a transaction is still open")
        if not self.file:
            raise ValueError("the log has not said which file this is")
        size = len(packet) - 1
        self.offset = self._moved(packet)
        self._clear()
        self._tables.trim()
        self._begun = begun
        self._xid = str(begun)
        self._time = begun.time or EPOCH + timedelta(seconds=int.from_bytes(packet[1:5], "little"))
        self._position = BinlogPosition(self.file, self.offset - size, self.gtids)

    def _table_map(self, packet: bytes, end: int) -> None:
        if not self._inside:
            raise ValueError("it is outside of a transaction")
        self._tables.learn(packet, end)
        if self._waiting is not None:
            self._waiting.spool.append(packet)

    def _query(self, packet: bytes, end: int) -> Transaction | None:
        if packet[end - 6 : end] == b"\0BEGIN":
            if self._begun is None or self._inside:
                raise ValueError("a transaction begins where none can")
            self._inside = True
            return None
        query = Query.read(packet, end)
        text = query.text.strip()
        if (match := _XA.fullmatch(text)) is not None:
            return self._xa(packet, match[1].upper(), _normal(match[2]))
        if self._begun is None:
            # What has no identifier has no row of a table: statements on temporary tables.
            return None
        if not self._inside:
            self._truncated(query)
            return self._commit(packet, end)
        if text.upper() == "COMMIT":
            return self._commit(packet, end)
        if text.upper() == "ROLLBACK":
            self._events, self._waiting = [], None
            return self._commit(packet, end)
        refuse_statement(query.schema, text)
        return None

    def _truncated(self, query: Query) -> None:
        table = wire.truncated_table(query)
        if table is not None and self._wanted(*table):
            self._events.append(
                ChangeEvent(
                    Operation.TRUNCATE, *table, NOTHING, NOTHING, self._time, self._xid, self._position,
                    len(self._events),
                )
            )  # fmt: skip

    def _commit(self, packet: bytes, end: int) -> Transaction:
        begun = self._begun
        if begun is None:
            raise ValueError("no transaction is open")
        return self._ended(packet, begun, self._events, self._waiting)

    def _ended(
        self, packet: bytes, begun: Gtid, events: list[ChangeEvent], waiting: LargeChanges | None, *also: Gtid
    ) -> Transaction:
        self._move(packet, begun)
        gtids = self.gtids
        for each in (*also, begun):
            gtids = gtids.add(each.source, each.number)
        self.gtids = gtids
        changes: LargeChanges | tuple[ChangeEvent, ...] = tuple(events)
        if waiting is not None:
            waiting.complete(events, self._time, self._xid, self._position)
            self._spill.forget(waiting.spool)
            changes = waiting
        end_position = BinlogPosition(self.file, self.offset, gtids)
        transaction = Transaction(self._position, end_position, self._xid, self._time, changes)
        self._clear()
        return transaction

    def _move(self, packet: bytes, begun: Gtid) -> None:
        whole = self._position.offset + begun.length
        self.offset = whole if begun.length and whole & 0xFFFFFFFF == wire.header_end(packet) else self._moved(packet)

    # -- two-phase commit ---------------------------------------------------------------------------

    def _xa(self, packet: bytes, verb: str, name: str) -> Transaction | None:
        begun = self._begun
        if begun is None:
            raise ValueError("no transaction is open")
        if verb == "START":
            self._inside = True
            return None
        if verb == "END":
            return None
        kept = self._prepared.pop(name, None)
        if kept is None and verb == "COMMIT":
            raise ChangeStreamError(
                f"The XA transaction {name} is committed, and was prepared before this stream began: its changes are "
                "not in it.",
                "Begin again, with a new snapshot, while no XA transaction is prepared (XA RECOVER lists them).",
            )
        if kept is None:
            return self._ended(packet, begun, [], None)
        first, events, waiting = kept
        if verb == "ROLLBACK":
            return self._ended(packet, begun, [], None, first)
        stamped = [
            event._replace(commit_timestamp=self._time, transaction_id=self._xid, position=self._position)
            for event in events
        ]
        return self._ended(packet, begun, stamped, waiting, first)

    def _xa_prepare(self, packet: bytes, end: int) -> Transaction | None:
        begun = self._begun
        if begun is None or not self._inside:
            raise ValueError("no transaction is open")
        name, at_once = wire.prepared(packet, end)
        if at_once:
            return self._commit(packet, end)
        self._move(packet, begun)
        self._prepared[name] = (begun, self._events, self._waiting)
        self._clear()
        return None


def _normal(name: str) -> str:
    """The name of an XA transaction in one form."""
    return "".join(name.split()).lower().replace("x'", "X'")
