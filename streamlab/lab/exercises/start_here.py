"""The exercise of lesson 00: how long was a change on its way?"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from streamlab import settings
from streamlab.cdc import PostgreSQLCDC
from streamlab.cdc.event import ChangeEvent
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed

__all__ = ["from_commit", "from_the_row", "on_the_wall"]

HELD_OPEN = 0.4
"""Seconds that the check keeps its transaction open between the insert and the commit."""


def from_commit(change: ChangeEvent, received: datetime) -> float:
    """From the moment of the commit, which the log records."""
    return (received - change.commit_timestamp).total_seconds()


def from_the_row(change: ChangeEvent, received: datetime) -> float:
    """From the row's own timestamp, which was taken when it was written."""
    return float((received - change.new_data["placed_at"]).total_seconds())


def on_the_wall(change: ChangeEvent, received: datetime) -> float:
    """From the moment of asking, which has nothing to do with the change."""
    return (datetime.now(UTC) - received).total_seconds()


@checker(
    "00_start_here",
    "delay",
    solution=from_commit,
    wrong=[
        WrongAnswer(
            "the row's own time",
            from_the_row,
            "placed_at says when the row was written. The transaction stayed open after that, and nobody can see a row "
            "before its commit. Which time does the log itself record?",
        ),
        WrongAnswer(
            "the time of asking",
            on_the_wall,
            "received is when the change arrived. What you subtract it from is now, not a time of the change.",
        ),
    ],
)
def delay(lab: Any, answer: Any) -> Verdict:
    """Commit a slow transaction, read its change, and compare with what the clock of this process saw."""
    publication = lab.publication("check")
    with psycopg.connect(lab.dsn, autocommit=True) as shop:
        shop.execute("CREATE TABLE IF NOT EXISTS slow_orders (id int PRIMARY KEY, placed_at timestamptz)")
        shop.execute("TRUNCATE slow_orders")
        shop.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
        shop.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE slow_orders").format(sql.Identifier(publication)))
        dsn = settings.postgres_dsn("cdc")
        with PostgreSQLCDC.session(dsn, publication=publication, slot_name=lab.slot("check")) as cdc:
            with shop.transaction():
                shop.execute("INSERT INTO slow_orders VALUES (1, clock_timestamp())")
                # A slow payment: the row is written, and not yet committed.
                shop.execute("SELECT pg_sleep(%s)", [HELD_OPEN])
                before = datetime.now(UTC)
            (change,) = cdc.tail(1)
        received = datetime.now(UTC)
    longest = (received - before).total_seconds()
    try:
        told = answer(change, received)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return missed(f"delay(change, received) raised {type(error).__name__}: {error}.")
    # NaN compares as false with everything.
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        return missed(f"delay(change, received) returned {told!r:.60}, which is not a number of seconds.")
    actual = from_commit(change, received)
    if abs(told - actual) <= 1e-4:
        return passed(
            f"{told * 1000:.2f} ms from the commit to Python, of a transaction that was open for {HELD_OPEN} s."
        )
    if told >= HELD_OPEN:
        return missed(f"You say {told * 1000:.0f} ms; it was at most {longest * 1000:.1f} ms.", "the row's own time")
    return missed(f"You say {told * 1000:.2f} ms; it was {actual * 1000:.2f} ms.", "the time of asking")
