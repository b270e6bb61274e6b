"""What reads the records of one schema: a function that is made for it, once.

Envelopes have a common road, on which many of them are read at once, and a careful one for what that trips over.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from streamlab.cdc.debezium.envelope import (
    OPERATIONS,
    Decoded,
    Headers,
    Shape,
    Wanted,
    database_of,
    event_of,
    key_alone,
    mark_of,
    message_of,
    ordinal_of,
)
from streamlab.cdc.debezium.rows import MALFORMED, Rows, exactly, placeholders
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.debezium.unwrapped import unwrapped
from streamlab.cdc.debezium.values import UNAVAILABLE
from streamlab.cdc.event import NOTHING, ChangeEvent
from streamlab.cdc.position import Position

__all__ = ["Quick", "quick", "shape_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAKE: Final = tuple.__new__
_SIGNS: Final = frozenset({UNAVAILABLE, b64encode(UNAVAILABLE.encode()).decode()})
"""What stands in the place of a value that Debezium leaves out, where that is no list and no structure."""
Many = Callable[[Iterable[bytes], Iterable[Position], Iterable[tuple[str, ...]], list[Decoded]], None]
"""(payloads, positions, primary keys, list to which is added what they say)."""


class Quick:
    """A `Shape` that reads many records at once too.

    Attributes
    ----------
    many : Many
        What it raises, it raises for the record behind those that the list holds.
    """

    __slots__ = ("many",)

    def __init__(self, many: Many) -> None:
        self.many = many

    def __call__(self, data: bytes, position: Position, key: tuple[str, ...], headers: Headers) -> Decoded:
        """One record."""
        made: list[Decoded] = []
        self.many((data,), (position,), (key,), made)
        return made[0]


def shape_of(schema: Field, wanted: Wanted) -> Shape:
    """The function that reads the records of a schema.

    Raises
    ------
    ValueError
        Debezium writes no such records, or a column has a type that does not exist.
    """
    fields = {field["field"]: field for field in schema.get("fields") or ()}
    if {"op", "source"} <= fields.keys():
        if "message" in fields and "after" not in fields:
            return lambda data, position, key, headers: _message(orjson.loads(data), position, wanted)
        return _envelope(fields, wanted)
    if {"status", "id", "event_count"} <= fields.keys():
        return lambda data, position, key, headers: mark_of(orjson.loads(data))
    if "ddl" in fields or set(fields) == {"ts_ms"}:
        return lambda data, position, key, headers: None  # a change of a definition, a heartbeat
    return unwrapped(schema["fields"], wanted)


def _message(payload: Mapping[str, Any], position: Position, wanted: Wanted) -> ChangeEvent:
    return message_of(payload, position, ordinal_of(wanted, payload.get("transaction")))


def _envelope(fields: Mapping[str, Field], wanted: Wanted) -> Shape:
    source = {field["field"] for field in fields["source"]["fields"]}
    database = database_of(fields["source"].get("name") or "")
    columns = fields["after"]["fields"]
    rows = Rows(columns, database)
    keyed = database == "postgresql" and not wanted.whole_before

    def careful(data: bytes, position: Position, key: tuple[str, ...], headers: Headers) -> ChangeEvent:
        payload = exactly(data)
        before, after = (row if (row := payload[name]) is None else rows.careful(row) for name in ("before", "after"))
        if keyed and before is not None:
            before = key_alone(before, key)
        ordinal = ordinal_of(wanted, payload.get("transaction"))
        return event_of(payload, before, after, position, ordinal, key)

    signs = placeholders(columns) if database == "postgresql" else ()
    return quick(source, rows.convert, careful, wanted, keyed=keyed, signs=signs)


def quick(
    source: Collection[str], convert: Callable[[dict[str, Any]], None], careful: Shape, wanted: Wanted, *, keyed: bool,
    signs: Sequence[bytes], table: tuple[str, str] | None = None,
) -> Quick:  # fmt: skip
    """The common road through envelopes of one form.

    Parameters
    ----------
    source : collection of str
        The fields of its block ``source``.
    convert : callable
        Replaces values in a row.
    careful : Shape
        What reads whatever this one trips over.
    wanted : Wanted
        As for `shape_of`.
    keyed : bool
        Whether only the key of an old row is true.
    signs : sequence of bytes
        What stands in records that `careful` has to read.
    table : tuple of str, optional
        Schema and table, where records of other ones may come too: they are not read here.
    """
    operations, epoch, delta, loads, event, make = OPERATIONS, _EPOCH, timedelta, orjson.loads, ChangeEvent, _MAKE
    where = "schema" if "schema" in source else "db"
    time, unit = ("ts_us", 1) if "ts_us" in source else ("ts_ms", 1000)
    xid = "gtid" if "gtid" in source else "txId" if "txId" in source else ""
    wanted_schema, wanted_table = table or ("", "")
    grouped, apart = wanted.grouped, _SIGNS.isdisjoint

    def many(
        data: Iterable[bytes], positions: Iterable[Position], keys: Iterable[tuple[str, ...]], into: list[Decoded]
    ) -> None:  # fmt: skip
        append = into.append
        # Changes of one transaction follow one another.
        seen: Any = None
        seen_at, moment, number, name = -1, epoch, None, ""
        for text, position, key in zip(data, positions, keys, strict=False):
            try:
                payload = loads(text)
                said, old, new = payload["source"], payload["before"], payload["after"]
                schema, relation = said[where], said["table"]
                if table is not None and (relation != wanted_table or schema != wanted_schema):
                    append(careful(text, position, key, ()))
                    continue
                if signs:
                    try:
                        told = (new is None or apart(new.values())) and (old is None or apart(old.values()))
                    except TypeError:  # there are values in values
                        told = not any(sign in text for sign in signs)
                    if not told:
                        append(careful(text, position, key, ()))
                        continue
                wanted.transaction = transaction = payload.get("transaction")
                if new is None:
                    new = NOTHING
                else:
                    convert(new)
                if old is None:
                    old = NOTHING
                else:
                    convert(old)
                    if keyed:
                        old = key_alone(old, key)
                seen = said[xid] if xid else None
                if seen is None:
                    seen = transaction["id"] if transaction else ""
                if seen != number:
                    number, name = seen, seen if type(seen) is str else str(seen)
                if (at := said[time]) != seen_at:
                    moment, seen_at = epoch + delta(0, 0, at * unit), at
                ordinal = transaction["total_order"] - 1 if transaction and grouped else 0
                append(
                    make(
                        event,
                        (
                            operations[payload["op"]], schema, relation, old, new, moment, name, position, ordinal, key,
                        ),
                    )
                )  # fmt: skip
            except MALFORMED:
                append(careful(text, position, key, ()))

    return Quick(many)
