"""Names and values that configurations on the web still have, and those of today.

Debezium 1.x named its keys after databases: ``database.server.name``, ``database.history.*``, white and black lists.
Since 2.0 they are ``topic.prefix``, ``schema.history.internal.*``, include and exclude lists (release notes of 1.3, 2.0
and 2.5). The JDBC sink that most examples are written for is Confluent's; Debezium's has names of its own for the same.
Connect takes a key that nothing reads without a word, so an old name fails by its absence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from streamlab.connect.catalog import PluginKeys

__all__ = [
    "FORMER_CONVERTERS",
    "FORMER_DELETES",
    "OUTDATED_VALUES",
    "STAND_INS",
    "STILL_TAKEN",
    "Today",
    "today",
    "value_today",
]

MYSQL = "io.debezium.connector.mysql.MySqlConnector"
POSTGRES = "io.debezium.connector.postgresql.PostgresConnector"
JDBC_SINK = "io.debezium.connector.jdbc.JdbcSinkConnector"
UNWRAP = "io.debezium.transforms.ExtractNewRecordState"
REPLACE_FIELD = "org.apache.kafka.connect.transforms.ReplaceField"
OUTBOX = "io.debezium.transforms.outbox.EventRouter"

STAND_INS: Mapping[str, str] = {
    "io.confluent.connect.jdbc.JdbcSinkConnector": JDBC_SINK,
    "io.aiven.connect.jdbc.JdbcSinkConnector": JDBC_SINK,
    "io.debezium.connector.mysql.legacy.MySqlConnector": MYSQL,
    "io.debezium.transforms.UnwrapFromEnvelope": UNWRAP,
    "io.debezium.connector.mongodb.transforms.UnwrapFromMongoDbEnvelope": (
        "io.debezium.connector.mongodb.transforms.ExtractNewDocumentState"
    ),
}
"""A class of former times or of another vendor -> the one that does the same here."""


@dataclass(frozen=True, slots=True)
class Today:
    """What became of a key: its `name` now, empty where it is gone; `how` to write it, where the name is not all.

    `whose` the old name is: of former times, or of another plugin for the same.
    """

    name: str
    how: str = ""
    whose: str = "of former times"


_SOURCE: Mapping[str, Today] = {
    "database.server.name": Today("topic.prefix"),
    "database.history": Today(
        "schema.history.internal", "The class is io.debezium.storage.kafka.history.KafkaSchemaHistory now, the default."
    ),
    "database.history.store.only.monitored.tables.ddl": Today("schema.history.internal.store.only.captured.tables.ddl"),
    "database.whitelist": Today("database.include.list"),
    "database.blacklist": Today("database.exclude.list"),
    "schema.whitelist": Today("schema.include.list"),
    "schema.blacklist": Today("schema.exclude.list"),
    "table.whitelist": Today("table.include.list"),
    "table.blacklist": Today("table.exclude.list"),
    "column.whitelist": Today("column.include.list"),
    "column.blacklist": Today("column.exclude.list"),
    "slot.drop_on_stop": Today("slot.drop.on.stop"),
    "toasted.value.placeholder": Today("unavailable.value.placeholder"),
    "transaction.topic": Today("topic.transaction"),
    "heartbeat.topics.prefix": Today("topic.heartbeat.prefix"),
    "topic.selection.strategy": Today(
        "topic.naming.strategy", "Its value is a class now, by default io.debezium.schema.SchemaTopicNamingStrategy."
    ),
    "sanitize.field.names": Today("field.name.adjustment.mode", "Write field.name.adjustment.mode=avro for true."),
    "event.deserialization.failure.handling.mode": Today("event.processing.failure.handling.mode"),
    "snapshot.custom.class": Today("snapshot.mode.custom.name"),
    "snapshot.minimal.locks": Today("snapshot.locking.mode", "Write snapshot.locking.mode=minimal for true."),
    "rowcount.for.streaming.result.sets": Today("min.row.count.to.stream.results"),
    "snapshot.new.tables": Today("", "Take the new table in, then signal an incremental snapshot of it."),
    "gtid.new.channel.position": Today("", "New channels are read from their earliest position."),
    "source.struct.version": Today("", "There is one format of the source block."),
    "ddl.parser.mode": Today("", "There is one parser."),
}

_ONE = Today("", "A slot belongs to one database: database.dbname names it.")
_FLAT = Today("", "MySQL has no schemas in databases: database.include.list chooses.")

_SOURCE_OF: Mapping[str, Mapping[str, Today]] = {
    POSTGRES: {"database.whitelist": _ONE, "database.blacklist": _ONE},
    MYSQL: {"schema.whitelist": _FLAT, "schema.blacklist": _FLAT},
    "io.debezium.connector.sqlserver.SqlServerConnector": {
        "database.dbname": Today("database.names", "Several may stand there, with commas."),
    },
    "io.debezium.connector.mongodb.MongoDbConnector": {
        "mongodb.name": Today("topic.prefix"),
        "mongodb.hosts": Today("mongodb.connection.string", "Write mongodb.connection.string=mongodb://HOST:PORT/."),
        "collection.whitelist": Today("collection.include.list"),
        "collection.blacklist": Today("collection.exclude.list"),
        "field.blacklist": Today("field.exclude.list"),
    },
}
"""What became of keys of one source alone, and of those that all had where one has no use for them."""

_UNWRAP: Mapping[str, Today] = {
    "drop.tombstones": Today("delete.tombstone.handling.mode"),
    "delete.handling.mode": Today("delete.tombstone.handling.mode"),
    "add.source.fields": Today("add.fields", "Write add.fields=source.lsn and so on."),
    "operation.header": Today("add.headers", "Write add.headers=op for true."),
}

FORMER_DELETES = frozenset({"drop.tombstones", "delete.handling.mode"})
"""The two keys of former times that said what an unwrapped deletion becomes."""

_REPLACE_FIELD: Mapping[str, Today] = {
    "whitelist": Today("include"),
    "blacklist": Today("exclude"),
}
"""Of Kafka's own; gone since 4.0 (KIP-629)."""

