"""`streamlab up`, `down`, `status`, `reset`, `logs`."""

from __future__ import annotations

import contextlib
import difflib
import os
import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from streamlab import settings
from streamlab.cli.show import console, document, megabytes, progress, reader_gone, say, seconds, write
from streamlab.errors import NotOurs, StackError

if TYPE_CHECKING:
    from streamlab.ops.streams import ConnectorRow, Streams
    from streamlab.stack import ServiceStatus

__all__ = ["down", "logs", "reset", "start", "status", "up"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_MARKS = {
    "running": ("●", "green"),
    "foreign": ("◆", "cyan"),
    "stopped": ("○", "dim"),
    "dead": ("✗", "red"),
    "unreachable": ("✗", "red"),
}


def _known(services: list[str] | None) -> list[str] | None:
    """The services as they were typed; an unknown one is refused, with the nearest name."""
    from streamlab.stack import SERVICES

    for name in services or ():
        if name not in SERVICES:
            near = difflib.get_close_matches(name, SERVICES, n=1, cutoff=0.5)
            raise StackError(
                f"There is no service called {name}.",
                f"Did you mean {near[0]}?" if near else f"Services: {', '.join(SERVICES)}.",
            )
    return services or None


def start(services: list[str] | None = None, out: Console = console, *, workers: int = 1) -> bool:
    """Start services with progress, with so many workers of Kafka Connect; whether all of them serve now."""
    from streamlab.stack import DEFAULT, Stack
    from streamlab.stack.services import with_workers

    begin = time.monotonic()
    services = _known(services)
    if workers != 1:
        services = with_workers(services or list(DEFAULT), workers)
    with progress(services or DEFAULT) as listener:
        outcomes = Stack().up(services, listener)
    width = max((len(outcome.service) for outcome in outcomes), default=0)
    for outcome in outcomes:
        mark, colour = ("✗", "red") if outcome.state == "failed" else ("✓", "green")
        text = {
            "started": f"started in {seconds(outcome.seconds)}",
            "running": "was running",
            "foreign": f"your own server ({settings.VARIABLES.get(outcome.service)})",
            "failed": "failed",
        }[outcome.state]
        out.print(Text.assemble((mark, colour), f" {outcome.service:<{max(9, width)}} {outcome.version:<10} {text}"))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        assert outcome.error is not None  # noqa: S101 - filtered above
        say(outcome.error, f"{outcome.service}: ")
    if not failed:
        out.print(f"All up after {seconds(time.monotonic() - begin)}.", highlight=False)
    return not failed


def up(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; by default those that are not started on demand alone.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="How many workers Kafka Connect has: 1 to 3.")] = 1,
) -> None:
    """Start the servers and wait until they serve."""
    if not start(services, workers=workers):
        raise typer.Exit(1)


def down(
    services: Annotated[list[str] | None, typer.Argument(help="Services; all by default.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete data, state and passwords too.")] = False,
) -> None:
    """Stop the servers that streamlab started."""
    from streamlab.stack import SERVICES, Stack

    if purge and services:
        raise StackError("--purge deletes the data of every service.", "Run: streamlab down --purge")
    services = _known(services)
    with progress(services or SERVICES) as listener:
        stopped = Stack().down(services, purge=purge, listener=listener)
    console.print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.", highlight=False)
    if purge:
        console.print("Data, state and passwords are deleted; downloads are kept.")


def status(as_json: Json = False) -> None:
    """Show each server, and what flows: connectors with lag and last error, topics, consumer groups."""
    from streamlab.ops.streams import look
    from streamlab.stack import Stack

    stack = Stack()
    rows = stack.status()
    total = sum(row.rss_bytes for row in rows)
    streams = look(row.name for row in rows if row.state in {"running", "foreign"})
    if as_json:
        services = [asdict(row) for row in rows]
        flowing = asdict(streams)
        document({"home": str(stack.home.path), "rss_bytes": total, "services": services, **flowing})
        return
    console.print(_table(rows))
    if total:
        console.print(f"Memory of all: {megabytes(total)}", highlight=False)
    console.print(Text(f"Home: {stack.home.path}", "dim"), soft_wrap=True)
    for row in rows:
        if row.problem:
            console.print(Text(f"{row.title}: {row.problem}", "red"), soft_wrap=True)
            console.print(Text(f"  → {row.fix}"), soft_wrap=True)
        if row.state == "dead":
            console.print(
                Text(f"{row.title} has died. See: streamlab logs {row.name}; start it again: streamlab up", "red"),
                soft_wrap=True,
            )
    _show_streams(streams)


