"""Kafka Connect: its REST interface, and configurations of connectors, checked before they are used."""

from __future__ import annotations

from streamlab.connect.answers import ConnectorOffset, ConnectorStatus
from streamlab.connect.client import ConnectClient
from streamlab.connect.lint import Finding, lint, lint_text

__all__ = ["ConnectClient", "ConnectorOffset", "ConnectorStatus", "Finding", "lint", "lint_text"]
