"""A backlog read by SQL: what a slot holds comes through COPY, in large chunks, before the stream goes on.

A walsender sends each message on its own and wakes the reader for it; `pg_logical_slot_peek_binary_changes` decodes
a whole stretch of the log first and COPY then sends it in full packets. That is the fastest way through a backlog, and
works over an ordinary connection. It looks without taking: only after the caller has acknowledged a chunk is the slot
moved behind it (`pg_replication_slot_advance`), which also is where the next chunk, or the stream, begins. A crash
between the two brings the chunk again, keyed alike: at least once, with no gap.

The query gives rows of COPY's binary format the shape of the walsender's messages: 25 bytes before pgoutput's message.
So the decoders of the stream read them as they are. A chunk ends with a transaction, for the server looks at the limit
between transactions.

Source: PostgreSQL's manual, "Replication Management Functions" and "COPY", "Binary Format".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import psycopg
from psycopg import sql

from streamlab.cdc.copied import copied
from streamlab.cdc.garbage import uncollected
from streamlab.cdc.position import LSN
from streamlab.errors import ChangeStreamError, ProtocolError
from streamlab.failpoints import failpoint
from streamlab.sql import load

__all__ = ["CatchUp", "Decoding"]

log = logging.getLogger(__name__)

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_COLUMNS: Final = b"\0\3\0\0\0\x08"  # three columns, the first of eight bytes
_END: Final = b"\xff\xff"
_START: Final = 25
_ROWS: Final = frozenset(b"IUD")


class Ended(Protocol):
    """What a decoder gives: transactions, or batches of them."""

    @property
    def end_position(self) -> Any:
        """What an acknowledgement of it says."""
        ...


T = TypeVar("T", bound=Ended, covariant=True)


class Decoding(Protocol[T]):
    """What is needed of a decoder of protocol 1: `pgoutput.Decoder` makes transactions, `FrameDecoder` batches."""

    def receive(self, messages: Sequence[bytes | memoryview]) -> Sequence[T]:
        """Take messages; what they complete."""
        ...

    def reset(self) -> None:
        """Forget what is open."""
        ...


class CatchUp(Generic[T]):
    """Reads what a slot holds, up to where the log ended when it began.

    ::

        with CatchUp(connection, "warehouse", ["shop"], FrameDecoder()) as backlog:
            for batch in backlog:
                store(batch)
                backlog.acknowledge(batch)

    Afterwards, or at any time before, a stream on the same slot goes on right behind what was acknowledged. While a
    chunk is read the slot is in use, by this connection. Used by one thread.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode, as a role with REPLICATION. Its settings for dates and intervals are set, for a text stream.
    slot : str
        A logical slot for pgoutput.
    publications : sequence of str
        Whose tables.
    decoder : Decoding
        What makes transactions or frames of the messages.
    rows : int
        Messages of a chunk. The server reads its log from the slot's restart point for each, and keeps a chunk in
        memory or in a temporary file; so many, but not without a bound.
    binary : bool
        Whether values travel in PostgreSQL's binary form, which is fastest for frames.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        publications: Sequence[str],
        decoder: Decoding[T],
        *,
        rows: int = 400_000,
        binary: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._connection, self.slot, self._decoder, self._rows = connection, slot, decoder, rows
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        self._options = {
            "proto_version": "1", "messages": "true", **({"binary": "true"} if binary else {}), **(options or {}),
            "publication_names": names,
        }  # fmt: skip
        self._acknowledged = self._handed_out = self._moved = LSN(0)

    @property
    def acknowledged(self) -> LSN | None:
        """Up to where the effect is durable, by the caller's word."""
        return self._acknowledged or None

    def acknowledge(self, upto: Ended | LSN) -> None:
        """The effect of everything up to here is durable. Monotonic; never beyond what was handed out."""
        end = upto if isinstance(upto, LSN) else LSN(upto.end_position)
        self._acknowledged = max(self._acknowledged, min(end, self._handed_out))

    def __enter__(self) -> CatchUp[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Move the slot to what was acknowledged. The connection stays open. Idempotent."""
        self._decoder.reset()
        if not self._connection.closed and not self._connection.broken:
            self._move()

    def __iter__(self) -> Iterator[T]:
        """What the decoder makes of the backlog, in the order of the log.

        Raises
        ------
        ChangeStreamError
            A chunk was not acknowledged, so the next one cannot be read: it begins where the slot stands.
        """
        self._prepare()
        target, rows = self._written(), self._rows
        while True:
            self._decoder.reset()
            count, before = 0, self._handed_out
            for portion in self._chunk(target, rows):
                count += len(portion)
                with uncollected():
                    made = self._decoder.receive(portion)
                yield from self._handing_out(made)
            flush: Callable[[], Sequence[T]] = getattr(self._decoder, "flush", tuple)
            yield from self._handing_out(flush())
            if self._acknowledged < self._handed_out:
                raise ChangeStreamError(
                    f"The slot {self.slot} cannot go on: {self._handed_out} was handed out, and "
                    f"{self._acknowledged} acknowledged.",
                    "Acknowledge each batch when its effect is durable.",
                )
            if count < rows:
                # Everything up to the target was looked at: what is not ours need not be looked at again.
                self._move(target)
                return
            if self._handed_out == before:
                # Nothing in it for the caller, so nothing that the slot may move behind: look further.
                rows *= 2
            self._move()

    def _handing_out(self, made: Sequence[T]) -> Iterator[T]:
        for each in made:
            self._handed_out = max(self._handed_out, LSN(each.end_position))
            yield each

    # -- SQL --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if not self._connection.autocommit:
            raise ChangeStreamError(
                "A connection that is not in autocommit mode would hold the slot's log back.", "Set autocommit=True."
            )
        self._connection.execute(load("postgres_catch_up")["session"])

    def _written(self) -> LSN:
        row: Any = self._connection.execute(load("postgres_catch_up")["written"]).fetchone()
        return LSN.parse(row[0])

    def _move(self, target: LSN | None = None) -> None:
        upto = max(self._acknowledged, target or LSN(0))
        if upto <= self._moved:
            return
        failpoint("cdc.catch_up.before_advance")
        self._connection.execute(load("postgres_catch_up")["advance"], {"slot": self.slot, "upto": str(upto)})
        failpoint("cdc.catch_up.after_advance")
        self._moved = upto

    def _chunk(self, target: LSN, rows: int) -> Iterator[list[bytes]]:
        """The messages of one chunk, in portions."""
        options = [each for pair in self._options.items() for each in pair]
        query = sql.SQL(load("postgres_catch_up")["peek"]).format(
            slot=sql.Literal(self.slot),
            upto=sql.Literal(str(target)),
            rows=sql.Literal(rows),
            options=sql.Literal(options),
        )
        seen: set[bytes] = set()
        first = True
        for portion in copied(self._connection, query):
            if first and portion:
                portion[0], first = _first(portion[0]), False
            messages = []
            for row in portion:
                # A decoder looks at a message's head when it has not seen its like before.
                if row[_START : _START + 8] not in seen:
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
