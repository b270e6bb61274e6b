"""The events of MySQL's binary log, as a replica gets them: what each says that a reader of changes has to know.

A packet of the stream is one byte (0: an event follows) and the event: a header of 19 bytes (time, type, server, size,
place of its end, flags), a body, and a CRC32 of both if the log has checksums. Integers are little-endian; a packed
integer has one, three, four or nine bytes, by its first.

A transaction is a GTID event; a Query event ``BEGIN``; Table_map events, each with Rows events behind it; and an Xid
event, or a Query event ``COMMIT`` for an engine without transactions. A statement that changes a definition is a GTID
event and one Query event. An XA transaction ends with XA_PREPARE, and the end that somebody decides later is
a transaction of its own: one Query event, ``XA COMMIT`` or ``XA ROLLBACK``.

Source: MySQL's manual for developers, "Binary Log Event"; `libs/mysql/binlog/event/` of the server (binlog_event.h,
control_events.h, statement_events.h); `libs/mysql/serialization/` for the form of tagged GTIDs.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final
from uuid import UUID

from streamlab.cdc.wire import MALFORMED
from streamlab.errors import ProtocolError

__all__ = [
    "BODY",
    "CHECKSUM",
    "EPOCH",
    "MALFORMED",
    "Event",
    "Gtid",
    "Query",
    "checksummed",
    "header_end",
    "heartbeat",
    "malformed",
    "packed",
    "prepared",
    "rotation",
    "truncated_table",
]

BODY: Final = 20
"""Where the body begins in a packet: behind its first byte and the event's header."""
CHECKSUM: Final = 4
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_SIZES = struct.Struct("<IBIII").unpack_from
_GTID = struct.Struct("<B16sq").unpack_from
_NO_FIX = "Is it a MySQL server, and does a program between change the bytes? Connecting again has them sent again."


class Event(IntEnum):
    """The types of events that are told apart here."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    FORMAT_DESCRIPTION = 15
    XID = 16
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42


def malformed(packet: bytes, why: str) -> ProtocolError:
    """The error for an event that cannot be read."""
    number = packet[5] if len(packet) > 5 else -1
    name = Event(number).name if number in set(Event) else str(number)
    return ProtocolError(f"A {name} event of {max(0, len(packet) - 1)} bytes cannot be read: {why}.", _NO_FIX)


def packed(data: bytes, at: int) -> tuple[int, int]:
    """A packed integer and the place behind it."""
    first = data[at]
    if first < 251:
        return first, at + 1
    size = {252: 2, 253: 3, 254: 8}[first]
    end = at + 1 + size
    if end > len(data):
        raise ValueError("a number is cut short")
    return int.from_bytes(data[at + 1 : end], "little"), end


def header_end(packet: bytes) -> int:
    """The place of the event's end in its file, modulo 2**32; 0 for an event that is in no file."""
    _, _, _, size, end = _SIZES(packet, 1)
    if size != len(packet) - 1:
        raise ValueError(f"its header tells of {size} bytes")
    return int(end)


def rotation(packet: bytes, end: int) -> tuple[str, int]:
    """The file that is read from here, and the place in it."""
    (offset,) = struct.unpack_from("<Q", packet, BODY)
    name = packet[BODY + 8 : end].decode()
    if not name:
        raise ValueError("it names no file")
    return name, offset


def checksummed(packet: bytes) -> bool:
    """Whether events behind this FORMAT_DESCRIPTION end with a CRC32.

    It tells in the byte before its own checksum, which it has in either case.
    """
    version, header = struct.unpack_from("<H50x4xB", packet, BODY)
    if version != 4 or header != 19:
        raise ValueError(f"the log has the format {version}")
    kind = packet[-CHECKSUM - 1]
    if kind > 1:
        raise ValueError(f"its checksums are of the unknown kind {kind}")
    return kind == 1


def heartbeat(packet: bytes, end: int) -> tuple[str, int] | None:
    """How far the server has read its log; None where the event does not tell the file."""
    if packet[5] == Event.HEARTBEAT:
        return packet[BODY:end].decode(), header_end(packet)
    file, offset, at = "", 0, BODY
    while at < end:
        kind = packet[at]
        size, at = packed(packet, at + 1)
        if kind == 0:
            break
        if kind == 1:
            file = packet[at : at + size].decode()
        elif kind == 2:
            offset = packed(packet, at)[0]
        at += size
    return (file, offset) if file else None


