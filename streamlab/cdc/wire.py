"""Messages of pgoutput, PostgreSQL's logical replication plug-in, as values. No I/O, no state.

The bytes of one message come as the server sent them in its CopyData message: ``w``, three 64-bit numbers (start and
end in the log, and the server's clock) and then the message of the plug-in, which therefore begins at `START`. Numbers
are big-endian, strings end with a zero byte.

Source: the PostgreSQL manual, "Logical Replication Message Formats" and "Streaming Replication Protocol";
`src/backend/replication/logical/proto.c`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from streamlab.cdc.messages import COLUMN, FORMS, IDENTITY, LENGTH, PARALLEL_ABORT
from streamlab.cdc.position import LSN
from streamlab.errors import ProtocolError

__all__ = [
    "MALFORMED",
    "START",
    "Begin",
    "Column",
    "Commit",
    "LogicalMessage",
    "Relation",
    "StreamAbort",
    "malformed",
    "moment",
    "origin",
    "relation",
    "string",
    "truncated",
    "type_name",
]

START = 25
"""Where the plug-in's message begins in the CopyData message."""

MALFORMED = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error)
"""What reading bytes that are not what they should be can raise; `decimal.InvalidOperation`, `UnicodeDecodeError`
and `OverflowError` are among them."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_STRUCTS = {letter: form.fixed.struct for letter, form in FORMS.items()}
_BEGIN, _COMMIT, _STREAM_COMMIT = _STRUCTS["B"], _STRUCTS["C"], _STRUCTS["c"]
_BEGIN_PREPARE, _PREPARE, _ROLLBACK = _STRUCTS["b"], _STRUCTS["P"], _STRUCTS["r"]
_MESSAGE, _TRUNCATE, _ABORT = _STRUCTS["M"], _STRUCTS["T"], _STRUCTS["A"]
_ABORT_AT = PARALLEL_ABORT.struct
_IDENTITY, _COLUMN, _LENGTH = IDENTITY.struct, COLUMN.struct, LENGTH.struct


def malformed(message: bytes, why: str) -> ProtocolError:
    """The error for a message that cannot be read."""
    return ProtocolError(
        f"A pgoutput message of type {message[START : START + 1]!r} and {len(message)} bytes cannot be read: {why}.",
        "Reconnect, to have it sent again. Is the slot's plug-in pgoutput, and does a program change the bytes?",
    )


def moment(micros: int) -> datetime:
    """A time of the server, which counts microseconds from the year 2000."""
    return _EPOCH + timedelta(microseconds=micros)


def string(message: bytes, at: int) -> tuple[str, int]:
    """A string and the place behind it."""
    end = message.index(0, at)
    return message[at:end].decode("utf-8", "surrogateescape"), end + 1


class Begin(NamedTuple):
    """Begin, or Begin Prepare: then `position` is the place of the PREPARE, and `gid` is set."""

    position: LSN
    time: datetime
    xid: int
    gid: str = ""

    @classmethod
    def read(cls, message: bytes) -> Begin:
        """A Begin message."""
        position, micros, xid = _BEGIN.unpack(message[START + 1 :])
        return cls(LSN(position), moment(micros), xid)

    @classmethod
    def read_prepared(cls, message: bytes) -> Begin:
        """A Begin Prepare message."""
        position, _, micros, xid = _BEGIN_PREPARE.unpack_from(message, START + 1)
        return cls(LSN(position), moment(micros), xid, last_string(message, START + 1 + _BEGIN_PREPARE.size))


class Commit(NamedTuple):
    """Commit, Stream Commit, Prepare, Stream Prepare, Commit Prepared or Rollback Prepared; 0 and "" where absent."""

    position: LSN
    end: LSN
    time: datetime
    xid: int = 0
    gid: str = ""

    @classmethod
    def read(cls, message: bytes) -> Commit:
        """A Commit message."""
        _, position, end, micros = _COMMIT.unpack(message[START + 1 :])
        return cls(LSN(position), LSN(end), moment(micros))

    @classmethod
    def read_stream(cls, message: bytes) -> Commit:
        """A Stream Commit message."""
        xid, _, position, end, micros = _STREAM_COMMIT.unpack(message[START + 1 :])
        return cls(LSN(position), LSN(end), moment(micros), xid)

    @classmethod
    def read_prepared(cls, message: bytes) -> Commit:
        """A Prepare, Stream Prepare or Commit Prepared message: they are built alike."""
        _, position, end, micros, xid = _PREPARE.unpack_from(message, START + 1)
        return cls(LSN(position), LSN(end), moment(micros), xid, last_string(message, START + 1 + _PREPARE.size))

    @classmethod
    def read_rollback(cls, message: bytes) -> Commit:
        """A Rollback Prepared message: `position` is the end of the PREPARE, `end` that of the rollback."""
        _, prepared, end, _, micros, xid = _ROLLBACK.unpack_from(message, START + 1)
        return cls(LSN(prepared), LSN(end), moment(micros), xid, last_string(message, START + 1 + _ROLLBACK.size))


class StreamAbort(NamedTuple):
    """A transaction in progress was rolled back, or (`subxid` differs from `xid`) one of its savepoints was."""

    xid: int
    subxid: int

    @classmethod
    def read(cls, message: bytes) -> StreamAbort:
        """A Stream Abort message; with ``streaming=parallel`` it carries a position and a time besides."""
        form = _ABORT if len(message) == START + 1 + _ABORT.size else _ABORT_AT
        xid, subxid, *_ = form.unpack(message[START + 1 :])
        return cls(xid, subxid)


class LogicalMessage(NamedTuple):
    """What a program wrote into the log with `pg_logical_emit_message`."""

    transactional: bool
    position: LSN
    prefix: str
    content: bytes

    @classmethod
    def read(cls, message: bytes, at: int) -> LogicalMessage:
        """A Message message whose fields begin at `at`."""
        flags, position = _MESSAGE.unpack_from(message, at)
        if not position:
            raise ValueError("no message ends at 0/0")
        prefix, at = string(message, at + _MESSAGE.size)
        (length,) = _LENGTH.unpack_from(message, at)
        if at + 4 + length != len(message):
            raise ValueError("its length is wrong")
        return cls(bool(flags & 1), LSN(position), prefix, message[at + 4 :])


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, as the stream describes it."""

    name: str
    type_oid: int
    modifier: int
    key: bool
    """Whether it belongs to the replica identity."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, as the stream describes it before its first change and after each change of its definition.

    Attributes
    ----------
    identity : str
        ``d`` (primary key), ``i`` (a unique index), ``f`` (the whole row) or ``n`` (nothing).
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]

    @property
    def tells_key(self) -> bool:
        """Whether its identity is a key: the primary one, or a unique index."""
        return self.identity in "di"

    def key(self, primary_keys: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """Columns of the replica identity; where that is no key, of the primary key, if that is known and all here."""
        own = tuple(column.name for column in self.columns if column.key)
        known = None if self.tells_key else primary_keys.get(self.oid)
        return known if known and {column.name for column in self.columns}.issuperset(known) else own


def relation(message: bytes, at: int) -> Relation:
    """A Relation message whose fields begin at `at`."""
    (oid,) = struct.unpack_from("!I", message, at)
    schema, at = string(message, at + 4)
    name, at = string(message, at)
    identity, count = _IDENTITY.unpack_from(message, at)
    at += _IDENTITY.size
    columns = []
    for _ in range(count):
        flags = message[at]
        column, at = string(message, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(message, at)
        at += _COLUMN.size
        columns.append(Column(column, type_oid, modifier, bool(flags & 1)))
    if at != len(message):
        raise ValueError("its length is wrong")
    if len({column.name for column in columns}) != count:
        raise ValueError("two columns have one name")
    # The server leaves its own schema out.
    return Relation(oid, schema or "pg_catalog", name, identity.decode("ascii"), tuple(columns))


def type_name(message: bytes, at: int) -> str:
    """The name in a Type message whose fields begin at `at`."""
    _, at = string(message, at + 4)
    return last_string(message, at)


def truncated(message: bytes, at: int) -> tuple[int, ...]:
    """The OIDs of the tables in a Truncate message whose fields begin at `at`."""
    count, _ = _TRUNCATE.unpack_from(message, at)
    if at + 5 + 4 * count != len(message):
        raise ValueError("its length is wrong")
    return struct.unpack_from(f"!{count}I", message, at + 5)


def origin(message: bytes) -> str:
    """The name in an Origin message."""
    return last_string(message, START + 9)


def last_string(message: bytes, at: int) -> str:
    """A string that must end the message."""
    text, end = string(message, at)
    if end != len(message):
        raise ValueError("its length is wrong")
    return text
