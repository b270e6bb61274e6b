"""The proxy passes every byte on, and fails as told: between sockets, and in front of real servers."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import psycopg
import pymysql
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.errors import ProxyError
from streamlab.ops.pipe import LIMIT
from streamlab.ops.proxy import Cut, Direction, Proxy


def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


# -- between sockets ---------------------------------------------------------------------------------------------------


class Echo:
    """A server that sends back what it gets, one thread for each connection; ends the stream when the client does."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.serve, args=[client]))
            self.threads[-1].start()

    def serve(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as made:
        yield made


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=10)


def receive(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := client.recv(65536)):
        data += piece
    return bytes(data)


FAULTS: list[Callable[[Proxy], object]] = [
    lambda proxy: None,
    lambda proxy: proxy.stall(),
    lambda proxy: proxy.stall(Direction.TO_CLIENT),
    lambda proxy: proxy.go_deaf(Direction.TO_SERVER),
    lambda proxy: proxy.go_deaf(),
    lambda proxy: proxy.delay(0.003),
    lambda proxy: proxy.delay(0.001, Direction.TO_CLIENT),
    lambda proxy: proxy.refuse(),
    lambda proxy: proxy.heal(),
]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(FAULTS) - 1), st.binary(max_size=3000), st.integers(1, 60)), max_size=8))
def test_what_heals_has_lost_nothing_and_changed_nothing(echo: Echo, steps: list[tuple[int, bytes, int]]) -> None:
    sent = b"".join(piece * times for _, piece, times in steps)
    with Proxy(echo.address) as proxy, connect(proxy) as client, ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive, client, len(sent) + 1)
        for fault, piece, times in steps:
            FAULTS[fault](proxy)
            client.sendall(piece * times)
        proxy.stall()
        client.shutdown(socket.SHUT_WR)  # the end of the stream comes last, too
        proxy.heal()
        assert received.result(20) == sent
        until(lambda: proxy.counts().open == 0)
    counts = proxy.counts()
    assert (counts.to_server, counts.to_client, counts.held) == (len(sent), len(sent), 0)


def test_many_connections_and_megabytes_at_once(proxy: Proxy) -> None:
    size, clients = 3 << 20, 6
    data = bytes(range(256)) * (size // 256)

    def exchange(_: int) -> bool:
        with connect(proxy) as client, ThreadPoolExecutor(1) as pool:
            received = pool.submit(receive, client, size)
            client.sendall(data)
            return received.result(30) == data

    with ThreadPoolExecutor(clients) as pool:
        assert all(pool.map(exchange, range(clients)))
    assert (proxy.counts().connections, proxy.counts().to_client) == (clients, clients * size)


def test_a_reset_and_an_orderly_end_look_different(proxy: Proxy) -> None:
    with connect(proxy) as first, connect(proxy) as second:
        first.sendall(b"x")
        second.sendall(b"x")
        assert (first.recv(1), second.recv(1)) == (b"x", b"x")
        assert proxy.cut() == 2
        with pytest.raises(ConnectionResetError):
            first.recv(1)
    with connect(proxy) as client:  # the next one is welcome
        client.sendall(b"y")
        assert client.recv(1) == b"y"
        assert proxy.cut(Cut.CLOSE) == 1
        assert client.recv(1) == b""
    assert proxy.counts().open == 0


def test_a_stalled_connection_is_open_and_silent(proxy: Proxy) -> None:
    proxy.stall()
    with connect(proxy) as client:
        client.sendall(b"lost in the network")
        until(lambda: proxy.counts().held == 19)
        assert select.select([client], [], [], 0.1)[0] == []
        assert proxy.counts().to_server == 0
        proxy.heal()
        assert receive(client, 19) == b"lost in the network"


def test_a_reset_of_the_client_waits_behind_its_bytes(proxy: Proxy) -> None:
    proxy.stall(Direction.TO_SERVER)
    client = connect(proxy)
    client.sendall(b"abc")
    until(lambda: proxy.counts().held == 3)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert proxy.counts().open == 1
    proxy.heal()
    until(lambda: proxy.counts().open == 0)
    assert proxy.counts().to_server == 3


@pytest.mark.parametrize("fault", [Proxy.go_deaf, Proxy.stall, Proxy.counts], ids=["deaf", "stalled", "no fault"])
def test_a_sender_whose_bytes_nobody_takes_blocks_in_the_end(proxy: Proxy, fault: Callable[[Proxy], object]) -> None:
    # Without a fault it is the client itself that takes nothing of what comes back.
    with connect(proxy) as client:
        fault(proxy)
        client.setblocking(False)
        sent, pieces = bytearray(), random.Random(0)
        # Blocked: for a while there was no room, although everything had time to move.
        while select.select([], [client], [], 0.25)[1]:
            piece = pieces.randbytes(65536)
            sent += piece[: client.send(piece)]
            assert len(sent) < 200 << 20
        held = proxy.counts().held
        assert (held == 0) if fault is Proxy.go_deaf else (LIMIT <= held < 2 * LIMIT + (1 << 20))
        proxy.heal()
        client.settimeout(10)
        assert receive(client, len(sent)) == sent


def test_latency_is_added_in_each_direction(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.05)
        begin = time.monotonic()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert time.monotonic() - begin >= 0.1
    with pytest.raises(ProxyError, match="not possible"):
        proxy.delay(-1)


def test_refused_connections_are_refused_and_the_port_is_kept(proxy: Proxy) -> None:
    port = proxy.port
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        with pytest.raises(OSError, match="in use"), socket.socket() as thief:
            thief.bind((proxy.host, port))
        client.sendall(b"y")
        assert client.recv(1) == b"y"
        proxy.heal()
        with connect(proxy) as again:
            again.sendall(b"z")
            assert again.recv(1) == b"z"
    assert proxy.port == port


def test_a_server_that_is_not_there_resets(echo: Echo) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()) as proxy:
            with pytest.raises(ConnectionResetError), connect(proxy) as client:
                client.recv(1)
            until(lambda: proxy.counts().open == 0)
            assert proxy.counts().connections == 1


