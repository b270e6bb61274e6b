"""Types and keys that are made or changed while a stream is read: what the catalog says of them is asked in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import sql

from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.errors import StreamLost
from streamlab.retry import RetryPolicy

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration

_QUICK = RetryPolicy(attempts=3, seconds=2.0, base=0.05, cap=0.1)


def whole_schema(shop: Shop, **options: Any) -> PostgreSQLCDC:
    """A reader of all tables of the shop's schema, those too that are still to be made."""
    shop.admin.execute(
        sql.SQL("CREATE PUBLICATION {} FOR TABLES IN SCHEMA {}").format(
            sql.Identifier(shop.publication), sql.Identifier(shop.schema)
        )
    )
    return shop.reader(tables=[], **options)


@contextmanager
def nobody_answers(shop: Shop) -> Iterator[None]:
    """The reader's role gets no new connection; the stream that it has goes on."""
    shop.admin.execute("ALTER ROLE streamlab_cdc CONNECTION LIMIT 0")
    try:
        yield
    finally:
        shop.admin.execute("ALTER ROLE streamlab_cdc CONNECTION LIMIT -1")


def rows(transactions: Any) -> list[dict[str, Any]]:
    return [dict(event.new_data) for transaction in transactions for event in transaction]


# -- nobody can be asked ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["events", "frames"])
def test_a_type_that_could_not_be_asked_for_is_asked_for_again(
    shop: Shop, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """One failed question must not make a type text for the life of the reader."""
    cdc = whole_schema(shop)
    stream: Iterator[Any] = cdc.frames(max_wait=0.05, idle=20) if form == "frames" else cdc.transactions(idle=20)
    shop.insert(1)
    next(stream)
    shop.app.execute("CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, c pair)")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(next(stream)))
    with caplog.at_level(logging.WARNING), nobody_answers(shop):
        shop.app.execute("INSERT INTO t VALUES (1, '(1,x)')")
        thread.start()
        eventually(lambda: "Connecting again" in caplog.text)
        assert not found
    thread.join(20)
    shop.app.execute("INSERT INTO t VALUES (2, '(2,y)')")
    found.append(next(stream))
    if form == "events":
        assert rows(found) == [{"id": 1, "c": (1, "x")}, {"id": 2, "c": (2, "y")}]
        assert found[0].changes[0].new_data["c"].b == "x"
    else:
        frames = [frame for batch in found for frame in batch]
        values = [row["c"] for frame in frames for row in frame.data.rows(named=True)]
        assert values == ["(1,x)", "(2,y)"]  # a frame has no column for composite values


def test_a_type_that_cannot_be_asked_for_ends_the_stream_within_its_bounds(shop: Shop) -> None:
    cdc = whole_schema(shop, reconnect=_QUICK)
    stream = cdc.transactions(idle=20)
    shop.insert(1)
    next(stream)
    shop.app.execute("CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, c pair)")
    with nobody_answers(shop):
        shop.app.execute("INSERT INTO t VALUES (1, '(1,x)')")
        with pytest.raises(StreamLost, match="too many connections"):
            next(stream)
    assert rows(cdc.transactions(idle=1))[-1] == {"id": 1, "c": (1, "x")}


def test_questions_that_always_fail_do_not_keep_a_stream_from_being_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream's own beginning asks for what could not be asked for beside it."""
    cdc = whole_schema(shop)
    shop.app.execute("CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, c pair)")
    shop.app.execute("INSERT INTO t VALUES (1, '(1,x)')")

    def refuse() -> Any:
        raise StreamLost("No connection beside the stream can be made.", "It is this test's.")

    monkeypatch.setattr(cdc._catalog, "_connect", refuse)
    assert rows(cdc.transactions(until=1)) == [{"id": 1, "c": (1, "x")}]


def test_a_type_that_is_gone_is_text(shop: Shop) -> None:
    """To be told from one that nobody could be asked for."""
    cdc = whole_schema(shop)
    shop.app.execute("CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, c pair)")
    shop.app.execute("INSERT INTO t VALUES (1, '(1,x)')")
    shop.app.execute("DROP TABLE t; DROP TYPE pair")
    assert rows(cdc.transactions(until=1)) == [{"id": 1, "c": "(1,x)"}]
