"""Keys that are read and still have no effect where they stand, keys that shut each other out, keys that are missing.

The keys and defaults are those of the plugins in `plugins.json`; what a key needs beside it is Debezium's and Kafka's
documentation of that key. A test sees the rule about converters on a running worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamlab.connect.findings import Finding, Kind, Level, Subject
from streamlab.connect.outdated import JDBC_SINK, MYSQL, POSTGRES

__all__ = ["findings"]

_HISTORY = "io.debezium.storage.kafka.history.KafkaSchemaHistory"


@dataclass(frozen=True, slots=True)
class _Needs:
    """Keys that have an effect only where another key has one of some values (any, where none are named)."""

    begin: str
    other: str
    values: tuple[str, ...]
    default: str
    fix: str
    plugin: str = ""


_KAFKA = "Add kafka to signal.enabled.channels."
_BEAT = "Add heartbeat.interval.ms=10000."
_LETTERS = "Name a dead letter topic."
_KEYED = ("record_key", "record_value", "record_header")

_NEEDS = (
    _Needs("heartbeat.action.query", "heartbeat.interval.ms", (), "0", _BEAT),
    _Needs("topic.heartbeat.", "heartbeat.interval.ms", (), "0", _BEAT),
    _Needs("signal.kafka.", "signal.enabled.channels", ("kafka",), "source", _KAFKA),
    _Needs("signal.consumer.", "signal.enabled.channels", ("kafka",), "source", _KAFKA),
    _Needs("signal.file", "signal.enabled.channels", ("file",), "source", "Add file to signal.enabled.channels."),
    _Needs("signal.data.", "signal.enabled.channels", ("source",), "source", "Add source to signal.enabled.channels."),
    _Needs("notification.sink.", "notification.enabled.channels", ("sink",), "", "Name sink in that key."),
    _Needs(
        "snapshot.mode.configuration.", "snapshot.mode", ("configuration_based",), "initial", "Set it, or remove it."
    ),
    _Needs("snapshot.mode.custom.", "snapshot.mode", ("custom",), "initial", "Set snapshot.mode=custom, or remove it."),
    _Needs("snapshot.query.mode.custom.", "snapshot.query.mode", ("custom",), "select_all", "Set it, or remove it."),
    _Needs("topic.transaction", "provide.transaction.metadata", ("true",), "false", "Set that key to true."),
    _Needs("schema.history.internal.kafka.", "schema.history.internal", (_HISTORY,), _HISTORY, "Keep one history."),
    _Needs("publication.", "plugin.name", ("pgoutput",), "decoderbufs", "Set plugin.name=pgoutput.", POSTGRES),
    _Needs("primary.key.fields", "primary.key.mode", _KEYED, "none", "Set primary.key.mode=record_key.", JDBC_SINK),
    _Needs("errors.deadletterqueue.context", "errors.deadletterqueue.topic.name", (), "", _LETTERS),
    _Needs("errors.deadletterqueue.topic.replication", "errors.deadletterqueue.topic.name", (), "", _LETTERS),
    _Needs("errors.log.include.messages", "errors.log.enable", ("true",), "false", "Set errors.log.enable=true."),
)

_NO_EFFECT = {
    (POSTGRES, "include.schema.changes"): "PostgreSQL's log holds no DDL, so there are no schema changes to tell.",
    (POSTGRES, "database.include.list"): "A slot belongs to one database: database.dbname names it.",
    (POSTGRES, "database.exclude.list"): "A slot belongs to one database: database.dbname names it.",
    (MYSQL, "schema.include.list"): "MySQL has no schemas in databases: database.include.list chooses.",
    (MYSQL, "schema.exclude.list"): "MySQL has no schemas in databases: database.exclude.list chooses.",
}

_BARE = re.compile(r"[\w$-]+")
"""A name, and no pattern."""
_LISTS = ("database", "schema", "table", "column", "field", "message.prefix")


def findings(subject: Subject) -> Iterator[Finding]:
    """What has no effect in a configuration, contradicts itself, or is missing."""
    yield from _prefixes(subject)
    yield from _predicates(subject)
    yield from _refused(subject)
    yield from _topic_creation(subject)
    plugin = subject.plugin
    for rule in _NEEDS:
        # A family of keys is judged where a plugin has it; elsewhere its keys are unknown already.
        if rule.plugin in {"", plugin.name if plugin else ""}:
            yield from _without(subject, rule)
    for key in subject.configuration:
        if plugin and (why := _NO_EFFECT.get((plugin.name, key))):
            yield _ineffective(key, f"{key} has no effect. {why}", "Remove it.")
    for name in _LISTS:
        both = [f"{name}.include.list", f"{name}.exclude.list"]
        if all(subject.get(key) for key in both):
            problem = f"{both[0]} and {both[1]} shut each other out."
            yield Finding(both[1], Level.ERROR, Kind.INVALID, problem, "Keep one of them.")
    if plugin and plugin.debezium_source and subject.get("tasks.max", "1") not in {"", "1"}:
        problem = "tasks.max has no effect: a log is read in order, by one task."
        yield Finding("tasks.max", Level.WARNING, Kind.INEFFECTIVE, problem, "Write 1, or remove it.")
    if plugin:
        yield from {MYSQL: _mysql, POSTGRES: _postgres, JDBC_SINK: _jdbc_sink}.get(plugin.name, _nothing)(subject)


def _nothing(_subject: Subject) -> Iterator[Finding]:
    return iter(())


def _ineffective(key: str, problem: str, fix: str) -> Finding:
    return Finding(key, Level.ERROR, Kind.INEFFECTIVE, problem, fix)


def _missing(key: str, level: Level, problem: str, fix: str) -> Finding:
    return Finding(key, level, Kind.MISSING, problem, fix)


def _without(subject: Subject, rule: _Needs) -> Iterator[Finding]:
    value = subject.get(rule.other, rule.default)
    present = {part.strip().lower() for part in value.split(",")}
    allowed = {each.lower() for each in rule.values}
    good = bool(allowed & present) if allowed else value not in {"", "0", "false"}
    if good or "${" in value:
        return
    for key in subject.below(rule.begin):
        if subject.get(key).lower() == "false":
            continue
        said = f"{rule.other} is {value}" if value else f"{rule.other} is not set"
        if rule.other not in subject.configuration and value:
            said += " where nothing else is said"
        yield _ineffective(key, f"{key} has no effect: {said}.", rule.fix)


def _prefixes(subject: Subject) -> Iterator[Finding]:
    """Keys below a name that no list names, and below a converter that is the worker's."""
    for role in ("transforms", "predicates"):
        named = subject.list(role)
        for key in subject.below(f"{role}."):
            alias = key.split(".")[1]
            # An alias may hold dots.
            if not any(key.startswith(f"{role}.{each}.") for each in named):
                problem = f"{key} has no effect: {role} does not name {alias}."
                yield _ineffective(key, problem, f"Write {role}={','.join([*named, alias])}.")
    for role in ("key.converter", "value.converter", "header.converter"):
        if subject.get(role):
            continue
        for key in subject.below(f"{role}."):
            problem = f"{key} has no effect: without {role} on this connector the worker's converter is used as it is."
            yield _ineffective(key, problem, f"Add {role}=org.apache.kafka.connect.json.JsonConverter.")


