"""Kafka Connect: its REST interface, and configurations of connectors, checked before they are used.

And a source connector in Python, `DatabaseSourceConnector`, over any reader of changes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamlab.connect.answers import ConnectorOffset, ConnectorStatus
from streamlab.connect.dead_letters import SinkDeadLetter, dead_letters
from streamlab.connect.lint import Finding, lint, lint_text
from streamlab.connect.signals import MySQLSignals, PostgreSQLSignals, Signal

if TYPE_CHECKING:
    from streamlab.connect.client import ConnectClient as ConnectClient
    from streamlab.connect.source import DatabaseSourceConnector as DatabaseSourceConnector

__all__ = [
    "ConnectClient",
    "ConnectorOffset",
    "ConnectorStatus",
    "DatabaseSourceConnector",
    "Finding",
    "MySQLSignals",
    "PostgreSQLSignals",
    "Signal",
    "SinkDeadLetter",
    "dead_letters",
    "lint",
    "lint_text",
]


# Loaded when they are first used: the one needs a client of HTTP, the other one of Kafka, and a linter neither.
_HOMES = {"ConnectClient": "client", "DatabaseSourceConnector": "source"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"streamlab.connect.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
