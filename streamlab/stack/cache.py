"""Downloads and unpacked servers: fetched once, checked at each use, made again when broken.

An entry is a directory with a manifest beside it (size and SHA-256 of each file). It is built in a
temporary directory and moved into place in one step, under a lock of its own, so that an
interrupted download leaves nothing that looks finished, and two processes build it once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from streamlab.errors import DownloadError, StackError
from streamlab.stack.process import Cancelled

__all__ = ["Cache"]


class Cache:
    """The entries below one directory. Safe for several threads and processes at once.

    Parameters
    ----------
    path : Path
        The directory, which exists.
    cancel : threading.Event
        Set to give up waiting for another process's build.
    """

    def __init__(self, path: Path, cancel: threading.Event) -> None:
        self.path = path
        self.cancel = cancel

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of one entry or tool; `waiting` is called once if somebody else holds it."""
        lock = filelock.FileLock(self.path / f".{name}.lock", thread_local=False)
        told = False
        while True:
            try:
                lock.acquire(timeout=0.1, poll_interval=0.05)
                break
            except filelock.Timeout:
                if waiting and not told:
                    told = True
                    waiting()
                if self.cancel.is_set():
                    raise Cancelled("Waiting for another download was interrupted.", "Run the command again.") from None
            except OSError as error:
                raise StackError(
                    f"{self.path} is not writable for you.", "Set STREAMLAB_CACHE to a directory of your own."
                ) from error
        try:
            yield
        finally:
            lock.release()

    def ensure(
        self,
        name: str,
        build: Callable[[Path], None],
        *,
        waiting: Callable[[], None] | None = None,
    ) -> Path:
        """The directory of an entry; `build` fills it where it is missing or broken.

        Raises
        ------
        DownloadError
            `build` left nothing behind.
        """
        path = self.path / name
        if not self.problem(name):
            return path
        with self.lock(name, waiting):
            if not self.problem(name):
                return path
            self._sweep(name)
            temporary = Path(tempfile.mkdtemp(dir=self.path, prefix=f".{name}+"))
            try:
                build(temporary)
                _open_for_reading(temporary)
                manifest = _manifest(temporary)
                if not manifest:
                    raise DownloadError(f"The download of {name} left no files.", "Run the command again.")
                self._discard(name)
                temporary.rename(path)
                file = self.path / f"{name}.manifest"
                draft = file.with_suffix(".draft")
                draft.write_text(json.dumps(manifest), encoding="utf-8")
                draft.chmod(0o644)
                draft.replace(file)
            except OSError as error:
                if error.errno == 28:  # ENOSPC
                    raise StackError(
                        f"The disk that holds {self.path} is full.", "Free some space, or set STREAMLAB_CACHE."
                    ) from error
                raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return path

    def problem(self, name: str, *, deep: bool = False) -> str:
        """What is wrong with an entry, or an empty text. `deep` reads every byte."""
        try:
            content = json.loads((self.path / f"{name}.manifest").read_text(encoding="utf-8"))
            manifest = {str(file): (int(size), str(digest)) for file, (size, digest) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return f"{name} has not been fetched completely"
        root = self.path / name
        for relative, (size, digest) in manifest.items():
            file = root / relative
            try:
                if file.stat().st_size != size:
                    return f"{name}/{relative} has the wrong size"
                if deep and _digest(file) != digest:
                    return f"{name}/{relative} has the wrong content"
            except OSError:
                return f"{name}/{relative} is missing"
        return ""

    def discard_if_broken(self, name: str) -> str:
        """Read every byte of an entry and delete it where something is wrong; says what was."""
        if problem := self.problem(name, deep=True):
            with self.lock(name):
                # Another process may have made it again while we waited.
                if self.problem(name, deep=True):
                    self._discard(name)
        return problem

    def _sweep(self, name: str) -> None:
        """Delete what builds of this entry left that were killed. The caller holds the entry's lock."""
        for left in self.path.glob(f".{name}+*"):
            shutil.rmtree(left, ignore_errors=True)

    def names(self) -> list[str]:
        """The entries that have been fetched."""
        return sorted(p.name.removesuffix(".manifest") for p in self.path.glob("*.manifest"))

    def _discard(self, name: str) -> None:
        (self.path / f"{name}.manifest").unlink(missing_ok=True)
        path = self.path / name
        if path.exists():
            # Out of the way in one step: a server that still runs from it keeps its open files.
            grave = Path(tempfile.mkdtemp(dir=self.path, prefix=f".{name}+"))
            path.rename(grave / "x")
            shutil.rmtree(grave, ignore_errors=True)


def _manifest(root: Path) -> dict[str, tuple[int, str]]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): (p.stat().st_size, _digest(p)) for p in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_for_reading(root: Path) -> None:
    """Readable for the user that servers run as, whatever the umask was."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
