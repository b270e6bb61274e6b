"""Each transaction is committed once, whatever happens to its connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from workload.cut import Cut, Proxy

from streamlab.errors import StreamlabError
from streamlab.workload import Shop
from streamlab.workload.writer import Writer

pytestmark = pytest.mark.integration

Make = Callable[..., Shop]


@pytest.mark.parametrize("cut", Cut)
def test_a_commit_whose_answer_is_lost_counts_once(shops: Make, place: Any, way: Proxy, cut: Cut) -> None:
    """Transactions that end with an insert, an update and a delete: each leaves another kind of trace."""
    shop = shops(place.through(way))
    shop.run(12, mix={"place_order": 3, "cancel_order": 2})
    for number, mix in enumerate(({"place_order": 1}, {"reprice_product": 1}, {"purge_order": 1}), 1):
        before = len(shop.ledger)
        way.arm(cut)
        last = shop.step(mix)
        assert way.cuts == number
        assert list(shop.ledger.transactions[before:]) == [last]
        assert [action.value for action in last.actions] == list(mix)
    assert shop.compare() == ()


@pytest.mark.parametrize("cut", Cut)
def test_an_open_order_whose_commit_is_lost_counts_once(shops: Make, place: Any, way: Proxy, cut: Cut) -> None:
    shop = shops(place.through(way))
    opened = shop.begin_order()
    way.arm(cut)
    opened.commit()
    assert way.cuts == 1
    shop.run(20)
    assert shop.compare() == ()


def test_a_session_that_is_killed_between_transactions_is_replaced(shops: Make, place: Any) -> None:
    shop = shops()
    shop.run(10)
    place.kill(shop._writer.session())
    shop.run(10)
    assert len(shop.ledger) == 21
    assert shop.compare() == ()


def test_a_session_that_is_killed_in_mid_transaction_loses_nothing(shops: Make, place: Any) -> None:
    shop = shops()
    opened = shop.begin_order()
    place.kill(opened._writer.session())
    assert opened.commit().id == 1
    assert place.ask("SELECT count(*) FROM orders") == [(1,)]
    assert shop.compare() == ()


def test_a_killed_order_can_be_rolled_back(shops: Make, place: Any) -> None:
    shop = shops()
    opened = shop.begin_order()
    place.kill(opened._writer.session())
    opened.rollback()
    assert shop.compare() == ()
    assert place.ask("SELECT count(*) FROM orders") == [(0,)]


def test_sessions_are_killed_while_it_runs(shops: Make, place: Any) -> None:
    """The lock is not held while killing, so a kill meets any moment of a transaction."""
    shop = shops()
    deadline = time.monotonic() + 60
    with shop.running(size=30) as running:
        for _ in range(4):
            reached = running.throughput().transactions + 2
            while running.alive and running.throughput().transactions < reached and time.monotonic() < deadline:
                time.sleep(0.002)
            if (session := shop._writer._session) is not None:
                place.kill(session)
    assert running.throughput().transactions >= 8
    assert shop.compare() == ()


@pytest.mark.parametrize("committed", [True, False])
def test_an_interrupted_commit_is_settled_by_the_next_call(
    shops: Make, place: Any, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Ctrl-C at the worst moment: just before, or just after the server has committed."""
    shop = shops()
    session = shop._writer.session()
    commit = session.commit

    def interrupted() -> None:
        if committed:
            commit()
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shop.order()
    assert len(shop.ledger) == 1
    assert shop._writer.in_doubt
    assert shop.compare() == ()
    assert len(shop.ledger) == 2
    assert place.ask("SELECT count(*) FROM orders") == [(1,)]


def test_what_may_be_committed_is_not_rolled_back(shops: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = shops().begin_order()
    session = opened._writer.session()

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened.commit()
    with pytest.raises(StreamlabError, match="not known whether"):
        opened.rollback()
    assert opened.commit().id == 1


def test_a_writer_without_a_plan_has_nothing_to_commit(place: Any) -> None:
    with pytest.raises(StreamlabError, match="no transaction"):
        Writer(place.target, print).commit()
