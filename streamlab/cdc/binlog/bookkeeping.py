"""How far a reader of the binary log has come. Pure: no connection, no file and no clock.

MySQL is told nothing of it: it keeps its log for a time, whoever reads. So a position is the reader's own to keep,
and it goes on where nothing for it happens: transactions on other tables come without changes, and where everything
before them is acknowledged, so are they. Otherwise a quiet reader's position would leave the log.

`Bookkeeping` is not locked; the reader that owns it does that.
"""

from __future__ import annotations

from streamlab.cdc.binlog.position import BinlogPosition, GTIDSet

__all__ = ["Bookkeeping"]


class Bookkeeping:
    """Positions of one reader: ends of transactions, or where it began.

    Attributes
    ----------
    origin : BinlogPosition or None
        Where the stream begins; None until that is known.
    acknowledged : BinlogPosition or None
        Up to where the effect is durable, by the caller's word. None while rows of a snapshot wait for that.
    cursor : BinlogPosition or None
        Where the present iteration is.
    handed_out : BinlogPosition or None
        The farthest end of a transaction that was ever handed out.
    """

    __slots__ = ("_prepared", "acknowledged", "cursor", "handed_out", "origin")

    def __init__(self, acknowledged: BinlogPosition | None = None) -> None:
        self.origin = self.acknowledged = self.cursor = acknowledged
        self.handed_out: BinlogPosition | None = None
        self._prepared = GTIDSet()

    def begin(self, position: BinlogPosition) -> None:
        """It is known where the stream begins."""
        self.origin = self.acknowledged = self.cursor = position

    @property
    def write(self) -> int:
        """The offset of `cursor`, for metrics."""
        return self.cursor.offset if self.cursor else 0

    @property
    def flush(self) -> int:
        """The offset of `acknowledged`, for metrics."""
        return self.acknowledged.offset if self.acknowledged else 0

    @property
    def start(self) -> BinlogPosition | None:
        """Where a stream has to begin so that nothing is missing from this iteration."""
        return self.cursor

    @property
    def idle(self) -> bool:
        """Nothing that was handed out waits for its acknowledgement."""
        return self.acknowledged is not None and (self.handed_out is None or self.handed_out <= self.acknowledged)

    def wants(self, end: BinlogPosition) -> bool:
        """Whether a transaction with this end is still to be handed out in this iteration."""
        return self.cursor is None or self.cursor < end

    def passed(self, upto: BinlogPosition) -> bool:
        """Whether nothing that ends up to here is still to come, beside what was received already.

        Decided by identifiers alone. Every transaction of the log comes, with or without changes, so none is missing;
        and the log also grows where no transaction ends, such as by a new file. A transaction that is prepared counts
        as come: it ends with its commit.
        """
        if self.cursor is None:
            return False
        gtids = self.cursor.gtids
        return upto.gtids <= (gtids | self._prepared if self._prepared else gtids)

    def hand_out(self, end: BinlogPosition) -> None:
        """A transaction goes to the caller."""
        self.cursor = end
        if self.handed_out is None or self.handed_out < end:
            self.handed_out = end

    def keepalive(self, end: BinlogPosition) -> None:
        """Up to here there is nothing for the caller."""
        self.cursor = end
        if self.idle:
            self.acknowledged = end

    def acknowledge(self, upto: BinlogPosition) -> BinlogPosition | None:
        """The effect of everything up to here is durable; returns what is acknowledged now.

        Clamped to what was handed out, and never backwards.
        """
        if self.handed_out is not None:
            upto = min(upto, self.handed_out)
            if self.acknowledged is None or self.acknowledged < upto:
                self.acknowledged = upto
            if self.cursor is not None and self.handed_out <= self.acknowledged < self.cursor:
                self.acknowledged = self.cursor
        return self.acknowledged

    def rewind(self) -> bool:
        """Begin an iteration: from the last acknowledgement. Whether anything has to come again for that."""
        base = self.acknowledged or self.origin
        again = self.cursor is not None and base is not None and base < self.cursor
        self.cursor = base
        return again

    def settle(self) -> None:
        """No row of a snapshot waits any more."""
        if self.acknowledged is None:
            self.acknowledged = self.cursor if self.handed_out is None else self.origin

    def settled(self, *, in_flight: bool, hold: GTIDSet | None = None) -> None:
        """What was received has been decoded; `hold` are the transactions that wait for their second phase."""
        self._prepared = hold or GTIDSet()

    def lost(self) -> None:
        """What was not handed out comes again, and so does what was prepared."""
        self._prepared = GTIDSet()

    def to_report(self) -> None:
        """Nothing is told to the server."""
