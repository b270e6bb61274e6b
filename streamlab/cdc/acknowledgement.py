"""What a reader of PostgreSQL's stream may tell the server: how far it has read, and what the server may forget.

A standby status update carries three positions. `write` is how far the stream was received and only informs;
`flush` moves the slot's ``confirmed_flush_lsn``, and what lies below it never comes again. The server believes whatever
it is told: a flush position beyond what was received makes it drop later commits below it, without a word. So:

- `flush` grows and never falls;
- a transaction is confirmed by the end of its commit record, after its effect is durable, and never one that was not
  handed out yet;
- traffic outside the publication arrives only as keepalives. Where nothing is open, in flight or unacknowledged, their
  position is confirmed too; otherwise a quiet slot would hold the log for ever.

- A slot with two-phase commit sends the changes of a prepared transaction again only to a stream that begins before its
  PREPARE. So each stream of one begins where the slot does, and until it has come past what was acknowledged before,
  prepared transactions may lie ahead that are not known yet: nothing more is confirmed.

Pure: no connection and no clock. `Bookkeeping` is not locked; the reader that owns it does that.
Source: PostgreSQL's manual, "Streaming Replication Protocol" (Standby status update, Primary keepalive message).
"""

from __future__ import annotations

from streamlab.cdc.position import LSN

__all__ = ["Bookkeeping"]


class Bookkeeping:
    """Positions of one reader. All are ends of commit records, or what the server said of its own log.

    Attributes
    ----------
    handed_out : LSN
        The farthest end of a transaction that was ever handed out.
    acknowledged : LSN
        Up to where the effect is durable, by the caller's word.
    cursor : LSN
        Where the present iteration is: its last hand-out, or where it began.
    write : LSN
        How far the stream was received.
    flush : LSN
        What the server was, or is to be, told that it may forget.
    """

    __slots__ = (
        "_arrived", "_decoded", "_hold", "_in_flight", "_keepalive", "_known", "acknowledged", "cursor", "flush",
        "handed_out", "write",
    )  # fmt: skip

    def __init__(self, acknowledged: int = 0) -> None:
        self.acknowledged = self.cursor = self.write = LSN(acknowledged)
        self.handed_out = self.flush = self._keepalive = self._arrived = self._decoded = self._known = LSN(0)
        self._hold: LSN | None = None
        self._in_flight = False

    def __repr__(self) -> str:
        return (
            f"Bookkeeping(write={self.write}, handed_out={self.handed_out}, acknowledged={self.acknowledged}, "
            f"flush={self.flush})"
        )

    # -- what came from the server ----------------------------------------------------------------

    def confirmed(self, lsn: int) -> None:
        """The server says that the slot is confirmed up to here: nothing below will come."""
        lsn = LSN(lsn)
        self.acknowledged = max(self.acknowledged, lsn)
        self.cursor = max(self.cursor, lsn)
        self.flush = max(self.flush, lsn)
        self.write = max(self.write, lsn)

    def connected(self, *, two_phase: bool) -> None:
        """A stream begins; `two_phase` says that it brings prepared transactions, from the slot's own position on."""
        self._arrived = self._decoded = LSN(0)
        self._known = self.acknowledged if two_phase else LSN(0)

    def received(self, lsn: int) -> None:
        """Messages of the stream were received; until `settled` something is in flight."""
        self._arrived = max(self._arrived, LSN(lsn))
        self.write = max(self.write, LSN(lsn))
        self._in_flight = True

    def keepalive(self, end: int) -> None:
        """The server has sent everything up to here; messages of this reader before it may still be in flight."""
        self._keepalive = max(self._keepalive, LSN(end))
        self._arrived = max(self._arrived, self._keepalive)
        self.write = max(self.write, self._keepalive)

    def settled(self, *, in_flight: bool, hold: LSN | None = None) -> None:
        """What was received has been decoded.

        Parameters
        ----------
        in_flight : bool
            A transaction is open, or one that is complete was not handed out yet.
        hold : LSN, optional
            Where the first transaction was prepared that waits for its second phase: its changes come again only to a
            stream that begins before.
        """
        self._in_flight = in_flight
        self._hold = hold
        self._decoded = self._arrived

    def lost(self) -> None:
        """The connection is gone, and with it everything that was not handed out: it will come again."""
        self._in_flight = False
        self._keepalive = LSN(0)

    # -- what the caller does ---------------------------------------------------------------------

    def wants(self, end: int) -> bool:
        """Whether a transaction with this end is still to be handed out in this iteration."""
        return end > self.cursor and end > self.acknowledged

    def passed(self, upto: int) -> bool:
        """Whether nothing that ends up to here is still to come: it was handed out, or the server has sent all of it.

        What was received and not handed out yet is not looked at.
        """
        return max(self.cursor, self.acknowledged, self._keepalive) >= upto

    def hand_out(self, end: int) -> None:
        """A transaction goes to the caller."""
        self.cursor = max(self.cursor, LSN(end))
        self.handed_out = max(self.handed_out, self.cursor)

    def acknowledge(self, upto: int) -> LSN:
        """The effect of everything up to here is durable; returns what is acknowledged now.

        Clamped to what was handed out, and never backwards.
        """
        self.acknowledged = max(self.acknowledged, min(LSN(upto), self.handed_out))
        return self.acknowledged

    @property
    def start(self) -> LSN:
        """Where a stream has to begin so that nothing is missing from this iteration."""
        position = max(self.cursor, self.acknowledged)
        return position if self._hold is None else min(position, self._hold)

    def rewind(self) -> bool:
        """Begin an iteration: from the last acknowledgement. Whether anything has to come again for that."""
        again = self.cursor > self.acknowledged
        self.cursor = self.acknowledged
        return again

    # -- what the server is told ------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing is open, in flight or unacknowledged."""
        return not self._in_flight and self.acknowledged >= self.cursor and self.acknowledged >= self.handed_out

    def to_report(self) -> tuple[LSN, LSN]:
        """The write and flush positions of the next status update."""
        confirmed = self.acknowledged
        if self.idle:
            confirmed = max(confirmed, self._keepalive)
        if self._hold is not None:
            confirmed = min(confirmed, self._hold)
        if self._decoded < self._known:
            confirmed = self.flush
        self.flush = max(self.flush, confirmed)
        self.write = max(self.write, self.flush)
        return self.write, self.flush
