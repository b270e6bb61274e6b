"""Messages as librdkafka hands them out, many at once, and the stretches of one partition among them.

What is asked of each message is asked of all at once, without a step of Python's own for each: there are hundreds of
thousands of them in a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from confluent_kafka import KafkaError, Message

from streamlab.cdc.debezium.position import Partition

__all__ = ["Stretch", "stretches"]

_M: Any = Message
"""Its methods are typed for messages that are errors, too."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records of one partition, one behind another.

    Attributes
    ----------
    place : Partition
        Which one.
    messages : list of Message
        Those that have a value. Tombstones are left out.
    end : int
        The offset behind the last record, which may be a tombstone.
    values : list of bytes
        Of `messages`.
    """

    place: Partition
    messages: list[Any]
    end: int
    values: list[bytes]

    @property
    def keys(self) -> list[bytes | None]:
        """Of `messages`."""
        return list(map(_M.key, self.messages))

    @property
    def offsets(self) -> list[int]:
        """Of `messages`."""
        return list(map(_M.offset, self.messages))

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(map(len, self.values))


def stretches(
    messages: list[Any], owned: Collection[Partition], problem: Callable[[KafkaError, Any], None]
) -> Iterator[Stretch]:  # fmt: skip
    """Records by partition, in order; nearly always of one alone.

    Parameters
    ----------
    messages : list of Message
        What was consumed.
    owned : collection of Partition
        Records of others are left out: they went to another member.
    problem : callable
        Is given what is no record, in its turn.
    """
    places = list(zip(map(_M.topic, messages), map(_M.partition, messages), strict=True))
    first = 0
    for index, error in enumerate(map(_M.error, messages)):
        if error is not None:
            yield from _of_records(places[first:index], messages[first:index], owned)
            problem(error, messages[index])
            first = index + 1
    yield from _of_records(places[first:], messages[first:], owned)


def _of_records(places: list[Partition], messages: list[Any], owned: Collection[Partition]) -> Iterator[Stretch]:
    if not places:
        return
    if places.count(places[0]) == len(places):
        if places[0] in owned:
            yield _stretch(places[0], messages)
        return
    for place, run in groupby(zip(places, messages, strict=True), key=itemgetter(0)):
        if place in owned:
            yield _stretch(place, [message for _, message in run])


def _stretch(place: Partition, messages: list[Any]) -> Stretch:
    values, end = list(map(_M.value, messages)), messages[-1].offset() + 1
    if not all(values):
        messages = [message for message, value in zip(messages, values, strict=True) if value]
        values = [value for value in values if value]
    return Stretch(place, messages, end, values)
