"""The figures of the benchmark `which_cdc`, as a table and a picture: which way from a log takes what.

They are read from the file that the benchmark has written, `data/which_cdc.json`, with the day and the commit of the
run; none of them stands in a text.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import streamlab
from streamlab.errors import LessonError
from streamlab.lab import table
from streamlab.lab.drawing import document, picture
from streamlab.lab.layout import PAD, SMALL, STATUS
from streamlab.lab.live import Rendered
from streamlab.lab.shapes import Shape, shape

__all__ = ["FILE", "Way", "WhichCDC"]

FILE: Final = Path(streamlab.__file__).parents[1] / "data" / "which_cdc.json"

MAKE: Final = "make bench NAME=which_cdc JSON=data/which_cdc.json"

_TITLES: Final = {
    "direct-postgres": "PostgreSQLCDC",
    "direct-mysql": "MySQLCDC",
    "connector-postgres": "DatabaseSourceConnector, PostgreSQL",
    "debezium-postgres": "Debezium, PostgreSQL",
    "debezium-mysql": "Debezium, MySQL",
}
_ENDS: Final = {"direct": "a handler", "connector": "Kafka", "debezium": "Kafka"}
_REFERENCES: Final = {"debezium-postgres": "Debezium PostgreSQL", "debezium-mysql": "Debezium MySQL"}

_WIDTH: Final = 980.0
_NAMES: Final = 268.0
_ROW, _BAR = 34.0, 16.0
_LABEL: Final = 66.0
"""Room behind a bar for its figure."""


@dataclass(frozen=True, slots=True)
class Way:
    """What one way took; a figure that was not measured is None.

    Attributes
    ----------
    name : str
        As the benchmark calls it.
    rate : float or None
        Rows per second, when it catches up.
    p50, p99 : float or None
        Milliseconds from before the INSERT to the receiver, at 100 transactions a second.
    processor : float or None
        Seconds of processor time for 100,000 rows, of the reader or of Debezium's worker.
    memory : float or None
        MiB of that process.
    """

    name: str
    rate: float | None
    p50: float | None
    p99: float | None
    processor: float | None
    memory: float | None

    @property
    def title(self) -> str:
        """Its name in a picture."""
        return _TITLES[self.name]

    @property
    def end(self) -> str:
        """Where the changes come to."""
        return _ENDS[self.name.partition("-")[0]]


@dataclass(frozen=True, slots=True)
class WhichCDC:
    """The five ways, measured in one run. As the last expression of a cell it shows its table."""

    ways: tuple[Way, ...]
    date: str
    commit: str
    quick: bool
    cores: int

    @classmethod
    def load(cls, path: Path = FILE) -> Self:
        """Read what the benchmark has written.

        Raises
        ------
        LessonError
            There is no such file, or it is none of `which_cdc`.
        """
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            mine = [row for row in rows if row["benchmark"] == "which_cdc"]
            about = mine[0]
            ways = tuple(_way(name, mine) for name in _TITLES)
            return cls(ways, str(about["date"]), str(about["commit"]), bool(about["quick"]), int(about["cores"]))
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise LessonError(f"{path} holds no figures of which_cdc: {error!r}.", f"Measure them: {MAKE}") from error

    def way(self, name: str) -> Way:
        """One of them, such as ``direct-mysql``."""
        return next(each for each in self.ways if each.name == name)

    def times(self, figure: str, name: str, other: str) -> float:
        """How many times as large a figure of one way is as that of another.

        Raises
        ------
        LessonError
            One of the two was not measured.
        """
        one, two = getattr(self.way(name), figure), getattr(self.way(other), figure)
        if not one or not two:
            raise LessonError(f"The {figure} of {name} or of {other} was not measured.", f"Measure it: {MAKE}")
        return float(one / two)

    @property
    def origin(self) -> str:
        """When, of which commit and how it was measured."""
        how = "a quick run, which shows that it runs, and is not to be quoted" if self.quick else "400,000 rows a way"
        return f"Measured on {self.date} at {self.commit}, {self.cores} cores: {how}"

    def rendered(self) -> Rendered:
        """One row a way."""
        rows = [(each.title, each.end, *(text(getattr(each, name)) for name, _, text in _PANELS)) for each in self.ways]
        return table.render(rows, "way", "ends at", *(heading for _, heading, _ in _PANELS), caption=f"{self.origin}.")

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()

    def picture(self) -> Rendered:
        """A bar for each way and figure, each figure on a scale of its own: SVG and words."""
        heading = "Which CDC? Five ways from a log"
        lines = [
            f"{each.title}: " + ", ".join(f"{text(getattr(each, name))} {said}" for name, said, text in _PANELS)
            for each in self.ways
        ]
        alternative = f"{heading}. {self.origin}. {'; '.join(lines)}."
        height = PAD + 62 + _ROW * len(self.ways) + 22
        children = [
            shape("text", "text", text=f"{self.origin}.", x=PAD, y=height - 15, font_size=STATUS),
        ]
        top = PAD + 62
        for place, each in enumerate(self.ways):
            y = top + _ROW * place + _BAR - 3
            children.append(shape("text", "title", text=each.title, x=PAD, y=y, font_size=SMALL))
        width = (_WIDTH - _NAMES - PAD) / len(_PANELS)
        for place, (name, said, text) in enumerate(_PANELS):
            figures = [getattr(each, name) for each in self.ways]
            children += _panel(figures, said, text, _NAMES + width * place, width, top)
        svg = document(picture(_WIDTH, height, heading, alternative, children))
        return Rendered(
            "\n".join([heading, self.origin, *lines]), f'<div class="sl-picture">{svg}</div>', svg, alternative
        )


def _way(name: str, rows: Sequence[Mapping[str, Any]]) -> Way:
    ours = {row["case"]: row["ours_rate"] for row in rows}
    if name in _REFERENCES:
        # Measured beside each case that is compared with it.
        theirs = [row["reference_rate"] for row in rows if row["reference"] == _REFERENCES[name]]
        measured = [rate for rate in theirs if rate]
        rate = statistics.median(measured) if measured else None
    else:
        rate = ours[name]
    return Way(name, rate, ours[f"p50-{name}"], ours[f"p99-{name}"], ours[f"cpu-{name}"], ours[f"memory-{name}"])


def _digits(figure: float | None, places: int) -> str:
    return "\u2013" if figure is None else f"{figure:,.{places}f}"


_PANELS: Final[tuple[tuple[str, str, Callable[[float | None], str]], ...]] = (
    ("rate", "rows/s", partial(_digits, places=0)),
    ("p50", "ms, half", partial(_digits, places=1)),
    ("p99", "ms, 99 %", partial(_digits, places=1)),
    ("processor", "CPU s/100k rows", partial(_digits, places=2)),
    ("memory", "MiB", partial(_digits, places=0)),
)


def _panel(
    figures: Sequence[float | None],
    said: str,
    text: Callable[[float | None], str],
    left: float,
    width: float,
    top: float,
) -> Iterator[Shape]:
    most = max((each for each in figures if each), default=1.0)
    yield shape("text", "text", text=said, x=left, y=top - 14, font_size=SMALL)
    for place, figure in enumerate(figures):
        y, long = top + _ROW * place, (width - _LABEL) * (figure or 0.0) / most
        if figure:
            # So that the smallest one is seen.
            long = max(long, 1.5)
            ink = "good" if place < len(_TITLES) - len(_REFERENCES) else "head"
            yield shape("rect", ink, x=left, y=y, width=long, height=_BAR, rx=2)
        yield shape("text", "text", text=text(figure), x=left + long + 6, y=y + _BAR - 4, font_size=SMALL)
