"""What a lint finds, and the configuration that its rules look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from streamlab.connect.catalog import Catalog, PluginKeys

_JSON = "org.apache.kafka.connect.json.JsonConverter"

__all__ = ["Finding", "Kind", "Level", "Subject", "Used", "listed"]


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """It does not do what is written there, loses data without a word, or shows a secret."""
    WARNING = "warning"
    """It may be meant so; what follows from it is said."""


class Kind(StrEnum):
    """What is wrong."""

    INVALID = "invalid"
    """It cannot be read, or the plugin refuses it."""
    OUTDATED = "outdated"
    """A name or a value of former versions."""
    UNKNOWN = "unknown"
    """Nothing reads it."""
    INEFFECTIVE = "ineffective"
    """It is read, but has no effect where it stands."""
    MISSING = "missing"
    """Something has to be said that is not."""
    UNSAFE = "unsafe"
    """It loses data, or shows what should be secret."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, how bad, what, and what to do. `line` is 0 where there is no file."""

    key: str
    level: Level
    kind: Kind
    problem: str
    fix: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """A plugin that a configuration uses below a prefix: a transformation, a predicate, a converter.

    `alias` is the name that the configuration gives it, `keys` are the keys below the prefix, without it;
    `plugin` is None where the class is not known.
    """

    role: str
    alias: str
    prefix: str
    cls: str
    plugin: PluginKeys | None
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """A configuration under a lint. `plugin` is its connector, None where that is not known."""

    configuration: Mapping[str, str]
    catalog: Catalog
    plugin: PluginKeys | None
    used: tuple[Used, ...] = ()

    def get(self, key: str, default: str = "") -> str:
        """The value of a key without spaces around it, else a default."""
        return self.configuration.get(key, default).strip()

    def list(self, key: str, default: str = "") -> list[str]:
        """The members of a list."""
        return listed(self.get(key, default))

    def is_on(self, key: str) -> bool:
        """Whether a switch is set."""
        return self.get(key).lower() == "true"

    def below(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix."""
        return (key for key in self.configuration if key.startswith(prefix))

    def writes_json(self, role: str) -> bool:
        """Whether keys or values are JSON; where the connector names no converter that is taken for granted."""
        plugin = self.catalog.find(self.get(f"{role}.converter", _JSON))
        return plugin is not None and plugin.name == _JSON

    @property
    def is_source(self) -> bool:
        """Whether its connector is known to be a source."""
        return self.plugin is not None and self.plugin.kind == "source"

    @property
    def is_sink(self) -> bool:
        """Whether it is a sink: by its connector, or by the topics that it reads."""
        if self.plugin is not None:
            return self.plugin.kind == "sink"
        return "topics" in self.configuration or "topics.regex" in self.configuration


def listed(text: str) -> list[str]:
    """The members of a comma-separated list, as Kafka reads one."""
    return [part.strip() for part in text.split(",") if part.strip()]
