"""What the values of each type of Connect and Debezium become, as JSON has them.

A field of a schema has a form (``int32``, ``string``, ``struct``) and, where it means more, a name such as
``io.debezium.time.MicroTimestamp``. `reader` gives the function for one, or None where the value that JSON gives is the
value already.

The rule is that of docs/values.md: a value equals what the direct reader of the same database gives. What Debezium
leaves out of the record cannot be had back; where it says the column's own type too
(``column.propagate.source.type``), more can. A value that Python cannot hold stays text.

Sources: Debezium's manual, "Data type mappings" of each connector; `JsonConverter` of Kafka Connect;
`io.debezium.time`, `io.debezium.data`.
"""

from __future__ import annotations

import ipaddress
import json
import re
import struct
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from streamlab.cdc.debezium.schema import Field, Reader
from streamlab.cdc.debezium.times import TIMES

__all__ = ["UNAVAILABLE", "reader"]

UNAVAILABLE: Final = "__debezium_unavailable_value"
"""What Debezium writes for a large value that did not change (``unavailable.value.placeholder``)."""

_SOURCE_TYPE: Final = "__debezium.source.column.type"


def reader(field: Field, database: str = "") -> Reader | None:
    """The function that makes a value of what JSON has; None where that is the value. NULL is the caller's.

    Parameters
    ----------
    field : mapping
        The field's schema.
    database : str
        ``mysql`` or ``postgresql``: what a boolean, a bit string or a time of day is there.

    Raises
    ------
    ValueError
        There is no such type.
    """
    name = field.get("name") or ""
    parameters = field.get("parameters") or {}
    source = str(parameters.get(_SOURCE_TYPE) or "").upper()
    if database == "mariadb":
        database = "mysql"
    if name in _NAMED:
        return _NAMED[name](parameters, database)
    form = field.get("type")
    if form == "struct":
        return _STRUCTS.get(name, _struct)(field, database)
    if form == "array":
        vector = _VECTORS.get(name)
        return _vector(vector) if vector and database == "mysql" else _array(field["items"], database)
    if form == "map":
        return _map(field, database)
    if form in {"float", "float32"} and database == "mysql":
        return _single
    if (database, source) in _BY_SOURCE:
        return _BY_SOURCE[database, source]
    if form in _PLAIN:
        return _PLAIN[form]
    raise ValueError(f"there is no type {form!r}")


def exact(text: str) -> Any:
    """JSON whose integers are exact; fractions are floats."""
    if not isinstance(text, str):
        raise TypeError("a JSON value is text")
    return json.loads(text) if _LONG.search(text) else orjson.loads(text)


_LONG = re.compile(r"\d{19}")

# -- plain forms ----------------------------------------------------------------------------------


def _float(value: Any) -> float:
    # NaN and the infinities are text in JSON.
    return float(value)


def _single(value: Any) -> float:
    """The nearest of 32 bits, of which JSON has the shortest digits that mean it."""
    return float(_SINGLE.unpack(_SINGLE.pack(float(value)))[0])


_SINGLE: Final = struct.Struct("f")


def _bytes(value: Any) -> bytes:
    return a2b_base64(value, strict_mode=True)


_PLAIN: Final[dict[Any, Reader | None]] = {
    **dict.fromkeys(("boolean", "int8", "int16", "int32", "int64", "string", "any")),
    "float": _float, "float32": _float, "double": _float, "float64": _float, "bytes": _bytes,
}  # fmt: skip


def _unsigned(value: int) -> int:
    """``bigint.unsigned.handling.mode=long`` gives the upper half as negative numbers."""
    return value & 0xFFFF_FFFF_FFFF_FFFF


def _inet(value: str) -> Any:
    return ipaddress.ip_interface(value) if "/" in value else ipaddress.ip_address(value)


_BY_SOURCE: Final[dict[tuple[str, str], Reader | None]] = {
    ("mysql", "BIT"): lambda value: b"\1" if value else b"\0",
    ("mysql", "BIGINT UNSIGNED"): _unsigned,
    **dict.fromkeys([("mysql", "DECIMAL"), ("mysql", "DECIMAL UNSIGNED"), ("mysql", "NUMERIC")], Decimal),
    ("postgresql", "BIT"): lambda value: "1" if value else "0",
    ("postgresql", "NUMERIC"): Decimal,
    ("postgresql", "INET"): _inet,
    ("postgresql", "CIDR"): ipaddress.ip_network,
}


