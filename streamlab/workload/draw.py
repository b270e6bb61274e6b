"""Random draws that are the same on every machine and in every version of Python.

Python promises to keep the sequence of `random.Random.random` for a seed, and nothing else of that
module; so every draw here is made of it alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import Generic, TypeVar

__all__ = ["Draw", "Pool", "Zipf"]

T = TypeVar("T")


class Draw:
    """One stream of draws for one seed. Not shared between threads."""

    __slots__ = ("random",)

    def __init__(self, seed: str) -> None:
        self.random = Random(seed).random

    def below(self, bound: int) -> int:
        """An integer from 0 up to, not including, bound."""
        return int(self.random() * bound)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, among: Sequence[T]) -> T:
        """One of the elements."""
        return among[int(self.random() * len(among))]

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random() < probability

    def weighted(self, sums: Sequence[float]) -> int:
        """An index, by the running sums of its weights; an index of weight zero is never drawn."""
        return bisect_right(sums, self.random() * sums[-1])


class Zipf:
    """Ranks by popularity: rank r (from 0) has weight (r + 1)**-skew.

    Source: G. K. Zipf, Human Behavior and the Principle of Least Effort, 1949; drawn by inversion of the
    running sums, which grow as ranks are added.
    """

    def __init__(self, skew: float) -> None:
        self._skew = skew
        self._sums: list[float] = []

    def rank(self, draw: Draw, count: int) -> int:
        """A rank below count."""
        sums = self._sums
        while len(sums) < count:
            # Rounded, because the last bit of a power differs between mathematical libraries.
            weight = round((len(sums) + 1.0) ** -self._skew, 9)
            sums.append((sums[-1] if sums else 0.0) + weight)
        return min(bisect_right(sums, draw.random() * sums[count - 1], 0, count), count - 1)


class Pool(Generic[T]):
    """Elements without repetition: adding, removing and choosing by position all take constant time.

    The last element takes the place of the one that is removed, so the order depends on nothing but the
    sequence of calls.
    """

    def __init__(self) -> None:
        self.items: list[T] = []
        self._at: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item: T) -> bool:
        return item in self._at

    def add(self, item: T) -> None:
        """Put a new element at the end."""
        self._at[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: T) -> None:
        """Take an element out; it must be there."""
        at = self._at.pop(item)
        last = self.items.pop()
        if last != item:
            self.items[at] = last
            self._at[last] = at
