"""What the loop beneath every reader of a server's log needs of what is around it, as protocols.

`streamlab.cdc.pgoutput.Decoder` makes transactions of messages, `streamlab.cdc.binlog.decoder.Decoder` of MySQL's
events, `streamlab.cdc.frames` batches of frames; the loop is the same for all. Positions are each log's own: ordered,
and otherwise known to its parts alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = [
    "BacklogSource",
    "Books",
    "Ended",
    "Gathering",
    "HandedOut",
    "Stream",
    "StreamDecoder",
    "Taker",
    "ends_transaction",
    "has_changes",
    "tally",
]


class Ended(Protocol):
    """What can be acknowledged."""

    @property
    def end_position(self) -> Any:
        """What an acknowledgement of it says."""
        ...


class HandedOut(Ended, Protocol):
    """What a decoder makes: a transaction, or a batch of some."""

    @property
    def commit_timestamp(self) -> datetime:
        """When its last transaction was committed."""
        ...

    def __len__(self) -> int:
        """How many changes."""
        ...


T = TypeVar("T")


def ends_transaction(item: object) -> bool:
    """False for a part of a transaction that is too large to be handed out at once."""
    return bool(getattr(item, "complete", True))


def has_changes(item: HandedOut) -> bool:
    """Whether there is something in it; of a large transaction its length may not be known before it is read."""
    changes = getattr(item, "changes", None)
    return len(item) > 0 if changes is None else bool(changes)


def tally(transaction: Any, tell: Callable[[Mapping[str, int]], None]) -> None:
    """Tell how many changes of each operation a transaction has.

    Of a large one that may be when it is first iterated: it is not decoded for this alone.
    """
    changes = transaction.changes
    if isinstance(changes, (tuple, list)):
        tell(Counter(map(itemgetter(0), changes)))
    else:
        changes.tally(tell)


class StreamDecoder(Protocol[T]):
    """What the reader needs of a decoder."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or something was received that was not given out."""
        ...

    @property
    def hold(self) -> Any:
        """What must not be confirmed, while prepared transactions wait; None while none does."""
        ...

    def receive(self, messages: Sequence[Any]) -> list[T]:
        """Decode; what is complete now."""
        ...

    def reset(self) -> None:
        """Forget what is open: the connection was lost."""
        ...


class Gathering(Protocol[T]):
    """A decoder that keeps back what is complete, to hand out many transactions together."""

    @property
    def due(self) -> float | None:
        """When `flush` is to be called, on the monotonic clock; None while there is nothing to wait for."""
        ...

    @property
    def pending(self) -> bool:
        """Whether `flush` has something to give at once, and more shall not be received before."""
        ...

    def flush(self) -> list[T]:
        """What is complete; possibly a part of it, and the rest is `pending`."""
        ...


class BacklogSource(Protocol[T]):
    """What a reader reads before its stream."""

    @property
    def received_bytes(self) -> int:
        """Bytes so far."""
        ...

    def read(self) -> list[T] | None:
        """What comes next, once all that came before was handed out; None at the end, or when reading was stopped."""
        ...

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        ...


@runtime_checkable
class Taker(Protocol):
    """What gets the messages of a stream as they were received, in the thread that reads: a recorder, an inspector."""

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Take messages as they were received."""
        ...

    def restart(self) -> None:
        """A stream begins: what had not ended comes again."""
        ...


class Stream(Protocol):
    """A connection that sends the log."""

    @property
    def received_bytes(self) -> int:
        """Bytes so far."""
        ...

    def wait(self, timeout: float) -> bool:
        """Whether there is something to read, after so many seconds at most."""
        ...

    def drain(self) -> Sequence[Any]:
        """All messages that are there."""
        ...

    def acknowledged(self) -> None:
        """There is something new to be told to the server."""
        ...

    def feedback(self, *, reply: bool = False) -> None:
        """Tell the server now, and ask it how far it has come, where its protocol has that."""
        ...

    def close(self, *, graceful: bool = True) -> None:
        """End the connection. Idempotent."""
        ...


class Books(Protocol):
    """What keeps the positions of a reader, under the reader's lock."""

    @property
    def write(self) -> int:
        """How far the stream was received, as a number."""
        ...

    @property
    def flush(self) -> int:
        """What may be forgotten, as a number."""
        ...

    @property
    def start(self) -> Any:
        """Where a stream has to begin so that nothing is missing from this iteration."""
        ...

    def wants(self, end: Any) -> bool:
        """Whether a transaction with this end is still to be handed out in this iteration."""
        ...

    def passed(self, upto: Any) -> bool:
        """Whether nothing that ends up to here is still to come, beside what was received already."""
        ...

    def hand_out(self, end: Any) -> None:
        """A transaction goes to the caller."""
        ...

    def keepalive(self, end: Any) -> None:
        """Up to here there is nothing for the caller."""
        ...

    def settled(self, *, in_flight: bool, hold: Any = None) -> None:
        """What was received has been decoded; `hold` is the decoder's."""
        ...

    def lost(self) -> None:
        """The connection is gone, and with it everything that was not handed out."""
        ...

    def rewind(self) -> bool:
        """Begin an iteration; whether anything has to come again for that."""
        ...

    def acknowledge(self, upto: Any) -> Any:
        """The effect of everything up to here is durable; returns what is acknowledged now."""
        ...

    def to_report(self) -> Any:
        """Settle what the server is told."""
        ...
