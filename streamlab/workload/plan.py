"""What the workload means to do: operations on single rows, in planned transactions, out of a mix of actions.

Nothing here touches a server. A `PlannedTransaction` is an intention, the same for PostgreSQL and
MySQL; what a server did about it is a `streamlab.cdc.Transaction`, read from its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from math import isfinite
from types import MappingProxyType

from streamlab.errors import StreamlabError
from streamlab.workload.tables import Key, Statement, Table, Value, Verb

__all__ = ["MIXES", "ROWS", "Action", "Mix", "Operation", "Parameters", "PlannedTransaction"]


class Action(StrEnum):
    """One thing that happens in the shop; inside a large transaction they come in this order."""

    REGISTER_CUSTOMER = "register_customer"
    ADD_PRODUCT = "add_product"
    PLACE_ORDER = "place_order"
    """An order and its items: one to five rows more, products and customers by popularity."""
    CHANGE_QUANTITY = "change_quantity"
    """One item of an order that is not paid, and the order's total."""
    ADVANCE_ORDER = "advance_order"
    """Placed, paid, shipped (which takes every item from the stock), delivered."""
    CANCEL_ORDER = "cancel_order"
    EDIT_CUSTOMER = "edit_customer"
    REPRICE_PRODUCT = "reprice_product"
    """Changes a product and leaves its big photo alone."""
    REPLACE_PHOTO = "replace_photo"
    """Changes a product's big photo."""
    PURGE_ORDER = "purge_order"
    """Deletes a closed order with its items."""
    ERASE_CUSTOMER = "erase_customer"
    """Deletes a customer with all orders and items, in one transaction."""
    DISCONTINUE_PRODUCT = "discontinue_product"
    """Deletes a product that nobody ordered."""


ROWS = MappingProxyType(
    {
        Action.PLACE_ORDER: 3.3,
        Action.CHANGE_QUANTITY: 2.0,
        Action.ADVANCE_ORDER: 1.9,
        Action.PURGE_ORDER: 3.3,
        Action.ERASE_CUSTOMER: 6.0,
    }
)
"""Rows that an action changes on average, where it is not one; used to cut transactions to size."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each action happens, as weights of any scale.

    Parameters
    ----------
    weights : tuple of (Action, float)
        At least one weight above zero.

    Raises
    ------
    StreamlabError
        A weight is negative or not a number, or none is above zero.
    """

    weights: tuple[tuple[Action, float], ...]

    def __post_init__(self) -> None:
        values = [weight for _, weight in self.weights]
        if not all(isfinite(weight) and weight >= 0 for weight in values) or not any(values):
            raise StreamlabError(
                "The weights of a mix must not be negative, and one must be above zero.", "Correct it."
            )

    @classmethod
    def of(cls, mix: str | Mix | Mapping[str, float]) -> Mix:
        """A mix from itself, from the name of a ready one (`MIXES`), or from weights by action.

        Examples
        --------
        >>> Mix.of({"place_order": 3, "advance_order": 1}).weights[0]
        (<Action.PLACE_ORDER: 'place_order'>, 3.0)
        """
        if isinstance(mix, Mix):
            return mix
        if isinstance(mix, str):
            if mix not in MIXES:
                raise StreamlabError(f"There is no mix named {mix}.", f"Choose one of: {', '.join(MIXES)}.")
            return MIXES[mix]
        known = {action.value for action in Action}
        if unknown := sorted(set(mix) - known):
            raise StreamlabError(
                f"The shop knows no action {unknown[0]}.", f"Choose among: {', '.join(sorted(known))}."
            )
        return cls(tuple((action, float(mix[action])) for action in Action if action in mix))

    def actions(self) -> tuple[Action, ...]:
        """The actions in the order of their sums."""
        return tuple(action for action, _ in self.weights)

    def sums(self) -> tuple[float, ...]:
        """Running sums of the weights, as a draw needs them."""
        return tuple(accumulate(weight for _, weight in self.weights))


