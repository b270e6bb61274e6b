"""Records of Debezium's topics, as `ChangeEvent`s. Without I/O: key, value and headers as bytes go in.

JSON with schemas: what was made of a schema is kept, and found again by comparing bytes; JSON without: what was said in
its place. Avro and Protobuf come in Confluent's wire format: a zero byte, the schema's number in a registry, the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import methodcaller
from typing import Any, Final, Literal, Protocol

import orjson

from streamlab.cdc.debezium.envelope import (
    Decoded,
    Shape,
    Wanted,
    database_of,
    event_of,
    key_alone,
    mark_of,
    message_of,
    ordinal_of,
)
from streamlab.cdc.debezium.keys import Keys
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.rows import MALFORMED, Rows, exactly, placeholders
from streamlab.cdc.debezium.schema import Heads, split
from streamlab.cdc.debezium.shapes import Quick, quick, shape_of
from streamlab.cdc.debezium.untyped import Untyped
from streamlab.cdc.debezium.unwrapped import added_of, row_event, told_database
from streamlab.cdc.event import UNCHANGED, ChangeEvent
from streamlab.cdc.position import Position
from streamlab.errors import ChangeStreamError, ProtocolError

__all__ = ["Decoder", "Registered"]

Headers = Sequence[tuple[str, Any]]


class Registered(Protocol):
    """Schemas by the five bytes that a value in Confluent's format begins with."""

    def names(self, head: bytes, data: bytes) -> tuple[str, ...]:
        """The columns of a key."""

    def shape(self, head: bytes, wanted: Wanted, untyped: Untyped) -> Shape:
        """What reads values."""


_PLACEHOLDERS: Final = placeholders([{"type": "bytes"}, {"type": "array", "items": {"type": "int32"}}])


_UNTYPED: Final = b'{"before":'


