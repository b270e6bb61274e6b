"""What PostgreSQL says when it refuses a replication command or ends a stream, as errors that name the next step.

Decided by SQLSTATE, never by the text, which depends on the server's language.
"""

from __future__ import annotations

import psycopg

from streamlab.errors import (
    CannotCapture,
    ChangeStreamError,
    PublicationUnusable,
    SlotInUse,
    SlotLost,
    SlotMissing,
    StreamLost,
)
from streamlab.failures import Failure, classify

__all__ = ["SLOT_LOST_FIX", "ended", "refused"]

SLOT_LOST_FIX = (
    "It is not made again in silence, because changes are missing. Drop it, make it again, and take a new snapshot: "
    "cdc.drop(), cdc.initialize(). To prevent it, read more often or raise max_slot_wal_keep_size."
)


def _said(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    return text.rstrip(".")


def refused(error: psycopg.Error, what: str) -> ChangeStreamError:
    """The error for a command, or a connection, that was refused."""
    said, state = _said(error), error.sqlstate or ""
    match state:
        case "55006":
            return SlotInUse(
                f"{said[:1].upper()}{said[1:]}.", "Stop the other reader; see pg_replication_slots.active_pid."
            )
        case "42704":
            return SlotMissing(f"PostgreSQL says: {said}.", "Make it first: cdc.initialize().")
        case "55000" | "58P01":
            return SlotLost(f"The slot cannot be read: {said}.", SLOT_LOST_FIX)
        case "42501":
            return CannotCapture(
                f"The role may not do that: {said}.",
                "Let a superuser run ALTER ROLE ... REPLICATION, or connect as a role that has it.",
            )
        case "53400" | "53300":
            return CannotCapture(
                f"The server has no place left: {said}.",
                "Drop slots that nobody reads, or raise max_replication_slots and max_wal_senders.",
            )
        case "42883":
            return ChangeStreamError(
                f"{what} was refused: {said}.",
                "A column that was published when the log was written holds values that have no binary form: read them "
                "as text, binary=False.",
            )
    if error.sqlstate is None and "certificate" in said:
        return ChangeStreamError(
            f"{what} was refused, by this side: {said}.",
            "With sslmode=verify-full, host= has to be the name in the server's certificate, and sslrootcert= the file "
            "of the authority that signed it.",
        )
    if classify(error) is Failure.TRANSIENT:
        return StreamLost(
            f"{what} failed: {said}.", "Is PostgreSQL up, and are host and port right? A stream tries again."
        )
    if error.sqlstate is None or error.sqlstate[:2] == "28" or error.sqlstate == "3D000":
        return ChangeStreamError(
            f"{what} was refused: {said}.", "Check host, port, database, user and password in the address."
        )
    return ChangeStreamError(f"{what} was refused: {said}.", "See the server's log for the reason.")


def ended(error: psycopg.Error) -> ChangeStreamError:
    """The error for a stream that has ended."""
    if error.sqlstate is None:  # libpq's own: the connection is gone
        return StreamLost(f"The connection broke: {_said(error)}.", "The connection is made again.")
    if error.sqlstate == "42704":  # before PostgreSQL 18, at the first change
        return PublicationUnusable(
            f"PostgreSQL ended the stream: {_said(error)}.",
            "A publication that is made later does not help: it has to be there before the slot. Drop the slot, make "
            "both again, and take a new snapshot: cdc.drop(), cdc.initialize().",
        )
    if classify(error) is not Failure.TRANSIENT:
        return refused(error, "The stream")
    return StreamLost(f"PostgreSQL ended the stream: {_said(error)}.", "The connection is made again.")
