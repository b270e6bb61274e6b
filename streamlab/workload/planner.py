"""The generator: draws what happens in the shop next, and plans the rows that change.

It keeps the shop's state in memory and touches no server. Each plan builds on the one before as if
that was committed, so plans are to be carried out in their order, none left out. The clock is
logical and moves with every action; equal parameters and equal calls give equal plans.

An order whose transaction stays open (`open_order`) is not part of the shop until `close_order` says
that it was committed; until then no plan touches the rows that its transaction has locked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from operator import attrgetter

from streamlab.errors import StreamlabError
from streamlab.workload import vocabulary as words
from streamlab.workload.draw import Draw, Zipf
from streamlab.workload.photo import photo
from streamlab.workload.plan import ROWS, Action, Mix, Operation, Parameters, PlannedTransaction
from streamlab.workload.state import Line, OrderState, ShopState
from streamlab.workload.tables import STATEMENTS, Json, Key, Status, Value

__all__ = ["Planner", "money"]

_LINES = tuple(accumulate((30, 25, 20, 15, 10)))
"""Weights of one to five items in an order."""
_NEXT = {Status.PLACED: Status.PAID, Status.PAID: Status.SHIPPED, Status.SHIPPED: Status.DELIVERED}
_ERASED_AT_MOST = 5
"""A customer with more orders is not erased, so that one action stays a small transaction."""
_TRIES = 8
_DELIVERY = 500
"""What arrives when the stock of a product runs out."""

_by_rank = attrgetter("statement.rank")


@lru_cache(maxsize=65536)
def money(cents: int) -> Decimal:
    """An amount with two places, from cents."""
    return Decimal(cents).scaleb(-2)


class Planner:
    """Plans one shop's history. Used by one thread at a time.

    Parameters
    ----------
    parameters : Parameters
        Seed, size and clock.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.state = ShopState()
        self._draw = Draw(f"streamlab shop {parameters.seed}")
        self._customers, self._products = Zipf(parameters.skew), Zipf(parameters.skew)
        self._number = 0
        self._at = parameters.start
        self._tick = parameters.tick // timedelta(microseconds=1)
        self._operations: list[Operation] = []
        self._planning = False
        self._before: dict[str, int] = {}
        self._do: dict[Action, Callable[[], bool]] = {
            Action.REGISTER_CUSTOMER: self._register,
            Action.ADD_PRODUCT: self._add_product,
            Action.PLACE_ORDER: self._place,
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

    def opening(self) -> PlannedTransaction:
        """The first stock: every customer and product that the shop opens with. Only before any other plan."""
        self._begin()
        for _ in range(self.parameters.customers):
            self._advance_clock()
            self._register()
        for _ in range(self.parameters.products):
            self._advance_clock()
            self._add_product()
        return self._planned(())

    def plan(self, mix: Mix, size: int = 1) -> PlannedTransaction:
        """Draw the next transaction.

        Parameters
        ----------
        mix : Mix
            What happens how often.
        size : int
            About how many rows it changes: actions are drawn until their average sizes add up to it.
            1 is a single action.
        """
        self._begin()
        among, sums, drawn, rows = mix.actions(), mix.sums(), [], 0.0
        while rows < size:
            action = among[self._draw.weighted(sums)]
            drawn.append(action)
            rows += ROWS.get(action, 1.0)
        drawn.sort(key=_ORDER.__getitem__)
        done = []
        for action in drawn:
            self._advance_clock()
            if self._do[action]():
                done.append(action)
            else:
                self._place()
                done.append(Action.PLACE_ORDER)
        return self._planned(tuple(done))

    def open_order(self) -> tuple[PlannedTransaction, OrderState]:
        """Draw an order whose transaction stays open; `close_order` has to follow."""
        self._begin()
        self._advance_clock()
        order = self._new_order()
        self.state.hold(order, 1)
        return self._planned((Action.PLACE_ORDER,)), order

    def close_order(self, order: OrderState, *, committed: bool) -> None:
        """Say what became of an open order: it is part of the shop from now on, or never was."""
        self.state.hold(order, -1)
        if committed:
            self.state.add_order(order)

    # -- the clock and the list of operations ------------------------------------------------------------

    def _begin(self) -> None:
        if self._planning:
            raise StreamlabError(
                "A plan of this shop was interrupted half-way, so its state is not known.", "Make a new Shop."
            )
        self._planning = True
        self._before = self.state.last_keys()

    def _is_new(self, table: str, key: int) -> bool:
        # No plan deletes what it inserted: it could leave no trace, and nobody could tell whether it was committed.
        return key > self._before[table]

    def _advance_clock(self) -> None:
        step = self._tick // 2 + self._draw.below(self._tick + 1)
        self._at += timedelta(microseconds=step)

    @property
    def at(self) -> datetime:
        """The logical clock: instant of the last action."""
        return self._at

    def _planned(self, actions: Sequence[Action]) -> PlannedTransaction:
        operations, self._operations = self._operations, []
        operations.sort(key=_by_rank)  # stable: rows of one statement keep the order of their actions
        self._number += 1
        self._planning = False
        return PlannedTransaction(self._number, self._at, tuple(actions), tuple(operations))

    def _insert(self, table: str, key: Key, *values: Value) -> None:
        at = self._at
        self._operations.append(Operation(STATEMENTS[f"insert_{table}"], key, (*key, *values, at, at)))

    def _update(self, name: str, key: Key, *values: Value) -> None:
        self._operations.append(Operation(STATEMENTS[f"update_{name}"], key, (*values, self._at)))

    def _delete(self, table: str, key: Key) -> None:
        self._operations.append(Operation(STATEMENTS[f"delete_{table}"], key))

    # -- actions: each tells whether it found something to act on -----------------------------------------

    def _register(self) -> bool:
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

    def _add_product(self) -> bool:
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

    def _place(self) -> bool:
        self.state.add_order(self._new_order())
        return True

    def _new_order(self) -> OrderState:
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


_ORDER = {action: at for at, action in enumerate(Action)}
