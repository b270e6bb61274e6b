"""pgoutput's messages from a real server, without a replication connection: by the SQL functions for logical slots."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab import sql as statements
from streamlab.cdc import LSN, Transaction
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.values import TypeMap
from streamlab.stack.namespace import Namespace

OPTIONS = "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=3"


class Server:
    """A schema, a publication of all its tables, and a slot, in the namespace of a test."""

    def __init__(self, namespace: Namespace, *, two_phase: bool = False) -> None:
        schema = namespace.postgres_schema()
        self.schema = schema
        self.connection = self.connect()
        self.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        self.execute(sql.SQL("SET search_path = {}, pg_catalog").format(sql.Identifier(schema)))
        self.publication, self.slot = namespace.publication(), namespace.slot()
        self.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLES IN SCHEMA {}").format(
                sql.Identifier(self.publication), sql.Identifier(schema)
            )
        )
        self.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)", self.slot, two_phase)

    @staticmethod
    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(settings.postgres_dsn("admin"), autocommit=True, options=OPTIONS)

    def another(self) -> psycopg.Connection[Any]:
        """A second session in the same schema."""
        connection = self.connect()
        connection.execute(sql.SQL("SET search_path = {}, pg_catalog").format(sql.Identifier(self.schema)))
        return connection

    def execute(self, query: Any, *parameters: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(query, parameters or None)

    def messages(self, *, protocol: int = 1, **options: str) -> list[bytes]:
        """What the slot holds, as CopyData messages; it stays there."""
        given = {"proto_version": str(protocol), "publication_names": f'"{self.publication}"', **options}
        rows = self.execute(
            "SELECT lsn, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, VARIADIC %s::text[])",
            self.slot,
            [each for pair in given.items() for each in pair],
        )
        return [b"w" + struct.pack("!QQq", LSN.parse(lsn), LSN.parse(lsn), 0) + data for lsn, data in rows]

    def resolve(self, oids: Any) -> list[tuple[Any, ...]]:
        return self.execute(statements.load("postgres_cdc")["types"], list(oids)).fetchall()

    def decode(
        self, *, protocol: int = 1, binary: bool = False, lazy: bool = False, **options: str
    ) -> list[Transaction]:
        """What the slot holds, decoded."""
        if binary:
            options["binary"] = "true"
        decoder = Decoder(protocol=protocol, binary=binary, lazy=lazy, types=TypeMap(self.resolve))
        transactions = decoder.receive(self.messages(protocol=protocol, **options))
        assert not decoder.in_transaction
        return transactions

    def forget(self) -> None:
        """Let the slot go on to here."""
        self.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())", self.slot)

    def close(self) -> None:
        self.connection.close()


def server(name: str, **options: bool) -> Iterator[Server]:
    with Namespace(name) as namespace:
        made = Server(namespace, **options)
        try:
            yield made
        finally:
            made.close()
