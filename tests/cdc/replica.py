"""A replica of tables in another schema, made from events alone, whose position moves in the transaction of its rows.

As a program it runs until it has seen the message that ends the test; it may be killed at any time and started again::

    python replica.py '{"publication": ..., "slot": ..., "schema": ..., "tables": [...], "options": {...}}'

With ``"chunks": "table"`` it reads that table's rows in chunks first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab.cdc import ChangeEvent, Checkpoint, Operation, PostgreSQLCDC, Transaction
from streamlab.cdc.incremental import ChunkProgress

END = "the end"
"""Prefix of the logical message after which nothing more is written."""


def checksum(connection: psycopg.Connection[Any], schema: str, table: str) -> Any:
    """How many rows a table has, and a sum over hashes of them all, made by the server."""
    query = sql.SQL("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {} t")
    return connection.execute(query.format(sql.Identifier(schema, table))).fetchone()


class Replica:
    """Applies whole transactions; of those that come together, the last state of each row.

    A table has a key of one column, or none, and then only gets inserts.
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str, tables: Sequence[str]) -> None:
        self.connection, self.schema, self.tables = connection, schema, tables

    def create(self, source: str) -> None:
        """Make the schema and empty tables like those of another schema."""
        self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        for table in self.tables:
            self.connection.execute(
                sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING INDEXES)").format(
                    sql.Identifier(self.schema, table), sql.Identifier(source, table)
                )
            )

    def apply(self, transactions: Iterable[Transaction]) -> bool:
        """Apply them in the open transaction; whether the message of the end was among them."""
        rows: dict[str, dict[Any, tuple[ChangeEvent, bool]]] = {table: {} for table in self.tables}
        emptied, ended = set(), False
        for transaction in transactions:
            for event in transaction:
                if event.operation is Operation.MESSAGE:
                    ended = ended or event.new_data["prefix"] == END
                elif event.operation is Operation.TRUNCATE:
                    emptied.add(event.table_name)
                    rows[event.table_name].clear()
                else:
                    gone = event.operation is Operation.DELETE
                    # Where the identity is the whole row the table has no key.
                    key = event.key if len(event.primary_key) == 1 else (event.position, event.ordinal)
                    if event.old_data and not gone:
                        rows[event.table_name][(event.old_data[event.primary_key[0]],)] = event, True
                    rows[event.table_name][key] = event, gone
        for table in self.tables:
            self._write(table, rows[table], emptied=table in emptied)
        return ended

    def _write(self, table: str, rows: dict[Any, tuple[ChangeEvent, bool]], *, emptied: bool) -> None:
        name = sql.Identifier(self.schema, table)
        if emptied:
            self.connection.execute(sql.SQL("DELETE FROM {}").format(name))
        first = next((event for event, _ in rows.values()), None)
        if first is not None and len(first.primary_key) == 1:
            self.connection.execute(
                sql.SQL("DELETE FROM {} WHERE {} = ANY (%s)").format(name, sql.Identifier(*first.primary_key)),
                [[key for (key,) in rows]],
            )
        kept = [event.new_data for event, gone in rows.values() if not gone]
        if kept:
            columns = sql.SQL(", ").join(map(sql.Identifier, kept[0]))
            with self.connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(name, columns)) as copy:
                for data in kept:
                    copy.write_row(tuple(data.values()))

    def follow(self, publication: str, slot: str, *, until: int | None = None, **options: Any) -> bool:
        """Apply batches until the end, or `until` of them; whether it was the end."""
        held = Checkpoint("replica", schema=self.schema).acquire(self.connection)
        with PostgreSQLCDC(
            settings.postgres_dsn("cdc"), publication, slot, resume_after=held.position, messages=True, **options
        ) as cdc:
            for number, batch in enumerate(cdc.batches(max_rows=5000, max_wait=0.2), 1):
                with self.connection.transaction():
                    held.move(self.connection, batch.end_position)
                    ended = self.apply(batch.transactions)
                cdc.acknowledge(batch)
                if ended:
                    return True
                if number == until:
                    return False
        raise AssertionError("the stream ended by itself")

    def follow_chunks(self, publication: str, slot: str, table: str, *, rows: int, **options: Any) -> None:
        """Apply transactions until the rows of a table were read; where that is, is kept in the table `progress`."""
        kept = sql.Identifier(self.schema, "progress")
        held = Checkpoint("replica", schema=self.schema).acquire(self.connection)
        found = self.connection.execute(sql.SQL("SELECT progress FROM {}").format(kept)).fetchone()
        resume = ChunkProgress.parse(found[0]) if found else None
        with PostgreSQLCDC(
            settings.postgres_dsn("cdc"), publication, slot, resume_after=held.position, **options
        ) as cdc:
            chunks = cdc.snapshot_chunks(table, chunk_rows=rows, resume=resume)
            for transaction in chunks:
                with self.connection.transaction():
                    held.move(self.connection, transaction.end_position)
                    self.apply([transaction])
                    self.connection.execute(sql.SQL("DELETE FROM {}").format(kept))
                    self.connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(kept), [str(chunks.progress)])
                cdc.acknowledge(transaction)


def main(text: str) -> None:
    about = json.loads(text)
    where = about["publication"], about["slot"]
    with closing(psycopg.connect(settings.postgres_dsn("app"), autocommit=True)) as connection:
        replica = Replica(connection, about["schema"], about["tables"])
        if "chunks" in about:
            replica.follow_chunks(*where, about["chunks"], rows=about["rows"], **about["options"])
        assert replica.follow(*where, **about["options"])


if __name__ == "__main__":
    main(*sys.argv[1:])
