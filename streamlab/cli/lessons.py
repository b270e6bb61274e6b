"""`streamlab list`, `streamlab run`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streamlab.cli.show import console

__all__ = ["list_", "run"]


def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """List the lessons, with their minutes and the servers they need."""
    from streamlab.lab import runner

    every = runner.lessons()
    if as_json:
        rows = [
            {"lesson": each.slug, "title": each.title, "minutes": list(each.minutes), "needs": list(each.needs)}
            for each in every
        ]
        console.print_json(json.dumps({"lessons": rows}))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("lesson", "title", "minutes", "needs"):
        table.add_column(heading)
    for each in every:
        table.add_row(each.slug, each.title, f"{each.minutes[0]} + {each.minutes[1]}", ", ".join(each.needs))
    console.print(table)


def run(
    lessons: Annotated[list[str] | None, typer.Argument(help="Lessons, by name or number; all by default.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value; may be repeated.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that a folder for this run is made in.")
    ] = Path("runs"),
    autostart: Annotated[bool, typer.Option("--start/--no-start", help="Start the servers first.")] = True,
) -> None:
    """Run lessons in batch; leave notebooks, HTML and a summary behind.

    The exit code is 1 when a lesson fails; its notebook is kept.
    """
    from streamlab.cli.servers import start
    from streamlab.lab import runner

    chosen = [runner.find(name) for name in lessons] if lessons else runner.lessons()
    values = {}
    # Every parameter is looked at before anything is started.
    for lesson in chosen:
        values = runner.typed(lesson.slug, runner.parameters_of(lesson.path), parameter or ())
    if autostart:
        needed = [
            name for name in ("postgres", "mysql", "kafka", "connect") if any(name in each.needs for each in chosen)
        ]
        # A server that cannot be started fails its own lessons, with the reason; the others still run.
        if needed:
            start(needed)
    folder = output / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-5]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {each.slug: bar.add_task(each.slug, total=None, start=False) for each in chosen}

        def progress(lesson: runner.Lesson, done: int, total: int) -> None:
            if not bar.tasks[tasks[lesson.slug]].started:
                bar.start_task(tasks[lesson.slug])
            bar.update(tasks[lesson.slug], completed=done, total=total)

        def finished(one: runner.LessonRun) -> None:
            bar.remove_task(tasks[one.lesson])
            good = one.outcome == "passed"
            checks = f"{one.checks_passed} of {one.checks_total} checks passed" if one.checks_total else ""
            line = Text.assemble(
                ("✓" if good else "✗", "green" if good else "red"), f" {one.lesson:<28} {one.seconds:6.1f} s  {checks}"
            )
            bar.console.print(line)
            if one.error:
                bar.console.print(Text(f"  {one.error[:1500]}", "red"), soft_wrap=True)
                bar.console.print(Text(f"  kept: {folder / (one.lesson + '.ipynb')}"), soft_wrap=True)

        runs = runner.run_lessons(chosen, folder, parameters=values, progress=progress, finished=finished)
    console.print(Text(f"Look at {folder / 'index.html'}"), soft_wrap=True)
    if any(one.outcome != "passed" for one in runs):
        raise typer.Exit(1)
