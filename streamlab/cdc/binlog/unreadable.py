"""What a binary log can hold that would lose changes without a word, were it passed over: refused, with what to set.

A session may set for itself what is right for the server as a whole, so this is judged where it is met in the log, and
not only by the questions of `streamlab.cdc.binlog.preflight`.

Source: MySQL's manual, "Binary Logging Options and Variables"; see also `streamlab.cdc.binlog.events`.
"""

from __future__ import annotations

import re
from typing import Final

from streamlab.cdc.binlog.events import Event
from streamlab.errors import CannotCapture, ChangeStreamError

__all__ = ["COMPRESSION_FIX", "refuse_event", "refuse_statement"]

COMPRESSION_FIX: Final = (
    "As an administrator: SET PERSIST binlog_transaction_compression = OFF, and look for sessions that set their own. "
    "What was logged compressed is not read here: begin behind it, with a new snapshot."
)

_DATA = re.compile(r"(?:\s|/\*.*?\*/)*(INSERT|UPDATE|DELETE|REPLACE|LOAD|CALL|WITH)\b", re.IGNORECASE | re.DOTALL)
_OLD_ROWS = (
    CannotCapture,
    "The binary log has rows in the form of MySQL 5.5, which names no columns.",
    "As an administrator: SET PERSIST log_bin_use_v1_row_events = OFF.",
)
_REFUSED: Final[dict[int, tuple[type[ChangeStreamError], str, str]]] = {
    Event.ANONYMOUS_GTID: (
        CannotCapture,
        "The binary log holds a transaction without a global identifier.",
        (
            "As an administrator, bring gtid_mode to ON, step by step (OFF_PERMISSIVE, ON_PERMISSIVE, ON), and begin "
            "behind this transaction, with a new snapshot."
        ),
    ),
    Event.TRANSACTION_PAYLOAD: (
        CannotCapture,
        "The binary log holds a compressed transaction, which is not read here.",
        COMPRESSION_FIX,
    ),
    Event.PARTIAL_UPDATE_ROWS: (
        CannotCapture,
        "The binary log holds a part of a JSON value in place of the whole.",
        (
            "As an administrator: SET PERSIST binlog_row_value_options = '', and look for sessions that set their own. "
            "The stream cannot go on behind this change: begin again with a new snapshot."
        ),
    ),
    Event.INCIDENT: (
        ChangeStreamError,
        "The binary log says itself that it lacks events: the server met an error while it wrote them.",
        "See the server's log for the reason, and begin again with a new snapshot.",
    ),
    Event.WRITE_ROWS_V1: _OLD_ROWS,
    Event.UPDATE_ROWS_V1: _OLD_ROWS,
    Event.DELETE_ROWS_V1: _OLD_ROWS,
}


def refuse_event(kind: int) -> None:
    """Refuse an event of a type whose changes are not read; nothing for any other.

    Raises
    ------
    CannotCapture
        The message says what to set.
    ChangeStreamError
        The log itself says that it lacks events.
    """
    refused = _REFUSED.get(kind)
    if refused is not None:
        error, problem, fix = refused
        raise error(problem, fix)


def refuse_statement(schema: str, text: str) -> None:
    """Refuse a statement that changed rows, within a transaction; nothing for any other.

    Raises
    ------
    CannotCapture
        The log has the statement in place of its rows.
    """
    if (match := _DATA.match(text)) is not None:
        raise CannotCapture(
            f"The binary log holds a statement in place of the rows that it changed: {match[1].upper()}, in the "
            f"database {schema or 'of no name'}.",
            "As an administrator: SET PERSIST binlog_format = ROW, and look for sessions that set their own. "
            "The stream cannot go on behind this change: begin again with a new snapshot.",
        )
