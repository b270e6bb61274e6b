"""Objects on the servers that belong to a run: how each kind is named apart, and how it is dropped.

Dropping is by exact name (or by the prefix that the run's own random name makes unique), idempotent,
and touches nothing else: the servers may be a user's own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.errors import StackError
from streamlab.sql import load, mysql_identifier
from streamlab.stack.registry import delete_subjects
from streamlab.stack.threads import side_by_side

__all__ = [
    "Kind",
    "Ours",
    "delete_groups",
    "delete_topics",
    "drop",
    "drop_slot",
    "identity",
    "kafka_admin",
]


_LIMIT = 20.0
"""Seconds for which a worker of Kafka Connect that does not answer is asked again."""


class Kind(StrEnum):
    """Kinds of objects, in the order in which they are dropped."""

    CONNECTOR = "connector"
    GROUP = "group"
    TOPIC = "topic"
    TOPIC_PREFIX = "topic_prefix"
    SUBJECT_PREFIX = "subject_prefix"
    SLOT = "slot"
    PUBLICATION = "publication"
    SCHEMA = "schema"
    DATABASE = "database"

    @property
    def service(self) -> str:
        """The service that holds objects of this kind."""
        return {
            Kind.CONNECTOR: "connect",
            Kind.GROUP: "kafka",
            Kind.TOPIC: "kafka",
            Kind.TOPIC_PREFIX: "kafka",
            Kind.SUBJECT_PREFIX: "registry",
            Kind.DATABASE: "mysql",
        }.get(self, "postgres")


@dataclass(frozen=True, slots=True)
class Ours:
    """One object of a run: what it is, its full name, and on which server it was made."""

    kind: Kind
    name: str
    server: str


def identity(service: str) -> str:
    """Which server a service's address means now: host, port and, for PostgreSQL, the database."""
    if service == "postgres":
        parts = psycopg.conninfo.conninfo_to_dict(str.__str__(settings.postgres_dsn("admin")))
        return f"{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
    if service == "mysql":
        address = settings.mysql_address("admin")
        return f"{address.host}:{address.port}"
    if service == "registry":
        return settings.registry_url()
    return settings.kafka_bootstrap() if service == "kafka" else settings.connect_url()


def drop(objects: Iterable[Ours]) -> list[str]:
    """Drop objects of a run. What cannot be reached is reported, never raised; the rest goes on.

    Returns
    -------
    list of str
        One sentence for each kind of object that could not be dropped.
    """
    remaining = list(objects)
    problems = []
    for kind in Kind:
        names = sorted({each.name for each in remaining if each.kind is kind})
        if not names:
            continue
        try:
            _DROP[kind](names)
        except Exception as error:  # noqa: BLE001 - a server may fail in any way; the others must still be tidied
            problems.append(
                f"{kind}s {', '.join(names)} were not dropped: {str(error).strip() or type(error).__name__}"
            )
    return problems


# -- Kafka Connect ------------------------------------------------------------------------------------


def _connectors(names: Sequence[str]) -> None:
    # Each is stopped first, for which a worker takes its time.
    with ConnectClient(limit=_LIMIT) as client:
        side_by_side(partial(client.delete, forget=True), names, name="streamlab-drop", most=4)


# -- Kafka --------------------------------------------------------------------------------------------


def kafka_admin() -> Any:
    """A quiet `confluent_kafka.admin.AdminClient` for the broker in use."""
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap(), "log_level": 0})


def delete_topics(admin: Any, names: Sequence[str], *, limit: float = 20.0) -> None:
    """Delete topics and wait until the broker no longer lists them."""
    from confluent_kafka import KafkaError, KafkaException

    if not names:
        return
    for future in admin.delete_topics(list(names), operation_timeout=limit).values():
        try:
            future.result(timeout=limit)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    deadline = time.monotonic() + limit
    while set(names) & set(admin.list_topics(timeout=5).topics):
        if time.monotonic() > deadline:
            raise StackError(f"Kafka still lists topics after {limit:.0f} s: {', '.join(names)}.")
        time.sleep(0.02)


