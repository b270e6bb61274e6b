"""What a Connect worker tells: plugins, keys of their configuration, states of connectors and tasks, offsets.

The worker's JSON, read into frozen values; nothing here connects to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ConnectorOffset", "ConnectorStatus", "Key", "KeyProblem", "Part", "Plugin", "first_lines"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A class that the worker can load; `kind` is source, sink, transformation, predicate or a converter's."""

    name: str
    kind: str
    version: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a plugin's configuration defines.

    `kind` is Kafka's type of the value (STRING, INT, PASSWORD, ...), `values` are those that the plugin names, where it
    names any; a key without a `default` that is not `required` is simply off.
    """

    name: str
    kind: str = "STRING"
    required: bool = False
    default: str | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """What the worker finds wrong with the value of one key."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Part:
    """A connector itself (`task` is None), or one of its tasks.

    `state` is RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED or RESTARTING; `worker` is where it runs; `trace` is Java's,
    where it failed.
    """

    task: int | None
    state: str
    worker: str
    trace: str = ""

    @property
    def failed(self) -> bool:
        """Whether it has ended with an error, and waits for a restart."""
        return self.state == "FAILED"

    @property
    def error(self) -> str:
        """The first lines of the trace, without its places in the code."""
        return first_lines(self.trace)


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """The state of a connector and of its tasks. A connector can be RUNNING while its task is FAILED."""

    name: str
    kind: str
    connector: Part
    tasks: tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The connector and its tasks."""
        return (self.connector, *self.tasks)

    @property
    def failed(self) -> tuple[Part, ...]:
        """What of it has failed."""
        return tuple(part for part in self.parts if part.failed)

    @property
    def ready(self) -> bool:
        """Whether it works: the connector and at least one task are RUNNING, and every other task is too."""
        return bool(self.tasks) and all(part.state == "RUNNING" for part in self.parts)

    @property
    def state(self) -> str:
        """One word for all of it: FAILED where a part is, else what is not RUNNING, else RUNNING."""
        states = [part.state for part in self.parts]
        if "FAILED" in states:
            return "FAILED"
        return next((state for state in states if state != "RUNNING"), "RUNNING" if self.tasks else "UNASSIGNED")

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> ConnectorStatus:
        """Read the answer to ``GET /connectors/<name>/status``."""
        tasks = sorted(told["tasks"], key=lambda task: int(task["id"]))
        return cls(
            name=str(told["name"]),
            kind=str(told.get("type", "")),
            connector=_part(told["connector"], None),
            tasks=tuple(_part(task, int(task["id"])) for task in tasks),
        )


def _part(told: Mapping[str, Any], task: int | None) -> Part:
    return Part(task, str(told["state"]), str(told.get("worker_id", "")), str(told.get("trace") or ""))


@dataclass(frozen=True, slots=True)
class ConnectorOffset:
    """How far a connector has come in one part of its source, or in one partition of a topic.

    `partition` names the part in the connector's own words; for a sink ``kafka_topic`` and ``kafka_partition``.
    `offset` is the position there; None, in `ConnectClient.alter_offsets`, forgets it.
    """

    partition: Mapping[str, Any]
    offset: Mapping[str, Any] | None


def first_lines(trace: str, count: int = 4) -> str:
    """The first lines of a Java trace that say something: the error and its causes, not the places in the code."""
    said = [line for line in trace.splitlines() if line.strip() and not line.startswith(("\tat ", "\t..."))]
    return "\n".join(said[:count])
