"""`streamlab connect`: configurations of connectors."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from streamlab.cli.show import console, document
from streamlab.errors import ConnectError

if TYPE_CHECKING:
    from streamlab.connect.lint import Finding

__all__ = ["app", "lint"]

app = typer.Typer(help="Work on configurations of Kafka Connect.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `lint` a command of its own: typer folds a group with a single command into it."""


@app.command()
def lint(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="A connector's configuration; - reads it from standard input.")
    ],
    worker: Annotated[
        bool, typer.Option("--worker", help="Check against the plugins of the running Kafka Connect.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what is outdated, unknown, without effect or unsafe in a connector's configuration.

    The exit code is 1 when there is an error; warnings leave it at 0.
    """
    from streamlab.connect.catalog import Catalog
    from streamlab.connect.lint import Level, lint_text

    text = _read(file)
    catalog = Catalog.load()
    if worker:
        from streamlab.connect.client import ConnectClient

        with ConnectClient() as client:
            catalog = client.catalog()
    found = lint_text(text, catalog)
    wrong = sum(each.level is Level.ERROR for each in found)
    if as_json:
        document({"file": str(file), "ok": not wrong, "findings": [asdict(each) for each in found]})
    else:
        for each in found:
            _show(file, each)
        console.print(
            Text(f"{file}: {_count(wrong, 'error')}, {_count(len(found) - wrong, 'warning')}."), soft_wrap=True
        )
    if wrong:
        raise typer.Exit(1)


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConnectError(f"There is no file {file}.", "Name a file that holds a configuration as JSON.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectError(
            f"{file} cannot be read: {error}.", "Name a file that holds a configuration as JSON."
        ) from error


def _show(file: Path, finding: Finding) -> None:
    mark, colour = ("✗", "red") if finding.level == "error" else ("!", "yellow")
    # file:line is what editors and terminals make a link of.
    head = Text.assemble((mark, colour), f" {file}:{finding.line} ", (finding.kind, "bold"), f" {finding.problem}")
    console.print(head, soft_wrap=True)
    console.print(Text(f"  → {finding.fix}"), soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
