"""The LSN timeline of a slot and its reader, asked for now and again: live while a person looks on, and as a picture.

::

    with LSNTimeline(cdc) as view:
        for transaction in cdc.transactions(until=100):
            store(transaction)
            cdc.acknowledge(transaction)
            view.update()

The server tells what it keeps, was confirmed, has sent and has written (``pg_replication_slots``,
``pg_stat_replication``); the reader tells what it received, handed out and acknowledged.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Protocol, Self

import psycopg

from streamlab.cdc import slots
from streamlab.cdc.position import LSN
from streamlab.errors import SettingsError
from streamlab.lab.timeline import Point, Timeline, size_text
from streamlab.lab.view import DiagramView
from streamlab.settings import Dsn
from streamlab.sql import load

__all__ = ["LSNTimeline", "Reader", "timeline"]

_SERVER: Final = (
    ("restart_lsn", "decoding begins here after a restart; the log from here on is kept"),
    ("confirmed_flush_lsn", "what ends up to here never comes again"),
    ("sent_lsn", "the walsender has read and sent the log up to here"),
    ("write_lsn", "the reader reported that it received it up to here"),
    ("pg_current_wal_lsn", "the log is written up to here"),
)


class Reader(Protocol):
    """What the timeline asks a reader: `streamlab.cdc.PostgreSQLCDC` and its sessions have it."""

    dsn: Dsn
    slot_name: str

    @property
    def streamed(self) -> LSN | None:
        """How far the stream was received."""
        ...

    @property
    def received(self) -> LSN | None:
        """End of the last transaction that was handed out."""
        ...

    @property
    def acknowledged(self) -> LSN | None:
        """Up to where the effect is durable."""
        ...


class LSNTimeline:
    """A timeline that can be asked for again: a context manager. For the main thread alone.

    In batch nothing is shown until the end: one picture.

    Parameters
    ----------
    reader : PostgreSQLCDC or session, optional
        Whose positions are shown below the axis.
    dsn : str, optional
        As any role. By default the reader's, which does not see what was sent, and the picture says so; of our own
        stack ``settings.postgres_dsn("reader")`` does, as a member of pg_read_all_stats.
    slot_name : str, optional
        By default the reader's.

    Raises
    ------
    SettingsError
        Neither a reader nor `dsn` and `slot_name` are given.
    ChangeStreamError
        The server does not answer.
    """

    def __init__(self, reader: Reader | None = None, *, dsn: str | None = None, slot_name: str | None = None) -> None:
        if reader is None and (dsn is None or slot_name is None):
            raise SettingsError("The timeline does not know of what.", "Give a reader, or dsn= and slot_name=.")
        self._reader = reader
        self.slot_name = slot_name or (reader.slot_name if reader is not None else "")
        self._connection = slots.connect(str.__str__(dsn or (reader.dsn if reader is not None else "")))
        self._asked = 0.0
        self._view: DiagramView | None = None
        self._timeline = Timeline((), _title(self.slot_name))

    @property
    def timeline(self) -> Timeline:
        """What was asked for last."""
        return self._timeline

    def ask(self) -> Timeline:
        """Ask the server and the reader now.

        Raises
        ------
        ChangeStreamError
            The server does not answer.
        """
        # The reader first: what it says can only be less than what the server says a moment later.
        reader = self._reader
        ours = (None, None, None) if reader is None else (reader.acknowledged, reader.received, reader.streamed)
        try:
            row: Any = self._connection.execute(load("postgres_capture")["positions"], [self.slot_name]).fetchone()
        except psycopg.Error as error:
            raise slots.refused(error, "The question for the positions of a slot") from error
        self._timeline = timeline(self.slot_name, row, ours)
        return self._timeline

    def update(self, *, every: float = 0.1) -> None:
        """Ask and show; nothing where the last time is less than `every` seconds ago. The first call shows the picture.

        Raises
        ------
        LessonError
            The timeline is closed.
        ChangeStreamError
            The server does not answer.
        """
        now = time.monotonic()
        if self._view is not None and now - self._asked < every:
            return
        self._asked = now
        if self._view is None:
            self._view = DiagramView(self.ask())
        else:
            self._view.update(self.ask())

    def follow(self, seconds: float, *, every: float = 0.5) -> None:
        """Show how it changes, for so many seconds: for a reader that works in a thread of its own."""
        deadline = time.monotonic() + seconds
        self.update(every=0)
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, every))
            self.update(every=0)

    def to_svg(self) -> str:
        """What was asked for last, as a static picture."""
        return self._timeline.to_svg()

    def close(self) -> None:
        """End as the static picture, where there was one, and let go of the connection. Repeatable."""
        try:
            if self._view is not None:
                self._view.close()
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _title(slot_name: str) -> str:
    return f"LSN timeline of slot {slot_name}"


def timeline(
    slot_name: str, row: tuple[Any, ...] | None, reader: tuple[LSN | None, LSN | None, LSN | None]
) -> Timeline:
    """The timeline of what was told.

    Parameters
    ----------
    slot_name : str
        The slot.
    row : tuple or None
        What the block ``positions`` of streamlab/sql/postgres_capture.sql gives.
    reader : tuple of LSN or None
        Acknowledged, handed out, received; all None without a reader.
    """
    if row is None:
        return Timeline((), _title(slot_name), "there is no such slot")
    *told, state, hidden = row
    known = [None if text is None else LSN.parse(text) for text in told]
    acknowledged, handed_out, received = reader
    server = [
        Point(name, lsn, meaning, server=True)
        for (name, meaning), lsn in zip(_SERVER, known, strict=True)
        # The reader's own word is fresher than its last report.
        if name != "write_lsn" or received is None
    ]
    ours = [
        Point("acknowledged", acknowledged, "the effect is durable up to here", server=False),
        Point("handed out", handed_out, "the last transaction that was handed out ends here", server=False),
        Point("received", received, "the stream was received up to here", server=False),
    ]
    restart, confirmed, _, _, written = known
    parts = []
    if state == "lost":
        parts.append("the slot is lost: the log that it needs is gone")
    elif restart is not None and written is not None:
        parts.append(f"the server keeps {size_text(max(0, written - restart))} of log")
    if hidden:
        parts.append("sent_lsn is hidden from this role, which lacks pg_read_all_stats")
    again = None
    if confirmed is not None and handed_out is not None and handed_out > confirmed:
        again = (confirmed, handed_out)
        parts.append(f"{size_text(handed_out - confirmed)} come again after a crash")
    return Timeline((*server, *ours), _title(slot_name), "; ".join(parts), again)
