"""From a laid-out graph to shapes, and from shapes to SVG.

`scene` is the whole picture as a tree of SVG elements in plain data. `svg` writes it as text; the live widget's
JavaScript makes the same elements in the browser. So the two cannot differ. The picture brings its own panel, and is
readable wherever it lands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from streamlab.lab.graph import Graph, Icon, Mark, Node
from streamlab.lab.layout import (
    INSET,
    LABEL,
    LEADING,
    PAD,
    SMALL,
    STATUS,
    TITLE,
    content_height,
    fitted,
    icon_width,
    is_address,
    lay_out,
    mark_width,
)
from streamlab.lab.routes import Box, Route
from streamlab.lab.shapes import STYLE, Shape, number, shape

__all__ = ["document", "picture", "scene", "svg"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# Outlines in a square of 18.
_ICONS = {
    Icon.DATABASE: "M2.5 4.2c0-1.5 2.9-2.7 6.5-2.7s6.5 1.2 6.5 2.7-2.9 2.7-6.5 2.7S2.5 5.7 2.5 4.2v9.6c0 1.5 2.9 2.7 "
    "6.5 2.7s6.5-1.2 6.5-2.7V4.2M2.5 9c0 1.5 2.9 2.7 6.5 2.7s6.5-1.2 6.5-2.7",
    Icon.LOG: "M1.5 2.8h15v4.6h-15zM6.5 2.8v4.6M11.5 2.8v4.6M1.5 10.6h15v4.6h-15zM6.5 10.6v4.6M11.5 10.6v4.6",
    Icon.CONNECTOR: "M1.5 9h3M13.5 9h3M4.5 5.2h3.8v7.6H4.5zM8.3 7.2h2.4M8.3 10.8h2.4M10.7 5.2h2.8v7.6h-2.8z",
    Icon.PROGRAM: "M1.5 4.5a2 2 0 0 1 2-2h11a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-11a2 2 0 0 1-2-2zM4.8 6.4 7.6 9l-2.8 2.6"
    "M9.4 12h3.8",
    Icon.TABLE: "M1.5 3h15v12h-15zM1.5 7h15M1.5 11h15M6.5 7v8",
    Icon.PERSON: "M12 5.2a3 3 0 1 1-6 0 3 3 0 0 1 6 0M2.8 16c.5-3.6 3-5.4 6.2-5.4s5.7 1.8 6.2 5.4",
}


def picture(width: float, height: float, title: str, alternative: str, children: Iterable[Shape]) -> Shape:
    """One ``svg`` element, in pixels: its words for those who do not see it, a panel, the title, and what is given."""
    heading = {"x": PAD, "y": PAD + 11, "font_size": TITLE, "font_weight": 600}
    parts = (
        Shape("title", text=title or "Diagram"),
        Shape("desc", text=alternative),
        shape("rect", "panel", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=12),
        *([shape("text", "title", text=title, **heading)] if title else []),
        *children,
    )
    attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": "sl-diagram",
        "role": "img",
        "aria-label": alternative,
        "viewBox": f"0 0 {number(width)} {number(height)}",
        "width": number(width),
        "height": number(height),
        "font-family": FONT,
    }
    return Shape("svg", attributes, "", parts)


def document(whole: Shape) -> str:
    """A picture as a document of its own, with its style sheet; it may stand inline in HTML too."""
    title, description, *rest = whole.children
    return Shape("svg", whole.attributes, "", (title, description, Shape("style", text=STYLE), *rest)).markup()


def scene(graph: Graph) -> Shape:
    """The whole picture as one ``svg`` element, in pixels."""
    grid = lay_out(graph)
    width, height = float(math.ceil(grid.width)), float(math.ceil(grid.height))
    children: list[Shape] = []
    if graph.summary:
        at: dict[str, Any] = {"x": width - PAD, "y": PAD + 11, "text_anchor": "end"}
        children.append(shape("text", "text", text=graph.summary, font_size=STATUS, **at))
    for route in grid.routes:
        children += _arrow(route)
    for node in graph.nodes:
        children.append(_card(node, grid.boxes[node.id]))
    # Labels last: no card and no line covers them.
    children += [label for route in grid.routes for label in _label(route)]
    return picture(width, height, graph.title, graph.alternative(), children)


def svg(graph: Graph) -> str:
    """The picture as a document of its own."""
    return document(scene(graph))


# -- boxes --------------------------------------------------------------------------------------------


def _card(node: Node, box: Box) -> Shape:
    return shape("g", "", *_card_parts(node, box), data_node=node.id)


def _card_parts(node: Node, box: Box) -> Iterator[Shape]:
    bad = node.mark is Mark.BAD
    frame: dict[str, Any] = {"stroke_width": 1.8 if bad else 1.2}
    if node.mark is Mark.OFF:
        frame["stroke_dasharray"] = 4.0
    yield shape(
        "rect", "card badcard" if bad else "card", x=box.x, y=box.y, width=box.width, height=box.height, rx=9, **frame
    )
    # What spans several rows is centred; what stands in one keeps the line of its neighbours' titles.
    y = box.y + (12 if node.rows == 1 else (box.height - content_height(node)) / 2)
    left = box.x + INSET
    yield shape(
        "text",
        "title",
        text=fitted(node.title, TITLE, taken=icon_width(node), bold=True),
        x=left,
        y=y + 13,
        font_size=TITLE,
        font_weight=600,
    )
    if node.icon is not Icon.NONE:
        corner = f"translate({number(box.right - INSET - 17)} {number(y - 1)})"
        yield shape("path", "line", d=_ICONS[node.icon], transform=corner, fill="none", stroke_width=1.3,
                    stroke_linejoin="round", stroke_linecap="round")  # fmt: skip
    y += 17
    if node.status:
        y += 22
        yield from _mark(node.mark, left + 6, y - 8.5)
        status = fitted(node.status, STATUS, taken=mark_width(node))
        yield shape("text", "title", text=status, x=left + mark_width(node), y=y - 4, font_size=STATUS)
    y += 2
    for line in node.lines:
        y += LEADING
        font: dict[str, Any] = {"font_family": MONO} if is_address(line) else {}
        yield shape("text", "text", text=fitted(line, SMALL), x=left, y=y - 4, font_size=SMALL, **font)


def _mark(mark: Mark, x: float, y: float) -> Iterator[Shape]:
    stroke: dict[str, Any] = {
        "fill": "none",
        "stroke_width": 1.8,
        "stroke_linecap": "round",
        "stroke_linejoin": "round",
    }
    at = f"translate({number(x)} {number(y)})"
    match mark:
        case Mark.GOOD:
            yield shape("circle", "good", cx=x, cy=y, r=6.3)
            yield shape("path", "sign", d="M-2.9 .2l2 2.1 3.8-4.3", transform=at, **stroke)
        case Mark.BAD:
            yield shape("rect", "bad", x=x - 6.2, y=y - 6.2, width=12.4, height=12.4, rx=2.5)
            yield shape("path", "sign", d="M-2.6-2.6l5.2 5.2M2.6-2.6l-5.2 5.2", transform=at, **stroke)
        case Mark.OTHER:
            yield shape("path", "other", d="M0-7l7 7-7 7-7-7z", transform=at)
        case Mark.OFF:
            yield shape("circle", "off", cx=x, cy=y, r=5.2, fill="none", stroke_width=1.8)
        case Mark.BUSY:
            # Three quarters of a ring: unlike the whole ring of what is off. It stands in a group of its own, so
            # that the live picture can turn it about its middle.
            ring = shape("path", "busy spin", d="M0-5.2A5.2 5.2 0 1 1-5.2 0", **stroke)
            yield shape("g", "", ring, transform=at)


# -- arrows -------------------------------------------------------------------------------------------

_HEAD = 8.0
_ROUND = 10.0


def _arrow(route: Route) -> Iterator[Shape]:
    path, angle = _path(route)
    style: dict[str, Any] = {} if route.edge.active else {"stroke_dasharray": "3 5"}
    yield shape("path", "line flow" if route.edge.active else "line", d=path, fill="none", stroke_width=1.6,
                stroke_linecap="round", **style)  # fmt: skip
    x, y = route.end
    tip = f"translate({number(x - 1.5 * math.cos(angle))} {number(y - 1.5 * math.sin(angle))})"
    turned = f"{tip} rotate({number(math.degrees(angle))})"
    yield shape("path", "head", d="M0 0l-8.5-4.3v8.6z", transform=turned)


def _path(route: Route) -> tuple[str, float]:
    """The line, which ends within the arrow's head, and the direction of its end in radians."""
    (x, y), (x_to, y_to) = route.start, route.end
    if route.kind == "level":
        end = x_to - _HEAD
        if abs(y - y_to) < 0.5:
            return f"M{number(x)} {number(y)}H{number(end)}", 0.0
        bend = (x + end) / 2
        points = (bend, y, bend, y_to, end, y_to)
        return f"M{number(x)} {number(y)}C" + " ".join(number(float(p)) for p in points), 0.0
    if route.kind == "down":
        sign = 1.0 if y_to > y else -1.0
        return f"M{number(x)} {number(y)}L{number(x_to)} {number(y_to - sign * _HEAD)}", sign * math.pi / 2
    up = -1.0 if route.kind == "over" else 1.0  # towards the lane
    way = 1.0 if x_to > x else -1.0
    bend = up * min(_ROUND, abs(route.lane - y), abs(route.lane - y_to))
    lane, near, corner = number(route.lane), route.lane - bend, way * _ROUND
    out = f"M{number(x)} {number(y)}V{number(near)}Q{number(x)} {lane} {number(x + corner)} {lane}"
    back = f"H{number(x_to - corner)}Q{number(x_to)} {lane} {number(x_to)} {number(near)}"
    return f"{out}{back}V{number(y_to + up * _HEAD)}", -up * math.pi / 2


def _label(route: Route) -> Iterator[Shape]:
    if not route.edge.label:
        return
    (x, y), (x_to, y_to) = route.start, route.end
    anchor = "middle"
    if route.kind == "down":
        at, level, anchor = x + 8, (y + y_to) / 2 + 4, "start"
    elif route.kind == "level":
        at, level = (x + x_to - _HEAD) / 2, (y + y_to) / 2 - 7
    else:
        at, level = (x + x_to) / 2, route.lane - 6 if route.kind == "over" else route.lane + 13
    text: dict[str, Any] = {"text": route.edge.label, "x": at, "y": level, "font_size": LABEL, "text_anchor": anchor}
    yield shape("text", "halo", stroke_width=4, stroke_linejoin="round", aria_hidden="true", **text)
    yield shape("text", "text", **text)
