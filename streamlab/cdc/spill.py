"""Room for transactions that are not complete yet: in memory up to a bound, beyond it in files without a name.

A file is made in the directory that the caller gives, and is never seen there: it has no name (``O_TMPFILE``), or loses
it at once. When its descriptor is closed, or the process dies in whatever way, the file system takes it back; so
nothing is left behind. Only where a file system cannot do that, and the process is killed between two calls, a name
stays; it begins with the process's number, and the next `Spill` in the same directory removes it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from streamlab.errors import ChangeStreamError, SettingsError
from streamlab.failpoints import failpoint

__all__ = ["Spill", "Spool", "default_directory"]

_LENGTH = struct.Struct("=I")
_CHUNK = 1 << 20
_PORTION = 4096
_PREFIX = "spill-"


def default_directory() -> Path:
    """Where the readers of this user put what does not fit, unless they are told another place."""
    return Path(tempfile.gettempdir()) / f"streamlab-spill-{os.getuid()}"


class Spill:
    """Where spools put what does not fit into memory. Used by one thread; what it made may be read by others.

    Parameters
    ----------
    directory : Path, optional
        For the files; made with mode 0700. Without one everything stays in memory.
    memory : int
        Bytes that all open spools together may hold in memory, before the largest go to disk.
    eager : int
        Bytes of one transaction whose events are made at once; as objects they take about six times as much. What is
        beyond is decoded when it is iterated.

    Raises
    ------
    SettingsError
        The directory cannot be made.
    """

    def __init__(self, directory: Path | None = None, *, memory: int = 16 << 20, eager: int = 4 << 20) -> None:
        self.directory = directory
        self.memory, self.eager = memory, eager
        self._open: weakref.WeakSet[Spool] = weakref.WeakSet()
        if directory is not None:
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove_leftovers(directory)
            except (OSError, ValueError) as error:  # a path with a NUL character is a ValueError
                raise SettingsError(
                    f"{str(directory)!r} cannot hold transactions that do not fit into memory: "
                    f"{getattr(error, 'strerror', None) or error}.",
                    "Give another directory: spill=Path(...).",
                ) from error

    def spool(self) -> Spool:
        """A new, empty spool."""
        spool = Spool()
        self._open.add(spool)
        return spool

    def relieve(self) -> None:
        """Write the largest spools to disk until the rest fits; call it after each portion of messages.

        Raises
        ------
        ChangeStreamError
            The files cannot be written, for example because the disk is full.
        """
        if self.directory is None:
            return
        held = sum(spool.held for spool in self._open)
        for spool in sorted(self._open, key=lambda spool: -spool.held):
            if held <= self.memory:
                return
            held -= spool.held
            try:
                spool.write(self.directory)
            except OSError as error:
                raise ChangeStreamError(
                    f"A large transaction could not be written to {self.directory}: {error.strerror}.",
                    "Make room there, or give another directory; nothing is lost, the server sends it again.",
                ) from error

    def forget(self, spool: Spool) -> None:
        """The spool was handed out: what it holds is its reader's."""
        self._open.discard(spool)

    def close(self) -> None:
        """Give back all that open spools hold. Idempotent."""
        for spool in list(self._open):
            spool.close()
        self._open.clear()


class Spool:
    """The messages of one transaction, in the order in which they came. Iterate it as often as you like.

    Attributes
    ----------
    held : int
        Bytes in memory.
    size : int
        All bytes.
    """

    __slots__ = ("__weakref__", "_close", "_closed", "_descriptor", "_messages", "_written", "held", "size")

    def __init__(self) -> None:
        self.held = self.size = self._written = 0
        self._messages: list[bytes] = []
        self._descriptor: int | None = None
        self._closed = False
        self._close: weakref.finalize[[int], Spool] | None = None

    @property
    def on_disk(self) -> int:
        """Bytes in the file."""
        return self._written

    def append(self, message: bytes) -> None:
        """Add a message."""
        self._messages.append(message)
        self.held += len(message)
        self.size += len(message)

    def write(self, directory: Path) -> None:
        """Move what is in memory to the file."""
        if self._descriptor is None:
            self._descriptor = _nameless(directory)
            # Also when nobody closes it: the reader may just let go of it.
            self._close = weakref.finalize(self, os.close, self._descriptor)
        pack = _LENGTH.pack
        # In portions: written as one, it would be in memory twice.
        for start in range(0, len(self._messages), _PORTION):
            portion = self._messages[start : start + _PORTION]
            data = memoryview(b"".join([piece for each in portion for piece in (pack(len(each)), each)]))
            while data:
                done = os.pwrite(self._descriptor, data, self._written)
                self._written += done
                data = data[done:]
                failpoint("cdc.in_spill")
        self._messages.clear()
        self.held = 0

    def __iter__(self) -> Iterator[bytes]:
        self._check()
        messages = self._messages
        if self._descriptor is not None:
            yield from self._from_disk(self._descriptor)
        yield from messages

    def _check(self) -> None:
        if self._closed:
            raise ChangeStreamError(
                "This transaction was given back when the reader went on, and its changes are gone.",
                "Keep its events, or take what you need before the next transaction.",
            )

    def _from_disk(self, descriptor: int) -> Iterator[bytes]:
        rest = b""
        at = 0
        size = _LENGTH.size
        while at < self._written:
            # Its number may be another file's by now.
            self._check()
            data = rest + os.pread(descriptor, min(max(_CHUNK, len(rest)), self._written - at), at)
            at += len(data) - len(rest)
            start = 0
            while start + size <= len(data):
                (length,) = _LENGTH.unpack_from(data, start)
                end = start + size + length
                if end > len(data):
                    break
                yield data[start + size : end]
                start = end
            rest = data[start:]

    def close(self) -> None:
        """Give back memory and disk. Idempotent; not while another thread iterates."""
        self._closed = True
        # A new list: whoever iterates the old one shall not end early.
        self._messages = []
        self.held = 0
        if self._close is not None:
            self._close()


def _nameless(directory: Path) -> int:
    with contextlib.suppress(OSError, AttributeError):
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    descriptor, name = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=directory)
    Path(name).unlink()
    return descriptor


def _remove_leftovers(directory: Path) -> None:
    for path in directory.glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and not Path(f"/proc/{owner}").exists():
            path.unlink(missing_ok=True)
