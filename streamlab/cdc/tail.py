"""A first, small reader of PostgreSQL's logical replication stream.

It reads what is committed while it is open, and nothing from before: the replication slot is temporary and goes with
the connection, so it can be forgotten without filling a disk. The stream is acknowledged as it is read:
what a crash leaves unread is gone. For looking and for measuring; not for carrying data.

Protocol: PostgreSQL's streaming replication (copy-both mode) with the output plug-in pgoutput, protocol
version 1, as its manual describes under "Logical Replication Message Formats". psycopg has no replication API and
needs none: `START_REPLICATION` turns the connection into a two-way stream of CopyData messages.
"""

from __future__ import annotations

import json
import select
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import pq, sql

from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.cdc.position import LSN
from streamlab.errors import ChangeStreamError, ProtocolError

__all__ = ["PostgresTail"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FEEDBACK_SECONDS = 5.0


def _timestamp(text: str) -> Any:
    # The session sends ISO 8601 in UTC. What Python cannot hold (infinity, BC) stays text.
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


_TYPED: dict[int, Callable[[str], Any]] = {
    16: lambda text: text == "t",
    20: int,
    21: int,
    23: int,
    114: json.loads,
    700: float,
    701: float,
    1114: _timestamp,
    1184: _timestamp,
    1700: Decimal,
    3802: json.loads,
}
"""Type OID -> how its text becomes a value; every other type stays text."""


@dataclass(frozen=True, slots=True)
class _Relation:
    schema: str
    table: str
    columns: tuple[tuple[str, int], ...]
    key: frozenset[str]


class _Decoder:
    """pgoutput messages -> events. No I/O."""

    def __init__(self) -> None:
        self._relations: dict[int, _Relation] = {}
        self._commit_lsn = self._xid = self._ordinal = 0
        self._time = _EPOCH

    def feed(self, data: bytes) -> list[ChangeEvent]:
        try:
            return self._decode(data)
        except (struct.error, IndexError, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ProtocolError(
                f"A pgoutput message of type {data[:1]!r} cannot be read.", "Is the slot's plug-in pgoutput?"
            ) from error

    def _decode(self, data: bytes) -> list[ChangeEvent]:
        kind, events = data[:1], []
        if kind == b"B":
            self._commit_lsn, micros, self._xid = struct.unpack_from("!QqI", data, 1)
            self._time, self._ordinal = _EPOCH + timedelta(microseconds=micros), 0
        elif kind == b"R":
            self._relation(data)
        elif kind == b"I":
            new, _ = self._row(data, 6)
            events.append(self._event(Operation.INSERT, data, {}, new))
        elif kind == b"U":
            old, at = self._row(data, 6) if data[5:6] in b"KO" else ({}, 5)
            new, _ = self._row(data, at + 1)
            events.append(self._event(Operation.UPDATE, data, old, {**old, **new} if data[5:6] == b"O" else new))
        elif kind == b"D":
            old, _ = self._row(data, 6)
            events.append(self._event(Operation.DELETE, data, old, {}))
        elif kind == b"T":
            (count,) = struct.unpack_from("!I", data, 1)
            oids = struct.unpack_from(f"!{count}I", data, 6)
            events.extend(self._event(Operation.TRUNCATE, b" " + struct.pack("!I", oid), {}, {}) for oid in oids)
        return events

    def _event(self, operation: Operation, data: bytes, old: dict[str, Any], new: dict[str, Any]) -> ChangeEvent:
        relation = self._relations[struct.unpack_from("!I", data, 1)[0]]
        event = ChangeEvent(
            operation, relation.schema, relation.table, old, new,
            self._time, str(self._xid), LSN(self._commit_lsn), self._ordinal,
        )  # fmt: skip
        self._ordinal += 1
        return event

    def _relation(self, data: bytes) -> None:
        (oid,) = struct.unpack_from("!I", data, 1)
        schema, at = _text(data, 5)
        table, at = _text(data, at)
        (count,) = struct.unpack_from("!H", data, at + 1)
        at += 3
        columns, key = [], set()
        for _ in range(count):
            is_key = data[at] & 1
            name, at = _text(data, at + 1)
            columns.append((name, struct.unpack_from("!I", data, at)[0]))
            if is_key:
                key.add(name)
            at += 8
        self._relations[oid] = _Relation(schema or "pg_catalog", table, tuple(columns), frozenset(key))

    def _row(self, data: bytes, at: int) -> tuple[dict[str, Any], int]:
        relation = self._relations[struct.unpack_from("!I", data, 1)[0]]
        # Of an old row often only the key is recorded; its other columns come as nulls that mean nothing.
        key_only = data[at - 1 : at] == b"K"
        (count,) = struct.unpack_from("!H", data, at)
        at += 2
        row: dict[str, Any] = {}
        for name, oid in relation.columns[:count]:
            kind = data[at : at + 1]
            at += 1
            if kind == b"t":
                (length,) = struct.unpack_from("!I", data, at)
                text = data[at + 4 : at + 4 + length].decode()
                row[name] = _TYPED.get(oid, str)(text)
                at += 4 + length
            elif kind == b"n":
                if not key_only or name in relation.key:
                    row[name] = None
            # "u": a large value that did not change is not sent; the column is left out.
            elif kind != b"u":
                raise ValueError(kind)
        return row, at


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1


class PostgresTail:
    """What is committed while the block is open. Used by one thread.

    Parameters
    ----------
    dsn : str
        A role that may replicate.
    publication : str
        Which tables; it must exist.
    slot_name : str
        Name of the temporary slot.

    Raises
    ------
    ChangeStreamError
        The publication does not exist, the slot cannot be made, or the server ends the stream.
    """

    def __init__(self, dsn: str, *, publication: str, slot_name: str) -> None:
        self.publication, self.slot_name = publication, slot_name
        self._dsn = dsn
        self._decoder = _Decoder()
        self._received = 0
        self._told = 0.0
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        with psycopg.connect(self._dsn, autocommit=True) as check:
            found = check.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", [self.publication]).fetchone()
        if not found:
            # PostgreSQL 18 would only warn, and send nothing.
            raise ChangeStreamError(
                f"There is no publication {self.publication}.", "Create it first: CREATE PUBLICATION ..."
            )
        options = "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c extra_float_digits=3"
        self._connection = psycopg.connect(self._dsn, autocommit=True, replication="database", options=options)
        try:
            slot = sql.Identifier(self.slot_name)
            self._command(
                sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')").format(slot),
                pq.ExecStatus.TUPLES_OK,
            )
            self._command(
                sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})").format(
                    slot, sql.Literal('"' + self.publication.replace('"', '""') + '"')
                ),
                pq.ExecStatus.COPY_BOTH,
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it the slot."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None

    def _command(self, command: sql.Composed, expected: pq.ExecStatus) -> None:
        assert self._connection is not None  # noqa: S101 - opened just before
        result = self._connection.pgconn.exec_(command.as_bytes(self._connection))
        if result.status != expected:
            raise ChangeStreamError(
                f"PostgreSQL refused: {result.error_message.decode('utf-8', 'replace').strip()}",
                "The role needs REPLICATION, and the server wal_level=logical.",
            )

    def changes(self, count: int, *, limit: float = 10.0) -> Iterator[ChangeEvent]:
        """The next `count` changes, as they are committed.

        Raises
        ------
        ChangeStreamError
            They did not come within `limit` seconds, or the server ended the stream.
        """
        if self._connection is None:
            raise ChangeStreamError("The stream is not open.", "Use it in a with block.")
        pgconn = self._connection.pgconn
        deadline = time.monotonic() + limit
        while count > 0:
            length, message = pgconn.get_copy_data(1)
            if length > 0:
                for event in self._message(bytes(message)):
                    yield event
                    count -= 1
                    if count == 0:
                        return
            elif length == 0:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise ChangeStreamError(f"No change came within {limit:.0f} s.", "Was the transaction committed?")
                # Our own wait, not psycopg's: that one cancels the stream when a cell is interrupted.
                select.select([pgconn.socket], [], [], min(remaining, 1.0))
                pgconn.consume_input()
                if time.monotonic() - self._told > _FEEDBACK_SECONDS:
                    self._feedback()
            else:
                text = pgconn.get_result()
                reason = text.error_message.decode("utf-8", "replace").strip() if text else "no reason given"
                raise ChangeStreamError(f"PostgreSQL ended the stream: {reason}", "Open it again.")

    def _message(self, message: bytes) -> list[ChangeEvent]:
        kind = message[:1]
        if kind == b"w":
            start, end = struct.unpack_from("!QQ", message, 1)
            self._received = max(self._received, start, end)
            return self._decoder.feed(message[25:])
        if kind == b"k":
            end, _, reply = struct.unpack_from("!QqB", message, 1)
            self._received = max(self._received, end)
            if reply:
                self._feedback()
            return []
        raise ProtocolError(f"The stream holds a message of type {kind!r}.", "Is this a logical replication stream?")

    def _feedback(self) -> None:
        """Tell the server how far we have read; without it, it ends the stream after a minute."""
        assert self._connection is not None  # noqa: S101 - called while reading
        now = int((datetime.now(UTC) - _EPOCH) / timedelta(microseconds=1))
        at = self._received
        self._connection.pgconn.put_copy_data(struct.pack("!cQQQqB", b"r", at, at, at, now, 0))
        self._connection.pgconn.flush()
        self._told = time.monotonic()
