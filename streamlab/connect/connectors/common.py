"""What all connectors have: how records are written, what changes them on their way, who makes topics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import ClassVar, Literal

from streamlab import settings
from streamlab.cdc import arguments
from streamlab.errors import SettingsError

__all__ = [
    "AVRO_CONVERTER",
    "Connector",
    "Deletes",
    "Format",
    "OutboxRouter",
    "Predicate",
    "Snapshot",
    "Transform",
    "Unwrap",
    "switch",
]

Snapshot = Literal["initial", "initial_only", "no_data", "when_needed", "always", "recovery"]
"""When a source reads the tables themselves (``snapshot.mode``). All but initial and always lose something."""

Deletes = Literal["tombstone", "rewrite", "rewrite-with-tombstone", "delete-to-tombstone", "drop"]
"""What an unwrapped row's deletion becomes: see `Unwrap`."""

_JSON = "org.apache.kafka.connect.json.JsonConverter"
AVRO_CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"


class Format(Enum):
    """How keys or values are written in a topic. Set on every connector: the worker's own setting is for nobody."""

    JSON = "json"
    """Without schemas: small, and without types."""
    JSON_WITH_SCHEMAS = "json with schemas"
    """Each record carries its schema: five times as large; what the JDBC sink needs."""
    AVRO = "avro"
    """Binary, with the number of a schema that lies in the registry; an incompatible one makes the task fail there."""
    TEXT = "text"
    BYTES = "bytes"

    def keys(self, role: str) -> dict[str, str]:
        """The configuration of the converter for ``key`` or ``value``.

        Raises
        ------
        NotRunning
            Avro, and no schema registry is known.
        """
        name = f"{role}.converter"
        if self is Format.TEXT:
            return {name: "org.apache.kafka.connect.storage.StringConverter"}
        if self is Format.BYTES:
            return {name: "org.apache.kafka.connect.converters.ByteArrayConverter"}
        if self is Format.AVRO:
            return {name: AVRO_CONVERTER, **{f"{name}.apicurio.registry.{k}": v for k, v in _registry().items()}}
        # Without a converter of its own on the connector, `schemas.enable` there has no effect.
        return {name: _JSON, f"{name}.schemas.enable": switch(self is Format.JSON_WITH_SCHEMAS)}