def _predicates(subject: Subject) -> Iterator[Finding]:
    named = subject.list("predicates")
    asked = set()
    for used in subject.used:
        if used.role != "transformation":
            continue
        predicate = used.keys.get("predicate", "").strip()
        asked.add(predicate)
        if predicate and predicate not in named:
            problem = f"The transformation {used.alias} asks for a predicate {predicate} that predicates does not name."
            yield Finding(
                f"{used.prefix}predicate", Level.ERROR, Kind.INVALID, problem, f"Add {predicate} to predicates."
            )
        if "negate" in used.keys and not predicate:
            key = f"{used.prefix}negate"
            yield _ineffective(key, f"{key} has no effect without a predicate.", f"Add {used.prefix}predicate.")
    for alias in named:
        if alias not in asked:
            problem = f"No transformation asks for the predicate {alias}."
            yield _ineffective("predicates", problem, f"Add transforms.NAME.predicate={alias}, or remove it.")


def _refused(subject: Subject) -> Iterator[Finding]:
    """What a worker takes of no connector."""
    for role in ("transforms", "predicates"):
        named = subject.list(role)
        for alias in sorted({each for each in named if named.count(each) > 1}):
            problem = f"{role} names {alias} twice, and Kafka Connect refuses it."
            yield Finding(role, Level.ERROR, Kind.INVALID, problem, "Give each an alias of its own.")
    if subject.is_sink and subject.get("topics") and subject.get("topics.regex"):
        problem = "topics and topics.regex shut each other out, and Kafka Connect refuses them."
        yield Finding("topics.regex", Level.ERROR, Kind.INVALID, problem, "Keep one of them.")
    if subject.is_sink and not subject.get("topics") and not subject.get("topics.regex"):
        problem = "Nothing says which topics are read: the connector is a sink, and Kafka Connect refuses it."
        yield _missing("topics", Level.ERROR, problem, "Add topics; or name a source in connector.class.")