class Decoder:
    """Reads the records of any number of topics. Used by one thread.

    Parameters
    ----------
    types : mapping, optional
        For JSON without schemas, and Protobuf: table -> column -> type; see `streamlab.cdc.debezium.untyped`.
    configuration : mapping of str to str, optional
        For the same: the connector's configuration, which says how decimals and times are written.
    replica_identity : {"default", "full"}
        Of PostgreSQL's tables. With ``default`` the old row is known by its key alone, and Debezium writes NULL or 0
        for the rest, which `old_data` then leaves out.
    grouped : bool
        Whether a change's ordinal is its number in the source's transaction, where records say that.
    registered : Registered, optional
        For Avro and Protobuf: `streamlab.cdc.debezium.registry.Schemas`.

    Raises
    ------
    SettingsError
        There is no such type.
    """

    def __init__(
        self,
        *,
        types: Mapping[str, Mapping[str, str]] | None = None,
        configuration: Mapping[str, str] | None = None,
        replica_identity: Literal["default", "full"] = "default",
        grouped: bool = False,
        registered: Registered | None = None,
    ) -> None:
        self._wanted = Wanted(replica_identity == "full", grouped)
        self._untyped = Untyped(types, configuration)
        self._values: dict[str, Heads[Shape]] = {}
        self._keys = Keys()
        self._registered = registered
        self._others: dict[bytes, Shape] = {}
        self._bare_shapes: dict[str, Shape] = {}

    @property
    def untyped(self) -> Untyped:
        """What was said of JSON without schemas."""
        return self._untyped

    @property
    def transaction(self) -> Mapping[str, Any] | None:
        """What the record that was decoded last said of its transaction."""
        return self._wanted.transaction

    def decode(
        self,
        topic: str,
        position: Position,
        key: bytes | None,
        value: bytes | None,
        headers: Callable[[], Headers | None] | None = None,
    ) -> Decoded:
        """What a record says.

        Parameters
        ----------
        topic : str
            Its topic: schemas are looked for among those of the topic first.
        position : Position
            What its event shall have.
        key, value : bytes or None
            As they lie in the topic.
        headers : callable, optional
            Gives them, for a record that may need them.

        Returns
        -------
        ChangeEvent, Mark or None
            A change; where a transaction begins or ends; or nothing: a tombstone, a heartbeat, a new definition.

        Raises
        ------
        ProtocolError
            It is no record of a Debezium source, or not a whole one.
        CannotCapture
            It has no types, and nobody said them.
        """
        self._wanted.transaction = None
        if not value:
            return None
        try:
            heads = self._values.get(topic) or self._values.setdefault(topic, Heads())
            head = heads.find(value)
            if head is not None:
                made = head.made
                data = value[head.size : -1]
            elif (shape := self._bare_shapes.get(topic)) is not None and value[0] == 123:  # {
                return shape(value, position, self.key_names(topic, key), ())
            elif value[0] == 0:
                return self._confluent(position, key, value, headers)
            else:
                found = split(value)
                if found is None:
                    return self._bare(topic, position, key, orjson.loads(value), value, headers)
                schema, size = found
                made = shape_of(schema, self._wanted)
                heads.add(value, size, made)
                data = value[size:-1]
            if value[-1] != 125:  # }
                raise ValueError("it is cut short")
            return made(data, position, self.key_names(topic, key), (headers() if headers else None) or ())
        except ChangeStreamError:
            raise
        except MALFORMED as error:
            raise refused(position, value, error) from error

    def run(
        self, topic: str, positions: Iterable[Position], keys: Sequence[bytes | None], values: Sequence[bytes],
        into: list[Decoded],
    ) -> bool:  # fmt: skip
        """The same for many records of one topic at once, if they are such that this is quicker.

        Parameters
        ----------
        topic, positions, keys, values
            As for `decode`; no value is empty.
        into : list
            What the records say is added to it.

        Returns
        -------
        bool
            Whether it was done; if not, nothing was.

        Raises
        ------
        ChangeStreamError
            As for `decode`; of the record behind those that `into` holds then.
        """
        heads = self._values.get(topic)
        head = heads.find(values[0]) if heads is not None else None
        shape = self._bare_shapes.get(topic) if head is None else head.made
        if not isinstance(shape, Quick):
            return False
        try:
            names = self._keys.of_all(topic, keys)
        except MALFORMED:
            return False  # and the slow way says in which record
        if names is None:
            return False
        data: Iterable[bytes] = values
        if head is not None:
            begin, size = head.head, head.size
            if not all(map(methodcaller("startswith", begin), values)) or not all(
                map(methodcaller("endswith", b"}"), values)
            ):
                return False
            data = [value[size:-1] for value in values]
        elif not all(map(methodcaller("startswith", _UNTYPED), values)):
            return False
        places = list(positions)
        try:
            shape.many(data, places, repeat(names), into)
        except ChangeStreamError:
            raise
        except MALFORMED as error:
            raise refused(places[len(into)], values[len(into)], error) from error
        return True

    def key_names(self, topic: str, key: bytes | None) -> tuple[str, ...]:
        """The names of the primary key's columns, by a record's key."""
        return self._keys.names(topic, key)

    # -- other forms --------------------------------------------------------------------------------

    def _confluent(self, position: Position, key: bytes | None, value: bytes, headers: Any) -> Decoded:
        if self._registered is None:
            raise ProtocolError(
                f"The record {position} is in Confluent's wire format: its schema lies in a registry.",
                "Say where that is: schema_registry='http://...'.",
            )
        shape = self._registered.shape(value[:5], self._wanted, self._untyped)
        names: tuple[str, ...] = ()
        if key and key[0] == 0:
            names = self._registered.names(key[:5], key[5:])
        elif key:
            names = self.key_names("", key)
        return shape(value[5:], position, names, (headers() if headers else None) or ())

    def _bare(
        self, topic: str, position: Position, key: bytes | None, payload: Any, value: bytes, headers: Any
    ) -> Decoded:
        """JSON without a schema, or with one that is written in another way than Kafka Connect does."""
        if not isinstance(payload, dict):
            raise TypeError("it is no object")
        if payload.keys() == {"schema", "payload"}:
            schema, payload = payload["schema"], payload["payload"]
            if isinstance(schema, dict):
                known = orjson.dumps(schema)
                shape = self._others.get(known) or self._others.setdefault(known, shape_of(schema, self._wanted))
                names = self.key_names(topic, key)
                return shape(orjson.dumps(payload), position, names, (headers() if headers else None) or ())
            if payload is None:
                return None
            value = orjson.dumps(payload)
        if "op" in payload and "source" in payload:
            event = self._untyped_envelope(position, self.key_names(topic, key), payload, value)
            if topic not in self._bare_shapes and event.table_name:
                self._bare_shapes[topic] = self._bare_shape(topic, event, payload["source"])
            return event
        if payload.keys() >= {"status", "id", "event_count"}:
            return mark_of(payload)
        if "ddl" in payload or payload.keys() == {"ts_ms"}:
            return None
        return self._untyped_row(topic, position, key, payload, (headers() if headers else None) or ())

    def _bare_shape(self, topic: str, event: ChangeEvent, source: Mapping[str, Any]) -> Shape:
        """The common road for what follows in a topic of JSON without schemas."""
        schema, table, database = event.schema, event.table_name, database_of(source["connector"])

        def careful(data: bytes, position: Position, names: tuple[str, ...], headers: Headers) -> Decoded:
            if data.startswith(b'{"schema":'):
                self._bare_shapes.pop(topic, None)  # from here on with schemas
            return self._bare(topic, position, dumped(names), orjson.loads(data), data, None)

        return quick(
            source, self._untyped.compiled(schema, table, database), careful, self._wanted,
            keyed=database == "postgresql" and not self._wanted.whole_before,
            signs=_PLACEHOLDERS if database == "postgresql" else (), table=(schema, table),
        )  # fmt: skip

    def _untyped_envelope(
        self, position: Position, names: tuple[str, ...], payload: dict[str, Any], value: bytes
    ) -> ChangeEvent:
        source = payload["source"]
        ordinal = ordinal_of(self._wanted, payload.get("transaction"))
        if payload["op"] == "m":
            return message_of(payload, position, ordinal)
        database = database_of(source["connector"])
        careful = database == "postgresql" and any(sign in value for sign in _PLACEHOLDERS)
        if careful:
            payload = exactly(value)
        rows = []
        for name in ("before", "after"):
            row = payload[name]
            if row is not None:
                if careful:
                    row = Rows((), database).careful(row)
                self._untyped.convert(row, source.get("schema") or source["db"], source["table"], database)
            rows.append(row)
        before, after = rows
        if before is not None and database == "postgresql" and not self._wanted.whole_before:
            before = key_alone(before, names)
        return event_of(payload, before, after, position, ordinal, names)

    def _untyped_row(
        self, topic: str, position: Position, key: bytes | None, row: dict[str, Any], headers: Headers
    ) -> ChangeEvent:
        told = added_of({name: row.pop(name) for name in [each for each in row if each.startswith("__")]}, headers)
        row = {name: UNCHANGED if value == "__debezium_unavailable_value" else value for name, value in row.items()}
        schema = told.get("schema") or told.get("source_schema") or told.get("db") or told.get("source_db")
        event = row_event(told, row, position, self.key_names(topic, key), self._wanted)
        self._untyped.convert(row, str(schema), event.table_name, told_database(told))
        return event


def dumped(names: tuple[str, ...]) -> bytes:
    """A key of these columns."""
    return orjson.dumps(dict.fromkeys(names))


def refused(position: Position, value: bytes, error: BaseException) -> ProtocolError:
    """What is said of a record that cannot be read."""
    said = str(error) if isinstance(error, ValueError) and not isinstance(error, orjson.JSONDecodeError) else ""
    what = said or f"{type(error).__name__}: {str(error)[:200]}"
    after = ""
    if isinstance(position, KafkaPosition) and len(position) == 1:
        after = f", or pass over it: resume_after='{KafkaPosition.at(*position[0][:2], position[0][2] + 1)}'"
    return ProtocolError(
        f"The record {position}, of {len(value)} bytes, is no change as Debezium writes it: {what.rstrip('.')}.",
        f"Read topics of a Debezium source alone{after}.",
    )
