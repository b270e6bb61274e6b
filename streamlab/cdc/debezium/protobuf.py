"""Protobuf values as Kafka Connect's converter writes them, read as JSON would have them. Without I/O.

A message is put into Connect's terms, as `streamlab.cdc.debezium.avro` does, so that everything behind it is the same.
What a converter keeps of Connect's types is less than in Avro: whole numbers with their width, fractions, booleans,
text, bytes, structures; Connect's own Decimal, Date, Time and Timestamp, as messages of their own. The names of
Debezium's types are gone: an ``int64`` may be a quantity or microseconds. `streamlab.cdc.debezium.untyped` says what
becomes of such columns.

Source: Confluent's manual, "Wire format" (message indexes) and "Protobuf Connect Converter"; the language guide of
Protobuf 3, "Field Presence".
"""

from __future__ import annotations

import datetime
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from streamlab.cdc.debezium.avro import as_json, single, zigzag
from streamlab.cdc.debezium.schema import Field

__all__ = ["ProtobufSchema"]

Read = Callable[[Any], Any]

_DEEPEST: Final = 64
"""Levels of messages in messages that an index may have."""
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_FORMS: Final = {
    FieldDescriptor.CPPTYPE_INT32: "int32", FieldDescriptor.CPPTYPE_UINT32: "int64",
    FieldDescriptor.CPPTYPE_INT64: "int64", FieldDescriptor.CPPTYPE_UINT64: "int64",
    FieldDescriptor.CPPTYPE_FLOAT: "float", FieldDescriptor.CPPTYPE_DOUBLE: "double",
    FieldDescriptor.CPPTYPE_BOOL: "boolean", FieldDescriptor.CPPTYPE_ENUM: "string",
    FieldDescriptor.CPPTYPE_STRING: "string",
}  # fmt: skip
_STRUCTS: Final = {
    "VariableScaleDecimal": "io.debezium.data.VariableScaleDecimal",
    **{name: f"io.debezium.data.geometry.{name}" for name in ("Point", "Geometry", "Geography")},
}
"""A converter cuts the names of structures to their last part."""


class ProtobufSchema:
    """A file of messages, as a registry keeps it.

    Parameters
    ----------
    file : FileDescriptor
        Compiled.
    """

    def __init__(self, file: FileDescriptor) -> None:
        self._file = file
        self._kinds: dict[bytes, _Kind] = {}
        self._structs: dict[str, tuple[Field, Read]] = {}

    def names(self, data: bytes) -> tuple[str, ...]:
        """The fields of the message that these bytes begin with the indexes of."""
        kind, _ = self._kind(data)
        return tuple(field["field"] for field in kind.field["fields"])

    def read(self, data: bytes) -> tuple[Field, Any]:
        """A message in Connect's terms, and its value.

        Raises
        ------
        ValueError, LookupError
            The bytes are none.
        """
        kind, at = self._kind(data)
        message = kind.make()
        try:
            message.ParseFromString(data[at:])
        except DecodeError as error:
            raise ValueError(f"it is no message {kind.field['name']}") from error
        return kind.field, kind.read(message)

    def _kind(self, data: bytes) -> tuple[_Kind, int]:
        """The kind of message, by the indexes that a value begins with, and where the message begins."""
        count, at = zigzag(data, 0)
        indexes = []
        if not 0 <= count <= _DEEPEST:
            raise ValueError("there is no such message")
        for _ in range(count):
            index, at = zigzag(data, at)
            indexes.append(index)
        known = self._kinds.get(data[:at])
        if known is None:
            # Zero stands for the one index 0.
            known = self._kinds[data[:at]] = _Kind(self._find(indexes or [0]), self._struct)
        return known, at

    def _find(self, indexes: list[int]) -> Descriptor:
        found = self._file
        for number, index in enumerate(indexes):
            level = list(found.nested_types if number else found.message_types_by_name.values())
            if not 0 <= index < len(level):
                raise ValueError("there is no such message")
            found = level[index]
        return found

    # -- messages ------------------------------------------------------------------------------------

    def _struct(self, descriptor: Descriptor) -> tuple[Field, Read]:
        if (known := self._structs.get(descriptor.full_name)) is not None:
            return known
        parts: list[tuple[str, bool, Read]] = []

        def read(message: Message) -> dict[str, Any]:
            return {
                name: convert(getattr(message, name)) if not presence or message.HasField(name) else None
                for name, presence, convert in parts
            }

        fields: list[Field] = []
        name = _STRUCTS.get(descriptor.name, descriptor.full_name)
        made = self._structs[descriptor.full_name] = {"type": "struct", "name": name, "fields": fields}, read
        for each in descriptor.fields:
            field, convert = self._field(each)
            presence = bool(each.has_presence)
            fields.append({**field, "field": each.name, "optional": presence})
            parts.append((each.name, presence, convert))
        return made

    def _field(self, field: FieldDescriptor) -> tuple[Field, Read]:
        if not field.is_repeated:
            return self._single(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type)
        items, convert = self._single(field)
        return {"type": "array", "items": items}, lambda values: [convert(each) for each in values]

    def _map(self, entry: Descriptor) -> tuple[Field, Read]:
        (keys, key), (values, value) = (self._single(entry.fields_by_name[name]) for name in ("key", "value"))
        told = {"type": "map", "keys": keys, "values": values}
        if keys["type"] == "string":
            return told, lambda pairs: {name: value(pairs[name]) for name in pairs}
        return told, lambda pairs: [[key(name), value(pairs[name])] for name in pairs]

    def _single(self, field: FieldDescriptor) -> tuple[Field, Read]:
        if field.message_type is not None:
            known = _MESSAGES.get(field.message_type.full_name)
            if known is not None:
                return known
            if field.message_type.full_name in _WRAPPERS:
                told, read = self._single(field.message_type.fields_by_name["value"])
                return {**told, "type": _width(field) or told["type"]}, lambda message: read(message.value)
            return self._struct(field.message_type)
        if field.enum_type is not None:
            names = {number: each.name for number, each in field.enum_type.values_by_number.items()}
            return {"type": "string", "name": "io.debezium.data.Enum"}, lambda number: names[number]
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "bytes"}, lambda value: b64encode(value).decode()
        form = _FORMS[field.cpp_type]
        if form == "float":
            return {"type": form}, single
        if form == "double":
            return {"type": form}, as_json
        return {"type": _width(field) or form}, lambda value: value


