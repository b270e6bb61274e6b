"""The records of a Debezium source: envelopes, unwrapped rows, transaction marks, and what is nothing to a reader.

An envelope has ``op`` (c, u, d, t; r for a row of the snapshot, m for a logical message), ``before``, ``after``,
``source`` and, where it is asked for, ``transaction``. ExtractNewRecordState leaves of it the row alone; what a
`ChangeEvent` needs beside it has to be added there: see `UNWRAPPED`.

Source: Debezium's manual, "Data change events" of each connector, "Transaction metadata", "New Record State
Extraction".
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from streamlab.cdc.debezium.rows import MALFORMED, Rows, exactly, placeholders
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.debezium.values import UNAVAILABLE
from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.position import Position

__all__ = [
    "UNWRAPPED",
    "Decoded",
    "Mark",
    "Quick",
    "Shape",
    "Wanted",
    "database_of",
    "event_of",
    "message_of",
    "quick",
    "shape_of",
]

OPERATIONS: Final = {
    "c": Operation.INSERT, "u": Operation.UPDATE, "d": Operation.DELETE, "t": Operation.TRUNCATE,
    "r": Operation.SNAPSHOT, "m": Operation.MESSAGE,
}  # fmt: skip

UNWRAPPED: Final = (
    "An unwrapped record needs delete.tombstone.handling.mode=rewrite (or rewrite-with-tombstone) and "
    "add.fields=op,table,db,source.ts_ms (schema in place of db for PostgreSQL), or the same in add.headers."
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAKE: Final = tuple.__new__


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a source transaction begins or ends, in the topic of transactions.

    Attributes
    ----------
    begins : bool
        Else it ends.
    id : str
        The transaction.
    counts : mapping of str to int
        At the end: changes of each table (``schema.table``).
    """

    begins: bool
    id: str
    counts: Mapping[str, int]


Decoded = ChangeEvent | Mark | None
Headers = Sequence[tuple[str, Any]]


@dataclass(slots=True)
class Wanted:
    """How records are to be read, and what was said in the last one.

    Attributes
    ----------
    whole_before : bool
        Whether `before` of PostgreSQL is the old row, or only its key is.
    grouped : bool
        Whether a change's ordinal is its number in the source's transaction.
    transaction : dict or None
        Of the record that was decoded last: its block ``transaction``.
    """

    whole_before: bool = False
    grouped: bool = False
    transaction: Mapping[str, Any] | None = None


Shape = Callable[[bytes, Position, tuple[str, ...], Headers], Decoded]
"""(payload, position, primary key, headers) -> what it says."""
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


def database_of(connector: str) -> str:
    """``mysql`` or ``postgresql``, by the name of a connector or of its schema."""
    for each in ("mysql", "mariadb", "postgresql"):
        if each in connector:
            return "mysql" if each == "mariadb" else each
    return ""


def mark_of(payload: Mapping[str, Any]) -> Mark:
    """A record of the topic of transactions."""
    counts = {each["data_collection"]: int(each["event_count"]) for each in payload.get("data_collections") or ()}
    return Mark({"BEGIN": True, "END": False}[payload["status"]], str(payload["id"]), counts)


def message_of(payload: Mapping[str, Any], position: Position, ordinal: int) -> ChangeEvent:
    """A logical message of PostgreSQL."""
    source, message = payload["source"], payload["message"]
    content = message["content"]
    data = {
        "prefix": message["prefix"],
        "content": b64decode(content, validate=True) if isinstance(content, str) else bytes(content or b""),
        "transactional": source.get("txId") is not None,
    }
    xid = _transaction_id(source, payload.get("transaction"))
    return ChangeEvent(Operation.MESSAGE, "", "", NOTHING, data, _time(source), xid, position, ordinal)


def _time(source: Mapping[str, Any]) -> datetime:
    micros = source.get("ts_us")
    return _EPOCH + timedelta(microseconds=source["ts_ms"] * 1000 if micros is None else micros)


def _transaction_id(source: Mapping[str, Any], transaction: Mapping[str, Any] | None) -> str:
    xid = source.get("gtid") or source.get("txId")
    return str(xid if xid is not None else transaction["id"] if transaction else "")


def ordinal_of(wanted: Wanted, transaction: Mapping[str, Any] | None) -> int:
    """A change's number; and note its transaction."""
    wanted.transaction = transaction
    return int(transaction["total_order"]) - 1 if transaction and wanted.grouped else 0


