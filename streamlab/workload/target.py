"""What a shop needs of a server: a `Target` names a place for its tables and opens `Session`s there.

A session is one connection. It says who it is to the server (`identity`), so that another session can
ask later whether it is still served: that is how a COMMIT whose answer was lost is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from streamlab.workload.plan import Operation
from streamlab.workload.tables import Row

__all__ = ["Session", "Target"]


class Session(Protocol):
    """One connection to the shop's schema or database. Used by one thread at a time."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What names this session on its server, and never another one."""
        ...

    def taken(self) -> Mapping[str, str | None]:
        """The shop's table names that exist already, each with its comment."""
        ...

    def is_empty(self) -> bool:
        """Whether the shop's tables hold no row."""
        ...

    def create(self) -> None:
        """Create the tables."""
        ...

    def drop(self) -> None:
        """Drop the tables, with all rows."""
        ...

    def begin(self, operations: Sequence[Operation]) -> None:
        """Carry operations out in a new transaction, which stays open."""
        ...

    def commit(self) -> None:
        """Commit the open transaction."""
        ...

    def rollback(self) -> None:
        """Roll the open transaction back."""
        ...

    def is_alive(self, identity: tuple[Any, ...]) -> bool:
        """Whether the server still serves a session."""
        ...

    def holds(self, operation: Operation) -> bool:
        """Whether the row is as the operation left it."""
        ...

    def rows(self, tables: Iterable[str]) -> dict[str, list[Row]]:
        """All rows of tables, as of one instant, in the order of their keys."""
        ...

    def close(self) -> None:
        """End the session; what is open in it is rolled back."""
        ...


class Target(Protocol):
    """A schema of PostgreSQL or a database of MySQL, the caller's own. Threads may share it."""

    @property
    def name(self) -> str:
        """The schema or database."""
        ...

    def prepare(self) -> None:
        """Create the schema or database where it is missing."""
        ...

    def open(self) -> Session:
        """A new session there.

        Raises
        ------
        StreamlabError
            There is no such schema or database.
        """
        ...
