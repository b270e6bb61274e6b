"""Schemas of records in Confluent's wire format: a zero byte, a schema's number, the value, in Avro or in Protobuf.

The registry is asked once for each number. Anything that speaks Confluent's protocol will do.

Source: Confluent's manual, "Schema Registry API Reference", "Wire format".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import orjson

from streamlab.cdc.debezium.avro import AvroSchema
from streamlab.cdc.debezium.envelope import Decoded, Headers, Shape, Wanted
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.debezium.shapes import shape_of
from streamlab.cdc.debezium.untyped import Untyped
from streamlab.cdc.debezium.unwrapped import added_of
from streamlab.cdc.position import Position
from streamlab.errors import CannotCapture, ProtocolError, StreamLost

if TYPE_CHECKING:
    from streamlab.cdc.debezium.protobuf import ProtobufSchema

__all__ = ["Registry", "Schemas"]

Lookup = Callable[[int], dict[str, Any]]
_PATIENCE: Final = 10.0


class Registry:
    """A registry's answers. Any thread may ask.

    Parameters
    ----------
    url : str
        Of its API: ``http://127.0.0.1:8081``, ``http://127.0.0.1:8080/apis/ccompat/v7``.
    """

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url.rstrip("/"))

    def __repr__(self) -> str:
        return f"<Registry {self._url.copy_with(userinfo=b'')}>"

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = httpx.get(f"{self._url}{path}", timeout=_PATIENCE)
        except httpx.HTTPError as error:
            raise StreamLost(
                f"{self!r} does not answer: {type(error).__name__}.", "Is it up, and the address right?"
            ) from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ProtocolError(
                f"{self!r} knows no {path}.", "Is it the registry that the connector's converter wrote to?"
            )
        if answer.is_error:
            raise StreamLost(f"{self!r} answers {answer.status_code} to {path}.", "See its log.")
        found: dict[str, Any] = answer.json()
        return found

    def schema(self, number: int) -> dict[str, Any]:
        """A schema: ``schema``, ``schemaType``, and under ``others`` the texts of those that it refers to.

        They stand by the names that it has for them, each behind those that it refers to itself.

        Raises
        ------
        StreamLost
            The registry does not answer.
        ProtocolError
            It has no such schema.
        """
        found = self._get(f"/schemas/ids/{number}")
        others: dict[str, str] = {}
        self._refer(found, others)
        return {**found, "others": others}

    def _refer(self, found: dict[str, Any], others: dict[str, str]) -> None:
        for each in found.get("references") or []:
            if each["name"] not in others:
                other = self._get(f"/subjects/{quote(each['subject'], safe='')}/versions/{each['version']}")
                self._refer(other, others)
                others[each["name"]] = other["schema"]


class Schemas:
    """What was made of the schemas that records name.

    Parameters
    ----------
    lookup : callable
        The schema of a number: `Registry.schema`.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._schemas: dict[bytes, AvroSchema | ProtobufSchema] = {}
        self._shapes: dict[bytes, Shape] = {}

    def names(self, head: bytes, data: bytes) -> tuple[str, ...]:
        """The fields of a key: of the five bytes that it begins with, and the rest.

        Raises
        ------
        CannotCapture, ProtocolError
            As for `shape`.
        """
        schema = self._schemas.get(head) or self._learn(head)
        return schema.names(data)

    def shape(self, head: bytes, wanted: Wanted, untyped: Untyped) -> Shape:
        """What reads values that begin with these five bytes.

        Raises
        ------
        CannotCapture
            The schema is neither one of Avro nor one of Protobuf.
        ProtocolError
            There is no such schema, or no record of Debezium has it.
        """
        shape = self._shapes.get(head)
        if shape is None:
            schema = self._schemas.get(head) or self._learn(head)
            made = _avro(schema, wanted) if isinstance(schema, AvroSchema) else _protobuf(schema, wanted, untyped)
            shape = self._shapes[head] = made
        return shape

    def _learn(self, head: bytes) -> AvroSchema | ProtobufSchema:
        number = int.from_bytes(head[1:], "big")
        found = self._lookup(number)
        kind = found.get("schemaType") or "AVRO"
        others: Mapping[str, str] = found.get("others") or {}
        made: AvroSchema | ProtobufSchema
        try:
            if kind == "AVRO":
                made = AvroSchema(found["schema"], tuple(others.values()))
            elif kind == "PROTOBUF":
                made = _proto_files(found["schema"], others)
            else:
                raise CannotCapture(
                    f"The schema {number} is one of {kind}, which is not read.",
                    "Have the connector write Avro, Protobuf, or JSON with schemas.",
                )
        except MALFORMED as error:
            problem = f"The schema {number} is no schema of {kind.capitalize()}: {str(error).rstrip('.')}."
            raise ProtocolError(problem, "See the registry.") from error
        self._schemas[head] = made
        return made


def _proto_files(text: str, others: Mapping[str, str]) -> ProtobufSchema:
    try:
        from streamlab.cdc.debezium.proto_files import compiled
        from streamlab.cdc.debezium.protobuf import ProtobufSchema
    except ImportError as error:
        raise CannotCapture(f"Protobuf needs the package {error.name}.", "Install the extra schemas.") from error
    return ProtobufSchema(compiled(text, others))


def _avro(schema: AvroSchema, wanted: Wanted) -> Shape:
    shape = shape_of(schema.field, wanted)

    def read(data: bytes, position: Position, key: tuple[str, ...], headers: Headers) -> Decoded:
        return shape(orjson.dumps(schema.read(data)), position, key, headers)

    return read


def _protobuf(schema: ProtobufSchema, wanted: Wanted, untyped: Untyped) -> Shape:
    shapes: dict[tuple[str, str, str], Shape] = {}

    def read(data: bytes, position: Position, key: tuple[str, ...], headers: Headers) -> Decoded:
        field, value = schema.read(data)
        place = _place(value, headers)
        shape = shapes.get(place)
        if shape is None:
            # What the columns are is said of a table, and which one it is stands in the records alone.
            shape = shapes[place] = shape_of(_typed(field, place, untyped), wanted)
        return shape(orjson.dumps(value), position, key, headers)

    return read


def _place(value: Mapping[str, Any], headers: Headers) -> tuple[str, str, str]:
    """The connector that has written a record, and the schema and table that it is of; empty where it says none."""
    if "op" in value and isinstance(source := value.get("source"), dict):
        return str(source["connector"]), str(source.get("schema") or source["db"]), str(source.get("table") or "")
    told = added_of({name: each for name, each in value.items() if name.startswith("__")}, headers)
    where = (told.get(name) for name in ("schema", "source_schema", "db", "source_db"))
    table = told.get("table") or told.get("source_table") or ""
    return "", next((str(each) for each in where if each), ""), str(table)


def _typed(field: Field, place: tuple[str, str, str], untyped: Untyped) -> Field:
    """A record's schema with the types of its columns, as far as they were said."""
    connector, schema, table = place
    fields = {each["field"]: each for each in field["fields"]}
    if connector and "after" in fields:
        source = fields["source"]
        row = {"fields": untyped.columns(fields["after"]["fields"], schema, table, nulls=source["fields"])}
        # A converter cuts the connector off the name of this structure.
        new: dict[str, Field] = {"before": row, "after": row, "source": {"name": connector}}
        return {**field, "fields": [{**each, **new.get(each["field"], {})} for each in field["fields"]]}
    added = [each for name, each in fields.items() if name.startswith("__")]
    if table and added:
        columns = [each for each in field["fields"] if each not in added]
        return {**field, "fields": [*untyped.columns(columns, schema, table, nulls=added), *added]}
    return field
