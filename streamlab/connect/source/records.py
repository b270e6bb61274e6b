"""From transactions to records of Kafka: topic, key, value and headers of each change. Pure: no broker, no clock.

Key
    All columns of the primary key as a JSON object, in the table's order: ``{"order_id":7,"line":2}``. Debezium's keys
    are the same bytes (schemas off), and so is the partition. A change without a key has none, and goes to any
    partition: its order is not kept there. Give its topic one partition where that matters.
Value
    An envelope in JSON::

        {"op": "u", "before": {...} or null, "after": {...} or null,
         "source": {"connector": "shop", "schema": "public", "table": "orders", "position": "0/16B3748",
                    "transaction_id": "771", "ordinal": 3},
         "ts": "2026-11-24T18:00:00.250000+00:00"}

    `op` is c (insert), u (update), d (delete), r (a row of a snapshot), t (truncate) or m (a logical message); `ts` is
    when the transaction was committed. `before` has what the log holds of the old row: often the key alone, or nothing.
    Columns that did not change and that the log does not repeat are not in `after`; ``"unchanged": [...]`` names them
    then. How values are written: `streamlab.connect.source.encoding`.
Headers
    ``op``, ``position``, ``ordinal`` and ``transaction_id``, so that a consumer can recognise and order changes without
    parsing the value. ``(position, ordinal, op)`` is the change's own key: a repeated record has the same.
Timestamp
    When the transaction was committed, in milliseconds.

A delete is followed by a tombstone, a record with its key and no value, so that a compacted topic forgets the row. An
update of the key is two records of one ordinal: a delete of the old key, with its tombstone, and the update under the
new one. A TRUNCATE is one record without a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

from streamlab.cdc.event import NOTHING, UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.lazy import LazyRow, RowForm
from streamlab.cdc.transaction import Transaction
from streamlab.connect.source.encoding import encode, encode_row
from streamlab.connect.source.straight import Straight, straight
from streamlab.errors import ChangeStreamError, SettingsError

__all__ = ["RecordTuple", "Records", "Route", "topics_below"]

Route = Callable[[str, str], str | None]
"""(schema, table) -> topic, or None for a table that is left out. A logical message has neither: ``("", "")``."""

_Row = Mapping[str, Any]
_Headers = list[tuple[str, str | bytes | None]]
RecordTuple = tuple[str, bytes | None, bytes | None, _Headers | None, int]
"""Topic, value, key, headers, and the ordinal of the change."""

_MESSAGE, _DELETE, _TRUNCATE = Operation.MESSAGE, Operation.DELETE, Operation.TRUNCATE  # to ask the enum takes longer
_LETTERS: Final = {
    operation: (letter, ("op", letter), b'{"op":"%b","before":null,"after":' % letter)
    for operation, letter in (
        (Operation.INSERT, b"c"), (Operation.UPDATE, b"u"), (Operation.DELETE, b"d"), (Operation.SNAPSHOT, b"r"),
        (Operation.TRUNCATE, b"t"), (Operation.MESSAGE, b"m"),
    )
}  # fmt: skip
_VALUE: Final = b'{"op":"%b","before":%b,"after":%b,%b%b%d%b'
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 249
_FORMS = 16
"""Of a table: kinds of its changes, and definitions that it had."""


def topics_below(prefix: str) -> Route:
    """The default: ``<prefix>.<schema>.<table>``, and ``<prefix>.message`` for logical messages, as with Debezium."""

    def route(schema: str, table: str) -> str:
        return ".".join(_ILLEGAL.sub("_", part) for part in (prefix, schema, table or "message") if part)

    return route


class _Table:
    """What does not change from one record of a table to the next."""

    __slots__ = ("_encoders", "_single", "head", "key", "keyed", "topic")

    def __init__(self, topic: str | None, schema: str, table: str) -> None:
        self.topic = topic
        self.head = b'"schema":%b,"table":%b,' % (orjson.dumps(schema), orjson.dumps(table))
        self.key: tuple[str, ...] | None = None
        """The columns for which `keyed` was made."""
        self.keyed: list[tuple[bytes, str]] = []
        self._single: tuple[str, bytes] | None = None
        self._encoders: dict[RowForm, Straight | None] = {}

    def straight(self, row: LazyRow) -> tuple[bytes, bytes | None] | None:
        """A row and its key from the bytes that came, where they are of a form that allows it."""
        received = row.received()
        if received is None:
            return None
        message, at, form = received
        if form not in self._encoders:
            if len(self._encoders) >= _FORMS:
                self._encoders.clear()
            self._encoders[form] = straight(form, self.key or ())
        encode = self._encoders[form]
        return None if encode is None else encode(message, at)

    def learn(self, key: tuple[str, ...]) -> None:
        """The key has these columns from now on."""
        self.key = key
        self._encoders.clear()
        self.keyed = [(b"%b%b:" % (b"," if at else b"{", orjson.dumps(name)), name) for at, name in enumerate(key)]
        self._single = (key[0], self.keyed[0][0] + b"%d}") if len(key) == 1 and b"%" not in self.keyed[0][0] else None

    def key_of(self, event: ChangeEvent, old: _Row, new: _Row) -> bytes | None:
        """The key of a change; None where its table has none.

        Raises
        ------
        ChangeStreamError
            A column of it is not in the log.
        """
        data = new or old
        if self._single is not None:
            name, form = self._single
            value = data.get(name)
            if value.__class__ is int:
                return form % value
        return self._written(event, old, data) if self.keyed else None

    def former(self, event: ChangeEvent, old: _Row, key: bytes) -> bytes | None:
        """The key that a row had before, if it was another one."""
        if any(old.get(name, UNCHANGED) is UNCHANGED for _, name in self.keyed):
            return None
        former = self._written(event, old, old)
        return former if former != key else None

    def _written(self, event: ChangeEvent, old: _Row, data: _Row) -> bytes:
        parts = []
        for head, name in self.keyed:
            value = data.get(name, UNCHANGED)
            if value is UNCHANGED:
                value = old.get(name, UNCHANGED)
            if value is UNCHANGED:
                raise ChangeStreamError(
                    f"The change {event.position} #{event.ordinal} of {event.schema}.{event.table_name} does not hold "
                    f"{name}, a column of its key.",
                    "Set the table's replica identity to its primary key, or to FULL.",
                )
            parts.append(head + (b"%d" % value if value.__class__ is int else encode({"": value})[4:-1]))
        return b"".join(parts) + b"}"


class Records:
    """Makes the records of one connector. Used by one thread.

    Parameters
    ----------
    name : str
        The connector's.
    route : callable
        Which topic a table goes to.
    tables : sequence of str
        Patterns of what is wanted, as ``schema.table`` with ``*`` and ``?``; by default everything.
    tombstones : bool
        Whether a delete is followed by one.
    headers : bool
        Whether records have headers.
    met : callable, optional
        Called with each topic before its first record is made.
    """

    def __init__(
        self, name: str, route: Route, *, tables: Sequence[str] = (), tombstones: bool = True,
        headers: bool = True,
        met: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        self._route, self._wanted, self._tombstones, self._met, self._headers = (
            route,
            tuple(tables),
            tombstones,
            met,
            headers,
        )
        self._tables: dict[tuple[str, str], _Table] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._connector = b'"source":{"connector":%b,' % orjson.dumps(name)

    def topic(self, schema: str, table: str) -> str | None:
        """Where the changes of a table go; None where they are left out.

        Raises
        ------
        SettingsError
            The route gave what is no name of a topic, or one that another table has by accident.
        """
        return self._table(schema, table).topic

    def _table(self, schema: str, table: str) -> _Table:
        known = self._tables.get((schema, table))
        if known is None:
            topic = None
            if not self._wanted or any(fnmatchcase(f"{schema}.{table}", each) for each in self._wanted):
                topic = self._route(schema, table)
            if topic is not None:
                self._check(topic, schema, table)
                self._met(topic)
            known = self._tables[schema, table] = _Table(topic, schema, table)
        return known

    def _check(self, topic: str, schema: str, table: str) -> None:
        if not topic or len(topic) > _LONGEST or topic in {".", ".."} or _ILLEGAL.search(topic):
            raise SettingsError(
                f"{topic!r} cannot be the name of a topic, for {schema}.{table}.",
                "Use letters, digits, dots, underscores and dashes, at most 249 of them.",
            )
        owner = self._owners.setdefault(topic, (schema, table))
        cleaned = _ILLEGAL.sub("_", f"{schema}.{table}")
        if owner != (schema, table) and cleaned == _ILLEGAL.sub("_", ".".join(owner)):
            raise SettingsError(
                f"The tables {'.'.join(owner)} and {schema}.{table} have one topic, {topic}, because of letters that "
                "no topic can have.",
                "Give a route= that names them apart.",
            )

    def of(self, transaction: Transaction, after: int = -1) -> Iterator[RecordTuple]:
        """The records of a transaction's changes, those with an ordinal beyond `after`.

        Raises
        ------
        ChangeStreamError
            A column of the key is not in the log.
        SettingsError
            A value has no form in JSON, or a table has no usable topic.
        """
        position, xid = str(transaction.position), transaction.transaction_id
        inside = b'"position":%b,"transaction_id":%b,"ordinal":' % (orjson.dumps(position), orjson.dumps(xid))
        tail = b'},"ts":%b}' % orjson.dumps(transaction.commit_timestamp)
        at, by = ("position", position.encode()), ("transaction_id", xid.encode())
        named, owner, source, join = "", "", b"", b"".join
        table: _Table | None = None
        # In one loop, with names that are local, since this runs for every row.
        for event in transaction:
            operation, schema, name, old, new, _, _, _, ordinal, key_names = event
            if ordinal <= after:
                continue
            if table is None or name is not named or schema is not owner:
                named, owner, table = name, schema, self._table(schema, name)
                source = self._connector + table.head + inside
            topic = table.topic
            if topic is None:
                continue
            letter, header, head = _LETTERS[operation]
            headers: _Headers | None = None
            if self._headers:
                headers = [header, at, ("ordinal", b"%d" % ordinal), by]
            if operation is _MESSAGE:
                yield topic, _VALUE % (b"m", b"null", encode(new), b"", source, ordinal, tail), None, headers, ordinal
                continue
            if key_names != table.key:
                table.learn(key_names)
            if new.__class__ is LazyRow and old is NOTHING and (made := table.straight(new)) is not None:
                yield topic, join((head, made[0], b",", source, b"%d" % ordinal, tail)), made[1], headers, ordinal
                continue
            if new.__class__ is LazyRow or old.__class__ is LazyRow:
                old, new = _decoded(old), _decoded(new)
            before, now, unchanged = b"null", b"null", b""
            if old:
                before, _ = encode_row(old)
            if new:
                now, left_out = encode_row(new)
                if left_out:
                    unchanged = b'"unchanged":%b,' % orjson.dumps(left_out)
            key = None if operation is _TRUNCATE else table.key_of(event, old, new)
            if key is not None and old and new and (former := table.former(event, old, key)) is not None:
                gone = headers and [_LETTERS[_DELETE][1], *headers[1:]]
                yield topic, _VALUE % (b"d", before, b"null", b"", source, ordinal, tail), former, gone, ordinal
                if self._tombstones:
                    yield topic, None, former, gone, ordinal
            yield topic, _VALUE % (letter, before, now, unchanged, source, ordinal, tail), key, headers, ordinal
            if operation is _DELETE and self._tombstones and key is not None:
                yield topic, None, key, headers, ordinal


def _decoded(row: _Row) -> _Row:
    return row.decoded() if isinstance(row, LazyRow) else row
