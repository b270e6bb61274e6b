"""Change data capture: what a database did, as `ChangeEvent`s in the order of the log."""

from __future__ import annotations

from streamlab.cdc.event import UNCHANGED, ChangeEvent, Operation, Unchanged
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.source import Batch, ChangeSource, Lag
from streamlab.cdc.transaction import Transaction

__all__ = [
    "LSN",
    "UNCHANGED",
    "Batch",
    "ChangeEvent",
    "ChangeSource",
    "Lag",
    "Operation",
    "Position",
    "Transaction",
    "Unchanged",
]
