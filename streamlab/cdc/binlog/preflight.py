"""What has to hold before the binary log of a MySQL can be read: facts, and what is wrong with them.

Pure: `facts` asks the server through a cursor, `problems` judges. Each problem is one sentence and one next step; the
first is raised. Nothing is repaired here, because each repair is somebody's decision.

Settings are the global ones. A session may have its own; what it then writes is refused where it is met in the log, by
`streamlab.cdc.binlog.unreadable`.

Source: MySQL's manual, "Binary Logging Options and Variables", "Global Transaction ID System Variables".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pymysql

from streamlab.cdc.binlog.position import BinlogPosition, GTIDSet
from streamlab.cdc.binlog.refusals import GRANT_FIX, PURGED_FIX, refused
from streamlab.cdc.binlog.table_map import METADATA_FIX
from streamlab.cdc.binlog.unreadable import COMPRESSION_FIX
from streamlab.errors import CannotCapture, ChangeStreamError, LogPurged
from streamlab.sql import load

__all__ = ["Facts", "check", "gather", "problems", "readable"]

OLDEST = (8, 4)
"""The oldest version whose statements for the state of the log are asked here."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The server, and the user that asks.

    Attributes
    ----------
    version : str
        As the server says it.
    log_bin : bool
        Whether there is a binary log.
    settings : mapping of str to str
        Those that decide what is in the log.
    user : str
        As whom the server sees this reader.
    privileges : collection of str
        What `SHOW GRANTS` names for all databases; empty where roles hide it.
    executed, purged : GTIDSet
        All transactions of the server; those of which it has no log any more.
    place : BinlogPosition or None
        Where the log is now; None where the user may not ask.
    charsets : mapping of int to str
        Collation -> character set.
    tables : collection of (str, str)
        All tables that the user sees.
    replicas : mapping of int to str
        server_id of the replicas that are connected -> UUID.
    """

    version: str
    log_bin: bool
    settings: Mapping[str, str]
    user: str
    privileges: Collection[str]
    executed: GTIDSet
    purged: GTIDSet
    place: BinlogPosition | None
    charsets: Mapping[int, str]
    tables: Collection[tuple[str, str]]
    replicas: Mapping[int, str]


def gather(connection: pymysql.Connection[Any]) -> Facts:
    """Ask the server.

    Raises
    ------
    ChangeStreamError
        It does not answer, or is none that can be read: see `readable`.
    """
    sql = load("mysql_capture")

    def ask(block: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(sql[block])
            return cursor.fetchall()

    def perhaps(block: str) -> Any:
        try:
            return ask(block)
        except pymysql.err.OperationalError as error:
            if error.args[0] in {1227, 1381}:  # a privilege is missing; there is no binary log
                return ()
            raise

    try:
        # First and by itself: MariaDB, and a MySQL that is too old, do not have all that is asked next.
        ((version,),) = ask("version")
        readable(version)
        (row,) = ask("server")
        log_bin, *values, server_id, executed, purged, user = row
        status = perhaps("status")
        place = None
        if status:
            place = BinlogPosition.of_status(status[0])
        grants = " ".join(text for (text,) in ask("grants"))
        replicas = {int(each[0]): str(each[4]) for each in perhaps("replicas")}
        return Facts(
            version=version,
            log_bin=bool(log_bin),
            settings={name: str(value) for name, value in zip(_SETTINGS, values, strict=True)},
            user=user,
            privileges=_privileges(grants),
            executed=GTIDSet.parse(executed),
            purged=GTIDSet.parse(purged),
            place=place,
            charsets={int(number): str(name) for number, name in ask("charsets")},
            tables={(schema, table) for schema, table in ask("tables")},
            replicas={**replicas, int(server_id): ""},
        )
    except pymysql.Error as error:
        raise refused(error, "A question about the binary log") from error


_SETTINGS = (
    "binlog_format", "binlog_row_image", "binlog_row_metadata", "gtid_mode", "binlog_transaction_compression",
    "binlog_row_value_options",
)  # fmt: skip


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def readable(version: str) -> None:
    """Refuse a server that is no MySQL, or an old one.

    Raises
    ------
    CannotCapture
        It is MariaDB, or older than `OLDEST`.
    """
    fix = f"Use MySQL {OLDEST[0]}.{OLDEST[1]} or later."
    if "MARIADB" in version.upper():
        raise CannotCapture(f"{version} is MariaDB, whose binary log differs from MySQL's.", fix)
    if _numbers(version) < OLDEST:
        raise CannotCapture(f"MySQL {version} is too old for this reader.", fix)


def _privileges(grants: str) -> Collection[str]:
    found: set[str] = set()
    for names in re.findall(r"GRANT (.+?) ON \*\.\*", grants):
        found.update(name.strip().upper() for name in names.split(","))
    return found


def check(
    facts: Facts, *, wanted: Collection[tuple[str, str]] = (), begin: BinlogPosition | None = None, server_id: int = 0,
    uuid: str = "",
) -> None:  # fmt: skip
    """Raise the first problem.

    Raises
    ------
    CannotCapture, LogPurged
        Something does not hold; the message says what to do.
    """
    for problem in problems(facts, wanted=wanted, begin=begin, server_id=server_id, uuid=uuid):
        raise problem


def problems(
    facts: Facts, *, wanted: Collection[tuple[str, str]] = (), begin: BinlogPosition | None = None, server_id: int = 0,
    uuid: str = "",
) -> Iterator[ChangeStreamError]:  # fmt: skip
    """Everything that is wrong, the most basic first.

    Parameters
    ----------
    facts : Facts
        What the server says.
    wanted : collection of (str, str)
        The tables that are to be read; empty for all.
    begin : BinlogPosition, optional
        Where the stream is to begin.
    server_id, uuid : int and str
        The reader's own.
    """
    if not facts.log_bin:
        yield CannotCapture("The server writes no binary log.", "Start it with log_bin, and restart it.")
    yield from _settings(facts.settings)
    if facts.privileges and "ALL PRIVILEGES" not in facts.privileges and "REPLICATION SLAVE" not in facts.privileges:
        yield CannotCapture(f"The user {facts.user} may not read the binary log.", GRANT_FIX)
    if facts.place is None:
        yield CannotCapture(f"The user {facts.user} may not ask where the binary log is.", GRANT_FIX)
    for schema, table in sorted(set(wanted) - set(facts.tables)):
        yield CannotCapture(
            f"There is no table {schema}.{table}, or the user {facts.user} may not see it.",
            "Name it as database.table; GRANT SELECT on it, where it is there.",
        )
    if server_id in facts.replicas and facts.replicas[server_id] != uuid:
        yield CannotCapture(
            f"The server_id {server_id} is taken, by the server or one of its replicas.",
            "Choose another one, or leave it out to have one drawn.",
        )
    if begin is not None:
        yield from _begin(facts, begin)


_NEEDED = {
    "binlog_format": (
        "ROW", "the log holds statements, not the rows that they changed", "SET PERSIST binlog_format = ROW"
    ),
    "binlog_row_image": ("FULL", "rows are not logged whole", "SET PERSIST binlog_row_image = FULL"),
    "gtid_mode": (
        "ON", "transactions have no identifiers to go on from",
        "bring gtid_mode to ON, step by step (OFF_PERMISSIVE, ON_PERMISSIVE, ON), with enforce_gtid_consistency = ON",
    ),
    "binlog_row_value_options": (
        "", "parts of JSON values are logged in place of the whole", "SET PERSIST binlog_row_value_options = ''"
    ),
}  # fmt: skip


def _settings(settings: Mapping[str, str]) -> Iterator[ChangeStreamError]:
    for name, (value, why, fix) in _NEEDED.items():
        if settings[name].upper() != value:
            yield CannotCapture(f"{name} is {settings[name]}: {why}.", f"As an administrator: {fix}.")
    if settings["binlog_row_metadata"].upper() != "FULL":
        yield CannotCapture("binlog_row_metadata is MINIMAL: the log names no columns.", METADATA_FIX)
    if settings["binlog_transaction_compression"] not in {"0", "OFF"}:
        yield CannotCapture(
            "binlog_transaction_compression is ON: transactions are logged in a form that is not read here.",
            COMPRESSION_FIX,
        )


def _begin(facts: Facts, begin: BinlogPosition) -> Iterator[ChangeStreamError]:
    if not begin.gtids <= facts.executed:
        yield LogPurged(
            f"The stream is to go on after {begin}, but this server has only {facts.executed}.",
            "The position belongs to another server, or this one was restored from a backup: begin with a snapshot.",
        )
    elif not facts.purged <= begin.gtids:
        yield LogPurged(
            f"The stream is to go on after {begin}, but the server has thrown away its log up to {facts.purged}.",
            PURGED_FIX,
        )
