"""Five orders, a sink that is down once: what right and wrong handlers make of them, on the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from streamlab import settings
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.errors import LessonError
from streamlab.lab import deliveries, lesson
from streamlab.lab.deliveries import FlakySink, deliver
from streamlab.lab.exercises.postgres_cdc import acknowledge_then_write, only_write, write_then_acknowledge

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

Deliver = Callable[..., tuple[list[int], FlakySink]]


@pytest.fixture
def deliver_by(stack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deliver]:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "results.json"))
    monkeypatch.setenv("STREAMLAB_LIVE", "0")
    with lesson("01_postgres_cdc", needs=["postgres"], seed=3) as lab:
        shop = lab.shop()

        def reader(**options: Any) -> PostgreSQLCDC:
            return PostgreSQLCDC(
                settings.postgres_dsn("cdc"), lab.publication(), lab.slot(), setup_dsn=lab.dsn, **options
            )

        reader(tables=[f"{lab.schema}.orders", f"{lab.schema}.order_items"]).initialize()
        yield lambda handle, **options: deliver(shop, reader, handle, **options)
        reader().drop()


def test_written_and_then_acknowledged_nothing_is_lost_or_repeated(deliver_by: Deliver) -> None:
    for stop in (None, PostgreSQLCDC.stop):
        sold, sink = deliver_by(write_then_acknowledge, stop=stop)
        assert len(sold) == deliveries.ORDERS
        assert list(sink) == sold


def test_the_mistakes_of_lesson_01(deliver_by: Deliver) -> None:
    def forget_the_error(tx: Any, sink: Any, cdc: Any) -> None:
        with suppress(ConnectionError):
            sink.write(tx)
        cdc.acknowledge(tx)

    for mistake in (acknowledge_then_write, forget_the_error):
        sold, sink = deliver_by(mistake)
        assert list(sink) == [*sold[:3], sold[4]]

    def forget_to_await(tx: Any, sink: Any, cdc: Any) -> None:
        asyncio.to_thread(sink.write, tx)  # type: ignore[unused-coroutine]
        cdc.acknowledge(tx)

    sold, sink = deliver_by(forget_to_await)
    assert list(sink) == []
    assert [*{*sink.said}] == ["coroutine 'to_thread' was never awaited"]
    sold, sink = deliver_by(write_then_acknowledge, stop=PostgreSQLCDC.close)
    assert list(sink) == [*sold[:3], sold[2], *sold[3:]]


def test_what_never_comes_is_said(deliver_by: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_LIMIT", 0.5)

    def never(tx: Any, sink: Any, cdc: Any) -> None:
        only_write(tx, sink, cdc)
        raise ConnectionError("always")

    with pytest.raises(LessonError, match="did not come"):
        deliver_by(never)
