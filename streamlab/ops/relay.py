"""What is behind `streamlab.ops.proxy.Proxy`: one thread that owns the listener, the links and the faults.

The thread sleeps in `select` until a socket is ready, a delayed piece is due, a scheduled action is due, or a command
was handed to it. Everything but the queue of commands is touched by that thread alone, so nothing else has a lock.
"""

from __future__ import annotations

import heapq
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from streamlab.errors import ProxyError
from streamlab.ops.pipe import Cut, Direction, Link

__all__ = ["Counts", "Relay"]

log = logging.getLogger(__name__)

T = TypeVar("T")

HOST = "127.0.0.1"
_COMMAND_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through so far.

    Attributes
    ----------
    connections : int
        Accepted since the start.
    open : int
        Connections that are open now.
    to_server, to_client : int
        Bytes delivered.
    held : int
        Bytes that were taken and not delivered yet.
    """

    connections: int
    open: int
    to_server: int
    to_client: int
    held: int


class Relay:
    """Passes bytes on, as the faults let it. Methods may be called by any thread where they say so."""

    def __init__(self, server: tuple[str, int], port: int) -> None:
        self.server = server
        self._links: set[Link] = set()
        self._accepted = 0
        self._passed = dict.fromkeys(Direction.BOTH.ways, 0)  # by links that have ended
        self.delays = dict.fromkeys(Direction.BOTH.ways, 0.0)
        self.stalled: set[Direction] = set()
        self.deaf: set[Direction] = set()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._lock = threading.Lock()
        self._commands: deque[tuple[Future[object], Callable[[], object]]] = deque()
        self._closing = self._ended = False
        self._watched: dict[socket.socket, int] = {}
        try:
            family, _, _, _, address = socket.getaddrinfo(*server, type=socket.SOCK_STREAM)[0]
            # Bound for as long as the proxy lives and never listening: nobody else gets the port while it is refused.
            self._place = _bound(port)
        except OSError as error:
            raise ProxyError(f"No proxy for {server[0]}:{server[1]}: {error}.", "Choose another port.") from error
        self._family: socket.AddressFamily = family
        self._address: Any = address
        self.port: int = self._place.getsockname()[1]
        self._listener: socket.socket | None = None
        try:
            self._listen()
        except OSError as error:
            self._place.close()
            raise ProxyError(f"Port {self.port} is taken: {error}.", "Choose another port.") from error
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"streamlab-proxy-{self.port}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"The proxy at {HOST}:{self.port} of {self.server[0]}:{self.server[1]}"

    # -- between the threads -------------------------------------------------------------------------------------

    def do(self, command: Callable[[], T]) -> T:
        """Have the thread do something, and wait until it is done."""
        if threading.current_thread() is self._thread:
            return command()
        future: Future[T] = Future()
        with self._lock:
            if self._closing or self._ended:
                raise ProxyError(f"{self} is closed.", "Make a new one.")
            self._commands.append((future, command))  # type: ignore[arg-type]  # a future of any type
        self._poke()
        try:
            return future.result(_COMMAND_LIMIT)
        except TooLate:
            raise ProxyError(f"{self} did not answer within {_COMMAND_LIMIT:.0f} s.", "Make a new one.") from None

    def _poke(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: there is nobody to wake
            self._wake.send(b"!")

    def close(self) -> None:
        """End the thread and close everything. Idempotent; any thread."""
        self._closing = True
        self._poke()
        if threading.current_thread() is not self._thread:
            self._thread.join(_COMMAND_LIMIT)

    def counts(self) -> Counts:
        """What went through so far; any thread, also after `close`."""
        with self._lock:
            ended = self._ended
        return self._count() if ended else self.do(self._count)

    # -- commands, in the thread ---------------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Whether it ends."""
        return self._closing

    def cut(self, how: Cut) -> int:
        """End all links; returns how many."""
        links = tuple(self._links)
        for link in links:
            self._end(link, how)
        return len(links)

    def refuse(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = None

    def heal(self) -> None:
        """End every fault."""
        self.stalled.clear()
        self.deaf.clear()
        self.delays = dict.fromkeys(Direction.BOTH.ways, 0.0)
        for link in self._links:
            for pipe in link.pipes.values():
                pipe.hasten()
        self._listen()

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Do something at that time of `time.monotonic`; also at the end, so that it can see that it is `closing`."""
        heapq.heappush(self._timers, (when, next(self._numbers), action))

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._watch(self._woken, selectors.EVENT_READ)
            while not self._closing:
                self._turn()
        except Exception:
            log.exception("%s ended by an error of its own", self)
        finally:
            self._leave()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        now = time.monotonic()
        due = [self._timers[0][0]] if self._timers else []
        self._watch(self._listener, selectors.EVENT_READ)
        for link in self._links:
            due += self._interests(link, now)
        for key, events in self._selector.select(max(0.0, min(due) - now) if due else None):
            if key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            elif key.fileobj is self._listener:
                self._accept()
            elif key.data.open:  # else it was ended in this same turn
                self._serve(key.data, key.fileobj, events)  # type: ignore[arg-type]  # sockets alone are watched
        with self._lock:
            commands, self._commands = self._commands, deque()
        for future, command in commands:
            _carry_out(future, command)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _watch(self, each: socket.socket | None, events: int, link: Link | None = None) -> None:
        """Be told of these events and no others; a socket without any must not be watched, or its end would wake us."""
        if each is None or self._watched.get(each, 0) == events:
            return
        if not events:
            self._selector.unregister(each)
            del self._watched[each]
            return
        change = self._selector.modify if each in self._watched else self._selector.register
        change(each, events, link)
        self._watched[each] = events

    def _interests(self, link: Link, now: float) -> list[float]:
        """Say what to be told of for this link; returns when its next pieces are due."""
        wanted = {link.client: 0, link.server: selectors.EVENT_WRITE if link.connecting else 0}
        due = []
        for way, pipe in link.pipes.items():
            if not (pipe.ended or pipe.full or way in self.deaf or link.connecting):
                wanted[pipe.source] |= selectors.EVENT_READ
            if pipe.due is not None and way not in self.stalled:
                if pipe.due <= now:
                    wanted[pipe.target] |= selectors.EVENT_WRITE
                else:
                    due.append(pipe.due)
        for each, events in wanted.items():
            self._watch(each, events, link)
        return due

    def _serve(self, link: Link, each: socket.socket, events: int) -> None:
        """Move bytes of one link."""
        try:
            if link.connecting:
                link.connected()
                return
            for way, pipe in link.pipes.items():
                now = time.monotonic()
                if pipe.source is each and events & selectors.EVENT_READ:
                    pipe.take(now + self.delays[way])
                # Also right after a take: in most cases it saves a turn.
                if way not in self.stalled:
                    pipe.give(now)
        except OSError as error:
            log.debug("%s: a connection was reset: %s", self, error)
            self._end(link, Cut.RESET)
        else:
            if link.done:
                self._end(link, Cut.CLOSE)

    def _accept(self) -> None:
        with suppress(OSError):  # the client has gone again
            client, _ = self._listener.accept()  # type: ignore[union-attr]  # watched only while it is there
            self._links.add(Link(client, self._address, self._family))
            self._accepted += 1

    def _end(self, link: Link, how: Cut) -> None:
        for each in (link.client, link.server):
            self._watch(each, 0)
        link.end(how)
        for way, pipe in link.pipes.items():
            self._passed[way] += pipe.passed
        self._links.discard(link)

    def _count(self) -> Counts:
        pipes = {way: [link.pipes[way] for link in self._links] for way in self._passed}
        passed = {way: self._passed[way] + sum(pipe.passed for pipe in pipes[way]) for way in pipes}
        held = sum(pipe.held for each in pipes.values() for pipe in each)
        return Counts(self._accepted, len(self._links), passed[Direction.TO_SERVER], passed[Direction.TO_CLIENT], held)

    def _listen(self) -> None:
        if self._listener is None:
            each = _bound(self.port)
            each.listen(128)
            each.setblocking(False)
            self._listener = each

    def _leave(self) -> None:
        self._closing = True
        for link in tuple(self._links):
            self._end(link, Cut.RESET)
        self.refuse()
        self._place.close()
        for _, _, action in self._timers:
            action()  # it sees that the proxy is closing, and cancels its plan
        with self._lock:
            self._ended = True
            commands, self._commands = self._commands, deque()
        for future, _ in commands:
            future.set_exception(ProxyError(f"{self} was closed.", "Make a new one."))
        self._selector.close()
        self._wake.close()
        self._woken.close()


def _carry_out(future: Future[object], command: Callable[[], object]) -> None:
    try:
        future.set_result(command())
    except Exception as error:  # noqa: BLE001 - handed to whoever gave the command
        future.set_exception(error)


def _bound(port: int) -> socket.socket:
    each = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind((HOST, port))
    except BaseException:
        each.close()
        raise
    return each
