"""Kafka Connect: its REST interface, and configurations of connectors."""

from __future__ import annotations

from streamlab.connect.client import ConnectClient

__all__ = ["ConnectClient"]
