"""What a diagram says: nodes, edges and their states, where they stand on a grid, and the same in words.

A state is never told by colour alone: each has a mark of a shape of its own, and a word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from streamlab.errors import LessonError

__all__ = ["Edge", "Graph", "Icon", "Mark", "Node"]


class Mark(StrEnum):
    """The state of a node."""

    NONE = "none"
    GOOD = "good"
    BUSY = "busy"
    OFF = "off"
    BAD = "bad"
    OTHER = "other"
    """Good, but somebody else's."""


class Icon(StrEnum):
    """The kind of thing that a node is."""

    NONE = "none"
    DATABASE = "database"
    LOG = "log"
    CONNECTOR = "connector"
    PROGRAM = "program"
    TABLE = "table"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Node:
    """A box.

    Parameters
    ----------
    id : str
        What edges call it.
    title : str
        Its first line.
    lines : tuple of str
        What stands below, in small print.
    icon : Icon
        The kind of thing.
    mark, status : Mark, str
        Its state, and the word for it.
    column, row : float, optional
        Its place on the grid; by default columns follow the edges, and rows the order of the nodes.
    rows : int
        How many rows it is high.
    """

    id: str
    title: str
    lines: tuple[str, ...] = ()
    icon: Icon = Icon.NONE
    mark: Mark = Mark.NONE
    status: str = ""
    column: int | None = None
    row: float | None = None
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow from a node to another. One that carries nothing now (`active` false) is drawn broken."""

    source: str
    target: str
    label: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes and arrows, placed.

    Raises
    ------
    LessonError
        Two nodes share an id, or an edge names a node that is not there or leads from one to itself.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    title: str = ""
    summary: str = ""
    description: str = ""
    """Alternative text; without one it is made from nodes and edges."""
    _places: dict[str, tuple[int, float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = [node.id for node in self.nodes]
        if len(set(ids)) != len(ids):
            raise LessonError("Two nodes of a diagram share an id.", f"Ids: {', '.join(ids)}.")
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in ids:
                    raise LessonError(
                        f"An edge of the diagram names the node {end!r}, which is not there.",
                        f"Nodes: {', '.join(ids)}.",
                    )
            if edge.source == edge.target:
                raise LessonError(
                    f"An edge of the diagram leads from {edge.source!r} to itself.", "Say it in the node's lines."
                )
        object.__setattr__(self, "_places", _place(self.nodes, self.edges))

    def place(self, node_id: str) -> tuple[int, float]:
        """Column and row of a node; rows may lie between two others."""
        return self._places[node_id]

    def alternative(self) -> str:
        """The picture in words, for those who do not see it."""
        if self.description:
            return self.description
        boxes = [
            f"{node.title}{f' ({node.status})' if node.status else ''}"
            f"{': ' if node.lines else ''}{', '.join(node.lines)}"
            for node in self.nodes
        ]
        titles = {node.id: node.title for node in self.nodes}
        arrows = [
            f"{titles[edge.source]} to {titles[edge.target]}{f', {edge.label}' if edge.label else ''}"
            f"{'' if edge.active else ' (nothing flows)'}"
            for edge in self.edges
        ]
        parts = [f"{self.title}." if self.title else "", f"{self.summary}." if self.summary else ""]
        parts += [f"{'; '.join(boxes)}.", f"Arrows: {'; '.join(arrows)}." if arrows else ""]
        return " ".join(part for part in parts if part)

    def to_text(self) -> str:
        """The picture as plain text: a line for each box, a line for each arrow."""
        head = ": ".join(part for part in (self.title, self.summary) if part)
        titles = {node.id: node.title for node in self.nodes}
        wide = max((len(node.title) for node in self.nodes), default=0)
        state = max((len(node.status) for node in self.nodes), default=0)
        lines = [head] if head else []
        for node in self.nodes:
            parts = [
                f"{_SIGNS[node.mark]} {node.title.ljust(wide)}",
                node.status.ljust(state),
                " \u00b7 ".join(node.lines),
            ]
            lines.append("  ".join(part for part in parts if part).rstrip())
        for edge in self.edges:
            arrow = "\u2500\u2500>" if edge.active else "\u2500 >"
            label = f"  ({edge.label})" if edge.label else ""
            lines.append(f"  {titles[edge.source]} {arrow} {titles[edge.target]}{label}")
        return "\n".join(lines)


_SIGNS = {
    Mark.NONE: "\u25ab",
    Mark.GOOD: "\u2713",
    Mark.BUSY: "\u2026",
    Mark.OFF: "\u25cb",
    Mark.BAD: "\u2717",
    Mark.OTHER: "\u25c6",
}


def _place(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, tuple[int, float]]:
    """Columns by the longest way from a source, rows by the order of the nodes, short columns centred.

    An edge against the order of the nodes closes a circle and does not push its target to the right.
    """
    order = {node.id: index for index, node in enumerate(nodes)}
    columns = {node.id: node.column or 0 for node in nodes}
    for _ in nodes:
        for edge in edges:
            if order[edge.source] < order[edge.target]:
                least = columns[edge.source] + 1
                target = nodes[order[edge.target]]
                if target.column is None and columns[edge.target] < least:
                    columns[edge.target] = least
    stacks: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        stacks[columns[node.id]].append(node)
    tallest = max((sum(node.rows for node in stack) for stack in stacks.values()), default=0)
    places = {}
    for column, stack in stacks.items():
        row = (tallest - sum(node.rows for node in stack)) / 2
        for node in stack:
            places[node.id] = (column, row if node.row is None else node.row)
            row += node.rows
    return places