MIXES: Mapping[str, Mix] = MappingProxyType(
    {
        "balanced": Mix(
            (
                (Action.REGISTER_CUSTOMER, 4),
                (Action.ADD_PRODUCT, 1),
                (Action.PLACE_ORDER, 30),
                (Action.CHANGE_QUANTITY, 8),
                (Action.ADVANCE_ORDER, 36),
                (Action.CANCEL_ORDER, 3),
                (Action.EDIT_CUSTOMER, 5),
                (Action.REPRICE_PRODUCT, 4),
                (Action.REPLACE_PHOTO, 1),
                (Action.PURGE_ORDER, 6),
                (Action.ERASE_CUSTOMER, 1),
                (Action.DISCONTINUE_PRODUCT, 1),
            )
        ),
        "orders": Mix(((Action.PLACE_ORDER, 45), (Action.ADVANCE_ORDER, 50), (Action.CANCEL_ORDER, 5))),
        "inserts": Mix(((Action.PLACE_ORDER, 1),)),
        "updates": Mix(((Action.ADVANCE_ORDER, 4), (Action.REPRICE_PRODUCT, 3), (Action.EDIT_CUSTOMER, 3))),
        "churn": Mix(((Action.PLACE_ORDER, 40), (Action.ADVANCE_ORDER, 20), (Action.PURGE_ORDER, 40))),
    }
)
"""Ready mixes by name. An action that finds nothing to act on becomes an order or another insert."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of one row.

    `values` fill the statement's columns in order: the whole row of an INSERT, the changed columns of
    an UPDATE, nothing for a DELETE. Rows and their JSON are shared and must not be changed.
    """

    statement: Statement
    key: Key
    values: tuple[Value, ...] = ()

    @property
    def verb(self) -> Verb:
        """INSERT, UPDATE or DELETE."""
        return self.statement.verb

    @property
    def table(self) -> Table:
        """The table of the row."""
        return self.statement.table

    def changes(self) -> dict[str, Value]:
        """The values by column name."""
        return dict(zip(self.statement.columns, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class PlannedTransaction:
    """Operations that a server is to carry out together, in this order.

    Attributes
    ----------
    number : int
        Counts the plans of one shop from 1. A plan that was rolled back keeps its number.
    at : datetime
        Instant of its last action on the shop's logical clock: the `updated_at` of the rows that this
        action wrote. No other action has it.
    actions : tuple of Action
        What happens in it. Empty for the first stock of customers and products.
    operations : tuple of Operation
        At least one.
    """

    number: int
    at: datetime
    actions: tuple[Action, ...]
    operations: tuple[Operation, ...]

    def __len__(self) -> int:
        return len(self.operations)

    def __repr__(self) -> str:
        return f"PlannedTransaction({self.number}, {self.at.isoformat()}, {len(self.operations)} operations)"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What decides a shop's history: equal parameters and equal calls give equal transactions, on either server.

    Attributes
    ----------
    seed : int
        Any integer.
    customers, products : int
        How many there are when the shop opens; at least 1.
    skew : float
        Exponent of the popularity of customers and products (Zipf): the one of rank r is chosen r**-skew
        times as often as the first. 0 makes all alike.
    start : datetime
        Aware; the first instant of the logical clock. The wall clock is never read.
    tick : timedelta
        Mean distance of two actions on the logical clock; each takes 0.5 to 1.5 of it.

    Raises
    ------
    StreamlabError
        A value is out of its range.
    """

    seed: int = 7
    customers: int = 200
    products: int = 50
    skew: float = 1.1
    start: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    tick: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if self.customers < 1 or self.products < 1:
            raise StreamlabError("A shop needs a customer and a product.", "Ask for at least one of each.")
        if not (isfinite(self.skew) and 0 <= self.skew <= 10):
            raise StreamlabError(f"skew={self.skew} is not between 0 and 10.", "1.1 is a usual popularity, 0 has none.")
        if self.start.tzinfo is None:
            raise StreamlabError("start has no time zone.", "Give an aware datetime, for example with tzinfo=UTC.")
        if self.tick < timedelta(microseconds=10):
            raise StreamlabError(
                "tick is shorter than 10 microseconds.", "Two actions could get one instant: make it longer."
            )
