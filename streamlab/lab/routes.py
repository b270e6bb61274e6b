"""The ways of a diagram's arrows, in pixels.

Boxes that face each other are joined by a level line, or a curve where they do not; boxes of one column by
an upright one. Where a box would be crossed, and where an arrow leads back, it runs in a lane above or below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streamlab.lab.graph import Edge, Graph, Node

__all__ = ["Box", "Route", "routes_of"]

_LANE = 17.0
_LANES_APART = 19.0  # a line and its label
_SPREAD = 16.0


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


def _between(graph: Graph, edge: Edge) -> list[Node]:
    first, last = sorted((graph.place(edge.source)[0], graph.place(edge.target)[0]))
    return [node for node in graph.nodes if first < graph.place(node.id)[0] < last]


def _kind(graph: Graph, edge: Edge) -> str:
    (column, row), (column_to, row_to) = graph.place(edge.source), graph.place(edge.target)
    if column == column_to:
        return "down"
    above = [_has_beside(graph, key, -1) for key in (edge.source, edge.target)]
    below = [_has_beside(graph, key, 1) for key in (edge.source, edge.target)]
    if column_to < column:
        return "over" if any(below) and not any(above) else "under"
    rows = {node.id: node.rows for node in graph.nodes}
    foot, foot_to = row + rows[edge.source], row_to + rows[edge.target]
    # Boxes that face each other are joined by a level line; else the arrow sweeps through the rows between.
    low, high = (max(row, row_to), min(foot, foot_to)) if foot > row_to and foot_to > row else (
        min(row, row_to), max(foot, foot_to)
    )  # fmt: skip
    blocked = any(graph.place(n.id)[1] < high and graph.place(n.id)[1] + n.rows > low for n in _between(graph, edge))
    if not blocked:
        return "level"
    return "under" if any(above) and not any(below) else "over"


def _has_beside(graph: Graph, key: str, way: int) -> bool:
    """Whether a box stands above (-1) or below (1) another, where an arrow would leave it."""
    column, row = graph.place(key)
    return any(
        graph.place(node.id)[0] == column and (graph.place(node.id)[1] - row) * way > 0
        for node in graph.nodes
        if node.id != key
    )


def _above(graph: Graph, edge: Edge, boxes: Mapping[str, Box]) -> float:
    return min(boxes[key].y for key in (edge.source, edge.target, *(n.id for n in _between(graph, edge)))) - _LANE


def _route(graph: Graph, edge: Edge, boxes: Mapping[str, Box]) -> Route:
    kind = _kind(graph, edge)
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


def routes_of(graph: Graph, boxes: Mapping[str, Box]) -> list[Route]:
    """The way of every arrow of a graph, in the order of its edges."""
    routes = [_route(graph, edge, boxes) for edge in graph.edges]
    return _own_lanes(_spread(routes, boxes))


def _sides(kind: str, *, downwards: bool) -> tuple[str, str]:
    """The sides of the boxes that an arrow leaves and meets."""
    if kind == "level":
        return "right", "left"
    if kind == "down":
        return ("bottom", "top") if downwards else ("top", "bottom")
    return ("top", "top") if kind == "over" else ("bottom", "bottom")


def _spread(routes: Sequence[Route], boxes: Mapping[str, Box]) -> list[Route]:
    """Keep arrows apart that would meet a side of a box in one point: in the order of their other ends."""
    result = list(routes)
    meeting: dict[tuple[str, str, int, int], list[tuple[int, bool]]] = defaultdict(list)
    for index, route in enumerate(routes):
        sides = _sides(route.kind, downwards=route.start[1] < route.end[1])
        for at_end, point in ((False, route.start), (True, route.end)):
            key = route.edge.target if at_end else route.edge.source
            meeting[key, sides[at_end], round(point[0]), round(point[1])].append((index, at_end))
    for (key, side, *_), found in meeting.items():
        axis = 1 if side in {"left", "right"} else 0
        length = boxes[key].height if axis else boxes[key].width
        step = min(_SPREAD, (length - 14) / len(found))
        found.sort(key=lambda item: (routes[item[0]].start if item[1] else routes[item[0]].end)[axis])
        for place, (index, at_end) in enumerate(found):
            offset = (place - (len(found) - 1) / 2) * step
            route = result[index]
            x, y = route.end if at_end else route.start
            moved = (x, y + offset) if axis else (x + offset, y)
            result[index] = replace(route, end=moved) if at_end else replace(route, start=moved)
    return result


def _own_lanes(routes: Sequence[Route]) -> list[Route]:
    """Give arrows that run side by side a lane each: the shorter one the nearer to the boxes."""
    result = list(routes)
    order = sorted(range(len(routes)), key=lambda index: abs(routes[index].start[0] - routes[index].end[0]))
    placed: list[Route] = []
    for index in order:
        route = routes[index]
        if route.kind not in {"over", "under"}:
            continue
        outwards = -_LANES_APART if route.kind == "over" else _LANES_APART
        while any(_share_lane(route, other) for other in placed):
            route = replace(route, lane=route.lane + outwards)
        placed.append(route)
        result[index] = route
    return result


def _share_lane(route: Route, other: Route) -> bool:
    (low, high), (low_other, high_other) = (sorted((r.start[0], r.end[0])) for r in (route, other))
    crosses = low < high_other + 6 and low_other < high + 6
    return route.kind == other.kind and crosses and abs(route.lane - other.lane) < _LANES_APART - 1
