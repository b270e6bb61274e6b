"""The generator: draws what happens in the shop next, and plans the rows that change.

It keeps the shop's state in memory and touches no server. Each plan builds on the one before as if
that was committed, so plans are to be carried out in their order, none left out. The clock is
logical and moves with every action; equal parameters and equal calls give equal plans.

An order whose transaction stays open (`open_order`) is not part of the shop until `close_order` says
that it was committed; until then no plan touches the rows that its transaction has locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from operator import attrgetter

from streamlab.errors import StreamlabError
from streamlab.workload.actions import Actions
from streamlab.workload.draw import Draw
from streamlab.workload.plan import ROWS, Action, Mix, Parameters, PlannedTransaction
from streamlab.workload.state import OrderState

__all__ = ["Planner"]

_ORDER = {action: at for at, action in enumerate(Action)}
_by_rank = attrgetter("statement.rank")


class Planner:
    """Plans one shop's history. Used by one thread at a time.

    An interrupt in the middle of a plan leaves a state that nobody knows; every later call says so.

    Parameters
    ----------
    parameters : Parameters
        Seed, size and clock.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._draw = Draw(f"streamlab shop {parameters.seed}")
        self._actions = Actions(parameters, self._draw)
        self._number = 0
        self._tick = parameters.tick // timedelta(microseconds=1)
        self._planning = False

    def opening(self) -> PlannedTransaction:
        """The first stock: every customer and product that the shop opens with. Only before any other plan."""
        self._begin()
        for _ in range(self.parameters.customers):
            self._advance_clock()
            self._actions.register()
        for _ in range(self.parameters.products):
            self._advance_clock()
            self._actions.add_product()
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
        if size < 1:
            raise StreamlabError(f"A transaction of {size} rows.", "Ask for at least 1.")
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
            if self._actions.do[action]():
                done.append(action)
            else:
                self._actions.place()
                done.append(Action.PLACE_ORDER)
        return self._planned(done)

    def open_order(self) -> tuple[PlannedTransaction, OrderState]:
        """Draw an order whose transaction stays open; `close_order` has to follow."""
        self._begin()
        self._advance_clock()
        order = self._actions.new_order()
        self._actions.state.hold(order, 1)
        return self._planned((Action.PLACE_ORDER,)), order

    def close_order(self, order: OrderState, *, committed: bool) -> None:
        """Say what became of an open order: it is part of the shop from now on, or never was."""
        self._actions.state.hold(order, -1)
        if committed:
            self._actions.state.add_order(order)

    def _begin(self) -> None:
        if self._planning:
            raise StreamlabError(
                "A plan of this shop was interrupted half-way, so its state is not known.", "Make a new Shop."
            )
        self._planning = True
        self._actions.begin()

    def _advance_clock(self) -> None:
        step = self._tick // 2 + self._draw.below(self._tick + 1)
        self._actions.at += timedelta(microseconds=step)

    def _planned(self, actions: Sequence[Action]) -> PlannedTransaction:
        operations = self._actions.operations
        operations.sort(key=_by_rank)  # stable: rows of one statement keep the order of their actions
        self._number += 1
        plan = PlannedTransaction(self._number, self._actions.at, tuple(actions), tuple(operations))
        self._planning = False
        return plan
