"""What a stream of changes did to which table, and when: counted while it is followed, as a table and a picture.

Counts go by the time of the commit, in buckets; memory does not grow with the stream, beyond the last events that are
kept.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.cdc.transaction import Transaction
from streamlab.lab import table
from streamlab.lab.drawing import document, picture
from streamlab.lab.layout import PAD, SMALL, STATUS, fitted
from streamlab.lab.live import Rendered
from streamlab.lab.shapes import Shape, number, shape

__all__ = ["Activity"]

_WIDTH: Final = 980.0
_LEFT, _RIGHT = 250.0, 170.0  # the plot, from the edges
_ROW, _BAR = 40.0, 30.0
_MOST = 8  # tables in the picture


class Activity:
    """Counts of changes by table, operation and time. For one thread.

    Parameters
    ----------
    bucket : float
        Seconds that are counted together.
    keep : int
        How many of the last events are kept.

    Attributes
    ----------
    last : deque of ChangeEvent
        The last events.
    transactions, changes : int
        How many there were.
    seconds : float
        For how long it was followed, which rates are by; 0 while nobody said.
    note : str
        What else is to be said, below the table.
    """

    def __init__(self, *, bucket: float = 0.25, keep: int = 20) -> None:
        self.bucket = bucket
        self.last: deque[ChangeEvent] = deque(maxlen=keep)
        self.transactions = self.changes = 0
        self.seconds = 0.0
        self.note = ""
        self._begin: datetime | None = None
        self._counts: dict[str, Counter[str]] = {}
        self._times: dict[str, Counter[int]] = {}

    def begin(self, moment: datetime) -> None:
        """From when on time is counted; by default from the first commit."""
        self._begin = moment

    def add(self, transaction: Transaction, events: Iterable[ChangeEvent], *, limit: int | None = None) -> None:
        """Count the changes of a transaction; one without any is not counted.

        Parameters
        ----------
        transaction : Transaction
            When it was committed.
        events : iterable of ChangeEvent
            Those of its changes that are counted.
        limit : int, optional
            Count no more of them.
        """
        self._begin = self._begin or transaction.commit_timestamp
        place = math.floor((transaction.commit_timestamp - self._begin).total_seconds() / self.bucket)
        before = self.changes
        for event in islice(events, limit):
            name = f"{event.schema}.{event.table_name}" if event.table_name else "(messages)"
            self._counts.setdefault(name, Counter())[event.operation] += 1
            self._times.setdefault(name, Counter())[place] += 1
            self.changes += 1
            self.last.append(event)
        self.transactions += self.changes > before

    def tables(self) -> list[str]:
        """The tables that changed, those that changed most first."""
        return sorted(self._counts, key=lambda name: (-self._counts[name].total(), name))

    @property
    def busiest(self) -> str:
        """The table that changed most; empty where none did."""
        return next(iter(self.tables()), "")

    def count(self, name: str, operation: Operation | None = None) -> int:
        """Changes of a table, of one kind or all."""
        counts = self._counts.get(name, Counter())
        return counts.total() if operation is None else counts[operation]

    def rates(self, name: str) -> list[float]:
        """Changes of a table a second, bucket by bucket, from the beginning to the end."""
        times = self._times.get(name, Counter())
        # Clocks of two machines differ: what was committed before the beginning is counted in the first bucket.
        last = max((max(each, default=0) for each in self._times.values()), default=0)
        buckets = max(last + 1, math.ceil(self.seconds / self.bucket), 1)
        found = [0.0] * buckets
        for place, count in times.items():
            found[max(0, place)] += count / self.bucket
        return found

    # -- shown ------------------------------------------------------------------------------------

    def rendered(self) -> Rendered:
        """Changes by table: how many of each kind, and how many a second."""
        kinds = (Operation.INSERT, Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE)
        rows = [
            (name, *(self.count(name, kind) for kind in kinds), self.count(name), self._rate(self.count(name)))
            for name in self.tables()
        ]
        spent = f" in {self.seconds:.1f} s" if self.seconds else ""
        caption = f"{self.changes:,} changes in {self.transactions:,} transactions{spent}"
        made = table.render(
            rows,
            *("table", "inserts", "updates", "deletes", "truncates", "changes", "changes/s"),
            caption=f"{caption}. {self.note}" if self.note else caption,
        )
        return made if rows else Rendered(f"Nothing was committed{spent}. {self.note}".rstrip())

    def _rate(self, count: int) -> float | None:
        return count / self.seconds if self.seconds else None

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()

    def picture(self) -> Rendered:
        """Changes a second over time, one row for each table, all on one scale: SVG and words."""
        shown = self.tables()[:_MOST]
        rates = {name: self.rates(name) for name in shown}
        top = max((max(each) for each in rates.values()), default=0.0)
        span = max((len(each) for each in rates.values()), default=0) * self.bucket
        more = len(self.tables()) - len(shown)
        lines = [
            f"{name}: {self.count(name):,} changes, at most {max(rates[name]):,.0f}/s within {self.bucket:g} s"
            for name in shown
        ]
        heading = f"Changes a second, {span:.1f} s" if shown else "No changes"
        alternative = f"{heading}. {'; '.join(lines)}." if lines else f"{heading}."
        height = PAD + 32 + _ROW * max(1, len(shown)) + 40
        below = f"one scale for all: a full bar is {top:,.0f} changes/s" + (f"; {more} more tables" if more > 0 else "")
        children = [
            shape("text", "text", text=below, x=_WIDTH - PAD, y=PAD + 11, font_size=STATUS, text_anchor="end"),
        ]
        for place, name in enumerate(shown):
            children += self._bars(name, rates[name], top, PAD + 32 + _ROW * (place + 1))
        children += _scale(span, height - 22)
        svg = document(picture(_WIDTH, height, heading, alternative, children))
        return Rendered("\n".join([heading, *lines]), f'<div class="sl-picture">{svg}</div>', svg, alternative)

    def _bars(self, name: str, rates: list[float], top: float, base: float) -> Iterator[Shape]:
        step = (_WIDTH - _LEFT - _RIGHT) / len(rates)
        gap = min(1.0, step / 5)
        path = "".join(
            f"M{_LEFT + step * at:.1f} {base:.1f}v{-_BAR * rate / top:.1f}h{step - gap:.1f}v{_BAR * rate / top:.1f}z"
            for at, rate in enumerate(rates)
            if rate
        )
        yield shape("text", "title", text=fitted(name, SMALL), x=PAD, y=base - 4, font_size=SMALL)
        yield shape("path", "line", d=f"M{number(_LEFT)} {number(base)}H{number(_WIDTH - _RIGHT)}", fill="none")
        yield shape("path", "good", d=path)
        peak = f"{self.count(name):,} \u00b7 peak {max(rates):,.0f}/s"
        yield shape("text", "text", text=peak, x=_WIDTH - _RIGHT + 12, y=base - 4, font_size=SMALL)


def _scale(span: float, y: float) -> Iterator[Shape]:
    for part in range(5):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * part / 4
        anchor = {0: "start", 4: "end"}.get(part, "middle")
        text = f"{span * part / 4:.1f} s"
        yield shape("text", "text", text=text, x=x, y=y, font_size=SMALL, text_anchor=anchor)
