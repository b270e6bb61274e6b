"""Debezium's sources: the changes of MySQL and PostgreSQL, in topics ``<prefix>.<database or schema>.<table>``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from streamlab import settings
from streamlab.connect.connectors.common import Connector, Format, Snapshot, milliseconds, names, switch, topics
from streamlab.errors import SettingsError

__all__ = ["MySQLSource", "PostgreSQLSource", "mysql_source"]

_SPECIAL = re.compile(r"[\\.\[\]{}()*+?^$|,]")
"""What is no letter of its own in a regular expression of Java, and the comma, at which Debezium cuts its lists."""

_LOST = (
    r"(?s).*(Connection (reset|refused|is closed)|Broken pipe|Socket closed|[Cc]onnect(ion)? timed out|Read timed out|"
    r"Communications link failure|Failed to connect to MySQL|Failed to read remaining|"
    r"No operations allowed after connection closed|Server shutdown in progress|connection was unexpectedly lost|"
    r"Streaming result set \S+ is still active).*"
)
"""What errors say that come of a lost connection, as a regular expression of Java for the whole text.

Where it is lost while a snapshot's rows come, the last one speaks of the rollback: their result set is still active.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatabaseSource(Connector):
    """What Debezium's sources have in common.

    Parameters
    ----------
    prefix : str
        What the topics' names begin with; also the name of the source in its events.
    tables : sequence of str
        Names of tables in the database or schema, one at least. A name is taken as it is: Debezium's list is of regular
        expressions, so what means something there is escaped. A pattern is said as ``table.include.list`` in `more`.
    snapshot : str
        When the tables themselves are read.
    decimals : str
        How DECIMAL and NUMERIC are written. ``precise`` needs schemas to be read; ``double`` changes amounts.
    times : str
        How dates and times are written (``time.precision.mode``); empty: as Debezium does.
    poll : float
        Seconds between looks at the queue: what a change waits at most inside of the source.
    heartbeat : float
        Seconds between heartbeats, which move the offset on while the tables rest; 0: none. They stand in the topic
        ``<prefix>.heartbeat``.
    heartbeat_query : str
        A statement that each heartbeat executes at the source, so that its log moves too.
    signals : str
        Table through which the source is told what to do (``<database or schema>.<table>``); empty: none. See
        `streamlab.connect.signals`.
    chunk_rows : int
        Rows of a chunk of an incremental snapshot.
    notifications : bool
        Tell how snapshots go on, in the topic ``<prefix>.notifications``.
    retry_wait : float
        Seconds until a task begins again after a lost connection.
    transactions : bool
        Tell where transactions begin and end, in a topic ``<prefix>.transaction`` and in every envelope.
    partitions : int
        Partitions of each topic.

    Raises
    ------
    SettingsError
        `tables` names none, or is one text; or a statement is given for heartbeats, and there are none.
    """

    prefix: str
    tables: Sequence[str]
    snapshot: Snapshot = "initial"
    decimals: Literal["string", "precise", "double"] = "string"
    times: str = ""
    poll: float = 0.05
    heartbeat: float = 0.0
    heartbeat_query: str = ""
    signals: str = ""
    chunk_rows: int = 1024
    notifications: bool = False
    retry_wait: float = 1.0
    transactions: bool = False
    partitions: int = 1

    def __post_init__(self) -> None:
        Connector.__post_init__(self)
        names(self.tables, "tables")
        if self.heartbeat_query and not self.heartbeat:
            raise SettingsError(
                "heartbeat_query= is executed at each heartbeat, and there are none.", "Say heartbeat= in seconds, too."
            )

    def _shared(self, where: str) -> dict[str, str]:
        made = {
            "topic.prefix": self.prefix,
            "table.include.list": ",".join(_pattern(where, table) for table in self.tables),
            "snapshot.mode": self.snapshot,
            "decimal.handling.mode": self.decimals,
            "poll.interval.ms": milliseconds(self.poll),
            "retriable.restart.connector.wait.ms": milliseconds(self.retry_wait),
            **topics(self.partitions),
        }
        if Format.AVRO in {self.key_format, self.value_format}:
            # Avro takes letters, digits and underscores in names; a name of a table may hold anything.
            made |= {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
        if self.times:
            made["time.precision.mode"] = self.times
        if self.heartbeat:
            made["heartbeat.interval.ms"] = milliseconds(self.heartbeat)
            # By default it is a topic outside of the prefix.
            made["topic.heartbeat.name"] = f"{self.prefix}.heartbeat"
            if self.heartbeat_query:
                made["heartbeat.action.query"] = self.heartbeat_query
        if self.signals:
            made["signal.data.collection"] = self.signals
            # The default leaves two rows in the table for each chunk.
            made["incremental.snapshot.watermarking.strategy"] = "insert_delete"
            made["incremental.snapshot.chunk.size"] = str(self.chunk_rows)
        if self.notifications:
            made["notification.enabled.channels"] = "sink"
            made["notification.sink.topic.name"] = f"{self.prefix}.notifications"
        if self.transactions:
            made["provide.transaction.metadata"] = "true"
        return made


def _literal(name: str) -> str:
    """A regular expression of Java, in a list of Debezium, that a name matches and no other."""
    return _SPECIAL.sub(r"\\\g<0>", name)


def _pattern(where: str, table: str) -> str:
    """The same for a table. A plain dot between two names without dots can stand for a dot alone."""
    between = r"\." if "." in where + table else "."
    return _literal(where) + between + _literal(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class MySQLSource(_DatabaseSource):
    """Debezium's MySQL source: a reader of the binary log, at least once. Topics ``<prefix>.<database>.<table>``.

    Parameters
    ----------
    database : str
        The MySQL database.
    schema_changes : bool
        Tell changes of definitions to readers too, in the topic ``<prefix>``.
    keep_alive : float
        Seconds that the server may be silent before the connection is looked at. Heartbeats may shorten it.
    retry_wait : float
        Seconds until a task begins again after a connection that was lost in the snapshot, or while the log was asked
        for. A server that is not back by then ends the task.
    """

    CLASS: ClassVar[str] = "io.debezium.connector.mysql.MySqlConnector"

    database: str
    schema_changes: bool = False
    keep_alive: float = 2.0
    retry_wait: float = 5.0

    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""
        address = settings.mysql_address("cdc")
        return {
            "database.hostname": address.host,
            "database.port": str(address.port),
            "database.user": address.user,
            "database.password": settings.connect_secret("mysql"),
            # Every reader of a binary log has an identity of its own.
            "database.server.id": str(100_000 + zlib.crc32(self.prefix.encode()) % 1_000_000_000),
            "database.include.list": _literal(self.database),
            "schema.history.internal.kafka.bootstrap.servers": settings.kafka_bootstrap(),
            "schema.history.internal.kafka.topic": f"{self.prefix}.schema-history",
            "schema.history.internal.store.only.captured.tables.ddl": "true",
            "include.schema.changes": switch(self.schema_changes),
            "driver.allowPublicKeyRetrieval": "true",
            # By default a minute: so long a source stands still when its server was killed and is back at once. And a
            # heartbeat is told when something comes from the server, which of itself speaks so often.
            "connect.keep.alive.interval.ms": milliseconds(min(self.keep_alive, self.heartbeat or self.keep_alive)),
            # From 3.1 on this plugin repeats nothing after an error (debezium/dbz#2611): a connection that is lost in
            # the snapshot, or while the log is asked for, ends the task. This is its own way around.
            "internal.custom.retriable.exception": _LOST,
            # By default the driver asks the server before each statement whether it may write. Where that fails, it
            # keeps the connection, and Debezium opens no other one: heartbeats would never be executed again.
            **({"driver.readOnlyPropagatesToServer": "false"} if self.heartbeat_query else {}),
            **self._shared(self.database),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLSource(_DatabaseSource):
    """Debezium's PostgreSQL source: a reader of a logical slot, at least once. Topics ``<prefix>.<schema>.<table>``.

    The slot keeps the server's log from being recycled until the source has written the changes: drop it when the
    connector is deleted for good.

    Parameters
    ----------
    schema : str
        Schema of the tables.
    slot : str
        The replication slot; made where it is missing.
    publication : str
        The publication.
    autocreate : bool
        Make the publication for these tables where it is missing: the capturing role has to own them. Otherwise it has
        to be there.
    """

    CLASS: ClassVar[str] = "io.debezium.connector.postgresql.PostgresConnector"

    schema: str
    slot: str
    publication: str
    autocreate: bool = False

    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""
        from psycopg.conninfo import conninfo_to_dict

        address = conninfo_to_dict(str.__str__(settings.postgres_dsn("cdc")))
        return {
            "database.hostname": str(address.get("host", "127.0.0.1")),
            "database.port": str(address.get("port", 5432)),
            "database.dbname": str(address.get("dbname", "")),
            "database.user": str(address.get("user", "")),
            "database.password": settings.connect_secret("postgres"),
            # The default is a decoder that PostgreSQL does not bring.
            "plugin.name": "pgoutput",
            "slot.name": self.slot,
            "publication.name": self.publication,
            # The default is a publication of all tables, which needs a superuser.
            "publication.autocreate.mode": "filtered" if self.autocreate else "disabled",
            **self._shared(self.schema),
        }


def mysql_source(*, prefix: str, database: str, tables: list[str]) -> dict[str, str]:
    """The configuration of a `MySQLSource` with nothing but its defaults.

    Parameters
    ----------
    prefix : str
        What the topics' names begin with; also the name of the source in its events.
    database : str
        The MySQL database.
    tables : list of str
        Names of tables in it.
    """
    return MySQLSource(prefix=prefix, database=database, tables=tables).configuration()