def _tables(subject: Subject, what: str) -> Iterator[Finding]:
    """Names of tables alone, in lists whose members are held against the whole name."""
    for key in ("table.include.list", "table.exclude.list"):
        # A comma of a name is escaped.
        for member in map(str.strip, re.split(r"(?<!\\),", subject.get(key))):
            if _BARE.fullmatch(member):
                problem = f"{member} in {key} fits to no table: a table is called {what}.{member} there."
                yield Finding(key, Level.ERROR, Kind.INEFFECTIVE, problem, f"Write its {what} before it, and a dot.")


def _topic_creation(subject: Subject) -> Iterator[Finding]:
    keys = [key for key in subject.below("topic.creation.") if key != "topic.creation.groups"]
    if not keys and "topic.creation.groups" not in subject.configuration:
        # Kafka's own mirrors make the topics by themselves.
        if subject.is_source and ".mirror." not in subject.get("connector.class"):
            yield _missing(
                "connector.class", Level.WARNING,
                "Nothing says how topics are made: where the broker makes none by itself (auto.create.topics.enable is "
                "false on the one of streamlab up), the connector says RUNNING and writes nothing.",
                "Add topic.creation.default.replication.factor=1 and topic.creation.default.partitions=1.",
            )  # fmt: skip
        return
    if subject.is_sink:
        for key in keys:
            yield _ineffective(key, f"{key} has no effect: a sink makes no topics.", "Remove it.")
        return
    groups = ["default", *subject.list("topic.creation.groups")]
    for key in keys:
        if not any(key.startswith(f"topic.creation.{group}.") for group in groups):
            alias = key.split(".")[2]
            problem = f"{key} has no effect: topic.creation.groups does not name {alias}."
            fix = f"Write topic.creation.groups={','.join([*groups[1:], alias])}."
            yield _ineffective(key, problem, fix)
    for name in ("replication.factor", "partitions"):
        needed = f"topic.creation.default.{name}"
        if needed not in subject.configuration:
            yield _missing(
                next(iter(keys), "topic.creation.groups"), Level.ERROR,
                f"{needed} is missing: the other keys of topic.creation have no effect without it.", f"Add {needed}=1.",
            )  # fmt: skip


# -- what one connector needs --------------------------------------------------------------------------------------


