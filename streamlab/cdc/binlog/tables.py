"""The tables that a binary log has described up to one place of it, and the transactions whose rows wait as bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from streamlab.cdc.binlog.events import BODY, Event, malformed
from streamlab.cdc.binlog.rowcode import RowsDecoder, row_decoder
from streamlab.cdc.binlog.table_map import Table, named, read
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.spill import Spool
from streamlab.cdc.wire import MALFORMED
from streamlab.errors import SettingsError

__all__ = ["SKIP", "LargeChanges", "Selection", "Tables", "Wanted"]

Wanted = Callable[[str, str], bool]
"""(schema, table) -> whether its changes are wanted."""

SYSTEM: Final = frozenset({"mysql", "sys", "information_schema", "performance_schema"})
_CACHED = 512
_ID: Final = slice(BODY, BODY + 6)


def SKIP(  # noqa: N802 - a constant, and found beside decoders
    packet: bytes, end: int, time: datetime, xid: str, position: Any, events: list[ChangeEvent], n: int
) -> None:
    """The decoder of rows that nobody wants."""


class Selection:
    """Which tables are wanted. Immutable; threads may share it.

    Parameters
    ----------
    names : iterable of str
        ``database.table``, ``table``, ``database.*``; empty for all but MySQL's own.
    database : str
        Where a name without a database is.

    Attributes
    ----------
    named : frozenset of (str, str)
        The tables that are named one by one.
    """

    def __init__(self, names: Iterable[str] = (), database: str = "") -> None:
        tables, databases = set[tuple[str, str]](), set[str]()
        for name in names:
            schema, dot, table = name.partition(".")
            if not dot:
                schema, table = database, name
            if not schema or not table:
                raise SettingsError(f"{name!r} names no table of MySQL.", "Name it with its database: shop.orders.")
            if table == "*":
                databases.add(schema)
            else:
                tables.add((schema, table))
        self.named, self._databases = frozenset(tables), frozenset(databases)

    def __call__(self, schema: str, table: str) -> bool:
        """Whether a table is one of them."""
        if not self.named and not self._databases:
            return schema not in SYSTEM
        return schema in self._databases or (schema, table) in self.named


class _Known:
    """A table, as one Table_map event describes it, and the decoders that were made for it."""

    __slots__ = ("_decoders", "table")

    def __init__(self, table: Table | None) -> None:
        self.table = table
        self._decoders: dict[Event, RowsDecoder] = {}

    def decoder(self, kind: Event, charsets: Mapping[int, str]) -> RowsDecoder:
        if self.table is None:
            return SKIP
        made = self._decoders.get(kind)
        if made is None:
            made = self._decoders[kind] = row_decoder(self.table, kind, charsets)
        return made


class Tables:
    """The tables of a stream at one place of it.

    Parameters
    ----------
    charsets : mapping of int to str
        Collation -> character set.
    wanted : callable
        Which tables are decoded.

    Attributes
    ----------
    rows : dict of bytes to RowsDecoder
        Type of event and number of the table -> its decoder, for what was seen so far.
    last : bytes
        The body of the last TABLE_MAP event: most often the next one is the same.
    """

    def __init__(self, charsets: Mapping[int, str], wanted: Wanted) -> None:
        self.rows: dict[bytes, RowsDecoder] = {}
        self.last = b""
        self._numbers: dict[bytes, _Known] = {}
        self._known: dict[bytes, _Known] = {}
        self._charsets, self._wanted = charsets, wanted

    def copy(self) -> Tables:
        """One that goes its own way from here."""
        other = Tables(self._charsets, self._wanted)
        other.rows, other._numbers, other._known = dict(self.rows), dict(self._numbers), self._known
        return other

    def clear(self) -> None:
        """Forget the numbers: another stream has others. What was made for a description is kept."""
        self.rows = {}
        self.last = b""
        self._numbers = {}

    def trim(self) -> None:
        """Forget the numbers if they are many, between two transactions: a server counts on, and none comes back."""
        if len(self._numbers) >= _CACHED:
            self.clear()

    def learn(self, packet: bytes, end: int) -> None:
        """Take a TABLE_MAP event; rows behind it are read by it."""
        self.last = packet[BODY:end]
        number, description = packet[_ID], packet[BODY + 8 : end]
        known = self._known.get(description)
        if known is not None and self._numbers.get(number) is known:
            return
        if known is None:
            schema, name, _ = named(packet)
            known = _Known(read(packet, end) if self._wanted(schema, name) else None)
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[description] = known
        self._numbers[number] = known
        for prefix in [prefix for prefix in self.rows if prefix[1:] == number]:
            del self.rows[prefix]

    def decoder(self, prefix: bytes) -> RowsDecoder:
        """The decoder for rows that begin so.

        Raises
        ------
        ValueError
            The table was not described before.
        """
        decode = self.rows.get(prefix)
        if decode is None:
            known = self._numbers.get(prefix[1:])
            if known is None:
                raise ValueError(f"the table with the number {int.from_bytes(prefix[1:], 'little')} was not described")
            decode = self.rows[prefix] = known.decoder(Event(prefix[0]), self._charsets)
        return decode


class LargeChanges:
    """The changes of a large transaction: a first part as events, the rest as bytes, decoded when they are iterated.

    Iterate it as often as you like, from any thread, until `close`. It can raise `ProtocolError`, since the bytes were
    not decoded before. Its length is known after one iteration; asked for earlier, it makes one.
    """

    def __init__(self, spool: Spool, tables: Tables, checksum: int) -> None:
        self.spool = spool
        self._tables, self._checksum = tables, checksum
        self._head: tuple[ChangeEvent, ...] = ()
        self._stamp: tuple[datetime, str, Any]
        self._counts: Counter[str] | None = None
        self._tell: Callable[[Mapping[str, int]], None] | None = None

    def complete(self, head: list[ChangeEvent], time: datetime, xid: str, position: Any) -> None:
        """The transaction has ended: nothing is added any more."""
        self._head, self._stamp = tuple(head), (time, xid, position)

    def __len__(self) -> int:
        if self._counts is None:
            return sum(1 for _ in self)
        return self._counts.total()

    def tally(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        """Tell how many there are of each operation, once they have been iterated to the end: once."""
        if self._counts is None:
            self._tell = tell
        else:
            tell(self._counts)

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        """Give back memory and disk. Idempotent; it also happens when the last reader lets go of it."""
        self.spool.close()

    def __iter__(self) -> Iterator[ChangeEvent]:
        yield from self._head
        counts = Counter(map(itemgetter(0), self._head))
        ordinal, tables = len(self._head), self._tables.copy()
        for packet in self.spool:
            end = len(packet) - self._checksum
            try:
                if packet[5] == Event.TABLE_MAP:
                    tables.learn(packet, end)
                    continue
                events: list[ChangeEvent] = []
                tables.decoder(packet[5:6] + packet[_ID])(packet, end, *self._stamp, events, ordinal)
            except MALFORMED as error:
                raise malformed(packet, str(error)) from error
            yield from events
            ordinal += len(events)
            if events:
                counts[events[0].operation] += len(events)
        self._counts = counts
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(counts)
