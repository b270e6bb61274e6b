"""What one commit did: its changes, in order, and where in the log it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from itertools import islice
from typing import Protocol

from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.position import Position

__all__ = ["Changes", "Transaction"]


class Changes(Protocol):
    """The changes of one transaction; a tuple, or what was spilled to disk and is read when it is iterated."""

    def __iter__(self) -> Iterator[ChangeEvent]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Transaction:
    """The changes of one commit, in the order in which they were made. Iterate it, as often as you like.

    A large transaction may lie on disk until the reader goes on to the next one; keep its events, not the transaction.
    Threads may share one that is held in memory.

    Attributes
    ----------
    position : Position
        Its place in the log: for PostgreSQL the LSN of the commit, for MySQL a `BinlogPosition` at its beginning.
    end_position : Position
        What an acknowledgement of it says: for PostgreSQL the end of the commit record. Acknowledging `position` would
        bring the transaction again.
    transaction_id : str
        The source's own name of it.
    commit_timestamp : datetime
        When it was committed, aware, in UTC.
    changes : sequence of ChangeEvent
        Its changes.
    origin : str
        Where the transaction came from, if it was replicated itself; else empty.
    gid : str
        Its global identifier, if it was committed in two phases; else empty.
    """

    position: Position
    end_position: Position
    transaction_id: str
    commit_timestamp: datetime
    changes: Changes | Sequence[ChangeEvent] = field(repr=False)
    origin: str = ""
    gid: str = ""

    def __iter__(self) -> Iterator[ChangeEvent]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def close(self) -> None:
        """Give back the room of a large transaction, which cannot be iterated afterwards. Idempotent.

        Whoever hands out transactions calls it when the reader goes on. It does nothing to one that is held in memory.
        """
        close = getattr(self.changes, "close", None)
        if close is not None:
            close()

    def __bool__(self) -> bool:
        """True also for a transaction without changes."""
        return True

    def _repr_html_(self) -> str:
        head = f"Transaction {self.transaction_id} at {self.position}, {self.commit_timestamp:%Y-%m-%d %H:%M:%S.%f} UTC"
        rows = "".join(
            f"<tr><td>{each.ordinal}</td><td>{each.operation}</td><td>{escape(each.schema)}.{escape(each.table_name)}</td>"
            f"<td>{escape(', '.join(map(str, each.key)))}</td></tr>"
            for each in islice(self, 10)
        )
        more = f"<tr><td colspan=4>\u2026 and {len(self) - 10} more</td></tr>" if len(self) > 10 else ""
        heads = "".join(f"<th>{name}</th>" for name in ("#", "operation", "table", "key"))
        return f"<table><caption><b>{escape(head)}</b></caption><tr>{heads}</tr>{rows}{more}</table>"