_OUTBOX: Mapping[str, Today] = {
    "table.field.schema.version": Today("table.field.event.schema.version"),
    "table.field.payload": Today("table.field.event.payload"),
    "table.field.payload.id": Today("table.field.event.key"),
}

_CONFLUENT: Mapping[str, Today] = {
    "connection.user": Today("connection.username"),
    "pk.mode": Today("primary.key.mode"),
    "pk.fields": Today("primary.key.fields"),
    "auto.create": Today("schema.evolution", "Write schema.evolution=basic for true."),
    "auto.evolve": Today("schema.evolution", "Write schema.evolution=basic for true."),
    "fields.whitelist": Today("field.include.list", "Its names may be of one table each: topic:field."),
    "max.retries": Today("flush.max.retries"),
    "retry.backoff.ms": Today("flush.retry.delay.ms"),
    "quote.sql.identifiers": Today("quote.identifiers", "Write quote.identifiers=true for always."),
    "db.timezone": Today("use.time.zone"),
    "dialect.name": Today("", "The dialect follows from connection.url."),
    "table.types": Today("", "Tables and views are written alike."),
}

_JDBC_SINK: Mapping[str, Today] = {
    "database.time_zone": Today("use.time.zone"),
    "table.name.format": Today("collection.name.format"),
    "table.naming.strategy": Today("collection.naming.strategy"),
    **{key: replace(new, whose="of another JDBC sink") for key, new in _CONFLUENT.items()},
}

OUTDATED_VALUES: Mapping[str, Mapping[str, str]] = {
    # Deprecated in 2.6, and refused by all sources since 3.3.
    "snapshot.mode": {
        "schema_only": "no_data",
        "schema_only_recovery": "recovery",
        "never": "no_data",
        "exported": "initial",
        "initial_schema_only": "no_data",
    },
    "plugin.name": dict.fromkeys(
        ("wal2json", "wal2json_rds", "wal2json_streaming", "wal2json_rds_streaming"), "pgoutput"
    ),
    "schema.history.internal": {
        "io.debezium.relational.history.KafkaDatabaseHistory": "io.debezium.storage.kafka.history.KafkaSchemaHistory",
        "io.debezium.relational.history.FileDatabaseHistory": "io.debezium.storage.file.history.FileSchemaHistory",
        "io.debezium.relational.history.MemoryDatabaseHistory": "io.debezium.relational.history.MemorySchemaHistory",
    },
}
"""Key of Debezium's sources -> a value of former times -> the one of today. Other values of 1.x are those of today."""

