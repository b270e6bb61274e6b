"""What is outdated, unknown, without effect or unsafe in a connector's configuration.

Connect checks the values of keys that a plugin defines, and ignores every other key: a misspelt or outdated one fails
by what does not happen. The lint holds a configuration against the keys that are read (`streamlab.connect.catalog`),
the names of former times (`streamlab.connect.outdated`), and what a key needs beside it to have an effect
(`streamlab.connect.effects`); then it names what loses data or shows secrets (`streamlab.connect.safety`).

Pure: nothing is asked, read or changed. A value that is resolved later (``${file:...}``) is not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from streamlab.connect import classes, effects, safety
from streamlab.connect.answers import Key
from streamlab.connect.catalog import Catalog, PluginKeys, nearest
from streamlab.connect.document import entries
from streamlab.connect.findings import Finding, Kind, Level, Subject, Used, listed
from streamlab.connect.outdated import STAND_INS, STILL_TAKEN, Today, today, value_today

__all__ = ["Finding", "Kind", "Level", "lint", "lint_text"]

_ROLES = {"transforms": "transformation", "predicates": "predicate"}
_OF_TRANSFORMS = ("type", "predicate", "negate", "plugin.version")
_NUMBERS = {"INT", "LONG", "SHORT"}
_NUMBER = re.compile(r"-?[0-9]+")


def lint(configuration: Mapping[str, str], catalog: Catalog | None = None) -> list[Finding]:
    """What is wrong with a configuration, in the order of its keys.

    Parameters
    ----------
    configuration : mapping of str to str
        Connect's configuration, as ``PUT /connectors/<name>/config`` takes it.
    catalog : Catalog, optional
        The plugins to check against; by default the table of this package.
    """
    catalog = catalog or Catalog.load()
    order = {key.strip(): number for number, key in enumerate(configuration)}
    # A key with spaces around it is judged as the one that is meant.
    meant = {key.strip(): value for key, value in configuration.items()} | {
        key: value for key, value in configuration.items() if key == key.strip()
    }
    found = list(dict.fromkeys([*_spaces(configuration), *_findings(meant, catalog)]))
    return sorted(found, key=lambda each: (order.get(each.key, -1), each.level, each.kind))


def lint_text(text: str, catalog: Catalog | None = None) -> list[Finding]:
    """What is wrong with a configuration in a file, each finding with its line, in the order of the file."""
    try:
        read = entries(text)
    except json.JSONDecodeError as error:
        problem = f"This is no configuration in JSON: {error.msg}, in column {error.colno}."
        return [Finding("", Level.ERROR, Kind.INVALID, problem, "Correct the file.", error.lineno)]
    lines: dict[str, int] = {}
    values: dict[str, str] = {}
    found = []
    for each in read:
        if each.key in lines:
            problem = f"{each.key} stands here again, and the value in line {lines[each.key]} is lost."
            found.append(Finding(each.key, Level.ERROR, Kind.INVALID, problem, "Keep one of them.", each.line))
        lines[each.key] = each.line
        if isinstance(each.value, dict | list) or each.value is None:
            problem = f"The value of {each.key} is no string, and Kafka Connect refuses it."
            fix = "Write lists with commas, in one string: a,b,c."
            found.append(Finding(each.key, Level.ERROR, Kind.INVALID, problem, fix, each.line))
            continue
        values[each.key] = each.value if isinstance(each.value, str) else json.dumps(each.value)
    # What is missing has no line of its own: it is told where the connector is named.
    lines = {key.strip(): line for key, line in lines.items()} | lines
    named = lines.get("connector.class", min(lines.values(), default=1))
    found += [replace(each, line=lines.get(each.key, named)) for each in lint(values, catalog)]
    return sorted(found, key=lambda each: (each.line, each.level, each.kind))


def _spaces(configuration: Mapping[str, str]) -> Iterator[Finding]:
    """Spaces that Connect does not take away: around a key, and around the class of the connector."""
    for key, value in configuration.items():
        if key != (meant := key.strip()):
            problem = f"There are spaces around the key {meant}: Kafka Connect takes it for another one."
            yield Finding(meant, Level.ERROR, Kind.UNKNOWN, problem, "Write it without spaces.")
        if meant == "connector.class" and value != value.strip():
            problem = "There are spaces around the value of connector.class, and Kafka Connect finds no such class."
            yield Finding(meant, Level.ERROR, Kind.INVALID, problem, f"Write connector.class={value.strip()}.")


def _findings(configuration: Mapping[str, str], catalog: Catalog) -> Iterator[Finding]:
    plugin, wrong = classes.of_connector(configuration.get("connector.class", "").strip(), catalog)
    yield from wrong
    subject = Subject(configuration, catalog, plugin)
    used = []
    for each in _used(subject):
        used.append(each)
        yield from _of_used(each, catalog)
    subject = replace(subject, used=tuple(used))
    if plugin is not None:
        yield from _keys(subject, plugin)
        yield from classes.of_keys(subject)
    else:
        yield from _of_debezium(subject)
    yield from effects.findings(subject)
    yield from safety.findings(subject)


# -- keys of the connector -----------------------------------------------------------------------------------------


def _keys(subject: Subject, plugin: PluginKeys) -> Iterator[Finding]:
    below = tuple(f"{each}." for each in (*_ROLES, *classes.CONVERTERS, "topic.creation"))
    named = tuple(f"{each}." for key in ("converters", "post.processors") for each in subject.list(key))
    for key, value in subject.configuration.items():
        defined = plugin.get(key)
        if (defined is None or defined.name != key) and key.startswith((*below, *named)):
            continue
        renamed = today(plugin, key, subject.configuration)
        if renamed is not None:
            yield _outdated(key, renamed, still=defined is not None)
        elif defined is not None:
            yield from _value(key, value, defined, plugin)
        elif plugin.passes_on(key):
            yield from _passed_on(key, plugin, subject.catalog)
        else:
            yield _unknown(key, key, plugin, subject.catalog)


def _of_debezium(subject: Subject) -> Iterator[Finding]:
    """What Debezium's sources have called otherwise since 2.0, keys and values, for one whose keys are not known."""
    name = subject.get("connector.class")
    if not name.startswith("io.debezium.connector.") or "Sink" in name:
        return
    plugin = PluginKeys(name, "source", "", {}, surveyed=False)
    known = [each for each in subject.catalog.of_kind("source") if each.debezium_source]
    for key, value in subject.configuration.items():
        if renamed := today(plugin, key, subject.configuration):
            yield _outdated(key, renamed, still=bool(known) and all(each.get(key) for each in known))
        elif new := value_today(name, key, value.strip()):
            yield _former(key, value.strip(), new)


