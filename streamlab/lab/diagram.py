"""Diagrams for lessons: boxes and arrows as data, drawn alike as a static picture and live.

The generic one is `Diagram`; the stack's (`streamlab.lab.topology`) is one over the servers' states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamlab.lab import drawing
from streamlab.lab.graph import Edge, Graph, Icon, Mark, Node
from streamlab.lab.live import Rendered

__all__ = ["Diagram", "Edge", "Icon", "Mark", "Node"]


@dataclass(frozen=True, slots=True)
class Diagram(Graph):
    """A picture of boxes and arrows. As the last expression of a cell it displays itself.

    Raises
    ------
    LessonError
        Two nodes share an id, or an edge names a node that is not there or leads from one to itself.
    """

    @classmethod
    def of(
        cls,
        nodes: Sequence[Node | str],
        edges: Sequence[Edge | tuple[str, str] | tuple[str, str, str]] = (),
        title: str = "",
        description: str = "",
    ) -> Diagram:
        """A diagram from short forms: a name for a node, ``(from, to)`` or ``(from, to, label)`` for an edge."""
        return cls(
            tuple(Node(node, node) if isinstance(node, str) else node for node in nodes),
            tuple(edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges),
            title=title,
            description=description,
        )

    def to_svg(self) -> str:
        """The picture as a static SVG with title and description, for light and dark pages."""
        return drawing.svg(self)

    def scene(self) -> list[Any]:
        """The picture as plain data, ``[tag, attributes, text, children]``, for the live widget."""
        return drawing.scene(self).data()

    def rendered(self) -> Rendered:
        """The picture for a cell's output: SVG (inline in HTML, where it has its alternative text), and text."""
        picture = self.to_svg()
        return Rendered(self.to_text(), f'<div class="sl-picture">{picture}</div>', picture, self.alternative())

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()
