"""Publications and replication slots: asked for, made and dropped, each on its own.

An adapter without judgement: it gathers the facts that `streamlab.cdc.preflight` judges. Everything runs over an
ordinary connection with bounded statements, and everything that makes or drops can be repeated.

The order matters. The server decodes each change with the catalog as it was at that change, so the publication has to
be there before the slot. A publication that comes later does not cover what was written before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import conninfo, sql

from streamlab.cdc.facts import Facts, PublicationFacts, ServerFacts, SlotFacts, TableFacts
from streamlab.cdc.patience import PatientConnection
from streamlab.cdc.position import LSN
from streamlab.cdc.refusals import refused
from streamlab.errors import CannotCapture, SettingsError, SlotInUse
from streamlab.sql import load

__all__ = [
    "LOST",
    "connect",
    "create_publication",
    "create_slot",
    "drop_publication",
    "drop_slot",
    "gather",
    "preview",
    "refused",
]

log = logging.getLogger(__name__)

LOST: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""What an ordinary connection raises that was lost."""

_UNDERWAY = 10.0
"""Seconds that an answer may take on its way, beyond what the statement took."""

_Connection = psycopg.Connection[Any]


def connect(dsn: str, *, limit: float = 30.0) -> _Connection:
    """An ordinary connection whose statements take at most `limit` seconds, and which waits little longer for answers.

    Raises
    ------
    ChangeStreamError
        No connection can be made; the cause is psycopg's error.
    """
    try:
        text = conninfo.make_conninfo(str.__str__(dsn), application_name="streamlab cdc setup")
        patience: dict[str, Any] = (
            {} if "connect_timeout" in conninfo.conninfo_to_dict(text) else {"connect_timeout": 10}
        )
        connection = PatientConnection.connect(text, autocommit=True, **patience)
        try:
            bound(connection, limit)
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        raise refused(error, "A connection to PostgreSQL") from error
    return connection


def bound(connection: _Connection, limit: float) -> None:
    """Let no statement take longer than `limit` seconds."""
    if isinstance(connection, PatientConnection):
        connection.patience = limit + _UNDERWAY
    connection.execute(load("postgres_capture")["bounded"], [f"{limit * 1000:.0f}"] * 2)


# -- facts --------------------------------------------------------------------------------------------


def gather(
    connection: _Connection, *, publication: str, slot: str, tables: Sequence[str] = (), resume_after: int = 0
) -> Facts:
    """Ask the server for everything that `streamlab.cdc.preflight.check` judges.

    Parameters
    ----------
    connection : psycopg.Connection
        As the role that is to read.
    publication, slot : str
        Their names; neither needs to exist.
    tables : sequence of str
        The tables that were asked for, as PostgreSQL reads a name: ``orders``, ``shop.orders``, ``"Odd".name``.
    resume_after : int
        The LSN after which the stream is to go on.
    """
    blocks = load("postgres_capture")
    row: Any = connection.execute(blocks["server"]).fetchone()
    in_order: list[Any] = [*row[:11], LSN.parse(row[11]), row[12]]
    server = ServerFacts(*in_order)
    published = _publication(connection, publication)
    leaves = _leaves(connection, tables) if tables else []
    via_root = published is not None and published.via_root
    return Facts(
        server=server,
        publication=published,
        slot=_slot(connection, slot),
        publication_name=publication,
        slot_name=slot,
        wanted=tuple(dict.fromkeys((each[4], each[5]) if via_root else (each[1], each[2]) for each in leaves)),
        missing=tuple(name for name in tables if name not in {each[0] for each in leaves}),
        resume_after=LSN(resume_after),
        others=tuple(dict.fromkeys((each[0], each[3]) for each in leaves if each[3] not in {"r", "p"})),
    )


def preview(connection: _Connection, facts: Facts, tables: Sequence[str]) -> Facts:
    """The facts as they would be with a publication of these tables."""
    leaves = _leaves(connection, tables)
    listed = {(each[1], each[2]): (each[1], each[2], None, None) for each in leaves}
    publication = PublicationFacts(
        facts.publication_name, False, True, True, True, True, False, tables=_tables(connection, listed)
    )
    return replace(facts, publication=publication)


def _leaves(connection: _Connection, tables: Sequence[str]) -> list[Any]:
    """The tables that hold the rows of those named, and nothing for a name that does not exist."""
    try:
        return connection.execute(load("postgres_capture")["leaves"], [list(tables)]).fetchall()
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName, psycopg.errors.FeatureNotSupported) as error:
        raise SettingsError(
            f"One of {', '.join(tables)} is no name of a table of this database: {error.diag.message_primary}.",
            'Name it as table or schema.table, with double quotes where SQL needs them: shop."Order".',
        ) from error


def _publication(connection: _Connection, name: str) -> PublicationFacts | None:
    blocks = load("postgres_capture")
    row = connection.execute(blocks["publication"], [name]).fetchone()
    if row is None:
        return None
    listed = {(each[0], each[1]): each for each in connection.execute(blocks["published"], [name])}
    in_order: list[Any] = [name, *row, _tables(connection, listed)]
    return PublicationFacts(*in_order)


