"""Positions of a source that is polled: the values of the columns that are watched, at a row or behind it.

Text: ``{"updated_at":{"at":"2026-11-24T18:00:00+00:00"},"id":17}``, with a ``+`` behind it for "all up to and with this
row". It names its columns, and a time among them is told from a number, so the mode is in it too: a position of other
columns or of another mode would silently pass over rows. In the mode bulk there are no columns, and it is a list.

Positions of one source compare by their values, in the order of the columns, so only numbers and times are watched:
texts are ordered by a server's collation, which Python does not have.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from streamlab.errors import SettingsError

__all__ = ["PollingPosition"]

_EPOCH: Final = datetime(1970, 1, 1)


class PollingPosition:
    """A row's place among the others, or the place behind it. Immutable; threads may share it.

    Parameters
    ----------
    values : tuple of int, Decimal or datetime
        Of the watched columns; empty before the first row. In the mode bulk when the poll began, and how many of its
        rows came before.
    columns : tuple of str
        The watched columns: the one of times first, where there is one. None in the mode bulk.
    behind : bool
        Whether the row itself is past.
    """

    __slots__ = ("behind", "columns", "values")

    def __init__(
        self, values: tuple[Any, ...] = (), columns: tuple[str, ...] = (), *, behind: bool = False
    ) -> None:  # fmt: skip
        self.values, self.columns, self.behind = values, columns, behind

    @classmethod
    def parse(cls, text: str) -> PollingPosition:
        """Read what `str` wrote.

        Raises
        ------
        SettingsError
            The text is no such position.
        """
        bare = text.strip()
        behind = bare.endswith("+")
        try:
            plain = json.loads(bare[:-1] if behind else bare)
            if isinstance(plain, dict):
                return cls(tuple(map(_value, plain.values())), tuple(plain), behind=behind)
            if not isinstance(plain, list):
                raise TypeError
            return cls(tuple(map(_value, plain)), behind=behind)
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            raise SettingsError(f"{text!r} is no position of a polled source.", 'One looks like {"id":17}+.') from error

    def __int__(self) -> int:
        """A number of its own: a single value's, else a digest; for those who can keep only a number."""
        if len(self.values) == 1:
            value = self.values[0]
            if isinstance(value, datetime):
                naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
                return (naive - _EPOCH) // (datetime.resolution)
            if value == int(value) and abs(value) < 1 << 62:
                return int(value)
        return int.from_bytes(hashlib.blake2b(str(self).encode(), digest_size=8).digest()) >> 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PollingPosition) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    @property
    def _all(self) -> tuple[Any, ...]:
        return self.values, self.columns, self.behind

    def __lt__(self, other: PollingPosition) -> bool:
        if not isinstance(other, PollingPosition):
            return NotImplemented
        try:
            # Before the first row is before every row, of whichever columns.
            if self.columns != other.columns and self.values and other.values:
                raise TypeError
            return (self.values, self.behind) < (other.values, other.behind)
        except TypeError:
            raise SettingsError(
                f"{self} and {other} are positions of different sources.", "Compare those of one source alone."
            ) from None

    def __le__(self, other: PollingPosition) -> bool:
        if not isinstance(other, PollingPosition):
            return NotImplemented
        return self == other or self < other

    def __gt__(self, other: PollingPosition) -> bool:
        return other < self

    def __ge__(self, other: PollingPosition) -> bool:
        return other <= self

    def __str__(self) -> str:
        plain = [_plain(value) for value in self.values]
        named = dict(zip(self.columns, plain, strict=True)) if self.columns and plain else plain
        return json.dumps(named, separators=(",", ":")) + "+" * self.behind

    def __repr__(self) -> str:
        return f"PollingPosition('{self}')"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"at": value.isoformat()}
    return {"decimal": str(value)} if isinstance(value, Decimal) else value


def _value(plain: Any) -> Any:
    if type(plain) is int:
        return plain
    if "at" in plain:
        return datetime.fromisoformat(plain["at"])
    return Decimal(plain["decimal"])