# -- transactions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gtid:
    """The beginning of a transaction.

    Attributes
    ----------
    source, number : str and int
        Its identifier, as in `GTIDSet`.
    time : datetime or None
        When it was committed on the server that sends it.
    length : int
        Bytes of the whole transaction in the log; 0 where it is not told.
    """

    source: str
    number: int
    time: datetime | None
    length: int

    def __str__(self) -> str:
        return f"{self.source}:{self.number}"

    @classmethod
    def read(cls, packet: bytes, end: int) -> Gtid:
        """A GTID event."""
        _, uuid, number = _GTID(packet, BODY)
        at = BODY + 25
        time, length = None, 0
        if at + 17 <= end and packet[at] == 2:
            at += 17
            if at + 7 <= end:
                commit = int.from_bytes(packet[at : at + 7], "little")
                at += 14 if commit >> 55 else 7
                time = EPOCH + timedelta(microseconds=commit & ((1 << 55) - 1))
                length = packed(packet, at)[0]
        return cls(_uuid(uuid), _numbered(number), time, length)

    @classmethod
    def read_tagged(cls, packet: bytes, end: int) -> Gtid:
        """A GTID_TAGGED event: fields with numbers, in a form that may grow."""
        version, at = _variable(packet, BODY)
        size, at = _variable(packet, at)
        _, at = _variable(packet, at)
        if version != 1 or BODY + size > end:
            raise ValueError(f"its form has version {version}")
        numbers: dict[int, int] = {}
        uuid, tag = b"", ""
        while at < BODY + size:
            field, at = _variable(packet, at)
            if field == 1:
                octets = []
                for _ in range(16):
                    octet, at = _variable(packet, at)
                    octets.append(octet)
                uuid = bytes(octets)
            elif field == 3:
                length, at = _variable(packet, at)
                tag = packet[at : at + length].decode()
                at += length
            else:
                numbers[field], at = _variable(packet, at)
        if len(uuid) != 16:
            raise ValueError("it names no server")
        # The only number that is signed, and so written as twice its value.
        number = numbers[2] >> 1
        time = EPOCH + timedelta(microseconds=numbers[6]) if 6 in numbers else None
        source = f"{_uuid(uuid)}:{tag}" if tag else _uuid(uuid)
        return cls(source, _numbered(number), time, numbers.get(8, 0))


_UUIDS: dict[bytes, str] = {}


def _uuid(data: bytes) -> str:
    name = _UUIDS.get(data)
    if name is None:
        if len(_UUIDS) > 1000:
            _UUIDS.clear()
        name = _UUIDS[data] = str(UUID(bytes=data))
    return name


def _numbered(number: int) -> int:
    if number <= 0:
        raise ValueError(f"no transaction has the number {number}")
    return number


def _variable(data: bytes, at: int) -> tuple[int, int]:
    """An integer of one to nine bytes: as many ones as its first byte ends with, so many bytes follow."""
    first = data[at]
    extra = ((first + 1) & -(first + 1)).bit_length() - 1
    if extra >= 8:
        end = at + 9
        value = int.from_bytes(data[at + 1 : end], "little")
    else:
        end = at + 1 + extra
        value = int.from_bytes(data[at:end], "little") >> (extra + 1)
    if end > len(data):
        raise ValueError("a number is cut short")
    return value, end


@dataclass(frozen=True, slots=True)
class Query:
    """A statement in the log."""

    schema: str
    text: str

    @classmethod
    def read(cls, packet: bytes, end: int) -> Query:
        """A QUERY event."""
        schema_size = packet[BODY + 8]
        (status,) = struct.unpack_from("<H", packet, BODY + 11)
        at = BODY + 13 + status
        text = at + schema_size + 1
        if text > end:
            raise ValueError("it is cut short")
        return cls(
            packet[at : at + schema_size].decode("utf-8", "surrogateescape"),
            packet[text:end].decode("utf-8", "surrogateescape"),
        )


def prepared(packet: bytes, end: int) -> tuple[str, bool]:
    """The name of an XA transaction that is prepared, as SQL writes it, and whether that commits it already."""
    one_phase, form, gtrid, bqual = struct.unpack_from("<BIII", packet, BODY)
    at = BODY + 13
    if gtrid > 64 or bqual > 64 or at + gtrid + bqual > end:
        raise ValueError("it is cut short")
    name = f"X'{packet[at : at + gtrid].hex()}',X'{packet[at + gtrid : at + gtrid + bqual].hex()}',{form}"
    return name, bool(one_phase)


_BLANK = r"(?:\s|/\*.*?\*/|--[^\n]*\n|\#[^\n]*\n)"
_WORD = r"(`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[^\s.;`\"]+)"
_TRUNCATE = re.compile(
    rf"{_BLANK}*TRUNCATE{_BLANK}+(?:TABLE{_BLANK}+)?{_WORD}(?:{_BLANK}*\.{_BLANK}*{_WORD})?", re.IGNORECASE | re.DOTALL
)


def truncated_table(query: Query) -> tuple[str, str] | None:
    """Schema and name of the table that a statement empties with TRUNCATE."""
    match = _TRUNCATE.match(query.text)
    if match is None:
        return None
    first, second = (_plain(word) if word else "" for word in match.groups())
    return (first, second) if second else (query.schema, first)


def _plain(word: str) -> str:
    if word[0] in '`"':
        return word[1:-1].replace(word[0] * 2, word[0])
    return word
