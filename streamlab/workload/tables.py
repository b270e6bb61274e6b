"""The shop's four tables as Python sees them, and the statements that change them.

A row is a tuple of values in the order of the table's columns. A statement is named as its block in
``streamlab/sql/shop_*.sql`` and says which columns its values fill; both servers have the same
blocks, so one planned operation means the same on either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

__all__ = [
    "STATEMENTS",
    "TABLES",
    "Key",
    "Row",
    "Statement",
    "Status",
    "Table",
    "Type",
    "Value",
    "Verb",
    "statement",
]

Json: TypeAlias = dict[str, Any] | list[Any]
Value: TypeAlias = int | bool | str | Decimal | datetime | Json | None
Key: TypeAlias = tuple[int, ...]
Row: TypeAlias = tuple[Value, ...]


class Type(Enum):
    """What a column holds, whatever each server calls it."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    MONEY = "money"
    """Exact decimal with two places."""
    INSTANT = "instant"
    """Aware UTC datetime, microseconds."""
    JSON = "json"
    """A JSON object; numbers in it are integers, so that every reader gives them back exactly."""
    TAGS = "tags"
    """A list of strings: text[] in PostgreSQL, JSON in MySQL."""


class Status(StrEnum):
    """How far an order has come."""

    PLACED = "placed"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class Verb(StrEnum):
    """What an operation does to one row."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns in order, with their types; the first `keys` columns are the primary key."""

    name: str
    columns: tuple[str, ...]
    types: tuple[Type, ...]
    keys: int = 1

    def index(self, column: str) -> int:
        """Position of a column in a row."""
        return self.columns.index(column)

    def as_dict(self, row: Row) -> dict[str, Value]:
        """The row by column name."""
        return dict(zip(self.columns, row, strict=True))


def _table(name: str, keys: int, /, **columns: Type) -> Table:
    every = {**columns, "created_at": Type.INSTANT, "updated_at": Type.INSTANT}
    return Table(name, tuple(every), tuple(every.values()), keys)


TABLES = MappingProxyType(
    {
        table.name: table
        for table in (
            _table(
                "customers",
                1,
                id=Type.INTEGER,
                name=Type.TEXT,
                email=Type.TEXT,
                country=Type.TEXT,
                newsletter=Type.BOOLEAN,
                credit_limit=Type.MONEY,
                profile=Type.JSON,
            ),
            _table(
                "products",
                1,
                id=Type.INTEGER,
                sku=Type.TEXT,
                name=Type.TEXT,
                category=Type.TEXT,
                price=Type.MONEY,
                stock=Type.INTEGER,
                tags=Type.TAGS,
                photo=Type.TEXT,
            ),
            _table(
                "orders",
                1,
                id=Type.INTEGER,
                customer_id=Type.INTEGER,
                status=Type.TEXT,
                region=Type.TEXT,
                total=Type.MONEY,
                details=Type.JSON,
                note=Type.TEXT,
            ),
            _table(
                "order_items",
                2,
                order_id=Type.INTEGER,
                line_no=Type.INTEGER,
                product_id=Type.INTEGER,
                quantity=Type.INTEGER,
                unit_price=Type.MONEY,
                amount=Type.MONEY,
            ),
        )
    }
)
"""By name, parents before children."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A named block of SQL that changes one row: its values fill `columns`, then the key follows.

    An INSERT's values are the whole row, key included, and no key follows. There is one object per
    statement, compared by identity. `rank` orders statements inside a transaction so that no foreign
    key is broken: inserts from parents to children, updates, deletes from children to parents.
    """

    name: str
    verb: Verb
    table: Table
    columns: tuple[str, ...]
    positions: tuple[int, ...]
    types: tuple[Type, ...]
    rank: int

    def __reduce__(self) -> tuple[Any, ...]:
        return statement, (self.name,)


def _statements() -> dict[str, Statement]:
    # In the order of the actions that use them: sorted by rank, a row's updates still follow the clock.
    updates = [
        ("order_items", "quantity", "quantity amount updated_at"),
        ("orders", "total", "total updated_at"),
        ("orders", "status", "status updated_at"),
        ("products", "stock", "stock updated_at"),
        ("customers", "profile", "newsletter credit_limit profile updated_at"),
        ("products", "price", "price updated_at"),
        ("products", "photo", "photo updated_at"),
    ]
    plan = [
        *((f"insert_{table.name}", Verb.INSERT, table, table.columns) for table in TABLES.values()),
        *((f"update_{name}_{what}", Verb.UPDATE, TABLES[name], tuple(cols.split())) for name, what, cols in updates),
        *((f"delete_{table.name}", Verb.DELETE, table, ()) for table in reversed(tuple(TABLES.values()))),
    ]
    made = {}
    for rank, (name, verb, table, columns) in enumerate(plan):
        positions = tuple(table.index(column) for column in columns)
        types = tuple(table.types[position] for position in positions)
        made[name] = Statement(name, verb, table, columns, positions, types, rank)
    return made


STATEMENTS = MappingProxyType(_statements())
"""Every statement that a plan may hold, by name, in the order of their ranks."""


def statement(name: str) -> Statement:
    """The statement of that name."""
    return STATEMENTS[name]
