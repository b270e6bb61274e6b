"""`PostgreSQLCDC` keeps the contract of `ChangeSource`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from contracts.change_source import ChangeSourceContract, World

from streamlab.cdc import ChangeSource
from streamlab.stack.namespace import Namespace

from .conftest import Shop


class PostgreSQLWorld(World):
    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        shop.reader()

    def insert(self, *ids: int) -> None:
        self.shop.app.execute("INSERT INTO orders SELECT unnest(%s::int[])", [list(ids)])

    def reader(self) -> ChangeSource:
        return self.shop.reader(initialize=False)


@pytest.mark.integration
class TestPostgreSQLCDC(ChangeSourceContract):
    @contextmanager
    def worlds(self) -> Iterator[World]:
        with Namespace("test_cdc") as namespace:
            shop = Shop(namespace)
            try:
                yield PostgreSQLWorld(shop)
            finally:
                shop.close()
