"""How far the reader of a slot has come, what it tells the server of that, and what the server says itself."""

from __future__ import annotations

import logging
import time
from typing import Any

from streamlab.cdc import arguments
from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.decoding import Ended
from streamlab.cdc.followed import Followed
from streamlab.cdc.position import LSN, Position
from streamlab.cdc.questions import SlotPositions, SlotQuestions
from streamlab.cdc.reader import StreamReader
from streamlab.cdc.source import Lag
from streamlab.errors import ChangeStreamError, SettingsError
from streamlab.failpoints import failpoint

__all__ = ["SlotProgress"]

log = logging.getLogger(__name__)


class SlotProgress(Followed):
    """Acknowledgements and positions of `streamlab.cdc.slot_reader.SlotReader`; any thread may use them."""

    resumable = True
    """Whether the slot outlives this object."""

    slot_name: str
    _books: Bookkeeping
    _questions: SlotQuestions
    _reader: StreamReader[Any]
    """What reads now: of events, or of frames."""

    @property
    def received(self) -> LSN | None:
        """End of the last transaction that was handed out."""
        return self._books.handed_out or None

    @property
    def streamed(self) -> LSN | None:
        """How far the stream was received: beyond `received`, where transactions wait here or are still open."""
        return self._books.write or None

    @property
    def acknowledged(self) -> LSN | None:
        """Up to where the server may forget."""
        return max(self._books.flush, self._books.acknowledged) or None

    def acknowledge(self, upto: Position | Ended) -> None:
        """The effect of everything up to here is durable. The server is told within milliseconds, and at `close`.

        Parameters
        ----------
        upto : Transaction, Batch, FrameBatch or LSN
            What was handed out stands for its `end_position`. An LSN that is less, such as its `position`, brings the
            transaction again. Never goes backwards, and never beyond what was handed out.
        """
        end = getattr(upto, "end_position", upto)
        if not isinstance(end, LSN):
            raise SettingsError(f"{upto!r} is no position of PostgreSQL.", "Give the transaction, or an LSN.")
        failpoint("cdc.before_ack")
        if end > self._reader.acknowledge(end):
            log.warning("%s: %s was not handed out yet, so it is not acknowledged", self.slot_name, end)
        failpoint("cdc.after_ack")

    def lag(self) -> Lag:
        """How far this reader is behind the server. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        return self._reader.lag(self._questions.written())

    def written(self) -> LSN:
        """Where the server's log ends now: ``until=cdc.written()`` reads what is there, and ends. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        return self._questions.written()

    def positions(self) -> SlotPositions:
        """Where the slot stands: what is confirmed, what is kept, and where the log ends. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer, or has no such slot.
        """
        return self._questions.positions()

    def flush(self, *, timeout: float = 10.0) -> LSN:
        """Wait until the server has noted what was acknowledged; from any thread.

        The server keeps this in memory, and on disk from its next checkpoint on: after a crash of the server itself a
        slot may stand further back.

        Parameters
        ----------
        timeout : float
            Seconds.

        Returns
        -------
        LSN
            What the slot has confirmed: at or beyond what was acknowledged when this was called.

        Raises
        ------
        ChangeStreamError
            It has not in time, or the server does not answer.
        """
        arguments.seconds("timeout", timeout)
        deadline = time.monotonic() + timeout
        wanted = self.acknowledged or LSN(0)
        while True:
            told = self._reader.tell()
            if not told and self.resumable:
                # Nobody reads, so nobody tells the server.
                self._questions.advance(wanted)
            confirmed = self._questions.positions().confirmed or LSN(0)
            if confirmed >= wanted:
                return confirmed
            if time.monotonic() >= deadline:
                raise ChangeStreamError(
                    f"The slot {self.slot_name} has confirmed {confirmed} after {timeout:g} s, and not {wanted}.",
                    "A prepared transaction holds it back until its COMMIT PREPARED, a backlog that is read through "
                    "COPY until the end of its chunk; else see whether the server still reads what it is sent.",
                )
            time.sleep(0.01)