def _registry() -> dict[str, str]:
    """What makes Apicurio's serializer write as Confluent's does: a zero byte, four bytes of number, the record."""
    return {
        "url": settings.registry_url("apicurio"),
        "auto-register": "true",
        "headers.enabled": "false",
        "as-confluent": "true",
        "use-id": "contentId",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """Which records a transformation is for (KIP-585), in Connect's own words.

    Parameters
    ----------
    alias : str
        Its name in this configuration.
    cls : str
        Its Java class.
    settings : mapping of str to str
        Its configuration, without the prefix.
    """

    alias: str
    cls: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def topics(cls, alias: str, pattern: str) -> Predicate:
        """Records whose topic a regular expression of Java matches as a whole."""
        name = "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"
        return cls(alias=alias, cls=name, settings={"pattern": pattern})

    @classmethod
    def tombstones(cls, alias: str = "tombstone") -> Predicate:
        """Records without a value."""
        return cls(alias=alias, cls="org.apache.kafka.connect.transforms.predicates.RecordIsTombstone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A transformation of records on their way (SMT, KIP-66), in Connect's own words.

    Parameters
    ----------
    alias : str
        Its name in this configuration.
    cls : str
        Its Java class.
    settings : mapping of str to str
        Its configuration, without the prefix.
    only, unless : Predicate, optional
        The records that it is for, or those that it leaves as they are; one of the two.

    Raises
    ------
    SettingsError
        Both are said: Connect takes one predicate for a transformation.
    """

    alias: str
    cls: str
    settings: Mapping[str, str] = field(default_factory=dict)
    only: Predicate | None = None
    unless: Predicate | None = None

    def __post_init__(self) -> None:
        _check_names(self)
        if self.only is not None and self.unless is not None:
            raise SettingsError(
                f"The transformation {self.alias} has both only= and unless=; Connect takes one predicate for each.",
                "Say one of them; `Predicate.topics` may leave topics out by its pattern.",
            )

    @property
    def predicate(self) -> Predicate | None:
        """The predicate, of either kind."""
        return self.only or self.unless

    def keys(self) -> dict[str, str]:
        """Its part of the configuration, without the prefix and the predicate."""
        return {"type": self.cls, **self.settings}

    def condition(self) -> dict[str, str]:
        """Which records it is for."""
        if self.predicate is None:
            return {}
        return {"predicate": self.predicate.alias, **({} if self.only else {"negate": "true"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrap(Transform):
    """Debezium's ExtractNewRecordState: the row after the change instead of the whole envelope.

    Parameters
    ----------
    deletes : str
        What becomes of a deletion: ``delete-to-tombstone`` (a record without a value), ``rewrite`` (the old row with
        ``__deleted``), ``rewrite-with-tombstone`` (both), ``drop``; ``tombstone``, Debezium's own default, is with JSON
        the text ``null``, which compaction takes for a value.
    fields : sequence of str
        What of the envelope is added to the row: ``op``, ``source.lsn``, ... as ``__op``, ``__source_lsn``.
    headers : sequence of str
        The same, as headers of the record.
    """

    CLASS: ClassVar[str] = "io.debezium.transforms.ExtractNewRecordState"

    alias: str = "unwrap"
    cls: str = CLASS
    deletes: Deletes = "delete-to-tombstone"
    fields: Sequence[str] = ()
    headers: Sequence[str] = ()

    def keys(self) -> dict[str, str]:
        """Its part of the configuration, without the prefix."""
        told = {"type": self.cls, "delete.tombstone.handling.mode": self.deletes}
        told |= {"add.fields": ",".join(self.fields)} if self.fields else {}
        told |= {"add.headers": ",".join(self.headers)} if self.headers else {}
        return {**told, **self.settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRouter(Transform):
    """Debezium's outbox event router: rows that are inserted into an outbox table become events of their own.

    The defaults are those of Debezium: columns ``id``, ``aggregatetype``, ``aggregateid``, ``type``, ``payload``.

    Parameters
    ----------
    event_id, event_key, event_type, payload : str
        Columns: identity of the event (a header), key of the record, type of the event, and what it says.
    route_by : str
        Column whose value names the topic.
    topic : str
        Name of the topic; ``${routedByValue}`` in it is that value.
    expand : bool
        Write a payload that is JSON text as JSON, not as text.
    type_header : str
        Header that tells the type of the event; empty: none.
    """

    CLASS: ClassVar[str] = "io.debezium.transforms.outbox.EventRouter"

    alias: str = "outbox"
    cls: str = CLASS
    event_id: str = "id"
    event_key: str = "aggregateid"
    event_type: str = "type"
    payload: str = "payload"
    route_by: str = "aggregatetype"
    topic: str = "outbox.event.${routedByValue}"
    expand: bool = True
    type_header: str = "type"

    def keys(self) -> dict[str, str]:
        """Its part of the configuration, without the prefix."""
        told = {
            "type": self.cls,
            "table.field.event.id": self.event_id,
            "table.field.event.key": self.event_key,
            "table.field.event.type": self.event_type,
            "table.field.event.payload": self.payload,
            "table.expand.json.payload": switch(self.expand),
            "route.by.field": self.route_by,
            "route.topic.replacement": self.topic,
        }
        if self.type_header:
            told["table.fields.additional.placement"] = f"{self.event_type}:header:{self.type_header}"
        return {**told, **self.settings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector(ABC):
    """What every connector has.

    Parameters
    ----------
    key_format, value_format : Format
        How keys and values of records are written.
    transforms : sequence of Transform
        What changes records on their way, in this order.
    more : mapping of str to str
        Further keys, in Connect's own words; they win.

    Raises
    ------
    SettingsError
        One string is given where several names are wanted.
    """

    CLASS: ClassVar[str] = ""

    key_format: Format = Format.JSON
    value_format: Format = Format.JSON
    transforms: Sequence[Transform] = ()
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self)
        if isinstance(self.transforms, Transform):
            raise SettingsError(f"transforms is a single {type(self.transforms).__name__}.", "Give a list of them.")

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""

    def configuration(self) -> dict[str, str]:
        """What Connect takes, without the connector's name.

        Raises
        ------
        NotRunning
            An address is asked of `streamlab.settings`, and no server is known there.
        SettingsError
            Two transformations have one alias, or two predicates that differ: one would be lost.
        """
        made = {"connector.class": self.CLASS, "tasks.max": "1", **self.settings()}
        made |= self.key_format.keys("key") | self.value_format.keys("value")
        if self.transforms:
            aliases = [each.alias for each in self.transforms]
            if twice := next((each for each in aliases if aliases.count(each) > 1), None):
                raise SettingsError(
                    f"Two transformations have the alias {twice}, and one would be lost.",
                    "Give each an alias= of its own.",
                )
            made["transforms"] = ",".join(aliases)
            for each in self.transforms:
                told = each.keys() | each.condition()
                made |= {f"transforms.{each.alias}.{key}": value for key, value in told.items()}
        if predicates := self._predicates():
            made["predicates"] = ",".join(predicates)
            for alias, predicate in predicates.items():
                made[f"predicates.{alias}.type"] = predicate.cls
                made |= {f"predicates.{alias}.{key}": value for key, value in predicate.settings.items()}
        return {**made, **self.more}

    def _predicates(self) -> dict[str, Predicate]:
        """The predicates by alias; transformations may share one."""
        found: dict[str, Predicate] = {}
        for each in self.transforms:
            if each.predicate and found.setdefault(each.predicate.alias, each.predicate) != each.predicate:
                raise SettingsError(
                    f"Two predicates that differ have the alias {each.predicate.alias}, and one would be lost.",
                    "Give each an alias= of its own.",
                )
        return found


def _check_names(of: Connector | Transform) -> None:
    """Refuse a string where names are wanted: joined, it would be a name for each letter."""
    for each in fields(of):
        if each.type == "Sequence[str]":
            arguments.names(each.name, getattr(of, each.name))


def switch(on: bool) -> str:
    """A switch in Connect's words."""
    return "true" if on else "false"


def names(said: Sequence[str], argument: str) -> Sequence[str]:
    """Names of tables or topics, one at least.

    Raises
    ------
    SettingsError
        There is none.
    """
    if not said or not all(said):
        raise SettingsError(f"{argument}={said!r} names nothing.", f"Write a list of names: {argument}=['orders'].")
    return said


def topics(partitions: int) -> dict[str, str]:
    """What a source needs to make its topics (KIP-158), on one broker."""
    return {
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": str(partitions),
    }


def milliseconds(seconds: float) -> str:
    """A duration in Connect's words."""
    return str(round(seconds * 1000))
