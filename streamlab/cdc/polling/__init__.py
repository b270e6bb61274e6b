"""A table that is asked for what is new, again and again: `PollingSource`, and what it cannot see."""

from __future__ import annotations

from streamlab.cdc.polling.criteria import Mode
from streamlab.cdc.polling.position import PollingPosition
from streamlab.cdc.polling.source import PollingSource

__all__ = ["Mode", "PollingPosition", "PollingSource"]
