"""A stream of PostgreSQL's changes in a file: bytes as they were received, to be decoded again with no server.

`Recorder` writes (``PostgreSQLCDC(..., record=path)`` has one), `Recording` reads; `Recording.source` replays it as a
`ChangeSource`. What is recorded is the payload of each XLogData message with its header of 25 bytes, so a recording is
what a decoder would have got, and stays useful when the decoder changes.

A block is written when a transaction has ended, so of what a killed recorder had received, the last transaction is lost
at most: what is not whole at the end is left out, and `Recording.complete` tells. (A block is in the hands of the
operating system then; the disk has it for sure after `close`.) One deflate stream over all blocks lets small
transactions share what they have in common. The layout is in `streamlab.cdc.recording_file`.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from streamlab.cdc.position import LSN
from streamlab.cdc.recording_file import About, Chunk, block, blocks, damaged, pack, start, to_json, unpack
from streamlab.cdc.replay import Replay
from streamlab.cdc.transaction import Transaction
from streamlab.errors import RecordingError, SettingsError

__all__ = ["About", "Chunk", "Recorder", "Recording"]

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
"""A transaction that is larger is written in several blocks of about this size."""

_KIND = 25
"""Where the letter of pgoutput's message stands, behind the header of XLogData."""

_ENDS = frozenset(b"CcKPpr")
"""Commit, Stream Commit, Commit Prepared, Prepare, Stream Prepare, Rollback Prepared."""


