"""`MySQLCDC` keeps the contract of `ChangeSource`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contracts.change_source import ChangeSourceContract, World

from streamlab.cdc import ChangeSource
from streamlab.stack.namespace import Namespace

from .conftest import MySQLShop


class MySQLWorld(World):
    def __init__(self, shop: MySQLShop) -> None:
        self.shop = shop
        shop.reader().close()

    def insert(self, *ids: int) -> None:
        rows = ",".join(f"({each}, 'new', 1.5)" for each in ids)
        self.shop.execute(f"INSERT INTO orders VALUES {rows}", connection=self.shop.app)

    def reader(self) -> ChangeSource:
        return self.shop.reader(initialize=False)


@pytest.mark.integration
class TestMySQLCDC(ChangeSourceContract):
    @contextmanager
    def worlds(self) -> Iterator[World]:
        with Namespace("test_binlog") as namespace, tempfile.TemporaryDirectory() as directory:
            shop = MySQLShop(namespace, Path(directory))
            try:
                yield MySQLWorld(shop)
            finally:
                shop.close()
