"""Transactions of a pgoutput stream that are not decided yet: in progress (protocol 2), or prepared (protocol 3).

Both wait as bytes, since their events need the position of a commit that is still to come.
"""

from __future__ import annotations

from streamlab.cdc.changes import Catalog, SpooledChanges, Stretch
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.position import LSN
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.wire import START, Commit, StreamAbort
from streamlab.errors import ProtocolError

__all__ = ["OpenTransactions"]


class OpenTransactions:
    """What a decoder keeps until Stream Commit or Commit Prepared. Methods take the messages and raise as `wire` does.

    Parameters
    ----------
    spill : Spill
        Where they wait.
    """

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._streams: dict[int, Stretch] = {}
        self._prepared: dict[str, Stretch] = {}

    def __bool__(self) -> bool:
        return bool(self._streams or self._prepared)

    @property
    def hold(self) -> LSN | None:
        """The lowest position of a prepared transaction."""
        return min((each.position for each in self._prepared.values()), default=None)

    # -- in progress --------------------------------------------------------------------------------

    def start(self, message: bytes, catalog: Catalog) -> Stretch:
        """Stream Start: the transaction whose block begins."""
        xid, first = int.from_bytes(message[26:30], "big"), message[30]
        if len(message) != START + 6 or (not first and xid not in self._streams):
            raise ValueError("it goes on with a transaction that was not begun")
        if xid not in self._streams:
            self._streams[xid] = Stretch(self._spill.spool(), catalog.copy(), streamed=True, xid=xid)
        return self._streams[xid]

    def commit(self, message: bytes, catalog: Catalog) -> Transaction:
        """Stream Commit."""
        commit = Commit.read_stream(message)
        stretch = self._streams.pop(commit.xid)
        catalog.adopt(stretch)
        return self._complete(stretch, commit)

    def abort(self, message: bytes) -> None:
        """Stream Abort, of a transaction or of one of its savepoints."""
        aborted = StreamAbort.read(message)
        if aborted.xid != aborted.subxid:
            if aborted.xid in self._streams:
                self._streams[aborted.xid].abort(aborted.subxid)
        elif (stretch := self._streams.pop(aborted.xid, None)) is not None:
            self._drop(stretch)

    # -- prepared -----------------------------------------------------------------------------------

    def prepare(self, message: bytes, catalog: Catalog) -> None:
        """Stream Prepare."""
        prepare = Commit.read_prepared(message)
        self.keep(self._streams.pop(prepare.xid), prepare, catalog)

    def keep(self, stretch: Stretch, prepare: Commit, catalog: Catalog) -> None:
        """A transaction is prepared."""
        if prepare.gid in self._prepared:
            raise ValueError(f"a transaction {prepare.gid!r} is prepared already")
        stretch.position = prepare.position
        # Now, and not at the commit: by then a table may have been described anew.
        catalog.adopt(stretch)
        self._prepared[prepare.gid] = stretch

    def commit_prepared(self, message: bytes) -> Transaction:
        """Commit Prepared."""
        commit = Commit.read_prepared(message)
        stretch = self._prepared.pop(commit.gid, None)
        if stretch is None or stretch.xid != commit.xid:
            raise ProtocolError(
                f"The prepared transaction {commit.gid!r} was committed, and its changes were not sent before.",
                "They were acknowledged before the commit. Take a new snapshot; keep acknowledgements at Decoder.hold.",
            )
        return self._complete(stretch, commit)

    def rollback_prepared(self, message: bytes) -> None:
        """Rollback Prepared. One that this stream never saw is gone all the same."""
        if (stretch := self._prepared.pop(Commit.read_rollback(message).gid, None)) is not None:
            self._drop(stretch)

    # -- either -------------------------------------------------------------------------------------

    def _complete(self, stretch: Stretch, commit: Commit) -> Transaction:
        self._spill.forget(stretch.spool)
        xid = str(stretch.xid)
        waited = SpooledChanges(stretch, (), commit.time, xid, commit.position)
        changes: SpooledChanges | tuple[ChangeEvent, ...] = waited
        if stretch.spool.size <= self._spill.eager and not stretch.spool.on_disk:
            changes = tuple(waited)
            waited.close()
        return Transaction(commit.position, commit.end, xid, commit.time, changes, stretch.origin, commit.gid)

    def _drop(self, stretch: Stretch) -> None:
        self._spill.forget(stretch.spool)
        stretch.spool.close()
