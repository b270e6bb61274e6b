"""How the command line speaks: one console, progress of several services at once, errors as sentences."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from streamlab.errors import StreamlabError

__all__ = ["console", "errors", "guarded", "megabytes", "progress", "seconds"]

console = Console()
errors = Console(stderr=True)


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
    """Show what is being done for each service; yields the listener to pass on.

    On a terminal the lines are redrawn; elsewhere each message is a line of its own.
    """
    if not console.is_terminal:

        def plain(name: str, text: str) -> None:
            console.print(f"{name}: {text}", highlight=False, soft_wrap=True)

        yield plain
        return
    board = _Board(names)
    with Live(board, console=console, refresh_per_second=12, transient=True):
        yield board.tell


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def guarded(call: Callable[[], object]) -> int:
    """Run a command; what a person can do something about is a sentence, not a traceback.

    Returns
    -------
    int
        The exit code: 0, 1 after an error of ours, 130 after Ctrl-C or SIGTERM.
    """
    if threading.current_thread() is threading.main_thread():
        # Ended by a supervisor or a closing terminal: tidy up as after Ctrl-C.
        signal.signal(signal.SIGTERM, _terminate)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, _terminate)
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
        errors.print("Interrupted.", style="yellow")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`streamlab status | head`).
        sys.stderr.close()
        return 1
    return code if isinstance(code, int) else 0


def say(error: StreamlabError, prefix: str = "") -> None:
    """Show an error: the problem, then the next step."""
    errors.print(Text.assemble((f"{prefix}{error.problem}", "red")), highlight=False, soft_wrap=True)
    if error.fix:
        errors.print(Text(f"  → {error.fix}"), highlight=False, soft_wrap=True)