def event_of(
    payload: Mapping[str, Any], before: Any, after: Any, position: Position, ordinal: int, key: tuple[str, ...]
) -> ChangeEvent:
    """The event of an envelope whose rows are read."""
    source = payload["source"]
    return ChangeEvent(
        OPERATIONS[payload["op"]], source.get("schema") or source["db"], source["table"],
        NOTHING if before is None else before, NOTHING if after is None else after, _time(source),
        _transaction_id(source, payload.get("transaction")), position, ordinal, key,
    )  # fmt: skip


def key_alone(row: dict[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
    """Of an old row that PostgreSQL does not log, what is true of it: Debezium writes NULL or 0 for the rest."""
    return {name: row[name] for name in key if name in row} if key else row


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
    return _unwrapped(schema["fields"], wanted)


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
    grouped = wanted.grouped

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
                if signs and _left_out(old, new, text, signs):
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


_SIGNS: Final = frozenset({UNAVAILABLE, b64encode(UNAVAILABLE.encode()).decode()})


def _left_out(old: Any, new: Any, text: bytes, signs: Sequence[bytes]) -> bool:
    """Whether a value of a record may be one that Debezium leaves out."""
    try:
        return not (
            (new is None or _SIGNS.isdisjoint(new.values())) and (old is None or _SIGNS.isdisjoint(old.values()))
        )  # fmt: skip
    except TypeError:  # there are values in values
        return any(sign in text for sign in signs)


# -- unwrapped ------------------------------------------------------------------------------------

_ADDED: Final = "__"
_DELETED: Final = "__deleted"


def _unwrapped(fields: Sequence[Field], wanted: Wanted) -> Shape:
    added = {field["field"] for field in fields if field["field"].startswith(_ADDED)}
    columns = [field for field in fields if field["field"] not in added]
    known: dict[str, Rows] = {}

    def read(data: bytes, position: Position, key: tuple[str, ...], headers: Headers) -> ChangeEvent:
        row = exactly(data)
        told = added_of({name: row.pop(name) for name in added}, headers)
        database = told_database(told)
        rows = known.get(database) or known.setdefault(database, Rows(columns, database))
        return row_event(told, rows.careful(row), position, key, wanted)

    return read


def added_of(fields: dict[str, Any], headers: Headers) -> dict[str, Any]:
    """What was added to a row, and to its headers, without the prefix."""
    told = {name[2:]: value for name, value in fields.items()}
    for name, value in headers or ():
        if name.startswith(_ADDED) and name.count(".") == 0:
            text = value.decode() if isinstance(value, bytes) else value
            told.setdefault(name[2:], text.strip('"') if isinstance(text, str) else text)
    return told


def told_database(told: Mapping[str, Any]) -> str:
    """Which database a row is from: one whose tables lie in schemas, or not."""
    return "postgresql" if "schema" in told or "source_schema" in told else "mysql"


def row_event(
    told: Mapping[str, Any], row: Mapping[str, Any], position: Position, key: tuple[str, ...], wanted: Wanted
) -> ChangeEvent:
    """The event of an unwrapped row.

    Raises
    ------
    ValueError
        Something of `UNWRAPPED` is missing.
    """

    def said(*names: str) -> Any:
        return next((told[name] for name in names if told.get(name) is not None), None)

    operation, table = said("op"), said("table", "source_table")
    where = said("schema", "source_schema", "db", "source_db")
    times = [(said(f"source_ts_{unit}"), scale) for unit, scale in (("us", 1), ("ms", 1000))]
    micros = next((int(value) * scale for value, scale in times if value is not None), None)
    missing = [
        name
        for name, value in (
            ("__op", operation), ("__table", table), ("__db or __schema", where), ("__source_ts_ms", micros),
            (_DELETED, told.get("deleted")),
        )
        if value is None
    ]  # fmt: skip
    if missing:
        raise ValueError(f"it has no {', no '.join(missing)}. {UNWRAPPED}")
    order = said("transaction_total_order")
    xid = said("gtid", "source_gtid", "txId", "source_txId", "transaction_id")
    block = {"id": said("transaction_id"), "total_order": order} if order is not None else None
    old: Mapping[str, Any] = NOTHING
    new = row
    if str(told["deleted"]) in {"true", "True"}:
        keyed = told_database(told) == "postgresql" and not wanted.whole_before
        old, new = key_alone(dict(row), key) if keyed else row, NOTHING
    return ChangeEvent(
        OPERATIONS[str(operation)], str(where), str(table), old, new, _EPOCH + timedelta(microseconds=micros or 0),
        "" if xid is None else str(xid), position, ordinal_of(wanted, block), key,
    )  # fmt: skip
