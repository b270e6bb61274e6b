"""Rows of COPY's text form as frames: taken apart without an object for each value, as rows of the stream are.

A tab or a line feed within a value is written with a backslash, so those that stand in the bytes delimit: all values of
all rows are found at once. Backslashes are taken away from the whole run of bytes in one step, and places moved by as
many as stood before them. What a value's text becomes is then said in one place for snapshot and stream:
`streamlab.cdc.frames.forms`.

Source: PostgreSQL's manual, COPY ("Text Format").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from streamlab.cdc.frames.batch import Frame, FrameBatch
from streamlab.cdc.frames.slices import NULL, TEXT, Integers, Whole
from streamlab.cdc.frames.tables import Column, Rows, Table
from streamlab.cdc.position import LSN
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import moment
from streamlab.errors import ChangeStreamError, ProtocolError

if TYPE_CHECKING:
    from streamlab.cdc.snapshot import SnapshotTable

__all__ = ["SnapshotFrames", "split"]

_TAB, _LINE, _BACKSLASH, _N = b"\t\n\\N"
_ORDINALS: Final = 1 << 32
_MEANT: Final = np.arange(256, dtype=np.uint8)
for _letter, _byte in zip(b"bfnrtv", b"\b\f\n\r\t\v", strict=True):
    _MEANT[_letter] = _byte


class SnapshotFrames:
    """Makes batches of frames of a snapshot's rows, typed as frames of the stream are.

    Parameters
    ----------
    types : TypeMap
        What values become. It has to know the tables' types when rows come.
    position : LSN
        Of every row, and the end of every batch.
    taken_at : datetime
        When the snapshot was taken: the time of every row.
    primary_keys : mapping of int to tuple of str
        OID of a table -> its primary key.
    """

    def __init__(
        self, types: TypeMap, position: LSN, taken_at: datetime, primary_keys: Mapping[int, tuple[str, ...]]
    ) -> None:
        self._types, self._position, self._taken_at, self._primary_keys = types, position, taken_at, primary_keys
        self._micros = (taken_at - moment(0)) // timedelta(microseconds=1)
        self._table: Table | None = None

    def read(self, table: SnapshotTable, rows: Sequence[bytes], ordinal: int) -> Sequence[bytes]:
        """As they are: more of them are faster to decode."""
        return rows

    def hand_out(self, table: SnapshotTable, rows: Sequence[bytes], ordinal: int) -> FrameBatch:
        """A batch of one frame.

        Raises
        ------
        ChangeStreamError
            An ordinal would not fit into its column.
        ProtocolError
            The bytes are no such rows.
        """
        if ordinal + len(rows) > _ORDINALS:
            raise ChangeStreamError(
                f"The snapshot has more than {_ORDINALS:,} rows, and frames number no more.",
                "Read it as events, or in sessions of fewer tables.",
            )
        if self._table is None or self._table.relation != table.relation:
            self._table = Table(table.relation, self._types, table.relation.key(self._primary_keys))
        whole, columns, starts, ends = split(rows, len(table.columns))
        count = len(rows)
        data = self._table.frame(
            whole,
            Rows(
                np.full(count, ord("S"), np.uint8), starts, ends, np.full(count, self._position, np.uint64),
                np.arange(ordinal, ordinal + count), np.full(count, self._micros),
            ),
            columns,
        )  # fmt: skip
        frame = Frame(table.schema, table.name, data, self._table.key)
        return FrameBatch((frame,), self._position, self._taken_at)


def split(rows: Sequence[bytes], columns: int) -> tuple[Whole, list[Column], Integers, Integers]:
    """Find the values of rows, each with the line feed that ends it.

    Returns
    -------
    whole
        The bytes, without what COPY has to write beside a value.
    columns
        Where the values of each column stand in them.
    starts, ends
        Where the rows begin and end.

    Raises
    ------
    ProtocolError
        A row does not have so many values.
    """
    data = b"".join(rows)
    read = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((read == _TAB) | (read == _LINE))
    lines = read[ends] == _LINE
    if len(ends) != len(rows) * columns or lines.sum() != len(rows) or not lines[columns - 1 :: columns].all():
        raise ProtocolError(
            f"A row of the snapshot does not have {columns} columns.", "Open a new session, to read it again."
        )
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))
    null = np.zeros(len(ends), np.bool_)
    short = np.flatnonzero(ends - starts == 2)
    null[short] = (read[starts[short]] == _BACKSLASH) & (read[starts[short] + 1] == _N)
    if data.count(b"\\") > null.sum():
        data, escapes = _without_escapes(read)
        starts, ends = starts - np.searchsorted(escapes, starts), ends - np.searchsorted(escapes, ends)
    letters = np.where(null, np.uint8(NULL), np.uint8(TEXT)).reshape(-1, columns)
    at, size = np.where(null, 0, starts).reshape(-1, columns), np.where(null, 0, ends - starts).reshape(-1, columns)
    found = [
        (np.ascontiguousarray(letters[:, each]), np.ascontiguousarray(at[:, each]), np.ascontiguousarray(size[:, each]))
        for each in range(columns)
    ]
    return Whole(data), found, starts[::columns], ends[columns - 1 :: columns]


def _without_escapes(read: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> tuple[bytes, Integers]:
    """Bytes with what was meant, without the backslashes before it; and where those stood."""
    places = np.flatnonzero(read == _BACKSLASH)
    # Of backslashes in a row every second one is meant.
    begins = np.concatenate((np.ones(1, np.bool_), np.diff(places) > 1))
    within = np.arange(len(places)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    escapes = places[within % 2 == 0]
    made = read.copy()
    made[escapes + 1] = _MEANT[read[escapes + 1]]
    kept = np.ones(len(read), np.bool_)
    kept[escapes] = False
    return made[kept].tobytes(), escapes
