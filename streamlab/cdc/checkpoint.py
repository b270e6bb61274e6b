"""How far a consumer has come, kept in the sink's own transaction: what makes at-least-once delivery take effect once.

A source delivers at least once: after a crash it repeats what was not acknowledged. If the position is stored in the
transaction that stores the effect, both are there or neither is, and a restarted consumer skips what it finds applied::

    held = Checkpoint("orders").acquire(connection)
    for transaction in held.unseen(source.transactions()):
        with connection.transaction():
            held.move(connection, transaction.end_position)
            apply(connection, transaction)
        source.acknowledge(transaction)

Two consumers of one checkpoint would both apply what comes next. So each acquisition draws a new *epoch*, and a move is
a compare-and-set on the epoch and the last position: a former holder that does not know yet that it was replaced (a
zombie: it was stopped, or cut off, and wakes up) finds no row to move. It raises before its transaction commits.

Who waits for whom
------------------
A move locks the checkpoint's row until its transaction ends; a reader (`Checkpoint.read`) waits for nobody.

- A zombie that has **not moved yet** in its open transaction does not hold up a new holder. Its move raises `Fenced`.
- A zombie that **has moved** in its open transaction is still the rightful holder of that one: `acquire` waits until it
  ends, and finds the new position if it was committed, the old one if not. It waits for `wait` seconds at most and then
  raises `CheckpointBusy`, which names the process: a connection that hangs in a transaction has to be ended (or
  ends by the server's ``idle_in_transaction_session_timeout``).
- A holder whose move comes **while another acquires** waits for that one statement's transaction, and is fenced.

Move first in the transaction and a zombie fails before it has worked; move last and the row is locked for a moment
only. Both are right. Under REPEATABLE READ and SERIALIZABLE the server itself refuses a move whose row was changed
after the transaction's snapshot, with psycopg's `SerializationFailure`: repeat the transaction, and the repetition
says why.

The pattern is that of fencing tokens (Kleppmann, *How to do distributed locking*, 2016) with the guarded resource
and the token in one database, where no clock and no lease is needed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar, cast, overload

import psycopg
from psycopg import pq, sql

from streamlab.cdc import arguments
from streamlab.cdc.position import LSN, Position
from streamlab.errors import CheckpointBehind, CheckpointBusy, CheckpointError, Fenced, SettingsError
from streamlab.failpoints import failpoint
from streamlab.sql import load

__all__ = ["Checkpoint", "CheckpointState", "Held", "create_table"]

P = TypeVar("P", bound=Position)


class _Ends(Protocol):
    @property
    def end_position(self) -> Any: ...


E = TypeVar("E", bound=_Ends)


@dataclass(frozen=True, slots=True)
class CheckpointState(Generic[P]):
    """What the table holds. `position` is None where nothing was moved yet.

    Attributes
    ----------
    name : str
        The checkpoint's.
    epoch : int
        Of the last acquisition.
    position : Position or None
        Everything up to here is applied.
    holder : str
        Who acquired it last.
    acquired_at, moved_at : datetime
        When, aware, in UTC; `moved_at` is None where it was never moved.
    """

    name: str
    epoch: int
    position: P | None
    holder: str
    acquired_at: datetime
    moved_at: datetime | None


def create_table(connection: psycopg.Connection[Any], schema: str | None = None) -> None:
    """Make the table ``checkpoints`` where it is missing. Any number of processes may do so at once."""
    if schema is not None:
        arguments.name_of("a schema", schema)
    with connection.transaction():
        connection.execute(_sql("create_table", schema))


def _sql(block: str, schema: str | None) -> sql.Composed:
    name = sql.Identifier(schema, "checkpoints") if schema else sql.Identifier("checkpoints")
    return sql.SQL(load("checkpoint")[block]).format(table=name)


class Checkpoint(Generic[P]):
    """A named position with an epoch. Immutable; threads may share it.

    Parameters
    ----------
    name : str
        One for each independent sequence of positions: of a source with partitions, each partition has its own
        (``orders/3``).
    schema : str, optional
        Where the table lies; by default it is looked up as PostgreSQL looks up any name (search_path).
    parse : callable
        Reads the text of a position back: by default `LSN.parse`; for offsets of Kafka `int`, for others their own.
        Positions of one checkpoint are of one type and one meaning: the *end* of what was applied.
    """

    @overload
    def __init__(self: Checkpoint[LSN], name: str, *, schema: str | None = None) -> None: ...
    @overload
    def __init__(self, name: str, *, schema: str | None = None, parse: Callable[[str], P]) -> None: ...

    def __init__(self, name: str, *, schema: str | None = None, parse: Callable[[str], P] | None = None) -> None:
        arguments.name_of("a checkpoint", name)
        if schema is not None:
            arguments.name_of("a schema", schema)
        self.name = name
        self.schema = schema
        self._parse = parse or cast("Callable[[str], P]", LSN.parse)

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r})"

    def create_table(self, connection: psycopg.Connection[Any]) -> None:
        """Make the table where it is missing; see `create_table`."""
        create_table(connection, self.schema)

    def position(self, text: str | None) -> P | None:
        """A stored position as a value."""
        return None if text is None else self._parse(text)

    def read(self, connection: psycopg.Connection[Any]) -> CheckpointState[P] | None:
        """How far the checkpoint is; None where nobody has acquired it yet. Waits for nobody.

        Raises
        ------
        CheckpointError
            There is no table; here and wherever it is needed.
        """
        row = self._row(connection, "read", {"name": self.name})
        if row is None:
            return None
        name, epoch, text, holder, acquired, moved = row
        return CheckpointState(
            name, epoch, self.position(text), holder, acquired.astimezone(UTC), moved and moved.astimezone(UTC)
        )

    def _row(self, connection: psycopg.Connection[Any], block: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
        """What a statement gives. A row, not rowcount: in pipeline mode only a fetch waits for the answer."""
        try:
            cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
            return cursor.execute(_sql(block, self.schema), values).fetchone()
        except psycopg.errors.UndefinedTable as error:
            raise CheckpointError(
                f"There is no table {f'{self.schema}.' if self.schema else ''}checkpoints to hold {self.name}.",
                "Make it first: Checkpoint.create_table(connection). If it is there, say where: schema=.",
            ) from error

    def acquire(self, connection: psycopg.Connection[Any], *, holder: str | None = None, wait: float = 10.0) -> Held[P]:
        """Become the holder, in a transaction of its own; whoever held it before is fenced from now on.

        Parameters
        ----------
        connection : psycopg.Connection
            Outside of a transaction: the new epoch has to be committed before work begins.
        holder : str, optional
            Who this is, for the message that the former holder gets; by default host and process number.
        wait : float
            Seconds to wait at most for a transaction of the former holder that has moved the checkpoint.

        Raises
        ------
        CheckpointBusy
            The former holder's transaction did not end in that time.
        CheckpointError
            The connection is in a transaction.
        """
        arguments.seconds("wait", wait)
        arguments.instance("holder", holder, str, "a text that tells who this is")
        if connection.info.transaction_status != pq.TransactionStatus.IDLE:
            raise CheckpointError(
                f"The checkpoint {self.name} cannot be acquired inside of a transaction.",
                "Acquire it first: the new epoch has to be committed before work begins.",
            )
        me = holder or f"{socket.gethostname()}:{os.getpid()}"
        try:
            with connection.transaction():
                connection.execute(load("checkpoint")["bounded"], {"milliseconds": str(max(1, round(wait * 1000)))})
                row = self._row(connection, "acquire", {"name": self.name, "holder": me})
        except psycopg.errors.LockNotAvailable as error:
            with connection.transaction():
                now = self.read(connection)
            raise CheckpointBusy(
                f"{now.holder if now else 'The holder'} has moved the checkpoint {self.name} in a transaction that is "
                f"still open after {wait:g} s.",
                "Wait for it and acquire again; if it hangs, end its connection with pg_terminate_backend "
                "(pg_stat_activity shows it, in a transaction).",
            ) from error
        assert row is not None  # noqa: S101 - an upsert returns its row
        failpoint("cdc.checkpoint_acquired")
        return Held(self, epoch=row[0], position=self.position(row[1]), holder=me)


class Held(Generic[P]):
    """A checkpoint that this consumer has acquired. Threads may share it, each with a connection of its own.

    Attributes
    ----------
    epoch : int
        Larger than that of every holder before.
    position : Position or None
        Where the checkpoint was at the acquisition: go on after it. None: at the beginning.
    """

    def __init__(self, checkpoint: Checkpoint[P], *, epoch: int, position: P | None, holder: str) -> None:
        self.checkpoint = checkpoint
        self.epoch = epoch
        self.position = position
        self.holder = holder
        # What the table is believed to hold. If the transaction of a move is rolled back, it is ahead of the table; the
        # next move finds that out.
        self._believed = position
        # Of positions that are known to fit.
        self._kind: type | None = None if position is None else type(position)

    def __repr__(self) -> str:
        return f"Held({self.checkpoint.name!r}, epoch={self.epoch}, position={self.position})"

    def covers(self, position: P) -> bool:
        """Whether what ends at this position was applied before this holder came."""
        return self.position is not None and position <= self.position

    def unseen(self, items: Iterable[E]) -> Iterator[E]:
        """Transactions or batches without those that were applied before; told by their `end_position`."""
        return (each for each in items if not self.covers(each.end_position))

    def move(self, connection: psycopg.Connection[Any], position: P) -> None:
        """Move the checkpoint in the caller's transaction: it is stored if and when that commits.

        One UPDATE, in the normal case; after a move that was rolled back three statements.

        Parameters
        ----------
        connection : psycopg.Connection
            In the transaction that stores the effect.
        position : Position
            The end of what this transaction applies.

        Raises
        ------
        Fenced
            Another has acquired the checkpoint: roll back and stop.
        CheckpointBehind
            The position does not lie after the stored one: what is being applied was applied before.
        CheckpointError
            The connection is in autocommit mode and in no transaction: effect and position would be two commits.
        SettingsError
            The position is none of this checkpoint's.
        """
        if type(position) is not self._kind:
            self._check(position)
        info = connection.info
        if connection.autocommit and info.transaction_status == pq.TransactionStatus.IDLE:
            raise CheckpointError(
                f"The checkpoint {self.checkpoint.name} was to be moved outside of the sink's transaction.",
                "Move it in the transaction that stores the effect: with connection.transaction(): ...",
            )
        believed = self._believed
        if (believed is None or believed < position) and self._set(connection, believed, position):
            return
        stored = self._locked(connection)
        if stored is not None and not stored < position:
            raise CheckpointBehind(
                f"The checkpoint {self.checkpoint.name} is at {stored} already; it was to move to {position}.",
                "Roll back and skip what was applied before: Held.unseen leaves it out.",
            )
        if not self._set(connection, stored, position):  # the row is locked and was just compared
            raise CheckpointError(f"The checkpoint {self.checkpoint.name} could not be moved.", "Has it a trigger?")

    def _check(self, position: object) -> None:
        """Refuse what would not be read back as what it is: the text of an LSN, a number where LSNs are kept."""
        try:
            kind = type(self.checkpoint.position(str(position)))
        except (SettingsError, ValueError, LookupError, TypeError, AttributeError):
            kind = None
        if kind is None or not isinstance(position, kind):
            raise SettingsError(
                f"{position!r} is no position of the checkpoint {self.checkpoint.name}.",
                "Give the end_position of what is applied, as it is.",
            )
        self._kind = type(position)

    def _set(self, connection: psycopg.Connection[Any], believed: P | None, position: P) -> bool:
        values = {
            "name": self.checkpoint.name,
            "epoch": self.epoch,
            "position": str(position),
            "believed": None if believed is None else str(believed),
        }
        if self.checkpoint._row(connection, "move", values) is None:
            return False
        self._believed = position
        failpoint("cdc.checkpoint_moved")
        return True

    def _locked(self, connection: psycopg.Connection[Any]) -> P | None:
        """The stored position, with the row locked, if it is still ours."""
        name = self.checkpoint.name
        row = self.checkpoint._row(connection, "locked", {"name": name})
        if row is None:
            raise Fenced(f"The checkpoint {name} is gone: its row was deleted.", "Roll back, and acquire it anew.")
        epoch, text, holder, acquired = row
        if epoch != self.epoch:
            raise Fenced(
                f"The checkpoint {name} was taken over by {holder} at {acquired.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC "
                f"(epoch {epoch}; this is {self.holder} with {self.epoch}).",
                "Roll back and stop: the other goes on from the last committed position.",
            )
        return self.checkpoint.position(text)
