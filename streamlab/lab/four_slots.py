"""Four readers of one table, of which three are away: what a server looks like after some months.

Each has a replication slot of its own, and the server keeps the log for the slowest of them. `FourSlots` makes them
within a lesson's namespace, sells, shows what the server knows, does what is decided about each, and lets the readers
that are expected back come back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab.cdc.position import LSN
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.errors import LessonError, SlotInUse

__all__ = ["KNOWN", "VERBS", "FourSlots"]

KNOWN: Final[Mapping[str, str]] = {
    "warehouse": "back from an upgrade in an hour; must see every order",
    "search": "rebuilt from the tables tonight; follows again after that",
    "dashboard": "draws the orders of the last minute",
    "trial": "nobody remembers",
}
"""Slot -> what people say of it."""

VERBS: Final = ("read on", "advance", "drop", "leave")
"""What can be done about a slot."""

_LIMIT = 20.0


class FourSlots:
    """The slots, their table and their readers; a context manager that leaves nothing. For one thread.

    Parameters
    ----------
    lab : Lesson
        The running lesson.
    """

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        self._sold = 0
        self.kept: dict[str, list[int]] = {name: [] for name in KNOWN}
        self._publication = lab.publication("four")
        self._readers: dict[str, PostgreSQLCDC] = {}
        self._server = psycopg.connect(settings.postgres_dsn("cdc"), autocommit=True)
        self._shop = psycopg.connect(lab.dsn, autocommit=True)

    def __enter__(self) -> Self:
        try:
            self._shop.execute("CREATE TABLE shipments (id int PRIMARY KEY, address text)")
            for name in KNOWN:
                self._reader(name).initialize()
            self._readers["dashboard"] = dashboard = self._reader("dashboard")
            dashboard.add_handler(lambda event: self.kept["dashboard"].append(event.new_data["id"]))
            dashboard.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the slots, the publication and the table."""
        for reader in self._readers.values():
            reader.close()
        for name in KNOWN:
            self._reader(name).drop(publication=False)
        self._shop.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self._publication)))
        self._shop.execute("DROP TABLE IF EXISTS shipments")
        self._shop.close()
        self._server.close()

    def _reader(self, name: str) -> PostgreSQLCDC:
        return PostgreSQLCDC(
            settings.postgres_dsn("cdc"),
            self._publication,
            self._lab.slot(name),
            tables=[f"{self._lab.schema}.shipments"],
            setup_dsn=self._lab.dsn,
        )

    # -- what goes on -----------------------------------------------------------------------------

    def sell(self, orders: int) -> list[int]:
        """Commit so many orders, and wait until the dashboard has them; their numbers."""
        first, self._sold = self._sold, self._sold + orders
        for number in range(first, self._sold):
            self._shop.execute("INSERT INTO shipments VALUES (%s, repeat('x', 200))", [number])
        deadline = time.monotonic() + _LIMIT
        while not self._keeps_up():
            if time.monotonic() > deadline or not self._readers["dashboard"].running:
                raise LessonError("The dashboard does not keep up with the orders.", "See: streamlab logs postgres")
            time.sleep(0.005)
        return list(range(first, self._sold))

    def _keeps_up(self) -> bool:
        """Whether the dashboard has every order, and the server knows."""
        row = self._server.execute(
            "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            [str(self._readers["dashboard"].received or LSN(0)), self._lab.slot("dashboard")],
        ).fetchone()
        return len(self.kept["dashboard"]) == self._sold and row is not None and bool(row[0])

    def rows(self) -> list[dict[str, Any]]:
        """What the server knows of the slots, and people."""
        names = {self._lab.slot(name): name for name in KNOWN}
        found = self._server.execute(
            "SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint "
            "FROM pg_replication_slots WHERE slot_name = ANY(%s) ORDER BY slot_name",
            [list(names)],
        ).fetchall()
        return [
            {"slot": names[slot], "active": active, "unread, kB": unread / 1000, "known of it": KNOWN[names[slot]]}
            for slot, active, unread in found
        ]

    def pending(self, name: str) -> int:
        """How many orders a slot that nobody reads still has to send; 0 where it is gone."""
        try:
            row = self._server.execute(
                "SELECT count(*) FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1', "
                "'publication_names', %s) WHERE get_byte(data, 0) = ascii('I')",
                [self._lab.slot(name), self._publication],
            ).fetchone()
        except psycopg.errors.UndefinedObject:
            return 0
        return int(row[0]) if row else 0

    # -- what is done about a slot ------------------------------------------------------------------

    def do(self, name: str, verb: str) -> None:
        """Do what was decided.

        Raises
        ------
        SlotInUse
            A reader holds the slot.
        LessonError
            There is no such verb.
        """
        slot = self._lab.slot(name)
        try:
            if verb == "drop":
                self._server.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            elif verb == "advance":
                self._server.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [slot])
            elif verb == "read on":
                self._read(name)
            elif verb != "leave":
                raise LessonError(f"There is no verb {verb!r}.", f"Use one of: {', '.join(VERBS)}.")
        except psycopg.errors.ObjectInUse as error:
            raise SlotInUse(f"{name}: SQLSTATE {error.sqlstate}, {error.diag.message_primary}.") from error

    def _read(self, name: str) -> None:
        if name in self._readers:
            raise SlotInUse(f"{name}: its reader reads already.")
        with self._reader(name) as cdc:
            for transaction in cdc.transactions(until=self.pending(name)):
                self.kept[name] += [each.new_data["id"] for each in transaction]
                cdc.acknowledge(transaction)

    def come_back(self, name: str) -> bool:
        """The reader of a slot comes back and reads what there is; False where its slot is gone."""
        if not self._server.execute(
            "SELECT FROM pg_replication_slots WHERE slot_name = %s", [self._lab.slot(name)]
        ).fetchall():
            return False
        self._read(name)
        return True
