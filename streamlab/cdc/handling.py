"""What becomes of a change: handlers, and the policy for one that fails.

A handler that raises stops the stream before the acknowledgement: the change comes again when reading begins again.
Two policies soften that, and neither swallows anything. `retry` repeats what may succeed later. `dead_letters` sets a
change aside whose handling fails for good because of its content; later changes of the same row go behind it, so that
their order is kept, and the stream goes on. A failure that has nothing to do with the change (a server that is down,
a privilege that is missing) stops the stream in every case.

A coroutine function is no handler: its call does nothing until somebody awaits it, so the change would be acknowledged
and lost. It is refused when it is added; a coroutine or a future that a plain function gives back stops the stream.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from streamlab.cdc import arguments
from streamlab.cdc.event import UNCHANGED, ChangeEvent
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetter, DeadLetters, LetterId, Record
from streamlab.errors import SettingsError
from streamlab.failpoints import failpoint
from streamlab.failures import Failure, classify
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["EventHandler", "Handlers", "Stopped", "TransactionHandler", "record_of"]

log = logging.getLogger(__name__)

EventHandler = Callable[[ChangeEvent], object]
TransactionHandler = Callable[[Transaction], object]

_FIRST_REPLAY = timedelta(minutes=1)


class Stopped(Exception):
    """A retry was ended by a stop; nothing is acknowledged."""


class Handlers:
    """The handlers of one reader, called in the order in which they were added, in the reader's thread.

    Parameters
    ----------
    source : str
        The slot, as the source that dead letters name.
    retry : RetryPolicy, optional
        How often a handler is tried; by default once.
    dead_letters : DeadLetters, optional
        Where changes go that cannot be handled. By default such a change stops the stream.
    group : str
        Whose dead letters these are.
    """

    def __init__(
        self,
        source: str,
        *,
        retry: RetryPolicy | None = None,
        dead_letters: DeadLetters | None = None,
        group: str = "cdc",
    ) -> None:
        arguments.instance("retry", retry, RetryPolicy, "a RetryPolicy")
        arguments.instance("dead_letters", dead_letters, DeadLetters, "a store of them, as streamlab.dead_letters has")
        self.source, self.group = source, group
        self._policy, self._letters = retry, dead_letters
        self._events: list[EventHandler] = []
        self._transactions: list[TransactionHandler] = []

    def __len__(self) -> int:
        return len(self._events) + len(self._transactions)

    def add(self, handler: EventHandler) -> None:
        """A handler of single changes."""
        _refuse_later(handler)
        self._events.append(handler)

    def add_whole(self, handler: TransactionHandler) -> None:
        """A handler of whole transactions; its failures are retried and never set aside."""
        _refuse_later(handler)
        self._transactions.append(handler)

    def handle(self, transaction: Transaction, stopping: threading.Event) -> None:
        """Give a transaction to all handlers: each change to the first kind, then the whole to the second.

        Raises
        ------
        Stopped
            The stop event was set while a retry waited.
        Exception
            What a handler raised, and no policy took.
        """
        failpoint("cdc.before_handler")
        retry = Retry("cdc.handle", self._policy, stop=stopping) if self._policy is not None else None
        if retry is None and self._letters is None:
            # Without a policy there is nothing to do between two calls, and a call is half of what a handler takes.
            for event in transaction if self._events else ():
                for each in self._events:
                    if (result := each(event)) is not None:
                        _refuse_undone(result, each)
        elif self._events:
            parked = self._parked(transaction)
            for event in transaction:
                self._one(event, retry, parked)
        for handler in self._transactions:
            _call(handler, transaction, retry)
        failpoint("cdc.after_handler")

    def _one(self, event: ChangeEvent, retry: Retry | None, parked: set[bytes]) -> None:
        if parked and self._letters is not None and (key := key_of(event)) in parked and key is not None:
            now = datetime.now(UTC)
            with self._letters.transaction():
                self._letters.park(DeadLetter.behind(record_of(event, self.group, self.source), now=now))
            return
        attempts = 1
        for handler in self._events:
            try:
                attempts = _call(handler, event, retry)
            except Stopped:
                raise
            except Exception as error:
                failure = classify(error)
                if self._letters is None or failure in {Failure.TRANSIENT, Failure.FATAL}:
                    raise
                self._park(event, error, getattr(error, "__attempts__", attempts), parked)
                return

    def _park(self, event: ChangeEvent, error: Exception, attempts: int, parked: set[bytes]) -> None:
        assert self._letters is not None  # noqa: S101 - the caller has looked
        record = record_of(event, self.group, self.source)
        now = datetime.now(UTC)
        with self._letters.transaction():
            self._letters.park(
                DeadLetter.failed(record, error, attempts=attempts, now=now, next_at=now + _FIRST_REPLAY)
            )
        if record.key is not None:
            parked.add(record.key)
        log.warning(
            "%s: the change %s #%d was set aside: %s", self.source, event.position, event.ordinal, type(error).__name__
        )

    def _parked(self, transaction: Transaction) -> set[bytes]:
        if self._letters is None:
            return set()
        keys = {key for event in transaction if (key := key_of(event)) is not None}
        return set(self._letters.parked_keys(self.group, _log_of(transaction.position, self.source), keys))


def _call(handler: Callable[[Any], object], what: object, retry: Retry | None) -> int:
    """Call a handler, by the policy; returns the number of attempts."""
    if retry is None:
        _refuse_undone(handler(what), handler)
        return 1
    try:
        _refuse_undone(retry.call(handler, what), handler)
    except RetriesExhausted as exhausted:
        if exhausted.reason == "stopped":
            raise Stopped from exhausted
        if not isinstance(exhausted.__cause__, Exception):
            raise
        cause: Any = exhausted.__cause__
        cause.__attempts__ = exhausted.attempts
        raise cause from exhausted
    return 1


_LATER = (Awaitable, Future, GeneratorType, AsyncGeneratorType)


def _refuse_later(handler: Callable[[Any], object]) -> None:
    """Refuse what is no function, or one whose call does no work yet."""
    if not callable(handler):
        raise SettingsError(f"{handler!r} is no function.", "Give a function of one argument: the event.")
    for each in (handler, getattr(handler, "__call__", None)):  # noqa: B004 - an object with `async def __call__`
        if inspect.iscoroutinefunction(each) or inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise _not_called(handler)


def _refuse_undone(result: object, handler: Callable[[Any], object]) -> None:
    """Refuse what a call gave back in place of having worked."""
    if result is not None and isinstance(result, _LATER):
        if isinstance(result, CoroutineType):
            result.close()  # or Python warns, beside the error
        if isinstance(result, Future) or hasattr(result, "cancel"):
            raise SettingsError(
                f"{_name(handler)} gave back a future: the change would be acknowledged while the work goes on, and "
                "lost should that fail.",
                "Wait for the result in the handler; or iterate cdc.batches(), wait for all of them, then acknowledge.",
            )
        raise _not_called(handler)


def _not_called(handler: Callable[[Any], object]) -> SettingsError:
    return SettingsError(
        f"{_name(handler)} is a coroutine or a generator: its call does nothing, and the change would be acknowledged "
        "and lost.",
        "Give a plain function; or iterate cdc.transactions(), await your coroutine, then acknowledge.",
    )


def _name(handler: Callable[[Any], object]) -> str:
    return str(getattr(handler, "__qualname__", type(handler).__qualname__))


def key_of(event: ChangeEvent) -> bytes | None:
    """The row, as the key of a dead letter's lane; None for a change that belongs to no row."""
    if not event.primary_key:
        return None
    return json.dumps([event.schema, event.table_name, *event.key], default=str).encode()


def record_of(event: ChangeEvent, group: str, source: str) -> Record:
    """A change as the record of a dead letter; its payload is JSON, with values that JSON has no form for as text."""
    fields = {
        "operation": event.operation,
        "schema": event.schema,
        "table": event.table_name,
        "old": _plain(event.old_data),
        "new": _plain(event.new_data),
        "commit_timestamp": event.commit_timestamp.isoformat(),
        "transaction_id": event.transaction_id,
        "position": str(event.position),
        "ordinal": event.ordinal,
    }
    # Positions of every log are numbers, too; Kafka's are in a partition.
    offset: Any = event.position
    place = LetterId(
        group, _log_of(offset, source), getattr(offset, "partition", 0), int(offset), event.ordinal
    )  # fmt: skip
    return Record(place, key=key_of(event), payload=json.dumps(fields, default=str).encode())


def _log_of(position: Any, source: str) -> str:
    """The log that a position is a place in: of Kafka a topic, elsewhere the source's only one."""
    return str(getattr(position, "topic", "") or source)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not UNCHANGED}
