"""Avro values as Kafka Connect's converters write them, read as JSON would have them. Without I/O.

A schema of Avro is put into Connect's terms (``connect.name``, ``connect.parameters``), and values into the forms that
`streamlab.cdc.debezium.values` knows: bytes as base64, NaN as text. So everything behind it is the same for both.

Source: Apache Avro's specification 1.12, "Binary encoding"; `AvroData` of Confluent's and Apicurio's converters.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

__all__ = ["AvroSchema", "as_json", "single", "zigzag"]

Read = Callable[[bytes, int], tuple[Any, int]]

_FORMS: Final = {
    "boolean": "boolean", "int": "int32", "long": "int64", "float": "float", "double": "double", "string": "string",
    "bytes": "bytes", "enum": "string", "fixed": "bytes",
}  # fmt: skip


class AvroSchema:
    """A schema, as a registry keeps it.

    Parameters
    ----------
    text : str
        JSON.
    others : sequence of str
        Schemas that it refers to by their names, in the order in which they need each other.

    Raises
    ------
    ValueError, LookupError, TypeError
        It is none.

    Attributes
    ----------
    field : dict
        The same in Connect's terms.
    """

    def __init__(self, text: str, others: tuple[str, ...] = ()) -> None:
        self._named: dict[str, tuple[dict[str, Any], Read]] = {}
        for each in others:
            self._schema(json.loads(each), "")
        self.field, self._read = self._schema(json.loads(text), "")

    def names(self, data: bytes) -> tuple[str, ...]:
        """The fields of a value."""
        return tuple(field["field"] for field in self.field.get("fields") or ())

    def read(self, data: bytes) -> Any:
        """A value.

        Raises
        ------
        ValueError, LookupError, struct.error
            The bytes are none.
        """
        value, end = self._read(data, 0)
        if end != len(data):
            raise ValueError(f"{len(data) - end} bytes are left over")
        return value

    def _schema(self, schema: Any, space: str) -> tuple[dict[str, Any], Read]:
        if isinstance(schema, list):
            return self._union(schema, space)
        if isinstance(schema, str):
            schema = {"type": schema}
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self._schema(kind, space)
        if kind not in _FORMS and kind not in {"record", "array", "map", "null"}:
            return self._named.get(kind) or self._named[f"{space}.{kind}"]
        field: dict[str, Any] = {"type": str(schema.get("connect.type") or _FORMS.get(kind, kind))}
        if "connect.name" in schema:
            field["name"] = schema["connect.name"]
        parameters = dict(schema.get("connect.parameters") or {})
        if schema.get("logicalType") == "decimal" and "scale" not in parameters:
            parameters["scale"] = str(schema.get("scale", 0))
        if parameters:
            field["parameters"] = parameters
        if kind == "record":
            return self._record(schema, field, space)
        if kind in {"enum", "fixed"}:
            read = _enum(schema["symbols"]) if kind == "enum" else _fixed(int(schema["size"]))
            self._named[_full(schema, space)] = made = (field, read)
            return made
        if kind == "array":
            items, element = self._schema(schema["items"], space)
            return {**field, "type": "array", "items": items}, _blocks(element, keyed=False)
        if kind == "map":
            values, element = self._schema(schema["values"], space)
            told = {**field, "type": "map", "keys": {"type": "string"}, "values": values}
            return told, _blocks(element, keyed=True)
        return field, _PRIMITIVE[kind]

    def _union(self, branches: list[Any], space: str) -> tuple[dict[str, Any], Read]:
        read = [self._schema(each, space) for each in branches]
        wanted = [each for each, branch in zip(read, branches, strict=True) if branch != "null"]
        if len(wanted) != 1:
            raise ValueError("a union of several types")

        def value(data: bytes, at: int) -> tuple[Any, int]:
            index, at = zigzag(data, at)
            return read[_within(index, len(read))][1](data, at)

        return wanted[0][0], value

    def _record(self, schema: dict[str, Any], field: dict[str, Any], space: str) -> tuple[dict[str, Any], Read]:
        name = _full(schema, space)
        inner = name.rpartition(".")[0]
        parts: list[tuple[str, Read]] = []

        def value(data: bytes, at: int) -> tuple[Any, int]:
            row = {}
            for part, read in parts:
                row[part], at = read(data, at)
            return row, at

        told: dict[str, Any] = {"name": name, **field, "type": "struct", "fields": []}
        self._named[name] = made = (told, value)
        for each in schema["fields"]:
            described, read = self._schema(each["type"], inner)
            told["fields"].append({**described, "field": each["name"]})
            parts.append((each["name"], read))
        return made


def _full(schema: dict[str, Any], space: str) -> str:
    name = str(schema["name"])
    space = str(schema.get("namespace") or space)
    return name if "." in name or not space else f"{space}.{name}"


def _within(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise ValueError("there is no such branch")
    return index


def zigzag(data: bytes, at: int) -> tuple[int, int]:
    """A number in zigzag, seven bits a byte, the lowest first."""
    shift = number = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _cut(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size < 0 or at + size > len(data):
        raise ValueError("a value is cut short")
    return data[at : at + size], at + size


def _raw(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = zigzag(data, at)
    return _cut(data, at, size)


def _text(data: bytes, at: int) -> tuple[str, int]:
    found, at = _raw(data, at)
    return found.decode(), at


def _base64(data: bytes, at: int) -> tuple[str, int]:
    found, at = _raw(data, at)
    return b64encode(found).decode(), at


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    return bool(_within(data[at], 2)), at + 1


def as_json(number: float) -> Any:
    """A fraction as JSON has it: what is no number is text."""
    return number if math.isfinite(number) else str(number)


def single(number: float) -> Any:
    """One of 32 bits, with the shortest digits that mean it: 0.1, and not 0.10000000149011612."""
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        if math.isfinite(number) and _SINGLE.pack(short) == _SINGLE.pack(number):
            return short
    return as_json(number)


_SINGLE: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")


def _float(data: bytes, at: int) -> tuple[Any, int]:
    found, at = _cut(data, at, 4)
    return single(*_SINGLE.unpack(found)), at


def _double(data: bytes, at: int) -> tuple[Any, int]:
    found, at = _cut(data, at, 8)
    return as_json(*_DOUBLE.unpack(found)), at


def _enum(symbols: list[str]) -> Read:
    def read(data: bytes, at: int) -> tuple[str, int]:
        index, at = zigzag(data, at)
        return symbols[_within(index, len(symbols))], at

    return read


def _fixed(size: int) -> Read:
    def read(data: bytes, at: int) -> tuple[str, int]:
        found, at = _cut(data, at, size)
        return b64encode(found).decode(), at

    return read


def _blocks(element: Read, *, keyed: bool) -> Read:
    """Arrays and maps: blocks with the number of their elements; a negative one is followed by the block's size."""

    def read(data: bytes, at: int) -> tuple[Any, int]:
        items: list[Any] = []
        pairs: dict[str, Any] = {}
        while True:
            count, at = zigzag(data, at)
            if not count:
                return (pairs if keyed else items), at
            if count < 0:
                count = -count
                _, at = zigzag(data, at)
            if count > len(data):
                raise ValueError("more elements than bytes")
            for _ in range(count):
                if keyed:
                    name, at = _text(data, at)
                    pairs[name], at = element(data, at)
                else:
                    value, at = element(data, at)
                    items.append(value)

    return read


_PRIMITIVE: Final[dict[str, Read]] = {
    "null": lambda data, at: (None, at), "boolean": _boolean, "int": zigzag, "long": zigzag, "float": _float,
    "double": _double, "string": _text, "bytes": _base64,
}  # fmt: skip
