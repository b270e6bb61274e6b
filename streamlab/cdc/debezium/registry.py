"""Schemas of records in Confluent's wire format: a zero byte, a schema's number, the value.

The registry is asked once for each number. Anything that speaks Confluent's protocol will do.

Source: Confluent's manual, "Schema Registry API Reference", "Wire format".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx
import orjson

from streamlab.cdc.debezium.avro import AvroSchema
from streamlab.cdc.debezium.envelope import Decoded, Shape, Wanted, shape_of
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.position import Position
from streamlab.errors import CannotCapture, ProtocolError, StreamLost

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

        Raises
        ------
        StreamLost
            The registry does not answer.
        ProtocolError
            It has no such schema.
        """
        found = self._get(f"/schemas/ids/{number}")
        others = [self._get(f"/subjects/{each['subject']}/versions/{each['version']}") for each in _references(found)]
        return {**found, "others": tuple(each["schema"] for each in others)}


def _references(found: dict[str, Any]) -> list[dict[str, Any]]:
    return found.get("references") or []


class Schemas:
    """What was made of the schemas that records name.

    Parameters
    ----------
    lookup : callable
        The schema of a number: `Registry.schema`.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._known: dict[tuple[bytes, bool], Any] = {}

    def __call__(self, head: bytes, wanted: Wanted) -> tuple[Callable[[bytes], tuple[str, ...]], Shape]:
        """What reads keys, and what reads values, that begin with these five bytes.

        Raises
        ------
        CannotCapture
            The schema is not one of Avro.
        ProtocolError
            There is no such schema, or no record of Debezium has it.
        """
        keys = self._known.get((head, True)) or self._learn(head)
        shape = self._known.get((head, False))
        if shape is None:
            shape = self._known[head, False] = self._shape(keys, wanted)
        return self._names(keys), shape

    def _learn(self, head: bytes) -> AvroSchema:
        number = int.from_bytes(head[1:], "big")
        found = self._lookup(number)
        kind = found.get("schemaType") or "AVRO"
        if kind != "AVRO":
            raise CannotCapture(
                f"The schema {number} is one of {kind}, which is not read.",
                "Have the connector write Avro, or JSON with schemas.",
            )
        try:
            made = self._known[head, True] = AvroSchema(found["schema"], found.get("others") or ())
        except MALFORMED as error:
            raise ProtocolError(f"The schema {number} is no schema of Avro: {error}.", "See the registry.") from error
        return made

    @staticmethod
    def _names(schema: AvroSchema) -> Callable[[bytes], tuple[str, ...]]:
        names = tuple(field["field"] for field in schema.field.get("fields") or ())
        return lambda data: names

    @staticmethod
    def _shape(schema: AvroSchema, wanted: Wanted) -> Shape:
        inner: list[Shape] = []

        def read(data: bytes, position: Position, key: tuple[str, ...], headers: Any) -> Decoded:
            if not inner:
                inner.append(shape_of(schema.field, wanted))  # of a key it is none, and not asked for
            return inner[0](orjson.dumps(schema.read(data)), position, key, headers)

        return read