class _Kind:
    """A message that records are."""

    def __init__(self, descriptor: Descriptor, struct: Callable[[Descriptor], tuple[Field, Read]]) -> None:
        self.make: Callable[[], Message] = GetMessageClass(descriptor)
        self.field, self.read = struct(descriptor)


def _width(field: FieldDescriptor) -> str:
    """The width of a number that is less than Protobuf has: the converter writes it beside the field."""
    from confluent_kafka.schema_registry.confluent import meta_pb2

    noted: Any = meta_pb2
    options = field.GetOptions()
    if not options.HasExtension(noted.field_meta):
        return ""
    told = str(options.Extensions[noted.field_meta].params.get("connect.type", ""))
    return told if told in {"int8", "int16"} else ""


# -- messages that are values ---------------------------------------------------------------------


def _decimal(message: Any) -> dict[str, Any]:
    return {"scale": message.scale, "value": b64encode(message.value).decode()}


def _timestamp(message: Any) -> int:
    micros, rest = divmod(message.nanos, 1000)
    if rest:
        raise ValueError("a timestamp is finer than a microsecond")
    return int(message.seconds * 1_000_000 + micros)


def _date(message: Any) -> int:
    return datetime.date(message.year, message.month, message.day).toordinal() - _EPOCH


def _time(message: Any) -> int:
    micros, rest = divmod(message.nanos, 1000)
    if rest:
        raise ValueError("a time is finer than a microsecond")
    return int(((message.hours * 60 + message.minutes) * 60 + message.seconds) * 1_000_000 + micros)


_MESSAGES: Final[dict[str, tuple[Field, Read]]] = {
    # The scale stands in each value.
    "confluent.type.Decimal": ({"type": "struct", "name": "io.debezium.data.VariableScaleDecimal"}, _decimal),
    "google.protobuf.Timestamp": ({"type": "int64", "name": "io.debezium.time.MicroTimestamp"}, _timestamp),
    "google.type.Date": ({"type": "int32", "name": "io.debezium.time.Date"}, _date),
    "google.type.TimeOfDay": ({"type": "int64", "name": "io.debezium.time.MicroTime"}, _time),
}
_WRAPPERS: Final = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
"""With ``wrapper.for.nullables`` a value that may be NULL is one of these."""
