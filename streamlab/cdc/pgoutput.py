"""The decoder of pgoutput, PostgreSQL's logical replication plug-in: bytes in, `Transaction`s out. No I/O.

Protocol versions 1 to 4, text and binary:

* 1: transactions whole, in commit order. Begin tells position and time of the commit, so events are made at once.
* 2: large transactions while they are still open (``streaming``). Their messages come in blocks (Stream Start, Stream
  Stop), blocks of several transactions alternate, each message names its subtransaction, and Stream Abort takes one
  back. They wait in a `Spool`, undecoded, until Stream Commit.
* 3: two-phase commit: a prepared transaction waits in the same way, until Commit Prepared or Rollback Prepared.
* 4: Stream Abort tells position and time too (``streaming=parallel``).

Large transactions are decoded while they are iterated, so memory stays flat whatever their size: what is beyond the
bounds of `Spill` lies on disk. The order of messages is all that decides how a row is read: a Relation message
changes the table for the rows behind it, in the middle of a transaction too.

Source: the PostgreSQL manual, "Logical Streaming Replication Protocol" and "Logical Replication Message Formats";
`src/backend/replication/pgoutput/pgoutput.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final

from streamlab.cdc.changes import Catalog, SpooledChanges, Stretch
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.open_transactions import OpenTransactions
from streamlab.cdc.position import LSN
from streamlab.cdc.rowcode import RowDecoder
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import (
    MALFORMED,
    START,
    Begin,
    Commit,
    LogicalMessage,
    malformed,
    moment,
    origin,
    truncated,
    type_name,
)
from streamlab.errors import ProtocolError

__all__ = ["Decoder"]

_ROWS = frozenset((b"I", b"U", b"D"))
# Letter, OID, letter of the first row, number of columns: they tell table and kind of change.
_KIND: Final = itemgetter(slice(START, START + 8))
_NO_ROWS: Final[dict[bytes, RowDecoder]] = {}


class Decoder:
    """Decodes one stream. Used by one thread.

    After a `ProtocolError` it is of no use until `reset`.

    Parameters
    ----------
    protocol : int
        The ``proto_version`` that the stream was asked for, 1 to 4.
    binary : bool
        Whether it was asked for binary values. Either kind is read either way; this decides which one is fast.
    types : TypeMap, optional
        What values become; by default the built-in types alone.
    lazy : bool
        Decode a row when it is first looked at. For readers that look at few; a broken row then raises there.
    spill : Spill, optional
        Where large transactions wait; by default in memory, without a bound.
    primary_keys : mapping of int to tuple of str
        OID of a table -> its primary key. Used where the stream does not tell it: for tables whose replica identity is
        FULL or NOTHING.
    ask_key : callable, optional
        Called with the OID of such a table when the stream describes it, to bring `primary_keys` up to date.

    Attributes
    ----------
    hold : LSN or None
        While a prepared transaction waits for its second phase: the highest position that may be acknowledged, for the
        server does not send the changes of a transaction again whose PREPARE is below.
    """

    def __init__(
        self,
        *,
        protocol: int = 1,
        binary: bool = False,
        types: TypeMap | None = None,
        lazy: bool = False,
        spill: Spill | None = None,
        primary_keys: Mapping[int, tuple[str, ...]] | None = None,
        ask_key: Callable[[int], object] | None = None,
    ) -> None:
        if protocol not in {1, 2, 3, 4}:
            raise ProtocolError(f"pgoutput has no protocol version {protocol}.", "Use 1 to 4.")
        self.protocol = protocol
        self._spill = spill or Spill()
        # A mapping may be empty now and be filled later.
        keys = {} if primary_keys is None else primary_keys
        self._catalog = Catalog(types or TypeMap(), binary=binary, lazy=lazy, primary_keys=keys, ask_key=ask_key)
        kinds: dict[int, tuple[int, Callable[[bytes], Transaction | None]]] = {
            ord("B"): (1, self._begin), ord("C"): (1, self._commit), ord("O"): (1, self._origin),
            ord("R"): (1, self._relation), ord("Y"): (1, self._type), ord("T"): (1, self._truncate),
            ord("M"): (1, self._message),
            ord("S"): (2, self._stream_start), ord("E"): (2, self._stream_stop), ord("c"): (2, self._stream_commit),
            ord("A"): (2, self._stream_abort), ord("b"): (3, self._begin_prepare), ord("P"): (3, self._prepare),
            ord("K"): (3, self._commit_prepared), ord("r"): (3, self._rollback_prepared),
            ord("p"): (3, self._stream_prepare),
        }  # fmt: skip
        self._kinds = {kind: handler for kind, (since, handler) in kinds.items() if since <= protocol}
        self._clear()

    def _clear(self) -> None:
        self._rows = _NO_ROWS
        """The decoders of rows that become events at once; none while rows have to wait, or may not come."""
        self._events: list[ChangeEvent] = []
        self._size = 0
        self._begun: Begin | None = None
        self._position, self._time, self._xid, self._from = LSN(0), moment(0), "", ""
        self._waiting: Stretch | None = None
        """What takes the messages that come now, if they have to wait."""
        self._open = OpenTransactions(self._spill)
        self._block: Stretch | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: begun, in progress or prepared. Then the server's own position must not be
        acknowledged."""
        return self._begun is not None or bool(self._open)

    @property
    def hold(self) -> LSN | None:
        """See the class."""
        return self._open.hold

    def reset(self) -> None:
        """Forget all that is incomplete: the connection was lost, and the server sends it again."""
        self._spill.close()
        self._catalog.clear()
        self._clear()

    def close(self) -> None:
        """Give back memory and disk."""
        self.reset()

    def receive(self, messages: Sequence[bytes | memoryview]) -> list[Transaction]:
        """Take messages, and give the transactions that they completed, in the order of their commits.

        Parameters
        ----------
        messages : sequence of bytes
            Each the whole payload of a CopyData message of type XLogData (``w``).

        Raises
        ------
        ProtocolError
            A message is not what the protocol allows, at this place or at all.
        ChangeStreamError
            A large transaction could not be written to disk.

        What `resolve` of the types and `ask_key` raise passes through. After any of these the transactions of this call
        are lost to the caller, who has not acknowledged them: reconnect, and they come again.
        """
        done: list[Transaction] = []
        # bytes() of bytes is the same object, and not to call it for each is quicker still.
        plain: Any = messages if set(map(type, messages)) <= {bytes} else map(bytes, messages)
        for kind, run in groupby(plain, _KIND):
            if kind[:1] in _ROWS:
                self._run(kind, run)
            else:
                done += [made for made in map(self._other, run) if made is not None]
        self._bound(messages)
        return done

    def _bound(self, messages: Sequence[bytes | memoryview]) -> None:
        """Keep memory within its bounds."""
        if self._begun is not None and self._waiting is None:
            self._size += sum(map(len, messages))
            if self._size > self._spill.eager:
                # From here on, this transaction waits as bytes.
                self._waiting = Stretch(self._spill.spool(), self._catalog.copy(), streamed=False)
                self._rows = _NO_ROWS
        self._spill.relieve()

    def _other(self, message: bytes) -> Transaction | None:
        try:
            if message[0] != 119:  # w
                raise ValueError("it is not in an XLogData message")
            handler = self._kinds[message[START]]
            return handler(message)
        except ProtocolError:
            raise
        except MALFORMED as error:
            why = str(error) if isinstance(error, ValueError) else "it is not complete, or not of this protocol version"
            raise malformed(message, why) from error

    # -- whole transactions -------------------------------------------------------------------------

    def _begin(self, message: bytes) -> None:
        self._outside()
        self._start(Begin.read(message))
        self._catalog.refresh()
        self._rows = self._catalog.rows

    def _start(self, begun: Begin) -> None:
        self._begun = begun
        self._position, self._time, self._xid, self._from = begun.position, begun.time, str(begun.xid), ""
        self._events = []
        self._size = 0

    def _commit(self, message: bytes) -> Transaction:
        commit = Commit.read(message)
        begun, waiting = self._begun, self._waiting
        if begun is None or begun.gid or self._block is not None or commit.position != begun.position:
            raise ValueError("it does not end the transaction that was begun")
        head = tuple(self._events)
        changes: SpooledChanges | tuple[ChangeEvent, ...] = head
        if waiting is not None:
            self._catalog.adopt(waiting)
            self._spill.forget(waiting.spool)
            changes = SpooledChanges(waiting, head, commit.time, self._xid, commit.position)
        transaction = Transaction(commit.position, commit.end, self._xid, commit.time, changes, self._from)
        self._end()
        return transaction

    def _end(self) -> None:
        self._begun = self._waiting = None
        self._rows = _NO_ROWS
        self._events = []

    def _outside(self) -> None:
        if self._begun is not None or self._block is not None:
            raise ValueError("a transaction is still open")

    # -- changes ------------------------------------------------------------------------------------

    @staticmethod
    def _wait(waiting: Stretch, message: bytes) -> None:
        try:
            waiting.add(message)
        except ValueError as error:
            raise malformed(message, str(error)) from error

    def _run(self, kind: bytes, run: Iterator[bytes]) -> None:
        """Rows of one kind of change of one table, on end."""
        decode, waiting = self._rows.get(kind), self._waiting
        if decode is None and waiting is not None:
            for message in run:
                self._wait(waiting, message)
            return
        if decode is None:
            first = next(run)
            decode, run = self._first(kind, first), chain((first,), run)
        events = self._events
        decode(run, START + 8, self._time, self._xid, self._position, len(events), events.append)

    def _first(self, kind: bytes, message: bytes) -> RowDecoder:
        try:
            if message[0] != 119:  # w
                raise ValueError("it is not in an XLogData message")
            if self._begun is None:
                raise ValueError("it is outside of a transaction")
            return self._catalog.decoder(kind)
        except MALFORMED as error:
            raise malformed(message, str(error)) from error

    def _truncate(self, message: bytes) -> None:
        if self._waiting is not None:
            self._waiting.add(message, len(truncated(message, self._waiting.fields)))
            return
        if self._begun is None:
            raise ValueError("it is outside of a transaction")
        for oid in truncated(message, START + 1):
            self._events.append(self._catalog.truncate(oid, self._time, self._xid, self._position, len(self._events)))

    def _message(self, message: bytes) -> Transaction | None:
        at = START + 1 if self._block is None else START + 5
        read = LogicalMessage.read(message, at)
        if not read.transactional:
            return self._immediate(message, read)
        if self._waiting is not None:
            self._waiting.add(message)
        elif self._begun is not None:
            self._events.append(self._catalog.message(read, self._time, self._xid, self._position, len(self._events)))
        else:
            raise ValueError("it is outside of a transaction")
        return None

    def _immediate(self, message: bytes, read: LogicalMessage) -> Transaction:
        """A message that belongs to no transaction: it is one of its own.

        The server tells the end of its record in the log. That is where a commit record may begin, so its position is
        one less: the last byte of its own record, which no other has. It tells no time; the time of sending stands
        for it.
        """
        position = LSN(read.position - 1)
        time = moment(int.from_bytes(message[17:25], "big", signed=True))
        event = self._catalog.message(read, time, "", position, 0)
        return Transaction(position, read.position, "", time, (event,))

    def _relation(self, message: bytes) -> None:
        if self._waiting is not None:
            self._waiting.relation(message)
        else:
            self._catalog.learn(message, START + 1)

    def _type(self, message: bytes) -> None:
        # It only names a type; how its values are read is in the TypeMap. It may come between transactions.
        type_name(message, START + (1 if self._block is None else 5))

    def _origin(self, message: bytes) -> None:
        name = origin(message)
        if self._block is not None:
            self._block.origin = name
        elif self._begun is not None:
            self._from = name
        else:
            raise ValueError("it is outside of a transaction")

    # -- transactions in progress, and two-phase commit ---------------------------------------------

    def _stream_start(self, message: bytes) -> None:
        self._outside()
        self._block = self._waiting = self._open.start(message, self._catalog)

    def _stream_stop(self, message: bytes) -> None:
        if self._block is None or len(message) != START + 1:
            raise ValueError("no block is open")
        self._block = self._waiting = None

    def _stream_commit(self, message: bytes) -> Transaction:
        self._outside()
        return self._open.commit(message, self._catalog)

    def _stream_abort(self, message: bytes) -> None:
        self._outside()
        self._open.abort(message)

    def _begin_prepare(self, message: bytes) -> None:
        self._outside()
        begun = Begin.read_prepared(message)
        self._start(begun)
        # The position of its events is that of a commit that is still to come.
        self._waiting = Stretch(self._spill.spool(), self._catalog.copy(), streamed=False, xid=begun.xid)

    def _prepare(self, message: bytes) -> None:
        prepare = Commit.read_prepared(message)
        if self._begun is None or self._waiting is None or self._begun.gid != prepare.gid or not prepare.gid:
            raise ValueError("it does not end the transaction that was begun")
        self._waiting.origin = self._from
        self._open.keep(self._waiting, prepare, self._catalog)
        self._end()

    def _stream_prepare(self, message: bytes) -> None:
        self._outside()
        self._open.prepare(message, self._catalog)

    def _commit_prepared(self, message: bytes) -> Transaction:
        self._outside()
        return self._open.commit_prepared(message)

    def _rollback_prepared(self, message: bytes) -> None:
        self._outside()
        self._open.rollback_prepared(message)
