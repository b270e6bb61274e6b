"""Transactions in progress (protocols 2 to 4) as whole ones, as protocol 1 sends them. No I/O but the spill.

The blocks of a transaction in progress wait as bytes, in memory or on disk, until Stream Commit. Then they come as what
protocol 1 would have sent: Begin with the position of the commit, the messages without the number of their
subtransaction, those of a subtransaction that was rolled back left out, and Commit. They come in portions, so that
memory does not grow with the size of a transaction.

Two-phase commit is not read.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from streamlab.cdc.changes import Catalog, SpooledChanges, Stretch
from streamlab.cdc.open_transactions import OpenTransactions
from streamlab.cdc.spill import Spill
from streamlab.cdc.transaction import Transaction
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import MALFORMED, START, LogicalMessage, malformed
from streamlab.errors import ProtocolError

__all__ = ["Streamed"]

_BEGIN = struct.Struct("!c24xcQqI")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_R, _M, _T, _O, _Y = (ord(letter) for letter in "RMTOY")
_S, _E, _C, _A = (ord(letter) for letter in "SEcA")
_ROWS = frozenset(b"IUD")


class Streamed:
    """Makes protocol 1 of a stream of protocol 2 to 4. Used by one thread. False while nothing waits.

    Parameters
    ----------
    spill : Spill
        Where transactions in progress wait.
    """

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._spill.eager = -1  # nothing is decoded here
        # So it asks nobody for types: whoever decodes what it makes does.
        self._catalog = Catalog(TypeMap(), binary=False, lazy=True, primary_keys={})
        self.reset()

    def __bool__(self) -> bool:
        return bool(self._open) or self.pending

    @property
    def pending(self) -> bool:
        """Whether `portion` has something to give."""
        return bool(self._ready)

    def reset(self) -> None:
        """Forget everything: the connection was lost."""
        self._spill.close()
        self._open = OpenTransactions(self._spill)
        self._block: Stretch | None = None
        self._ready: deque[Iterator[bytes]] = deque()

    def take(self, messages: Sequence[bytes | memoryview]) -> None:
        """Take messages.

        Raises
        ------
        ProtocolError
            One is not what these protocols allow, at this place or at all.
        ChangeStreamError
            A large transaction could not be written to disk.
        """
        plain: list[bytes] = []
        for message in messages:
            data = bytes(message)
            try:
                self._one(data, plain)
            except ProtocolError:
                raise
            except MALFORMED as error:
                raise malformed(data, str(error) if isinstance(error, ValueError) else "it is not complete") from error
        if plain:
            self._ready.append(iter(plain))
        self._spill.relieve()

    def _one(self, data: bytes, plain: list[bytes]) -> None:
        kind, block = data[START], self._block
        if block is not None and kind != _E:
            self._inside(kind, data, block, plain)
        elif kind == _S:
            self._block = self._open.start(data, self._catalog)
        elif kind == _E:
            if block is None:
                raise ValueError("no block is open")
            self._block = None
        elif kind == _C:
            transaction = self._open.commit(data, self._catalog)
            if plain:
                self._ready.append(iter(plain[:]))
                plain.clear()
            self._ready.append(_whole(transaction, data))
        elif kind == _A:
            self._open.abort(data)
        else:
            plain.append(data)

    @staticmethod
    def _inside(kind: int, data: bytes, block: Stretch, plain: list[bytes]) -> None:
        if kind in _ROWS or kind == _T:
            block.add(data)
        elif kind == _R:
            block.relation(data)
        elif kind == _M:
            if LogicalMessage.read(data, START + 5).transactional:
                block.add(data)
            else:
                plain.append(_plain(data))
        elif kind not in {_O, _Y}:  # which say nothing that a frame holds
            raise ValueError("it cannot stand in a transaction in progress")

    def portion(self, limit: int) -> list[bytes]:
        """The next messages of protocol 1, so many at most; empty when there are no more."""
        while self._ready:
            found = list(islice(self._ready[0], limit))
            if found:
                return found
            self._ready.popleft()
        return []


def _plain(data: bytes) -> bytes:
    """A message without the number of its subtransaction."""
    return data[: START + 1] + data[START + 5 :]


def _whole(transaction: Transaction, commit: bytes) -> Iterator[bytes]:
    changes = transaction.changes
    assert isinstance(changes, SpooledChanges)  # noqa: S101 - nothing is decoded early
    stretch = changes.stretch
    micros = (transaction.commit_timestamp - _EPOCH) // timedelta(microseconds=1)
    position: Any = transaction.position
    yield _BEGIN.pack(b"w", b"B", position, micros, stretch.xid)
    aborted = stretch.aborted
    try:
        for message in stretch.spool:
            if aborted and message[START] != _R and message[START + 1 : START + 5] in aborted:
                continue
            yield _plain(message)
        yield commit[:START] + b"C" + commit[START + 5 :]
    finally:
        transaction.close()
