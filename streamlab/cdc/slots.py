"""Publications and replication slots: made and dropped, each on its own.

Everything runs over an ordinary connection with bounded statements, and can be repeated. `streamlab.cdc.gathering` asks
what there is.

The order matters. The server decodes each change with the catalog as it was at that change, so the publication has to
be there before the slot. A publication that comes later does not cover what was written before it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import psycopg
from psycopg import conninfo, sql

from streamlab.cdc.gathering import leaves
from streamlab.cdc.patience import PatientConnection
from streamlab.cdc.refusals import refused
from streamlab.errors import CannotCapture, SlotInUse
from streamlab.sql import load

__all__ = [
    "LOST",
    "connect",
    "create_publication",
    "create_slot",
    "drop_publication",
    "drop_slot",
    "refused",
]

log = logging.getLogger(__name__)

LOST: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""What an ordinary connection raises that was lost."""

_FREED = 5.0
"""Seconds that a slot is waited for whose reader may have just gone."""

_FREED_BY_US = 120.0
"""The same, where the caller's own former connection holds it: the server looks for an end between two rows, not in the
midst of one, and one of hundreds of megabytes takes it tens of seconds."""

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
    known = {each[0]: sql.Identifier(each[4], each[5]) for each in leaves(connection, tables)}
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


def drop_slot(connection: _Connection, name: str, *, own: Collection[int] = ()) -> None:
    """Drop a slot. Repeatable. A reader that has just gone is waited for; one that goes on reading is not ended.

    Parameters
    ----------
    connection : psycopg.Connection
        As a role with REPLICATION.
    name : str
        Of the slot.
    own : collection of int
        Server processes of connections that the caller has closed: one that holds the slot still is about to end, and
        is waited for much longer.

    Raises
    ------
    SlotInUse
        A reader still holds it.
    """
    began, said = time.monotonic(), False
    try:
        while not _dropped(connection, name):
            waited = time.monotonic() - began
            if waited > _FREED:
                row = connection.execute(load("postgres_capture")["holder"], [name]).fetchone()
                holder = row[0] if row is not None else None
                if holder is not None and holder not in own:
                    raise SlotInUse(f"The slot {name} is being read and cannot be dropped.", "Stop its reader first.")
                if waited > _FREED_BY_US:
                    raise SlotInUse(
                        f"The slot {name} is still held by the server's process {holder}, {waited:.0f} s after its "
                        "connection was closed.",
                        "It ends behind the row that it decodes: drop the slot again later.",
                    )
                if not said:
                    log.info("%s: the server has not ended this reader's own process yet; waiting for it", name)
                    said = True
            time.sleep(0.02)
    except psycopg.Error as error:
        raise refused(error, f"Dropping the slot {name}") from error


def _dropped(connection: _Connection, name: str) -> bool:
    """Drop a slot, or not where a reader holds it."""
    try:
        connection.execute(load("postgres_capture")["drop_slot"], [name])
    except psycopg.errors.UndefinedObject:
        return True
    except psycopg.errors.ObjectInUse:
        return False
    return True


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
