"""The schema that Kafka Connect writes into each JSON record, found without parsing it each time.

A value is ``{"schema":{...},"payload":{...}}``, and of one table all begin with the same bytes, up to where the payload
begins. So a beginning is parsed once, and recognized by comparing bytes from then on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

__all__ = ["Field", "Head", "Heads", "Reader", "split"]

Field = Mapping[str, Any]
"""A schema of Connect, as JSON writes it: ``type``, ``name``, ``parameters``, ``fields``, ``items``."""
Reader = Callable[[Any], Any]
"""What makes of a value of JSON the one that is meant."""

T = TypeVar("T")

_BEGIN: Final = b'{"schema":'
_BETWEEN: Final = ',"payload":'
_CACHED: Final = 64
"""Beginnings that are kept for a topic: a table that is altered adds one."""
_DECODE: Final = json.JSONDecoder().raw_decode


def split(value: bytes) -> tuple[Field, int] | None:
    """The schema of a record, and where its payload begins; None where there is none in it.

    Raises
    ------
    ValueError
        It is no JSON.
    """
    if not value.startswith(_BEGIN):
        return None
    text = value.decode()
    schema, end = _DECODE(text, len(_BEGIN))
    if not isinstance(schema, dict) or "type" not in schema or not text.startswith(_BETWEEN, end):
        return None
    return schema, len(text[:end].encode()) + len(_BETWEEN)


@dataclass(frozen=True, slots=True)
class Head(Generic[T]):
    """A beginning that is known: its bytes, their number, and what was made of the schema in them."""

    head: bytes
    size: int
    made: T


class Heads(Generic[T]):
    """The beginnings of the records of one topic; the one that was seen last is tried first."""

    def __init__(self) -> None:
        self._known: list[Head[T]] = []

    def find(self, value: bytes) -> Head[T] | None:
        """The beginning of a value, if it is known."""
        known = self._known
        for index, each in enumerate(known):
            if value.startswith(each.head):
                if index:
                    known.insert(0, known.pop(index))
                return each
        return None

    def add(self, value: bytes, size: int, made: Any) -> Head[T]:
        """Keep one."""
        head = Head(value[:size], size, made)
        self._known.insert(0, head)
        del self._known[_CACHED:]
        return head
