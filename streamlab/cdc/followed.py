"""What all readers of changes have in common, whichever log they read: iterations, and handlers in a thread.

A reader says how an iteration begins, how the next transaction is had, and how one is acknowledged; `Followed` makes of
that what `streamlab.cdc.ChangeSource` promises.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from streamlab.cdc import arguments
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.handling import EventHandler, Handlers, Stopped, TransactionHandler
from streamlab.cdc.position import Position
from streamlab.cdc.source import Batch, LateBatch, Run, enough
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError

__all__ = ["Followed"]

log = logging.getLogger(__name__)

R = TypeVar("R")


class Followed(ABC):
    """Iterations and handlers of one reader. One thread iterates; `stop` may be called from any.

    Parameters
    ----------
    name : str
        Of the source.
    handlers : Handlers
        What `start` calls, and the policy for what fails.
    """

    position_type: ClassVar[type]
    """What the source's positions are."""

    def __init__(self, name: str, handlers: Handlers) -> None:
        self.name = name
        self._stopping = threading.Event()
        self._handlers = handlers
        self._iteration = 0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._tail: tuple[int, Transaction | None, Iterator[ChangeEvent]] | None = None

    # -- what a reader says -------------------------------------------------------------------------

    @abstractmethod
    def _rewind(self) -> None:
        """Begin an iteration, from the last acknowledgement."""

    @abstractmethod
    def _open(self) -> None:
        """Connect now, so that a refusal is raised here."""

    @abstractmethod
    def _next(self, timeout: float | None, upto: Any = None) -> Transaction | None:
        """The next transaction; None after `timeout` seconds without one, or when `_stopping` is set.

        None too when the source has no transaction any more that ends at or before the position `upto`.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """Let go of the connection, so that another reader can have the source."""

    @abstractmethod
    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable."""

    def _ends(self, upto: Any, position: Any) -> bool:
        """Whether what ends at this position is the last that ends at or before `upto`. Not where more ends there."""
        return upto is not None and bool(upto <= position)

    def _ready(self, rows: int) -> Sequence[Transaction | Run]:
        """What is there already, of about so many changes, where a reader can hand it out faster than one by one."""
        return ()

    def _passed(self, what: Any) -> None:  # noqa: B027 - nothing to do is the rule
        """The caller has come back for more. Only a session takes that as an acknowledgement."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            if error is None:
                raise  # what stopped the thread is not swallowed; beside another error it was logged
        finally:
            self.close()

    # -- iterations -------------------------------------------------------------------------------

    def _ends_by(self, until: int | Position | None, idle: float | None) -> tuple[int | None, Any]:
        """When an iteration ends, of arguments that are checked."""
        if idle is not None:
            arguments.seconds("idle", idle)
        return enough(until, self.position_type)

    def _begin(self, rewind: Callable[[], None] | None = None) -> int:
        if self._thread is not None and self._thread is not threading.current_thread():
            if self._thread.is_alive():
                raise ChangeStreamError("A thread reads this stream for the handlers.", "Stop it first: cdc.stop().")
            self.stop()  # hands on its error
        self._iteration += 1
        self._stopping.clear()
        (rewind or self._rewind)()
        return self._iteration

    def _get(self, iteration: int, timeout: float | None, upto: Any = None) -> Transaction | None:
        self._current(iteration)
        return self._next(timeout, upto)

    def _current(self, iteration: int) -> None:
        if iteration != self._iteration:
            raise ChangeStreamError(
                "This iteration is over, because another one was begun after it.", "Use one iteration at a time."
            )

    def _each(
        self, iteration: int, following: Callable[[float | None, Any], R | None], until: tuple[int | None, Any],
        idle: float | None,
    ) -> Iterator[R]:  # fmt: skip
        """What comes, each noted as passed when the caller comes back, until there is enough."""
        count, (limit, upto) = 0, until
        while limit is None or count < limit:
            self._current(iteration)
            item: Any = following(idle, upto)
            if item is None:
                return
            yield item
            count += 1
            self._passed(item)
            if self._ends(upto, item.end_position):
                return

    def transactions(self, *, until: int | Position | None = None, idle: float | None = None) -> Iterator[Transaction]:
        """Transactions in commit order, from the last acknowledgement on.

        Parameters
        ----------
        until : int or position, optional
            A count: end after so many. A position: end when the source has nothing more that ends at or before it, or
            after the first transaction that ends there or beyond. ``until=cdc.written()`` is what the log holds now.
            All parts of a snapshot end where it was taken, so none of them is left out.
            By default go on until `stop`.
        idle : float, optional
            End when nothing came for so many seconds: a guess, where `until` is none.

        Raises
        ------
        SettingsError
            An argument cannot be used; here and wherever one is given.
        ChangeStreamError
            The stream cannot be read, or not any more. A connection that is lost is made again first.
        """
        ends = self._ends_by(until, idle)
        return self._each(self._begin(), self._next, ends, idle)

    def batches(
        self, *, max_rows: int = 10_000, max_wait: float = 0.5, until: int | Position | None = None,
        idle: float | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        """Whole transactions together, from the last acknowledgement on.

        Parameters
        ----------
        max_rows : int
            A batch ends with the transaction that reaches so many changes; so it can have more.
        max_wait : float
            Seconds after its first transaction, when a batch ends in any case.
        until, idle
            As for `transactions`; a count is one of batches.
        """
        ends = self._ends_by(until, idle)
        arguments.count("max_rows", max_rows)
        arguments.seconds("max_wait", max_wait)
        iteration = self._begin()

        def together(timeout: float | None, upto: Any) -> Batch | None:
            first = self._get(iteration, timeout, upto)
            if first is None:
                return None
            found: list[Any] = [first]
            rows, deadline, late = len(first), time.monotonic() + max_wait, False
            while rows < max_rows and (left := deadline - time.monotonic()) > 0:
                if self._ends(upto, found[-1].end_position):
                    break
                if upto is None and (more := self._ready(max_rows - rows)):
                    found.extend(more)
                    rows += sum(map(len, more))
                    late = True
                    continue
                following = self._get(iteration, left, upto)
                if following is None:
                    break
                found.append(following)
                rows += len(following)
            return LateBatch(found) if late else Batch(tuple(found))

        return self._each(iteration, together, ends, idle)

    def tail(self, n: int = 10, *, limit: float = 10.0) -> list[ChangeEvent]:
        """The next changes, for the curious: each call goes on where the last one ended, and acknowledges nothing.

        Parameters
        ----------
        n : int
            How many; fewer where no more came in time.
        limit : float
            Seconds in all.
        """
        arguments.count("n", n, least=0)
        arguments.seconds("limit", limit)
        deadline = time.monotonic() + limit
        if self._tail is None or self._tail[0] != self._iteration:
            iteration, shown = self._begin(), None
            rest: Iterator[ChangeEvent] = iter(())
        else:
            iteration, shown, rest = self._tail
        events: list[ChangeEvent] = []
        while len(events) < n:
            if (event := next(rest, None)) is not None:
                events.append(event)
                continue
            if shown is not None:
                self._passed(shown)
            shown = self._get(iteration, max(0.0, deadline - time.monotonic()))
            if shown is None:
                break
            rest = iter(shown)
        self._tail = (iteration, shown, rest)
        return events

    # -- handlers in a thread -----------------------------------------------------------------------

    def add_handler(self, handler: EventHandler) -> None:
        """Have a function called with each `ChangeEvent`, in order; see `start`.

        Raises
        ------
        SettingsError
            It is a coroutine function or a generator, whose call does nothing.
        """
        self._handlers.add(handler)

    def add_transaction_handler(self, handler: TransactionHandler) -> None:
        """Have a function called with each whole `Transaction`, after the handlers of its changes; see `start`.

        Raises
        ------
        SettingsError
            It is a coroutine function or a generator, whose call does nothing.
        """
        self._handlers.add_whole(handler)

    @property
    def running(self) -> bool:
        """Whether the thread of `start` reads."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Read in a thread of its own: each transaction is given to the handlers, then acknowledged.

        A handler that raises ends the thread before the acknowledgement, unless a policy takes the failure; `stop`
        hands the error on.

        Raises
        ------
        ChangeStreamError
            It runs already, has no handler, or the stream cannot be opened.
        """
        if self.running:
            raise ChangeStreamError("This stream is being read already.", "Stop it first: cdc.stop().")
        if not len(self._handlers):
            raise ChangeStreamError("There is no handler.", "Add one first: cdc.add_handler(function).")
        iteration = self._begin()
        self._open()
        self._thread = threading.Thread(
            target=self._run, args=(iteration,), name=f"streamlab-cdc-{self.name}", daemon=True
        )
        self._thread.start()

    def _run(self, iteration: int) -> None:
        try:
            for transaction in self._each(iteration, self._next, (None, None), None):
                self._handlers.handle(transaction, self._stopping)
                self.acknowledge(transaction)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - kept for `stop`, which raises it in the caller's thread
            self._error = error
            log.error("%s: reading stopped: %s: %s", self.name, type(error).__name__, error)  # noqa: TRY400
        finally:
            # So that another reader can have the slot.
            self._disconnect()

    def stop(self, *, limit: float = 30.0) -> None:
        """End an iteration, or the thread: after the transaction that is being handled, which is still acknowledged.

        Parameters
        ----------
        limit : float
            Seconds that the thread is waited for.

        Raises
        ------
        Exception
            What ended the thread, if that was an error: once.
        ChangeStreamError
            A handler did not return in time.
        """
        arguments.seconds("limit", limit)
        self._stopping.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(limit)
        if thread.is_alive():
            raise ChangeStreamError(
                f"A handler of {self.name} has not returned within {limit:.0f} s.", "See what it waits for."
            )
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _end(self) -> None:
        """End whatever reads, for `close`; never raises."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(30.0)
        self._iteration += 1
