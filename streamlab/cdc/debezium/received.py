"""Messages as librdkafka hands them out, many at once, and the stretches of one partition among them.

What is asked of each message is asked of all at once, without a step of Python's own for each: there are hundreds of
thousands of them in a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from types import NoneType
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
    values, offsets : list
        Of `messages`.
    """

    place: Partition
    messages: list[Any]
    end: int
    values: list[bytes]
    offsets: list[int]

    @property
    def keys(self) -> list[bytes | None]:
        """Of `messages`."""
        return list(map(_M.key, self.messages))

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
    errors = list(map(_M.error, messages))
    topics, numbers = set(map(_M.topic, messages)), set(map(_M.partition, messages))
    if len(topics) == len(numbers) == 1 and set(map(type, errors)) == {NoneType}:
        place = (topics.pop(), numbers.pop())
        if place in owned:
            yield _stretch(place, messages)
        return
    first = 0
    for index, error in enumerate(errors):
        if error is not None:
            yield from _of_records(messages[first:index], owned)
            problem(error, messages[index])
            first = index + 1
    yield from _of_records(messages[first:], owned)


def _of_records(messages: list[Any], owned: Collection[Partition]) -> Iterator[Stretch]:
    for place, run in groupby(messages, key=lambda message: (message.topic(), message.partition())):
        if place in owned:
            yield _stretch(place, list(run))


def _stretch(place: Partition, messages: list[Any]) -> Stretch:
    values, end = list(map(_M.value, messages)), messages[-1].offset() + 1
    if not all(values):
        messages = [message for message, value in zip(messages, values, strict=True) if value]
        values = [value for value in values if value]
    return Stretch(place, messages, end, values, list(map(_M.offset, messages)))