def delete_groups(admin: Any, names: Sequence[str], *, limit: float = 12.0) -> None:
    """Delete consumer groups; one with members left is waited for."""
    from confluent_kafka import KafkaError, KafkaException

    deadline = time.monotonic() + limit
    waiting = list(names)
    while waiting:
        busy = []
        for name, future in admin.delete_consumer_groups(waiting, request_timeout=10).items():
            try:
                future.result(timeout=limit)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.NON_EMPTY_GROUP and time.monotonic() < deadline:
                    busy.append(name)
                elif code != KafkaError.GROUP_ID_NOT_FOUND:
                    raise
        waiting = busy
        if waiting:
            time.sleep(0.1)


def _topics(names: Sequence[str]) -> None:
    delete_topics(kafka_admin(), names)


def _topic_prefixes(prefixes: Sequence[str]) -> None:
    admin = kafka_admin()
    found = [
        t
        for t in admin.list_topics(timeout=5).topics
        if any(t == p or t.startswith((f"{p}.", f"{p}_", f"{p}-")) for p in prefixes)
    ]
    delete_topics(admin, found)


def _groups(names: Sequence[str]) -> None:
    delete_groups(kafka_admin(), names)


# -- PostgreSQL ---------------------------------------------------------------------------------------


def _postgres() -> psycopg.Connection[Any]:
    return psycopg.connect(str.__str__(settings.postgres_dsn("admin")), autocommit=True, connect_timeout=5)


def drop_slot(connection: psycopg.Connection[Any], name: str, *, limit: float = 10.0) -> None:
    """Drop a replication slot; a reader that still holds it is disconnected first."""
    deadline = time.monotonic() + limit
    while True:
        row = connection.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [name]).fetchone()
        if row is None:
            return
        if row[0] is not None:
            connection.execute("SELECT pg_terminate_backend(%s)", [row[0]])
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
        except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _slots(names: Sequence[str]) -> None:
    with _postgres() as connection:
        for name in names:
            drop_slot(connection, name)


def _publications(names: Sequence[str]) -> None:
    with _postgres() as connection:
        for name in names:
            connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))


def _schemas(names: Sequence[str]) -> None:
    with _postgres() as connection:
        connection.execute("SET lock_timeout = '1s'")
        for name in names:
            _drop_schema(connection, name)


def _drop_schema(connection: psycopg.Connection[Any], name: str, *, limit: float = 20.0) -> None:
    """Drop a schema of ours; a session that holds a lock on one of its tables is disconnected."""
    deadline = time.monotonic() + limit
    while True:
        try:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise
            # A notebook that stopped in mid-transaction: nobody else can have business in this schema.
            connection.execute(load("namespace")["disconnect_holders"], [name])
        else:
            return


# -- MySQL --------------------------------------------------------------------------------------------


def _databases(names: Sequence[str]) -> None:
    import pymysql

    with (
        pymysql.connect(
            **settings.mysql_address("admin").arguments(), connect_timeout=5, autocommit=True
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET SESSION lock_wait_timeout = 1")
        for name in names:
            _drop_database(cursor, name)


def _drop_database(cursor: Any, name: str, *, limit: float = 20.0) -> None:
    """Drop a database of ours; a session that is in it and holds a lock is disconnected."""
    import pymysql

    deadline = time.monotonic() + limit
    while True:
        cursor.execute("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", (name,))
        if not cursor.fetchone():
            return
        try:
            cursor.execute(f"DROP DATABASE {mysql_identifier(name)}")
        except pymysql.OperationalError as error:
            if error.args[0] != _LOCK_WAIT_TIMEOUT or time.monotonic() > deadline:
                raise
            cursor.execute("SHOW PROCESSLIST")
            for number, _, _, database, *_ in cursor.fetchall():
                if database == name:
                    # It may have gone by itself.
                    with contextlib.suppress(pymysql.Error):
                        cursor.execute("KILL %s", (number,))


_LOCK_WAIT_TIMEOUT = 1205


_DROP = {
    Kind.CONNECTOR: _connectors,
    Kind.GROUP: _groups,
    Kind.TOPIC: _topics,
    Kind.TOPIC_PREFIX: _topic_prefixes,
    Kind.SUBJECT_PREFIX: delete_subjects,
    Kind.SLOT: _slots,
    Kind.PUBLICATION: _publications,
    Kind.SCHEMA: _schemas,
    Kind.DATABASE: _databases,
}
