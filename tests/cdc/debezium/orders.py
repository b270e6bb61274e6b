"""A table of orders on PostgreSQL with a connector that captures it, in whatever format a test asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import PostgreSQLSource
from streamlab.stack.namespace import Namespace


class Orders:
    """The table, whose column `note` lies outside of its rows, published to the role that captures it."""

    def __init__(self, namespace: Namespace, connection: psycopg.Connection[Any], columns: str) -> None:
        self.schema, self.prefix = namespace.postgres_schema(), namespace.topic_prefix()
        self.topic = f"{self.prefix}.{self.schema}.orders"
        self._name, self._slot, self._publication = namespace.connector(), namespace.slot(), namespace.publication()
        self._connection = connection
        self._role = str(conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))["user"])
        self.execute("CREATE SCHEMA {schema}")
        self.execute("SET search_path = {schema}; SET timezone = 'UTC'")
        self.execute(f"CREATE TABLE orders ({columns})")
        self.execute("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL")
        self.execute("GRANT USAGE ON SCHEMA {schema} TO {role}")
        self.execute("GRANT SELECT ON orders TO {role}")
        self.execute("CREATE PUBLICATION {publication} FOR TABLE orders")

    def execute(self, text: str) -> None:
        """A statement, in which braces name the schema, the role that captures, and the publication."""
        names = {"schema": self.schema, "role": self._role, "publication": self._publication}
        statement = sql.SQL(text).format(**{name: sql.Identifier(value) for name, value in names.items()})
        self._connection.execute(statement)

    def capture(self, **options: Any) -> PostgreSQLSource:
        """A connector, once it runs."""
        source = PostgreSQLSource(
            prefix=self.prefix, schema=self.schema, tables=["orders"], slot=self._slot, publication=self._publication,
            decimals="precise", **options,
        )  # fmt: skip
        with ConnectClient() as client:
            client.apply(self._name, source.configuration())
            client.wait_ready(self._name)
        return source


@contextmanager
def orders(namespace: Namespace, columns: str) -> Iterator[Orders]:
    """Such a table with these columns, in a namespace."""
    with psycopg.connect(str.__str__(settings.postgres_dsn("app")), autocommit=True) as connection:
        yield Orders(namespace, connection, columns)
