"""JSON as MySQL stores it, and so as its binary log has it: a tree with offsets, decoded to Python's values.

A value is a byte for its type and a payload. An object or an array begins with the number of its elements and its size,
then a table: for each key its place and length, for each value its type and its place, or the value itself where that
fits. Small ones have numbers of two bytes, large ones of four. What JSON has no form for (decimals, times, bytes) is
"opaque": a column type and its bytes.

The result equals `json.loads` of the text that SELECT gives: so a decimal is a `float`, and a time is its text.

Source: `sql-common/json_binary.h` of the server, which describes the format; `sql-common/json_dom.cc` for the texts.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from streamlab.cdc.binlog.decimals import decimal_reader, decimal_size

__all__ = ["loads"]

_SCALARS: Final = {
    5: struct.Struct("<h"), 6: struct.Struct("<H"), 7: struct.Struct("<i"), 8: struct.Struct("<I"),
    9: struct.Struct("<q"), 10: struct.Struct("<Q"), 11: struct.Struct("<d"),
}  # fmt: skip
_LITERALS: Final = {0: None, 1: True, 2: False}
_DEPTH = 101
"""One more than MySQL lets a document be nested."""
_DATE, _TIME, _DATETIME, _TIMESTAMP, _DECIMAL = 10, 11, 12, 7, 246


def loads(data: bytes) -> Any:
    """The value of a JSON column.

    Raises
    ------
    ValueError, LookupError, struct.error
        The bytes are no such value.
    """
    if not data:
        return None  # the implicit default of a column that is NOT NULL
    return _Document(data).value(data[0], 1, 0)


class _Document:
    def __init__(self, data: bytes) -> None:
        self._data = data
        # Each element takes room in the table; without this, a broken table could ask for one of them without end.
        self._left = len(data)

    def value(self, kind: int, at: int, depth: int) -> Any:
        data = self._data
        if kind <= 3:
            return self._composite(kind, at, depth)
        if kind == 4:
            return _LITERALS[data[at]]
        if kind in _SCALARS:
            return _SCALARS[kind].unpack_from(data, at)[0]
        if kind == 12:
            return self._bytes(at).decode()
        if kind == 15:
            return _opaque(data[at], self._bytes(at + 1))
        raise ValueError(f"a JSON value is of the unknown type {kind}")

    def _bytes(self, at: int) -> bytes:
        """Bytes behind their length, which has seven bits in each byte."""
        length = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise ValueError("the length of a JSON string has no end")
        if at + length > len(self._data):
            raise ValueError("a JSON string is cut short")
        return self._data[at : at + length]

    def _composite(self, kind: int, start: int, depth: int) -> Any:
        data = self._data
        size = 4 if kind & 1 else 2
        number = struct.Struct("<I" if kind & 1 else "<H").unpack_from
        (count,) = number(data, start)
        (whole,) = number(data, start + size)
        self._left -= count
        if depth > _DEPTH or self._left < 0 or start + whole > len(data):
            raise ValueError("a JSON document is cut short, or too deep")
        keys = kind < 2
        entries = start + 2 * size + (count * (size + 2) if keys else 0)
        values = []
        for index in range(count):
            at = entries + index * (size + 1)
            inner = data[at]
            # What fits stands in the table itself.
            inline = inner in {4, 5, 6} or (size == 4 and inner in {7, 8})
            values.append(self.value(inner, at + 1 if inline else start + number(data, at + 1)[0], depth + 1))
        if not keys:
            return values
        names = []
        for index in range(count):
            at = start + 2 * size + index * (size + 2)
            begin = start + number(data, at)[0]
            end = begin + int.from_bytes(data[at + size : at + size + 2], "little")
            if end > len(data):
                raise ValueError("a JSON key is cut short")
            names.append(data[begin:end].decode())
        return dict(zip(names, values, strict=True))


def _opaque(kind: int, data: bytes) -> Any:
    if kind == _DECIMAL:
        precision, scale = data[0], data[1]
        raw = data[2:]
        if not 0 < precision <= 65 or scale > min(30, precision) or len(raw) != decimal_size(precision, scale):
            raise ValueError("a decimal in JSON has another length")
        return float(decimal_reader(precision, scale)(raw))
    if kind in {_DATE, _TIME, _DATETIME, _TIMESTAMP}:
        (packed,) = struct.unpack("<q", data)
        sign, packed = ("-", -packed) if packed < 0 else ("", packed)
        whole, micros = packed >> 24, packed & 0xFFFFFF
        clock = f"{whole >> 6 & 63:02}:{whole & 63:02}.{micros:06}"
        if kind == _TIME:
            return f"{sign}{whole >> 12 & 0x3FF:02}:{clock}"
        year, month = divmod(whole >> 22, 13)
        day = f"{year:04}-{month:02}-{whole >> 17 & 31:02}"
        return day if kind == _DATE else f"{day} {whole >> 12 & 31:02}:{clock}"
    return f"base64:type{kind}:{base64.b64encode(data).decode()}"
