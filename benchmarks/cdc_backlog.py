"""The backlog that the readers of `postgres_cdc` drain: made once, held by one slot, and read through copies of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.case import Bench
from streamlab import settings
from streamlab.cdc.position import LSN
from streamlab.errors import StackError
from streamlab.settings import Dsn
from streamlab.stack.postgres import PostgreSQL

__all__ = ["CHANGES", "PUBLICATION", "QUICK_CHANGES", "Backlog", "backlog"]

CHANGES, QUICK_CHANGES = 1_300_000, 60_000
PUBLICATION, MASTER, COPY = "sl_bench_cdc", "sl_bench_cdc_master", "sl_bench_cdc_copy"

_TABLE = """
CREATE TABLE sl_bench_orders (
    id bigint PRIMARY KEY,
    customer_id int NOT NULL,
    status text NOT NULL,
    amount numeric(12, 2) NOT NULL,
    created_at timestamptz NOT NULL,
    paid boolean NOT NULL
)
"""
_FILL = """
DO $$ BEGIN
FOR k IN 0..{last} LOOP
    INSERT INTO sl_bench_orders
        SELECT k * 700 + g, g * 37 % 100000, 'status-' || g % 7, g * 13 % 100000 / 100.0,
               '2026-01-01'::timestamptz + g * interval '1.000007 seconds', g % 2 = 0
        FROM generate_series(1, 700) AS g;
    UPDATE sl_bench_orders SET amount = amount + 1, status = 'paid'
        WHERE id IN (SELECT k * 700 + g * 3 FROM generate_series(1, 200) AS g);
    DELETE FROM sl_bench_orders WHERE id IN (SELECT k * 700 + g * 7 FROM generate_series(1, 100) AS g);
    COMMIT;
END LOOP;
END $$
"""


class Backlog:
    """Changes in the log: 1000 rows a transaction, 70 % inserts, 20 % updates, 10 % deletes; and who holds them.

    Attributes
    ----------
    changes : int
        How many rows a reader has to find.
    end : LSN
        Where they end.
    """

    def __init__(self, postgres: PostgreSQL, changes: int) -> None:
        self.changes = changes
        self._postgres = postgres
        self._admin = psycopg.connect(self.dsn("tcp"), autocommit=True)
        execute = self._admin.execute
        execute(_TABLE)
        execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE sl_bench_orders")
        execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (MASTER,))
        execute(sql.SQL(_FILL).format(last=sql.Literal(changes // 1000 - 1)))
        # Nothing of the making goes on while it is read.
        execute("CHECKPOINT")
        row: Any = execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        self.end = LSN.parse(row[0])

    def dsn(self, way: str) -> Dsn:
        """The address over a Unix socket (``unix``) or loopback (``tcp``)."""
        address = str.__str__(settings.postgres_dsn("admin"))
        if way == "unix":
            address = psycopg.conninfo.make_conninfo(address, host=str(self._postgres.socket_directory()))
        return Dsn(address)

    @contextmanager
    def slot(self) -> Iterator[str]:
        """A fresh slot that holds everything."""
        self._admin.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", (MASTER, COPY))
        try:
            yield COPY
        finally:
            self._drop(COPY)

    def _drop(self, slot: str) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self._admin.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
                )
                return
            except psycopg.errors.ObjectInUse:
                # The walsender notices within moments that its reader is gone.
                if time.monotonic() > deadline:
                    raise
                self._admin.execute("SELECT pg_sleep(0.02)")

    def check(self, found: int) -> None:
        """Raise where a reader did not find everything: one that lost rows is not fast."""
        if found != self.changes:
            raise StackError(f"A reader found {found} of {self.changes} changes.")

    def close(self) -> None:
        """Drop what was made."""
        self._drop(MASTER)
        self._admin.execute(f"DROP PUBLICATION {PUBLICATION}")
        self._admin.execute("DROP TABLE sl_bench_orders")
        self._admin.close()

    # -- pg_recvlogical ---------------------------------------------------------------------------

    def pg_recvlogical(self, way: str) -> float:
        """Changes per second of PostgreSQL's own client, which writes them to /dev/null, from its start to its end."""
        with self.slot() as slot:
            command: list[str | Path] = [
                self._postgres.bin / "pg_recvlogical", "--dbname", str.__str__(self.dsn(way)), "--slot", slot,
                "--start", "--file", "/dev/null", "--no-loop", "--endpos", str(self.end),
                "--option", "proto_version=1", "--option", f"publication_names={PUBLICATION}",
            ]  # fmt: skip
            begin = time.perf_counter()
            subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL)
            return self.changes / (time.perf_counter() - begin)


@contextmanager
def backlog(bench: Bench) -> Iterator[Backlog]:
    """The backlog of this run; the server goes with the run, and it with the server."""
    if "backlog" not in bench.shared:
        bench.servers.up(["postgres"])
        service = bench.servers.stack.service("postgres")
        if not isinstance(service, PostgreSQL):
            raise StackError("The server of the benchmarks is not ours.")
        bench.shared["backlog"] = Backlog(service, QUICK_CHANGES if bench.quick else CHANGES)
    yield bench.shared["backlog"]