def test_a_schedule_is_carried_out_by_the_clock(proxy: Proxy) -> None:
    begin = time.monotonic()
    done = proxy.schedule([(0.15, Proxy.heal), (0.0, Proxy.stall)])
    with connect(proxy) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    assert time.monotonic() - begin >= 0.15
    done.result(10)
    failing = proxy.schedule([(0.0, lambda it: it.delay(-1)), (0.0, Proxy.stall)])
    with pytest.raises(ProxyError):
        failing.result(10)
    never = proxy.schedule([(60.0, Proxy.cut)])
    proxy.close()
    with pytest.raises(CancelledError):
        never.result(10)


def test_closing_ends_everything(echo: Echo) -> None:
    before = threading.active_count()
    proxy = Proxy(echo.address)
    client = connect(proxy)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    proxy.close()
    proxy.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    client.close()
    with socket.create_server((proxy.host, proxy.port)):
        with pytest.raises(ProxyError, match="taken|in use"):
            Proxy(echo.address, port=proxy.port)
    with pytest.raises(ProxyError, match="closed"):
        proxy.stall()
    assert (proxy.counts().open, proxy.counts().to_server) == (0, 1)
    until(lambda: threading.active_count() <= before)


def test_idle_and_failed_connections_cost_no_cpu(proxy: Proxy) -> None:
    with connect(proxy) as idle:
        proxy.stall()
        dead = connect(proxy)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        dead.close()
        idle.sendall(b"x")
        until(lambda: proxy.counts().held == 1)

        def share() -> float:
            begin, used = time.monotonic(), time.process_time()
            threading.Event().wait(0.4)
            return (time.process_time() - used) / (time.monotonic() - begin)

        # What other threads of this process do for a moment is not the proxy's doing.
        assert min(share() for _ in range(5)) < 1 / 3


# -- in front of servers -----------------------------------------------------------------------------------------------


@pytest.fixture
def postgres(stack: object) -> Iterator[tuple[Proxy, str]]:
    dsn = settings.postgres_dsn("app")
    about = conninfo_to_dict(dsn)
    with Proxy((str(about["host"]), int(about["port"] or 0))) as proxy:
        yield proxy, proxy.postgres_dsn(dsn)


