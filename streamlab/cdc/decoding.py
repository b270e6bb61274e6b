"""What the loop beneath every reader of PostgreSQL's stream needs of what is around it, as protocols.

`streamlab.cdc.pgoutput.Decoder` makes transactions of messages, `streamlab.cdc.frames` batches of frames; the loop is
the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from streamlab.cdc.position import LSN

__all__ = ["BacklogSource", "Ended", "Gathering", "HandedOut", "StreamDecoder", "Taker", "ends_transaction"]


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


class StreamDecoder(Protocol[T]):
    """What the reader needs of a decoder."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or something was received that was not given out."""
        ...

    @property
    def hold(self) -> LSN | None:
        """What must not be confirmed, while prepared transactions wait."""
        ...

    def receive(self, messages: Sequence[bytes | memoryview]) -> list[T]:
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


class Taker(Protocol):
    """What gets the messages of a stream as they were received, in the thread that reads: a recorder, an inspector."""

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Take messages as they were received."""
        ...

    def restart(self) -> None:
        """A stream begins: what had not ended comes again."""
        ...
