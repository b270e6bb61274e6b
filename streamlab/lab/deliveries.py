"""Five orders for a sink that is down once: what a handler makes of them, counted.

`deliver` sells, has a reader give each transaction to the handler, and starts the reader again whenever an error ended
it, as whoever watches over a program does. What arrived can then be compared with what was sold: a handler that is
right loses nothing, and repeats nothing while nobody is killed.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError, LessonError
from streamlab.workload import Shop

__all__ = ["FlakySink", "deliver"]

ORDERS: Final = 5
_STOPPED_AT, _DOWN_AT = 3, 4
_LIMIT = 20.0


class FlakySink(list[int]):
    """The numbers of the orders that were written to it. Its fourth call fails, as if it were down for a moment.

    Attributes
    ----------
    calls : int
        How often it was written to.
    said : list of str
        What Python warned of while the handler ran, which would have been lines on standard error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.said: list[str] = []
        self.at_third: Callable[[], object] | None = None

    def write(self, tx: Transaction) -> None:
        """Keep the orders of a transaction.

        Raises
        ------
        ConnectionError
            It is down.
        """
        self.calls += 1
        if self.calls == _DOWN_AT:
            raise ConnectionError("the sink is down")
        self.extend(_orders(tx))
        if self.calls == _STOPPED_AT and self.at_third is not None:
            other = threading.Thread(target=self.at_third)
            other.start()
            other.join()


def deliver(
    shop: Shop,
    reader: Callable[[], PostgreSQLCDC],
    handle: Callable[[Any, FlakySink, PostgreSQLCDC], object],
    *,
    stop: Callable[[PostgreSQLCDC], object] | None = None,
) -> tuple[list[int], FlakySink]:
    """Sell five orders and have them handled.

    Parameters
    ----------
    shop : Shop
        Sells.
    reader : callable
        Makes a reader of its orders; each start has one of its own.
    handle : callable
        Given each transaction, a sink that fails once, and the reader. Also told of what a former start did not
        acknowledge.
    stop : callable, optional
        What another thread does to the reader once, just after the third write.

    Returns
    -------
    sold, sink
        The numbers of the orders, and what arrived.

    Raises
    ------
    LessonError
        The last order did not come.
    """
    sold, sink = [shop.order().id for _ in range(ORDERS)], FlakySink()
    deadline = time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        # The sink is down, or the stream was closed by the other thread: start again.
        with suppress(ConnectionError, ChangeStreamError), reader() as cdc:
            if stop is not None:
                sink.at_third = partial(stop, cdc)
            for tx in cdc.transactions(idle=_LIMIT):
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    handle(tx, sink, cdc)
                sink.said += [str(each.message) for each in told]
                if sold[-1] in _orders(tx):
                    return sold, sink
    raise LessonError("The last of the orders did not come.", "Does the handler acknowledge anything?")


def _orders(tx: Transaction) -> list[int]:
    return [event.new_data["id"] for event in tx if event.table_name == "orders"]
