"""One change of one row, whichever database and whichever way it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

__all__ = ["ChangeEvent", "Operation"]


class Operation(StrEnum):
    """What happened to the row."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    TRUNCATE = "TRUNCATE"
    SNAPSHOT = "SNAPSHOT"
    """The row was there before the stream began."""


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """A change as the log recorded it. Immutable; threads may share it.

    `(position, ordinal)` is its key: the place of its transaction in the source's log, and its number
    within that transaction. A change's own log position is no key: several changes may share one.

    Parameters
    ----------
    operation : Operation
        What happened.
    schema, table_name : str
        Where; for MySQL `schema` is the database.
    old_data, new_data : mapping
        Column -> value before and after. `old_data` holds what the source records of it, often only the key
        or nothing; `new_data` is empty for a DELETE.
    commit_timestamp : datetime
        When the transaction was committed, aware, in UTC.
    transaction_id : str
        The source's own name of the transaction; empty where it gives none.
    position : str
        For PostgreSQL the LSN of the commit (``0/16B3748``), for MySQL binary log file and offset.
    ordinal : int
        From 0, within the transaction.
    """

    operation: Operation
    schema: str
    table_name: str
    old_data: Mapping[str, Any]
    new_data: Mapping[str, Any]
    commit_timestamp: datetime
    transaction_id: str
    position: str
    ordinal: int

    def _repr_html_(self) -> str:
        from html import escape

        data = self.new_data or self.old_data
        cells = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in data.items())
        head = f"{self.operation} {self.schema}.{self.table_name} at {self.position} #{self.ordinal}"
        return f"<table><caption><b>{escape(head)}</b></caption>{cells}</table>"
