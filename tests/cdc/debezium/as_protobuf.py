"""A record of Debezium in JSON with schemas, written again as Confluent's Protobuf converter for Connect writes it.

The converter itself is not to be had from Maven Central, nor is another one that writes this format. What it makes of a
schema is told in its manual ("Protobuf Connect Converter"): structures become messages within the message, by the last
part of their names; what may be NULL is ``optional`` with ``optional.for.nullables=true``, a wrapper with
``wrapper.for.nullables=true``, and else has no NULL; Connect's own Decimal, Date, Time and Timestamp become messages of
Confluent's and Google's; a number of 8 or 16 bits has a note beside it; the names of all other types are left out.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from streamlab.cdc.debezium.proto_files import compiled

Nulls = Literal["optional", "wrapper", ""]

_CONNECT = "org.apache.kafka.connect.data."
_MESSAGES = {
    f"{_CONNECT}Decimal": "confluent.type.Decimal", f"{_CONNECT}Date": "google.type.Date",
    f"{_CONNECT}Time": "google.type.TimeOfDay", f"{_CONNECT}Timestamp": "google.protobuf.Timestamp",
}  # fmt: skip
_SCALARS = {
    "int8": "int32", "int16": "int32", "int32": "int32", "int64": "int64", "float": "float", "double": "double",
    "boolean": "bool", "string": "string", "bytes": "bytes",
}  # fmt: skip
_IMPORTS = (
    "confluent/meta.proto", "confluent/type/decimal.proto", "google/protobuf/timestamp.proto",
    "google/protobuf/wrappers.proto", "google/type/date.proto", "google/type/timeofday.proto",
)  # fmt: skip


class Converter:
    """What writes the records of one schema.

    Parameters
    ----------
    schema : mapping
        As JSON with schemas has it.
    nulls : str
        How the converter is set up.
    """

    def __init__(self, schema: Mapping[str, Any], nulls: Nulls = "optional") -> None:
        self._nulls = nulls
        space, _, name = str(schema["name"]).rpartition(".")
        lines = ['syntax = "proto3";', *([f"package {space};"] if space else []), ""]
        self.text = "\n".join(
            [*lines, *(f'import "{each}";' for each in _IMPORTS), "", *self._message(name, schema, set())]
        )
        self.kind = GetMessageClass(compiled(self.text, {}).message_types_by_name[name])
        self._schema = schema

    def message(self, payload: Mapping[str, Any]) -> Message:
        """A record's value."""
        made = self.kind()
        self._fill(made, self._schema, payload)
        return made

    # -- the schema ----------------------------------------------------------------------------------

    def _message(self, name: str, schema: Mapping[str, Any], known: set[str]) -> list[str]:
        inner: list[str] = []
        lines = []
        for number, field in enumerate(schema["fields"], 1):
            many = field["type"] == "array"
            each = field["items"] if many else field
            kind, note = self._kind(each)
            if each["type"] == "struct" and kind not in known:
                known.add(kind)
                inner += self._message(kind, each, known)
            label = "repeated " if many else ""
            if self._nulls == "optional" and field.get("optional") and not many:
                label = "optional "
            lines.append(f"  {label}{kind} {field['field']} = {number}{note};")
        return [f"message {name} {{", *inner, *lines, "}"]

    def _kind(self, field: Mapping[str, Any]) -> tuple[str, str]:
        form = field["type"]
        if form == "struct":
            return str(field["name"]).rpartition(".")[2], ""
        if (name := field.get("name")) in _MESSAGES:
            return _MESSAGES[name], ""
        kind = _SCALARS[form]
        note = (
            f' [(confluent.field_meta) = {{ params: [{{ key: "connect.type", value: "{form}" }}] }}]'
            if form in {"int8", "int16"}
            else ""
        )
        if self._nulls == "wrapper" and field.get("optional"):
            return f"google.protobuf.{kind.capitalize()}Value", note
        return kind, note

    # -- a record ------------------------------------------------------------------------------------

    def _fill(self, message: Any, schema: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        for field in schema["fields"]:
            name, value = field["field"], row[field["field"]]
            if value is None:
                continue
            if field["type"] == "array":
                items = [self._value(field["items"], each) for each in value]
                if self._nulls == "wrapper" and field["items"].get("optional"):
                    for each in items:
                        getattr(message, name).add(value=each)
                else:
                    getattr(message, name).extend(items)
            elif field["type"] == "struct":
                getattr(message, name).SetInParent()
                self._fill(getattr(message, name), field, value)
            elif field.get("name") in _MESSAGES:
                self._logical(getattr(message, name), field, value)
            elif self._nulls == "wrapper" and field.get("optional"):
                getattr(message, name).value = self._value(field, value)
                getattr(message, name).SetInParent()
            else:
                setattr(message, name, self._value(field, value))

    @staticmethod
    def _value(field: Mapping[str, Any], value: Any) -> Any:
        return b64decode(value) if field["type"] == "bytes" else value

    @staticmethod
    def _logical(message: Any, field: Mapping[str, Any], value: Any) -> None:
        message.SetInParent()
        match str(field["name"]).rpartition(".")[2]:
            case "Decimal":
                message.value, message.scale = b64decode(value), int(field["parameters"]["scale"])
            case "Date":
                day = datetime.fromtimestamp(value * 86_400, UTC)
                message.year, message.month, message.day = day.year, day.month, day.day
            case "Time":
                at = datetime.fromtimestamp(value / 1000, UTC)
                message.hours, message.minutes, message.seconds = at.hour, at.minute, at.second
                message.nanos = at.microsecond * 1000
            case _:
                message.seconds, message.nanos = value // 1000, value % 1000 * 1_000_000
