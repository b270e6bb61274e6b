"""The one table of ports.

Each home has a block of a hundred ports; a service's port is the block's base plus its offset. The
default home has a fixed base, so that addresses in lessons and docker-compose.yml agree; another
home takes the first block whose ports are free, and keeps it. The blocks lie below Linux's
ephemeral range (32768 and up), so that no outgoing connection can take a port by chance.
"""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Iterable

import psutil

from streamlab.errors import PortTaken, SettingsError

__all__ = [
    "BLOCK",
    "DEFAULT_BASE",
    "HOST",
    "PORTS",
    "UNKNOWN",
    "base_from_environment",
    "block_is_free",
    "free_base",
    "holder",
    "is_free",
]

HOST = "127.0.0.1"
DEFAULT_BASE = 25400
BLOCK = 100
_FIRST, _LAST = 20000, 32600

UNKNOWN = "another user's process"
"""What `holder` says where it cannot tell; also while a process that was killed is still on its way out."""

PORTS: dict[str, int] = {
    "mysql": 6,
    "postgres": 32,
    "rabbitmq": 72,
    "rabbitmq-distribution": 73,
    "rabbitmq-epmd": 74,
    "registry": 81,
    "registry-management": 82,
    "connect": 83,
    "connect-2": 84,
    "connect-3": 87,
    "connect-standalone": 88,
    "flink": 85,
    "flink-sql-gateway": 86,
    "kafka": 92,
    "kafka-controller": 93,
}
"""Service -> offset in the block of its home."""


def base_from_environment() -> int | None:
    """The base that ``STREAMLAB_PORT_BASE`` asks for, or None."""
    text = os.environ.get("STREAMLAB_PORT_BASE", "").strip()
    if not text:
        return None
    if not text.isdigit() or not 1024 <= int(text) <= 65535 - BLOCK:
        raise SettingsError(
            f"STREAMLAB_PORT_BASE={text} is no usable port number.",
            f"Set it to a number from 1024 to {65535 - BLOCK}.",
        )
    return int(text)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def block_is_free(base: int) -> bool:
    """Whether every port of a block is free now."""
    return all(is_free(base + offset) for offset in PORTS.values())


def free_base(seed: str, taken: Iterable[int] = ()) -> int:
    """A block whose ports are all free; where to start looking depends on `seed` alone.

    Raises
    ------
    PortTaken
        No block is free.
    """
    blocks = [b for b in range(_FIRST, _LAST, BLOCK) if b != DEFAULT_BASE and b not in set(taken)]
    start = zlib.crc32(seed.encode()) % len(blocks)
    for base in blocks[start:] + blocks[:start]:
        if block_is_free(base):
            return base
    raise PortTaken(f"No block of free ports between {_FIRST} and {_LAST}.", "Set STREAMLAB_PORT_BASE.")


def holder(port: int) -> str:
    """Who listens on a port, in words for a person: ``python3 (pid 4711)``."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, RuntimeError):
        connections = []
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                break
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return UNKNOWN
