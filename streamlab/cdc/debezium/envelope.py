"""The envelopes of a Debezium source, and the marks of its transactions: what stands in them, and what it says.

An envelope has ``op`` (c, u, d, t; r for a row of the snapshot, m for a logical message), ``before``, ``after``,
``source`` and, where it is asked for, ``transaction``.

Source: Debezium's manual, "Data change events" of each connector, "Transaction metadata".
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.position import Position

__all__ = [
    "Decoded",
    "Mark",
    "Shape",
    "Wanted",
    "database_of",
    "event_of",
    "message_of",
]

OPERATIONS: Final = {
    "c": Operation.INSERT, "u": Operation.UPDATE, "d": Operation.DELETE, "t": Operation.TRUNCATE,
    "r": Operation.SNAPSHOT, "m": Operation.MESSAGE,
}  # fmt: skip

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
