"""Steps that an interrupted cell must not cut in two.

Python raises `KeyboardInterrupt` between any two instructions of the main thread: also between taking a message from
libpq and keeping it, and then the message is gone. Within `uninterrupted` an interrupt is noted, and raised at the end.
It is for steps of microseconds; waits stay outside.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["uninterrupted"]


class uninterrupted:  # noqa: N801 - reads as a statement, like contextlib.suppress
    """Context manager: SIGINT waits for the end of the block. Outside of the main thread it does nothing."""

    __slots__ = ("_noted", "_previous")

    def __init__(self) -> None:
        self._previous: Any = None
        self._noted: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = (number, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            if self._noted is not None:
                self._previous(*self._noted)
