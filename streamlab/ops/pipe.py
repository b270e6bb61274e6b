"""One connection through the proxy: two sockets and two pipes, one for each direction. No thread, no waiting.

A pipe takes what its source has, keeps it in a queue with the time at which it is due, and gives it to its target. The
end of the stream and a reset go through the same queue, so they are delayed and held back like bytes, and come after
them.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from contextlib import suppress
from enum import StrEnum

__all__ = ["LIMIT", "Cut", "Direction", "Link", "Pipe"]

LIMIT = 4 << 20
"""Bytes that one pipe holds at most; then it reads no more, and TCP holds the sender up."""

_PIECE = 256 << 10
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_END = b""


class Direction(StrEnum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"
    BOTH = "both"

    @property
    def ways(self) -> tuple[Direction, ...]:
        """The one or two ways that are meant."""
        return (Direction.TO_SERVER, Direction.TO_CLIENT) if self is Direction.BOTH else (self,)


class Cut(StrEnum):
    """How connections end."""

    RESET = "reset"
    """With RST, as when the peer's machine was switched off and on: an error at the next read or write."""
    CLOSE = "close"
    """With FIN, as when the peer left in order: the end of the stream."""


class Pipe:
    """Bytes on their way from one socket to another; both are non-blocking.

    Attributes
    ----------
    held : int
        Bytes taken and not given yet.
    passed : int
        Bytes given.
    ended : bool
        Nothing more comes from the source.
    done : bool
        The target has got everything, and the end of the stream.
    """

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.held = 0
        self.passed = 0
        self.ended = False
        self.done = False
        self._queue: deque[tuple[float, memoryview | bytes | OSError]] = deque()

    @property
    def due(self) -> float | None:
        """When the next piece may be given; None where there is none."""
        return self._queue[0][0] if self._queue else None

    @property
    def full(self) -> bool:
        """Whether it can take no more."""
        return self.held >= LIMIT

    def hasten(self) -> None:
        """Everything that is held is due now."""
        self._queue = deque((0.0, piece) for _, piece in self._queue)

    def take(self, due: float) -> None:
        """Read once from the source; an end or an error is queued behind what was read before."""
        try:
            piece: bytes | OSError = self.source.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            piece = error
        if isinstance(piece, OSError) or piece == _END:
            self.ended = True
            self._queue.append((due, piece))
        else:
            self.held += len(piece)
            self._queue.append((due, memoryview(piece)))

    def give(self, now: float) -> None:
        """Write what is due, as much as the target takes.

        Raises
        ------
        OSError
            The target takes no more, or the source was reset.
        """
        while self._queue and self._queue[0][0] <= now:
            due, piece = self._queue[0]
            if isinstance(piece, OSError):
                raise piece
            if piece == _END:
                self.done = True
                self._queue.popleft()
                self.target.shutdown(socket.SHUT_WR)
                return
            try:
                sent = self.target.send(piece)
            except BlockingIOError:
                return
            self.held -= sent
            self.passed += sent
            if sent < len(piece):
                self._queue[0] = (due, piece[sent:])
                return
            self._queue.popleft()


class Link:
    """A client's connection and the one that was made for it to the server.

    Attributes
    ----------
    connecting : bool
        The server has not accepted yet.
    open : bool
        False after `end`.
    """

    def __init__(self, client: socket.socket, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.client = client
        self.server = socket.socket(family, socket.SOCK_STREAM)
        self.connecting = True
        self.open = True
        for each in (self.client, self.server):
            each.setblocking(False)
            # The proxy must not add a delay of its own to small messages (Nagle's algorithm).
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pipes = {
            Direction.TO_SERVER: Pipe(self.client, self.server),
            Direction.TO_CLIENT: Pipe(self.server, self.client),
        }
        # A refusal on the same machine is known at once, else when the socket becomes writable.
        number = self.server.connect_ex(address)
        self._refused = number if number != errno.EINPROGRESS else 0

    def connected(self) -> None:
        """The server's socket is writable for the first time.

        Raises
        ------
        OSError
            The server refused.
        """
        number = self._refused or self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "the server refused the connection")
        self.connecting = False

    @property
    def done(self) -> bool:
        """Whether both directions have ended in order."""
        return all(pipe.done for pipe in self.pipes.values())

    def end(self, how: Cut) -> None:
        """Close both sockets; what is held back is dropped. Idempotent."""
        self.open = False
        for each in (self.client, self.server):
            with suppress(OSError):
                if how is Cut.RESET:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                else:
                    each.shutdown(socket.SHUT_WR)
                    # What was not read would turn the close into a reset.
                    while each.recv(_PIECE):
                        pass
            each.close()
