"""How the command line speaks: results, progress of several services at once, errors as sentences.

Results go to standard output; progress and errors go to standard error, so that ``--json`` leaves one
document on standard output and nothing else. Where the reader of an output has gone (``| head``), the command goes on
without it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from streamlab.errors import StreamlabError

__all__ = [
    "console",
    "document",
    "errors",
    "guarded",
    "megabytes",
    "progress",
    "reader_gone",
    "say",
    "seconds",
    "write",
]

_INTERRUPTED = 130
_GONE = 141
"""The usual exit code of a program whose reader has gone: 128 and SIGPIPE."""


def _to_nowhere(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Console(Console):
    """A console that falls silent when its reader has gone; rich's own would end the command."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        _to_nowhere(self.file)


def _made(**options: Any) -> _Console:
    made = _Console(**options)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        # A file or a program reads it: no line is broken at rich's 80 columns.
        made.width = 200
    return made


console = _made()
errors = _made(stderr=True)


def write(text: str | bytes) -> None:
    """Write to standard output as it is, at once; ends the command where its reader has gone."""
    try:
        if isinstance(text, bytes):
            sys.stdout.buffer.write(text)
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
        raise typer.Exit(_GONE) from None


def reader_gone() -> bool:
    """Whether nobody reads standard output any more; told without writing to it."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def document(value: Any) -> None:
    """Write one JSON document to standard output; in ASCII, so that every encoding can hold it."""
    write(json.dumps(value, indent=2) + "\n")


def megabytes(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**20:,.0f} MiB" if count else ""


def seconds(value: float | None) -> str:
    """A duration as a person reads it."""
    return f"{value:.1f} s" if value is not None else ""


class _Board:
    """One line for each service, redrawn while work goes on. Called from any thread."""

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._lines: dict[str, tuple[str, float]] = dict.fromkeys(names, ("waiting", self._began))
        self._spinner = Spinner("dots")

    def tell(self, name: str, text: str) -> None:
        with self._lock:
            self._lines[name] = (text, time.monotonic())

    def __rich__(self) -> RenderableType:
        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        with self._lock:
            for name, (text, since) in self._lines.items():
                done = text.startswith(("up in", "stopped", "was not", "failed"))
                mark: RenderableType = (
                    Text("✗" if text == "failed" else "✓", "red" if text == "failed" else "green")
                    if done
                    else self._spinner
                )
                table.add_row(mark, Text(name, "bold"), text, "" if done else Text(f"{now - since:.0f} s", "dim"))
        return Group(table)


@contextlib.contextmanager
def progress(names: Iterable[str]) -> Iterator[Callable[[str, str], None]]:
    """Show what is being done for each service, on standard error; yields the listener to pass on.

    On a terminal the lines are redrawn; elsewhere each message is a line of its own.
    """
    if not errors.is_terminal or errors.is_dumb_terminal:

        def plain(name: str, text: str) -> None:
            errors.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)

        yield plain
        return
    board = _Board(names)
    with Live(board, console=errors, refresh_per_second=12, transient=True):
        yield board.tell


class _Signals:
    """Ctrl-C, a supervisor's SIGTERM and a closing terminal are one thing: the command tidies up and ends.

    The first raises `KeyboardInterrupt`. Those that follow must not cut the tidying short: they only say that it goes
    on.
    """

    def __init__(self) -> None:
        self.came = False

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What was ignored stays so: nohup, and jobs in the background of a script.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):
            os.write(2, b"Still tidying up.\n")


def guarded(call: Callable[[], object]) -> int:
    """Run a command; what a person can do something about is a sentence, not a traceback.

    Returns
    -------
    int
        The exit code: 0, 1 after an error of ours, 2 after wrong usage, 130 after Ctrl-C or SIGTERM.
    """
    _Signals().install()
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding gets a question mark, not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = call()
    except StreamlabError as error:
        say(error)
        return 1
    except TyperException as error:
        # Wrong usage: typer knows how to show it.
        if hasattr(error, "show"):
            error.show()
        else:
            errors.print(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    # typer itself makes an exit code of a KeyboardInterrupt.
    if code == _INTERRUPTED:
        errors.print("Interrupted.", style="yellow")
    return code if isinstance(code, int) else 0


def say(error: StreamlabError, prefix: str = "") -> None:
    """Show an error: the problem, then the next step."""
    errors.print(Text.assemble((f"{prefix}{error.problem}", "red")), highlight=False, soft_wrap=True)
    if error.fix:
        errors.print(Text(f"  → {error.fix}"), highlight=False, soft_wrap=True)
