"""The real servers: fetched, started, watched and stopped, on the loopback address alone."""

from __future__ import annotations

from streamlab.stack.home import Home
from streamlab.stack.manager import DEFAULT, SERVICES, Outcome, ServiceStatus, Stack

__all__ = ["DEFAULT", "SERVICES", "Home", "Outcome", "ServiceStatus", "Stack"]
