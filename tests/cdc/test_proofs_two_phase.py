"""Two-phase commit, end to end: what was prepared comes at its COMMIT PREPARED, whatever is restarted in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc import LSN, PostgreSQLCDC, Transaction
from streamlab.errors import SettingsError

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration


class Prepared:
    """Prepared transactions of one test, which would outlive it and hold its tables."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.app = psycopg.connect(
            settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={shop.schema}"
        )

    def gid(self, name: str) -> str:
        return f"{self.shop.schema} {name}"

    def prepare(self, name: str, first: int, last: int) -> None:
        self.app.execute("BEGIN")
        self.app.execute(
            "INSERT INTO orders SELECT i, repeat('p', 200) FROM generate_series(%s::int, %s) i", [first, last]
        )
        self._second("PREPARE TRANSACTION {}", name)

    def commit(self, name: str) -> None:
        self._second("COMMIT PREPARED {}", name)

    def rollback(self, name: str) -> None:
        self._second("ROLLBACK PREPARED {}", name)

    def _second(self, statement: Any, name: str) -> None:
        self.app.execute(sql.SQL(statement).format(sql.Literal(self.gid(name))))

    def close(self) -> None:
        for (gid,) in self.app.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, %s)", [self.shop.schema]
        ).fetchall():
            self.app.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        self.app.close()


@pytest.fixture
def prepared(shop: Shop) -> Iterator[Prepared]:
    it = Prepared(shop)
    yield it
    it.close()


def reader(shop: Shop, protocol: int, **options: Any) -> PostgreSQLCDC:
    # So little that the larger transactions are sent while they are in progress.
    dsn = psycopg.conninfo.make_conninfo(
        str.__str__(settings.postgres_dsn("cdc")), options="-c logical_decoding_work_mem=64kB"
    )
    return shop.reader(dsn=dsn, two_phase=True, protocol=protocol, **options)


def ids(transaction: Transaction) -> list[int]:
    return [event.new_data["id"] for event in transaction]


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_protocol_that_has_no_two_phase_commit_is_refused(shop: Shop, protocol: int) -> None:
    with pytest.raises(SettingsError, match=f"Protocol {protocol} has no two-phase commit"):
        reader(shop, protocol)
    assert shop.confirmed() is None
    reader(shop, 3)
    later = shop.reader(initialize=False, protocol=protocol)
    for use in (later.initialize, lambda: next(later.transactions(idle=5))):
        with pytest.raises(SettingsError, match="Read it with protocol=3 or 4"):
            use()
    with pytest.raises(SettingsError, match="no two-phase commit"), shop.session(protocol=protocol, two_phase=True):
        pass


PROTOCOLS = pytest.mark.parametrize("protocol", [3, 4])
SIZES = pytest.mark.parametrize(("protocol", "size"), [(3, 3), (3, 3000), (4, 3000)])


@SIZES
def test_what_is_prepared_comes_when_it_is_committed(shop: Shop, prepared: Prepared, protocol: int, size: int) -> None:
    cdc = reader(shop, protocol)
    prepared.prepare("a", 1, size)
    prepared.prepare("b", 10_001, 10_000 + size)
    shop.insert(0)
    transactions = cdc.transactions(idle=5)
    assert ids(next(transactions)) == [0]
    prepared.rollback("a")
    prepared.commit("b")
    second = next(transactions)
    assert (second.gid, ids(second)) == (prepared.gid("b"), list(range(10_001, 10_001 + size)))
    assert {event.position for event in second} == {second.position}
    cdc.acknowledge(second)
    eventually(lambda: shop.confirmed() == str(second.end_position))


@SIZES
def test_restarts_between_the_phases_lose_nothing(shop: Shop, prepared: Prepared, protocol: int, size: int) -> None:
    """The slot is held before the PREPARE, so what came after it may come again, keyed alike."""
    cdc = reader(shop, protocol)
    prepared.prepare("a", 1, size)
    prepared.prepare("b", 10_001, 10_000 + size)
    shop.insert(20_001, 20_002)
    keys = []
    for transaction in cdc.transactions(until=2):
        cdc.acknowledge(transaction)
        keys.append(transaction.position)
    cdc.close()
    assert LSN.parse(shop.confirmed()) < keys[0]

    prepared.rollback("a")
    again = reader(shop, protocol)
    shop.insert(20_003)
    found = {each.position: ids(each) for each in again.transactions(until=again.written())}
    assert list(found.values())[-1] == [20_003]
    assert set(keys) <= set(found)
    again.close()

    prepared.commit("b")
    last = reader(shop, protocol)
    *_, transaction = last.transactions(until=last.written())
    assert (transaction.gid, ids(transaction)) == (prepared.gid("b"), list(range(10_001, 10_001 + size)))


@PROTOCOLS
def test_with_the_position_in_the_sink_nothing_is_lost_or_repeated(
    shop: Shop, prepared: Prepared, protocol: int
) -> None:
    cdc = reader(shop, protocol)
    prepared.prepare("a", 1, 3)
    shop.insert(20_001, 20_002)
    kept: Any = None
    for transaction in cdc.transactions(until=2):
        kept = transaction.end_position
        cdc.acknowledge(transaction)
    cdc.close()
    for number in range(20_003, 20_006):  # restarts, each further behind the PREPARE
        cdc = reader(shop, protocol, resume_after=kept)
        shop.insert(number)
        (transaction,) = cdc.transactions(until=1)
        assert ids(transaction) == [number]
        kept = transaction.end_position
        cdc.acknowledge(transaction)
        cdc.close()
    prepared.commit("a")
    cdc = reader(shop, protocol, resume_after=kept)
    (transaction,) = cdc.transactions(until=cdc.written())
    assert (transaction.gid, ids(transaction)) == (prepared.gid("a"), [1, 2, 3])
    cdc.acknowledge(transaction)
    cdc.close()
    # Beyond it, where the server wrote something of its own meanwhile.
    assert LSN.parse(shop.confirmed()) >= transaction.end_position


@PROTOCOLS
def test_a_cut_connection_between_the_phases_loses_nothing(shop: Shop, prepared: Prepared, protocol: int) -> None:
    cdc = reader(shop, protocol)
    prepared.prepare("a", 1, 3)
    shop.insert(20_001)
    transactions = cdc.transactions(idle=3)
    first = next(transactions)
    cdc.acknowledge(first)
    for number in (20_002, 20_003):
        shop.kill_walsender()
        shop.insert(number)
        transaction = next(transactions)
        assert ids(transaction) == [number]
        cdc.acknowledge(transaction)
    cdc.close()
    assert LSN.parse(shop.confirmed()) < first.position
    prepared.commit("a")
    last = reader(shop, protocol)
    *_, transaction = last.transactions(until=last.written())
    assert ids(transaction) == [1, 2, 3]


def test_a_slot_without_two_phases_sends_what_was_prepared_at_its_commit(shop: Shop, prepared: Prepared) -> None:
    cdc = shop.reader(protocol=4)
    prepared.prepare("a", 1, 3)
    shop.insert(0)
    transactions = cdc.transactions(idle=5)
    transaction = next(transactions)
    assert ids(transaction) == [0]
    cdc.acknowledge(transaction)
    prepared.commit("a")
    assert ids(next(transactions)) == [1, 2, 3]
