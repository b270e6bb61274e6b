"""What the decoder cannot learn from the stream: types that users made, and primary keys, from the server's catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, Final, TypeVar

import psycopg

from streamlab.cdc.refusals import refused
from streamlab.cdc.values import TypeMap
from streamlab.errors import ChangeStreamError
from streamlab.sql import load

__all__ = ["CatalogTypes"]

log = logging.getLogger(__name__)

_TYPES: Final = "types"
_KEYS: Final = "primary keys"

_Answer = TypeVar("_Answer")


class CatalogTypes:
    """The types and keys of one database, asked for when a stream is opened, and when it describes a table.

    Parameters
    ----------
    connect : callable
        Makes an ordinary connection.

    Attributes
    ----------
    types : TypeMap
        For the decoder.
    primary_keys : dict of int to tuple of str
        OID of a table -> its primary key.
    sends_binary : bool
        Whether values come in binary form: that was asked for, and the server can.
    resolved : dict of int to tuple
        OID -> the last definition, of types that were asked for.
    tell : callable, optional
        Called with those that are new, or not what they were.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connect = connect
        self.resolved: dict[int, tuple[Any, ...]] = {}
        self.tell: Callable[[list[tuple[Any, ...]]], None] | None = None
        self.types = TypeMap(self._resolve)
        self.primary_keys: dict[int, tuple[str, ...]] = {}
        self.sends_binary = False
        self._missed: dict[str, frozenset[int]] = {}
        """Of what the stream has named when nobody could be asked; the next connection begins with it."""
        self._answered: dict[str, frozenset[int]] = {}

    def look(self, connection: psycopg.Connection[Any], publication: str, *, binary: bool) -> None:
        """Ask for everything that a publication's tables need."""
        blocks = load("postgres_capture")
        found = connection.execute(blocks["no_binary_form"], [publication]).fetchall() if binary else []
        if found:
            names = ", ".join(name for (name,) in found)
            log.warning("%s: read as text, since the server cannot send these in binary form: %s", publication, names)
        self.sends_binary = binary and not found
        rows = connection.execute(blocks["primary_keys"], [publication]).fetchall()
        self.primary_keys.update({oid: tuple(names) for oid, names in rows})
        # While there was no connection, or nobody answered, any of them may have been altered.
        if wanted := self.types.met | self._missed.get(_TYPES, frozenset()):
            self.types.load(self._ask(connection, wanted))
        for oid in self._missed.get(_KEYS, ()):
            self._ask_key(connection, oid)
        if self._missed:
            self._answered = {_TYPES: wanted, _KEYS: self._missed.get(_KEYS, frozenset()) | self.primary_keys.keys()}
            self._missed = {}

    def ask_key(self, oid: int) -> None:
        """Bring the primary key of a table up to date that the stream has described just now; raises as for types."""
        self._beside(_KEYS, frozenset([oid]), lambda connection: self._ask_key(connection, oid))

    def _resolve(self, oids: Iterable[int]) -> Iterable[tuple[Any, ...]]:
        """The definitions of types that the stream has named just now. What the catalog does not have is left out.

        Raises
        ------
        ChangeStreamError
            Nobody could be asked: a `StreamLost`, unless the server would not answer the next time either.
        """
        wanted = frozenset(oids)
        return self._beside(_TYPES, wanted, lambda connection: self._ask(connection, wanted)) or []

    def _beside(
        self, what: str, oids: frozenset[int], ask: Callable[[psycopg.Connection[Any]], _Answer]
    ) -> _Answer | None:
        """Ask by a connection of its own, beside the stream; None where `look` has asked a moment ago."""
        if oids <= self._answered.get(what, frozenset()):
            # Asking once more could fail once more, and nothing would ever be read.
            self._answered[what] -= oids
            return None
        try:
            with closing(self._connect()) as connection:
                return ask(connection)
        except (ChangeStreamError, psycopg.Error) as error:
            self._missed[what] = self._missed.get(what, frozenset()) | oids
            if isinstance(error, psycopg.Error):
                raise refused(error, f"A question about {what}") from error
            raise

    def _ask_key(self, connection: psycopg.Connection[Any], oid: int) -> None:
        found = connection.execute(load("postgres_capture")["primary_key"], [oid]).fetchone()
        if found is None:
            return  # the table is gone; what was known of it holds for what is left of it in the log
        if names := tuple(found[0]):
            self.primary_keys[oid] = names
        else:
            self.primary_keys.pop(oid, None)

    def _ask(self, connection: psycopg.Connection[Any], oids: Iterable[int]) -> list[tuple[Any, ...]]:
        found = connection.execute(load("postgres_cdc")["types"], [list(oids)]).fetchall()
        new = [row for row in found if self.resolved.get(row[0]) != row]
        self.resolved.update((row[0], row) for row in new)
        if new and self.tell is not None:
            self.tell(new)
        return found
