"""What MySQL says when it refuses a connection or ends the stream, as errors that name the next step.

Decided by the error's number. One number, 1236, stands for every reason to end a stream; there the text decides, which
the server writes in English whatever its language for this.

Source: MySQL's manual, "Server Error Message Reference"; `sql/rpl_binlog_sender.cc`.
"""

from __future__ import annotations

from typing import Final

from streamlab.errors import CannotCapture, ChangeStreamError, LogPurged, StreamLost
from streamlab.failures import Failure, classify

__all__ = ["GRANT_FIX", "PURGED_FIX", "ended", "refused"]

PURGED_FIX: Final = (
    "Changes are missing, so the stream cannot go on from there: begin again, with a new snapshot. To prevent it, read "
    "more often or raise binlog_expire_logs_seconds."
)
GRANT_FIX: Final = "As an administrator: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the user."


def _said(error: BaseException) -> tuple[int, str]:
    number, *texts = error.args or (0,)
    text = str(texts[0]) if texts else str(error)
    return (number if isinstance(number, int) else 0), text.strip().rstrip(".") or type(error).__name__


def refused(error: BaseException, what: str) -> ChangeStreamError:
    """The error for a command, or a connection, that was refused."""
    number, said = _said(error)
    if number in {1044, 1142, 1227}:
        return CannotCapture(f"The user may not do that: {said}.", GRANT_FIX)
    if number in {1045, 1698}:
        return CannotCapture(f"MySQL does not let this user in: {said}.", "Correct user and password in the address.")
    if number == 1236:
        return ended(number, said)
    if isinstance(error, OSError) or classify(error) is Failure.TRANSIENT:
        return StreamLost(f"{what} failed: {said}.", "It is tried again while the limits allow.")
    return ChangeStreamError(f"{what} was refused: {said} ({number}).", "See the server's log for the reason.")


def ended(number: int, said: str) -> ChangeStreamError:
    """The error for a stream that the server ended."""
    said = said.strip().rstrip(".")
    if number == 1236:
        low = said.lower()
        if "purged" in low or "could not find first log file" in low:
            return LogPurged(f"The server has thrown away binary log that this reader needs: {said}.", PURGED_FIX)
        if "same server_uuid" in low or "same server_id" in low:
            return ChangeStreamError(
                f"Another reader has taken this one's place: {said}.",
                "Each reader needs a server_id of its own; leave it out to have one drawn.",
            )
        if "more gtids than the" in low:
            return LogPurged(
                f"The position is beyond what this server has: {said}.",
                "It belongs to another server, or this one was restored from a backup: begin with a new snapshot.",
            )
        return ChangeStreamError(f"MySQL ended the stream: {said}.", "See the server's log for the reason.")
    if number in {1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1317, 3169, 4031, 1927}:
        return StreamLost(f"MySQL ended the stream: {said}.", "The connection is made again.")
    if number in {1044, 1045, 1142, 1227}:
        return CannotCapture(f"The user may not replicate: {said}.", GRANT_FIX)
    return ChangeStreamError(f"MySQL ended the stream: {said} ({number}).", "See the server's log for the reason.")
