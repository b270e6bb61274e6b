"""Debezium's JDBC sink: changes from topics into tables of PostgreSQL.

It makes its statements from the schemas of records, so the values have to carry them; it reads Debezium's envelopes as
they are, and rows that were unwrapped. Repeated records are harmless where it writes by key (``upsert``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from streamlab import settings
from streamlab.connect.connectors.common import Connector, Format, names, switch

__all__ = ["JDBCSink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JDBCSink(Connector):
    """Changes from topics into tables of PostgreSQL, at least once; with ``upsert`` the tables end up right.

    Parameters
    ----------
    topics : sequence of str
        The topics.
    table : str
        Name of the table, ``<schema>.<table>``; ``${topic}`` in it is the topic's name with underscores for dots,
        ``${source.table}`` the table of the envelope.
    database : str
        The database; empty: the one that the address names.
    insert : str
        ``upsert`` by key, ``insert`` or ``update``.
    deletes : bool
        Delete rows at tombstones.
    evolve : bool
        Make missing tables, and add missing columns.
    fields : sequence of str
        The fields that are written, each ``<field>`` or ``<topic>:<field>``; empty: all.
    connections : int
        Connections to the database at most.
    dead_letters : str
        Topic for records that cannot be written; empty: the task fails at the first one.
    """

    CLASS: ClassVar[str] = "io.debezium.connector.jdbc.JdbcSinkConnector"

    topics: Sequence[str]
    table: str = "${topic}"
    database: str = ""
    insert: Literal["upsert", "insert", "update"] = "upsert"
    deletes: bool = True
    evolve: bool = True
    fields: Sequence[str] = ()
    connections: int = 2
    dead_letters: str = ""
    key_format: Format = Format.JSON_WITH_SCHEMAS
    value_format: Format = Format.JSON_WITH_SCHEMAS

    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""
        from psycopg.conninfo import conninfo_to_dict

        address = conninfo_to_dict(str.__str__(settings.postgres_dsn("app")))
        where = f"{address.get('host', '127.0.0.1')}:{address.get('port', 5432)}"
        made = {
            "topics": ",".join(names(self.topics, "topics")),
            "connection.url": f"jdbc:postgresql://{where}/{self.database or address.get('dbname', '')}",
            "connection.username": str(address.get("user", "")),
            "connection.password": settings.connect_secret("postgres", "app"),
            # The defaults open five connections for each task, and up to 32.
            "connection.pool.min_size": "1",
            "connection.pool.max_size": str(self.connections),
            "collection.name.format": self.table,
            "insert.mode": self.insert,
            # A deletion is known by its key alone.
            "primary.key.mode": "record_key",
            "delete.enabled": switch(self.deletes),
            "schema.evolution": "basic" if self.evolve else "none",
        }
        if self.fields:
            made["field.include.list"] = ",".join(self.fields)
        if self.dead_letters:
            made |= {
                "errors.tolerance": "all",
                "errors.deadletterqueue.topic.name": self.dead_letters,
                "errors.deadletterqueue.topic.replication.factor": "1",
                "errors.deadletterqueue.context.headers.enable": "true",
            }
        return made