def _database(subject: Subject) -> Iterator[Finding]:
    if not subject.get("topic.prefix") and not subject.get("database.server.name"):
        problem = "topic.prefix is missing: it names the source, and its topics begin with it."
        yield _missing("topic.prefix", Level.ERROR, problem, "Add topic.prefix.")


def _mysql(subject: Subject) -> Iterator[Finding]:
    yield from _database(subject)
    yield from _tables(subject, "database")
    if not subject.get("database.server.id"):
        problem = "database.server.id is missing: one is drawn, and two readers of one id throw each other out."
        fix = "Add a number that neither the server nor another reader has."
        yield _missing("database.server.id", Level.WARNING, problem, fix)
    asks = "driver.readOnlyPropagatesToServer"
    if subject.get("heartbeat.action.query") and subject.get(asks, "true").lower() == "true":
        problem = "After a restart of MySQL this statement fails for ever: its connection is not opened again."
        yield _missing("heartbeat.action.query", Level.WARNING, problem, f"Add {asks}=false.")
    history = subject.get("schema.history.internal", _HISTORY)
    if history == _HISTORY:
        for name in ("bootstrap.servers", "topic"):
            needed, before = f"schema.history.internal.kafka.{name}", f"database.history.kafka.{name}"
            if not subject.get(needed) and before not in subject.configuration:
                yield _missing(needed, Level.ERROR, f"{needed} is missing.", f"Add {needed}.")


def _postgres(subject: Subject) -> Iterator[Finding]:
    yield from _database(subject)
    yield from _tables(subject, "schema")
    plugin = subject.get("plugin.name", "decoderbufs")
    if plugin == "decoderbufs":
        problem = "plugin.name is not pgoutput, and decoderbufs has to be installed into the server first."
        level = Level.ERROR if "plugin.name" not in subject.configuration else Level.WARNING
        yield _missing("plugin.name", level, problem, "Write plugin.name=pgoutput: PostgreSQL brings it.")
    if not subject.get("slot.name"):
        problem = "slot.name is missing: every connector that does not name one wants the slot debezium."
        yield _missing("slot.name", Level.WARNING, problem, "Add a slot.name of its own.")
    if "publication.autocreate.mode" not in subject.configuration:
        problem = "publication.autocreate.mode is missing, and all_tables needs a superuser and holds every table."
        yield _missing(
            "publication.autocreate.mode", Level.WARNING, problem, "Write publication.autocreate.mode=filtered."
        )


def _jdbc_sink(subject: Subject) -> Iterator[Finding]:
    mode = subject.get("primary.key.mode", subject.get("pk.mode", "none"))
    if subject.is_on("delete.enabled") and mode != "record_key":
        problem = f"delete.enabled needs primary.key.mode=record_key, and it is {mode}."
        yield Finding("delete.enabled", Level.ERROR, Kind.INVALID, problem, "Write primary.key.mode=record_key.")
    elif not subject.is_on("delete.enabled"):
        problem = "Rows that are deleted at the source stay in the table for ever: delete.enabled is not true."
        fix = "Write delete.enabled=true and primary.key.mode=record_key."
        key = "delete.enabled" if "delete.enabled" in subject.configuration else "primary.key.mode"
        yield Finding(key, Level.WARNING, Kind.UNSAFE, problem, fix)
    if subject.get("insert.mode") in {"upsert", "update"} and mode == "none":
        problem = f"insert.mode={subject.get('insert.mode')} needs a key, and primary.key.mode is none."
        yield Finding("insert.mode", Level.ERROR, Kind.INVALID, problem, "Write primary.key.mode=record_key.")
    key = "value.converter.schemas.enable"
    if subject.get("value.converter") and subject.writes_json("value") and subject.get(key).lower() == "false":
        problem = "The JDBC sink makes its statements from the schemas of records, and these carry none."
        yield Finding(key, Level.ERROR, Kind.INVALID, problem, f"Write {key}=true, also at the source.")
