"""MySQL's binary log, read directly: `MySQLCDC`, its decoder without I/O, and positions by GTID."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamlab.cdc.binlog.position import BinlogPosition, GTIDSet

if TYPE_CHECKING:
    from streamlab.cdc.binlog.mysql import MySQLCDC as MySQLCDC

__all__ = ["BinlogPosition", "GTIDSet", "MySQLCDC"]


def __getattr__(name: str) -> Any:
    # Loaded when it is first used: it needs a driver, which a reader of recorded events does not have.
    if name == "MySQLCDC":
        return import_module("streamlab.cdc.binlog.mysql").MySQLCDC
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
