"""One change of one row, whichever database and whichever way it came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum, StrEnum
from html import escape
from typing import Any, Final, Literal, NamedTuple

from streamlab.cdc.position import LSN, Position

__all__ = ["NOTHING", "UNCHANGED", "ChangeEvent", "Operation", "Unchanged"]


class Operation(StrEnum):
    """What happened."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    TRUNCATE = "TRUNCATE"
    MESSAGE = "MESSAGE"
    """No row: a logical message that a program wrote into the log (`pg_logical_emit_message`)."""
    SNAPSHOT = "SNAPSHOT"
    """The row was there before the stream began."""


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"

    def __bool__(self) -> bool:
        return False


UNCHANGED: Final[Literal[Unchanged.UNCHANGED]] = Unchanged.UNCHANGED
"""Stands for a large value that did not change, which the log therefore does not repeat. It is not NULL: keep what you
have."""


class _Nothing(Mapping[str, Any]):
    """An empty mapping that stays one, in another process too."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING: Final[Mapping[str, Any]] = _Nothing()
"""`old_data` or `new_data` where the log holds nothing; equal to ``{}``."""


class ChangeEvent(NamedTuple):
    """A change as the log recorded it. Immutable; threads may share it.

    `(position, ordinal)` is its key, for every source: the place of its transaction in the source's log, and its number
    within that transaction. A change's own log position is no key: several changes may share one.

    It is a named tuple, not a dataclass: a frozen dataclass takes five times as long to make, and a reader
    makes hundreds of thousands in a second.

    Attributes
    ----------
    operation : Operation
        What happened.
    schema, table_name : str
        Where; for MySQL `schema` is the database. Empty for a MESSAGE.
    old_data, new_data : mapping of str to value
        Column -> value before and after. `old_data` holds what the source records of the old row, often only the key,
        or nothing; `new_data` is empty for a DELETE or a TRUNCATE. A value may be `UNCHANGED`. For a MESSAGE `new_data`
        is ``{"prefix": str, "content": bytes, "transactional": bool}``.
    commit_timestamp : datetime
        When the transaction was committed, aware, in UTC.
    transaction_id : str
        The source's own name of the transaction; empty where it gives none.
    position : Position
        Of the transaction: for PostgreSQL the LSN of its commit, for MySQL the place of its beginning.
    ordinal : int
        From 0, within the transaction.
    primary_key : tuple of str
        The columns of the replica identity or primary key, in the table's order; empty where the source tells none.
    """

    operation: Operation
    schema: str
    table_name: str
    old_data: Mapping[str, Any]
    new_data: Mapping[str, Any]
    commit_timestamp: datetime
    transaction_id: str
    position: Position
    ordinal: int
    primary_key: tuple[str, ...] = ()

    @property
    def lsn(self) -> LSN:
        """The commit LSN of a change from PostgreSQL.

        Raises
        ------
        AttributeError
            The change is from another source: use `position`.
        """
        if not isinstance(self.position, LSN):
            raise AttributeError(f"This change has no LSN: its position is {self.position}.")  # noqa: TRY004
        return self.position

    @property
    def key(self) -> tuple[Any, ...]:
        """The values of the primary key, of the row as it is now; of the old row for a DELETE."""
        data = self.new_data or self.old_data
        return tuple(data.get(name) for name in self.primary_key)

    def _repr_html_(self) -> str:
        data = self.new_data or self.old_data
        cells = "".join(
            f"<tr><th>{escape(str(name))}</th><td>{escape(_shown(value))}</td></tr>" for name, value in data.items()
        )
        where = f"{self.schema}.{self.table_name}" if self.table_name else "a message"
        head = f"{self.operation} {where} at {self.position} #{self.ordinal}"
        return f"<table><caption><b>{escape(head)}</b></caption>{cells}</table>"


def _shown(value: Any) -> str:
    text = "unchanged" if value is UNCHANGED else "null" if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "\u2026"
