"""Debezium's topics: `DebeziumSource`, its decoder without I/O, and positions in Kafka."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamlab.cdc.debezium.position import KafkaPosition

if TYPE_CHECKING:
    from streamlab.cdc.debezium.decoder import Decoder as Decoder
    from streamlab.cdc.debezium.source import DebeziumSource as DebeziumSource

# Loaded when they are first used: they need packages that a reader of another log does not have.
_HOMES = {"DebeziumSource": "streamlab.cdc.debezium.source", "Decoder": "streamlab.cdc.debezium.decoder"}

__all__ = ["DebeziumSource", "Decoder", "KafkaPosition"]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)
