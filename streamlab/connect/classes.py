"""Classes that a configuration names: whether there is such a plugin, and whether it is of the kind that is wanted.

A worker loads any class of its plugins by its name, and sees only then what it is: a converter in the place of a
transformation is refused, a source in the place of a sink never reads the topics that are named beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamlab.connect.catalog import Catalog, PluginKeys, nearest
from streamlab.connect.findings import Finding, Kind, Level, Subject, Used
from streamlab.connect.outdated import FORMER_CONVERTERS, STAND_INS

__all__ = ["CONVERTERS", "is_of_its_kind", "of_connector", "of_keys", "of_used"]

CONVERTERS = ("key.converter", "value.converter", "header.converter")
_CALLED = {"source": "source connector", "sink": "sink connector", "header_converter": "header converter"}
_LISTINGS = {"transformation": "transforms", "predicate": "predicates"}
_OWN = {"converters": "custom converter of Debezium's", "post.processors": "post processor"}
"""Lists of Debezium's own plugins in a plugin, and what stands in them."""


def of_connector(name: str, catalog: Catalog) -> tuple[PluginKeys | None, list[Finding]]:
    """The connector of a configuration, and what is wrong with how it is named."""
    here = "connector.class"
    if not name:
        problem = "connector.class is missing: nothing says which connector this is."
        return None, [Finding(here, Level.ERROR, Kind.MISSING, problem, "Add connector.class.")]
    if plugin := catalog.find(name):
        if plugin.is_a("source", "sink"):
            return plugin, []
        problem = f"{name} is a {_called(plugin.kind)}, not a connector."
        return None, [Finding(here, Level.ERROR, Kind.INVALID, problem, "Name a connector's class.")]
    if stand_in := catalog.find(STAND_INS.get(name, "")):
        problem = f"{name} is not installed; {stand_in.name} does the same, with keys of its own."
        fix = f"Write connector.class={stand_in.name}."
        return stand_in, [Finding(here, Level.ERROR, Kind.OUTDATED, problem, fix)]
    classes = [each.name for each in catalog.of_kind("source", "sink")]
    # Another vendor's class may share most of its letters; a misspelt one shares its last part too.
    near = nearest(name, classes, cutoff=0.9)
    level = Level.ERROR if catalog.complete or near else Level.WARNING
    who = "The worker has" if catalog.complete else "The table knows"
    fix = f"Did you mean {near}?" if near else "Install its plugin, or use one of: " + ", ".join(sorted(classes)) + "."
    problem = f"{who} no connector {name}, so its own keys are not checked."
    return None, [Finding(here, level, Kind.UNKNOWN, problem, fix)]


def of_used(used: Used, catalog: Catalog) -> Iterator[Finding]:
    """What is wrong with the class of a transformation, predicate or converter."""
    where = used.prefix.removesuffix(".") if used.role == "converter" else f"{used.prefix}type"
    kind = _wanted(used)
    if not used.cls:
        problem = f"The {used.role} {used.alias} has no type."
        fix = f"Add {where}, or take {used.alias} from the list."
        yield Finding(_LISTINGS[used.role], Level.ERROR, Kind.MISSING, problem, fix)
    elif used.cls in STAND_INS:
        problem = f"{used.cls} is the name of former times."
        yield Finding(where, Level.ERROR, Kind.OUTDATED, problem, f"Write {where}={STAND_INS[used.cls]}.")
    elif used.plugin is None:
        near = nearest(used.cls, [each.name for each in catalog.of_kind(kind)], cutoff=0.85)
        level = Level.ERROR if catalog.complete or near else Level.WARNING
        who = "The worker has" if catalog.complete else "The table knows"
        fix = f"Did you mean {near}?" if near else "Install its plugin on the worker."
        yield Finding(where, level, Kind.UNKNOWN, f"{who} no {_called(kind)} {used.cls}.", fix)
    elif not used.plugin.is_a(kind):
        yield _of_another_kind(where, used.plugin, f"a {_called(kind)}")


def is_of_its_kind(used: Used) -> bool:
    """Whether the plugin is known, and what its place wants: then its keys can be judged."""
    return used.plugin is not None and used.plugin.is_a(_wanted(used))


def of_keys(subject: Subject) -> Iterator[Finding]:
    """Classes in keys of the connector itself, and those of Debezium's own plugins in a plugin."""
    known = subject.catalog.plugins
    for key, value in subject.configuration.items():
        defined = subject.plugin.get(key) if subject.plugin else None
        if defined and defined.kind == "CLASS" and key not in CONVERTERS and (plugin := known.get(value.strip())):
            yield _of_another_kind(key, plugin, f"what {key} wants")
    for listing, what in _OWN.items():
        for alias in subject.list(listing):
            key = f"{alias}.type"
            cls = subject.get(key)
            if plugin := known.get(cls):
                yield _of_another_kind(key, plugin, f"a {what}")
            elif new := FORMER_CONVERTERS.get(cls):
                problem = f"{cls} is a name of former times, still there, and deprecated."
                yield Finding(key, Level.WARNING, Kind.OUTDATED, problem, f"Write {key}={new}.")


def _of_another_kind(where: str, plugin: PluginKeys, wanted: str) -> Finding:
    problem = f"{plugin.name} is a {_called(plugin.kind)}, not {wanted}."
    return Finding(where, Level.ERROR, Kind.INVALID, problem, f"Name another class in {where}.")


def _wanted(used: Used) -> str:
    """The kind of plugin that its place wants."""
    return "header_converter" if used.alias == "header.converter" and used.role == "converter" else used.role


def _called(kind: str) -> str:
    return _CALLED.get(kind, kind)