def _array(items: Field, database: str) -> Reader | None:
    read = reader(items, database)
    if read is None:
        return None
    made = read
    return lambda values: [None if each is None else made(each) for each in values]


def _map(field: Field, database: str) -> Reader:
    key, value = reader(field["keys"], database), reader(field["values"], database)

    def read(values: Any) -> dict[Any, Any]:
        # Keys that are no text come as a list of pairs.
        pairs = values.items() if isinstance(values, dict) else values
        return {
            key(name) if key else name: each if value is None or each is None else value(each) for name, each in pairs
        }

    return read


def _struct(field: Field, database: str) -> Reader:
    readers = {each["field"]: reader(each, database) for each in field["fields"]}

    def read(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: each if each is None or (made := readers[name]) is None else made(each)
            for name, each in values.items()
        }

    return read


# -- numbers --------------------------------------------------------------------------------------


def decimal(unscaled: bytes, scale: int) -> Decimal:
    """Of the bytes of its digits as a whole number, the highest first, and how many stand behind the point."""
    return Decimal(f"{int.from_bytes(unscaled, 'big', signed=True)}E{-scale}")


def _decimal(parameters: Field, database: str) -> Reader:
    exponent = f"E{-int(parameters['scale'])}"

    def read(value: Any) -> Decimal:
        if type(value) is not str:
            # ``decimal.format=NUMERIC``
            if type(value) is float:
                raise ValueError("read it exactly")
            return Decimal(value)
        unscaled = a2b_base64(value, strict_mode=True)
        if not unscaled:
            raise ValueError("a decimal has digits")
        return Decimal(f"{int.from_bytes(unscaled, 'big', signed=True)}{exponent}")

    return read


def _number(parameters: Field, database: str) -> Reader:
    read = _decimal(parameters, database)
    # MySQL's BIGINT UNSIGNED, with bigint.unsigned.handling.mode=precise.
    whole = str(parameters.get(_SOURCE_TYPE) or "").upper().startswith("BIGINT")
    return (lambda value: int(read(value))) if whole else read


def _variable(field: Field, database: str) -> Reader:
    return lambda value: decimal(_bytes(value["value"]), int(value["scale"]))


def _bits(parameters: Field, database: str) -> Reader:
    length = int(parameters["length"]) if "length" in parameters else None

    def read(value: str) -> Any:
        data = _bytes(value)
        number = int.from_bytes(data, "little")
        if database == "postgresql":
            return f"{number:0{length or 8 * len(data)}b}"
        return number.to_bytes((length + 7) // 8 if length else len(data), "big")

    return read


_VECTORS: Final = {"io.debezium.data.FloatVector": "f", "io.debezium.data.DoubleVector": "d"}


def _vector(letter: str) -> Reader:
    return lambda values: struct.pack(f"<{len(values)}{letter}", *values)


# -- structures, and text that means something ----------------------------------------------------


def _point(field: Field, database: str) -> Reader:
    if database != "postgresql":
        return _geometry(field, database)
    return lambda value: f"({_short(value['x'])},{_short(value['y'])})"


def _short(number: Any) -> str:
    text = repr(float(number))
    return text.removesuffix(".0").replace("nan", "NaN").replace("inf", "Infinity")


def _geometry(field: Field, database: str) -> Reader:
    def stored(value: Mapping[str, Any]) -> bytes:
        """As MySQL stores it."""
        return struct.pack("<I", value.get("srid") or 0) + _bytes(value["wkb"])

    def parts(value: Mapping[str, Any]) -> dict[str, Any]:
        return {"wkb": _bytes(value["wkb"]), "srid": value.get("srid")}

    return stored if database == "mysql" else parts


_STRUCTS: Final[dict[str, Callable[[Field, str], Reader]]] = {
    "io.debezium.data.VariableScaleDecimal": _variable,
    "io.debezium.data.geometry.Point": _point,
    "io.debezium.data.geometry.Geometry": _geometry,
    "io.debezium.data.geometry.Geography": _geometry,
}

_NAMED: Final[dict[str, Callable[[Field, str], Reader | None]]] = {
    "org.apache.kafka.connect.data.Decimal": _number,
    **TIMES,
    "io.debezium.data.Bits": _bits,
    "io.debezium.data.Json": lambda parameters, database: exact,
    "io.debezium.data.Uuid": lambda parameters, database: UUID,
    **dict.fromkeys(
        [f"io.debezium.data.{name}" for name in ("Xml", "Enum", "EnumSet", "Ltree", "Tsvector")],
        lambda parameters, database: None,
    ),
}
