"""What the lint finds in configurations as they are found on the web, and that it finds nothing in good ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from streamlab.connect import effects, outdated, safety
from streamlab.connect.answers import Key, Plugin
from streamlab.connect.catalog import Catalog
from streamlab.connect.connectors.common import AVRO_CONVERTER
from streamlab.connect.lint import Finding, Kind, Level, lint, lint_text

MYSQL = {
    "connector.class": "io.debezium.connector.mysql.MySqlConnector",
    "database.hostname": "127.0.0.1",
    "database.port": "3306",
    "database.user": "cdc",
    "database.password": "${file:/secrets/mysql.properties:password}",
    "database.server.id": "5001",
    "topic.creation.default.replication.factor": "1",
    "topic.creation.default.partitions": "1",
    "topic.prefix": "shop",
    "database.include.list": "shop",
    "schema.history.internal.kafka.bootstrap.servers": "127.0.0.1:9092",
    "schema.history.internal.kafka.topic": "shop.history",
}
POSTGRES = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "database.hostname": "127.0.0.1",
    "database.dbname": "shop",
    "database.user": "cdc",
    "database.password": "${env:PASSWORD}",
    "topic.prefix": "shop",
    "plugin.name": "pgoutput",
    "topic.creation.default.replication.factor": "1",
    "topic.creation.default.partitions": "1",
    "slot.name": "shop",
    "publication.name": "shop",
    "publication.autocreate.mode": "filtered",
}
SINK = {
    "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
    "topics": "shop.orders",
    "connection.url": "jdbc:postgresql://127.0.0.1/copy",
    "connection.username": "app",
    "connection.password": "${file:/secrets/postgres.properties:password}",
    "insert.mode": "upsert",
    "primary.key.mode": "record_key",
    "delete.enabled": "true",
    "schema.evolution": "basic",
}
UNWRAPPED = {
    "transforms": "unwrap",
    "transforms.unwrap.type": outdated.UNWRAP,
    "transforms.unwrap.delete.tombstone.handling.mode": "delete-to-tombstone",
}
JSON = {"value.converter": "org.apache.kafka.connect.json.JsonConverter"}


def only(base: Mapping[str, str], **changes: str | None) -> Finding:
    """The one finding of a configuration with changes; underscores stand for dots, two for one underscore."""
    found = lint(changed(base, **changes))
    assert len(found) == 1, found
    return found[0]


def changed(base: Mapping[str, str], **changes: str | None) -> dict[str, str]:
    made = dict(base)
    for name, value in changes.items():
        key = name.replace("__", "\0").replace("_", ".").replace("\0", "_")
        if value is None:
            made.pop(key, None)
        else:
            made[key] = value
    return made


@pytest.mark.parametrize("good", [MYSQL, POSTGRES, SINK], ids=["mysql", "postgres", "sink"])
def test_a_good_configuration_has_no_findings(good: dict[str, str]) -> None:
    assert lint(good) == []


@pytest.mark.parametrize(("old", "new"), [("whitelist", "include"), ("blacklist", "exclude")])
def test_the_lists_of_replace_field_have_other_names_now(old: str, new: str) -> None:
    fields = {"transforms": "f", "transforms.f.type": "org.apache.kafka.connect.transforms.ReplaceField$Value"}
    (found,) = lint({**MYSQL, **fields, f"transforms.f.{old}": "note"})
    assert found.kind is Kind.OUTDATED and f"transforms.f.{new} now" in found.fix


def test_what_debezium_reads_without_defining_it_is_no_finding() -> None:
    more = {
        "signal.enabled.channels": "source,kafka",
        "signal.kafka.topic": "signals",
        "signal.consumer.security.protocol": "SSL",
        "signal.data.collection": "shop.signals",
        "schema.history.internal.producer.acks": "all",
        "driver.allowPublicKeyRetrieval": "true",
        "topic.delimiter": "-",
        "column.mask.with.5.chars": "shop.customers.name",
        "column.truncate.to.20.chars": "shop.customers.note",
        "column.mask.hash.SHA-256.with.salt.abc": "shop.customers.mail",
        "column.mask.hash.v2.SHA-256.with.salt.abc": "shop.customers.phone",
        "snapshot.select.statement.overrides": "shop.orders",
        "snapshot.select.statement.overrides.shop.orders": "SELECT * FROM orders",
        "skip.messages.without.change": "true",
        "converters": "bool",
        "bool.type": "io.debezium.connector.binlog.converters.TinyIntOneToBooleanConverter",
        "bool.selector": ".*",
        "producer.override.compression.type": "zstd",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        "topic.creation.groups": "small",
        "topic.creation.small.include": ".*history",
        "topic.creation.small.partitions": "1",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "transforms": "unwrap, route",
        "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.unwrap.delete.tombstone.handling.mode": "rewrite",
        "transforms.unwrap.predicate": "orders",
        "transforms.unwrap.negate": "true",
        "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.route.regex": ".*",
        "transforms.route.replacement": "all",
        "predicates": "orders",
        "predicates.orders.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
        "predicates.orders.pattern": ".*orders",
    }
    assert lint({**MYSQL, **more}) == []


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "old", "new"),
    [
        (MYSQL, "database.server.name", "topic.prefix"),
        (MYSQL, "database.history.kafka.topic", "schema.history.internal.kafka.topic"),
        (MYSQL, "database.history.skip.unparseable.ddl", "schema.history.internal.skip.unparseable.ddl"),
        (MYSQL, "table.whitelist", "table.include.list"),
        (POSTGRES, "schema.blacklist", "schema.exclude.list"),
        (POSTGRES, "slot.drop_on_stop", "slot.drop.on.stop"),
        (POSTGRES, "toasted.value.placeholder", "unavailable.value.placeholder"),
        (SINK, "pk.mode", "primary.key.mode"),
        (SINK, "fields.whitelist", "field.include.list"),
        (SINK, "connection.user", "connection.username"),
    ],
)
def test_an_outdated_name_is_told_with_the_one_of_today(base: dict[str, str], old: str, new: str) -> None:
    (found,) = (each for each in lint({**base, old: "x"}) if each.key == old)
    assert (found.level, found.kind) == (Level.ERROR, Kind.OUTDATED)
    assert f"Its name is {new} " in found.fix


def test_a_deprecated_name_that_is_still_read_is_a_warning() -> None:
    found = only(SINK, table_name_format="${topic}")
    assert (found.level, found.kind) == (Level.WARNING, Kind.OUTDATED)
    assert "collection.name.format" in found.fix


@pytest.mark.parametrize(
    ("tombstones", "deletes", "mode"),
    [
        ("false", "rewrite", "rewrite-with-tombstone"),
        ("true", "rewrite", "rewrite"),
        ("true", "drop", "drop"),
        # Not to the value that is called tombstone, which with JSON is a text.
        ("false", "drop", "delete-to-tombstone"),
        ("true", "none", "delete-to-tombstone"),
        ("false", "none", "delete-to-tombstone"),
        # A switch is a switch in capitals too.
        (" False", "Rewrite ", "rewrite-with-tombstone"),
    ],
)
def test_the_two_old_keys_of_the_unwrap_transformation_become_one(tombstones: str, deletes: str, mode: str) -> None:
    old = {"transforms.unwrap.drop.tombstones": tombstones, "transforms.unwrap.delete.handling.mode": deletes}
    found = lint({**MYSQL, "transforms": "unwrap", "transforms.unwrap.type": outdated.UNWRAP, **old})
    assert [each.key for each in found] == list(old)
    assert all(f"Write transforms.unwrap.delete.tombstone.handling.mode={mode}." in each.fix for each in found)


def test_a_class_of_another_vendor_is_told_and_its_keys_are_checked_against_the_one_here() -> None:
    found = lint({**SINK, "connector.class": "io.confluent.connect.jdbc.JdbcSinkConnector", "pk.fields": "id"})
    assert [(each.key, each.kind) for each in found] == [
        ("connector.class", Kind.OUTDATED),
        ("pk.fields", Kind.OUTDATED),
    ]


def test_a_misspelt_key_is_told_with_the_nearest_one() -> None:
    found = only(MYSQL, table_inclde_list="shop.orders")
    assert (found.level, found.kind, found.fix) == (Level.ERROR, Kind.UNKNOWN, "Did you mean table.include.list?")
    found = only({**MYSQL, **UNWRAPPED}, transforms_unwrap_add_feilds="op")
    assert (found.kind, found.fix) == (Kind.UNKNOWN, "Did you mean transforms.unwrap.add.fields?")
    found = only({**MYSQL, **JSON}, value_converter_schema_enable="true")
    assert found.fix == "Did you mean value.converter.schemas.enable?"
    assert only(MYSQL, database_includelist="x").fix == "Did you mean database.include.list?"


def test_a_key_of_another_plugin_is_told_as_such() -> None:
    assert "It is a key of PostgresConnector" in only(MYSQL, slot_name="x").fix


def test_a_setting_of_the_driver_has_a_prefix_of_its_own_today() -> None:
    found = only(MYSQL, database_allowPublicKeyRetrieval="true")
    assert (found.level, found.fix) == (Level.WARNING, "Write driver.allowPublicKeyRetrieval.")


@pytest.mark.parametrize("name", ["useSSL", "requireSSL", "verifyServerCertificate", "connectTimeout", "tcpKeepAlive"])
def test_a_setting_of_the_driver_is_no_misspelt_key(name: str) -> None:
    found = only(MYSQL, **{f"database_{name}": "x"})
    assert (found.level, found.fix) == (Level.WARNING, f"Write driver.{name}.")


@pytest.mark.parametrize(
    ("base", "key", "fix"),
    [
        (MYSQL, "database.sslMode", "Did you mean database.ssl.mode?"),
        (MYSQL, "database.hostnam", "Did you mean database.hostname?"),
        (POSTGRES, "database.server.id", "It is a key of MySqlConnector; remove it here."),
        (MYSQL, "database.dbname", "It is a key of PostgresConnector; remove it here."),
    ],
)
def test_what_is_handed_to_the_driver_may_be_meant_for_a_connector(base: dict[str, str], key: str, fix: str) -> None:
    (found,) = lint({**base, key: "x"})
    assert (found.key, found.level, found.fix) == (key, Level.ERROR, fix)


@pytest.mark.parametrize(
    ("base", "key", "why"),
    [
        (POSTGRES, "database.history.kafka.topic", "nothing of the kind"),
        (POSTGRES, "database.history", "nothing of the kind"),
        (MYSQL, "slot.drop_on_stop", "nothing of the kind"),
        (POSTGRES, "database.whitelist", "A slot belongs to one database"),
        (MYSQL, "schema.whitelist", "MySQL has no schemas"),
    ],
)
def test_an_outdated_name_is_not_sent_to_one_that_the_connector_does_not_have(
    base: dict[str, str], key: str, why: str
) -> None:
    (found,) = lint({**base, key: "x"})
    assert (found.key, found.kind, found.fix.startswith("Remove it. ")) == (key, Kind.OUTDATED, True)
    assert why in found.fix


@pytest.mark.parametrize(
    ("key", "value", "kind", "fix"),
    [
        ("snapshot.mode", "schema_only", Kind.OUTDATED, "Write snapshot.mode=no_data."),
        ("snapshot.mode", "initail", Kind.INVALID, "Did you mean initial?"),
        ("max.batch.size", "2k", Kind.INVALID, "Write a whole number."),
        ("provide.transaction.metadata", "yes", Kind.INVALID, "Write true or false."),
    ],
)
def test_a_value_that_the_plugin_refuses_is_told(key: str, value: str, kind: Kind, fix: str) -> None:
    assert (kind, fix) in {(each.kind, each.fix) for each in lint({**MYSQL, key: value}) if each.key == key}


@pytest.mark.parametrize(
    ("base", "key", "old", "new"),
    [
        (MYSQL, "snapshot.mode", "schema_only_recovery", "recovery"),
        (MYSQL, "snapshot.mode", "Never", "no_data"),
        (POSTGRES, "snapshot.mode", "exported", "initial"),
        (POSTGRES, "plugin.name", "wal2json_rds", "pgoutput"),
        # It is among those that the plugin recommends, and the plugin refuses it.
        (MYSQL, "time.precision.mode", "adaptive", "adaptive_time_microseconds"),
        (
            MYSQL,
            "schema.history.internal",
            "io.debezium.relational.history.FileDatabaseHistory",
            "io.debezium.storage.file.history.FileSchemaHistory",
        ),
    ],
)
def test_a_value_of_former_times_is_told_with_the_one_of_today(
    base: dict[str, str], key: str, old: str, new: str
) -> None:
    (found,) = (each for each in lint({**base, key: old}) if each.key == key and each.kind is Kind.OUTDATED)
    assert (found.level, found.fix) == (Level.ERROR, f"Write {key}={new}.")
    assert [each for each in lint({**base, key: new}) if each.kind in {Kind.OUTDATED, Kind.INVALID}] == []


def test_a_value_that_only_another_connector_refuses_is_let_be() -> None:
    assert lint({**POSTGRES, "time.precision.mode": "adaptive"}) == []


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("cls", "key", "old", "new"),
    [
        ("sqlserver.SqlServerConnector", "snapshot.mode", "schema_only", "no_data"),
        ("oracle.OracleConnector", "snapshot.mode", "schema_only_recovery", "recovery"),
        ("oracle.OracleConnector", "log.mining.buffer.type", "infinispan", "infinispan_embedded"),
        ("db2.Db2Connector", "snapshot.mode", "schema_only", "no_data"),
        ("mariadb.MariaDbConnector", "time.precision.mode", "adaptive", "adaptive_time_microseconds"),
        ("mongodb.MongoDbConnector", "snapshot.mode", "never", "no_data"),
        ("mongodb.MongoDbConnector", "capture.mode", "oplog", "change_streams"),
        (
            "sqlserver.SqlServerConnector",
            "schema.history.internal",
            "io.debezium.relational.history.KafkaDatabaseHistory",
            "io.debezium.storage.kafka.history.KafkaSchemaHistory",
        ),
    ],
)
def test_values_of_former_times_are_told_of_every_source_of_debezium(
    cls: str, key: str, old: str, new: str, complete: bool
) -> None:
    catalog = replace(Catalog.load(), complete=complete)
    base = {"connector.class": f"io.debezium.connector.{cls}", "topic.prefix": "p"}
    (found,) = (each for each in lint({**base, key: old}, catalog) if each.key == key and each.kind is Kind.OUTDATED)
    assert (found.level, found.fix) == (Level.ERROR, f"Write {key}={new}.")
    assert [each for each in lint({**base, key: new}, catalog) if each.kind is Kind.OUTDATED] == []


def test_a_value_of_a_connector_that_is_not_debeziums_is_its_own_affair() -> None:
    foreign = {"connector.class": "com.example.SourceConnector", "snapshot.mode": "never"}
    assert [each.kind for each in lint(foreign)] == [Kind.UNKNOWN, Kind.UNSAFE]


def test_a_class_that_is_deprecated_and_still_there_is_a_warning() -> None:
    name = "TinyIntOneToBooleanConverter"
    custom = {"converters": "bool", "bool.type": f"io.debezium.connector.mysql.converters.{name}"}
    (found,) = lint({**MYSQL, **custom})
    assert (found.key, found.level, found.kind) == ("bool.type", Level.WARNING, Kind.OUTDATED)
    assert found.fix == f"Write bool.type=io.debezium.connector.binlog.converters.{name}."
    strategy = {"collection.naming.strategy": "io.debezium.connector.jdbc.naming.DefaultTableNamingStrategy"}
    (found,) = lint({**SINK, **strategy})
    assert (found.level, found.kind) == (Level.WARNING, Kind.OUTDATED)
    assert "io.debezium.sink.naming.DefaultCollectionNamingStrategy" in found.fix


# -- kinds ---------------------------------------------------------------------------------------------------------

MASK = "org.apache.kafka.connect.transforms.MaskField$Value"
TOMBSTONE = "org.apache.kafka.connect.transforms.predicates.RecordIsTombstone"
HEADERS = "org.apache.kafka.connect.storage.SimpleHeaderConverter"
OF_ANOTHER_KIND = [
    ({"connector.class": JSON["value.converter"]}, "connector.class", "is a converter, not a connector"),
    ({"connector.class": MASK}, "connector.class", "is a transformation, not a connector"),
    ({"key.converter": MASK}, "key.converter", "is a transformation, not a converter"),
    ({"value.converter": HEADERS}, "value.converter", "is a header converter, not a converter"),
    ({"header.converter": AVRO_CONVERTER}, "header.converter", "is a converter, not a header converter"),
    (
        {"transforms": "x", "transforms.x.type": JSON["value.converter"]},
        "transforms.x.type",
        "is a converter, not a transformation",
    ),
    (
        {"transforms": "x", "transforms.x.type": TOMBSTONE},
        "transforms.x.type",
        "is a predicate, not a transformation",
    ),
    (
        {
            "transforms": "x",
            "transforms.x.type": MASK,
            "transforms.x.fields": "a",
            "transforms.x.predicate": "p",
            "predicates": "p",
            "predicates.p.type": "org.apache.kafka.connect.transforms.Filter",
        },
        "predicates.p.type",
        "is a transformation, not a predicate",
    ),
    (
        {"schema.history.internal": JSON["value.converter"]},
        "schema.history.internal",
        "is a converter, not what schema.history.internal wants",
    ),
    (
        {"converters": "b", "b.type": JSON["value.converter"]},
        "b.type",
        "is a converter, not a custom converter of Debezium's",
    ),
    ({"post.processors": "b", "b.type": MASK}, "b.type", "is a transformation, not a post processor"),
]
"""Keys of a MySQL source, the one that names a class of another kind, and what is said of it."""


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(("keys", "key", "said"), OF_ANOTHER_KIND, ids=[each[2] for each in OF_ANOTHER_KIND])
def test_a_class_of_another_kind_is_told(keys: dict[str, str], key: str, said: str, complete: bool) -> None:
    catalog = replace(Catalog.load(), complete=complete)
    (found,) = (each for each in lint({**MYSQL, **keys}, catalog) if each.key == key)
    assert (found.level, found.kind) == (Level.ERROR, Kind.INVALID)
    assert said in found.problem


def test_a_converter_may_be_one_of_headers_too() -> None:
    for name in ("org.apache.kafka.connect.json.JsonConverter", "String", HEADERS):
        assert lint({**MYSQL, "header.converter": name}) == []


def test_a_source_where_topics_want_a_sink_and_a_sink_without_topics_are_told() -> None:
    found = only(MYSQL, topics="shop.orders")
    assert (found.key, found.level, found.fix) == (
        "topics", Level.ERROR, "Name a sink in connector.class, or remove it.",
    )  # fmt: skip
    assert "MySqlConnector is a source" in found.problem
    source = {"connector.class": "FileStreamSource", "file": "/f", "topics": "a", "topic": "b"}
    (found,) = (each for each in lint(source) if each.key == "topics")
    assert found.fix == "Did you mean topic?"
    found = only(SINK, topics=None)
    assert (found.key, found.level, found.kind) == ("topics", Level.ERROR, Kind.MISSING)
    assert lint({**changed(SINK, topics=None), "topics.regex": "shop.*"}) == []


def test_a_value_that_is_resolved_later_is_not_judged() -> None:
    assert lint({**MYSQL, "max.batch.size": "${env:SIZE}"}) == []


def test_a_short_name_of_a_class_is_the_class() -> None:
    assert only({**MYSQL, "connector.class": "MySqlConnector"}, table_inclde_list="x").kind is Kind.UNKNOWN


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        ("sqlserver.SqlServerConnector", "database.server.name", "topic.prefix"),
        ("sqlserver.SqlServerConnector", "table.whitelist", "table.include.list"),
        ("sqlserver.SqlServerConnector", "database.dbname", "database.names"),
        ("oracle.OracleConnector", "database.history.kafka.topic", "schema.history.internal.kafka.topic"),
        ("mongodb.MongoDbConnector", "mongodb.name", "topic.prefix"),
        ("mongodb.MongoDbConnector", "collection.whitelist", "collection.include.list"),
    ],
)
def test_outdated_names_are_told_of_every_source_of_debezium(cls: str, old: str, new: str, complete: bool) -> None:
    catalog = replace(Catalog.load(), complete=complete)
    of_today = {"connector.class": f"io.debezium.connector.{cls}", "topic.prefix": "p", "table.include.list": "a.b"}
    assert [each.key for each in lint(of_today, catalog)] == ["connector.class"]
    (found,) = (each for each in lint({**of_today, old: "x"}, catalog) if each.key == old)
    assert (found.level, found.kind) == (Level.ERROR, Kind.OUTDATED)
    assert f"Its name is {new} now." in found.fix


@pytest.mark.parametrize("complete", [True, False])
def test_the_short_names_that_a_worker_takes_are_known(complete: bool) -> None:
    catalog = replace(Catalog.load(), complete=complete)
    short = {
        "key.converter": "String",
        "value.converter": "JsonConverter",
        "header.converter": "SimpleHeaderConverter",
        "transforms": "r",
        "transforms.r.type": "RegexRouter",
        "transforms.r.regex": "a",
        "transforms.r.replacement": "b",
        "transforms.r.predicate": "p",
        "predicates": "p",
        "predicates.p.type": "TopicNameMatches",
        "predicates.p.pattern": "a",
    }
    assert lint({**MYSQL, **short}, catalog) == []
    # Their keys are held against the class.
    found = lint({**SINK, "value.converter": "Json", "value.converter.schemas.enable": "false"}, catalog)
    assert [each.key for each in found] == ["value.converter.schemas.enable"]
    mask = {"transforms": "m", "transforms.m.type": "MaskField$Value", "transforms.m.fields": "a"}
    assert [each.kind for each in lint({**MYSQL, **mask}, catalog)] == [Kind.UNKNOWN]
    # Kafka and Debezium have one each: the worker takes the name for neither.
    found = lint({**MYSQL, "value.converter": "ByteArrayConverter"}, catalog)
    assert [each.kind for each in found] == [Kind.UNKNOWN]


def test_a_plugin_that_is_not_known_is_told_and_the_rest_is_checked() -> None:
    found = lint({"connector.class": "com.example.Source", "secret.thing": "x", "password": "p", "transforms.a.b": "c"})
    assert [(each.key, each.level) for each in found] == [
        ("connector.class", Level.WARNING),
        ("password", Level.ERROR),
        ("transforms.a.b", Level.ERROR),
    ]
    assert found[2].fix == "Write transforms=a."
    assert lint({"tasks.max": "1"})[0].kind is Kind.MISSING
    assert only({**MYSQL, "connector.class": "io.debezium.connector.mysql.MySqlConector"}).level is Level.ERROR


# -- effects -------------------------------------------------------------------------------------------------------


def test_a_converters_setting_without_the_converter_has_no_effect() -> None:
    found = only(MYSQL, value_converter_schemas_enable="false")
    assert (found.level, found.kind) == (Level.ERROR, Kind.INEFFECTIVE)
    assert "value.converter" in found.fix
    assert lint({**MYSQL, **JSON, "value.converter.schemas.enable": "false"}) == []


def test_a_transformation_that_is_not_in_the_list_has_no_effect() -> None:
    found = only({**MYSQL, **UNWRAPPED}, transforms_route_regex="x")
    assert (found.kind, found.fix) == (Kind.INEFFECTIVE, "Write transforms=unwrap,route.")


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (MYSQL, "heartbeat.action.query", "SELECT 1"),
        (MYSQL, "signal.kafka.topic", "signals"),
        (MYSQL, "snapshot.mode.custom.name", "x"),
        (MYSQL, "notification.sink.topic.name", "x"),
        (MYSQL, "tasks.max", "4"),
        (MYSQL, "schema.include.list", "x"),
        (MYSQL, "topic.creation.other.partitions", "3"),
        (POSTGRES, "include.schema.changes", "true"),
        (SINK, "topic.creation.default.partitions", "3"),
        (SINK, "errors.deadletterqueue.context.headers.enable", "true"),
        (SINK, "errors.deadletterqueue.topic.name", "letters"),
        ({**MYSQL, **UNWRAPPED}, "transforms.unwrap.negate", "true"),
        (
            {**MYSQL, "predicates.p.type": "org.apache.kafka.connect.transforms.predicates.RecordIsTombstone"},
            "predicates",
            "p",
        ),
    ],
)
def test_what_has_no_effect_where_it_stands_is_told(base: dict[str, str], key: str, value: str) -> None:
    found = lint({**base, key: value})
    assert Kind.INEFFECTIVE in {each.kind for each in found if each.key == key}, found


def test_what_a_key_needs_may_stand_beside_it() -> None:
    beats = {"heartbeat.action.query": "SELECT 1", "heartbeat.interval.ms": "5000"}
    assert lint({**POSTGRES, **beats}) == []
    found = only({**MYSQL, **beats})
    assert (found.level, found.kind, found.fix) == (
        Level.WARNING, Kind.MISSING, "Add driver.readOnlyPropagatesToServer=false.",
    )  # fmt: skip
    assert lint({**MYSQL, **beats, "driver.readOnlyPropagatesToServer": "false"}) == []
    letters = {
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.name": "letters",
        "errors.deadletterqueue.context.headers.enable": "true",
    }
    assert lint({**SINK, **letters}) == []


def test_lists_that_shut_each_other_out_are_told() -> None:
    assert only(MYSQL, table_include_list="shop.a", table_exclude_list="shop.b").key == "table.exclude.list"


@pytest.mark.parametrize(
    ("base", "key", "level"),
    [
        (MYSQL, "topic.prefix", Level.ERROR),
        (MYSQL, "database.server.id", Level.WARNING),
        (MYSQL, "schema.history.internal.kafka.topic", Level.ERROR),
        (POSTGRES, "slot.name", Level.WARNING),
        (POSTGRES, "publication.autocreate.mode", Level.WARNING),
    ],
)
def test_what_is_missing_is_told(base: dict[str, str], key: str, level: Level) -> None:
    found = lint({name: value for name, value in base.items() if name != key})
    assert [(each.key, each.kind, each.level) for each in found] == [(key, Kind.MISSING, level)]


def test_without_its_decoder_a_postgresql_source_cannot_start() -> None:
    found = lint(changed(POSTGRES, plugin_name=None))
    assert [(each.key, each.kind) for each in found] == [
        ("plugin.name", Kind.MISSING),
        ("publication.name", Kind.INEFFECTIVE),
        ("publication.autocreate.mode", Kind.INEFFECTIVE),
    ]


def test_a_sink_that_deletes_needs_the_key_and_the_schemas() -> None:
    assert only(SINK, primary_key_mode="record_value").key == "delete.enabled"
    found = only({**SINK, **JSON}, value_converter_schemas_enable="false")
    assert (found.key, found.kind) == ("value.converter.schemas.enable", Kind.INVALID)


# -- safety --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "key", "value", "level"),
    [
        (MYSQL, "database.password", "dbz", Level.ERROR),
        (MYSQL, "database.ssl.truststore.password", "x", Level.ERROR),
        (MYSQL, "schema.history.internal.producer.sasl.jaas.config", "x", Level.ERROR),
        (SINK, "connection.url", "jdbc:postgresql://h/d?user=a&password=b", Level.ERROR),
        (SINK, "connection.url", "jdbc:postgresql://a:b@h/d", Level.ERROR),
        (SINK, "errors.tolerance", "all", Level.ERROR),
        (MYSQL, "errors.tolerance", "all", Level.ERROR),
        (MYSQL, "snapshot.mode", "no_data", Level.WARNING),
        (MYSQL, "snapshot.mode", "Recovery", Level.ERROR),
        (MYSQL, "inconsistent.schema.handling.mode", "skip", Level.ERROR),
        (MYSQL, "skipped.operations", "t,d", Level.WARNING),
        (MYSQL, "decimal.handling.mode", "double", Level.WARNING),
        (MYSQL, "producer.override.acks", "1", Level.ERROR),
        (MYSQL, "internal.log.position.check.enabled", "false", Level.ERROR),
        (POSTGRES, "slot.drop.on.stop", "true", Level.ERROR),
        (POSTGRES, "publication.autocreate.mode", "all_tables", Level.WARNING),
        (SINK, "delete.enabled", "false", Level.WARNING),
        ({**MYSQL, **UNWRAPPED}, "transforms.unwrap.delete.tombstone.handling.mode", "drop", Level.WARNING),
    ],
)
def test_what_loses_data_or_shows_a_secret_is_told(base: dict[str, str], key: str, value: str, level: Level) -> None:
    found = lint({**base, key: value})
    assert [(each.key, each.level) for each in found] == [(key, level)], found


def test_a_text_in_place_of_a_tombstone_is_told_also_where_it_is_the_default() -> None:
    mode = "transforms.unwrap.delete.tombstone.handling.mode"
    unset = {key: value for key, value in {**MYSQL, **UNWRAPPED}.items() if key != mode}
    for configuration, key in (({**unset, mode: "tombstone"}, mode), (unset, "transforms.unwrap.type")):
        for converter in ({}, JSON, {**JSON, "value.converter.schemas.enable": "true"}):
            (found,) = lint({**configuration, **converter})
            assert (found.key, found.level, found.kind) == (key, Level.WARNING, Kind.UNSAFE)
            assert found.fix == f"Write {mode}=delete-to-tombstone."
    # Avro has no text for it.
    avro = {
        "value.converter": AVRO_CONVERTER,
        "value.converter.apicurio.registry.url": "http://127.0.0.1:8080/apis/registry/v2",
    }
    assert lint({**unset, mode: "tombstone", **avro}) == []


def test_no_advice_of_the_lint_leads_to_a_text_in_place_of_a_tombstone() -> None:
    mode = "transforms.unwrap.delete.tombstone.handling.mode"
    for rule in safety._LOSES:
        if rule.key == "delete.tombstone.handling.mode":
            for value in ("delete-to-tombstone", "rewrite-with-tombstone"):
                assert value in rule.fix
                assert lint({**MYSQL, **UNWRAPPED, mode: value}) == []
    for value in outdated._DELETES.values():
        assert value == "drop" or lint({**MYSQL, **UNWRAPPED, mode: value}) == []


def test_a_source_that_does_not_say_how_topics_are_made_is_told() -> None:
    for base in (MYSQL, POSTGRES):
        bare = {key: value for key, value in base.items() if not key.startswith("topic.creation.")}
        (found,) = lint(bare)
        assert (found.key, found.level, found.kind) == ("connector.class", Level.WARNING, Kind.MISSING)
        assert "topic.creation.default.partitions=1" in found.fix
    # Kafka's own mirrors make the topics by themselves.
    mirror = Plugin("org.apache.kafka.connect.mirror.MirrorHeartbeatConnector", "source", "4.3.1")
    other = Plugin("org.example.SomeSource", "source", "1")
    catalog = Catalog.load().asked({each: [Key("name"), Key("connector.class")] for each in (mirror, other)})
    assert lint({"connector.class": mirror.name, "name": "m"}, catalog) == []
    assert [each.kind for each in lint({"connector.class": other.name, "name": "m"}, catalog)] == [Kind.MISSING]


JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="{}" password="{}";'
FOREIGN = {"connector.class": "com.example.S3SinkConnector", "topics": "a"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema.registry.basic.auth.user.info", "u:hunter2"),
        ("value.converter.basic.auth.user.info", "${file:/s/a:user}:hunter2"),
        ("consumer.override.sasl.jaas.config", JAAS.format("${file:/s/a:user}", "hunter2")),
        ("consumer.override.sasl.jaas.config", JAAS.format("u", "${file:/s/a:p}hunter2")),
        ("consumer.override.sasl.jaas.config", JAAS.format("u", "hunter2")),
        ("consumer.override.sasl.jaas.config", "${file:/s/a:jaas} and hunter2"),
        ("connection.password", "${file:/s/a:p} and hunter2"),
        ("connection.password", "${hunter2}"),
        ("aws.secret.access.key", "hunter2"),
        ("s3.credentials.aws_secret_access_key", "hunter2"),
        ("azblob.account.key", "hunter2"),
        ("gcp.credentials.json", '{"private_key": "hunter2"}'),
        ("consumer.override.ssl.keystore.key", "-----BEGIN PRIVATE KEY-----"),
        ("elastic.security.pass", "hunter2"),
        ("driver.trustCertificateKeyStorePassword", "hunter2"),
        ("mongodb.connection.string", "mongodb://u:hunter2@h/?replicaSet=r"),
        ("connection.uri", "mongodb://${file:/s/a:user}:hunter2@h"),
        ("connection.url", "jdbc:postgresql://h/d?password=${file:/s/a:p}&sslpassword=hunter2"),
        ("connection.url", "jdbc:sqlserver://h;databaseName=a;Password=hunter2"),
        ("storage", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2"),
    ],
)
def test_a_secret_in_the_clear_is_found(key: str, value: str) -> None:
    found = [each for each in lint({**FOREIGN, key: value}) if each.kind is Kind.UNSAFE]
    assert [(each.key, each.level) for each in found] == [(key, Level.ERROR)]
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema.registry.basic.auth.user.info", "u:${file:/s/a:p}"),
        ("schema.registry.basic.auth.user.info", "${file:/s/a:info}"),
        ("basic.auth.credentials.source", "USER_INFO"),
        ("consumer.override.sasl.jaas.config", JAAS.format("u", "${file:/s/a:p}")),
        ("consumer.override.sasl.jaas.config", "${file:/s/a:jaas}"),
        ("connection.password", " ${vault:a/b:c} "),
        ("http.auth.token", "Bearer ${env:TOKEN}"),
        ("aws.access.key.id", "AKIA"),
        ("mongodb.connection.string", "mongodb://u:${file:/s/a:p}@h"),
        ("connection.uri", "mongodb://u@h:27017,i:27017/x@y"),
        ("connection.url", "jdbc:postgresql://h:5432/d?user=u&password=${file:/s/a:p}"),
        ("consumer.override.sasl.oauthbearer.token.endpoint.url", "https://h/token"),
        ("consumer.override.ssl.keystore.location", "/s/keystore"),
    ],
)
def test_a_reference_and_what_is_no_secret_are_no_finding(key: str, value: str) -> None:
    assert [each for each in lint({**FOREIGN, key: value}) if each.kind is Kind.UNSAFE] == []


def test_no_finding_repeats_a_secret() -> None:
    found = lint({**MYSQL, "database.password": "hunter2", "x.secret": "hunter2", "connection.url": "a://b:hunter2@c"})
    assert "hunter2" not in repr(found)


def test_a_source_that_polls_tells_no_deletes() -> None:
    polling = {
        "connector.class": "io.confluent.connect.jdbc.JdbcSourceConnector",
        "mode": "timestamp",
        "query": "SELECT * FROM t WHERE at > ${offset}",
        "topics": "t",
    }
    assert [each.key for each in lint(polling)] == ["connector.class", "mode", "query", "topics"]


# -- what a worker refuses -----------------------------------------------------------------------------------------


def test_spaces_around_a_key_are_told_and_the_key_that_is_meant_is_judged() -> None:
    found = lint({"connector.class ": MYSQL["connector.class"], **changed(MYSQL, connector_class=None)})
    assert [(each.key, each.level, each.kind) for each in found] == [("connector.class", Level.ERROR, Kind.UNKNOWN)]
    found = lint({**changed(MYSQL, database_password=None), "database.password ": "hunter2"})
    assert [(each.key, each.kind) for each in found] == [
        ("database.password", Kind.UNKNOWN),
        ("database.password", Kind.UNSAFE),
    ]
    # The one that is read counts.
    found = lint({**MYSQL, "database.password ": "hunter2"})
    assert [each.kind for each in found] == [Kind.UNKNOWN]
    (told,) = lint_text(json.dumps({**MYSQL, " tasks.max": "1"}, indent=1))
    assert (told.key, told.line) == ("tasks.max", len(MYSQL) + 2)


def test_spaces_around_the_class_of_the_connector_are_told() -> None:
    found = only(MYSQL, connector_class=f" {MYSQL['connector.class']} ")
    assert (found.level, found.kind) == (Level.ERROR, Kind.INVALID)


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (SINK, "topics.regex", "shop.*"),
        ({**MYSQL, **UNWRAPPED}, "transforms", "unwrap, unwrap"),
        (MYSQL, "table.include.list", "shop.a, orders"),
        (POSTGRES, "table.exclude.list", "order$items"),
    ],
)
def test_what_a_worker_refuses_or_what_fits_to_no_table_is_told(base: dict[str, str], key: str, value: str) -> None:
    (found,) = lint({**base, key: value})
    assert (found.key, found.level) == (key, Level.ERROR)
    assert found.kind in {Kind.INVALID, Kind.INEFFECTIVE}


def test_a_pattern_may_fit_to_a_table_without_a_dot_of_its_own() -> None:
    assert lint({**MYSQL, "table.include.list": r".*orders,shop.x\,y,shop\.a,\w+\Wb"}) == []


# -- files ---------------------------------------------------------------------------------------------------------


def test_findings_of_a_file_have_its_lines() -> None:
    wrong = {**MYSQL, "database.server.name": "x", "max.batch.size": "many"}
    text = json.dumps({"name": "c", "config": wrong}, indent=1)
    lines = text.splitlines()
    found = lint_text(text)
    assert [each.key for each in found] == ["database.server.name", "max.batch.size"]
    assert all(f'"{each.key}"' in lines[each.line - 1] for each in found)


def test_what_is_missing_is_told_at_the_connectors_line() -> None:
    values = {key: value for key, value in MYSQL.items() if key != "topic.prefix"}
    (found,) = lint_text(json.dumps(values, indent=1))
    assert (found.key, found.line) == ("topic.prefix", 2)


def test_a_key_that_stands_twice_a_value_that_is_none_and_a_file_that_is_none() -> None:
    text = json.dumps(MYSQL)[:-1] + ',\n"topic.prefix": "y",\n"table.include.list": ["a"],\n"tasks.max": 1}'
    assert [(each.key, each.line, each.kind) for each in lint_text(text)] == [
        ("topic.prefix", 2, Kind.INVALID),
        ("table.include.list", 3, Kind.INVALID),
    ]
    (found,) = lint_text('{"a": "1",\n "config": {},\n "config": {}}')
    assert (found.line, found.kind) == (3, Kind.INVALID)
    (found,) = lint_text('{"a": "1",\n "b"}')
    assert (found.line, found.kind) == (2, Kind.INVALID)
    assert "no configuration in JSON" in found.problem


# -- the rules themselves ------------------------------------------------------------------------------------------


def read(key: str) -> bool:
    """Whether some plugin of the table reads a key, or keys that begin with it."""
    for plugin in Catalog.load().plugins.values():
        if plugin.get(key) or any(name.startswith(key) for name in plugin.names):
            return True
    return key.startswith("signal.consumer.")


@pytest.mark.parametrize("rule", effects._NEEDS, ids=lambda rule: rule.begin)
def test_a_rule_about_effects_is_about_keys_that_there_are(rule: effects._Needs) -> None:
    assert read(rule.begin)
    assert read(rule.other)


@pytest.mark.parametrize("rule", safety._LOSES, ids=lambda rule: f"{rule.key}={rule.values[0]}")
def test_a_rule_about_safety_is_about_a_value_that_there_is(rule: safety._Loses) -> None:
    defined = [each for plugin in Catalog.load().plugins.values() if (each := plugin.get(rule.key))]
    assert defined
    named = {value for key in defined for value in key.values}
    assert not named or named & set(rule.values)


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (outdated.MYSQL, outdated._SOURCE),
        (outdated.UNWRAP, outdated._UNWRAP),
        (outdated.OUTBOX, outdated._OUTBOX),
        (outdated.JDBC_SINK, outdated._JDBC_SINK),
    ],
)
def test_names_of_today_are_read_and_most_of_former_times_are_not(
    cls: str, names: Mapping[str, outdated.Today]
) -> None:
    plugin = Catalog.load().plugins[cls]
    also = Catalog.load().plugins[outdated.POSTGRES] if cls == outdated.MYSQL else plugin
    assert [new.name for new in names.values() if new.name and not (plugin.get(new.name) or also.get(new.name))] == []
    still = {old for old in names if plugin.get(old)}
    assert still <= {
        "heartbeat.topics.prefix",
        "event.deserialization.failure.handling.mode",
        "table.name.format",
        "table.naming.strategy",
        "database.time_zone",
    }


@pytest.mark.parametrize("key", ["snapshot.mode", "plugin.name"])
def test_values_of_today_are_taken_and_those_of_former_times_are_not(key: str) -> None:
    defined = [each for plugin in Catalog.load().plugins.values() if (each := plugin.get(key)) and each.values]
    for old, new in outdated.OUTDATED_VALUES[key].items():
        assert any(new in each.values for each in defined)
        assert not any(old in each.values for each in defined)


def test_every_value_of_former_times_is_one_of_a_key_that_there_is() -> None:
    assert all(read(key) for key in outdated.OUTDATED_VALUES)
    for name, keys in outdated._VALUES_OF.items():
        if plugin := Catalog.load().plugins.get(name):
            assert all(plugin.get(key) for key in keys)
