"""Change data capture: what a database did, as `ChangeEvent`s in the order of the log."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamlab.cdc.event import UNCHANGED, ChangeEvent, Operation, Unchanged
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.source import Batch, ChangeSource, Lag
from streamlab.cdc.transaction import Transaction

if TYPE_CHECKING:
    from streamlab.cdc.binlog.mysql import MySQLCDC as MySQLCDC
    from streamlab.cdc.checkpoint import Checkpoint as Checkpoint
    from streamlab.cdc.debezium.source import DebeziumSource as DebeziumSource
    from streamlab.cdc.polling.position import PollingPosition as PollingPosition
    from streamlab.cdc.polling.source import PollingSource as PollingSource
    from streamlab.cdc.postgres import PostgreSQLCDC as PostgreSQLCDC
    from streamlab.cdc.recording import Recording as Recording

# Loaded when they are first used: they need a driver, which a reader of another log does not have.
_HOMES = {
    "Checkpoint": "streamlab.cdc.checkpoint",
    "DebeziumSource": "streamlab.cdc.debezium.source",
    "MySQLCDC": "streamlab.cdc.binlog.mysql",
    "PollingPosition": "streamlab.cdc.polling.position",
    "PollingSource": "streamlab.cdc.polling.source",
    "PostgreSQLCDC": "streamlab.cdc.postgres",
    "Recording": "streamlab.cdc.recording",
}

__all__ = [
    "LSN",
    "UNCHANGED",
    "Batch",
    "ChangeEvent",
    "ChangeSource",
    "Checkpoint",
    "DebeziumSource",
    "Lag",
    "MySQLCDC",
    "Operation",
    "PollingPosition",
    "PollingSource",
    "Position",
    "PostgreSQLCDC",
    "Recording",
    "Transaction",
    "Unchanged",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)
