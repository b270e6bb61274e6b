"""`streamlab list`, `streamlab run`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streamlab.cli.show import console, document, errors
from streamlab.errors import LessonError

if TYPE_CHECKING:
    from streamlab.lab.runner import Lesson, LessonRun

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
        document({"lessons": rows})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("lesson", "title", "minutes", "needs"):
        table.add_column(heading, no_wrap=heading in {"lesson", "minutes"})
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON for programs.")] = False,
) -> None:
    """Run lessons in batch; leave notebooks, HTML and a summary behind.

    The exit code is 1 when a lesson fails; its notebook is kept.
    """
    from streamlab.cli.servers import start
    from streamlab.lab import runner

    chosen = _chosen(lessons)
    # Every parameter is looked at before anything is started.
    values = runner.parameters_for(chosen, parameter or ())
    out = errors if as_json else console
    if autostart:
        needed = [
            name for name in ("postgres", "mysql", "kafka", "connect") if any(name in each.needs for each in chosen)
        ]
        # A server that cannot be started fails its own lessons, with the reason; the others still run.
        if needed:
            start(needed, out)
    folder = output / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")[:-5]
    runs = _run(chosen, folder, values, out)
    if as_json:
        document({"folder": str(folder.absolute()), "lessons": [asdict(one) for one in runs]})
    else:
        console.print(Text(f"Look at {folder / 'index.html'}"), soft_wrap=True)
    if any(one.outcome != "passed" for one in runs):
        raise typer.Exit(1)


def _chosen(names: list[str] | None) -> list[Lesson]:
    """The lessons as they were typed, each once; all of them by default."""
    from streamlab.lab import runner

    found: dict[str, Lesson] = {}
    for lesson in [runner.find(name) for name in names] if names else runner.lessons():
        other = found.setdefault(lesson.slug, lesson)
        if not other.path.samefile(lesson.path):
            raise LessonError(
                f"{other.path} and {lesson.path} have the same name, and one would overwrite what the other leaves.",
                "Run them one after the other.",
            )
    return list(found.values())


def _run(chosen: list[Lesson], folder: Path, values: dict[str, dict[str, Any]], out: Console) -> list[LessonRun]:
    """Run lessons, with a bar for the one that runs and a line for each that has ended."""
    from streamlab.lab import runner

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
    )
    ended = 0
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal or out.is_dumb_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(lesson: Lesson, done: int, total: int) -> None:
            counted = f"{ended + 1}/{len(chosen)} " if len(chosen) > 1 else ""
            if bar.tasks[0].description != counted + lesson.slug:
                bar.reset(task, description=counted + lesson.slug)
            bar.update(task, completed=done, total=total)

        def finished(one: LessonRun) -> None:
            nonlocal ended
            ended += 1
            good = one.outcome == "passed"
            checks = f"{one.checks_passed} of {one.checks_total} checks passed" if one.checks_total else ""
            mark = ("✓", "green") if good else ("✗", "red")
            bar.console.print(Text.assemble(mark, f" {one.lesson:<{width}} {one.seconds:6.1f} s  {checks}".rstrip()))
            if one.error:
                bar.console.print(Text(f"  {one.error[:1500]}", "red"), soft_wrap=True)
                bar.console.print(Text(f"  kept: {folder / (one.lesson + '.ipynb')}"), soft_wrap=True)

        width = max((len(each.slug) for each in chosen), default=0)
        if chosen:
            progress(chosen[0], 0, 1)
        return runner.run_lessons(chosen, folder, parameters=values, progress=progress, finished=finished)
