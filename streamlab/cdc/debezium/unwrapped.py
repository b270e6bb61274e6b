"""Rows that ExtractNewRecordState has left of envelopes, and what was added to them of the rest.

Source: Debezium's manual, "New Record State Extraction".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streamlab.cdc.debezium.envelope import OPERATIONS, Headers, Shape, Wanted, key_alone, ordinal_of
from streamlab.cdc.debezium.rows import Rows, exactly
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.event import NOTHING, ChangeEvent
from streamlab.cdc.position import Position

__all__ = ["UNWRAPPED", "added_of", "row_event", "told_database", "unwrapped"]

UNWRAPPED: Final = (
    "An unwrapped record needs delete.tombstone.handling.mode=rewrite (or rewrite-with-tombstone) and "
    "add.fields=op,table,db,source.ts_ms (schema in place of db for PostgreSQL), or the same in add.headers."
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ADDED: Final = "__"
_DELETED: Final = "__deleted"


def unwrapped(fields: Sequence[Field], wanted: Wanted) -> Shape:
    """The function that reads such rows of one schema.

    Raises
    ------
    ValueError
        A column has a type that does not exist; when it reads.
    """
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
