"""One order, placed by name: committed at once, or with its transaction left open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Self, cast

from streamlab.workload.plan import PlannedTransaction
from streamlab.workload.tables import TABLES
from streamlab.workload.target import Target
from streamlab.workload.writer import Writer

__all__ = ["OpenOrder", "Order"]


@dataclass(frozen=True, slots=True)
class Order:
    """One order as it was placed.

    Attributes
    ----------
    id, customer_id : int
        Keys.
    total : Decimal
        Sum of its items.
    at : datetime
        Its `created_at` and `updated_at`, on the shop's logical clock.
    transaction : PlannedTransaction
        The rows that make it.
    """

    id: int
    customer_id: int
    total: Decimal
    at: datetime
    transaction: PlannedTransaction

    @classmethod
    def of(cls, transaction: PlannedTransaction) -> Order:
        """The order that a transaction places."""
        placed = next(each for each in transaction.operations if each.statement.name == "insert_orders")
        row = TABLES["orders"].as_dict(placed.values)
        return cls(
            placed.key[0], cast("int", row["customer_id"]), cast("Decimal", row["total"]), transaction.at, transaction
        )


class OpenOrder:
    """An order whose transaction is open: placed, and not committed yet. Made by `Shop.begin_order`.

    It has a connection of its own. As a context manager it is rolled back where it was not committed.

    Attributes
    ----------
    order : Order
        What was placed.
    """

    def __init__(
        self,
        plan: PlannedTransaction,
        target: Target,
        lock: threading.RLock,
        ended: Callable[[OpenOrder, bool], None],
    ) -> None:
        self.order = Order.of(plan)
        self.is_open = True
        self._lock = lock
        self._ended = ended
        self._writer = Writer(target, lambda _: ended(self, True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.rollback()

    def __repr__(self) -> str:
        return f"OpenOrder({self.order.id}, {'open' if self.is_open else 'closed'})"

    def begin(self) -> None:
        """Insert its rows. `Shop.begin_order` has done so."""
        self._writer.begin(self.order.transaction)

    def commit(self) -> Order:
        """Commit it. May be called again where it failed: it is committed once."""
        with self._lock:
            self._writer.commit()
            self.is_open = False
            self._writer.close()
        return self.order

    def rollback(self) -> None:
        """Roll it back: it never was. A second call does nothing.

        Raises
        ------
        StreamlabError
            Its COMMIT was sent and the answer was lost: call `commit` again.
        """
        with self._lock:
            if self.is_open:
                self._writer.rollback()
                self._ended(self, False)
                self.is_open = False
