"""The one table of services, and the order that they are started and stopped in."""

from __future__ import annotations

from streamlab.errors import StackError
from streamlab.stack.connect import Connect
from streamlab.stack.kafka import Kafka
from streamlab.stack.mysql import MySQL
from streamlab.stack.postgres import PostgreSQL
from streamlab.stack.registry import Registry
from streamlab.stack.service import Service

__all__ = ["DEFAULT", "SERVICES", "known", "waves", "with_needs"]

SERVICES: dict[str, type[Service]] = {cls.name: cls for cls in (PostgreSQL, MySQL, Kafka, Connect, Registry)}
"""Every service that `streamlab up NAME` knows."""

DEFAULT = ("postgres", "mysql", "kafka", "connect")
"""What `streamlab up` starts. The others are started on demand, by name."""


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


def waves(names: list[str]) -> list[list[str]]:
    """Those that depend on others first, then the rest: the order to end them in."""
    dependent = [name for name in names if SERVICES[name].after]
    return [dependent, [name for name in names if name not in dependent]]
