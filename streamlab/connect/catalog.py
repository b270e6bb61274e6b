"""Which keys a plugin reads: the table `plugins.json`, or a worker's own answer.

The table was taken from the plugins that `streamlab up connect` runs, by ``scripts/connect_plugins.py``; a test holds
it against a running worker. For each plugin it holds the keys that its configuration defines, with Kafka's type and the
values that it recommends; and those that Debezium and the Avro converter read without defining them (`undefined`). One
that ends with a dot is a prefix: what stands below it is passed on, to a driver or a client of Kafka.

Keys that every connector may have and no plugin defines belong to Connect itself (KIP-458 and KIP-158), and to
Debezium's own plugins in a plugin: ``converters`` and ``post.processors`` name prefixes of their own.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

from streamlab.connect.answers import Key, Plugin

__all__ = ["Catalog", "PluginKeys", "nearest"]

_PASSED_ON = ("producer.override.", "consumer.override.", "admin.override.")
# Kafka's PluginUtils.prunedName.
_KIND_WORDS = {
    "source": "Connector", "sink": "Connector", "converter": "Converter", "header_converter": "HeaderConverter",
    "transformation": "Transformation", "predicate": "Predicate",
}  # fmt: skip
_DEBEZIUM_PASSED_ON = ("database.", "internal.", "snapshot.select.statement.overrides.")


@dataclass(frozen=True, slots=True)
class PluginKeys:
    """A plugin and the keys that it reads.

    `surveyed` says that there are no others: what it reads without defining it was looked for. `also` are the kinds
    that it is beside `kind`.
    """

    name: str
    kind: str
    version: str
    keys: Mapping[str, Key]
    undefined: frozenset[str] = frozenset()
    surveyed: bool = True
    also: frozenset[str] = frozenset()

    def is_a(self, *kinds: str) -> bool:
        """Whether it is of one of these kinds; a converter may be one of headers, too."""
        return self.kind in kinds or not self.also.isdisjoint(kinds)

    def get(self, key: str) -> Key | None:
        """The definition of a key; None where nothing reads it, as far as is known."""
        if key in self.keys:
            return self.keys[key]
        if key in self.undefined and not key.endswith("."):
            return Key(key)
        passed = [each for each in self.undefined if each.endswith(".")]
        if self.kind in {"source", "sink"}:
            passed += _PASSED_ON
        if any(key.startswith(begin) and key != begin for begin in passed):
            return Key(key)
        for name, defined in self.keys.items():
            # `column.mask.with.(d+).chars`: a pattern, in which the definition has lost a backslash. Of masks by hash
            # there is a second version, `column.mask.hash.v2.`, which no definition names.
            if "(" in name and re.fullmatch(_pattern(name), key.replace(".hash.v2.", ".hash.", 1)):
                return defined
        return None

    @property
    def names(self) -> list[str]:
        """The keys by name, for a search."""
        return [*self.keys, *(each for each in self.undefined if not each.endswith("."))]

    @property
    def aliases(self) -> set[str]:
        """The short names that Connect takes for it: without the package, and without the word for its kind."""
        # Of `MaskField$Value` it is Value, as of others.
        simple = self.name.rpartition(".")[2].rpartition("$")[2]
        return {simple, simple.rpartition(_KIND_WORDS[self.kind])[0] or simple}

    @property
    def debezium_source(self) -> bool:
        """Whether it is one of Debezium's sources: they share most keys."""
        return self.kind == "source" and self.name.startswith("io.debezium.")

    def passes_on(self, key: str) -> bool:
        """Whether it takes a key without looking at it, and hands it to something else."""
        return self.debezium_source and key.startswith(_DEBEZIUM_PASSED_ON)


def _pattern(name: str) -> str:
    literal = re.split(r"(\([^)]*\))", name)
    return "".join(part.replace("(d+)", r"(\d+)") if part.startswith("(") else re.escape(part) for part in literal)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The plugins that are known, by class. `complete` says that there are no others: a worker told."""

    plugins: Mapping[str, PluginKeys] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def load(cls) -> Self:
        """The table that lies in this package."""
        return cls(_table())

    def asked(self, plugins: Mapping[Plugin, Iterable[Key]], others: Iterable[Plugin] = ()) -> Self:
        """The same with what a worker told: it has these plugins and no others.

        What a plugin reads without defining it, and the values of its keys, are kept from the table.
        """
        found = {}
        for plugin, keys in plugins.items():
            known = self.plugins.get(plugin.name)
            named = known.keys if known else {}
            told = {key.name: replace(key, values=named.get(key.name, key).values) for key in keys}
            made = PluginKeys(plugin.name, plugin.kind, plugin.version, told, surveyed=known is not None)
            found[plugin.name] = replace(made, undefined=known.undefined) if known else made
        for plugin in others:
            known = self.plugins.get(plugin.name) or PluginKeys(plugin.name, plugin.kind, plugin.version, {})
            before = found.setdefault(plugin.name, known)
            if not before.is_a(plugin.kind):
                found[plugin.name] = replace(before, also=before.also | {plugin.kind})
        return replace(self, plugins=found, complete=True)

    def find(self, name: str) -> PluginKeys | None:
        """A plugin by its class, or by one of its aliases; one that several plugins have is none, as on a worker."""
        if name in self.plugins:
            return self.plugins[name]
        found = [each for each in self.plugins.values() if name in each.aliases]
        return found[0] if len(found) == 1 else None

    def of_kind(self, *kinds: str) -> list[PluginKeys]:
        """The plugins of some kinds."""
        return [each for each in self.plugins.values() if each.is_a(*kinds)]


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.75) -> str:
    """The known word that is most like one, or nothing."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=cutoff)
    return near[0] if near else ""


@cache
def _table() -> dict[str, PluginKeys]:
    told: dict[str, Any] = json.loads(files("streamlab.connect").joinpath("plugins.json").read_text(encoding="utf-8"))
    return {
        name: PluginKeys(
            name,
            plugin["kind"],
            plugin["version"],
            {key: Key(key, what[0], values=tuple(what[1:])) for key, what in plugin["keys"].items()},
            frozenset(plugin.get("undefined", ())),
            also=frozenset(plugin.get("also", ())),
        )
        for name, plugin in told.items()
    }
