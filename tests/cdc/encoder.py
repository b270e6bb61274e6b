"""An encoder of pgoutput, for tests: what the server would send, built by hand from the manual's tables."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Missing:
    """A large value that did not change."""


TOAST = Missing()
Value = str | bytes | None | Missing
"""Text, binary, NULL, unchanged."""


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def cstring(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def packed(payload: bytes, *, sent: datetime = EPOCH) -> bytes:
    """The CopyData message around one of the plug-in's."""
    return b"w" + struct.pack("!QQq", 0, 0, micros(sent)) + payload


@dataclass(frozen=True)
class Table:
    """A table: name and type OID of each column, and which of them are its identity."""

    oid: int
    schema: str
    name: str
    columns: tuple[tuple[str, int], ...]
    key: frozenset[str] = frozenset()
    identity: str = "d"

    def relation(self, xid: int | None = None) -> bytes:
        body = struct.pack("!I", self.oid) + cstring(self.schema) + cstring(self.name)
        body += self.identity.encode() + struct.pack("!H", len(self.columns))
        for name, oid in self.columns:
            body += bytes([name in self.key]) + cstring(name) + struct.pack("!Ii", oid, -1)
        return packed(b"R" + prefix(xid) + body)

    def insert(self, new: Sequence[Value], xid: int | None = None) -> bytes:
        return packed(b"I" + prefix(xid) + struct.pack("!I", self.oid) + b"N" + row(new))

    def update(
        self, new: Sequence[Value], *, key: Sequence[Value] | None = None, old: Sequence[Value] | None = None,
        xid: int | None = None,
    ) -> bytes:  # fmt: skip
        before = b"K" + row(key) if key is not None else b"O" + row(old) if old is not None else b""
        return packed(b"U" + prefix(xid) + struct.pack("!I", self.oid) + before + b"N" + row(new))

    def delete(
        self, *, key: Sequence[Value] | None = None, old: Sequence[Value] | None = None, xid: int | None = None
    ) -> bytes:
        before = b"K" + row(key) if key is not None else b"O" + row(old or ())
        return packed(b"D" + prefix(xid) + struct.pack("!I", self.oid) + before)


def prefix(xid: int | None) -> bytes:
    """Within a block of a transaction in progress each message names its (sub)transaction."""
    return b"" if xid is None else struct.pack("!I", xid)


def row(values: Sequence[Value]) -> bytes:
    body = struct.pack("!H", len(values))
    for value in values:
        if value is None:
            body += b"n"
        elif isinstance(value, Missing):
            body += b"u"
        else:
            data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            body += (b"t" if isinstance(value, str) else b"b") + struct.pack("!I", len(data)) + data
    return body


def begin(xid: int, commit: int, time: datetime = EPOCH) -> bytes:
    return packed(b"B" + struct.pack("!QqI", commit, micros(time), xid))


def commit(position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"C" + struct.pack("!BQQq", 0, position, end, micros(time)))


def origin(name: str, position: int = 0) -> bytes:
    return packed(b"O" + struct.pack("!Q", position) + cstring(name))


def type_(oid: int, schema: str, name: str, xid: int | None = None) -> bytes:
    return packed(b"Y" + prefix(xid) + struct.pack("!I", oid) + cstring(schema) + cstring(name))


def truncate(oids: Iterable[int], flags: int = 0, xid: int | None = None) -> bytes:
    listed = list(oids)
    return packed(b"T" + prefix(xid) + struct.pack(f"!IB{len(listed)}I", len(listed), flags, *listed))


def message(
    prefix_: str, content: bytes, *, position: int, transactional: bool = True, xid: int | None = None,
    sent: datetime = EPOCH,
) -> bytes:  # fmt: skip
    body = struct.pack("!BQ", transactional, position) + cstring(prefix_) + struct.pack("!I", len(content)) + content
    return packed(b"M" + prefix(xid) + body, sent=sent)


def stream_start(xid: int, *, first: bool) -> bytes:
    return packed(b"S" + struct.pack("!IB", xid, first))


def stream_stop() -> bytes:
    return packed(b"E")


def stream_commit(xid: int, position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"c" + struct.pack("!IBQQq", xid, 0, position, end, micros(time)))


def stream_abort(xid: int, subxid: int, *, position: int | None = None) -> bytes:
    more = b"" if position is None else struct.pack("!Qq", position, 0)
    return packed(b"A" + struct.pack("!II", xid, subxid) + more)


def begin_prepare(xid: int, gid: str, position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"b" + struct.pack("!QQqI", position, end, micros(time), xid) + cstring(gid))


def prepare(xid: int, gid: str, position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"P" + struct.pack("!BQQqI", 0, position, end, micros(time), xid) + cstring(gid))


def stream_prepare(xid: int, gid: str, position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"p" + struct.pack("!BQQqI", 0, position, end, micros(time), xid) + cstring(gid))


def commit_prepared(xid: int, gid: str, position: int, end: int, time: datetime = EPOCH) -> bytes:
    return packed(b"K" + struct.pack("!BQQqI", 0, position, end, micros(time), xid) + cstring(gid))


def rollback_prepared(xid: int, gid: str, prepared_end: int, end: int, time: datetime = EPOCH) -> bytes:
    body = struct.pack("!BQQqqI", 0, prepared_end, end, 0, micros(time), xid)
    return packed(b"r" + body + cstring(gid))


def numeric(value: Decimal) -> bytes:
    """The binary form of a numeric."""
    if not value.is_finite():
        return struct.pack("!HhHH", 0, 0, 0xC000 if value.is_nan() else 0xF000 if value < 0 else 0xD000, 0)
    sign, _, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(0, -exponent)
    plain = f"{value.copy_abs():f}"
    whole, _, fraction = plain.partition(".")
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        sign, weight = 0, 0
    return struct.pack("!HhHH", len(groups), weight, 0x4000 if sign else 0, scale) + struct.pack(
        f"!{len(groups)}H", *groups
    )
