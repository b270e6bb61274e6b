"""What is to be known of a server before its changes are read, asked for: `streamlab.cdc.facts`.

An adapter without judgement: `streamlab.cdc.preflight` judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg

from streamlab.cdc.facts import Facts, PublicationFacts, ServerFacts, SlotFacts, TableFacts
from streamlab.cdc.position import LSN
from streamlab.errors import SettingsError
from streamlab.sql import load

__all__ = ["gather", "leaves", "preview"]


def gather(
    connection: psycopg.Connection[Any],
    *,
    publication: str,
    slot: str,
    tables: Sequence[str] = (),
    resume_after: int = 0,
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
    found = leaves(connection, tables) if tables else []
    via_root = published is not None and published.via_root
    return Facts(
        server=server,
        publication=published,
        slot=_slot(connection, slot),
        publication_name=publication,
        slot_name=slot,
        wanted=tuple(dict.fromkeys((each[4], each[5]) if via_root else (each[1], each[2]) for each in found)),
        missing=tuple(name for name in tables if name not in {each[0] for each in found}),
        resume_after=LSN(resume_after),
        others=tuple(dict.fromkeys((each[0], each[3]) for each in found if each[3] not in {"r", "p"})),
    )


def preview(connection: psycopg.Connection[Any], facts: Facts, tables: Sequence[str]) -> Facts:
    """The facts as they would be with a publication of these tables."""
    found = leaves(connection, tables)
    listed = {(each[1], each[2]): (each[1], each[2], None, None) for each in found}
    publication = PublicationFacts(
        facts.publication_name, False, True, True, True, True, False, tables=_tables(connection, listed)
    )
    return replace(facts, publication=publication)


def leaves(connection: psycopg.Connection[Any], tables: Sequence[str]) -> list[Any]:
    """The tables that hold the rows of those named, as the block ``leaves`` of streamlab/sql/postgres_capture.sql says.

    Raises
    ------
    SettingsError
        One cannot be a name of a table.
    """
    try:
        return connection.execute(load("postgres_capture")["leaves"], [list(tables)]).fetchall()
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName, psycopg.errors.FeatureNotSupported) as error:
        raise SettingsError(
            f"One of {', '.join(tables)} is no name of a table of this database: {error.diag.message_primary}.",
            'Name it as table or schema.table, with double quotes where SQL needs them: shop."Order".',
        ) from error


def _publication(connection: psycopg.Connection[Any], name: str) -> PublicationFacts | None:
    blocks = load("postgres_capture")
    row = connection.execute(blocks["publication"], [name]).fetchone()
    if row is None:
        return None
    listed = {(each[0], each[1]): each for each in connection.execute(blocks["published"], [name])}
    in_order: list[Any] = [name, *row, _tables(connection, listed)]
    return PublicationFacts(*in_order)


def _tables(connection: psycopg.Connection[Any], listed: dict[tuple[str, str], Any]) -> tuple[TableFacts, ...]:
    schemas, names = [schema for schema, _ in listed], [name for _, name in listed]
    found = connection.execute(load("postgres_capture")["tables"], [schemas, names]).fetchall()
    tables = []
    for row in found:
        _, _, columns, row_filter = listed[row[0], row[1]]
        identity = tuple(row[6]) if row[6] is not None else None
        in_order: list[Any] = [*row[:6], identity, tuple(columns or ()) or None, row_filter or ""]
        tables.append(TableFacts(*in_order))
    return tuple(tables)


def _slot(connection: psycopg.Connection[Any], name: str) -> SlotFacts | None:
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
