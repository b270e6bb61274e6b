"""The other direction, for tests: events of the binary log made by hand, with or without checksums."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zlib import crc32

SOURCE = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
MICROS = 1_700_000_000_123_456


@dataclass(frozen=True)
class Kind:
    """A column type: what a table map says of it, and how a value is written."""

    type: int
    meta: bytes
    write: Callable[[Any], bytes]
    unsigned: bool | None = None
    """None: no number."""
    collation: int | None = None
    labels: tuple[str, ...] = ()


def number(value: int) -> bytes:
    """A packed integer."""
    if value < 251:
        return bytes([value])
    return b"\xfc" + struct.pack("<H", value) if value < 1 << 16 else b"\xfd" + value.to_bytes(3, "little")


class Log:
    """Writes events, one behind the other, as packets."""

    def __init__(self, *, checksums: bool = True) -> None:
        self.checksums, self.offset, self.number = checksums, 4, 0

    def event(self, kind: int, body: bytes, *, artificial: bool = False) -> bytes:
        tail = 4 if self.checksums or kind == 15 else 0
        size = 19 + len(body) + tail
        self.offset += 0 if artificial else size
        head = struct.pack("<IBIIIH", 1_700_000_000, kind, 1, size, 0 if artificial else self.offset & 0xFFFFFFFF, 0)
        whole = head + body
        return b"\0" + whole + (struct.pack("<I", crc32(whole)) if tail else b"")

    def begin_stream(self, file: str = "binlog.000001") -> list[bytes]:
        described = struct.pack("<H50sIB", 4, b"9.7.4", 0, 19) + bytes(40) + bytes([self.checksums])
        return [
            self.event(4, struct.pack("<Q", 4) + file.encode(), artificial=True),
            self.event(15, described),
        ]

    def begin(self, number: int = 0) -> list[bytes]:
        self.number = number or self.number + 1
        stamp = MICROS.to_bytes(7, "little")
        body = struct.pack("<B16sqBqq", 1, UUID(SOURCE).bytes, self.number, 2, 0, 1) + stamp + b"\0" + bytes(4)
        return [self.event(33, body), self.query("BEGIN")]

    def query(self, text: str, schema: str = "shop") -> bytes:
        return self.event(2, struct.pack("<IIBHH", 1, 0, len(schema), 0, 0) + schema.encode() + b"\0" + text.encode())

    def commit(self) -> bytes:
        return self.event(16, struct.pack("<Q", self.number))

    def table(self, columns: Sequence[tuple[str, Kind]], *, key: Sequence[int] = (0,), name: str = "t") -> bytes:
        kinds = [kind for _, kind in columns]
        meta = b"".join(kind.meta for kind in kinds)
        body = bytes([7, 0, 0, 0, 0, 0, 1, 0, 4]) + b"shop\0" + bytes([len(name)]) + name.encode() + b"\0"
        body += number(len(kinds)) + bytes(kind.type for kind in kinds) + number(len(meta)) + meta
        body += bytes((len(kinds) + 7) // 8)
        signs = [kind.unsigned for kind in kinds if kind.unsigned is not None]
        bits = int("".join(map(str, map(int, signs))).ljust((len(signs) + 7) // 8 * 8, "0") or "0", 2)
        fields = [
            (1, bits.to_bytes((len(signs) + 7) // 8, "big")),
            (3, b"".join(number(kind.collation) for kind in kinds if kind.collation is not None)),
            (4, b"".join(number(len(each.encode())) + each.encode() for each, _ in columns)),
            (6, b"".join(
                number(len(kind.labels)) + b"".join(number(len(each.encode())) + each.encode() for each in kind.labels)
                for kind in kinds if kind.labels
            )),
            (8, b"".join(map(number, key))),
        ]  # fmt: skip
        for kind, data in fields:
            if data:
                body += bytes([kind]) + number(len(data)) + data
        return self.event(19, body)

    def rows(self, kind: int, kinds: Sequence[Kind], rows: Sequence[Sequence[Any]]) -> bytes:
        """WRITE (30), UPDATE (31: rows are old and new, in turn) or DELETE (32)."""
        count = len(kinds)
        present = ((1 << count) - 1).to_bytes((count + 7) // 8, "little")
        body = bytes([7, 0, 0, 0, 0, 0, 1, 0, 2, 0]) + number(count) + present * (2 if kind == 31 else 1)
        for row in rows:
            nulls = sum(1 << index for index, value in enumerate(row) if value is None)
            body += nulls.to_bytes((count + 7) // 8, "little")
            for each, value in zip(kinds, row, strict=True):
                body += b"" if value is None else each.write(value)
        return self.event(kind, body)


def text(size: int) -> Callable[[str], bytes]:
    return lambda value: len(value.encode()).to_bytes(size, "little") + value.encode()


def datetime6(value: datetime) -> bytes:
    day = (value.year * 13 + value.month) << 5 | value.day
    packed = day << 17 | value.hour << 12 | value.minute << 6 | value.second
    return (packed + 0x8000000000).to_bytes(5, "big") + value.microsecond.to_bytes(3, "big")


def decimal12_4(value: Any) -> bytes:
    """DECIMAL(12,4): eight digits in four bytes, four in two."""
    scaled = int(abs(value) * 10_000)
    raw = (scaled // 10_000).to_bytes(4, "big") + (scaled % 10_000).to_bytes(2, "big")
    flipped = bytes([raw[0] ^ 0x80]) + raw[1:]
    return flipped if value >= 0 else bytes(each ^ 0xFF for each in flipped)


INT = Kind(3, b"", lambda value: struct.pack("<i", value), unsigned=False)
UNSIGNED = Kind(8, b"", lambda value: struct.pack("<Q", value), unsigned=True)
MEDIUM = Kind(9, b"", lambda value: value.to_bytes(3, "little", signed=True), unsigned=False)
DOUBLE = Kind(5, b"\x08", lambda value: struct.pack("<d", value), unsigned=False)
YEAR = Kind(13, b"", lambda value: bytes([value - 1900 if value else 0]), unsigned=True)
SHORT_TEXT = Kind(15, struct.pack("<H", 80), text(1), collation=255)
LONG_TEXT = Kind(15, struct.pack("<H", 1200), text(2), collation=255)
TEXT = Kind(252, b"\x04", text(4), collation=255)
BLOB = Kind(252, b"\x03", lambda value: len(value).to_bytes(3, "little") + value, collation=63)
DATETIME = Kind(18, b"\x06", datetime6)
DECIMAL = Kind(246, bytes([12, 4]), decimal12_4, unsigned=False)
ENUM = Kind(254, bytes([247, 1]), lambda value: bytes([value]), labels=("a", "ö"))
