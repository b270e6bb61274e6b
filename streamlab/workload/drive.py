"""Doing transactions one after another: as fast as it goes or at a rate, here or in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeAlias

from streamlab.errors import StreamlabError
from streamlab.retry import RetriesExhausted
from streamlab.workload.pace import Pacer

__all__ = ["Per", "Running", "Throughput", "drive"]

Per: TypeAlias = Literal["rows", "transactions"]
Step: TypeAlias = Callable[[threading.Event], int]
"""Does one transaction and returns the rows it changed; gives up its attempts when the event is set."""

_JOIN_SECONDS = 100.0
"""Longer than a writer waits for a lock, a lost session or an answer."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was committed in what time.

    Attributes
    ----------
    transactions, rows : int
        Committed transactions and the rows they changed.
    seconds : float
        Time from first to last, the generator's own included.
    """

    transactions: int
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Changed rows a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def transactions_per_second(self) -> float:
        """Commits a second."""
        return self.transactions / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.transactions} transactions, {self.rows} rows in {self.seconds:.2f} s: "
            f"{self.rows_per_second:,.0f} rows/s"
        )


class Drive:
    """The loop itself; `throughput` may be read by any thread while it goes on."""

    def __init__(self, step: Step, rate: float | None, per: Per) -> None:
        if per not in {"rows", "transactions"}:
            raise StreamlabError(f"A rate cannot be counted in {per}.", "Count it in rows or in transactions.")
        self._step = step
        self._per = per
        self._pacer = Pacer(rate) if rate is not None else None
        self._done = (0, 0)
        self.start()

    def start(self) -> None:
        """Begin to measure."""
        self._started = self._last = time.monotonic()

    def throughput(self) -> Throughput:
        """What has been done so far."""
        transactions, rows = self._done
        return Throughput(transactions, rows, self._last - self._started)

    def go(self, stop: threading.Event, transactions: int | None, rows: int | None) -> None:
        """Go on until a bound is reached or the event is set."""
        while not stop.is_set():
            done = self._done
            if (transactions is not None and done[0] >= transactions) or (rows is not None and done[1] >= rows):
                return
            if self._pacer and stop.wait(self._pacer.wait(time.monotonic())):
                return
            began = time.monotonic()
            changed = self._step(stop)
            if self._pacer:
                self._pacer.did(changed if self._per == "rows" else 1, began)
            self._done, self._last = (done[0] + 1, done[1] + changed), time.monotonic()


def drive(step: Step, *, transactions: int | None, rows: int | None, rate: float | None, per: Per) -> Throughput:
    """Do transactions here until so many, or so many rows, are done."""
    if transactions is None and rows is None:
        raise StreamlabError("A run without an end.", "Say how many transactions or rows, or use Shop.running().")
    loop = Drive(step, rate, per)
    loop.go(threading.Event(), transactions, rows)
    return loop.throughput()


class Running:
    """Transactions in a thread of their own, from entering the block to leaving it.

    Leaving the block waits until the transaction under way is committed, and raises what the thread
    raised. Used by one thread; `throughput` may be read by any.
    """

    def __init__(self, step: Step, *, rate: float | None, per: Per) -> None:
        self._loop = Drive(step, rate, per)  # made here, so that a wrong rate is told at once
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="streamlab-shop", daemon=True)

    def _work(self) -> None:
        try:
            self._loop.go(self._stop, None, None)
        except RetriesExhausted as error:
            # Stopped between two attempts: the plan stays pending, and the shop's next call settles it.
            self._error = None if getattr(error, "reason", "") == "stopped" else error
        except BaseException as error:  # noqa: BLE001 - handed to the thread that leaves the block
            self._error = error

    def __enter__(self) -> Self:
        self._loop.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except Exception as own:
            if error is None:
                raise
            error.add_note(f"The shop that was running in this block also failed: {own}")

    @property
    def alive(self) -> bool:
        """Whether the thread is still at work."""
        return self._thread.is_alive()

    def throughput(self) -> Throughput:
        """What has been committed so far."""
        return self._loop.throughput()

    def stop(self) -> Throughput:
        """End the thread and wait for it. Raises what it raised, once."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            raise StreamlabError(f"The shop did not stop within {_JOIN_SECONDS:.0f} s.", "Does its server answer?")
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self.throughput()
