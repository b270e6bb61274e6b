"""A TCP proxy in front of a server, which fails on command: cut, refuse, delay, stall, go deaf.

What a client does when the network fails cannot be tried by stopping the server: most failures are silent. The proxy
listens on the loopback address and passes bytes on unseen, so any protocol over one TCP connection works through it,
TLS included (PostgreSQL, MySQL, HTTP)::

    with Proxy(("127.0.0.1", 5432)) as proxy:
        connection = psycopg.connect(proxy.postgres_dsn(settings.postgres_dsn()))
        proxy.stall()

**Kafka goes around it**: a client uses the address it was given only to ask for the brokers' own (advertised.listeners)
and connects to those. A broker has to advertise the proxy's address for the proxy to be in the way.

=============  ===============================================================================================
command        what the two ends notice
=============  ===============================================================================================
`cut`          connections end: reset ("connection reset by peer"), or closed as by a server that leaves
`refuse`       new connections are refused ("connection refused"); those that are open go on
`delay`        every byte arrives later: latency, for each direction
`stall`        connections are accepted and bytes taken, and nothing arrives: the network has lost it
`go_deaf`      nothing is read any more: the sender's buffers fill, and it blocks (TCP's backpressure)
`heal`         all of it ends; what was held back is delivered, in order and complete
=============  ===============================================================================================

One thread does all input and output on non-blocking sockets, and alone owns their state; a command is handed to it and
has taken effect when the call returns. The thread sleeps in `select` until there is something to do.

The model is psycopg's test proxy (tests/fix_proxy.py); the faults are those of Toxiproxy (Shopify).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from streamlab.errors import ProxyError
from streamlab.ops.pipe import Cut, Direction
from streamlab.ops.relay import HOST, Counts, Relay
from streamlab.settings import Dsn

__all__ = ["Counts", "Cut", "Direction", "Proxy"]


class Proxy:
    """Stands in front of a TCP server. Threads may share it; commands are carried out one after the other.

    Parameters
    ----------
    server : tuple of str and int
        Host and port of the server. It need not run yet: a connection to it is made for each client.
    port : int
        Where to listen; 0 lets the system choose. It stays the proxy's own while connections are refused.

    Raises
    ------
    ProxyError
        The port is taken, or the server's name is unknown.
    """

    host = HOST

    def __init__(self, server: tuple[str, int], *, port: int = 0) -> None:
        self.server = server
        self._relay = Relay(server, port)

    @property
    def port(self) -> int:
        """Where the proxy listens, on `host`."""
        return self._relay.port

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port} -> {self.server[0]}:{self.server[1]})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self, how: Cut = Cut.RESET) -> int:
        """End every open connection and drop what is held back; returns how many. New ones are accepted as before."""
        return self._relay.do(lambda: self._relay.cut(how))

    def refuse(self) -> None:
        """Refuse new connections, also those that wait to be accepted."""
        self._relay.do(self._relay.refuse)

    def delay(self, seconds: float, direction: Direction = Direction.BOTH) -> None:
        """Deliver what arrives from now on so much later, never out of order; 0 ends it.

        At most 4 MiB are under way in each direction of a connection, which bounds the throughput as a window does.
        """
        if not 0 <= seconds <= 3600:
            raise ProxyError(f"A delay of {seconds} s is not possible.", "Give seconds, from 0 to an hour.")
        self._relay.do(lambda: self._relay.delays.update(dict.fromkeys(direction.ways, seconds)))

    def stall(self, direction: Direction = Direction.BOTH) -> None:
        """Take what arrives (up to 4 MiB for each connection) and deliver nothing; connections stay open."""
        self._relay.do(lambda: self._relay.stalled.update(direction.ways))

    def go_deaf(self, direction: Direction = Direction.BOTH) -> None:
        """Read nothing any more of what is sent that way: the sender blocks once TCP's buffers are full."""
        self._relay.do(lambda: self._relay.deaf.update(direction.ways))

    def heal(self) -> None:
        """End every fault. What was held back is delivered; connections that were cut stay cut."""
        self._relay.do(self._relay.heal)

    def counts(self) -> Counts:
        """What went through so far; also after `close`."""
        return self._relay.counts()

    def schedule(self, plan: Iterable[tuple[float, Callable[[Proxy], object]]]) -> Future[None]:
        """Carry out commands later, by the clock::

            proxy.schedule([(0.5, Proxy.stall), (2.0, Proxy.heal), (3.0, lambda it: it.delay(0.1))])

        Parameters
        ----------
        plan : iterable of (seconds from now, action)
            An action is called with the proxy, in its thread; it must not wait for anything.

        Returns
        -------
        Future
            Done when the last action was carried out; has the error of one that failed, after which the rest of the
            plan is dropped. Cancelled when the proxy is closed before.
        """
        steps = sorted(plan, key=lambda step: step[0])
        future: Future[None] = Future()
        begin = time.monotonic()

        def go_on(number: int) -> None:
            if number == len(steps):
                future.set_result(None)
                return
            self._relay.at(begin + steps[number][0], lambda: carry_out(number))

        def carry_out(number: int) -> None:
            if self._relay.closing:
                future.cancel()
                return
            try:
                steps[number][1](self)
            except Exception as error:  # noqa: BLE001 - the caller's own action: handed on
                future.set_exception(error)
            else:
                go_on(number + 1)

        self._relay.do(lambda: go_on(0))
        return future

    def postgres_dsn(self, dsn: str) -> Dsn:
        """The same database and role by way of the proxy; connects once, directly, where the password is in a file.

        The server's name stays, so that ``sslmode=verify-full`` compares the certificate with the right one.
        """
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        about = conninfo_to_dict(dsn)
        name = str(about.get("host") or "localhost")
        changes: dict[str, str | int] = {"hostaddr": self.host, "port": self.port}
        if name.startswith(("/", "@")):  # a Unix socket
            changes["host"] = self.host
        if "password" not in about:
            # Password files name the server's own port: found there and only there.
            with psycopg.connect(dsn, connect_timeout=10) as connection:
                changes["password"] = connection.info.password
        return Dsn(make_conninfo(dsn, **changes))

    def close(self) -> None:
        """Reset every connection, free the port, end the thread. Idempotent."""
        self._relay.close()