def _show_streams(streams: Streams) -> None:
    """Connectors, topics and groups, each where there are any."""
    if streams.connectors:
        table = _plain("connector", "state", "tasks", "lag")
        for each in streams.connectors:
            colour = {"RUNNING": "green", "FAILED": "red"}.get(each.state, "yellow")
            running = f"{each.tasks_running} of {each.tasks}"
            table.add_row(Text(each.name), Text(each.state, colour), running, _lag(each))
        _section(table)
        for each in streams.connectors:
            if each.error:
                console.print(Text(f"{each.name}: {each.error}", "red"), soft_wrap=True)
                if each.log:
                    console.print(Text(f"  → See: streamlab logs {each.log}"), soft_wrap=True)
    if streams.topics:
        table = _plain("topic", "partitions", "offsets")
        for topic in streams.topics:
            table.add_row(
                Text(topic.name), str(topic.partitions), "" if topic.offsets is None else f"{topic.offsets:,}"
            )
        _section(table)
    if streams.groups:
        table = _plain("consumer group", "topics", "lag")
        for group in streams.groups:
            table.add_row(Text(group.name), Text(", ".join(group.topics)), f"{group.lag_records:,} records")
        _section(table)
    for name, problem in streams.problems.items():
        console.print(Text(f"{name}: {problem}", "yellow"), soft_wrap=True)


def _plain(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in {"partitions", "offsets", "lag"} else "left")
    return table


def _section(table: Table) -> None:
    console.print()
    console.print(table)


def _lag(row: ConnectorRow) -> str:
    if row.lag_records is not None:
        return f"{row.lag_records:,} records"
    return "" if row.lag_bytes is None else f"{row.lag_bytes:,} bytes"


def _table(rows: list[ServiceStatus]) -> Table:
    """The servers; on a narrow terminal without the columns that matter least."""
    columns = ["service", "state", "version", "address", "pid", "memory", "started in"]
    for left_out in ("", "pid", "started in", "version", "memory"):
        if left_out:
            columns.remove(left_out)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("", *columns):
            table.add_column(heading, justify="right" if heading in {"memory", "started in"} else "left")
        for row in rows:
            mark, colour = _MARKS[row.state]
            cells = {
                "service": row.title,
                "state": {"foreign": "your own"}.get(row.state, row.state),
                "version": row.version,
                "address": f"{row.host}:{row.port}" if row.port else "",
                "pid": str(row.pid or ""),
                "memory": megabytes(row.rss_bytes),
                "started in": seconds(row.start_seconds) if row.state == "running" else "",
            }
            table.add_row(Text(mark, colour), *(cells[column] for column in columns))
        if Measurement.get(console, console.options.update(max_width=1000), table).maximum <= console.width:
            break
    return table


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
    from streamlab.stack import Home

    _known([service])
    if settings.given(service):
        raise NotOurs(f"{service} is a server of your own; streamlab does not have its log.", "Look where it runs.")
    log = Home().path / service / "log"
    try:
        file = log.open("rb")
    except FileNotFoundError as error:
        raise StackError(f"{service} has no log yet.", f"Start it: streamlab up {service}") from error
    except PermissionError as error:
        raise StackError(f"{log} belongs to another user.", "Set STREAMLAB_HOME to a directory of your own.") from error
    try:
        write(b"".join(deque(file, lines)))
        while follow and not reader_gone():
            if chunk := file.read():
                write(chunk)
                continue
            time.sleep(0.2)
            # As `tail -F`: a restart puts another file in place. There may be none for a moment, or after a purge.
            with contextlib.suppress(FileNotFoundError):
                if not os.path.samestat(log.stat(), os.fstat(file.fileno())):
                    fresh = log.open("rb")
                    # What the server wrote while it ended.
                    write(file.read())
                    file.close()
                    file = fresh
    finally:
        file.close()
