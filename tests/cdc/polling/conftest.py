"""Tables that are polled, on PostgreSQL and on MySQL, and readers of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc import PollingSource
from streamlab.stack.namespace import Namespace

ORDERS = {
    "postgres": "CREATE TABLE orders (id int PRIMARY KEY, note text, updated_at timestamptz NOT NULL DEFAULT now())",
    "mysql": "CREATE TABLE orders (id int PRIMARY KEY, note text, updated_at timestamp(6) NOT NULL "
    "DEFAULT CURRENT_TIMESTAMP(6))",
}


class Tables(ABC):
    """A schema or database with a table `orders`, and any number of sessions that write."""

    kind: str

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.directory = directory
        self.sources: list[PollingSource] = []
        self.sessions: list[Any] = []
        self.schema = self._make(namespace)
        self.app = self.session()
        self.execute(ORDERS[self.kind])
        self.orders = f"{self.schema}.orders"

    @abstractmethod
    def _make(self, namespace: Namespace) -> str:
        """Make the schema or database; its name."""

    @property
    @abstractmethod
    def address(self) -> Any:
        """Where it is."""

    @abstractmethod
    def _connect(self, *, autocommit: bool) -> Any:
        """A session of its own."""

    def session(self, *, autocommit: bool = True) -> Any:
        self.sessions.append(self._connect(autocommit=autocommit))
        return self.sessions[-1]

    def execute(self, query: str, *parameters: Any, session: Any = None) -> list[tuple[Any, ...]]:
        with (session or self.app).cursor() as cursor:
            cursor.execute(query, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def insert(self, *ids: int) -> None:
        self.execute("INSERT INTO orders (id) VALUES " + ",".join(f"({each})" for each in ids))

    def source(self, table: str | None = None, **options: Any) -> PollingSource:
        options = {"interval": 0.02, "checkpoint": self.directory / "position", **options}
        if "query" not in options and table is None:
            table = self.orders
        source = PollingSource(self.address, table or "", **options)
        self.sources.append(source)
        return source

    def close(self) -> None:
        for each in (*self.sources, *self.sessions):
            each.close()


class PostgreSQLTables(Tables):
    kind = "postgres"

    def _make(self, namespace: Namespace) -> str:
        schema = namespace.postgres_schema()
        with psycopg.connect(settings.postgres_dsn("app"), autocommit=True) as app:
            app.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        return schema

    @property
    def address(self) -> Any:
        return settings.postgres_dsn("app")

    def _connect(self, *, autocommit: bool) -> Any:
        options = f"-c search_path={self.schema}"
        return psycopg.connect(settings.postgres_dsn("app"), autocommit=autocommit, options=options)


class MySQLTables(Tables):
    kind = "mysql"

    def _make(self, namespace: Namespace) -> str:
        database = namespace.mysql_database()
        with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as app, app.cursor() as c:
            c.execute(f"CREATE DATABASE {database}")
        return database

    @property
    def address(self) -> Any:
        return settings.mysql_address("app")

    def _connect(self, *, autocommit: bool) -> Any:
        return pymysql.connect(**settings.mysql_address("app").arguments(database=self.schema), autocommit=autocommit)


KINDS = {"postgres": PostgreSQLTables, "mysql": MySQLTables}


@pytest.fixture(params=KINDS)
def tables(stack: object, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tables]:
    with Namespace("test_polling") as namespace:
        made = KINDS[request.param](namespace, tmp_path)
        try:
            yield made
        finally:
            made.close()


def ids(source: PollingSource) -> list[int]:
    """What polls find now; all of it is acknowledged."""
    found = []
    for transaction in source.transactions(until=source.written()):
        found += [event.new_data["id"] for event in transaction]
        source.acknowledge(transaction)
    return found
