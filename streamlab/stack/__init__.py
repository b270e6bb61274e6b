"""The real servers: fetched, started, watched and stopped, on the loopback address alone."""

from __future__ import annotations

from streamlab.stack.home import Home
from streamlab.stack.manager import Outcome, Stack
from streamlab.stack.services import DEFAULT, SERVICES
from streamlab.stack.status import ServiceStatus

__all__ = ["DEFAULT", "SERVICES", "Home", "Outcome", "ServiceStatus", "Stack"]
