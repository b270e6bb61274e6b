"""Change data capture: what a database did, as `ChangeEvent`s in the order of the log."""

from __future__ import annotations

from streamlab.cdc.event import ChangeEvent, Operation

__all__ = ["ChangeEvent", "Operation"]
