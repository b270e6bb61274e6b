"""How far a polled source has come: what was handed out, what is acknowledged, and the file that keeps it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.polling.position import PollingPosition
from streamlab.cdc.position_file import PositionFile
from streamlab.errors import CheckpointError, SettingsError

__all__ = ["Kept"]

log = logging.getLogger(__name__)

_EVERY: Final = 0.05
"""Seconds between two writings of the file; each waits for the disk."""


class Kept:
    """Positions of one reader. Locked: any thread may use it.

    Parameters
    ----------
    name : str
        The reader's.
    path : Path, optional
        The file.
    acknowledged : PollingPosition, optional
        Where it begins; it goes before what the file holds.
    fit : callable
        Raises `SettingsError` for a position that is none of this reader's columns.

    Attributes
    ----------
    acknowledged : PollingPosition or None
        Up to where the effect is durable.
    received : PollingPosition or None
        The end of what was handed out.
    cursor : PollingPosition or None
        Where the present iteration is.
    """

    def __init__(
        self, name: str, path: Path | None, acknowledged: PollingPosition | None, fit: Callable[[PollingPosition], None]
    ) -> None:
        if acknowledged is not None:
            fit(acknowledged)
        self._fit = fit
        self.acknowledged = self.cursor = acknowledged
        self.received: PollingPosition | None = None
        self._name = name
        self._lock = threading.RLock()
        self._file = None if path is None else PositionFile(path, name, PollingPosition.parse)
        self._written: PollingPosition | None = None
        self._written_at = 0.0

    def acquire(self) -> None:
        """Take the file, and begin where it says. Repeatable.

        Raises
        ------
        CheckpointError
            Another reader has it, or it is none of this reader.
        """
        if self._file is None:
            return
        with uninterrupted(), self._lock:
            found = self._file.acquire()
            try:
                if found is not None:
                    self._fit(found)
            except SettingsError as error:
                raise CheckpointError(f"{self._file.path}: {error.problem}", error.fix) from error
            if self.acknowledged is None and found is not None:
                self.acknowledged = self._written = self.cursor = found

    def rewind(self) -> None:
        """An iteration begins."""
        with self._lock:
            self.cursor = self.acknowledged

    def hand_out(self, end: PollingPosition) -> None:
        """What ends here goes to the caller."""
        with self._lock:
            self.cursor = self.received = end

    def acknowledge(self, end: PollingPosition) -> None:
        """The effect of everything up to here is durable. Never backwards, and never beyond what was handed out."""
        with uninterrupted(), self._lock:
            if self.received is None:
                return
            if self.received < end:
                log.warning("%s: %s was not handed out yet, so it is not acknowledged", self._name, end)
                end = self.received
            if self.acknowledged is None or self.acknowledged < end:
                self.acknowledged = end
        self.write()

    def write(self, *, now: bool = False) -> None:
        """Write the file, if there is something new and the last writing is not just over.

        Raises
        ------
        CheckpointError
            It cannot be written.
        """
        if self._file is None:
            return
        with uninterrupted(), self._lock:
            position = self.acknowledged
            if position is None or position is self._written:
                return
            if now or time.monotonic() - self._written_at >= _EVERY:
                self._file.write(position)
                self._written, self._written_at = position, time.monotonic()

    def release(self) -> None:
        """Let another reader have the file. Idempotent."""
        if self._file is not None:
            self._file.release()
