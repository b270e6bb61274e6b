"""Types and keys that are made or changed while a stream is read: what the catalog says of them is asked in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from streamlab import settings
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


def sent(shop: Shop) -> None:
    """Wait until the reader has been sent everything that is committed by now."""
    here = shop.value("SELECT pg_current_wal_insert_lsn()::text")
    query = "SELECT sent_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE pid = %s"
    eventually(lambda: shop.value(query, here, shop.walsender()))


def rows(transactions: Any) -> list[dict[str, Any]]:
    return [dict(event.new_data) for transaction in transactions for event in transaction]


# -- nobody can be asked ------------------------------------------------------------------------------


def asked_again(shop: Shop, caplog: pytest.LogCaptureFixture, stream: Iterator[Any], change: str) -> list[Any]:
    """What a stream gives for a change that comes while the reader cannot ask, once it can: nothing before."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(next(stream)))
    with caplog.at_level(logging.WARNING), nobody_answers(shop):
        shop.app.execute(change)  # type: ignore[arg-type]
        thread.start()
        eventually(lambda: "Connecting again" in caplog.text)
        assert not found
    thread.join(20)
    return found


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
    found = asked_again(shop, caplog, stream, "INSERT INTO t VALUES (1, '(1,x)')")
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
    assert rows(cdc.transactions(until=cdc.written()))[-1] == {"id": 1, "c": (1, "x")}


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


# -- types that are altered ---------------------------------------------------------------------------


def pairs(shop: Shop) -> None:
    shop.app.execute("CREATE TYPE pair AS (a int, b int); CREATE DOMAIN certain AS pair")
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY, c pair, many pair[], sure certain)")
    shop.app.execute("CREATE TABLE u (id int PRIMARY KEY, c pair)")


def named(value: Any) -> Any:
    return [named(each) for each in value] if isinstance(value, list) else getattr(value, "_asdict", lambda: value)()


def values(transactions: Any) -> list[dict[str, Any]]:
    """Rows, with the names of the fields of composite values."""
    return [{name: named(value) for name, value in row.items()} for row in rows(transactions)]


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"binary": True}, {"lazy": True}], ids=str)
def test_an_altered_type_is_asked_for_when_its_table_is_described_anew(shop: Shop, options: dict[str, Any]) -> None:
    """Fields of the old definition would give values under wrong names."""
    cdc = whole_schema(shop, **options)
    pairs(shop)
    stream = cdc.transactions(idle=10)
    shop.app.execute("INSERT INTO t VALUES (1, '(1,2)', '{\"(3,4)\"}', '(5,6)'); INSERT INTO u VALUES (1, '(1,2)')")
    assert values([next(stream)]) == [
        {"id": 1, "c": {"a": 1, "b": 2}, "many": [{"a": 3, "b": 4}], "sure": {"a": 5, "b": 6}},
        {"id": 1, "c": {"a": 1, "b": 2}},
    ]
    shop.app.execute("ALTER TYPE pair DROP ATTRIBUTE a, ADD ATTRIBUTE c int; ALTER TABLE t ADD q int")
    shop.app.execute("INSERT INTO t VALUES (2, '(7,8)', '{\"(9,10)\"}', '(11,12)', 0)")
    # The other table is not described anew, but the type is known anew.
    shop.app.execute("INSERT INTO u VALUES (2, '(7,8)')")
    assert values([next(stream), next(stream)]) == [
        {"id": 2, "c": {"b": 7, "c": 8}, "many": [{"b": 9, "c": 10}], "sure": {"b": 11, "c": 12}, "q": 0},
        {"id": 2, "c": {"b": 7, "c": 8}},
    ]


def test_an_altered_type_is_asked_for_by_the_next_connection(shop: Shop) -> None:
    """Also where the log gives no sign."""
    cdc = whole_schema(shop)
    pairs(shop)
    shop.app.execute("INSERT INTO u VALUES (1, '(1,2)')")
    for transaction in cdc.transactions(until=1):
        cdc.acknowledge(transaction)
    shop.app.execute("ALTER TYPE pair ADD ATTRIBUTE x text")
    shop.kill_walsender()
    shop.app.execute("INSERT INTO u VALUES (2, '(1,2,x)')")
    stream = cdc.transactions(idle=10)
    assert values([next(stream)]) == [{"id": 2, "c": {"a": 1, "b": 2, "x": "x"}}]
    shop.app.execute("ALTER TYPE pair RENAME ATTRIBUTE x TO y")
    cdc.close()
    assert values(cdc.transactions(until=1)) == [{"id": 2, "c": {"a": 1, "b": 2, "y": "x"}}]


def test_frames_of_an_altered_type_follow_it(shop: Shop) -> None:
    """In binary form a frame writes composite values from their parts, which it has to know."""
    cdc = whole_schema(shop, binary=True)
    pairs(shop)
    stream = cdc.frames(max_wait=0.05, idle=10)
    shop.app.execute("INSERT INTO t VALUES (1, '(1,2)'); INSERT INTO u VALUES (1, '(1,2)')")
    found = [next(stream)]
    shop.app.execute("ALTER TYPE pair DROP ATTRIBUTE a, ADD ATTRIBUTE c date; ALTER TABLE t ADD q int")
    shop.app.execute("INSERT INTO t VALUES (2, '(7,2026-01-02)'); INSERT INTO u VALUES (2, '(7,2026-01-02)')")
    found.append(next(stream))
    written = [row["c"] for batch in found for frame in batch for row in frame.data.rows(named=True)]
    assert written == ['("1","2")'] * 2 + ['("7","2026-01-02")'] * 2


