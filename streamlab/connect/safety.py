"""What loses data or shows a secret, although it is a correct configuration.

Of Kafka: KIP-298 (errors, dead letters), KIP-458 (settings of a connector's own clients), KIP-297 (config providers).
Of Debezium: its documentation of each key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamlab.connect.findings import Finding, Kind, Level, Subject
from streamlab.connect.outdated import FORMER_DELETES, UNWRAP

__all__ = ["findings", "is_secret"]

_SECRET = re.compile(
    r"(password|passwd|passphrase|(^|[._-])(pass|pwd|secret|token|credentials([._-]json)?|user[._-]?info|jaas\.config"
    r"|(api|private|secret|access|account|keystore|encryption|master)[._-]?key))$"
)
_BY_REFERENCE = "Name it through a config provider, in a key of its own: ${file:PATH:KEY}."
_REFERENCE = re.compile(r"\$\{[A-Za-z0-9_.-]+:[^}]+\}")
_RESOLVED = "\0"
"""What stands for a reference while the rest of a value is looked at."""
_SAID = r"(?i:\w*(?:password|pwd|passwd|passphrase|secret|token|accountkey|sharedaccesskey))"
_IN_URL = re.compile(rf"(?<=[?&;]){_SAID}=(?P<pair>[^&;]*)|(?<=://)[^/:@\s]*:(?P<user>[^@/\s]*)(?=@)")
_IN_JAAS = re.compile(rf"\b{_SAID}\s*=\s*(?P<pair>\"[^\"]*\"|'[^']*'|[^\s;]*)")
_JAAS = re.compile(r"\s(required|requisite|sufficient|optional)\b")


@dataclass(frozen=True, slots=True)
class _Loses:
    """Values of a key, and what is lost by them."""

    key: str
    values: tuple[str, ...]
    level: Level
    why: str
    fix: str


_LOSES = (
    _Loses(
        "snapshot.mode", ("no_data", "schema_only", "never"), Level.WARNING,
        "rows that stood in the tables before are never told, so a copy made from the topics lacks them.",
        "Write initial, unless the topics need not be complete.",
    ),
    _Loses(
        "snapshot.mode", ("recovery", "schema_only_recovery"), Level.ERROR,
        "the definitions of now stand for those of then, and changes from before an ALTER are decoded wrongly.",
        "Use it once, for a lost history topic, and write initial again.",
    ),
    _Loses(
        "snapshot.mode", ("initial_only",), Level.WARNING,
        "it ends with the snapshot, and changes are never told.", "Write initial.",
    ),
    _Loses(
        "snapshot.mode", ("when_needed",), Level.WARNING,
        "where log is lost, another snapshot hides it, and rows deleted meanwhile are never told.",
        "Write initial, to be told of a gap.",
    ),
    _Loses(
        "event.processing.failure.handling.mode", ("skip", "warn", "ignore"), Level.ERROR,
        "a change that cannot be decoded is left out, and the connector goes on.", "Write fail.",
    ),
    _Loses(
        "event.converting.failure.handling.mode", ("skip", "warn"), Level.WARNING,
        "a value that cannot be converted is left out.", "Write fail.",
    ),
    _Loses(
        "inconsistent.schema.handling.mode", ("skip", "warn"), Level.ERROR,
        "changes of a table whose definition is not known are left out.", "Write fail.",
    ),
    _Loses(
        "schema.history.internal.skip.unparseable.ddl", ("true",), Level.WARNING,
        "DDL that cannot be read is left out, and later rows of its table may be decoded wrongly.", "Write false.",
    ),
    _Loses(
        "slot.drop.on.stop", ("true",), Level.ERROR,
        "the slot goes when the connector stops, and with it what is written until it starts again.", "Write false.",
    ),
    _Loses(
        "publication.autocreate.mode", ("all_tables",), Level.WARNING,
        "it needs a superuser, and every table without a primary key then refuses UPDATE and DELETE.",
        "Write filtered.",
    ),
    _Loses(
        "snapshot.locking.mode", ("none",), Level.WARNING,
        "a table whose definition changes during the snapshot is told wrongly.",
        "Leave it out, or change no table meanwhile.",
    ),
    _Loses(
        "decimal.handling.mode", ("double",), Level.WARNING,
        "decimals become binary fractions, and amounts of money change.", "Write string or precise.",
    ),
    _Loses(
        "tombstones.on.delete", ("false",), Level.WARNING,
        "a compacted topic keeps deleted rows for ever.", "Write true.",
    ),
    _Loses(
        "delete.tombstone.handling.mode", ("drop",), Level.WARNING,
        "deletes leave no trace in the topic.", "Write delete-to-tombstone or rewrite-with-tombstone.",
    ),
    _Loses(
        "producer.override.acks", ("0", "1"), Level.ERROR,
        "records that the leader alone has are lost when it dies.", "Write all.",
    ),
    _Loses(
        "producer.override.enable.idempotence", ("false",), Level.WARNING,
        "a repeated request writes records twice, or out of order.", "Leave it out.",
    ),
)  # fmt: skip


def findings(subject: Subject) -> Iterator[Finding]:
    """What is unsafe in a configuration."""
    yield from _secrets(subject)
    yield from _errors(subject)
    yield from _polling(subject)
    yield from _text_for_tombstone(subject)
    for key, value in subject.configuration.items():
        name = key
        for used in subject.used:
            if key.startswith(used.prefix):
                name = key.removeprefix(used.prefix)
        for rule in _LOSES:
            if rule.key == name and value.strip().lower() in rule.values:
                yield Finding(key, rule.level, Kind.UNSAFE, f"With {key}={value.strip()} {rule.why}", rule.fix)
    if skipped := {"c", "u", "d"} & set(subject.list("skipped.operations")):
        names = ", ".join(name for letter, name in _OPERATIONS if letter in skipped)
        problem = f"skipped.operations leaves out {names}: the topics no longer tell what is in the tables."
        yield Finding("skipped.operations", Level.WARNING, Kind.UNSAFE, problem, "Leave it out.")


_OPERATIONS = (("c", "inserts"), ("u", "updates"), ("d", "deletes"))


def is_secret(key: str, subject: Subject) -> bool:
    """Whether the value of a key is one that nobody should read: by the plugin's definition, or by its name."""
    defined = subject.plugin.get(key) if subject.plugin else None
    for used in subject.used:
        if used.plugin is not None and key.startswith(used.prefix):
            defined = used.plugin.get(key.removeprefix(used.prefix))
    return (defined is not None and defined.kind == "PASSWORD") or bool(_SECRET.search(key.lower()))


