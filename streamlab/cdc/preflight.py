"""What has to hold before the changes of a PostgreSQL can be read, and what of it does not.

Pure: `streamlab.cdc.gathering` asks the server for the `streamlab.cdc.facts`, `check` judges. Each problem is one
sentence and one next step; the first is raised, all are in `problems`. Nothing is repaired here, because each repair is
somebody's decision.

Source: PostgreSQL's manual, "Logical Replication" (Restrictions, Publication, Row Filters, Column Lists) and
"Replica Identity" under ALTER TABLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from streamlab.cdc.facts import Facts, PublicationFacts, SlotFacts, TableFacts
from streamlab.cdc.refusals import SLOT_LOST_FIX
from streamlab.errors import (
    CannotCapture,
    ChangeStreamError,
    PublicationUnusable,
    SlotInUse,
    SlotLost,
    SlotMissing,
    SlotUnusable,
)

__all__ = ["check", "left_out", "not_tables", "problems"]

OLDEST = 14
"""The oldest version whose pgoutput and catalogs this reader knows."""

_OTHERS: Final = {
    "v": ("a view: its rows are those of other tables, whose changes the log tells", "Name the tables that it reads"),
    "m": (
        "a materialized view: it is written anew, and the log does not tell what changed",
        "Name the tables it reads",
    ),
    "f": ("a foreign table: its rows, and the log of their changes, are on another server", "Read that server"),
    "S": ("a sequence: the log tells no change of it to a reader", "Leave it out"),
    "c": ("a type: it has no rows", "Name a table that has a column of it"),
    "t": ("where PostgreSQL keeps a table's large values: they come with the table's own rows", "Name that table"),
}
_INDEX: Final = ("an index: it has no rows of its own", "Name its table")


def check(facts: Facts, *, slot: bool = True, publication: bool = True) -> None:
    """Raise the first problem. `slot` and `publication` say whether these have to be there already.

    Raises
    ------
    CannotCapture, SlotUnusable
        Something does not hold; the message says what to do.
    """
    for problem in problems(facts, slot=slot, publication=publication):
        raise problem


def problems(facts: Facts, *, slot: bool = True, publication: bool = True) -> Iterator[ChangeStreamError]:
    """Everything that is wrong, the most basic first."""
    yield from _server(facts, new_slot=facts.slot is None and not slot)
    for name in facts.missing:
        yield CannotCapture(
            f"There is no table {name} in database {facts.server.database}.",
            "Name it with its schema: schema.table. If it was dropped or renamed: leave tables= out, and what waits is "
            "read.",
        )
    yield from not_tables(facts)
    if facts.publication is not None:
        yield from _publication(facts, facts.publication)
    elif publication:
        yield PublicationUnusable(
            f"There is no publication {facts.publication_name} in database {facts.server.database}.",
            f"Make it before the slot: cdc.initialize(), or CREATE PUBLICATION {facts.publication_name} FOR TABLE ...",
        )
    if facts.slot is not None:
        yield from _slot(facts, facts.slot)
    elif slot:
        yield SlotMissing(f"There is no replication slot {facts.slot_name}.", "Make it first: cdc.initialize().")
    if facts.resume_after > facts.server.written:
        yield SlotUnusable(
            f"The stream is to go on after {facts.resume_after}, but this server has written only up to "
            f"{facts.server.written}.",
            "The position belongs to another server, or this one was restored from a backup: begin with a snapshot.",
        )


def not_tables(facts: Facts) -> Iterator[ChangeStreamError]:
    """What was asked for as a table and is none."""
    for name, kind in facts.others:
        what, fix = _OTHERS.get(kind, _INDEX)
        yield CannotCapture(f"{name} is {what}.", f"{fix}.")


def left_out(facts: Facts) -> ChangeStreamError | None:
    """What to say of a publication that is being read, and leaves out a table that was asked for and is there."""
    publication = facts.publication
    if publication is None:
        return None  # the stream itself says that
    left = set(facts.wanted) - {(each.schema, each.name) for each in publication.tables}
    if not left:
        return None
    names = ", ".join(f"{_quoted(schema)}.{_quoted(table)}" for schema, table in sorted(left))
    return PublicationUnusable(
        f"The publication {publication.name} does not hold {_listed(left)} any more: its changes are not sent.",
        f"As its owner: ALTER PUBLICATION {_quoted(publication.name)} ADD TABLE {names}, and read these tables anew, "
        "because changes in between are gone; or leave tables= out.",
    )


def _server(facts: Facts, *, new_slot: bool) -> Iterator[ChangeStreamError]:
    server = facts.server
    if server.major < OLDEST:
        yield CannotCapture(
            f"PostgreSQL {server.major} is too old: it is out of support, and its stream is not read here.",
            f"Use PostgreSQL {OLDEST} or later.",
        )
    if server.wal_level != "logical":
        yield CannotCapture(
            f"wal_level is {server.wal_level}: the log does not hold what changed in a form that can be decoded.",
            "As superuser: ALTER SYSTEM SET wal_level = 'logical', then restart the server.",
        )
    if not server.replication:
        yield CannotCapture(
            f"The role {server.role} may not replicate.",
            f"As superuser: ALTER ROLE {_quoted(server.role)} REPLICATION; or connect as a role that may.",
        )
    if new_slot and server.slots_used >= server.slots:
        yield CannotCapture(
            f"All {server.slots} replication slots are taken.",
            "Drop one that nobody reads (SELECT * FROM pg_replication_slots WHERE NOT active), or raise "
            "max_replication_slots and restart the server.",
        )
    if server.senders_used >= server.senders:
        yield CannotCapture(
            f"All {server.senders} WAL senders are taken.",
            "End a reader (see pg_stat_replication), or raise max_wal_senders and restart the server.",
        )


def _publication(facts: Facts, publication: PublicationFacts) -> Iterator[ChangeStreamError]:
    published = {(each.schema, each.name) for each in publication.tables}
    wanted = set(facts.wanted)
    if wanted and wanted != published:
        yield PublicationUnusable(
            f"The publication {publication.name} holds {_listed(published) or 'no table'}, "
            f"and not {_listed(wanted)} as asked.",
            _alter(publication, wanted),
        )
    elif not published:
        yield PublicationUnusable(
            f"The publication {publication.name} holds no table, so no change would ever come.",
            f"As its owner: ALTER PUBLICATION {_quoted(publication.name)} ADD TABLE ...",
        )
    yield from _tables(publication.tables, keyed=publication.update or publication.delete)


def _alter(publication: PublicationFacts, wanted: set[tuple[str, str]]) -> str:
    name = _quoted(publication.name)
    if publication.all_tables:
        return f"Leave tables= out, or make another publication: {name} is FOR ALL TABLES."
    names = ", ".join(f"{_quoted(schema)}.{_quoted(table)}" for schema, table in sorted(wanted))
    return f"As its owner: ALTER PUBLICATION {name} SET TABLE {names}; or leave tables= out."


def _tables(tables: Sequence[TableFacts], *, keyed: bool) -> Iterator[ChangeStreamError]:
    for table in tables:
        full = f"{_quoted(table.schema)}.{_quoted(table.name)}"
        if table.persistence != "p":
            yield CannotCapture(
                f"The table {table} is unlogged or temporary: its changes are not in the log.",
                f"ALTER TABLE {full} SET LOGGED, or leave it out.",
            )
        if not table.readable:
            yield CannotCapture(
                f"This role may not read the table {table}.",
                f"As its owner: GRANT USAGE ON SCHEMA {_quoted(table.schema)}, and GRANT SELECT ON {full}, to it.",
            )
        if keyed and not table.has_identity:
            yield CannotCapture(
                f"The table {table} has no replica identity: once it is published, PostgreSQL refuses every UPDATE and "
                "DELETE on it.",
                f"Give it a primary key that is not deferrable; or ALTER TABLE {full} REPLICA IDENTITY FULL; or "
                "publish inserts alone: WITH (publish = 'insert').",
            )
        if keyed and table.identity and table.columns and (left := set(table.identity) - set(table.columns)):
            yield CannotCapture(
                f"The publication's column list for {table} leaves out {', '.join(sorted(left))} of its replica "
                "identity: PostgreSQL refuses its UPDATEs and DELETEs.",
                "Add these columns to the list.",
            )


def _slot(facts: Facts, slot: SlotFacts) -> Iterator[ChangeStreamError]:
    name = slot.name
    if slot.kind != "logical" or slot.plugin != "pgoutput":
        yield SlotUnusable(
            f"The slot {name} is of the kind {slot.kind} with the plug-in {slot.plugin or 'none'}; pgoutput is needed.",
            "Choose another slot_name.",
        )
    elif slot.database != facts.server.database:
        yield SlotUnusable(
            f"The slot {name} belongs to the database {slot.database}, not to {facts.server.database}.",
            "Connect to that database, or choose another slot_name.",
        )
    elif slot.lost:
        reason = slot.invalidated or "more log was written than the server keeps for a slot"
        yield SlotLost(f"The slot {name} is lost ({reason}): changes that it stood for are gone.", SLOT_LOST_FIX)
    elif slot.active_pid is not None:
        yield SlotInUse(
            f"The slot {name} is being read by the server process {slot.active_pid}.",
            f"Stop the other reader, or end it: SELECT pg_terminate_backend({slot.active_pid}).",
        )


def _listed(names: set[tuple[str, str]]) -> str:
    return ", ".join(f"{schema}.{table}" for schema, table in sorted(names))


def _quoted(name: str) -> str:
    plain = name.isidentifier() and name == name.lower() and name.isascii()
    return name if plain else '"' + name.replace('"', '""') + '"'
