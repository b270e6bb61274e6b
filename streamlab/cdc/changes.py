"""What stands between pgoutput's messages and events: the tables a stream has described, and transactions that wait.

`Catalog` finds the decoder of a row by the first eight bytes of its message. `Stretch` is a transaction whose messages
wait as bytes; `SpooledChanges` are its events, decoded each time that they are iterated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.position import LSN
from streamlab.cdc.rowcode import KINDS, RowDecoder, row_decoder
from streamlab.cdc.spill import Spool
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import MALFORMED, START, LogicalMessage, Relation, malformed, relation, truncated

__all__ = ["Catalog", "SpooledChanges", "Stretch"]

_CACHED = 512
"""Compiled decoders that are kept: the server describes a table again after each change of anything near it."""

_OPERATIONS = {
    b"I": Operation.INSERT, b"U": Operation.UPDATE, b"D": Operation.DELETE, b"T": Operation.TRUNCATE,
    b"M": Operation.MESSAGE,
}  # fmt: skip


class Catalog:
    """The tables of a stream at one place of it.

    Parameters
    ----------
    types, binary, lazy, primary_keys, ask_key
        As for `Decoder`.

    Attributes
    ----------
    rows : dict of bytes to RowDecoder
        First eight bytes of a message (letter, OID, letter of the first row, number of columns) -> its decoder, for
        what was seen so far.
    """

    def __init__(
        self,
        types: TypeMap,
        *,
        binary: bool,
        lazy: bool,
        primary_keys: Mapping[int, tuple[str, ...]],
        ask_key: Callable[[int], object] | None = None,
    ) -> None:
        self.rows: dict[bytes, RowDecoder] = {}
        self._relations: dict[int, Relation] = {}
        self._types, self._binary, self._lazy, self._primary_keys = types, binary, lazy, primary_keys
        self._ask_key, self._version = ask_key, types.version

    def copy(self) -> Catalog:
        """One that goes its own way from here."""
        other = Catalog(self._types, binary=self._binary, lazy=self._lazy, primary_keys=self._primary_keys)
        if self._version == self._types.version:
            other.rows = dict(self.rows)
        other._relations = dict(self._relations)
        return other

    def clear(self) -> None:
        """Forget every table."""
        self.rows = {}
        self._relations = {}

    def learn(self, message: bytes, at: int, *, anew: bool = True) -> None:
        """Take a Relation message; rows behind it are read by it. `anew`: its types and its key may have changed."""
        described = relation(message, at)
        self.learn_types(described, anew=anew)
        if anew and self._ask_key is not None and not described.tells_key:
            self._ask_key(described.oid)
        self._relations[described.oid] = described
        self.refresh()
        oid = message[at : at + 4]
        for prefix in [prefix for prefix in self.rows if prefix[1:5] == oid]:
            del self.rows[prefix]

    def refresh(self) -> None:
        """Let go of decoders that were built on a type that was altered since, of whichever table."""
        if self._version != self._types.version:
            self.rows.clear()  # in place: a decoder of the stream holds it
            self._version = self._types.version

    def learn_types(self, described: Relation, *, anew: bool = False) -> None:
        """Have the types of its columns resolved, if they are new; `anew`, if they may have been altered."""
        self._types.learn((column.type_oid for column in described.columns), anew=anew)

    def adopt(self, stretch: Stretch) -> None:
        """Take the tables as a transaction left them that waited."""
        for message in stretch.relations.values():
            self.learn(message, stretch.fields)

    def _relation(self, oid: int) -> Relation:
        found = self._relations.get(oid)
        if found is None:
            raise ValueError(f"the table with OID {oid} was not described before")
        return found

    def decoder(self, prefix: bytes) -> RowDecoder:
        """The decoder for messages that begin so.

        Raises
        ------
        ValueError
            There can be no such message.
        """
        decode = self.rows.get(prefix)
        if decode is None:
            kind = prefix[:1] + prefix[5:6]
            if len(prefix) < 8 or kind not in KINDS:
                raise ValueError("no row can begin like this")
            described = self._relation(int.from_bytes(prefix[1:5], "big"))
            if len(described.columns) != int.from_bytes(prefix[6:8], "big"):
                raise ValueError(f"its table has {len(described.columns)} columns")
            key = described.key(self._primary_keys)
            cache, name = self._types.cache, (described, kind, key, self._binary, self._lazy)
            decode = cache.get(name)
            if decode is None:
                decode = row_decoder(described, kind, self._types, binary=self._binary, lazy=self._lazy, key=key)
                if len(cache) >= _CACHED:
                    cache.clear()
                cache[name] = decode
            self.rows[prefix] = decode
        return decode

    def truncate(self, oid: int, time: datetime, xid: str, position: LSN, ordinal: int) -> ChangeEvent:
        """The event of one truncated table."""
        table = self._relation(oid)
        return ChangeEvent(
            Operation.TRUNCATE, table.schema, table.name, NOTHING, NOTHING, time, xid, position, ordinal,
            table.key(self._primary_keys),
        )  # fmt: skip

    @staticmethod
    def message(read: LogicalMessage, time: datetime, xid: str, position: LSN, ordinal: int) -> ChangeEvent:
        """The event of a logical message."""
        content = {"prefix": read.prefix, "content": read.content, "transactional": read.transactional}
        return ChangeEvent(Operation.MESSAGE, "", "", NOTHING, content, time, xid, position, ordinal)


class Stretch:
    """The messages of a transaction, or of the rest of one, which wait for its end.

    Attributes
    ----------
    spool : Spool
        The messages.
    catalog : Catalog
        The tables as they were where it begins.
    streamed : bool
        Whether each message names its (sub)transaction.
    fields : int
        Where the fields of a message begin.
    relations : dict of int to bytes
        OID -> the last Relation message in it. A savepoint that is rolled back takes none back: if the table was
        changed, the server describes it again.
    """

    __slots__ = (
        "_counts", "aborted", "catalog", "fields", "origin", "position", "relations", "spool", "streamed", "xid",
    )  # fmt: skip

    def __init__(self, spool: Spool, catalog: Catalog, *, streamed: bool, xid: int = 0) -> None:
        self.spool, self.catalog, self.streamed, self.xid = spool, catalog, streamed, xid
        self.fields = START + (5 if streamed else 1)
        self.position = LSN(0)
        self.origin = ""
        self.relations: dict[int, bytes] = {}
        self.aborted: set[bytes] = set()
        self._counts: defaultdict[bytes, int] = defaultdict(int)
        """Letter of the message, and of a streamed one its subtransaction -> events."""

    def add(self, message: bytes, count: int = 1) -> None:
        """A message of so many events."""
        if len(message) < self.fields + 5:
            raise ValueError("it is cut short")
        self._counts[message[25:30] if self.streamed else message[25:26]] += count
        self.spool.append(message)

    def relation(self, message: bytes) -> None:
        """A Relation message."""
        described = relation(message, self.fields)
        # Asked for while it is received, so that reading the changes asks nobody. Whether one was altered is asked when
        # it is over: what a transaction in progress makes of a type, the catalog does not show before.
        self.catalog.learn_types(described)
        self.relations[described.oid] = message
        self.spool.append(message)

    def abort(self, subxid: int) -> None:
        """Take one subtransaction back."""
        key = subxid.to_bytes(4, "big")
        for letter in _OPERATIONS:
            self._counts.pop(letter + key, None)
        self.aborted.add(key)

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def operations(self) -> Counter[str]:
        """How many events of each operation."""
        counts: Counter[str] = Counter()
        for key, count in self._counts.items():
            counts[_OPERATIONS[key[:1]]] += count
        return counts


class SpooledChanges:
    """The changes of a large transaction: a first part as events, the rest as bytes, decoded when they are iterated.

    Iterate it as often as you like, from any thread, until `close`. It can raise `ProtocolError`, since the bytes were
    not checked before.
    """

    def __init__(
        self, stretch: Stretch, head: tuple[ChangeEvent, ...], time: datetime, xid: str, position: LSN
    ) -> None:
        self._stretch, self._head, self._time, self._xid, self._position = stretch, head, time, xid, position
        self._count = len(head) + len(stretch)

    @property
    def stretch(self) -> Stretch:
        """The messages that waited."""
        return self._stretch

    def __len__(self) -> int:
        return self._count

    def tally(self, tell: Callable[[Mapping[str, int]], None]) -> None:
        """Tell at once how many there are of each operation: nothing is decoded for it."""
        tell(self._stretch.operations + Counter(event.operation for event in self._head))

    def close(self) -> None:
        """Give back memory and disk. Idempotent; it also happens when the last reader lets go of it."""
        self._stretch.spool.close()

    def __iter__(self) -> Iterator[ChangeEvent]:
        yield from self._head
        stretch, time, xid, position = self._stretch, self._time, self._xid, self._position
        catalog, fields, aborted = stretch.catalog.copy(), stretch.fields, stretch.aborted
        first, ordinal = fields + 7, len(self._head)
        events: list[ChangeEvent] = []
        for message in stretch.spool:
            kind = message[25]
            try:
                if kind == 82:  # R
                    catalog.learn(message, fields, anew=False)
                    continue
                if aborted and message[26:30] in aborted:
                    continue
                if kind in {73, 85, 68}:  # I, U, D
                    prefix = message[25:26] + message[fields : fields + 7]
                    decode = catalog.rows.get(prefix) or catalog.decoder(prefix)
                    events.clear()
                    decode((message,), first, time, xid, position, ordinal, events.append)
                elif kind == 77:  # M
                    events = [catalog.message(LogicalMessage.read(message, fields), time, xid, position, ordinal)]
                else:
                    tables = enumerate(truncated(message, fields), ordinal)
                    events = [catalog.truncate(oid, time, xid, position, at) for at, oid in tables]
            except MALFORMED as error:
                raise malformed(message, str(error)) from error
            yield from events
            ordinal += len(events)
