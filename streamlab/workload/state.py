"""The shop as the planner remembers it: only what decides which action is possible next.

Everything here is changed in constant time, so that the cost of a plan does not grow with the shop.
Money is counted in cents.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from streamlab.workload.draw import Draw, Pool
from streamlab.workload.tables import Status

__all__ = ["Line", "OrderState", "ShopState"]


@dataclass(slots=True)
class Line:
    """One item of an order; its number is its place in the order, from 1."""

    product: int
    quantity: int
    price: int


@dataclass(slots=True)
class OrderState:
    """One order. `lines` keep their places for the life of the order."""

    id: int
    customer: int
    status: Status
    lines: list[Line]

    @property
    def total(self) -> int:
        """Sum of the items, in cents."""
        return sum(line.quantity * line.price for line in self.lines)


class ShopState:
    """Who and what is in the shop. Used by one thread at a time.

    Attributes
    ----------
    customers, products : Pool of int
        Keys by popularity: the place in the pool is the rank.
    orders : dict
        Committed orders by key.
    held : Counter
        Customers (as ``("customers", key)``) and products that an open transaction refers to. MySQL
        locks the parents of inserted rows against every change, so nothing else may touch them.
    """

    def __init__(self) -> None:
        self.customers: Pool[int] = Pool()
        self.products: Pool[int] = Pool()
        self.orders: dict[int, OrderState] = {}
        self.region: dict[int, str] = {}
        self.price: dict[int, int] = {}
        self.prices: dict[int, tuple[int, int]] = {}
        self.stock: dict[int, int] = {}
        self.photos: dict[int, int] = {}
        self.held: Counter[tuple[str, int]] = Counter()
        self._with: dict[Status, Pool[int]] = {status: Pool() for status in Status}
        self._of_customer: dict[int, dict[int, None]] = {}
        self._ordered: dict[int, int] = {}
        self._unordered: Pool[int] = Pool()
        self._last = {"customers": 0, "products": 0, "orders": 0}

    def next_key(self, table: str) -> int:
        """A key that was never given out; it stays used, whatever becomes of its row."""
        self._last[table] += 1
        return self._last[table]

    def last_keys(self) -> dict[str, int]:
        """The last key given out, by table."""
        return dict(self._last)

    def add_customer(self, key: int, region: str) -> None:
        """Remember a customer."""
        self.customers.add(key)
        self.region[key] = region
        self._of_customer[key] = {}

    def remove_customer(self, key: int) -> None:
        """Forget a customer, whose orders must be gone."""
        if self._of_customer.pop(key):
            raise AssertionError(f"customer {key} still has orders")
        self.customers.remove(key)
        del self.region[key]

    def add_product(self, key: int, price: int, prices: tuple[int, int], stock: int) -> None:
        """Remember a product, with the range of prices of its category."""
        self.products.add(key)
        self.price[key], self.prices[key], self.stock[key], self.photos[key] = price, prices, stock, 1
        self._ordered[key] = 0
        self._unordered.add(key)

    def remove_product(self, key: int) -> None:
        """Forget a product, which no order may hold."""
        self._unordered.remove(key)
        self.products.remove(key)
        for facts in (self.price, self.prices, self.stock, self.photos, self._ordered):
            del facts[key]

    def add_order(self, order: OrderState) -> None:
        """Remember an order that is in the tables."""
        self.orders[order.id] = order
        self._with[order.status].add(order.id)
        self._of_customer[order.customer][order.id] = None
        for line in order.lines:
            if not self._ordered[line.product]:
                self._unordered.remove(line.product)
            self._ordered[line.product] += 1

    def remove_order(self, key: int) -> OrderState:
        """Forget an order."""
        order = self.orders.pop(key)
        self._with[order.status].remove(key)
        del self._of_customer[order.customer][key]
        for line in order.lines:
            self._ordered[line.product] -= 1
            if not self._ordered[line.product]:
                self._unordered.add(line.product)
        return order

    def move(self, order: OrderState, status: Status) -> None:
        """Give an order another status."""
        self._with[order.status].remove(order.id)
        order.status = status
        self._with[status].add(order.id)

    def orders_of(self, customer: int) -> list[int]:
        """Keys of a customer's orders, oldest first."""
        return list(self._of_customer[customer])

    def hold(self, order: OrderState, by: int) -> None:
        """Keep others off what an open order refers to (`by` 1), or let them (`by` -1)."""
        for key in [("customers", order.customer), *(("products", line.product) for line in order.lines)]:
            self.held[key] += by
            if not self.held[key]:
                del self.held[key]

    def is_held(self, table: str, *keys: int) -> bool:
        """Whether an open transaction refers to one of the rows."""
        return bool(self.held) and any((table, key) in self.held for key in keys)

    def draw_order(self, draw: Draw, *among: Status) -> OrderState | None:
        """One order of these statuses, each as likely as the others; None where there is none."""
        pools = [self._with[status].items for status in among]
        count = sum(map(len, pools))
        if not count:
            return None
        at = draw.below(count)
        for pool in pools:
            if at < len(pool):
                return self.orders[pool[at]]
            at -= len(pool)
        raise AssertionError("a place beyond the last pool")

    def draw_unordered(self, draw: Draw) -> int | None:
        """A product that nobody ordered and nobody holds, unless it is the last product."""
        if not len(self._unordered) or len(self.products) == 1:
            return None
        key = draw.pick(self._unordered.items)
        return None if self.is_held("products", key) else key
