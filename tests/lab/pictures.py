"""Pictures for tests: the stack in every state that it has, and graphs that are hard to draw."""

from __future__ import annotations

from dataclasses import dataclass

from streamlab.lab.diagram import Diagram, Edge, Icon, Mark, Node
from streamlab.lab.topology import overview, topology

STATES = ("running", "stopped", "dead", "foreign", "starting", "unreachable")


@dataclass(frozen=True)
class Row:
    """What `Stack.status()` says of a server."""

    name: str
    state: str = "running"
    version: str = "18.1"
    host: str = "127.0.0.1"
    port: int = 25432
    start_seconds: float | None = 1.24


SERVICES = ("postgres", "mysql", "kafka", "connect")


def rows(**states: str) -> list[Row]:
    return [Row(name, states.get(name, "running"), port=25400 + place) for place, name in enumerate(SERVICES)]


LONG = "18.1 (Debian 18.1-1.pgdg120+2) on x86_64-pc-linux-gnu, compiled by gcc"

PICTURES: dict[str, Diagram] = {
    **{state: topology(rows(**dict.fromkeys(SERVICES, state))) for state in STATES},
    "mixed": topology(
        rows(postgres="foreign", mysql="dead", connect="starting", kafka="stopped"),
        progress={"connect": "waiting for Kafka"},
    ),
    "nothing known": topology([Row(name, "stopped", "", "", 0, None) for name in SERVICES]),
    "postgres alone": topology(rows(), only=["postgres"]),
    "mysql alone": topology(rows(), only=["mysql"]),
    "kafka and postgres": topology(rows(), only=["kafka", "postgres"]),
    "with a registry": topology([*rows(), Row("registry", port=25481)]),
    "no servers": topology([]),
    "long texts": topology(
        [Row("postgres", "running", LONG, "db-7.internal.a-long-name.example.org"), *rows()[1:]],
        progress={"kafka": "waiting until the controller has elected a leader for every partition"},
    ),
    "overview": overview(),
    "plain": Diagram.of(["a", "b"], [("a", "b")]),
    "markup": Diagram.of(["<b>&\"'", "\0]]>"], [("<b>&\"'", "\0]]>", "</text>")], title="<script>"),
    "wide letters": Diagram.of([Node("w", "WWWWWWWWWW", ("MMMMMMMM", "@@@@@@@@@"), Icon.TABLE, Mark.OTHER, "WWWWWW")]),
    "lanes": Diagram.of(
        ["a", "b", "c", "d", Node("e", "E", column=1, row=1)],
        [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d", "whole way"), ("a", "c", "skips b"), ("d", "a", "back"),
         ("d", "b", "short back"), ("a", "e"), ("e", "d", "up")],
        title="Lanes",
    ),
    "crowded": Diagram.of(
        [*(f"source {n}" for n in range(7)), "hub"], [(f"source {n}", "hub", "rows") for n in range(7)], title="Crowded"
    ),
    "tall": Diagram.of(
        [Node("s", "shop", rows=3, icon=Icon.PERSON), *(Node(f"t{n}", f"table {n}", ("x",)) for n in range(3)),
         Node("z", "sink", column=2, rows=3, icon=Icon.PROGRAM, mark=Mark.BUSY, status="busy")],
        [*(("s", f"t{n}") for n in range(3)), *((f"t{n}", "z", "rows") for n in range(3)),
         Edge("z", "s", "late", active=False)],
    ),
}  # fmt: skip