def _tables(connection: _Connection, listed: dict[tuple[str, str], Any]) -> tuple[TableFacts, ...]:
    schemas, names = [schema for schema, _ in listed], [name for _, name in listed]
    found = connection.execute(load("postgres_capture")["tables"], [schemas, names]).fetchall()
    tables = []
    for row in found:
        _, _, columns, row_filter = listed[row[0], row[1]]
        identity = tuple(row[6]) if row[6] is not None else None
        in_order: list[Any] = [*row[:6], identity, tuple(columns or ()) or None, row_filter or ""]
        tables.append(TableFacts(*in_order))
    return tuple(tables)


def _slot(connection: _Connection, name: str) -> SlotFacts | None:
    row = connection.execute(load("postgres_capture")["slot"], [name]).fetchone()
    if row is None:
        return None
    plugin, kind, database, temporary, pid, status, invalidated, confirmed, restart, safe, two_phase = row
    return SlotFacts(
        name=name,
        plugin=plugin or "",
        kind=kind,
        database=database or "",
        temporary=temporary,
        active_pid=pid,
        wal_status=status or "",
        invalidated=invalidated or "",
        confirmed=LSN.parse(confirmed) if confirmed else None,
        restart=LSN.parse(restart) if restart else None,
        safe_bytes=safe,
        two_phase=bool(two_phase),
    )


# -- making -------------------------------------------------------------------------------------------


def create_publication(connection: _Connection, name: str, tables: Sequence[str]) -> bool:
    """Make a publication of named tables; False where somebody else has made it meanwhile.

    Parameters
    ----------
    connection : psycopg.Connection
        As a role that owns the tables.
    name : str
        Of the publication.
    tables : sequence of str
        At least one. All tables of a database are never published: that takes a superuser, and breaks UPDATE and
        DELETE on every table without a key.

    Raises
    ------
    CannotCapture
        A table does not exist, or the role does not own the tables.
    """
    leaves = _leaves(connection, tables)
    known = {each[0]: sql.Identifier(each[4], each[5]) for each in leaves}
    if missing := [table for table in tables if table not in known]:
        raise CannotCapture(f"There is no table {missing[0]}.", "Name it with its schema: schema.table.")
    try:
        connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(
                sql.Identifier(name), sql.SQL(", ").join(known[table] for table in dict.fromkeys(tables))
            )
        )
    except psycopg.errors.DuplicateObject:
        return False
    except psycopg.errors.InsufficientPrivilege as error:
        raise CannotCapture(
            f"The role {connection.info.user} may not make the publication {name}: {error.diag.message_primary}.",
            "Give setup_dsn= of the role that owns the tables and may CREATE in the database, or let that role run "
            f"CREATE PUBLICATION {name} FOR TABLE {', '.join(tables)}.",
        ) from error
    except psycopg.Error as error:
        raise refused(error, f"Making the publication {name}") from error
    log.info("made publication %s for %s", name, ", ".join(tables))
    return True


def create_slot(connection: _Connection, name: str, *, two_phase: bool = False, limit: float = 60.0) -> bool:
    """Make a permanent slot for pgoutput; False where somebody else has made it meanwhile.

    Parameters
    ----------
    connection : psycopg.Connection
        As a role with REPLICATION.
    name : str
        Of the slot: lower-case letters, digits and underscores.
    two_phase : bool
        Whether prepared transactions are sent when they are prepared; this cannot be changed later.
    limit : float
        Seconds. A slot waits for the transactions that are open.

    Raises
    ------
    CannotCapture
        Open transactions are in the way, or the server has no place left.
    """
    blocks = load("postgres_capture")
    bound(connection, limit)
    try:
        row: Any = connection.execute(blocks["create_slot"], [name, two_phase]).fetchone()
    except psycopg.errors.DuplicateObject:
        return False
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
        waiting = "; ".join(
            f"process {pid} of {role} since {since}: {query}"
            for pid, role, since, query in connection.execute(blocks["open_transactions"])
        )
        raise CannotCapture(
            f"The slot {name} was not made within {limit:.0f} s, because transactions are open"
            f"{f' ({waiting})' if waiting else ''}.",
            "A slot waits for every transaction that runs when it is made: end them, and try again.",
        ) from error
    except psycopg.Error as error:
        raise refused(error, f"Making the slot {name}") from error
    log.info("made slot %s, which begins at %s", name, row[0])
    return True


# -- dropping -----------------------------------------------------------------------------------------


def drop_slot(connection: _Connection, name: str, *, limit: float = 5.0) -> None:
    """Drop a slot. Repeatable. A reader that has just gone is waited for; one that goes on reading is not ended.

    Raises
    ------
    SlotInUse
        A reader still holds it after `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            connection.execute(load("postgres_capture")["drop_slot"], [name])
            return
        except psycopg.errors.UndefinedObject:
            return
        except psycopg.errors.ObjectInUse as error:
            if time.monotonic() > deadline:
                raise SlotInUse(
                    f"The slot {name} is being read and cannot be dropped.", "Stop its reader first."
                ) from error
            time.sleep(0.02)
        except psycopg.Error as error:
            raise refused(error, f"Dropping the slot {name}") from error


def drop_publication(connection: _Connection, name: str) -> None:
    """Drop a publication. Repeatable.

    Raises
    ------
    CannotCapture
        The role does not own it.
    """
    try:
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise CannotCapture(
            f"The role {connection.info.user} does not own the publication {name}.",
            "Give setup_dsn= of its owner.",
        ) from error
    except psycopg.Error as error:
        raise refused(error, f"Dropping the publication {name}") from error
