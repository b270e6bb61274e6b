"""Recordings of a real server's stream, for tests; `python -m cdc.recorded FILE` in tests/ makes the one in data/.

The bytes come from a replication connection, as the server sends them.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import pq, sql

from cdc import encoder
from cdc.server import OPTIONS, Server
from streamlab import settings
from streamlab import sql as statements
from streamlab.cdc import LSN, Transaction
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.recording import About, Recorder
from streamlab.cdc.values import TypeMap

TABLE = encoder.Table(5, "public", "orders", (("id", 20), ("note", 25)), frozenset({"id"}))


def committed(number: int, rows: int = 1) -> list[bytes]:
    """One whole transaction as a server would send it, made by hand."""
    position = number * 0x100
    return [
        encoder.begin(number, position),
        TABLE.relation(),
        *(TABLE.insert([str(number * 1000 + row), "x" * 20]) for row in range(rows)),
        encoder.commit(position, position + 0x10),
    ]


class RawStream:
    """The stream of a test's slot, recorded as it is read."""

    def __init__(self, server: Server, path: Path, *, note: str = "") -> None:
        self.server = server
        self.connection: psycopg.Connection[Any] = psycopg.connect(
            settings.postgres_dsn("admin"), replication="database", autocommit=True, options=OPTIONS
        )
        version = str(self.connection.info.parameter_status("server_version")).split()[0]
        row = server.execute(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", server.slot
        ).fetchone()
        assert row is not None
        about = About(version, publications=(server.publication,), start=LSN.parse(row[0]), note=note)
        self.recorder = Recorder(path, about)
        self.decoder = Decoder(types=TypeMap(self.resolve))
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, messages 'true')"
        ).format(sql.Identifier(server.slot), sql.Literal(f'"{server.publication}"'))
        result = self.connection.pgconn.exec_(command.as_bytes(self.connection))
        assert result.status == pq.ExecStatus.COPY_BOTH, result.error_message

    def resolve(self, oids: Iterable[int]) -> list[tuple[Any, ...]]:
        rows = self.server.resolve(oids)
        self.recorder.types(rows)
        return rows

    def read(self, count: int, limit: float = 10.0) -> list[Transaction]:
        """Record until so many transactions were committed; what they are, decoded at once."""
        found: list[Transaction] = []
        deadline = time.monotonic() + limit
        while len(found) < count:
            length, message = self.connection.pgconn.get_copy_data(1)
            if length > 0:
                if message[:1] == b"w":
                    self.recorder.append([message])
                    found += self.decoder.receive([message])
                continue
            assert length == 0, "the stream ended"
            assert time.monotonic() < deadline, "no transaction came"
            select.select([self.connection.fileno()], [], [], 0.5)
            self.connection.pgconn.consume_input()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recorder.close()
        self.connection.close()


def shop(server: Server) -> None:
    """The shop's tables, in the server's schema."""
    server.execute(statements.load("shop_postgres")["create_shop"])


def sell(server: Server, stream: RawStream | None, *, orders: int, seed: int = 0) -> list[Transaction]:
    """Customers, products, orders and what becomes of them, each step a transaction of its own."""
    choice = random.Random(seed)
    names, block = ("Ada", "Grace", "Edsger", "Barbara", "Tony", "Radia"), statements.load("shop_postgres")
    clock = datetime(2026, 1, 1, 8, tzinfo=UTC)
    found: list[Transaction] = []

    def done() -> None:
        if stream is not None:
            found.extend(stream.read(1))

    with server.connection.transaction():
        for number in range(1, 21):
            name = choice.choice(names)
            server.execute(
                block["insert_customers"], number, name, f"{name.lower()}{number}@example.org", choice.choice("DEFRIT"),
                number % 3 == 0, Decimal(number * 100), json.dumps({"visits": number}), clock, clock,
            )  # fmt: skip
    done()
    with server.connection.transaction():
        for number in range(1, 13):
            photo = choice.randbytes(1500).hex()  # large enough to be stored out of line
            server.execute(
                block["insert_products"], number, f"SKU-{number:03}", f"Product {number}",
                choice.choice(("tea", "cup")), Decimal(number) + Decimal("0.99"), 1000, ["new", "näher"],
                photo, clock, clock,
            )  # fmt: skip
    done()
    for number in range(1, orders + 1):
        clock += timedelta(seconds=choice.randrange(1, 90))
        lines = [(choice.randrange(1, 13), choice.randrange(1, 5)) for _ in range(choice.randrange(1, 4))]
        total = sum(Decimal(product * count) for product, count in lines)
        with server.connection.transaction():
            server.execute(
                block["insert_orders"], number, choice.randrange(1, 21), "placed", choice.choice(("north", "south")),
                total, json.dumps({"lines": len(lines)}), None, clock, clock,
            )  # fmt: skip
            for line, (product, count) in enumerate(lines, 1):
                price = Decimal(product)
                server.execute(
                    block["insert_order_items"], number, line, product, count, price, price * count, clock, clock
                )
                server.execute("UPDATE products SET stock = stock - %s WHERE id = %s", count, product)
        done()
        if number % 3 == 0:
            server.execute(block["update_orders_status"], choice.choice(("paid", "cancelled")), clock, number)
            done()
        if number % 20 == 0:
            with server.connection.transaction():
                server.execute("DELETE FROM order_items WHERE order_id = %s", number - 1)
                server.execute(block["delete_orders"], number - 1)
            done()
    server.execute("SELECT pg_logical_emit_message(true, 'shop', 'closed for today')")
    done()
    return found


def main(path: Path) -> None:
    """Record the shop of data/README.md; needs a running stack."""
    from streamlab.stack.namespace import Namespace

    with Namespace("recording") as namespace, closing(Server(namespace)) as server:
        shop(server)
        server.forget()
        with RawStream(server, path, note="The shop: customers, products, and 300 orders.") as stream:
            sell(server, stream, orders=300)
    path.chmod(0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
