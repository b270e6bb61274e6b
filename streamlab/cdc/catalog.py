"""What the decoder cannot learn from the stream: types that users made, and primary keys, from the server's catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import psycopg

from streamlab.cdc.refusals import refused
from streamlab.cdc.values import TypeMap
from streamlab.errors import ChangeStreamError
from streamlab.sql import load

__all__ = ["CatalogTypes"]

log = logging.getLogger(__name__)


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
        self._unanswered: frozenset[int] = frozenset()
        """Types that the stream has named when nobody could be asked; the next connection begins with them."""
        self._answered: frozenset[int] = frozenset()

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
        if wanted := self.types.met | self._unanswered:
            self.types.load(self._ask(connection, wanted))
        self._answered, self._unanswered = self._unanswered, frozenset()

    def _resolve(self, oids: Iterable[int]) -> Iterable[tuple[Any, ...]]:
        """The definitions of types that the stream has named just now. What the catalog does not have is left out.

        Raises
        ------
        ChangeStreamError
            Nobody could be asked: a `StreamLost`, unless the server would not answer the next time either.
        """
        wanted = frozenset(oids)
        if wanted <= self._answered:
            # By `look` a moment ago. Asking once more could fail once more, and nothing would ever be read.
            self._answered = frozenset()
            return []
        try:
            with closing(self._connect()) as connection:
                return self._ask(connection, wanted)
        except psycopg.Error as error:
            self._unanswered |= wanted
            raise refused(error, "A question about types") from error
        except ChangeStreamError:
            self._unanswered |= wanted
            raise

    def _ask(self, connection: psycopg.Connection[Any], oids: Iterable[int]) -> list[tuple[Any, ...]]:
        found = connection.execute(load("postgres_cdc")["types"], [list(oids)]).fetchall()
        new = [row for row in found if self.resolved.get(row[0]) != row]
        self.resolved.update((row[0], row) for row in new)
        if new and self.tell is not None:
            self.tell(new)
        return found