def test_tables_of_built_in_types_ask_nothing_and_others_once_for_each_description(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdc = whole_schema(shop)
    pairs(shop)
    shop.app.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE m (id int PRIMARY KEY, c mood)")
    asked: list[str] = []
    connect = cdc._catalog._connect
    monkeypatch.setattr(cdc._catalog, "_connect", lambda: (asked.append("types"), connect())[1])
    stream = cdc.transactions(idle=10)
    counts = []
    for number, table in enumerate(["orders", "orders", "u", "u", "m", "m"]):
        shop.app.execute(
            sql.SQL("ALTER TABLE {} ADD {} int").format(sql.Identifier(table), sql.Identifier(f"q{number}"))
        )
        shop.app.execute(sql.SQL("INSERT INTO {} (id) VALUES ({})").format(sql.Identifier(table), number))
        next(stream)
        counts.append(len(asked))
        asked.clear()
    assert counts == [0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("altered", [False, True])
def test_a_type_of_a_transaction_in_progress_is_known_at_its_end(shop: Shop, altered: bool) -> None:
    """While it goes on, nobody else sees what it makes of a type."""
    dsn = make_conninfo(str.__str__(settings.postgres_dsn("cdc")), options="-c logical_decoding_work_mem=64kB")
    cdc = whole_schema(shop, protocol=2, dsn=dsn)
    if altered:
        pairs(shop)
        shop.app.execute("INSERT INTO u VALUES (1, '(1,2)')")
        cdc.acknowledge(next(cdc.transactions(idle=10)))
    with shop.app.transaction():
        if altered:
            shop.app.execute("ALTER TYPE pair ADD ATTRIBUTE x text")
        else:
            shop.app.execute("CREATE TYPE pair AS (a int, b int, x text)")
        shop.app.execute("CREATE TABLE v (id int PRIMARY KEY, c pair)")
        shop.app.execute("INSERT INTO v SELECT i, ROW(i, i, 'x')::pair FROM generate_series(1, 5000) i")
        # The server describes the table before the transaction ends.
        eventually(lambda: next(cdc.transactions(idle=0.1), None) is None and cdc._events._decoder.in_transaction)
    found = values(cdc.transactions(until=cdc.written()))[-5000:]
    assert found[-1] == {"id": 5000, "c": {"a": 5000, "b": 5000, "x": "x"}}
    assert {tuple(each["c"]) for each in found} == {("a", "b", "x")}


# -- keys that change ---------------------------------------------------------------------------------


def keys(transactions: Any) -> list[tuple[str, ...]]:
    return [event.primary_key for transaction in transactions for event in transaction]


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"lazy": True}], ids=str)
@pytest.mark.parametrize("identity", ["FULL", "NOTHING"])
def test_a_key_that_the_stream_does_not_tell_is_asked_for_when_its_table_is_described(
    shop: Shop, identity: str, options: dict[str, Any]
) -> None:
    cdc = whole_schema(shop, **options)
    stream = cdc.transactions(idle=10)
    shop.insert(1)
    next(stream)
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text)")
    shop.app.execute(sql.SQL("ALTER TABLE t REPLICA IDENTITY {}").format(sql.SQL(identity)))
    found = []
    for number, change in enumerate(
        [
            "ALTER TABLE t ADD q int",
            "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (k)",
            "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (v, id)",
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
        ]
    ):
        shop.app.execute(change)
        shop.app.execute("INSERT INTO t VALUES (%s, %s, 'x')", [number, 10 + number])
        found += keys([next(stream)])
    none = ("id", "k", "v", "q") if identity == "FULL" else ()
    assert found == [("id",), ("k",), ("v", "id"), none]


def test_frames_have_the_key_of_their_rows(shop: Shop) -> None:
    """Also where one batch holds rows from before and behind its change."""
    cdc = whole_schema(shop)
    stream = cdc.frames(max_wait=1, idle=10)
    shop.insert(1)
    next(stream)
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL")
    shop.app.execute("INSERT INTO t VALUES (1, 10)")
    frames = list(next(stream))
    shop.app.execute("INSERT INTO t VALUES (2, 20)")
    # The server describes the table again for a row that it has not sent when the change comes.
    sent(shop)
    shop.app.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (k)")
    shop.app.execute("INSERT INTO t VALUES (3, 30)")
    while len(frames) < 3:
        frames += next(stream)
    assert [(each.primary_key, each.data["id"].to_list()) for each in frames] == [
        (("id",), [1]),
        (("id",), [2]),
        (("k",), [3]),
    ]


def test_a_key_that_could_not_be_asked_for_is_asked_for_again(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    cdc = whole_schema(shop)
    stream = cdc.transactions(idle=20)
    shop.insert(1)
    next(stream)
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY, k int); ALTER TABLE t REPLICA IDENTITY FULL")
    assert keys(asked_again(shop, caplog, stream, "INSERT INTO t VALUES (1, 10)")) == [("id",)]


def test_a_key_of_which_a_column_was_not_there_yet_is_none(shop: Shop) -> None:
    """What is read behind the change of a key was written before it."""
    cdc = whole_schema(shop)
    shop.app.execute("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY FULL")
    shop.app.execute("INSERT INTO t VALUES (1)")
    shop.app.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD k serial PRIMARY KEY")
    shop.app.execute("INSERT INTO t VALUES (2)")
    assert keys(cdc.transactions(until=2)) == [("id",), ("k",)]