@pytest.mark.integration
@pytest.mark.parametrize("how", list(Cut))
def test_psycopg_notices_a_cut_connection(postgres: tuple[Proxy, str], how: Cut) -> None:
    proxy, dsn = postgres
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert proxy.counts().to_client > 100
        proxy.cut(how)
        with pytest.raises(psycopg.OperationalError, match="connection|EOF"):
            connection.execute("SELECT 1")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 2").fetchone() == (2,)


@pytest.mark.integration
def test_the_way_through_the_proxy_keeps_the_servers_name_and_hides_the_password(postgres: tuple[Proxy, str]) -> None:
    proxy, dsn = postgres
    about = conninfo_to_dict(dsn)
    assert (about["hostaddr"], int(str(about["port"]))) == (proxy.host, proxy.port)
    assert about["host"] == conninfo_to_dict(settings.postgres_dsn("app"))["host"]
    assert str(about["password"]) not in f"{dsn}{dsn!r}"
    given = proxy.postgres_dsn("host=/run/postgresql user=me password=secret")
    assert conninfo_to_dict(given)["host"] == proxy.host


@pytest.mark.integration
def test_psycopg_is_refused(postgres: tuple[Proxy, str]) -> None:
    proxy, dsn = postgres
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(dsn)
    proxy.heal()
    psycopg.connect(dsn).close()


@pytest.mark.integration
def test_a_stalled_answer_keeps_psycopg_waiting_although_the_server_has_given_up(postgres: tuple[Proxy, str]) -> None:
    proxy, dsn = postgres
    with psycopg.connect(dsn, autocommit=True) as connection, psycopg.connect(settings.postgres_dsn("app")) as direct:
        connection.execute("SET statement_timeout = '50ms'")
        direct.autocommit = True
        proxy.stall(Direction.TO_CLIENT)

        def idle() -> bool:
            query = "SELECT state, query FROM pg_stat_activity WHERE pid = %s"
            row = direct.execute(query, [connection.info.backend_pid]).fetchone()
            return row == ("idle", "SELECT pg_sleep(60)")

        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(connection.execute, "SELECT pg_sleep(60)")
            try:
                until(idle)
                assert not asked.done()
            finally:
                proxy.heal()
            with pytest.raises(psycopg.errors.QueryCanceled):
                asked.result(10)
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.integration
def test_copy_blocks_while_nobody_reads_and_is_complete_afterwards(postgres: tuple[Proxy, str]) -> None:
    proxy, dsn = postgres
    rows, line = 300, b"x" * 100_000 + b"\n"  # 30 MB: more than all buffers of TCP between the two

    begun, deaf = threading.Event(), threading.Event()

    def copy(connection: psycopg.Connection[Any]) -> None:
        with connection.cursor().copy("COPY filled FROM STDIN") as copying:
            begun.set()
            assert deaf.wait(10)
            for _ in range(rows):
                copying.write(line)

    with psycopg.connect(dsn) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("CREATE TEMPORARY TABLE filled (content text)")
        copied = pool.submit(copy, connection)
        assert begun.wait(10)
        proxy.go_deaf(Direction.TO_SERVER)
        before = proxy.counts().to_server
        deaf.set()
        try:
            # Blocked: for a while there was no room, although everything had time to move.
            until(lambda: not select.select([], [connection.fileno()], [], 0.25)[1])
            assert not copied.done()
            assert (proxy.counts().to_server, proxy.counts().held) == (before, 0)
        finally:
            proxy.heal()
        copied.result(30)
        row = connection.execute("SELECT count(*), sum(length(content)) FROM filled").fetchone()
    assert row == (rows, rows * 10**5)
    assert proxy.counts().to_server > rows * 10**5


@pytest.mark.integration
def test_mysql_over_tls_goes_through_unseen(stack: object) -> None:
    address = settings.mysql_address("app")
    arguments = address.arguments(database="")
    with Proxy((arguments["host"], arguments["port"])) as proxy:
        through = {**arguments, "host": proxy.host, "port": proxy.port, "ssl": {"check_hostname": False}}
        through["ssl_verify_cert"] = False
        with pymysql.connect(**through) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            assert cursor.fetchone()[1].startswith(("TLS", "ECDHE"))  # type: ignore[index]
            proxy.cut()
            with pytest.raises(pymysql.err.OperationalError):
                cursor.execute("SELECT 1")