def _secrets(subject: Subject) -> Iterator[Finding]:
    for key, value in subject.configuration.items():
        text = _REFERENCE.sub(_RESOLVED, value.strip())
        if is_secret(key, subject) and _in_clear(key.lower(), text):
            problem = f"{key} stands in the clear: the REST interface tells it to everybody, and a topic keeps it."
            yield Finding(key, Level.ERROR, Kind.UNSAFE, problem, _BY_REFERENCE)
        elif _holds(_IN_URL, text):
            problem = f"{key} holds a password in the clear."
            yield Finding(key, Level.ERROR, Kind.UNSAFE, problem, _BY_REFERENCE)


def _in_clear(key: str, text: str) -> bool:
    """Whether something of a secret is no reference. Who logs in is none; nor is what kind of a login it is."""
    if not text:
        return False
    if key.endswith("jaas.config") and _RESOLVED in text and _JAAS.search(text):
        return _holds(_IN_JAAS, text)
    if key.endswith(("user.info", "user_info", "userinfo")):
        text = text.partition(":")[2] or text
    elif key.endswith("token"):
        text = re.sub(r"^(Bearer|Basic|Token)\s+", "", text)
    return bool(text.strip(_RESOLVED))


def _holds(secrets: re.Pattern[str], text: str) -> bool:
    """Whether one of the secrets in a text is not a reference as a whole."""
    return any(
        found.strip(_RESOLVED + "\"'")
        for match in secrets.finditer(text)
        for found in match.groupdict().values()
        if found
    )


