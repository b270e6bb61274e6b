"""The picture of the stack: which server, on which port, healthy or not, how long it took to start, and what flows.

::

    PostgreSQL ------------ logical replication -------------> Python
    MySQL --- binlog ---> Debezium --- events ---> Kafka ---->

It is a `Diagram` over the rows of `Stack.status()`; nothing here asks a server anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from streamlab.lab.diagram import Diagram, Edge, Icon, Mark, Node
from streamlab.stack import ports

__all__ = ["ServiceState", "overview", "topology", "write_overview"]


class ServiceState(Protocol):
    """What is drawn of a server: a row of `streamlab.stack.Stack.status()`."""

    @property
    def name(self) -> str:
        """The service: postgres, mysql, kafka, connect, registry."""

    @property
    def version(self) -> str:
        """The server's version, where it is known."""

    @property
    def host(self) -> str:
        """Where it listens."""

    @property
    def port(self) -> int:
        """Its port; 0 where none is known."""

    @property
    def state(self) -> str:
        """running, stopped, dead, foreign or unreachable; starting while it comes up."""

    @property
    def start_seconds(self) -> float | None:
        """Seconds from start to ready, where we started it."""


_NODES: Mapping[str, tuple[str, Icon, int, float]] = {
    "postgres": ("PostgreSQL", Icon.DATABASE, 0, 0),
    "mysql": ("MySQL", Icon.DATABASE, 0, 1),
    "connect": ("Kafka Connect", Icon.CONNECTOR, 1, 1),
    "kafka": ("Kafka", Icon.LOG, 2, 1),
    "registry": ("Schema registry", Icon.TABLE, 1, 2),
}
_EDGES = (
    ("postgres", "python", "logical replication"),
    ("mysql", "connect", "binlog"),
    ("mysql", "python", "binlog"),
    ("connect", "kafka", "events"),
    ("kafka", "python", "consumer"),
    ("connect", "registry", "schemas"),
    ("registry", "python", "schemas"),
)
_STATES: Mapping[str, tuple[Mark, str]] = {
    "running": (Mark.GOOD, "running"),
    "foreign": (Mark.OTHER, "running, your own"),
    "starting": (Mark.BUSY, "starting"),
    "stopped": (Mark.OFF, "stopped"),
    "dead": (Mark.BAD, "died"),
    "unreachable": (Mark.BAD, "does not answer"),
}
_SERVING = {"running", "foreign"}
_PYTHON = Node("python", "Python", ("this notebook",), Icon.PROGRAM, Mark.GOOD, "running", row=0.0)


def topology(
    states: Iterable[ServiceState], only: Iterable[str] | None = None, progress: Mapping[str, str] | None = None
) -> Diagram:
    """The stack as a diagram.

    Parameters
    ----------
    states : iterable of ServiceState
        Rows of `Stack.status()`.
    only : iterable of str, optional
        The services that a lesson needs; by default all of them.
    progress : mapping, optional
        What is being done for a service that is on its way up, in a word or two.
    """
    wanted = set(_NODES if only is None else only)
    rows = {row.name: row for row in states if row.name in _NODES and row.name in wanted}
    # Columns close up where a lesson needs fewer servers.
    columns = sorted({_NODES[name][2] for name in rows})
    levels = sorted({_NODES[name][3] for name in rows})
    nodes = [
        _node(row, columns.index(_NODES[name][2]), levels.index(_NODES[name][3]), (progress or {}).get(name, ""))
        for name, row in rows.items()
    ]
    python = replace(_PYTHON, column=len(columns), rows=max(1, len(levels)))
    alive = {name for name, row in rows.items() if row.state in _SERVING} | {"python"}
    edges = [
        Edge(source, target, label, active={source, target} <= alive)
        for source, target, label in _EDGES
        if source in rows
        and (target in rows or target == "python")
        # Where Debezium reads MySQL's log, the lesson does not.
        and not (source == "mysql" and target == "python" and "connect" in rows)
    ]
    serving = len(alive) - 1
    summary = f"{serving} of {len(rows)} server{'' if len(rows) == 1 else 's'} running" if rows else "no servers"
    return Diagram((*nodes, python), tuple(edges), title="The stack", summary=summary)


# The servers that `streamlab up` starts without being asked for more.
_KEEPS: Mapping[str, str] = {
    "postgres": "write-ahead log",
    "mysql": "binary log",
    "connect": "runs Debezium",
    "kafka": "topics",
}


def overview() -> Diagram:
    """The stack as documentation shows it: everything runs, at the ports of the default home.

    It says nothing that differs from machine to machine or from version to version.
    """
    nodes = [
        Node(name, title, (f"{ports.HOST}:{ports.DEFAULT_BASE + ports.PORTS[name]}", _KEEPS[name]), icon,
             Mark.GOOD, "running", column=column, row=row)
        for name, (title, icon, column, row) in _NODES.items() if name in _KEEPS
    ]  # fmt: skip
    python = replace(_PYTHON, column=1 + max(node.column or 0 for node in nodes), rows=2)
    drawn = {*_KEEPS, "python"}
    edges = tuple(Edge(*ends) for ends in _EDGES if {*ends[:2]} <= drawn and ends[:2] != ("mysql", "python"))
    return Diagram((*nodes, python), edges, title="The stack", summary="real servers, on this machine")


def write_overview(path: Path) -> None:
    """Write the picture that the README shows."""
    path.write_text(overview().to_svg() + "\n", encoding="utf-8")


def _node(row: ServiceState, column: int, level: float, doing: str) -> Node:
    title, icon, _, _ = _NODES[row.name]
    mark, status = _STATES.get(row.state, (Mark.NONE, row.state))
    if doing:
        mark, status = Mark.BUSY, doing
    about = [f"{row.host}:{row.port}"] if row.port else ["no address yet"]
    started = f"up in {row.start_seconds:.1f} s" if row.start_seconds is not None and row.state == "running" else ""
    unknown = "not started yet" if row.state in {"stopped", "starting"} else "version not known"
    about.append(" \u00b7 ".join(part for part in (row.version, started) if part) or unknown)
    return Node(row.name, title, tuple(about), icon, mark, status, column=column, row=level)
