"""The shop: customers, products, orders and order_items that change as a real shop's do.

`Shop` plans transactions from a seed, commits each exactly once into PostgreSQL or MySQL, and keeps a
ledger of what it did: the truth that lessons and tests compare with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamlab.workload.drive import Running, Throughput
from streamlab.workload.ledger import Difference, Ledger, compare
from streamlab.workload.order import OpenOrder, Order
from streamlab.workload.plan import MIXES, Action, Mix, Operation, Parameters, PlannedTransaction
from streamlab.workload.planner import Planner
from streamlab.workload.shop import Shop, throughput
from streamlab.workload.tables import TABLES, Status, Verb

if TYPE_CHECKING:
    from streamlab.workload.mysql import MySQLTarget
    from streamlab.workload.postgres import PostgresTarget

__all__ = [
    "MIXES",
    "TABLES",
    "Action",
    "Difference",
    "Ledger",
    "Mix",
    "MySQLTarget",
    "OpenOrder",
    "Operation",
    "Order",
    "Parameters",
    "PlannedTransaction",
    "Planner",
    "PostgresTarget",
    "Running",
    "Shop",
    "Status",
    "Throughput",
    "Verb",
    "compare",
    "throughput",
]

# Each needs its driver, and a user of one server may not have that of the other.
_TARGETS = {"MySQLTarget": "mysql", "PostgresTarget": "postgres"}


def __getattr__(name: str) -> Any:
    if name not in _TARGETS:
        raise AttributeError(f"module 'streamlab.workload' has no attribute {name!r}")
    return getattr(import_module(f"streamlab.workload.{_TARGETS[name]}"), name)
