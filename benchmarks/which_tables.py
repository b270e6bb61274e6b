"""The table that all ways of `which_cdc` capture, in PostgreSQL and in MySQL, and the one way it is filled.

Six columns, 1000 rows a transaction: as fast as the servers can, before a reader is let go, so that it reads a backlog.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from typing import Any, ClassVar

import psycopg
import pymysql

from streamlab import settings

__all__ = ["SIZE", "TABLE", "MySQLTable", "PostgreSQLTable", "Table"]

TABLE = "sl_which_orders"
SIZE = 1000
"""Rows a transaction."""


class Table(ABC):
    """The table of one server. Used by one thread."""

    kind: ClassVar[str]
    where: str
    """The schema or database that it is in."""

    def __init__(self) -> None:
        self.rows = 0

    @abstractmethod
    def fill(self, rows: int) -> None:
        """Insert so many rows."""

    @abstractmethod
    def one(self) -> None:
        """Insert one row in a transaction of its own; its id is `rows` after that, its time the moment before."""

    @abstractmethod
    def close(self) -> None:
        """Drop it."""


class PostgreSQLTable(Table):
    """In PostgreSQL, with a publication of the same name."""

    kind = "postgres"
    where = "public"

    def __init__(self) -> None:
        super().__init__()
        self._admin = psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True)
        self._admin.execute(
            f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(20) NOT NULL, "
            "amount numeric(12, 2) NOT NULL, created_at timestamptz NOT NULL, paid boolean NOT NULL)"
        )
        self._admin.execute(f"CREATE PUBLICATION {TABLE} FOR TABLE {TABLE}")
        self._admin.execute(f"GRANT SELECT ON {TABLE} TO streamlab_cdc")

    def fill(self, rows: int) -> None:
        """Insert so many rows."""
        for _ in range(rows // SIZE):
            self._admin.execute(
                "INSERT INTO sl_which_orders SELECT %s + g, g * 37 %% 100000, 'status-' || g %% 7, "
                "g * 13 %% 100000 / 100.0, clock_timestamp(), g %% 2 = 0 FROM generate_series(1, %s) AS g",
                [self.rows, SIZE],
            )
            self.rows += SIZE

    def one(self) -> None:
        """Insert one row."""
        self._admin.execute(
            "INSERT INTO sl_which_orders VALUES (%s, 1, 'one', 1.5, clock_timestamp(), true)", [self.rows + 1]
        )
        self.rows += 1

    def close(self) -> None:
        """Drop what was made."""
        self._admin.execute(f"DROP PUBLICATION {TABLE}")
        self._admin.execute(f"DROP TABLE {TABLE}")
        self._admin.close()


class MySQLTable(Table):
    """In MySQL, in the shop's database."""

    kind = "mysql"

    def __init__(self) -> None:
        super().__init__()
        address = settings.mysql_address("admin")
        self.where = "sl_which"
        self._admin = pymysql.connect(**address.arguments(database=""), autocommit=True)
        self._execute(f"CREATE DATABASE {self.where}")
        self._execute(f"USE {self.where}")
        self._execute("CREATE TABLE sl_which_numbers (g int PRIMARY KEY)")
        self._execute(
            "INSERT INTO sl_which_numbers WITH RECURSIVE n (g) AS "
            "(SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < 1000) SELECT g FROM n"
        )
        self._execute(
            f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, customer_id int NOT NULL, status varchar(20) NOT NULL, "
            "amount decimal(12, 2) NOT NULL, created_at datetime(6) NOT NULL, paid boolean NOT NULL)"
        )

    def _execute(self, query: str, values: Any = None) -> None:
        with closing(self._admin.cursor()) as cursor:
            cursor.execute(query, values)

    def fill(self, rows: int) -> None:
        """Insert so many rows."""
        for _ in range(rows // SIZE):
            self._execute(
                "INSERT INTO sl_which_orders SELECT %s + g, g * 37 %% 100000, concat('status-', g %% 7), "
                "g * 13 %% 100000 / 100.0, utc_timestamp(6), g %% 2 = 0 FROM sl_which_numbers",
                [self.rows],
            )
            self.rows += SIZE

    def one(self) -> None:
        """Insert one row."""
        self._execute("INSERT INTO sl_which_orders VALUES (%s, 1, 'one', 1.5, utc_timestamp(6), true)", [self.rows + 1])
        self.rows += 1

    def close(self) -> None:
        """Drop what was made."""
        self._execute(f"DROP DATABASE {self.where}")
        self._admin.close()


def steadily(write: Callable[[], None], rate: int, seconds: float) -> int:
    """Call so often a second, on time where the server lets us; returns how often it was called."""
    begin, done = time.monotonic(), 0
    while (now := time.monotonic() - begin) < seconds:
        if now * rate < done:
            time.sleep(done / rate - now)
        write()
        done += 1
    return done