def _passed_on(key: str, plugin: PluginKeys, catalog: Catalog) -> Iterator[Finding]:
    """A key that is handed on unseen: it may be meant for the driver, or be a misspelt or another connector's one."""
    if key.startswith("snapshot.select.statement.overrides."):
        return
    problem = f"{key} is no key of the connector; it is only handed on to the database driver."
    if near := _misspelt(key, plugin):
        yield Finding(key, Level.ERROR, Kind.UNKNOWN, problem, f"Did you mean {near}?")
    elif key.islower() and (owner := _owner(key, plugin, catalog)):
        fix = f"It is a key of {owner.name.rpartition('.')[2]}; remove it here."
        yield Finding(key, Level.ERROR, Kind.UNKNOWN, problem, fix)
    elif key.startswith("database."):
        new = key.replace("database.", "driver.", 1)
        problem = f"{key} is a setting of the database driver under its name from Debezium 1.x."
        yield Finding(key, Level.WARNING, Kind.OUTDATED, problem, f"Write {new}.")
    elif key.startswith("internal."):
        problem = f"{key} is internal to Debezium: any version may drop it without a word."
        yield Finding(key, Level.WARNING, Kind.UNSAFE, problem, "Do without it.")


def _misspelt(key: str, plugin: PluginKeys) -> str:
    """The key of the connector that is meant. Drivers have capitals in their names (``useSSL``), and it has none."""
    flat = {name.lower().replace(".", ""): name for name in plugin.names}
    if meant := flat.get(key.lower().replace(".", "")):
        return meant
    return nearest(key, plugin.names, cutoff=0.85) if key.islower() else ""


def _owner(key: str, plugin: PluginKeys, catalog: Catalog) -> PluginKeys | None:
    return next((each for each in catalog.of_kind(*_kin(plugin)) if key in each.keys), None)


def _outdated(key: str, new: Today, *, still: bool) -> Finding:
    level = Level.WARNING if still else Level.ERROR
    does = "is still read, and deprecated" if still else f"is a name {new.whose}, and nothing reads it"
    fix = " ".join(
        filter(
            None,
            [
                f"Its name is {new.name}{' here' if 'other' in new.whose else ' now'}." if new.name else "Remove it.",
                new.how,
            ],
        )
    )
    return Finding(key, level, Kind.OUTDATED, f"{key} {does}.", fix)


