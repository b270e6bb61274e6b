"""The one table of services, and the order that they are started and stopped in."""

from __future__ import annotations

from streamlab import settings
from streamlab.errors import StackError
from streamlab.stack.connect import Connect, Connect2, Connect3
from streamlab.stack.kafka import Kafka
from streamlab.stack.mysql import MySQL
from streamlab.stack.postgres import PostgreSQL
from streamlab.stack.registry import Registry
from streamlab.stack.service import Service
from streamlab.stack.standalone import ConnectStandalone

__all__ = ["DEFAULT", "SERVICES", "WORKERS", "known", "waves", "with_needs", "with_workers"]

SERVICES: dict[str, type[Service]] = {
    cls.name: cls for cls in (PostgreSQL, MySQL, Kafka, Connect, Connect2, Connect3, ConnectStandalone, Registry)
}
"""Every service that `streamlab up NAME` knows."""

DEFAULT = ("postgres", "mysql", "kafka", "connect")
"""What `streamlab up` starts. The others are started on demand, by name."""


WORKERS = settings.CONNECT_WORKERS
"""The workers of Kafka Connect that may be a group, the first one first."""


def known(name: str) -> str:
    """The name, if a service is called so.

    Raises
    ------
    StackError
        None is.
    """
    if name not in SERVICES:
        raise StackError(f"There is no service called {name}.", f"Services: {', '.join(SERVICES)}.")
    return name


def with_needs(names: list[str]) -> list[str]:
    """Services and what they need, which comes first; each once."""
    found: list[str] = []
    for name in names:
        for each in (*SERVICES[known(name)].after, name):
            if each not in found:
                found.append(each)
    return found


def with_workers(names: list[str], count: int) -> list[str]:
    """The names with as many workers of Kafka Connect in its place; those that run beyond that are left alone.

    Raises
    ------
    StackError
        Kafka Connect is not among the names, is the user's own, or so many workers there cannot be.
    """
    if not 1 <= count <= len(WORKERS):
        raise StackError(f"There can be 1 to {len(WORKERS)} workers, not {count}.", "Each takes 200 to 300 MB.")
    if WORKERS[0] not in names:
        raise StackError(
            "Workers are those of Kafka Connect, which is not named.", "Run: streamlab up connect --workers 3"
        )
    if count > 1 and settings.given(WORKERS[0]):
        raise StackError(
            f"{settings.VARIABLES[WORKERS[0]]} names a Kafka Connect of your own, and no worker can be added to that.",
            "Unset it to use streamlab's own.",
        )
    return [*names, *(name for name in WORKERS[1:count] if name not in names)]


def waves(names: list[str]) -> list[list[str]]:
    """Those that depend on others first, then the rest: the order to end them in."""
    dependent = [name for name in names if SERVICES[name].after]
    return [dependent, [name for name in names if name not in dependent]]
