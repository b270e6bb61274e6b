"""`streamlab reset`: warm servers, as if they had just been started for the first time.

Only servers that this home started. Everything that users of them made is dropped: databases, schemas, slots,
topics, groups, connectors, subjects of the schema registry. Nothing is restarted.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import psycopg
import pymysql
from psycopg import sql

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.errors import LeasesHeld, NotOurs, NotRunning
from streamlab.sql import mysql_identifier
from streamlab.stack import leases
from streamlab.stack.connect import SETTINGS as CONNECT
from streamlab.stack.home import Home
from streamlab.stack.manager import Stack
from streamlab.stack.objects import delete_groups, delete_topics, drop_slot, kafka_admin
from streamlab.stack.postgres import DATABASE
from streamlab.stack.registry import delete_subjects
from streamlab.stack.services import SERVICES, WORKERS
from streamlab.stack.standalone import ConnectStandalone
from streamlab.stack.threads import side_by_side

__all__ = ["reset"]

_MYSQL_OWN = {"mysql", "information_schema", "performance_schema", "sys"}
_CONNECT_TOPICS = {value for key, value in CONNECT.items() if key.endswith("storage.topic")}


def reset(
    home: Home | None = None, *, force: bool = False, listener: Callable[[str, str], None] | None = None
) -> dict[str, int]:
    """Drop everything that was made on our running servers.

    Parameters
    ----------
    force : bool
        Also while lessons run; they will fail.

    Returns
    -------
    dict
        Service -> number of objects dropped.

    Raises
    ------
    NotOurs
        The environment names servers that streamlab did not start.
    LeasesHeld
        Live runs of lessons use the servers, and `force` is not given.
    NotRunning
        No server of this home runs.
    """
    home = home or Home()
    tell = listener or (lambda _service, _text: None)
    foreign = [name for name in SERVICES if settings.given(name)]
    if foreign:
        variables = ", ".join(settings.VARIABLES[name] for name in foreign)
        raise NotOurs(
            f"reset drops everything on a server, and {', '.join(foreign)} ({variables}) was not started by streamlab.",
            "Unset the variables to reset streamlab's own servers. A lesson removes what it made there by itself.",
        )
    with home.locked():
        held = leases.live(home)
        if held and not force:
            names = ", ".join(f"{info.slug} (pid {info.pid})" for info in held)
            raise LeasesHeld(f"Lessons are running: {names}.", "Close them first, or run: streamlab reset --force")
        stack = Stack(home)
        running = {row.name for row in stack.status() if row.state == "running"}
        if not running:
            raise NotRunning("No server is running.", "Run: streamlab up")
        steps = {
            "postgres": _postgres,
            "mysql": _mysql,
            "kafka": _kafka,
            "registry": _registry,
        }
        connectors = {}
        # First: a running connector would make its topics and slots again.
        if running & set(WORKERS):
            tell("connect", "deleting connectors")
            connectors["connect"] = _connect(settings.connect_urls())
        if ConnectStandalone.name in running:
            tell(ConnectStandalone.name, "deleting connectors")
            connectors[ConnectStandalone.name] = _standalone(stack)
        wanted = {name: step for name, step in steps.items() if name in running}
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            for name in wanted:
                tell(name, "dropping what was made")
            counts = dict(zip(wanted, pool.map(lambda name: wanted[name](stack), wanted), strict=True))
        counts |= connectors
        with leases.dead(home) as dead:
            for _, path in dead:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
    return counts


def _connect(urls: list[str]) -> int:
    with ConnectClient(urls) as client:
        names = client.names()
        side_by_side(partial(client.delete, forget=True), names, name="streamlab-reset", most=4)
    return len(names)


def _standalone(stack: Stack) -> int:
    worker: Any = stack.service(ConnectStandalone.name)
    for name in worker.connectors():
        worker.take(name)
    return _connect([settings.standalone_url()])


def _registry(_stack: Stack) -> int:
    # A rule that somebody has changed is put back to that of the settings.
    httpx.delete(f"{settings.registry_url()}/config", timeout=15.0).raise_for_status()
    return delete_subjects([""])


def _kafka(_stack: Stack) -> int:
    admin = kafka_admin()
    topics = [t for t in admin.list_topics(timeout=10).topics if not t.startswith("__") and t not in _CONNECT_TOPICS]
    groups = [
        group.group_id
        for group in admin.list_consumer_groups(request_timeout=10).result().valid
        if group.group_id != CONNECT["group.id"]
    ]
    delete_groups(admin, groups)
    delete_topics(admin, topics)
    return len(topics) + len(groups)


def _postgres(stack: Stack) -> int:
    service: Any = stack.service("postgres")
    admin = str.__str__(settings.postgres_dsn("admin"))
    count = 0
    with psycopg.connect(admin, dbname="postgres", autocommit=True) as connection:
        for gid, database in connection.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall():
            with psycopg.connect(admin, dbname=database, autocommit=True) as other:
                other.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
            count += 1
        for (name,) in connection.execute("SELECT slot_name FROM pg_replication_slots WHERE NOT temporary").fetchall():
            drop_slot(connection, name)
            count += 1
        rows = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
        for (name,) in rows.fetchall():
            count += name != DATABASE
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    service.started()
    return count


def _mysql(_stack: Stack) -> int:
    count = 0
    arguments = settings.mysql_address("admin").arguments()
    with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        for (name,) in cursor.fetchall():
            if name not in _MYSQL_OWN:
                cursor.execute(f"DROP DATABASE {mysql_identifier(name)}")
                count += 1
    return count
