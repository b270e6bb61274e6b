"""`streamlab nb`: notebooks as git should hold them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from streamlab.cli.show import console, document

__all__ = ["app", "clean"]

app = typer.Typer(help="Work on notebook files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `clean` a command of its own: typer folds a group with a single command into it."""


@app.command()
def clean(
    paths: Annotated[list[Path], typer.Argument(help="Notebooks, or directories of notebooks.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; say what is wrong.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Strip outputs, counts and metadata that git should not hold.

    What no program can mend (a lesson's cell that is too long, a missing title) is listed. The exit code is
    1 while anything is wrong, so that --check serves as a gate.
    """
    from streamlab.lab import hygiene

    files = list(hygiene.notebooks(paths))
    changed = [] if check else [path for path in files if hygiene.tidy(path)]
    found = [finding for path in files for finding in hygiene.findings(path)]
    if as_json:
        rows = [{**asdict(finding), "path": str(finding.path)} for finding in found]
        document({"checked": len(files), "changed": [str(p) for p in changed], "findings": rows})
    else:
        for path in changed:
            console.print(Text(f"cleaned {path}"), soft_wrap=True)
        for finding in found:
            console.print(Text(str(finding)), soft_wrap=True)
        noun = "notebook" if len(files) == 1 else "notebooks"
        wrong = f"{len(found)} things are wrong" if len(found) != 1 else "one thing is wrong"
        console.print(f"{len(files)} {noun}: {wrong if found else 'clean'}.", highlight=False)
        if check and any(finding.mended for finding in found):
            console.print("What can be mended is mended by: streamlab nb clean PATH", highlight=False, markup=False)
    if found:
        raise typer.Exit(1)
