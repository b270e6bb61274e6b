"""What is asked at a poll: which rows lie behind a position, and in which order. Pure: no connection and no clock.

The modes have the names of Kafka Connect's JDBC source, and so have their rules:

bulk
    All rows, at each poll.
incrementing
    Rows with a greater key than the greatest that was seen.
timestamp
    Rows that were stamped later than the last that was seen, and before now less a delay.
timestamp+incrementing
    The same; among rows of one stamp those with a greater key.

A comparison over several columns is written out, ``a >= 1 AND (a > 1 OR (a = 1 AND b > 2))``: so both servers use an
index for it, MySQL too, which does not for ``(a, b) > (1, 2)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from streamlab.cdc import arguments
from streamlab.cdc.polling.position import PollingPosition
from streamlab.errors import SettingsError

__all__ = ["Criteria", "Mode"]

Quote = Callable[[str], str]


class Mode(StrEnum):
    """What tells rows that are new."""

    BULK = "bulk"
    INCREMENTING = "incrementing"
    TIMESTAMP = "timestamp"
    TIMESTAMP_INCREMENTING = "timestamp+incrementing"


@dataclass(frozen=True, slots=True)
class Criteria:
    """A mode and its columns.

    Attributes
    ----------
    mode : Mode
        What tells rows that are new.
    timestamp : str
        The column with the time of the last change; empty in modes without one.
    incrementing : tuple of str
        The columns that only grow, in their order.
    """

    mode: Mode
    timestamp: str = ""
    incrementing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.timestamp != "":
            arguments.name_of("the column of timestamp=", self.timestamp)
        for each in self.incrementing:
            arguments.name_of("a column of incrementing=", each)
        if len(set(self.columns)) < len(self.columns):
            raise SettingsError(
                f"A column is watched twice: {', '.join(self.columns)}.",
                "Name each once, in timestamp= or incrementing=.",
            )
        wants_time = self.mode in {Mode.TIMESTAMP, Mode.TIMESTAMP_INCREMENTING}
        wants_key = self.mode in {Mode.INCREMENTING, Mode.TIMESTAMP_INCREMENTING}
        if wants_time != bool(self.timestamp) or wants_key != bool(self.incrementing):
            needs = " and ".join([*["timestamp="] * wants_time, *["incrementing="] * wants_key])
            raise SettingsError(
                f"The mode {self.mode} goes with {needs or 'no column'}, and not with what is given.",
                "Give timestamp= a column of times, incrementing= one or several of numbers, as the mode has them.",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values are a position."""
        return (self.timestamp, *self.incrementing) if self.timestamp else self.incrementing

    @property
    def grouped(self) -> bool:
        """Whether rows of one position belong together: a stamp alone does not tell them apart."""
        return self.mode is Mode.TIMESTAMP

    def fit(self, position: PollingPosition) -> None:
        """Refuse a position of other columns or of another mode: what lies behind it is not what lies behind here.

        Raises
        ------
        SettingsError
            It does not fit.
        """
        values = position.values
        if not values:
            return  # before the first row
        wanted = (datetime, int) if self.mode is Mode.BULK else tuple(map(self._kind, self.columns))
        fits = len(values) == len(wanted) and all(map(isinstance, values, wanted))
        if position.columns != self.columns or not fits:
            names = ", ".join(self.columns)
            raise SettingsError(
                f"The position {position} is not one of the mode {self.mode}{names and f' over the columns {names}'}.",
                "Poll with the mode and the columns that it was kept with; or begin anew, without it.",
            )

    def _kind(self, column: str) -> type | tuple[type, ...]:
        return datetime if column == self.timestamp else (int, Decimal)

    def condition(self, after: PollingPosition | None, before: datetime | None, quote: Quote) -> tuple[str, list[Any]]:
        """The condition behind a position, with its parameters.

        Parameters
        ----------
        after : PollingPosition, optional
            Rows up to it are past.
        before : datetime, optional
            The stamp has to be less.
        quote : callable
            Makes a column's name SQL.
        """
        parts: list[str] = []
        values: list[Any] = []
        if after is not None and after.values:
            names = [quote(each) for each in self.columns]
            last = ">" if after.behind else ">="
            if len(names) > 1:
                parts.append(f"{names[0]} >= %s")
                values.append(after.values[0])
            text, more = _beyond(names, after.values, last)
            parts.append(text)
            values += more
        if before is not None and self.timestamp:
            parts.append(f"{quote(self.timestamp)} < %s")
            values.append(before)
        return " AND ".join(parts) or "TRUE", values

    def order(self, quote: Quote, *, last: bool = False, ties: Sequence[str] = ()) -> str:
        """The order of the rows; of the last one first, or with further columns that decide between equal ones."""
        columns = [*self.columns, *(each for each in ties if each not in self.columns)]
        return ", ".join(quote(each) + (" DESC" if last else "") for each in columns)


def _beyond(names: list[str], values: Sequence[Any], last: str) -> tuple[str, list[Any]]:
    if len(names) == 1:
        return f"{names[0]} {last} %s", [values[0]]
    text, more = _beyond(names[1:], values[1:], last)
    return f"({names[0]} > %s OR ({names[0]} = %s AND {text}))", [values[0], values[0], *more]
