"""Where a diagram's boxes and arrows go, in pixels.

Text widths are estimated for DejaVu Sans, the widest of the fonts that are asked for, so that nothing
overflows in the others. A text that would make every box too wide is cut where it is drawn; the
alternative text has all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamlab.lab.graph import Graph, Icon, Mark, Node
from streamlab.lab.routes import Box, Route, routes_of

__all__ = [
    "HEADER",
    "INSET",
    "LABEL",
    "LEADING",
    "PAD",
    "SMALL",
    "STATUS",
    "TITLE",
    "Grid",
    "content_height",
    "fitted",
    "icon_width",
    "is_address",
    "lay_out",
    "mark_width",
    "text_width",
]

PAD = 22.0  # panel to content
INSET = 14.0  # card to text
HEADER = 36.0
TITLE, STATUS, SMALL, LABEL = 14.5, 12.5, 11.5, 11.5
LEADING = 17.0
_ROW_GAP = 34.0
_LEAST_GAP = 52.0
_LEAST_WIDTH = 128.0
_WIDEST = 200.0  # text in a box
_ICON_WIDTH = 26.0
_MARK_WIDTH = 20.0
_NARROW = set("iljtfr.,:;'|!()[]/ ")
_WIDE = set("mwMWQO@%\u2026\u2192")


def text_width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """About how wide a text is, rather too much than too little."""
    if mono:
        return len(text) * size * 0.61
    units = sum(
        0.37 if c in _NARROW else 1.0 if c in _WIDE else 0.68 if c.isupper() or c.isdigit() else 0.61 for c in text
    )
    return units * size * (1.13 if bold else 1.0)


def is_address(line: str) -> bool:
    """Whether a line is ``host:port``, which is set in a fixed width."""
    host, _, port = line.rpartition(":")
    return bool(host) and port.isdigit() and " " not in host


def fitted(text: str, size: float, *, taken: float = 0.0, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than a box may be; of an address the port stays.

    Parameters
    ----------
    taken : float
        Pixels of the line that something else needs.
    """
    mono = is_address(text)
    head, colon, tail = text.rpartition(":") if mono else (text, "", "")
    if text_width(text, size, mono=mono, bold=bold) <= _WIDEST - taken:
        return text
    while head and text_width(f"{head}\u2026{colon}{tail}", size, mono=mono, bold=bold) > _WIDEST - taken:
        head = head[:-1]
    return f"{head.rstrip()}\u2026{colon}{tail}"


def content_height(node: Node) -> float:
    """Height of what stands in a box, from the top of its title to the foot of its last line."""
    return 17 + (22 if node.status else 0) + (LEADING * len(node.lines) + 2 if node.lines else 0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The whole layout."""

    boxes: dict[str, Box]
    routes: tuple[Route, ...]
    width: float
    height: float


def lay_out(graph: Graph) -> Grid:
    """Place a graph's boxes and arrows."""
    header = HEADER if graph.title or graph.summary else 0.0
    boxes = _boxes(graph, PAD + header)
    routes = routes_of(graph, boxes)
    # What runs above the boxes may need room that the panel does not have: then everything moves down.
    highest = min((r.lane - (16 if r.edge.label else 4) for r in routes if r.kind == "over"), default=PAD + header)
    if (missing := PAD + header - highest) > 0:
        boxes = {key: replace(box, y=box.y + missing) for key, box in boxes.items()}
        routes = routes_of(graph, boxes)
    bottom = max(
        [box.bottom for box in boxes.values()]
        + [r.lane + (18 if r.edge.label else 4) for r in routes if r.kind == "under"],
        default=PAD,
    )
    right = max([box.right for box in boxes.values()], default=PAD)
    for route in routes:
        if route.kind == "down":
            right = max(right, route.start[0] + 10 + text_width(route.edge.label, LABEL))
    heading = text_width(graph.title, TITLE, bold=True) + text_width(graph.summary, STATUS) + 24
    return Grid(boxes, tuple(routes), max(right, PAD + heading if header else 0.0) + PAD, bottom + PAD)


def _boxes(graph: Graph, top: float) -> dict[str, Box]:
    places = {node.id: graph.place(node.id) for node in graph.nodes}
    # One width for all: the eye compares boxes by what they say.
    width = max((_node_width(node) for node in graph.nodes), default=0.0)
    row = max((_node_height(node) for node in graph.nodes if node.rows == 1), default=0.0)
    for node in graph.nodes:
        if node.rows > 1:
            row = max(row, (_node_height(node) - (node.rows - 1) * _ROW_GAP) / node.rows)
    gaps = [_LEAST_GAP] * max((column for column, _ in places.values()), default=0)
    for edge in graph.edges:
        first, last = sorted((places[edge.source][0], places[edge.target][0]))
        if last - first == 1:
            gaps[first] = max(gaps[first], text_width(edge.label, LABEL) + 32)
    return {
        node.id: Box(
            PAD + places[node.id][0] * width + sum(gaps[: places[node.id][0]]),
            top + places[node.id][1] * (row + _ROW_GAP),
            width,
            node.rows * row + (node.rows - 1) * _ROW_GAP,
        )
        for node in graph.nodes
    }


def icon_width(node: Node) -> float:
    """Pixels of a box's first line that its icon needs."""
    return 0.0 if node.icon is Icon.NONE else _ICON_WIDTH


def mark_width(node: Node) -> float:
    """Pixels of a box's status that its mark needs."""
    return 0.0 if node.mark is Mark.NONE else _MARK_WIDTH


def _node_width(node: Node) -> float:
    icon, mark = icon_width(node), mark_width(node)
    title = text_width(fitted(node.title, TITLE, taken=icon, bold=True), TITLE, bold=True) + icon
    status = text_width(fitted(node.status, STATUS, taken=mark), STATUS) + mark if node.status else 0.0
    lines = [text_width(fitted(line, SMALL), SMALL, mono=is_address(line)) for line in node.lines]
    return max([_LEAST_WIDTH, *(width + 2 * INSET for width in (title, status, *lines))])


def _node_height(node: Node) -> float:
    return content_height(node) + 2 * 12.0
