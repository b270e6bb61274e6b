"""The table of ports: no two services share one, and who holds one is named."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from streamlab.stack import ports
from streamlab.stack.services import SERVICES


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((ports.HOST, 0)) as server:
        yield server


def test_every_port_of_the_table_lies_in_the_block_and_is_used_once() -> None:
    assert len(set(ports.PORTS.values())) == len(ports.PORTS)
    assert all(0 <= offset < ports.BLOCK for offset in ports.PORTS.values())
    assert all({name, *cls.port_names} <= set(ports.PORTS) for name, cls in SERVICES.items())


def test_a_port_is_taken_while_somebody_has_it_on_any_address(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert not ports.is_free(port)
    listener.close()
    assert ports.is_free(port)
    # Bound to every address, and never listening: nobody can reach it.
    with socket.socket() as everywhere:
        everywhere.bind(("", 0))
        assert not ports.is_free(everywhere.getsockname()[1])


def test_the_holder_of_a_port_is_named(listener: socket.socket) -> None:
    name = psutil.Process().name()
    assert ports.holder(listener.getsockname()[1]) == f"{name} (pid {os.getpid()})"


def test_a_block_with_one_port_taken_is_passed_over() -> None:
    first = ports.free_base("some home")
    assert ports.free_base("some home") == first
    with socket.create_server((ports.HOST, first + ports.PORTS["kafka-controller"])):
        second = ports.free_base("some home")
        assert second != first
        assert ports.block_is_free(second)
        assert not ports.block_is_free(first)
    assert ports.free_base("some home", taken=[first]) != first
