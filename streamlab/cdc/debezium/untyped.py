"""JSON without schemas, and Protobuf: what a reader has to be told, since the records say no types, or not all.

A bare number may be an integer, days since 1970 or microseconds; a text may be a text, a decimal as base64 or one in
digits. So such records are read only where somebody vouches for them: either the configuration of the connector has
``decimal.handling.mode=string`` and ``time.precision.mode=isostring``, and all these values are text as it stands; or
`types` names the type of each column that is met. With both, `types` makes values of the columns that it names.

Messages of Protobuf have some types: what is one of Connect's own, a fraction, a boolean. The rest is held to the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from streamlab.cdc.debezium.rows import MALFORMED, compiled
from streamlab.cdc.debezium.schema import Reader
from streamlab.cdc.debezium.values import reader
from streamlab.cdc.event import UNCHANGED
from streamlab.errors import CannotCapture, SettingsError

__all__ = ["TYPES", "Untyped"]

_MODES: Final = {"decimal.handling.mode": "string", "time.precision.mode": "isostring"}
_TIME: Final = "io.debezium.time."

TYPES: Final[Mapping[str, dict[str, Any]]] = {
    "any": {"type": "any"},
    "bool": {"type": "boolean"},
    "int": {"type": "int64"},
    "text": {"type": "string"},
    "float": {"type": "double"},
    "bytes": {"type": "bytes"},
    "decimal": {"type": "string", "parameters": {"__debezium.source.column.type": "NUMERIC"}},
    "date": {"name": _TIME + "IsoDate"},
    "time": {"name": _TIME + "IsoTime"},
    "timestamp": {"name": _TIME + "IsoTimestamp"},
    "timestamptz": {"name": _TIME + "ZonedTimestamp"},
    "timetz": {"name": _TIME + "ZonedTime"},
    "interval": {"name": _TIME + "Interval"},
    "json": {"name": "io.debezium.data.Json"},
    "uuid": {"name": "io.debezium.data.Uuid"},
    "inet": {"type": "string", "parameters": {"__debezium.source.column.type": "INET"}},
    "cidr": {"type": "string", "parameters": {"__debezium.source.column.type": "CIDR"}},
    "point": {"type": "struct", "name": "io.debezium.data.geometry.Point"},
    "geometry": {"type": "struct", "name": "io.debezium.data.geometry.Geometry"},
    "vector": {"type": "array", "items": {"type": "float"}, "name": "io.debezium.data.FloatVector"},
    "variable": {"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"},
}
"""Names that `types` knows, beside the full names of Connect and Debezium."""

_PROTOBUF_MODES: Final = {
    "decimal.handling.mode": ("string", "precise"),
    "time.precision.mode": ("isostring", "connect"),
}
"""With these a message says of each value what it is, or it is a text that stands for itself."""
_CERTAIN: Final = {"boolean", "int8", "int16", "float", "double"}


def _certain(column: Mapping[str, Any]) -> bool:
    """Whether a column of a message can be one type of Debezium alone."""
    if column.get("type") == "array":
        return _certain(column["items"])
    if column.get("type") == "struct" and not str(column["name"]).startswith("io.debezium."):
        return all(_certain(each) for each in column["fields"])
    return "name" in column or column.get("type") in _CERTAIN


_NAME = re.compile(r"([\w.]+?)(?:\((\d+)\))?(\[\])?")


def field(name: str) -> dict[str, Any]:
    """A type's name as a field of a schema: ``decimal``, ``date[]``, ``io.debezium.data.Bits(12)``.

    Raises
    ------
    SettingsError
        There is no such type.
    """
    match = _NAME.fullmatch(name)
    found: dict[str, Any] | None = None
    if match is not None:
        word, number, _ = match.groups()
        if word in TYPES and number is None:
            found = dict(TYPES[word])
        elif "." in word:
            found = {"type": "", "name": word}
            if number is not None:
                found["parameters"] = {"length" if word.endswith("Bits") else "scale": number}
    try:
        if match is None or found is None:
            raise ValueError(name)
        reader(found, "postgresql")
    except MALFORMED as error:
        raise SettingsError(
            f"There is no type {name!r}.",
            f"Use {', '.join(TYPES)}, each also with [] behind it; or the full name that Connect or Debezium has, such "
            "as io.debezium.time.MicroTimestamp or org.apache.kafka.connect.data.Decimal(2).",
        ) from error
    return {"type": "array", "items": found} if match[3] else found


_INEXACT: Final = frozenset({"NaN", "Infinity", "-Infinity"})
"""Fractions that JSON has as text."""
_FRACTION: Final = (int, float, Decimal)
_JSON: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,), "string": (str,), "io.debezium.time.Year": (int,),
    **dict.fromkeys(("int8", "int16", "int32", "int64"), (int,)),
    **dict.fromkeys(("float", "float32", "float64", "double"), _FRACTION),
    **dict.fromkeys([f"io.debezium.data.{name}" for name in ("Xml", "Enum", "EnumSet", "Ltree", "Tsvector")], (str,)),
}  # fmt: skip
"""What JSON has for a value, where `reader` would take anything."""


def _strict(said: Mapping[str, Any], database: str) -> Reader | None:
    """As `reader`, for a value that has no schema: what JSON has must be of the type that was said.

    A fraction for a decimal is refused too: it was written with ``decimal.handling.mode=double``, and the digits that a
    decimal would get are those of a binary fraction.
    """
    read = reader(said, database)
    if said.get("type") == "array" and "name" not in said:
        member = _strict(said["items"], database)

        def members(values: Any) -> Any:
            if type(values) is not list:
                raise TypeError(f"JSON has {_named(values)} for an array")
            return values if member is None else [None if each is None else member(each) for each in values]

        return members
    wanted = _wanted(said)
    if wanted is None:
        return read

    def strict(value: Any) -> Any:
        if type(value) not in wanted and not (wanted is _FRACTION and value in _INEXACT):
            raise TypeError(f"JSON has {_named(value)} for {_named(wanted[-1]())}")
        return value if read is None else read(value)

    return strict


def _wanted(said: Mapping[str, Any]) -> tuple[type, ...] | None:
    return _JSON.get(said.get("name") or said.get("type", ""))


def _named(value: Any) -> str:
    """A value's type in JSON; not the value, which may be anybody's."""
    names = {bool: "a boolean", int: "a whole number", str: "a text", list: "an array", dict: "an object"}
    return names.get(type(value), "a fraction")


class Untyped:
    """What was said of records without schemas.

    Parameters
    ----------
    types : mapping
        ``table`` or ``schema.table`` -> column -> name of its type.
    configuration : mapping
        Of the connector, as Connect has it, or the two keys of it.

    Raises
    ------
    SettingsError
        There is no such type; or it is not said of the columns of a table.
    """

    def __init__(
        self,
        types: Mapping[str, Mapping[str, str]] | None = None,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        for table, said in (types or {}).items():
            if not isinstance(said, Mapping) or not all(isinstance(name, str) for name in said.values()):
                raise SettingsError(
                    f"types= says {said!r} of {table}, and not which type each column has.",
                    f"Write types={{'{table}': {{'COLUMN': 'int', ...}}}}.",
                )
        self._fields = {
            table: {column: field(name) for column, name in columns.items()}
            for table, columns in (types or {}).items()
        }  # fmt: skip
        self._configuration = given = dict(configuration or {})
        self._wrong = {key: given.get(key, "") for key, value in _MODES.items() if given.get(key) != value}
        self._given = bool(given)
        self._readers: dict[tuple[str, str, str], dict[str, Reader | None]] = {}

    def convert(self, row: dict[str, Any], schema: str, table: str, database: str) -> None:
        """Replace the values of a row whose types were said.

        Raises
        ------
        CannotCapture
            Nobody vouches for a column.
        ValueError
            A value is not of its type.
        """
        readers = self._known(schema, table, database)
        if self._wrong and not row.keys() <= readers.keys():
            self._refuse(f"{schema}.{table}", sorted(row.keys() - readers.keys()), typed=bool(readers))
        for name, read in readers.items():
            value = row.get(name)
            if value is None or read is None or value is UNCHANGED:
                continue
            try:
                row[name] = read(value)
            except MALFORMED as error:
                raise ValueError(f"the column {name}: {type(error).__name__}: {str(error)[:200]}") from error

    def _known(self, schema: str, table: str, database: str) -> dict[str, Reader | None]:
        found = self._readers.get((schema, table, database))
        if found is None:
            columns = self._fields.get(f"{schema}.{table}") or self._fields.get(table) or {}
            found = self._readers[schema, table, database] = {
                name: _strict(each, database) for name, each in columns.items()
            }  # fmt: skip
        return found

    def fields(self, schema: str, table: str, columns: Collection[str]) -> list[dict[str, Any]] | None:
        """The columns of a table as a schema has them; None where the type of one was not said."""
        known = self._fields.get(f"{schema}.{table}") or self._fields.get(table) or {}
        if not known.keys() >= set(columns):
            return None
        return [{**known[name], "field": name} for name in columns]

    def columns(
        self, fields: Sequence[Mapping[str, Any]], schema: str, table: str, *, nulls: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """The columns of a message of Protobuf, with the types that were said of them.

        Parameters
        ----------
        fields : sequence of Field
            The columns as the message has them.
        schema, table : str
            The table.
        nulls : sequence of Field
            Fields beside the columns, of which some may be NULL in every record of Debezium.

        Raises
        ------
        CannotCapture
            Nobody vouches for a column; or the messages have no NULL.
        """
        if not any(each.get("optional") and each.get("type") != "struct" for each in nulls):
            raise CannotCapture(
                f"Messages of {schema}.{table} have no NULL: it cannot be told from 0 and from an empty text.",
                "Set value.converter.optional.for.nullables=true (or wrapper.for.nullables) in the connector.",
            )
        said = self._fields.get(f"{schema}.{table}") or self._fields.get(table) or {}
        given = all(self._configuration.get(key, "") in values for key, values in _PROTOBUF_MODES.items())
        open_ = [each["field"] for each in fields if each["field"] not in said and not _certain(each)]
        if open_ and not given:
            modes = " and ".join(f"{key}={'|'.join(values)}" for key, values in _PROTOBUF_MODES.items())
            raise CannotCapture(
                f"{schema}.{table}.{open_[0]} comes as Protobuf, which does not say what Debezium made of the column: "
                "a number may be a time, a text a decimal.",
                f"Set {modes} in the connector, and hand its configuration over (configuration=...); or say the type: "
                f"types={{'{schema}.{table}': {{'{open_[0]}': ...}}}}, with 'any' for what the message says as it is.",
            )
        return [{**said[each["field"]], "field": each["field"]} if each["field"] in said else each for each in fields]

    def compiled(self, schema: str, table: str, database: str) -> Callable[[dict[str, Any]], None]:
        """The common road of `convert` for one table; it raises where that would, or has to look closer."""
        said = self._fields.get(f"{schema}.{table}") or self._fields.get(table) or {}
        strict = self._known(schema, table, database)
        wanted = {name: types for name, each in said.items() if (types := _wanted(each)) is not None}
        # What is looked at in passing need not be called for it.
        readers = {name: reader(each, database) if name in wanted else strict[name] for name, each in said.items()}
        return compiled(readers, strict.keys() if self._wrong else None, wanted)

    def _refuse(self, table: str, columns: list[str], *, typed: bool) -> None:
        if typed:
            raise CannotCapture(
                f"{table}.{columns[0]} comes as JSON without a schema, and its type was not said.",
                f"Add it to types={{'{table}': {{'{columns[0]}': ...}}}}, with 'any' for what JSON says as it is.",
            )
        wrong = ", ".join(f"{key}={value or '(not set)'}" for key, value in self._wrong.items())
        found = f"; the configuration has {wrong}" if self._given else ""
        raise CannotCapture(
            f"Records of {table} are JSON without schemas: a number may be a time, a text a decimal{found}.",
            "Have the connector write schemas, or Avro; or set decimal.handling.mode=string and "
            "time.precision.mode=isostring there, and hand its configuration over (configuration=...); or say the type "
            f"of each column: types={{'{table}': {{...}}}}.",
        )