class Recorder:
    """Writes a recording. Used by one thread; a context manager.

    Parameters
    ----------
    path : path
        The file; it must not exist. Its owner alone can read it: it holds the data of tables.
    about : About
        What is recorded.
    level : int
        How hard to compress, 0 to 9. Rows compress to about a tenth at 1 already, which takes half the time of 6.

    Raises
    ------
    RecordingError
        The file exists, or cannot be written.
    """

    def __init__(self, path: Path | str, about: About, *, level: int = 1) -> None:
        self.path = Path(path)
        self._pending: list[bytes] = []
        self._times: list[int] = []
        self._size = self._messages = 0
        self._end = about.start
        self._deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
        self._begin = time.monotonic_ns()
        try:
            self._file: BinaryIO | None = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
            why = getattr(error, "strerror", None) or error
            raise RecordingError(f"{path} cannot be recorded to: {why}.", "Choose another path.") from error
        self._file.write(start())
        self._block(b"H", to_json(about.to_json()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Add messages that have arrived now, each the payload of an XLogData message, header included.

        They are in the file as soon as they end a transaction.
        """
        now = (time.monotonic_ns() - self._begin) // 1000
        ended = False
        for message in messages:
            data = message if message.__class__ is bytes else bytes(message)
            if data[:1] != b"w" or len(data) <= _KIND:
                raise RecordingError(
                    f"A message of type {data[:1]!r} and {len(data)} bytes is no XLogData.",
                    "Record what follows CopyData's own header, keepalives left out.",
                )
            self._pending.append(data)
            self._times.append(now)
            self._size += len(data)
            ended = ended or data[_KIND] in _ENDS
            if self._size >= _BLOCK:
                self.flush()
        if ended:
            self.flush()

    def restart(self) -> None:
        """The connection was made again: what had not ended will be appended once more, from its beginning."""
        self._pending, self._times, self._size = [], [], 0
        if self._messages:
            self._block(b"L", b"")

    def types(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add types that users made, as `TypeMap.load` takes them."""
        self._block(b"T", to_json([list(row) for row in rows]))

    def flush(self) -> None:
        """Write what was appended, in the middle of a transaction too."""
        if not self._pending:
            return
        packed = pack(self._pending, self._times)
        self._block(b"D", self._deflate.compress(packed) + self._deflate.flush(zlib.Z_SYNC_FLUSH))
        self._messages += len(self._pending)
        self._end = max(self._end, *map(LSN, struct.unpack_from("!QQ", self._pending[-1], 1)))
        self._pending, self._times, self._size = [], [], 0

    def close(self) -> None:
        """Write what is left, and the end. Idempotent."""
        if self._file is not None:
            self.flush()
            self._block(b"E", to_json({"messages": self._messages, "end": str(self._end)}))
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _block(self, kind: bytes, body: bytes) -> None:
        if self._file is None:
            raise RecordingError(f"The recording {self.path} is closed.", "Begin another.")
        try:
            self._file.write(block(kind, body))
            self._file.flush()
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written: {error.strerror}.", "Is the disk full?") from error


class Recording:
    """A recording, opened to be read. Iterating it gives its messages, as often as you like; threads may share it.

    Attributes
    ----------
    about : About
        What was recorded.
    types : list of tuple
        Types that users made, for `TypeMap.load`.
    complete : bool
        Whether it was closed by its recorder. If not, its end is missing, and at most one transaction of what had been
        received.
    count : int or None
        How many messages; None where the end is missing.
    end : LSN or None
        Of the last message; None where the end is missing.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.types: list[tuple[Any, ...]] = []
        self.complete = False
        self.count: int | None = None
        self.end: LSN | None = None
        about: About | None = None
        try:
            for kind, body in blocks(self.path, skip=b"D"):
                if kind == b"H":
                    about = About.from_json(json.loads(body))
                elif kind == b"T":
                    self.types += (tuple(row) for row in json.loads(body))
                elif kind == b"E":
                    value = json.loads(body)
                    self.complete, self.count, self.end = True, int(value["messages"]), LSN.parse(value["end"])
        except (ValueError, LookupError, TypeError, AttributeError, SettingsError) as error:
            raise damaged(self.path, "its description cannot be read") from error
        if about is None:
            raise damaged(self.path, "it ends before its description")
        self.about = about
        if not self.complete:
            log.warning("the recording %s was not closed: what came last may be missing", path)

    @classmethod
    def open(cls, path: Path | str) -> Recording:
        """Open a recording.

        Raises
        ------
        RecordingError
            There is no such file, it is no recording, a newer version wrote it, or it is damaged. (Damage to the
            messages is found when they are read.)
        """
        return cls(path)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks():
            yield from chunk.messages

    def chunks(self) -> Iterator[Chunk]:
        """Messages in the groups in which they arrived.

        Raises
        ------
        RecordingError
            The file is damaged here; what came before is right.
        """
        inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        seconds = 0.0
        for kind, body in blocks(self.path):
            if kind == b"D":
                try:
                    chunks = unpack(inflate.decompress(body))
                except (zlib.error, struct.error, ValueError) as error:
                    raise damaged(self.path, "a block cannot be read") from error
                yield from chunks
                seconds = chunks[-1].seconds if chunks else seconds
            elif kind == b"L":
                yield Chunk(seconds, [], again=True)

    def transactions(self, *, speed: float | None = None) -> Iterator[Transaction]:
        """What was committed, decoded; `speed` as in `source`. A transaction without its end is left out."""
        with self.source(speed=speed) as source:
            yield from source.transactions()

    def source(self, *, speed: float | None = None, after: LSN | None = None, **decoder: Any) -> Replay:
        """Replay it as a source of changes.

        Parameters
        ----------
        speed : float, optional
            1 as it was recorded, 10 ten times as fast; by default as fast as it can be decoded.
        after : LSN, optional
            Leave out transactions that end up to here: the position of a checkpoint.
        **decoder
            More arguments of `streamlab.cdc.pgoutput.Decoder`, such as `lazy`.
        """
        return Replay(self, speed=speed, after=after, **decoder)

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r})"

    def _repr_html_(self) -> str:
        count = "unknown, for its end is missing" if self.count is None else f"{self.count:,}"
        rows = {
            "recorded": f"{self.about.recorded_at:%Y-%m-%d %H:%M:%S} UTC, PostgreSQL {self.about.server}",
            "publications": ", ".join(self.about.publications),
            "protocol": f"{self.about.protocol}, {'binary' if self.about.binary else 'text'}",
            "log": f"{self.about.start} to {self.end or 'unknown'}",
            "messages": count,
            "note": self.about.note,
        }
        cells = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows.items() if text)
        return f"<table><caption><b>{escape(self.path.name)}</b></caption>{cells}</table>"
