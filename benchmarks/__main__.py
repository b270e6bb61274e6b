"""``python -m benchmarks [NAME...] [--quick] [--json FILE]``: run benchmarks, print their table.

The exit code is 1 when a case could not be run; a goal that is not met is in the table and is no failure.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from benchmarks import report
from benchmarks.case import Bench
from benchmarks.catalogue import choose
from benchmarks.references import References
from benchmarks.runner import cases_of, run
from benchmarks.servers import Servers
from streamlab.cli.show import console, errors, guarded

WIDTH = 132
"""Columns of the table where the output is no terminal."""


class _Board:
    """How far a run is: redrawn on a terminal, elsewhere one line for each case, apart from the table."""

    def __init__(self, cases: int) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.bar = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
        self._all = self.bar.add_task("cases", total=cases)
        self._one: TaskID | None = None

    def case(self, name: str, rounds: int) -> None:
        self.end()
        self._one = self.bar.add_task(f"{name}: rounds", total=rounds)
        if not errors.is_terminal:
            self.tell(f"{name}: {rounds} {'round' if rounds == 1 else 'rounds'}")

    def round(self, number: int) -> None:
        if self._one is not None:
            self.bar.update(self._one, completed=number)

    def tell(self, text: str) -> None:
        # As text: between colons rich would look for the names of pictures.
        errors.print(Text(text, "dim"), soft_wrap=True)

    def end(self) -> None:
        if self._one is not None:
            self.bar.remove_task(self._one)
            self.bar.advance(self._all)
            self._one = None


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks (stack) or cases of one (stack:import); all by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and fast: to see that it runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Run benchmarks: ours and the references, interleaved in one run."""
    chosen = choose(names or ())
    if json_file:
        report.refuse_unwritable(json_file)
    board, machine, about = _Board(cases_of(chosen)), report.machine(), report.origin(quick=quick)
    with Servers() as servers, board.bar:
        rows = list(run(chosen, Bench(quick, servers, References(tell=board.tell)), board))
        board.end()
    if json_file:
        report.write_json(json_file, rows, about)
    (console if console.is_terminal else Console(width=WIDTH)).print(report.table(rows))
    board.tell(machine)
    failed = {(row.benchmark, row.case): row.error for row in rows if row.error}
    for (benchmark, case), error in failed.items():
        errors.print(Text(f"{benchmark}:{case} failed: {error}", "red"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(main)
    sys.exit(guarded(lambda: app(standalone_mode=False, prog_name="python -m benchmarks")))