def _unknown(full: str, key: str, plugin: PluginKeys, catalog: Catalog) -> Finding:
    owner = _owner(key, plugin, catalog)
    simple = plugin.name.rpartition(".")[2]
    problem = f"{full} is not a key of {simple}: Kafka Connect takes it, and nothing reads it."
    if not plugin.surveyed:
        problem = f"{full} is not a key that {simple} defines; it may read it all the same."
    is_of_sinks = plugin.kind == "source" and key in {"topics", "topics.regex"}
    if is_of_sinks:
        problem = f"{full} is for a sink, which reads topics, and {simple} is a source, which writes them."
    if near := nearest(key, plugin.names):
        fix = f"Did you mean {full.removesuffix(key)}{near}?"
    elif is_of_sinks:
        fix = "Name a sink in connector.class, or remove it."
    elif owner is not None:
        fix = f"It is a key of {owner.name.rpartition('.')[2]}; remove it here."
    else:
        fix = "Remove it, or correct its name."
    return Finding(full, Level.ERROR if plugin.surveyed else Level.WARNING, Kind.UNKNOWN, problem, fix)


def _kin(plugin: PluginKeys) -> tuple[str, ...]:
    return ("source", "sink") if plugin.kind in {"source", "sink"} else (plugin.kind,)


def _value(full: str, value: str, defined: Key, plugin: PluginKeys) -> Iterator[Finding]:
    """Whether a value is one that the plugin takes."""
    text = value.strip()
    if "${" in text:
        return
    values = {each.lower() for each in defined.values}
    if new := value_today(plugin.name, defined.name, text, values):
        yield _former(full, text, ", ".join(sorted(values)) if values and new not in values else new)
    elif values and text.lower() not in values:
        near = nearest(text.lower(), values, cutoff=0.6)
        fix = f"Did you mean {near}?" if near else f"Write one of: {', '.join(sorted(values))}."
        yield Finding(full, Level.ERROR, Kind.INVALID, f"{full} cannot be {text or 'empty'}.", fix)
    elif defined.kind == "BOOLEAN" and text.lower() not in {"true", "false"}:
        yield Finding(full, Level.ERROR, Kind.INVALID, f"{full} cannot be {text}.", "Write true or false.")
    elif defined.kind in _NUMBERS and "(" not in defined.name and not _NUMBER.fullmatch(text):
        # Where the name is a pattern, `column.truncate.to.(d+).chars`, the number stands in it; the value is a list.
        yield Finding(full, Level.ERROR, Kind.INVALID, f"{full} cannot be {text}.", "Write a whole number.")


def _former(full: str, text: str, new: str) -> Finding:
    level = Level.WARNING if text in STILL_TAKEN else Level.ERROR
    does = "and there is no such class any more" if "." in text else "and is refused"
    if level is Level.WARNING:
        does = "still taken, and deprecated"
    problem = f"{full}={text} is a value of former times, {does}."
    return Finding(full, level, Kind.OUTDATED, problem, f"Write {full}={new}.")


# -- what a connector uses -----------------------------------------------------------------------------------------


def _used(subject: Subject) -> Iterator[Used]:
    """The transformations, predicates and converters of a configuration."""
    configuration = subject.configuration

    def below(prefix: str) -> dict[str, str]:
        return {key.removeprefix(prefix): value for key, value in configuration.items() if key.startswith(prefix)}

    for role, kind in _ROLES.items():
        for alias in listed(configuration.get(role, "")):
            prefix = f"{role}.{alias}."
            keys = below(prefix)
            cls = keys.get("type", "").strip()
            yield Used(kind, alias, prefix, cls, subject.catalog.find(STAND_INS.get(cls, cls)), keys)
    for role in classes.CONVERTERS:
        if cls := configuration.get(role, "").strip():
            plugin = subject.catalog.find(cls)
            yield Used("converter", role, f"{role}.", cls, plugin, below(f"{role}."))


def _of_used(used: Used, catalog: Catalog) -> Iterator[Finding]:
    """What is wrong with the class of a transformation, predicate or converter, and with its keys."""
    yield from classes.of_used(used, catalog)
    if used.plugin is None or not classes.is_of_its_kind(used):
        return
    for key, value in used.keys.items():
        full = used.prefix + key
        if key in {"type", "plugin.version"} or (used.role == "transformation" and key in _OF_TRANSFORMS):
            continue
        defined = used.plugin.get(key)
        renamed = today(used.plugin, key, used.keys)
        if renamed is not None:
            new = replace(
                renamed,
                name=used.prefix + renamed.name if renamed.name else "",
                how=renamed.how.replace("Write ", f"Write {used.prefix}"),
            )
            yield _outdated(full, new, still=defined is not None)
        elif defined is not None:
            yield from _value(full, value, defined, used.plugin)
        elif used.plugin.names:
            # One of which no key is known (CloudEventsConverter) may read anything.
            yield _unknown(full, key, used.plugin, catalog)
