"""A file that keeps how far a reader has come whose server does not: in place of what a replication slot is elsewhere.

Each writing makes a new file and puts it in place of the old one, both on disk before it returns: after a crash, one of
the two is there, whole. One reader at a time has the file: a lock beside it, which goes with the process, says so.

Where the effect goes into a database, keep the position there, in the same transaction
(`streamlab.cdc.Checkpoint`), and hand it back as `resume_after`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Generic, TypeVar

from streamlab.cdc.position import Position
from streamlab.errors import CheckpointError, SettingsError

__all__ = ["PositionFile"]

P = TypeVar("P", bound=Position)


class PositionFile(Generic[P]):
    """A reader's position on disk. Used by one thread at a time.

    Parameters
    ----------
    path : Path
        The file; its directory is made where it is missing.
    source : str
        The reader's name: a file of another reader is refused.
    parse : callable
        Reads back what `str` makes of a position.
    """

    def __init__(self, path: Path, source: str, parse: Callable[[str], P]) -> None:
        self.path, self.source, self._parse = path, source, parse
        self._lock: IO[str] | None = None

    def acquire(self) -> P | None:
        """Take the file; the position in it, or None where there is no file yet. Repeatable.

        Raises
        ------
        CheckpointError
            Another reader has it, it cannot be read, or it belongs to a reader of another name.
        """
        had = self._lock is not None
        try:
            return self._read()
        except BaseException:
            if not had:
                self.release()
            raise

    def _read(self) -> P | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = self.path.with_name(f"{self.path.name}.lock").open("a", encoding="utf-8")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except BlockingIOError:
            raise CheckpointError(
                f"Another reader has the position file {self.path}.", "Stop it, or give this one another file."
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"The position file {self.path} cannot be used: {error.strerror}.", "Give another one."
            ) from error
        try:
            kept = json.loads(text)
            source, position = kept["source"], self._parse(kept["position"])
        except (ValueError, TypeError, KeyError, SettingsError) as error:
            raise CheckpointError(
                f"{self.path} holds no position of such a reader.", "Give another file, or delete this one."
            ) from error
        if source != self.source:
            raise CheckpointError(
                f"The position file {self.path} belongs to the reader {source}, not to {self.source}.",
                "Give each reader a file of its own.",
            )
        return position

    def write(self, position: P) -> None:
        """Keep a position.

        Raises
        ------
        CheckpointError
            It cannot be written; the former one is still there.
        """
        text = json.dumps({"source": self.source, "position": str(position)})
        try:
            descriptor, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as draft:
                    draft.write(text)
                    draft.flush()
                    os.fsync(draft.fileno())
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise CheckpointError(
                f"The position could not be written to {self.path}: {error.strerror}.",
                "Make room there, or give another file; what was read since comes again.",
            ) from error

    def forget(self) -> None:
        """Delete the file, and let go of it."""
        self.path.unlink(missing_ok=True)
        self.path.with_name(f"{self.path.name}.lock").unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Let another reader have the file. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
