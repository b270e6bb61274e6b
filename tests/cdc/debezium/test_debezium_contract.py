"""`DebeziumSource` keeps the contract of `ChangeSource`: MySQL, Debezium, Kafka, with transactions put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from contracts.change_source import ChangeSourceContract, World

from streamlab.cdc import ChangeSource

from .conftest import Captured, Table


class DebeziumWorld(World):
    def __init__(self, table: Table) -> None:
        self.table = table

    def insert(self, *ids: int) -> None:
        self.table.insert(*ids)

    def reader(self) -> ChangeSource:
        return self.table.reader()


@pytest.mark.integration
class TestDebeziumSource(ChangeSourceContract):
    captured: Captured

    @pytest.fixture(autouse=True)
    def connector(self, captured: Captured) -> None:
        self.captured = captured

    @contextmanager
    def worlds(self) -> Iterator[World]:
        table = self.captured.table()
        try:
            yield DebeziumWorld(table)
        finally:
            table.close()
