"""The command line: `streamlab`, or `python -m streamlab`.

Each module of this package holds one group of commands; what they need is imported when they run, so that
`streamlab --help` is quick.
"""

from __future__ import annotations

import typer

from streamlab.cli import connect, doctor, lessons, metrics, nb, servers, tools
from streamlab.cli.show import guarded, write

__all__ = ["app", "main"]

app = typer.Typer(
    name="streamlab",
    help="Real-time and streaming database patterns, run against real servers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    servers.up,
    servers.down,
    servers.status,
    doctor.doctor,
    servers.reset,
    servers.logs,
    metrics.metrics,
    lessons.list_,
    lessons.run,
    tools.lab,
    tools.test,
    tools.bench,
):
    app.command(_command.__name__.rstrip("_"))(_command)
app.add_typer(connect.app, name="connect")
app.add_typer(nb.app, name="nb")


@app.command()
def version() -> None:
    """Print the version."""
    from streamlab import __version__

    write(__version__ + "\n")


def main() -> int:
    """Run the command line; returns the exit code."""
    return guarded(lambda: app(standalone_mode=False))
