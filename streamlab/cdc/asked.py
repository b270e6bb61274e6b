"""Which of the transactions that hold no row are handed out: those whose logical messages were asked for.

A logical message (`pg_logical_emit_message`) belongs to no table and no publication: the server sends those of every
program to every reader of its database. Left alone, each is a transaction for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from streamlab.cdc import arguments
from streamlab.cdc.decoding import has_changes
from streamlab.cdc.event import Operation

__all__ = ["AskedFor"]


class AskedFor:
    """Whether something is handed out.

    Parameters
    ----------
    messages : bool or collection of str
        Whether transactions are that hold nothing but logical messages; or the prefixes of those that are.
    also : callable
        A prefix that is asked for now, if there is one.
    """

    def __init__(self, messages: bool | Collection[str], also: Callable[[], str | None]) -> None:
        if not isinstance(messages, bool):
            arguments.names("messages", messages)
        self._all = messages is True
        self._prefixes = frozenset[str]() if isinstance(messages, bool) else frozenset(messages)
        self._also = also

    def __call__(self, item: Any) -> bool:
        """Of a transaction, or of a batch of frames."""
        if not has_changes(item):
            return False
        if self._all:
            return True
        prefixes = _frames(item) if hasattr(item, "frames") else _events(item.changes)
        return prefixes is None or not prefixes.isdisjoint(self._prefixes | {self._also()})


def _events(changes: Any) -> set[str] | None:
    """The prefixes of changes that are all messages; None for others, which most often the first one tells."""
    found = set()
    for event in changes:
        if event[0] is not Operation.MESSAGE:
            return None
        found.add(event.new_data["prefix"])
    return found


def _frames(batch: Any) -> set[str] | None:
    if any(frame.table_name for frame in batch.frames):
        return None
    return {prefix for frame in batch.frames for prefix in frame.data["prefix"].to_list()}
