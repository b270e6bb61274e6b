"""The stream through TLS with ``sslmode=verify-full``, and through a Unix socket: the same bytes, one code path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from streamlab import settings
from streamlab.cdc import LSN, Operation
from streamlab.errors import ChangeStreamError

from .conftest import Shop, eventually
from .tls import Authority, TLSFront

pytestmark = pytest.mark.integration


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "known")


@pytest.fixture
def front(stack: object, authority: Authority) -> Iterator[TLSFront]:
    about = conninfo_to_dict(settings.postgres_dsn("cdc"))
    with TLSFront((str(about["host"]), int(str(about["port"]))), authority.context("localhost")) as front:
        yield front


def through(front: TLSFront, authority: Authority, *, host: str = "localhost", **more: Any) -> str:
    dsn = str.__str__(settings.postgres_dsn("cdc"))
    with psycopg.connect(dsn) as connection:  # the password file names the server's own port
        password = connection.info.password
    return make_conninfo(
        dsn, host=host, hostaddr="127.0.0.1", port=front.port, password=password, passfile="",
        sslmode="verify-full", sslrootcert=str(authority.certificate), gssencmode="disable", **more,
    )  # fmt: skip


def test_stream_and_snapshot_come_through_verified_tls(shop: Shop, front: TLSFront, authority: Authority) -> None:
    shop.app.execute("INSERT INTO orders SELECT i, repeat('x', mod(i, 500)) FROM generate_series(1, 3000) i")
    with shop.session(dsn=through(front, authority), snapshot="initial") as cdc:
        # Large and small records, so that their ends fall anywhere in TLS's.
        for size in range(1, 40):
            shop.app.execute(
                "INSERT INTO orders SELECT i, repeat('y', %s) FROM generate_series(%s::int, %s) i",
                [size * size * 10, size * 10_000, size * 10_000 + size],
            )
        events = [event for each in cdc.transactions(until=cdc.written()) for event in each]
        assert cdc._stream is not None
        assert cdc._stream._pgconn.ssl_in_use
    assert [each.operation for each in events[:3000]] == [Operation.SNAPSHOT] * 3000
    rows = dict(shop.app.execute("SELECT id, note FROM orders").fetchall())
    assert {each.new_data["id"]: each.new_data["note"] for each in events} == rows
    assert front.connections > 1


def test_a_lone_change_comes_soon_and_acknowledgements_arrive(
    shop: Shop, front: TLSFront, authority: Authority
) -> None:
    cdc = shop.reader(dsn=through(front, authority))
    transactions = cdc.transactions(idle=10)
    for number in range(5):
        shop.insert(number)
        transaction = next(transactions)
        assert [event.new_data["id"] for event in transaction] == [number]
        cdc.acknowledge(transaction)
    eventually(lambda: shop.confirmed() == str(transaction.end_position))


def test_a_certificate_for_another_host_is_refused(shop: Shop, front: TLSFront, authority: Authority) -> None:
    cdc = shop.reader(initialize=False, dsn=through(front, authority, host="elsewhere.example"))
    with pytest.raises(ChangeStreamError, match="does not match host name") as caught:
        cdc.initialize()
    assert "sslrootcert" in caught.value.fix
    with pytest.raises(ChangeStreamError, match="does not match host name"):
        next(cdc.transactions())


def test_an_authority_that_is_not_known_is_refused(
    shop: Shop, front: TLSFront, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    cdc = shop.reader(initialize=False, dsn=through(front, stranger))
    with pytest.raises(ChangeStreamError, match="certificate verify failed") as caught:
        next(cdc.transactions())
    assert "sslrootcert" in caught.value.fix


def test_a_unix_socket_brings_the_same(shop: Shop) -> None:
    directory = settings.stack_state()["services"]["postgres"]["address"]["socket"]
    dsn = make_conninfo(str.__str__(settings.postgres_dsn("cdc")), host=directory)
    cdc = shop.reader(dsn=dsn)
    shop.insert(1, 2)
    first, second = cdc.transactions(until=2)
    assert [event.new_data["id"] for each in (first, second) for event in each] == [1, 2]
    address = "SELECT client_addr FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid "
    assert shop.value(address + "WHERE slot_name = %s", shop.slot) is None
    cdc.acknowledge(second)
    eventually(lambda: LSN.parse(shop.confirmed()) >= second.end_position)  # what others write moves it on
