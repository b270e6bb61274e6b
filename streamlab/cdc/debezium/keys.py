"""The names of primary keys, by the keys of records: JSON with a schema or without. Without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from operator import methodcaller
from typing import Final

import orjson

from streamlab.cdc.debezium.schema import Heads, split

__all__ = ["Keys"]

_NAMED: Final = b'":'


class Keys:
    """What is known of the keys of topics. Used by one thread."""

    def __init__(self) -> None:
        self._heads: dict[str, Heads[tuple[str, ...]]] = {}
        self._single: dict[str, tuple[bytes, tuple[str, ...]]] = {}

    def names(self, topic: str, key: bytes | None) -> tuple[str, ...]:
        """The names of the primary key's columns, by a record's key."""
        if not key:
            return ()
        known = self._single.get(topic)
        if known is not None and key.startswith(known[0]) and key.count(_NAMED) == 1:
            return known[1]
        heads = self._heads.get(topic) or self._heads.setdefault(topic, Heads())
        head = heads.find(key)
        if head is not None:
            return head.made
        found = split(key)
        if found is None:
            names = orjson.loads(key)
            if isinstance(names, dict) and names.keys() == {"schema", "payload"}:
                names = names["payload"]
            made = tuple(names) if isinstance(names, dict) else ()
            if len(made) == 1 and key.startswith(begin := b"{" + orjson.dumps(made[0]) + b":"):
                # A key of one column, which as good as all are, is recognized by its beginning.
                self._single[topic] = begin, made
            return made
        schema, size = found
        made = tuple(field["field"] for field in schema.get("fields") or ())
        heads.add(key, size, made)
        return made

    def of_all(self, topic: str, keys: Sequence[bytes | None]) -> tuple[str, ...] | None:
        """Those that all of these keys have; None where that is not certain."""
        first = keys[0]
        if not first or not all(keys):
            return None
        names = self.names(topic, first)
        known = self._single.get(topic)
        if known is not None and first.startswith(known[0]):
            # Line by line: as many begin so as there are, and none has another name.
            lines, count = b"\n" + b"\n".join(keys), len(keys)  # type: ignore[arg-type]
            alike = lines.count(b"\n" + known[0]) == lines.count(b"\n") == lines.count(_NAMED) == count
        else:
            heads = self._heads.get(topic)
            head = heads.find(first) if heads is not None else None
            alike = head is not None and all(map(methodcaller("startswith", head.head), keys))
        return names if alike else None
