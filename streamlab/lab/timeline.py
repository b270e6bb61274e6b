"""An LSN timeline: how far each party has come in the log, on one axis, with the bytes between them.

Pure: the points come from elsewhere (`streamlab.lab.lsn`). What the server says stands above the axis, what the reader
says below. Gaps reach from a byte to gigabytes, so they are labelled, and drawn by their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from streamlab.cdc.position import LSN
from streamlab.lab.drawing import MONO, document, picture
from streamlab.lab.layout import PAD, SMALL, STATUS, text_width
from streamlab.lab.live import Rendered
from streamlab.lab.shapes import Shape, number, shape

__all__ = ["Point", "Timeline", "size_text"]

WIDTH: Final = 980.0
"""Of every timeline, so that a live one keeps its place."""

_EDGE = 86.0  # panel to the first and the last tick: half of the widest name
_LEAST = 128.0  # between two ticks, where there are so many that they fill the axis
_NAME = 17.0  # leading
_ABOVE, _BELOW = 4, 3  # names that may share a tick
_MARKS: Final = {True: "\u25b2", False: "\u25c6"}


@dataclass(frozen=True, slots=True)
class Point:
    """How far one party has come.

    Attributes
    ----------
    name : str
        As the server's catalog or the reader calls it.
    lsn : LSN or None
        None where it is not known: then it is left out.
    meaning : str
        What it says, in a few words.
    server : bool
        Whether the server says so; else the reader does.
    """

    name: str
    lsn: LSN | None
    meaning: str
    server: bool


def size_text(count: int) -> str:
    """A number of bytes in the largest unit of which there is at least one: ``96 B``, ``1.2 MB`` (powers of 1000)."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Points of one log at one moment. As the last expression of a cell it displays itself.

    Attributes
    ----------
    points : tuple of Point
        In any order.
    title, summary : str
        What it is, and what it comes to.
    again : tuple of LSN or None
        The stretch whose transactions would come again after a crash, drawn thick.
    """

    points: tuple[Point, ...]
    title: str = "LSN timeline"
    summary: str = ""
    again: tuple[LSN, LSN] | None = None

    # -- arithmetic -------------------------------------------------------------------------------

    def ticks(self) -> list[tuple[LSN, list[Point]]]:
        """Each position with the points that are there, from the oldest on."""
        found: dict[LSN, list[Point]] = {}
        for point in self.points:
            if point.lsn is not None:
                found.setdefault(point.lsn, []).append(point)
        return sorted(found.items())

    def gaps(self) -> list[int]:
        """Bytes of log between neighbouring ticks."""
        return [after - before for (before, _), (after, _) in pairwise(self.ticks())]

    def between(self, first: str, second: str) -> int | None:
        """Bytes from one point to another, by their names; None where one is not known."""
        places = {point.name: point.lsn for point in self.points}
        one, other = places.get(first), places.get(second)
        return None if one is None or other is None else other - one

    # -- words ------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """The same in plain text."""
        return "\n".join([self.title, *([f"  {self.summary}"] if self.summary else []), *self._lines()])

    def _lines(self) -> Iterator[str]:
        ticks = self.ticks()
        if not ticks:
            yield "  nothing is known yet"
        width = max((len(str(lsn)) for lsn, _ in ticks), default=0)
        for place, (lsn, points) in enumerate(ticks):
            if place:
                yield f"  {'':{width}}  \u2502 {size_text(lsn - ticks[place - 1][0])}"
            for at, point in enumerate(points):
                mark = _MARKS[point.server]
                yield f"  {str(lsn) if at == 0 else '':{width}}  {mark} {point.name}: {point.meaning}"

    def alternative(self) -> str:
        """What the picture shows, as one sentence for those who do not see it."""
        parts = []
        last: LSN | None = None
        for lsn, points in self.ticks():
            gap = "" if last is None else f", {size_text(lsn - last)} further"
            parts.append(f"{' and '.join(point.name for point in points)} at {lsn}{gap}")
            last = lsn
        listed = "; ".join(parts) or "nothing is known yet"
        return f"{self.title}: {listed}.{f' {self.summary}.' if self.summary else ''}"

    # -- the picture ------------------------------------------------------------------------------

    def to_svg(self) -> str:
        """The picture as a static SVG with title and description, for light and dark pages."""
        return document(self._scene())

    def scene(self) -> list[Any]:
        """The picture as plain data, for the live widget."""
        return self._scene().data()

    def rendered(self) -> Rendered:
        """The picture for a cell's output."""
        svg = self.to_svg()
        return Rendered(self.to_text(), f'<div class="sl-picture">{svg}</div>', svg, self.alternative())

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()

    def _scene(self) -> Shape:
        axis = PAD + 64 + _ABOVE * _NAME
        height = axis + 38 + _BELOW * _NAME + 30
        children = [
            shape("text", "text", text=self.summary, x=PAD, y=PAD + 30, font_size=STATUS),
            *_axis(self.ticks(), axis, self.again),
            shape(
                "text",
                "text",
                text="\u25b2 the server says   \u25c6 the reader says   \u00b7   thick: comes again after a crash   "
                "\u00b7   gaps are drawn by their logarithm",
                x=PAD,
                y=height - 14,
                font_size=SMALL,
            ),
        ]
        return picture(WIDTH, height, self.title, self.alternative(), children)


