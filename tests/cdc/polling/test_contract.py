"""`PollingSource` keeps the contract of `ChangeSource`, as far as rows without a log can.

In the mode timestamp rows of one transaction have one stamp, and stay together. With keys each row is a transaction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from contracts.change_source import ChangeSourceContract, World, ids

from streamlab.cdc import ChangeSource
from streamlab.stack.namespace import Namespace

from .conftest import KINDS, Tables

pytestmark = pytest.mark.integration


class PollingWorld(World):
    def __init__(self, tables: Tables, **options: Any) -> None:
        self.tables, self.options = tables, options

    def insert(self, *ids: int) -> None:
        self.tables.insert(*ids)

    def reader(self) -> ChangeSource:
        return self.tables.source(**self.options)


class Polled(ChangeSourceContract):
    kind: str
    options: dict[str, Any]

    @contextmanager
    def worlds(self) -> Iterator[World]:
        with Namespace("test_polling") as namespace, tempfile.TemporaryDirectory() as directory:
            tables = KINDS[self.kind](namespace, Path(directory))
            try:
                yield PollingWorld(tables, **self.options)
            finally:
                tables.close()


class TestPostgreSQLByStamps(Polled):
    kind, options = "postgres", {"mode": "timestamp", "timestamp": "updated_at"}


class TestMySQLByStamps(Polled):
    kind, options = "mysql", {"mode": "timestamp", "timestamp": "updated_at"}


class TestByStampsAndKeys(Polled):
    kind, options = "postgres", {"timestamp": "updated_at", "incrementing": "id"}

    def test_transactions_are_whole_in_order_and_keyed(self, world: World) -> None:
        with world.reader() as source:
            world.insert(1, 2)
            world.insert(3)
            transactions = list(source.transactions(until=3))
        assert [(ids(each), [event.ordinal for event in each]) for each in transactions] == [
            ([1], [0]), ([2], [0]), ([3], [0]),
        ]  # fmt: skip
        positions = [each.position for each in transactions]
        assert positions == sorted(set(positions))

    def test_batches_hold_whole_transactions(self, world: World) -> None:
        with world.reader() as source:
            world.insert(*range(10))
            batches = source.batches(max_rows=4, max_wait=5)
            first, second = next(batches), next(batches)
            assert ids(first, second) == list(range(8))
            source.acknowledge(first)
            assert ids(next(source.batches(max_rows=1))) == [4]
