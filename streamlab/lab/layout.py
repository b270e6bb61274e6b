"""Where a diagram's boxes and arrows go, in pixels.

Text widths are estimated for DejaVu Sans, the widest of the fonts that are asked for, so that nothing
overflows in the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamlab.lab.graph import Edge, Graph, Icon, Node

__all__ = [
    "HEADER",
    "INSET",
    "LABEL",
    "LEADING",
    "PAD",
    "SMALL",
    "STATUS",
    "TITLE",
    "Box",
    "Grid",
    "Route",
    "content_height",
    "is_address",
    "lay_out",
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
_LANE = 17.0
_SPREAD = 16.0
_NARROW = set("iljtfr.,:;'|!()[]/ ")
_WIDE = set("mwMWQO@%\u2026\u2192")


def text_width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """About how wide a text is, rather too much than too little."""
    if mono:
        return len(text) * size * 0.61
    units = sum(
        0.37 if c in _NARROW else 0.93 if c in _WIDE else 0.68 if c.isupper() or c.isdigit() else 0.61 for c in text
    )
    return units * size * (1.08 if bold else 1.0)


def is_address(line: str) -> bool:
    """Whether a line is ``host:port``, which is set in a fixed width."""
    host, _, port = line.rpartition(":")
    return bool(host) and port.isdigit() and " " not in host


def content_height(node: Node) -> float:
    """Height of what stands in a box, from the top of its title to the foot of its last line."""
    return 17 + (22 if node.status else 0) + (LEADING * len(node.lines) + 2 if node.lines else 0)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower side."""
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The point in the middle."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """An arrow's way: `kind` is ``level``, ``down``, ``over`` or ``under``; `lane` is where the last two run."""

    edge: Edge
    kind: str
    start: tuple[float, float]
    end: tuple[float, float]
    lane: float = 0.0


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
    kinds = [_kind(graph, edge) for edge in graph.edges]
    if any(
        kind == "over" and _above(graph, edge, boxes) < PAD + header
        for kind, edge in zip(kinds, graph.edges, strict=True)
    ):
        boxes = {key: replace(box, y=box.y + _LANE + 6) for key, box in boxes.items()}
    routes = _spread([_route(graph, edge, kind, boxes) for edge, kind in zip(graph.edges, kinds, strict=True)])
    bottom = max(
        [box.bottom for box in boxes.values()] + [r.lane + 4 for r in routes if r.kind == "under"], default=PAD
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


def _node_width(node: Node) -> float:
    title = text_width(node.title, TITLE, bold=True) + (26 if node.icon is not Icon.NONE else 0)
    status = text_width(node.status, STATUS) + 20 if node.status else 0
    lines = [text_width(line, SMALL, mono=is_address(line)) for line in node.lines]
    return max([_LEAST_WIDTH, *(width + 2 * INSET for width in (title, status, *lines))])


def _node_height(node: Node) -> float:
    return content_height(node) + 2 * 12.0


# -- arrows -------------------------------------------------------------------------------------------


def _between(graph: Graph, edge: Edge) -> list[Node]:
    first, last = sorted((graph.place(edge.source)[0], graph.place(edge.target)[0]))
    return [node for node in graph.nodes if first < graph.place(node.id)[0] < last]


def _kind(graph: Graph, edge: Edge) -> str:
    (column, row), (column_to, row_to) = graph.place(edge.source), graph.place(edge.target)
    if column == column_to:
        return "down"
    if column_to < column:
        return "under"
    rows = {node.id: node.rows for node in graph.nodes}
    foot, foot_to = row + rows[edge.source], row_to + rows[edge.target]
    # Boxes that face each other are joined by a level line; else the arrow sweeps through the rows between.
    low, high = (max(row, row_to), min(foot, foot_to)) if foot > row_to and foot_to > row else (
        min(row, row_to), max(foot, foot_to)
    )  # fmt: skip
    blocked = any(graph.place(n.id)[1] < high and graph.place(n.id)[1] + n.rows > low for n in _between(graph, edge))
    return "over" if blocked else "level"


def _above(graph: Graph, edge: Edge, boxes: dict[str, Box]) -> float:
    return min(boxes[key].y for key in (edge.source, edge.target, *(n.id for n in _between(graph, edge)))) - _LANE


def _route(graph: Graph, edge: Edge, kind: str, boxes: dict[str, Box]) -> Route:
    source, target = boxes[edge.source], boxes[edge.target]
    if kind == "level":
        y, y_to = source.centre[1], target.centre[1]
        if source.bottom > target.y and target.bottom > source.y:
            y = y_to = (max(source.y, target.y) + min(source.bottom, target.bottom)) / 2
        return Route(edge, kind, (source.right, y), (target.x, y_to))
    x, x_to = source.centre[0], target.centre[0]
    if kind == "down":
        down = source.y <= target.y
        return Route(edge, kind, (x, source.bottom if down else source.y), (x_to, target.y if down else target.bottom))
    if kind == "over":
        return Route(edge, kind, (x, source.y), (x_to, target.y), _above(graph, edge, boxes))
    lane = max(boxes[key].bottom for key in (edge.source, edge.target, *(n.id for n in _between(graph, edge)))) + _LANE
    return Route(edge, kind, (x, source.bottom), (x_to, target.bottom), lane)


def _spread(routes: Sequence[Route]) -> list[Route]:
    """Keep arrows apart that would meet a box in one point: side by side, in the order of their other ends."""
    result = list(routes)
    meeting: dict[tuple[str, str, int, int], list[tuple[int, bool]]] = defaultdict(list)
    for index, route in enumerate(routes):
        for at_end, point in ((False, route.start), (True, route.end)):
            key = (route.edge.target if at_end else route.edge.source, route.kind, round(point[0]), round(point[1]))
            meeting[key].append((index, at_end))
    for (_, kind, *_), found in meeting.items():
        axis = 1 if kind == "level" else 0
        found.sort(key=lambda item: (result[item[0]].start if item[1] else result[item[0]].end)[axis])
        for place, (index, at_end) in enumerate(found):
            offset = (place - (len(found) - 1) / 2) * _SPREAD
            route = result[index]
            point = list(route.end if at_end else route.start)
            point[axis] += offset
            result[index] = replace(route, **{"end" if at_end else "start": (point[0], point[1])})
    return result
