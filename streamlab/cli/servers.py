"""`streamlab up`, `down`, `status`, `reset`, `logs`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from streamlab import settings
from streamlab.cli.show import console, megabytes, progress, say, seconds
from streamlab.errors import NotOurs, StackError

__all__ = ["down", "logs", "reset", "start", "status", "up"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_MARKS = {
    "running": ("●", "green"),
    "foreign": ("◆", "cyan"),
    "stopped": ("○", "dim"),
    "dead": ("✗", "red"),
    "unreachable": ("✗", "red"),
}


def start(services: list[str] | None = None) -> bool:
    """Start services with progress; whether all of them serve now."""
    from streamlab.stack import DEFAULT, Stack

    begin = time.monotonic()
    with progress(services or DEFAULT) as listener:
        outcomes = Stack().up(services or None, listener)
    for outcome in outcomes:
        mark, colour = ("✗", "red") if outcome.state == "failed" else ("✓", "green")
        text = {
            "started": f"started in {seconds(outcome.seconds)}",
            "running": "was running",
            "foreign": f"your own server ({settings.VARIABLES[outcome.service]})",
            "failed": "failed",
        }[outcome.state]
        console.print(Text.assemble((mark, colour), f" {outcome.service:<9} {outcome.version:<10} {text}"))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        assert outcome.error is not None  # noqa: S101 - filtered above
        say(outcome.error, f"{outcome.service}: ")
    if not failed:
        console.print(f"All up after {seconds(time.monotonic() - begin)}.", highlight=False)
    return not failed


def up(services: Annotated[list[str] | None, typer.Argument(help="Services; all by default.")] = None) -> None:
    """Start the servers and wait until they serve."""
    if not start(services):
        raise typer.Exit(1)


def down(
    services: Annotated[list[str] | None, typer.Argument(help="Services; all by default.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete data, state and passwords too.")] = False,
) -> None:
    """Stop the servers that streamlab started."""
    from streamlab.stack import SERVICES, Stack

    if purge and services:
        raise StackError("--purge deletes the data of every service.", "Run: streamlab down --purge")
    if purge and (foreign := [name for name in SERVICES if settings.given(name)]):
        raise NotOurs(
            f"purge is refused while the environment names servers of your own ({', '.join(foreign)}).",
            "Unset " + ", ".join(settings.VARIABLES[name] for name in foreign) + ", and run it again.",
        )
    with progress(services or SERVICES) as listener:
        stopped = Stack().down(services or None, purge=purge, listener=listener)
    console.print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.", highlight=False)
    if purge:
        console.print("Data, state and passwords are deleted; downloads are kept.")


def status(as_json: Json = False) -> None:
    """Show each server: state, version, address, memory, time to start."""
    from streamlab.stack import Stack

    stack = Stack()
    rows = stack.status()
    total = sum(row.rss_bytes for row in rows)
    if as_json:
        services = [asdict(row) for row in rows]
        console.print_json(json.dumps({"home": str(stack.home.path), "rss_bytes": total, "services": services}))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "service", "state", "version", "address", "pid"):
        table.add_column(heading)
    table.add_column("memory", justify="right")
    table.add_column("started in", justify="right")
    for row in rows:
        mark, colour = _MARKS[row.state]
        table.add_row(
            Text(mark, colour),
            row.title,
            {"foreign": "your own"}.get(row.state, row.state),
            row.version,
            f"{row.host}:{row.port}" if row.port else "",
            str(row.pid or ""),
            megabytes(row.rss_bytes),
            seconds(row.start_seconds) if row.state == "running" else "",
        )
    console.print(table)
    if total:
        console.print(f"Memory of all: {megabytes(total)}", highlight=False)
    console.print(Text(f"Home: {stack.home.path}", "dim"), soft_wrap=True)
    for row in rows:
        if row.problem:
            console.print(Text(f"{row.title}: {row.problem}", "red"), soft_wrap=True)
        if row.state == "dead":
            console.print(
                Text(f"{row.title} has died. See: streamlab logs {row.name}; start it again: streamlab up", "red")
            )


def reset(
    force: Annotated[bool, typer.Option("--force", help="Also while lessons run; they will fail.")] = False,
) -> None:
    """Drop everything that was made on the running servers, without a restart."""
    from streamlab.stack import SERVICES
    from streamlab.stack.reset import reset as run

    begin = time.monotonic()
    with progress(SERVICES) as listener:
        counts = run(force=force, listener=listener)
    told = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    console.print(
        f"Dropped {told or 'nothing: all was clean'}, in {seconds(time.monotonic() - begin)}.", highlight=False
    )


def logs(
    service: Annotated[str, typer.Argument(help="The service.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Show the end of a server's log."""
    from streamlab.stack import SERVICES, Home
    from streamlab.stack.process import tail

    if service not in SERVICES:
        raise StackError(f"There is no service called {service}.", f"Services: {', '.join(SERVICES)}.")
    if settings.given(service):
        raise NotOurs(f"{service} is a server of your own; streamlab does not have its log.", "Look where it runs.")
    log = Home().path / service / "log"
    if not log.exists():
        raise StackError(f"{service} has no log yet.", f"Start it: streamlab up {service}")
    console.out(tail(log, lines), highlight=False)
    if not follow:
        return
    # As `tail -F`: a restart replaces the file.
    position = log.stat()
    file = log.open("rb")
    file.seek(0, 2)
    try:
        while True:
            if chunk := file.read():
                console.out(chunk.decode("utf-8", "replace"), end="", highlight=False)
                continue
            time.sleep(0.2)
            if log.exists() and log.stat().st_ino != position.st_ino:
                file.close()
                position = log.stat()
                file = log.open("rb")
    finally:
        file.close()
