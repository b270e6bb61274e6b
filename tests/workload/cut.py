"""A TCP proxy that cuts one connection at its COMMIT: before the server gets it, or before its answer is heard."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import Enum


class Cut(Enum):
    """Where the connection is cut."""

    BEFORE_COMMIT = "before the server gets the COMMIT"
    AFTER_COMMIT = "before the client hears of the COMMIT"


class Proxy:
    """Carries bytes both ways until it is armed; then it cuts the next connection that commits, once.

    It looks for the word in what the client sends, so that has to be unencrypted.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._armed: Cut | None = None
        self.cuts = 0
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def arm(self, cut: Cut) -> None:
        self._armed = cut

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                cut = threading.Event()
                self._start(self._forth, client, server, cut)
                self._start(self._back, client, server, cut)

    def _forth(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._armed is not None and b"COMMIT" in data:
                    armed, self._armed = self._armed, None
                    self.cuts += 1
                    if armed is Cut.AFTER_COMMIT:
                        cut.set()  # before the server can answer
                        server.sendall(data)
                        return  # `_back` closes both when the answer has come, so it is certain that it did
                    break
                server.sendall(data)
            self._end(client, server)

    def _back(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if cut.is_set():
                    break
                client.sendall(data)
        self._end(client, server)

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._end(self._listener)
        self._listener.close()
        self._end(*self._sockets)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()


@contextlib.contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    made = Proxy(host, port)
    try:
        yield made
    finally:
        made.close()
