"""A shop on MySQL to capture: a database of its own, and readers whose files go with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from streamlab import settings
from streamlab.cdc.binlog.mysql import MySQLCDC, MySQLSession
from streamlab.stack.namespace import Namespace


class MySQLShop:
    """Tables `orders` (with a key) and `other`, and readers of the first."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.database = namespace.mysql_database()
        self.directory = directory
        self.admin = self.connect("admin")
        self.execute(f"CREATE DATABASE {self.database}")
        self.app = self.connect("app", self.database)
        self.execute(f"USE {self.database}")
        self.execute("CREATE TABLE orders (id int PRIMARY KEY, note text, total decimal(12,2))")
        self.execute("CREATE TABLE other (id int PRIMARY KEY)")
        self.orders = f"{self.database}.orders"
        self.readers: list[MySQLCDC] = []

    @staticmethod
    def connect(role: Any, database: str = "") -> pymysql.Connection[Any]:
        return pymysql.connect(**settings.mysql_address(role).arguments(database=database), autocommit=True)

    def execute(self, query: str, *parameters: Any, connection: pymysql.Connection[Any] | None = None) -> Any:
        with (connection or self.admin).cursor() as cursor:
            cursor.execute(query, parameters or None)
            return cursor.fetchall()

    def insert(self, *ids: int) -> None:
        """One transaction for each."""
        for each in ids:
            self.execute("INSERT INTO orders VALUES (%s, 'new', 1.5)", each, connection=self.app)

    def reader(self, *, initialize: bool = True, **options: Any) -> MySQLCDC:
        address = options.pop("address", None) or settings.mysql_address("cdc")
        cdc = MySQLCDC(
            address,
            options.pop("name", "test"),
            **{"tables": [self.orders], "checkpoint": self.directory / "position", **options},
        )
        self.readers.append(cdc)
        if initialize:
            cdc.initialize()
        return cdc

    def session(self, **options: Any) -> MySQLSession:
        cdc = MySQLCDC.session(settings.mysql_address("cdc"), **{"tables": [self.orders], **options})
        self.readers.append(cdc)
        return cdc

    def dumps(self, cdc: MySQLCDC) -> list[int]:
        """The server's threads that send the log to a reader."""
        return [
            int(row[0])
            for row in self.execute("SHOW PROCESSLIST")
            if row[4] == "Binlog Dump GTID" and row[1] == cdc.address.user
        ]

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        for connection in (self.app, self.admin):
            if connection.open:
                connection.close()


@pytest.fixture
def shop(stack: object, tmp_path: Path) -> Iterator[MySQLShop]:
    with Namespace("test_binlog") as namespace:
        shop = MySQLShop(namespace, tmp_path)
        try:
            yield shop
        finally:
            shop.close()
