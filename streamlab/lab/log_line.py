"""Where everybody is in a log: positions as a small table, each with its place on the same line.

For PostgreSQL: the end of what was written, what a reader has received and acknowledged, what the slot has confirmed,
and from where the slot keeps the log (``restart_lsn``).
"""

from __future__ import annotations

from streamlab.cdc.position import LSN
from streamlab.lab import table
from streamlab.lab.live import Rendered

__all__ = ["log_line"]

_WIDTH = 32


def log_line(caption: str = "", **positions: LSN | str | None) -> Rendered:
    """A table of positions of one log: name, LSN, bytes before the end, and a mark on a line from first to last.

    Parameters
    ----------
    caption : str
        What stands above it.
    **positions : LSN, str or None
        Name -> position, in the order of the rows; None is unknown as yet.
    """
    known = {name: _parsed(value) for name, value in positions.items()}
    places = [each for each in known.values() if each is not None]
    low, high = min(places, default=LSN(0)), max(places, default=LSN(0))
    rows = [
        (name, "", None, "") if value is None else (name, str(value), high - value, _mark(value - low, high - low))
        for name, value in known.items()
    ]
    return table.render(rows, "position", "LSN", "bytes before the end", "in the log", caption=caption)


def _parsed(value: LSN | str | None) -> LSN | None:
    return LSN.parse(value) if isinstance(value, str) else value


def _mark(place: int, length: int) -> str:
    before = round((_WIDTH - 1) * place / length) if length else _WIDTH - 1
    return "\u2500" * before + "\u25cf" + "\u2500" * (_WIDTH - 1 - before)
