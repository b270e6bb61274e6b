"""Following any PostgreSQL database for a while: what the notebook `explore` stands on.

Nothing is written to the database. Following it takes a temporary replication slot, which goes with its connection,
and a publication that is there already; where there is none, the exact SQL that would make it is said. Without an
address, the stack's own server is used, with a small shop in a namespace of its own, so that there is something to see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, LiteralString, NamedTuple, Self

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab.cdc import slots
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.session import CDCSession
from streamlab.cdc.transaction import Transaction
from streamlab.errors import CannotCapture, PublicationUnusable
from streamlab.lab import table
from streamlab.lab.activity import Activity
from streamlab.lab.lessons import Lesson, lesson
from streamlab.lab.live import Rendered, note
from streamlab.lab.patterns import Patterns
from streamlab.lab.timeline import size_text
from streamlab.settings import Dsn
from streamlab.sql import load
from streamlab.workload import Shop
from streamlab.workload.tables import TABLES

__all__ = ["Explorer", "TableFacts"]

_PUBLICATION: Final = "streamlab_explore"
"""How the publication is called in the SQL that is proposed."""

_WAIT = 0.2  # seconds that a batch may take to fill


class TableFacts(NamedTuple):
    """A table, as the catalog describes it; see the block ``tables`` of streamlab/sql/explore.sql."""

    schema: str
    name: str
    rows: int
    size: int
    inserts: int
    updates: int
    deletes: int
    identity: str
    readable: bool

    @property
    def publishable(self) -> bool:
        """Whether publishing it does no harm to those who write to it, and its changes can be read."""
        return self.identity != "none" and self.readable

    @property
    def full(self) -> str:
        """Schema and name."""
        return f"{self.schema}.{self.name}"


class Explorer:
    """A database that is looked at. A context manager; for the main thread alone.

    Parameters
    ----------
    dsn : str
        Any PostgreSQL, as a role with REPLICATION, and SELECT on the tables. Empty: the stack's own, with a shop.
    tables : str or sequence of str
        Which tables, by ``schema.table`` with the wildcards ``*``, ``?`` and ``[...]``; several with commas between.
        What stands in double quotes is meant as it is: ``public."a, b[1]"``.
    publication : str
        The publication to follow; by default the one that holds most of these tables.
    seed : int
        Of the shop.

    Attributes
    ----------
    dsn, watcher : Dsn
        As whom changes are read, and as whom the server is asked how far it has come: of the stack's own, the role that
        sees that.

    Raises
    ------
    ChangeStreamError
        No connection can be made.
    LessonError
        The stack's server does not run and cannot be started.
    """

    def __init__(
        self, dsn: str = "", *, tables: str | Sequence[str] = "*", publication: str = "", seed: int = 7
    ) -> None:
        self._lesson: Lesson | None = None
        self._shop: Shop | None = None
        self._patterns = Patterns(tables)
        self._wanted = publication
        if str.__str__(dsn):
            self.dsn = self.watcher = Dsn(str.__str__(dsn))
        else:
            self._make_shop(seed)
        try:
            self._connection = slots.connect(self.dsn)
        except BaseException:
            self._close_shop()
            raise

    def _make_shop(self, seed: int) -> None:
        made = self._lesson = lesson("explore", needs=["postgres"], seed=seed)
        try:
            self._shop = made.shop(customers=40, products=20)
            self.dsn, self.watcher = settings.postgres_dsn("cdc"), settings.postgres_dsn("reader")
            name = made.publication()
            with psycopg.connect(str.__str__(made.dsn), autocommit=True) as owner:
                statement = self._statement(name, [(made.schema, each) for each in TABLES])
                owner.execute(statement)
        except BaseException:
            self._close_shop()
            raise
        if self._patterns.everything:
            # Other lessons may be at work beside this one.
            self._patterns = Patterns(f"{made.schema}.*")

    def __repr__(self) -> str:
        return f"<Explorer {self.dsn!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- looking ----------------------------------------------------------------------------------

    def _rows(self, block: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(load("explore")[block]).fetchall()
        except psycopg.Error as error:
            raise slots.refused(error, "The look at the catalog") from error

    def summary(self) -> Rendered:
        """The database in a few words: version, role, size, and what is in the way of following it."""
        ((database, role, version, level, size, replication),) = self._rows("database")
        problems = []
        if level != "logical":
            problems.append(f"wal_level is {level}: ALTER SYSTEM SET wal_level = 'logical', then restart the server.")
        if not replication:
            problems.append(f"The role may not replicate: {_text('ALTER ROLE {} REPLICATION;', sql.Identifier(role))}")
        headline = f"{database}, {size_text(size)}, PostgreSQL {version.split()[0]}, as {role}"
        return note("missed" if problems else "said", headline, *problems)

    def facts(self) -> list[TableFacts]:
        """The tables that were asked for, the largest first."""
        every = (TableFacts(*row) for row in self._rows("tables"))
        return [each for each in every if self.wants(each.full)]

    def wants(self, full: str) -> bool:
        """Whether a table, by schema and name, was asked for."""
        return self._patterns(full)

    def tables(self, *, limit: int = table.LIMIT) -> Rendered:
        """The tables with their sizes, and what was done to them since the statistics were reset."""
        rows = [
            (each.full, None if each.rows < 0 else each.rows, size_text(each.size), each.inserts, each.updates,
             each.deletes, each.identity if each.readable else f"{each.identity}; not readable")
            for each in self.facts()
        ]  # fmt: skip
        return table.render(
            rows,
            *("table", "rows, estimated", "size", "inserts", "updates", "deletes", "replica identity"),
            limit=limit,
        )

    # -- the publication --------------------------------------------------------------------------

    def publication(self) -> str:
        """The publication that is followed.

        Raises
        ------
        PublicationUnusable
            There is none that holds any of the tables; the message has the SQL that makes one.
        CannotCapture
            No table fits.
        """
        facts = self.facts()
        if not facts:
            raise CannotCapture(
                f"No table fits {self._patterns}.", "Give another pattern for schema.table, such as public.*"
            )
        held: dict[str, set[str]] = {}
        for name, schema, found in self._rows("publications"):
            if self.wants(f"{schema}.{found}") and self._wanted in {"", name}:
                held.setdefault(name, set()).add(f"{schema}.{found}")
        if not held:
            named = f"called {self._wanted} " if self._wanted else ""
            raise PublicationUnusable(
                f"There is no publication {named}that holds one of the tables.",
                f"As their owner, run: {self.proposal()}  To undo it: "
                f"{_text('DROP PUBLICATION {};', sql.Identifier(self._wanted or _PUBLICATION))}",
            )
        return max(held, key=lambda name: (len(held[name]), name))

    def proposal(self) -> str:
        """The SQL that makes a publication of the tables; nothing here runs it.

        Raises
        ------
        CannotCapture
            None of the tables can be published without harm.
        """
        fit = [each[:2] for each in self.facts() if each.publishable]
        if not fit:
            raise CannotCapture(
                "None of the tables has a replica identity and can be read by this role: once they are published, "
                "PostgreSQL refuses their UPDATEs and DELETEs.",
                "Give them a primary key, or REPLICA IDENTITY FULL.",
            )
        statement = self._statement(self._wanted or _PUBLICATION, fit)
        return f"{statement.as_string(self._connection)};"

    def published(self) -> Rendered:
        """Which publication is followed, and which of the tables it leaves out.

        Raises
        ------
        PublicationUnusable, CannotCapture
            As `publication`.
        """
        name = self.publication()
        inside = {(schema, found) for each, schema, found in self._rows("publications") if each == name}
        left = [each for each in self.facts() if each[:2] not in inside]
        more = f"Without {len(left)} of the tables" if left else ""
        if fit := [each[:2] for each in left if each.publishable]:
            tables = sql.SQL(", ").join(sql.Identifier(*each) for each in fit)
            more += f"; to have them too: {_text('ALTER PUBLICATION {} ADD TABLE {};', sql.Identifier(name), tables)}"
        if unfit := [each.full for each in left if not each.publishable]:
            # PostgreSQL would refuse their UPDATEs and DELETEs.
            more += f" Not to be published, without a replica identity or unreadable: {', '.join(unfit)}."
        return note("missed" if left else "passed", f"The publication {name} is followed.", more)

    @staticmethod
    def _statement(name: str, tables: list[tuple[str, str]]) -> sql.Composed:
        listed = sql.SQL(", ").join(sql.Identifier(*each) for each in tables)
        return sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(name), listed)

    # -- following --------------------------------------------------------------------------------

    def session(self, **options: Any) -> CDCSession:
        """A reader with a temporary slot, which goes with it; `options` as for `PostgreSQLCDC`.

        Raises
        ------
        CannotCapture
            Something is in the way; the message says what to do.
        """
        return PostgreSQLCDC.session(self.dsn, publication=self.publication(), **{"messages": True, **options})

    def traffic(self, rate: float = 200.0) -> AbstractContextManager[Any]:
        """In the stack's own shop, customers who buy for the length of a block; elsewhere nothing.

        Parameters
        ----------
        rate : float
            About how many rows a second.
        """
        return nullcontext() if self._shop is None else self._shop.running(rate)

    def follow(
        self,
        reader: CDCSession,
        *,
        seconds: float = 5.0,
        limit: int = 10_000,
        each: Callable[[], object] = lambda: None,
    ) -> Activity:
        """Count what happens to the tables, for a while.

        Parameters
        ----------
        reader : CDCSession
            As `session` gives it, open.
        seconds, limit
            When to end: after so long, or with so many changes, whichever is first.
        each : callable
            Called a few times a second, to show how it goes.
        """
        activity = Activity()
        began = time.monotonic()
        activity.begin(datetime.now(UTC))
        while activity.changes < limit and (left := began + seconds - time.monotonic()) > 0:
            for batch in reader.batches(max_rows=1000, max_wait=min(_WAIT, left), idle=min(_WAIT, left)):
                for transaction in batch.transactions:
                    self._count(activity, transaction, limit - activity.changes)
                reader.acknowledge(batch)
                each()
                if activity.changes >= limit or time.monotonic() - began >= seconds:
                    break
            each()
        activity.seconds = time.monotonic() - began
        if activity.changes >= limit:
            activity.note = f"Ended at the limit of {limit:,} changes."
        return activity

    def _count(self, activity: Activity, transaction: Transaction, limit: int) -> None:
        def ours() -> Iterator[Any]:
            for event in transaction:
                if not event.table_name or self.wants(f"{event.schema}.{event.table_name}"):
                    yield event

        if limit > 0:
            activity.add(transaction, ours(), limit=limit)

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the connection; of our own server, drop the shop. Repeatable."""
        try:
            self._connection.close()
        finally:
            self._close_shop()

    def _close_shop(self) -> None:
        made, self._lesson, self._shop = self._lesson, None, None
        if made is not None:
            made.close()


def _text(template: LiteralString, *parts: sql.Composable) -> str:
    return sql.SQL(template).format(*parts).as_string(None)
