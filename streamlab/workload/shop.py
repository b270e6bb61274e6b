"""The shop: a generator, a server, and the ledger of what was committed, under one name.

::

    shop = Shop(PostgresTarget(settings.postgres_dsn(), "sl_demo"), seed=7)
    shop.create()
    shop.run(transactions=100)
    with shop.running(rate=500):
        ...
    assert not shop.compare()
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from streamlab.errors import NotOurs, StreamlabError
from streamlab.workload.drive import Per, Running, Throughput, drive
from streamlab.workload.ledger import Difference, Ledger
from streamlab.workload.order import OpenOrder, Order
from streamlab.workload.plan import MIXES, Mix, Parameters, PlannedTransaction
from streamlab.workload.planner import Planner
from streamlab.workload.state import OrderState
from streamlab.workload.tables import TABLES
from streamlab.workload.target import Target
from streamlab.workload.writer import Writer

__all__ = ["MARK", "Shop", "throughput"]

MARK = "streamlab shop"
"""The comment on every table of the shop; one without it is never dropped."""


class Shop:
    """A shop on one server. Threads may share it: its transactions are done one at a time.

    Each planned transaction is committed exactly once, also where the connection is lost in the middle of a
    COMMIT. Equal parameters and equal calls give equal transactions, on either server.

    Parameters
    ----------
    target : Target
        `PostgresTarget` or `MySQLTarget`: the caller's own schema or database.
    seed, customers, products, skew, start, tick
        See `streamlab.workload.plan.Parameters`.
    """

    def __init__(
        self,
        target: Target,
        *,
        seed: int = 7,
        customers: int = 200,
        products: int = 50,
        skew: float = 1.1,
        start: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC),
        tick: timedelta = timedelta(seconds=1),
    ) -> None:
        self.target = target
        self.parameters = Parameters(seed, customers, products, skew, start, tick)
        self.ledger = Ledger()
        self._planner = Planner(self.parameters)
        self._writer = Writer(target, self.ledger.record)
        self._open: dict[OpenOrder, OrderState] = {}
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Shop({self.target!r}, seed={self.parameters.seed}, {self.ledger!r})"

    def create(self) -> None:
        """Create what is missing (the schema or database, the tables) and fill in the first customers and products.

        Raises
        ------
        StreamlabError
            The tables hold rows already, or only some are there, or this shop was opened before.
        NotOurs
            A table of such a name is there that is not a shop's.
        """
        with self._lock:
            if len(self.ledger) or self._writer.pending:
                raise StreamlabError("This shop is open already.", "Make a new Shop to begin again.")
            self.target.prepare()
            session = self._writer.session()
            taken = self._ours()
            if not taken:
                session.create()
            elif set(taken) != set(TABLES) or not session.is_empty():
                raise StreamlabError(
                    f"{self.target.name} holds a shop already.", "Drop it first: shop.drop(); or use another name."
                )
            self._write(self._planner.opening())

    def drop(self) -> None:
        """Drop the shop's tables, with all rows. The schema or database stays.

        Raises
        ------
        NotOurs
            A table of such a name is there that is not a shop's; then nothing is dropped.
        """
        with self._lock:
            if self._ours():
                self._writer.session().drop()

    def _ours(self) -> Mapping[str, str | None]:
        taken = self._writer.session().taken()
        if foreign := sorted(name for name, comment in taken.items() if comment != MARK):
            raise NotOurs(
                f"The table {foreign[0]} in {self.target.name} is not the shop's.", "Use another schema or database."
            )
        return taken

    def close(self) -> None:
        """Roll open orders back and end the connections. The ledger stays."""
        with self._lock:
            for each in list(self._open):
                each.rollback()
            self._writer.close()

    def _write(self, plan: PlannedTransaction, stop: threading.Event | None = None) -> None:
        self._writer.pending = plan
        self._writer.commit(stop)

    def step(self, mix: str | Mix | Mapping[str, float] = "balanced", size: int = 1) -> PlannedTransaction:
        """Plan one transaction and commit it.

        Parameters
        ----------
        mix : str, Mix or mapping
            Name of a ready mix (`MIXES`), or weights by action.
        size : int
            About how many rows it changes; 1 is a single action.
        """
        return self._step(Mix.of(mix), size, None)

    def _step(self, mix: Mix, size: int, stop: threading.Event | None) -> PlannedTransaction:
        with self._lock:
            if self._writer.pending:
                self._writer.commit(stop)  # a call before this one was interrupted or gave up
            if not len(self.ledger):
                raise StreamlabError("The shop is not open yet.", "Call shop.create() first.")
            plan = self._planner.plan(mix, size)
            self._write(plan, stop)
            return plan

    def run(
        self,
        transactions: int | None = None,
        *,
        rows: int | None = None,
        mix: str | Mix | Mapping[str, float] = "balanced",
        size: int = 1,
        rate: float | None = None,
        per: Per = "rows",
    ) -> Throughput:
        """Do transactions one after another, here.

        Parameters
        ----------
        transactions, rows : int, optional
            When to stop: after so many transactions, or with the one that reaches so many rows.
        mix, size
            See `step`.
        rate : float, optional
            So many rows or transactions a second at most; None is as fast as it goes.
        per : {"rows", "transactions"}
            What the rate counts.
        """
        chosen = Mix.of(mix)
        return drive(
            lambda stop: len(self._step(chosen, size, stop)), transactions=transactions, rows=rows, rate=rate, per=per
        )

    def running(
        self,
        rate: float | None = None,
        *,
        per: Per = "rows",
        mix: str | Mix | Mapping[str, float] = "balanced",
        size: int = 1,
    ) -> Running:
        """Do transactions in a thread for the length of a ``with`` block; parameters as of `run`."""
        chosen = Mix.of(mix)
        return Running(lambda stop: len(self._step(chosen, size, stop)), rate=rate, per=per)

    def order(self) -> Order:
        """Place one order and commit it."""
        return Order.of(self.step(MIXES["inserts"]))

    def begin_order(self) -> OpenOrder:
        """Place one order and leave its transaction open.

        Until it ends, other transactions of this shop leave its customer and products alone.
        """
        with self._lock:
            if not len(self.ledger):
                raise StreamlabError("The shop is not open yet.", "Call shop.create() first.")
            plan, state = self._planner.open_order()
            opened = OpenOrder(plan, self.target, self._lock, self._ended)
            self._open[opened] = state
            try:
                opened.begin()
            except BaseException:
                opened.rollback()
                raise
            return opened

    def _ended(self, opened: OpenOrder, committed: bool) -> None:
        if committed:
            self.ledger.record(opened.order.transaction)
        if state := self._open.pop(opened, None):
            self._planner.close_order(state, committed=committed)

    def compare(self) -> tuple[Difference, ...]:
        """Read the tables, as of one instant, and compare them with the ledger. Empty where they are equal."""
        with self._lock:
            if self._writer.pending:
                self._writer.commit()
            return self.ledger.compare(self._writer.session().rows(TABLES))


def throughput(
    target: Target, *, mix: str = "inserts", size: int = 1000, rows: int = 50_000, seed: int = 7
) -> Throughput:
    """Make a shop at a target, do so many rows as fast as it goes, and drop it: for benchmarks.

    The time is that of the transactions, their planning and the ledger included, after a first one that is
    not counted. That the tables are what the ledger says is checked after it.
    """
    with Shop(target, seed=seed) as shop:
        shop.create()
        try:
            shop.run(transactions=1, mix="inserts", size=size)
            measured = shop.run(rows=rows, mix=mix, size=size)
            if differences := shop.compare():
                raise StreamlabError(f"The tables are not what was committed: {differences[0]}.")
        finally:
            shop.drop()
    return measured
