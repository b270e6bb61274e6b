"""Inspector and LSN timeline beside a real reader of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cdc.conftest import Shop, eventually

from streamlab import settings
from streamlab.cdc.recording import Recording
from streamlab.errors import LessonError
from streamlab.lab.inspector import Inspector
from streamlab.lab.lsn import LSNTimeline
from streamlab.stack.namespace import Namespace

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_LIVE", "0")


@pytest.fixture
def shop(stack: object) -> Iterator[Shop]:
    with Namespace("test_inspector") as namespace:
        shop = Shop(namespace)
        yield shop
        shop.close()


@pytest.mark.parametrize("options", [{}, {"binary": True, "protocol": 4}], ids=["text", "binary"])
def test_a_live_stream_is_inspected_while_it_is_read(shop: Shop, options: dict[str, object]) -> None:
    inspector = Inspector()
    with shop.session(tap=inspector, **options) as cdc:
        shop.insert(1, 2)
        assert len(cdc.tail(2)) == 2
        shop.app.execute("UPDATE orders SET total = 2.25, note = NULL WHERE id = 1")
        shop.app.execute("DELETE FROM orders WHERE id = 2")
        assert len(cdc.tail(2)) == 2
    assert [each.kind for each in inspector if each.table or each.kind == "Commit"] == [
        "Relation", "Insert", "Commit", "Insert", "Commit", "Update", "Commit", "Delete", "Commit",
    ]  # fmt: skip
    assert not [each.dissection.fault for each in inspector if each.dissection.fault]
    assert inspector.find("Insert", table="orders").says == "id=1, note='new', total=Decimal('1.5')"
    assert inspector.find("Update").dissection.values("new row")["note"] == "n"
    assert inspector.find("Delete").dissection.values("old key")["id"] == 2


@pytest.mark.parametrize("role", ["cdc", "reader", "admin"])
def test_the_timeline_follows_what_the_reader_does(
    shop: Shop, role: settings.Role, capsys: pytest.CaptureFixture[str]
) -> None:
    cdc = shop.reader()
    with LSNTimeline(cdc, dsn=settings.postgres_dsn(role)) as view:
        shop.insert(1, 2, 3)
        transactions = list(cdc.transactions(until=3))
        view.update()
        before = view.timeline
        assert before.between("acknowledged", "handed out") == before.between("confirmed_flush_lsn", "handed out")
        assert before.again is not None
        assert before.again[1] == transactions[-1].end_position
        assert "come again after a crash" in before.summary
        sent, received = before.between("handed out", "sent_lsn"), before.between("handed out", "received")
        assert received is not None
        assert received >= 0
        if role in {"reader", "admin"}:
            assert sent is not None
            assert sent >= 0
            assert "hidden" not in before.summary
            assert {point.name for _, points in before.ticks() for point in points} >= {
                "sent_lsn", "received", "acknowledged", "confirmed_flush_lsn", "restart_lsn",
            }  # fmt: skip
        else:
            assert sent is None
            assert "sent_lsn is hidden from this role" in before.summary
        cdc.acknowledge(transactions[-1])
        eventually(lambda: view.ask().between("confirmed_flush_lsn", "handed out") == 0 or not view.timeline.again)
        after = view.timeline
        assert (after.between("restart_lsn", "acknowledged") or 0) > (
            before.between("restart_lsn", "acknowledged") or 0
        )
        view.update(every=3600)
        assert view.timeline is after  # asked for too soon
        view.update(every=0)
        assert view.timeline is not after
        last = view.timeline
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out == last.to_text() + "\n"
    view.close()
    assert "acknowledged" in view.to_svg()
    with pytest.raises(LessonError, match="no longer changes"):
        view._view.update(last)  # type: ignore[union-attr]


def test_a_slot_that_nobody_reads_shows_what_it_keeps(shop: Shop) -> None:
    shop.reader().close()
    shop.insert(*range(50))
    with LSNTimeline(dsn=settings.postgres_dsn("reader"), slot_name=shop.slot) as view:
        made = view.ask()
    assert made.between("restart_lsn", "sent_lsn") is None
    kept = made.between("restart_lsn", "pg_current_wal_lsn")
    assert kept is not None
    assert kept > 1000
    assert made.summary.startswith("the server keeps ")
    with LSNTimeline(dsn=settings.postgres_dsn("reader"), slot_name="nobody_has_this") as view:
        assert view.ask().summary == "there is no such slot"


def test_following_is_bounded_and_shows_what_came_last(shop: Shop) -> None:
    cdc = shop.reader()
    cdc.add_handler(lambda event: None)
    with LSNTimeline(cdc) as view:
        cdc.start()
        shop.insert(1)
        view.follow(0.3, every=0.1)
        eventually(lambda: view.ask().between("restart_lsn", "handed out") is not None)
        cdc.stop()


def test_after_a_lost_connection_the_inspector_goes_on_beside_a_recording(shop: Shop, tmp_path: Path) -> None:
    inspector = Inspector()
    cdc = shop.reader(tap=inspector, record=tmp_path / "live.slrec")
    shop.insert(1)
    stream = cdc.transactions(until=2)
    next(stream)
    shop.kill_walsender()
    shop.insert(2)
    assert len(list(stream)) == 1
    cdc.close()
    recorded = Inspector(Recording.open(tmp_path / "live.slrec"))
    assert [each.dissection.message for each in recorded] == [each.dissection.message for each in inspector]
    assert not [each.dissection.fault for each in inspector if each.dissection.fault]
    assert inspector.find("Insert", after=inspector.find("Insert").number).says.startswith("id=2")