def places(gaps: Sequence[int]) -> list[float]:
    """Where the ticks stand, in pixels: each gap has its least width, and a share of the rest by its logarithm."""
    left, right = PAD + _EDGE, WIDTH - PAD - _EDGE
    if not gaps:
        return [(left + right) / 2]
    least = min(_LEAST, (right - left) / len(gaps))
    rest = right - left - least * len(gaps)
    weights = [math.log2(1 + gap) for gap in gaps]
    found = [left]
    for weight in weights:
        found.append(found[-1] + least + rest * weight / sum(weights))
    return found


def _axis(ticks: Sequence[tuple[LSN, list[Point]]], y: float, again: tuple[LSN, LSN] | None) -> Iterator[Shape]:
    at = places([after - before for (before, _), (after, _) in pairwise(ticks)])
    yield shape("path", "line", d=f"M{number(PAD)} {number(y)}H{number(WIDTH - PAD)}", fill="none", stroke_width=1.6)
    where = {lsn: x for x, (lsn, _) in zip(at, ticks, strict=False)}
    if again is not None and again[0] < again[1] and {*again} <= where.keys():
        thick = f"M{number(where[again[0]])} {number(y)}H{number(where[again[1]])}"
        yield shape("path", "busy", d=thick, fill="none", stroke_width=5.0)
    if not ticks:
        yield shape("text", "text", text="nothing is known yet", x=WIDTH / 2, y=y - 12, font_size=STATUS,
                    text_anchor="middle")  # fmt: skip
    for (x, x_to), ((lsn, _), (lsn_to, _)) in zip(pairwise(at), pairwise(ticks), strict=False):
        text: dict[str, Any] = {"text": size_text(lsn_to - lsn), "x": (x + x_to) / 2, "y": y - 7}
        text |= {"text_anchor": "middle", "font_size": SMALL}
        yield shape("text", "halo", stroke_width=4, stroke_linejoin="round", aria_hidden="true", **text)
        yield shape("text", "title", **text)
    for x, (lsn, points) in zip(at, ticks, strict=False):
        yield shape("path", "line", d=f"M{number(x)} {number(y - 14)}V{number(y + 8)}", fill="none", stroke_width=1.6)
        yield shape("text", "text", text=str(lsn), x=x, y=y + 23, font_size=SMALL, font_family=MONO,
                    text_anchor="middle")  # fmt: skip
        yield from _names(_of(points, server=True), x, y - 24, -_NAME)
        yield from _names(_of(points, server=False), x, y + 42, _NAME)


def _of(points: Iterable[Point], *, server: bool) -> list[Point]:
    return [point for point in points if point.server is server]


def _names(points: Sequence[Point], x: float, y: float, leading: float) -> Iterator[Shape]:
    for place, point in enumerate(points):
        level = y + place * leading
        wide = text_width(point.name, SMALL)
        mark = "M0-5l5 9h-10z" if point.server else "M0-5.5l5 5.5-5 5.5-5-5.5z"
        where = f"translate({number(x - wide / 2 - 3)} {number(level - 4)})"
        yield shape("path", "good" if point.server else "other", d=mark, transform=where)
        yield shape("text", "title", text=point.name, x=x - wide / 2 + 6, y=level, font_size=SMALL)
