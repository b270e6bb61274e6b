"""`streamlab metrics`: what the servers can be asked, for a person or for Prometheus."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from streamlab.cli.show import console, document, errors, write
from streamlab.errors import SettingsError

if TYPE_CHECKING:
    from streamlab.ops.servers import Asked

__all__ = ["metrics"]


def metrics(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    port: Annotated[
        int | None, typer.Option("--serve", metavar="PORT", help="Serve them over HTTP, on 127.0.0.1; 0: any port.")
    ] = None,
) -> None:
    """Print what the servers tell of slots, binary log, consumer lag and connectors.

    A server that does not answer is in the figures too: streamlab_up is 0. The exit code is 0 all the same.
    """
    from prometheus_client import CollectorRegistry

    from streamlab import metrics as ground
    from streamlab.ops.servers import ServersCollector

    collector = ServersCollector()
    if port is not None:
        if as_json:
            raise SettingsError("--serve speaks Prometheus' text format alone.", "Leave out --json.")
        registry = CollectorRegistry()
        registry.register(collector)
        with ground.serve(port, registry) as server:
            console.print(Text(f"{server.url} (Ctrl-C ends it)"), soft_wrap=True)
            threading.Event().wait()
        return
    asked = collector.ask()
    if as_json:
        document(_document(asked))
        return
    # The text format is for programs: what is wrong is said beside it.
    write(ground.render(asked))
    for answer in asked.answers:
        if answer.problem:
            errors.print(Text(f"{answer.service}: {answer.problem}", "yellow"), soft_wrap=True)


def _document(asked: Asked) -> dict[str, Any]:
    return {
        "services": [
            {
                "service": answer.service,
                "up": answer.up,
                "complete": answer.complete,
                "seconds": round(answer.seconds, 4),
                "problem": answer.problem,
            }
            for answer in asked.answers
        ],
        "metrics": [
            {
                "name": family.name,
                "help": family.documentation,
                "kind": family.type,
                "samples": [{"labels": sample.labels, "value": sample.value} for sample in family.samples],
            }
            for family in asked.collect()
        ],
    }
