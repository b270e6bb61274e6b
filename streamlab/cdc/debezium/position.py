"""Positions in Kafka: offsets in partitions of topics.

An offset is a place in one partition, and partitions have no order among each other. So a position names as many as it
says something of: that of a record one, that of a source transaction those in which its records lie, that of a reader
all that it reads. As an end it says, as Kafka's own committed offsets do, which record comes next.

Text: ``shop.shop.orders/0:17 shop.transaction/0:4``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from streamlab.errors import SettingsError

__all__ = ["KafkaPosition", "Partition"]

Partition = tuple[str, int]
"""Topic and number."""

_PART = re.compile(r"([a-zA-Z0-9._-]{1,249})/(\d+):(\d+)")


class KafkaPosition(tuple[tuple[str, int, int], ...]):
    """Offsets in one partition or more, as ``(topic, partition, offset)``. Immutable; threads may share it.

    One is less than another if it is so where both have an offset. Positions that share no partition are in order of
    their names: nothing follows from that, but a list of them can be sorted.
    """

    __slots__ = ()

    @classmethod
    def of(cls, offsets: Mapping[Partition, int]) -> KafkaPosition:
        """From a mapping of partition to offset."""
        return cls(sorted((topic, number, offset) for (topic, number), offset in offsets.items()))

    @classmethod
    def at(cls, topic: str, partition: int, offset: int) -> KafkaPosition:
        """A place in one partition."""
        return cls(((topic, partition, offset),))

    @classmethod
    def parse(cls, text: str) -> KafkaPosition:
        """Read what `str` wrote.

        Raises
        ------
        SettingsError
            The text is no such position.
        """
        offsets = {}
        for part in text.split():
            match = _PART.fullmatch(part)
            if match is None:
                raise SettingsError(
                    f"{text!r} is no position in Kafka.", "One looks like shop.shop.orders/0:17, with spaces between."
                )
            offsets[match[1], int(match[2])] = int(match[3])
        return cls.of(offsets)

    @property
    def offsets(self) -> dict[Partition, int]:
        """Partition -> offset."""
        return {(topic, number): offset for topic, number, offset in self}

    @property
    def topic(self) -> str:
        """The topic, where there is one alone; else empty."""
        names = {each[0] for each in self}
        return names.pop() if len(names) == 1 else ""

    @property
    def partition(self) -> int:
        """The number of the partition, where there is one alone; else 0."""
        return self[0][1] if len(self) == 1 else 0

    @property
    def offset(self) -> int:
        """The offset, where there is one partition alone.

        Raises
        ------
        AttributeError
            There are several.
        """
        if len(self) != 1:
            raise AttributeError(f"{self} has no single offset.")
        return self[0][2]

    def join(self, others: Iterable[KafkaPosition]) -> KafkaPosition:
        """The farthest offset of each partition."""
        offsets = self.offsets
        for each in others:
            for topic, number, offset in each:
                if offsets.get((topic, number), -1) < offset:
                    offsets[topic, number] = offset
        return KafkaPosition.of(offsets)

    def _compare(self, other: tuple[Any, ...]) -> tuple[bool, bool]:
        """Whether it is less somewhere, and greater somewhere, of what both have; by names, if that is nothing."""
        if len(self) == len(other) == 1 and self[0][:2] == other[0][:2]:
            return self[0][2] < other[0][2], self[0][2] > other[0][2]
        theirs = {each[:2]: each[2] for each in other}
        pairs = [(offset, theirs[topic, number]) for topic, number, offset in self if (topic, number) in theirs]
        if not pairs:
            return tuple.__lt__(self, other), tuple.__gt__(self, other)
        return any(mine < yours for mine, yours in pairs), any(mine > yours for mine, yours in pairs)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, KafkaPosition):
            return NotImplemented
        less, greater = self._compare(other)
        return less and not greater

    def __le__(self, other: object) -> bool:
        if not isinstance(other, KafkaPosition):
            return NotImplemented
        return not self._compare(other)[1]

    def __gt__(self, other: object) -> bool:
        if not isinstance(other, KafkaPosition):
            return NotImplemented
        return other < self

    def __ge__(self, other: object) -> bool:
        if not isinstance(other, KafkaPosition):
            return NotImplemented
        return other <= self

    def __int__(self) -> int:
        """The offset, where there is one partition alone; else the sum of all. For the order of dead letters."""
        return sum(each[2] for each in self)

    def __str__(self) -> str:
        return " ".join(f"{topic}/{number}:{offset}" for topic, number, offset in self)

    def __repr__(self) -> str:
        return f"KafkaPosition('{self}')"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def _repr_html_(self) -> str:
        return f"<code>{escape(str(self))}</code>"

    def __reduce__(self) -> tuple[Any, ...]:
        return KafkaPosition, (tuple(self),)
