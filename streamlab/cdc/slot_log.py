"""What a logical slot holds, asked for by SQL: a chunk of messages through COPY, and moving the slot behind it.

The query gives rows of COPY's binary format the shape of the walsender's messages: 25 bytes before pgoutput's message.
So the decoders of the stream read them as they are. A chunk ends with a transaction, for the server looks at the limit
between transactions.

Source: PostgreSQL's manual, "Replication Management Functions" and "COPY", "Binary Format".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from streamlab.cdc.copied import copied
from streamlab.cdc.position import LSN
from streamlab.errors import ChangeStreamError, ProtocolError
from streamlab.failpoints import failpoint
from streamlab.sql import load

__all__ = ["SlotLog"]

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_COLUMNS: Final = b"\0\3\0\0\0\x08"  # three columns, the first of eight bytes
_END: Final = b"\xff\xff"
_START: Final = 25
_ROWS: Final = frozenset(b"IUD")


class SlotLog:
    """The log that a slot holds. Used by one thread.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode, as a role with REPLICATION. Its settings for dates and intervals are set, for a text stream.
    slot : str
        A logical slot for pgoutput.
    publications : sequence of str
        Whose tables.
    binary : bool
        Whether values travel in PostgreSQL's binary form.
    options : mapping of str to str, optional
        Of pgoutput, beside these.
    heads : bool
        Whether each message has the walsender's head in full. Otherwise rows have it only where a decoder looks at it.
    moved : LSN, optional
        Where the slot stands.
    stopping : threading.Event, optional
        Ends a chunk early, with `streamlab.cdc.copied.Abandoned`.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        publications: Sequence[str],
        *,
        binary: bool,
        options: Mapping[str, str] | None = None,
        heads: bool = False,
        moved: LSN | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        if not connection.autocommit:
            raise ChangeStreamError(
                "A connection that is not in autocommit mode would hold the slot's log back.", "Set autocommit=True."
            )
        self.connection, self.slot = connection, slot
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        self._options = {
            "proto_version": "1", "messages": "true", **({"binary": "true"} if binary else {}), **(options or {}),
            "publication_names": names,
        }  # fmt: skip
        self._heads, self._stopping = heads, stopping
        self._moved = moved or LSN(0)

    def prepare(self) -> LSN:
        """Set up the connection; where the log ends now."""
        self.connection.execute(load("postgres_catch_up")["session"])
        row: Any = self.connection.execute(load("postgres_catch_up")["written"]).fetchone()
        return LSN.parse(row[0])

    def move(self, upto: LSN) -> None:
        """Move the slot behind what was acknowledged."""
        if upto <= self._moved:
            return
        failpoint("cdc.catch_up.before_advance")
        self.connection.execute(load("postgres_catch_up")["advance"], {"slot": self.slot, "upto": str(upto)})
        failpoint("cdc.catch_up.after_advance")
        self._moved = upto

    def chunk(self, target: LSN, rows: int) -> Iterator[list[bytes]]:
        """The messages of one chunk, in portions, from where the slot stands."""
        options = [each for pair in self._options.items() for each in pair]
        query = sql.SQL(load("postgres_catch_up")["peek"]).format(
            slot=sql.Literal(self.slot),
            upto=sql.Literal(str(target)),
            rows=sql.Literal(rows),
            options=sql.Literal(options),
        )
        seen: set[bytes] = set()
        first, heads = True, self._heads
        for portion in copied(self.connection, query, stopping=self._stopping):
            if first and portion:
                portion[0], first = _first(portion[0]), False
            messages = []
            for row in portion:
                # A decoder looks at a message's head when it has not seen its like before.
                if heads or row[_START : _START + 8] not in seen:
                    if len(row) <= _START:
                        if row not in {b"", _END}:
                            raise ProtocolError("A row of COPY is cut short.", "Is this a PostgreSQL server?")
                        continue
                    if row[_START] in _ROWS:
                        seen.add(row[_START : _START + 8])
                    else:
                        seen.clear()
                    row = _message(row)
                messages.append(row)
            yield messages


def _first(row: bytes) -> bytes:
    """The file's head comes with the first row: a signature, flags, and the length of an extension."""
    if not row.startswith(_SIGNATURE) or len(row) < 19:
        raise ProtocolError("This is no COPY in binary format.", "Is this a PostgreSQL server?")
    return row[19 + int.from_bytes(row[15:19], "big") :]


def _message(row: bytes) -> bytes:
    """A message that is no row, with the walsender's head in full: its place in the log twice, and no time."""
    if not row.startswith(_COLUMNS):
        raise ProtocolError("A row of COPY has another shape than was asked for.", "Is this a PostgreSQL server?")
    return b"w" + row[6:14] * 2 + bytes(8) + row[_START:]