_TIMES = {"time.precision.mode": {"adaptive": "adaptive_time_microseconds"}}

_VALUES_OF: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    # It stands among the values that the plugin recommends, and the plugin refuses it.
    MYSQL: _TIMES,
    "io.debezium.connector.mariadb.MariaDbConnector": _TIMES,
    "io.debezium.connector.oracle.OracleConnector": {"log.mining.buffer.type": {"infinispan": "infinispan_embedded"}},
    "io.debezium.connector.mongodb.MongoDbConnector": {"capture.mode": {"oplog": "change_streams"}},
    JDBC_SINK: {
        "collection.naming.strategy": {
            "io.debezium.connector.jdbc.naming.DefaultTableNamingStrategy": (
                "io.debezium.sink.naming.DefaultCollectionNamingStrategy"
            )
        }
    },
}
"""The same of one connector alone."""

_BINLOG = "io.debezium.connector.binlog.converters"

FORMER_CONVERTERS: Mapping[str, str] = {
    f"io.debezium.connector.mysql.converters.{name}": f"{_BINLOG}.{name}"
    for name in ("TinyIntOneToBooleanConverter", "JdbcSinkDataTypesConverter")
}
"""A custom converter of former times -> where it is today; the old name is deprecated."""

STILL_TAKEN = frozenset({"io.debezium.connector.jdbc.naming.DefaultTableNamingStrategy"})
"""Values of former times that are deprecated, and not refused."""

# (drop.tombstones, delete.handling.mode), with their old defaults -> the one key of today. A tombstone of then is
# delete-to-tombstone: the value of today that is called tombstone is with JSON the text null.
_DELETES = {
    ("true", "drop"): "drop",
    ("false", "drop"): "delete-to-tombstone",
    ("true", "rewrite"): "rewrite",
    ("false", "rewrite"): "rewrite-with-tombstone",
    ("true", "none"): "delete-to-tombstone",
    ("false", "none"): "delete-to-tombstone",
}


def today(plugin: PluginKeys, key: str, beside: Mapping[str, str]) -> Today | None:
    """What became of a key of a connector or a transformation; None where it was never another one.

    Parameters
    ----------
    plugin : PluginKeys
        Whose key it is.
    key : str
        Without the prefix of a transformation.
    beside : mapping of str to str
        The other keys of the same plugin, with their values: two old keys may have become one.
    """
    if plugin.debezium_source:
        found = _SOURCE_OF.get(plugin.name, {}).get(key) or _SOURCE.get(key)
        if found is None and key.startswith("database.history."):
            found = Today(key.replace("database.history.", "schema.history.internal.", 1))
        if found is not None and found.name and plugin.keys and not plugin.get(found.name):
            # Debezium's sources share most keys, and not all: what a log without definitions needs is MySQL's alone.
            return Today("", "This connector has nothing of the kind.")
        if found is not None:
            return found
    if plugin.name == UNWRAP and key in _UNWRAP:
        if _UNWRAP[key].name != "delete.tombstone.handling.mode":
            return _UNWRAP[key]
        told = (beside.get("drop.tombstones", "true"), beside.get("delete.handling.mode", "drop"))
        value = _DELETES.get((told[0].strip().lower(), told[1].strip().lower()))
        return Today(_UNWRAP[key].name, f"Write delete.tombstone.handling.mode={value}." if value else "")
    if plugin.name.partition("$")[0] == REPLACE_FIELD:
        return _REPLACE_FIELD.get(key)
    return {OUTBOX: _OUTBOX, JDBC_SINK: _JDBC_SINK}.get(plugin.name, {}).get(key)


def value_today(plugin: str, key: str, value: str, taken: Collection[str] = ()) -> str:
    """The value that stands today for one of former times; empty where it never was another one.

    Parameters
    ----------
    plugin : str
        Class of the plugin whose key it is.
    key : str
        The key as the plugin defines it.
    value : str
        Its value, without spaces around it.
    taken : collection of str
        The values that the plugin names, in small letters: one of them is of today, unless the plugin is known to
        refuse it.
    """
    if not plugin.startswith("io.debezium."):
        return ""
    of_one, of_all = _VALUES_OF.get(plugin, {}).get(key, {}), OUTDATED_VALUES.get(key, {})
    for text in (value, value.lower()):
        if new := of_one.get(text) or ("" if text in taken else of_all.get(text)):
            return new
    return ""
