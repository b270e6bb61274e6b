"""`streamlab lab`, `streamlab test`, `streamlab bench`: programs of others, set up for this project."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from streamlab.cli.show import console
from streamlab.errors import StackError

__all__ = ["bench", "lab", "test"]


def _checkout(needed: str) -> Path:
    root = Path(__file__).parents[2]
    if not (root / needed).exists():
        raise StackError(f"There is no {needed} beside the package.", "Run this in a checkout of the project.")
    return root


def _run(command: list[str], root: Path, env: dict[str, str] | None = None) -> int:
    """Run a program to its end, whatever comes; its exit code, 128 and more where a signal ended it.

    Ctrl-C reaches it from the terminal, as it does us. A signal that was sent to us alone is passed on.
    """
    process = subprocess.Popen(command, cwd=root, env={**os.environ, **(env or {})})

    def passed_on(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGINT or not _in_foreground():
            process.send_signal(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, passed_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to our process group, and so to the program too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def lab(
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start the servers first.")] = True,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Port of JupyterLab; another if it is taken.")
    ] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on the lessons, with the servers up."""
    from streamlab.cli.servers import start as start_servers

    root = _checkout("notebooks")
    if start and not start_servers():
        console.print("Lessons that need a server which is not up will say so.", style="yellow")
    command = [
        sys.executable, "-m", "jupyter", "lab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={root / 'notebooks'}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    from streamlab.lab import kernel

    # Without it JupyterLab asks each reader about news, on top of the lesson.
    configuration = [str(files("streamlab.lab") / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    environment = {
        **kernel.environment(batch=False),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, configuration)),
    }
    raise typer.Exit(_run(command, root, environment))


def test(
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to pytest.")] = None,
    soak: Annotated[bool, typer.Option("--soak", help="Run the long proofs too.")] = False,
) -> None:
    """Run the test suite, on servers and ports of its own that are stopped at the end.

    Three processes share the work, each with servers of its own; -- -n 0 runs it in one, as a debugger needs.
    """
    root = _checkout("tests")
    # Three also for two cores: each waits for servers for a good part of its time. The files' order is the suite's own.
    processes = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *processes, *(arguments or [])]
    raise typer.Exit(_run(command, root, {"STREAMLAB_SOAK": "1"} if soak else None))


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; all by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and fast: to see that it runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Run the benchmarks: ours and the references, interleaved in one run."""
    root = _checkout("benchmarks")
    command = [sys.executable, "-m", "benchmarks", *(names or [])]
    if quick:
        command.append("--quick")
    if json_file:
        command += ["--json", str(json_file.absolute())]
    raise typer.Exit(_run(command, root))
