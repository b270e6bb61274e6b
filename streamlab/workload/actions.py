"""What each action does to the shop: the rows that change, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate

from streamlab.workload import vocabulary as words
from streamlab.workload.draw import Draw, Zipf
from streamlab.workload.photo import photo
from streamlab.workload.plan import Action, Operation, Parameters
from streamlab.workload.state import Line, OrderState, ShopState
from streamlab.workload.tables import STATEMENTS, Json, Key, Status, Value

__all__ = ["Actions", "money"]

_LINES = tuple(accumulate((30, 25, 20, 15, 10)))
"""Weights of one to five items in an order."""
_NEXT = {Status.PLACED: Status.PAID, Status.PAID: Status.SHIPPED, Status.SHIPPED: Status.DELIVERED}
_ERASED_AT_MOST = 5
"""A customer with more orders is not erased, so that one action stays a small transaction."""
_TRIES = 8
_DELIVERY = 500
"""What arrives when the stock of a product runs out."""


@lru_cache(maxsize=65536)
def money(cents: int) -> Decimal:
    """An amount with two places, from cents."""
    return Decimal(cents).scaleb(-2)


class Actions:
    """Carries actions out on the remembered shop and collects their operations. Used by one thread at a time.

    Each action of `do` tells whether it found something to act on; if not, nothing has changed.

    Attributes
    ----------
    at : datetime
        The logical clock: what the rows get as their `updated_at`.
    operations : list of Operation
        What was collected for the plan under way.
    """

    def __init__(self, parameters: Parameters, draw: Draw) -> None:
        self.state = ShopState()
        self.at: datetime = parameters.start
        self.operations: list[Operation] = []
        self._draw = draw
        self._customers, self._products = Zipf(parameters.skew), Zipf(parameters.skew)
        self._before: dict[str, int] = {}
        self.do: dict[Action, Callable[[], bool]] = {
            Action.REGISTER_CUSTOMER: self.register,
            Action.ADD_PRODUCT: self.add_product,
            Action.PLACE_ORDER: self.place,
            Action.CHANGE_QUANTITY: self._change_quantity,
            Action.ADVANCE_ORDER: self._advance,
            Action.CANCEL_ORDER: self._cancel,
            Action.EDIT_CUSTOMER: self._edit_customer,
            Action.REPRICE_PRODUCT: self._reprice,
            Action.REPLACE_PHOTO: self._replace_photo,
            Action.PURGE_ORDER: self._purge,
            Action.ERASE_CUSTOMER: self._erase,
            Action.DISCONTINUE_PRODUCT: self._discontinue,
        }

    def begin(self) -> None:
        """Begin to collect for the next plan."""
        self.operations = []
        self._before = self.state.last_keys()

    def _is_new(self, table: str, key: int) -> bool:
        # No plan deletes what it inserted: it could leave no trace, and nobody could tell whether it was committed.
        return key > self._before[table]

    def _insert(self, table: str, key: Key, *values: Value) -> None:
        at = self.at
        self.operations.append(Operation(STATEMENTS[f"insert_{table}"], key, (*key, *values, at, at)))

    def _update(self, name: str, key: Key, *values: Value) -> None:
        self.operations.append(Operation(STATEMENTS[f"update_{name}"], key, (*values, self.at)))

    def _delete(self, table: str, key: Key) -> None:
        self.operations.append(Operation(STATEMENTS[f"delete_{table}"], key))

    # -- actions: each tells whether it found something to act on -----------------------------------------

    def register(self) -> bool:
        """A new customer."""
        draw, key = self._draw, self.state.next_key("customers")
        country, region = draw.pick(words.COUNTRIES)
        name = f"{draw.pick(words.FIRST_NAMES)} {draw.pick(words.LAST_NAMES)}"
        self.state.add_customer(key, region)
        self._insert(
            "customers", (key,), name, f"customer{key}@example.org", country, draw.chance(0.4),
            self._credit_limit(), self._profile(),
        )  # fmt: skip
        return True

    def _credit_limit(self) -> Decimal | None:
        return None if self._draw.chance(0.2) else money(self._draw.between(1, 50) * 10_000)

    def _profile(self) -> Json:
        draw = self._draw
        return {
            "segment": draw.pick(words.SEGMENTS),
            "language": draw.pick(words.LANGUAGES),
            "points": draw.below(10_000),
            "interests": [draw.pick(words.CATEGORIES)[0] for _ in range(draw.below(3))],
        }

    def add_product(self) -> bool:
        """A new product."""
        draw, key = self._draw, self.state.next_key("products")
        category, nouns, prices = draw.pick(words.CATEGORIES)
        name = f"{draw.pick(words.ADJECTIVES)} {draw.pick(nouns)}"
        price, stock = draw.between(*prices), draw.between(100, _DELIVERY)
        tags = [draw.pick(words.TAGS) for _ in range(draw.below(4))]
        self.state.add_product(key, price, prices, stock)
        self._insert(
            "products", (key,), f"{category[:3].upper()}-{key:06d}", name, category, money(price), stock, tags,
            photo(f"{key}/1"),
        )  # fmt: skip
        return True

    def place(self) -> bool:
        """A new order; always possible."""
        self.state.add_order(self.new_order())
        return True

    def new_order(self) -> OrderState:
        """Insert an order with its items; the caller adds it to the state."""
        draw, state = self._draw, self.state
        key = state.next_key("orders")
        customers, products = state.customers.items, state.products.items
        customer = customers[self._customers.rank(draw, len(customers))]
        lines: dict[int, Line] = {}
        for _ in range(draw.weighted(_LINES) + 1):
            product = products[self._products.rank(draw, len(products))]
            if product not in lines:  # so the most popular ones do not stand in one order twice
                lines[product] = Line(product, draw.between(1, 4), state.price[product])
        order = OrderState(key, customer, Status.PLACED, list(lines.values()))
        details: Json = {
            "channel": draw.pick(words.CHANNELS),
            "coupon": draw.pick(words.COUPONS) if draw.chance(0.1) else None,
            "gift": draw.chance(0.05),
        }
        note = draw.pick(words.NOTES) if draw.chance(0.15) else None
        self._insert(
            "orders", (key,), customer, Status.PLACED.value, state.region[customer], money(order.total), details, note
        )
        for number, line in enumerate(order.lines, 1):
            amount = money(line.quantity * line.price)
            self._insert("order_items", (key, number), line.product, line.quantity, money(line.price), amount)
        return order

    def _change_quantity(self) -> bool:
        order = self.state.draw_order(self._draw, Status.PLACED)
        if order is None:
            return False
        at = self._draw.below(len(order.lines))
        line = order.lines[at]
        line.quantity = 1 + (line.quantity + self._draw.below(4)) % 5  # 1 to 5, never the same as before
        self._update("order_items_quantity", (order.id, at + 1), line.quantity, money(line.quantity * line.price))
        self._update("orders_total", (order.id,), money(order.total))
        return True

    def _advance(self) -> bool:
        state = self.state
        order = state.draw_order(self._draw, *_NEXT)
        if order is None:
            return False
        status = _NEXT[order.status]
        if status is Status.SHIPPED:
            if state.is_held("products", *(line.product for line in order.lines)):
                return False
            for line in order.lines:
                left = state.stock[line.product] - line.quantity
                state.stock[line.product] = left if left >= 0 else left + _DELIVERY
                self._update("products_stock", (line.product,), state.stock[line.product])
        state.move(order, status)
        self._update("orders_status", (order.id,), status.value)
        return True

    def _cancel(self) -> bool:
        order = self.state.draw_order(self._draw, Status.PLACED, Status.PAID)
        if order is None:
            return False
        self.state.move(order, Status.CANCELLED)
        self._update("orders_status", (order.id,), Status.CANCELLED.value)
        return True

    def _edit_customer(self) -> bool:
        customers = self.state.customers.items
        key = customers[self._customers.rank(self._draw, len(customers))]
        if self.state.is_held("customers", key):
            return False
        self._update("customers_profile", (key,), self._draw.chance(0.4), self._credit_limit(), self._profile())
        return True

    def _popular_product(self) -> int | None:
        products = self.state.products.items
        key = products[self._products.rank(self._draw, len(products))]
        return None if self.state.is_held("products", key) else key

    def _reprice(self) -> bool:
        key = self._popular_product()
        if key is None:
            return False
        price = self.state.price[key] = self._draw.between(*self.state.prices[key])
        self._update("products_price", (key,), money(price))
        return True

    def _replace_photo(self) -> bool:
        key = self._popular_product()
        if key is None:
            return False
        self.state.photos[key] += 1
        self._update("products_photo", (key,), photo(f"{key}/{self.state.photos[key]}"))
        return True

    def _remove(self, key: int) -> None:
        order = self.state.remove_order(key)
        for number in range(1, len(order.lines) + 1):
            self._delete("order_items", (key, number))
        self._delete("orders", (key,))

    def _purge(self) -> bool:
        order = self.state.draw_order(self._draw, Status.DELIVERED, Status.CANCELLED)
        if order is None or self._is_new("orders", order.id):
            return False
        self._remove(order.id)
        return True

    def _erase(self) -> bool:
        state = self.state
        for _ in range(_TRIES if len(state.customers) > 1 else 0):
            key = self._draw.pick(state.customers.items)
            orders = state.orders_of(key)
            new = self._is_new("customers", key) or any(self._is_new("orders", order) for order in orders)
            if len(orders) <= _ERASED_AT_MOST and not new and not state.is_held("customers", key):
                for order in orders:
                    self._remove(order)
                state.remove_customer(key)
                self._delete("customers", (key,))
                return True
        return False

    def _discontinue(self) -> bool:
        key = self.state.draw_unordered(self._draw)
        if key is None or self._is_new("products", key):
            return False
        self.state.remove_product(key)
        self._delete("products", (key,))
        return True
