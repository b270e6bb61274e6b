"""Table_map events: the table whose rows follow, with names, types, signs, character sets, labels and key.

With ``binlog_row_metadata=FULL`` the log describes each table as it was when its rows were written, so a reader needs
no catalog, and rows from before an ALTER are read as what they were. With MINIMAL names and key are missing.

Source: `libs/mysql/binlog/event/rows_event.h` (Table_map_event), `sql/log_event.cc` (Table_map_log_event).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from streamlab.cdc.binlog.charsets import BINARY
from streamlab.cdc.binlog.events import BODY, packed
from streamlab.errors import CannotCapture

__all__ = ["METADATA_FIX", "Column", "Table", "read"]

METADATA_FIX: Final = (
    "As an administrator: SET PERSIST binlog_row_metadata = FULL. Rows that were logged before stay without names: "
    "begin behind them, with a new snapshot."
)

TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24 = 1, 2, 3, 4, 5, 8, 9
DATE, YEAR, VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2 = 10, 13, 15, 16, 17, 18, 19
TYPED_ARRAY, VECTOR, JSON, NEWDECIMAL, ENUM, SET, TINY_BLOB, MEDIUM_BLOB, LONG_BLOB = (
    20, 242, 245, 246, 247, 248, 249, 250, 251,
)  # fmt: skip
BLOB, VAR_STRING, STRING, GEOMETRY = 252, 253, 254, 255

# As the server counts them, for the bits of signs and the list of collations: a year has a sign, a vector a collation.
_NUMERIC = frozenset({TINY, SHORT, INT24, LONG, LONGLONG, NEWDECIMAL, FLOAT, DOUBLE, YEAR})
_TEXT = frozenset({STRING, VAR_STRING, VARCHAR, TINY_BLOB, MEDIUM_BLOB, LONG_BLOB, BLOB, VECTOR})
_ONE_BYTE = frozenset({FLOAT, DOUBLE, BLOB, JSON, GEOMETRY, VECTOR, TIMESTAMP2, DATETIME2, TIME2})
_BIG_ENDIAN = frozenset({STRING, ENUM, SET, NEWDECIMAL})
_TWO_BYTES = frozenset({VARCHAR, VAR_STRING, BIT}) | _BIG_ENDIAN


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the log describes it.

    Attributes
    ----------
    name : str
        Its name.
    type : int
        The number of its type: that of an enum or a set where the log says STRING.
    meta : int
        What else the type needs: a length, a precision and scale, a number of fractional digits.
    unsigned : bool
        Whether a number has no sign.
    collation : int
        Of text; 63 (binary) of anything else.
    labels : tuple of bytes
        Of an enum or a set.
    """

    name: str
    type: int
    meta: int
    unsigned: bool = False
    collation: int = BINARY
    labels: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the log describes it. `key` are the columns of the primary key, in their order."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def named(packet: bytes) -> tuple[str, str, int]:
    """Schema and name of the table, and the place behind them."""
    at = BODY + 8
    names = []
    for _ in range(2):
        end = at + 1 + packet[at]
        if packet[end] != 0:
            raise ValueError("a name does not end where it should")
        names.append(packet[at + 1 : end].decode())
        at = end + 1
    return names[0], names[1], at


def read(packet: bytes, end: int) -> Table:
    """The table of a TABLE_MAP event.

    Raises
    ------
    CannotCapture
        The log has no names of the columns.
    """
    schema, name, at = named(packet)
    count, at = packed(packet, at)
    types = packet[at : at + count]
    at += count
    size, at = packed(packet, at)
    kinds = list(_metadata(types, packet[at : at + size]))
    at += size + (count + 7) // 8
    if at > end or len(types) != count:
        raise ValueError("it is cut short")
    fields = dict(_fields(packet, at, end))
    if 4 not in fields:
        raise CannotCapture(
            f"The binary log does not name the columns of {schema}.{name}: binlog_row_metadata is MINIMAL.",
            METADATA_FIX,
        )
    names = [text.decode() for text in _strings(fields[4])]
    if len(names) != count:
        raise ValueError(f"it has {count} columns and {len(names)} names")
    signs = fields.get(1, b"")
    numbers = [index for index, (kind, _) in enumerate(kinds) if kind in _NUMERIC]
    unsigned = {column for bit, column in enumerate(numbers) if signs[bit >> 3] >> (7 - (bit & 7)) & 1}
    collations = {
        **_collations(fields, 2, 3, [index for index, (kind, _) in enumerate(kinds) if kind in _TEXT]),
        **_collations(fields, 10, 11, [index for index, (kind, _) in enumerate(kinds) if kind in {ENUM, SET}]),
    }
    labels = {**_labels(fields.get(6, b""), ENUM, kinds), **_labels(fields.get(5, b""), SET, kinds)}
    columns = tuple(
        Column(
            names[index], kind, meta, index in unsigned, collations.get(index, BINARY), labels.get(index, ())
        )
        for index, (kind, meta) in enumerate(kinds)
    )  # fmt: skip
    key = _numbers(fields.get(8, b"")) or _numbers(fields.get(9, b""))[::2]
    return Table(schema, name, columns, tuple(names[index] for index in key))


def _metadata(types: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """The real type of each column and its metadata."""
    at = 0
    for kind in types:
        meta = 0
        if kind == TYPED_ARRAY:
            raise ValueError("it has a column that is an array, which no table can have")
        if kind in _ONE_BYTE:
            meta = data[at]
            at += 1
        elif kind in _TWO_BYTES:
            meta = int.from_bytes(data[at : at + 2], "big" if kind in _BIG_ENDIAN else "little")
            at += 2
        if kind == STRING:
            real = meta >> 8
            if real in {ENUM, SET}:
                yield real, meta & 0xFF
                continue
            # Two bits of the length are hidden in the type, inverted.
            meta = (meta & 0xFF) | ((real & 0x30) ^ 0x30) << 4
        yield kind, meta
    if at != len(data):
        raise ValueError("the metadata of its columns has another length")


def _fields(packet: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at < end:
        kind = packet[at]
        size, at = packed(packet, at + 1)
        if at + size > end:
            raise ValueError("its optional metadata is cut short")
        yield kind, packet[at : at + size]
        at += size


def _numbers(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = packed(data, at)
        found.append(value)
    return found


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size, at = packed(data, at)
        if at + size > len(data):
            raise ValueError("a name is cut short")
        yield data[at : at + size]
        at += size


def _collations(fields: Mapping[int, bytes], default: int, each: int, columns: list[int]) -> dict[int, int]:
    """Column -> collation: either one and its exceptions, or one for each column."""
    if each in fields:
        return dict(zip(columns, _numbers(fields[each]), strict=True))
    if default not in fields:
        return {}
    usual, *exceptions = _numbers(fields[default])
    found = dict.fromkeys(columns, usual)
    for place, collation in zip(exceptions[::2], exceptions[1::2], strict=True):
        found[columns[place]] = collation
    return found


def _labels(data: bytes, kind: int, kinds: list[tuple[int, int]]) -> dict[int, tuple[bytes, ...]]:
    found, at = {}, 0
    for index in [index for index, each in enumerate(kinds) if each[0] == kind]:
        if at >= len(data):
            break
        count, at = packed(data, at)
        labels = []
        for _ in range(count):
            size, at = packed(data, at)
            labels.append(data[at : at + size])
            at += size
        found[index] = tuple(labels)
    return found


def table_id(packet: bytes) -> bytes:
    """The number by which Rows events name the table: good until the server thinks of another."""
    return packet[BODY : BODY + 6]