def _errors(subject: Subject) -> Iterator[Finding]:
    """Errors that are passed over, and where the records go."""
    letters = subject.get("errors.deadletterqueue.topic.name")
    if subject.get("errors.tolerance").lower() == "all":
        if subject.is_source:
            problem = (
                "errors.tolerance=all leaves out a record that fails without a trace: a source has no dead letters."
            )
            yield Finding("errors.tolerance", Level.ERROR, Kind.UNSAFE, problem, "Write errors.tolerance=none.")
        elif not letters:
            problem = "errors.tolerance=all without a dead letter topic leaves out a record that fails without a trace."
            fix = "Add errors.deadletterqueue.topic.name, and errors.deadletterqueue.context.headers.enable=true."
            yield Finding("errors.tolerance", Level.ERROR, Kind.UNSAFE, problem, fix)
        elif not subject.is_on("errors.deadletterqueue.context.headers.enable"):
            problem = "The dead letters will not say where they come from, nor what was wrong."
            fix = "Add errors.deadletterqueue.context.headers.enable=true."
            yield Finding("errors.deadletterqueue.topic.name", Level.WARNING, Kind.UNSAFE, problem, fix)
    elif letters and subject.is_sink:
        problem = "With errors.tolerance=none the task ends at the first record that fails, after one dead letter."
        key = "errors.deadletterqueue.topic.name"
        yield Finding(key, Level.WARNING, Kind.INEFFECTIVE, problem, "Write errors.tolerance=all.")
    if subject.is_on("errors.log.include.messages"):
        problem = "errors.log.include.messages writes the contents of records into the worker's log."
        yield Finding("errors.log.include.messages", Level.WARNING, Kind.UNSAFE, problem, "Leave it out.")


def _text_for_tombstone(subject: Subject) -> Iterator[Finding]:
    """Debezium's ExtractNewRecordState: its default leaves a deleted row's schema, and JSON then writes a value."""
    if not subject.writes_json("value"):
        return
    mode = "delete.tombstone.handling.mode"
    for used in subject.used:
        if used.plugin is None or used.plugin.name != UNWRAP or used.keys.keys() & FORMER_DELETES:
            continue
        if used.keys.get(mode, "tombstone").strip().lower() == "tombstone":
            key = used.prefix + (mode if mode in used.keys else "type")
            says = f"With {used.prefix}{mode}=tombstone" + ("" if mode in used.keys else ", the default,")
            problem = f"{says} JSON has the text null for a deleted row: a value, which compaction keeps for ever."
            fix = f"Write {used.prefix}{mode}=delete-to-tombstone."
            yield Finding(key, Level.WARNING, Kind.UNSAFE, problem, fix)


def _polling(subject: Subject) -> Iterator[Finding]:
    """Confluent's JDBC source, and its likes: they ask tables again and again, and see what is left in them."""
    if not subject.get("connector.class").endswith("JdbcSourceConnector"):
        return
    mode = subject.get("mode")
    lost = {
        "bulk": "every row is told each time",
        "incrementing": "updates are never told",
        "timestamp": "rows of an equal time, and commits that come late, are lost",
        "timestamp+incrementing": "commits that come late are lost",
    }
    problem = (
        f"A source that polls never tells of deletes; with mode={mode} {lost.get(mode, 'changes between are lost')}."
    )
    yield Finding(
        "mode" if mode else "connector.class",
        Level.WARNING,
        Kind.UNSAFE,
        problem,
        "Read the log instead, with Debezium.",
    )
    query = subject.get("query")
    if "${" in query:
        problem = "There is no placeholder in query: the connector appends its own condition."
        yield Finding("query", Level.ERROR, Kind.INVALID, problem, "Write the query without a condition on the offset.")
    if query and subject.get("topic.prefix"):
        problem = "With a query, topic.prefix is the whole name of the topic."
        yield Finding("topic.prefix", Level.WARNING, Kind.INEFFECTIVE, problem, "Write the topic's name there.")
    if "topics" in subject.configuration:
        problem = "topics has no effect: a source is told its topics by topic.prefix."
        yield Finding("topics", Level.ERROR, Kind.INEFFECTIVE, problem, "Remove it.")
