"""What a user does wrong, or somebody else to the slot, is said in a sentence, and loses nothing in silence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc import LSN, MySQLCDC, PostgreSQLCDC
from streamlab.errors import (
    ChangeStreamError,
    PublicationUnusable,
    SettingsError,
    SlotLost,
    SlotMissing,
    SlotUnusable,
)
from streamlab.lab import Inspector
from streamlab.lab.explore import Explorer

from .conftest import Shop, eventually


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dsn": None}, "dsn is a NoneType"),
        ({"slot_name": "Bad-Slot"}, "cannot be the name of a replication slot"),
        ({"slot_name": ""}, "cannot be the name of a replication slot"),
        ({"slot_name": "x" * 64}, "cannot be the name of a replication slot"),
        ({"tables": "orders"}, "tables is the string"),
        ({"tables": [5]}, "no list of names"),
        ({"tables": 5}, "no list of names"),
        ({"tables": ["a\0b"]}, "with a NUL character"),
        ({"messages": ["a\0b"]}, "with a NUL character"),
        ({"publication": ""}, "cannot be the name of a publication"),
        ({"publication": "a\0b"}, "cannot be the name of a publication"),
        ({"publication": 5}, "5 cannot be the name of a publication"),
        ({"setup_dsn": 5}, "setup_dsn is a int"),
        ({"resume_after": "0/10"}, "resume_after is a str"),
        ({"resume_after": -1}, "resume_after=-1 is no such number"),
        ({"resume_after": LSN(-1)}, "resume_after=-1 is no such number"),
        ({"resume_after": 1 << 64}, "resume_after=18446744073709551616 is no such number"),
        ({"resume_after": True}, "resume_after=True is no such number"),
        ({"protocol": True}, "protocol=True is no such number"),
        ({"protocol": 5}, "protocol=5 is no such number"),
        ({"binary": "no"}, "binary='no' is neither yes nor no"),
        ({"lazy": "x"}, "lazy='x' is neither yes nor no"),
        ({"two_phase": 1}, "two_phase=1 is neither yes nor no"),
        ({"silence": 0}, "silence=0 is no time"),
        ({"silence": True}, "silence=True is no time"),
        ({"spill": "x"}, "spill is a str"),
        ({"spill": Path("/proc/nope")}, "'/proc/nope' cannot hold transactions.*: No such file or directory"),
        ({"spill": Path("a\0b")}, "cannot hold transactions.*null byte"),
        ({"spill": Path(__file__)}, "cannot hold transactions.*: File exists"),
        ({"record": 3}, "record is a int"),
        ({"tap": 5}, "tap is a int"),
        ({"tap": Inspector}, "tap is a type"),
        ({"group": 5}, "5 cannot be the name of a group"),
        ({"retry": 3}, "retry is a int"),
        ({"dead_letters": 3}, "dead_letters is a int"),
        ({"reconnect": 3}, "reconnect is a int"),
        ({"reconnect": None}, "reconnect is a NoneType"),
    ],
)
def test_what_is_no_such_argument_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PostgreSQLCDC(**{"dsn": "host=nowhere", "publication": "p", "slot_name": "s", **arguments})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"address": {"password": "secret"}}, "address is a dict"),
        ({"tables": "shop.orders"}, "tables is the string"),
        ({"heartbeat": 0}, "heartbeat=0 is no time"),
        ({"resume_after": 5}, "resume_after is a int"),
        ({"checkpoint": 5}, "checkpoint is a int"),
        ({"spill": "x"}, "spill is a str"),
        ({"server_id": "7"}, "7 is no server_id"),
        ({"spill": Path("/proc/nope")}, "cannot hold transactions"),
        ({"retry": 3}, "retry is a int"),
        ({"dead_letters": 3}, "dead_letters is a int"),
        ({"reconnect": 3}, "reconnect is a int"),
        ({"reconnect": None}, "reconnect is a NoneType"),
    ],
)
def test_what_is_no_such_argument_of_mysql_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        MySQLCDC(**{"address": "mysql://nobody@nowhere:1/shop", **arguments})
    assert "secret" not in str(caught.value)


def postgres() -> PostgreSQLCDC:
    return PostgreSQLCDC("host=nowhere", "p", "s")


def mysql() -> MySQLCDC:
    return MySQLCDC("mysql://nobody@nowhere:1/shop")


EVERY: list[tuple[str, dict[str, Any], str]] = [
    ("transactions", {"until": -1}, "until=-1"),
    ("transactions", {"until": True}, "until=True"),
    ("transactions", {"idle": -1}, "idle=-1 is no time"),
    ("transactions", {"idle": math.nan}, "idle=nan is no time"),
    ("transactions", {"idle": "1"}, "idle='1' is no time"),
    ("batches", {"until": -1}, "until=-1"),
    ("batches", {"max_rows": -5}, "max_rows=-5"),
    ("batches", {"max_rows": 1.5}, "max_rows=1.5"),
    ("batches", {"max_wait": "a"}, "max_wait='a' is no time"),
    ("batches", {"idle": -1}, "idle=-1 is no time"),
    ("tail", {"n": -1}, "n=-1"),
    ("tail", {"limit": None}, "limit=None is no time"),
    ("stop", {"limit": "a"}, "limit='a' is no time"),
]
OF_POSTGRES: list[tuple[str, dict[str, Any], str]] = [
    ("frames", {"until": -1}, "until=-1"),
    ("frames", {"max_rows": 0}, "max_rows=0"),
    ("frames", {"max_wait": "a"}, "max_wait='a' is no time"),
    ("frames", {"backlog": -1}, "backlog=-1"),
    ("frames", {"idle": -1}, "idle=-1 is no time"),
    ("catch_up", {"rows": 0}, "rows=0"),
    ("flush", {"timeout": -1}, "timeout=-1 is no time"),
]


@pytest.mark.parametrize(
    ("reader", "method", "arguments", "said"),
    [(postgres, *each) for each in EVERY + OF_POSTGRES] + [(mysql, *each) for each in EVERY],
)
def test_what_is_no_such_argument_of_an_iteration_is_said_at_once(
    reader: Callable[[], Any], method: str, arguments: dict[str, Any], said: str
) -> None:
    with reader() as cdc, pytest.raises(SettingsError, match=said):
        getattr(cdc, method)(**arguments)


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("a\0b", {}, "cannot be the name of a table"),
        (5, {}, "5 cannot be the name of a table"),
        ("orders", {"resume": 3}, "resume is a int"),
    ],
)
def test_what_is_no_such_argument_of_a_snapshot_is_said_at_once(table: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        postgres().snapshot_chunks(table, **options)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["a.b.c.d", "other_database.public.orders"])
def test_what_is_no_name_of_a_table_is_said(shop: Shop, name: str) -> None:
    for make in (shop.reader, shop.session):
        with pytest.raises(SettingsError, match="is no name of a table"), make(tables=[shop.orders, name]):
            pass
    with pytest.raises(SettingsError, match="is no name of a table"):
        shop.reader().snapshot_chunks(name)


@pytest.mark.parametrize("handler", [None, 5])
def test_what_is_no_function_is_no_handler(handler: Any) -> None:
    with pytest.raises(SettingsError, match="is no function"):
        PostgreSQLCDC("host=nowhere", "p", "s").add_handler(handler)


@pytest.mark.integration
@pytest.mark.parametrize("change", [{"dbname": "not_there"}, {"user": "nobody_here"}])
def test_a_wrong_address_is_said_as_one(shop: Shop, change: dict[str, str]) -> None:
    dsn = psycopg.conninfo.make_conninfo(str.__str__(settings.postgres_dsn("cdc")), **change)
    with pytest.raises(ChangeStreamError) as caught:
        shop.reader(dsn=dsn)
    assert "Check host, port, database" in caught.value.fix


@pytest.mark.integration
def test_a_slot_that_was_made_again_while_the_connection_was_lost_is_not_followed(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=10)
    cdc.acknowledge(next(transactions))
    shop.kill_walsender()
    eventually(lambda: shop.walsender() is None)
    shop.value("SELECT pg_drop_replication_slot(%s)", shop.slot)
    shop.insert(2)
    shop.value("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", shop.slot)
    shop.insert(3)
    with pytest.raises(SlotLost, match="changes between them are gone"):
        next(transactions)


@pytest.mark.integration
def test_no_slot_is_made_where_what_follows_the_sink_is_gone(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1)
    kept = next(cdc.transactions(idle=10)).end_position
    cdc.close()
    shop.value("SELECT pg_drop_replication_slot(%s)", shop.slot)
    with pytest.raises(SlotMissing, match=f"what follows {kept} is gone"):
        shop.reader(resume_after=kept)
    assert shop.confirmed() is None
    assert isinstance(kept, LSN)


@pytest.mark.integration
def test_a_slot_that_is_dropped_while_it_is_read_is_lost_and_not_only_missing(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=10)
    read = next(transactions).end_position

    def dropped() -> bool:
        shop.kill_walsender()
        try:
            shop.value("SELECT pg_drop_replication_slot(%s)", shop.slot)
        except psycopg.errors.ObjectInUse:
            return False
        return True

    eventually(dropped)
    with pytest.raises(SlotLost, match=f"what follows {read} is gone") as told:
        next(transactions)
    assert "new snapshot" in told.value.fix


@pytest.mark.integration
def test_initialize_may_be_called_again_while_it_reads(shop: Shop) -> None:
    cdc = shop.reader()
    shop.insert(1, 2)
    transactions = cdc.transactions(idle=10)
    assert [event.new_data["id"] for event in next(transactions)] == [1]
    cdc.initialize()
    assert [event.new_data["id"] for event in next(transactions)] == [2]


@pytest.mark.integration
def test_two_phase_cannot_be_asked_of_a_slot_without_it(shop: Shop) -> None:
    shop.reader()
    with pytest.raises(SlotUnusable, match="made without two-phase"):
        shop.reader(two_phase=True, protocol=3)


@pytest.mark.integration
def test_a_table_without_columns_does_not_keep_a_snapshot_from_the_others(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE bare (); ALTER TABLE bare REPLICA IDENTITY FULL")
    shop.insert(1)
    with shop.session(tables=[shop.orders, f"{shop.schema}.bare"], snapshot="only") as cdc:
        assert [event.new_data["id"] for transaction in cdc.transactions() for event in transaction] == [1]


@pytest.mark.integration
def test_exploring_advises_nothing_that_breaks_writes(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE nokey (a int)")
    shop.app.execute("INSERT INTO nokey VALUES (1)")
    with Explorer(settings.postgres_dsn("app"), tables=f"{shop.schema}.*", publication=shop.publication) as explorer:
        with pytest.raises(PublicationUnusable, match="no publication"):
            explorer.publication()
        proposal = explorer.proposal()
        assert "nokey" not in proposal
        shop.app.execute(proposal)
        shop.app.execute("UPDATE nokey SET a = 2")
        shown = explorer.published()
        assert f"Not to be published, without a replica identity or unreadable: {shop.schema}.nokey" in shown.text


NO_BINARY_FORM = ["aclitem[]", "pair", "pair[]", "named", "aclitem[][]"]


@pytest.mark.integration
@pytest.mark.parametrize("way", ["transactions", "session", "frames", "backlog", "catch_up"])
def test_what_has_no_binary_form_is_read_as_text(shop: Shop, way: str, caplog: pytest.LogCaptureFixture) -> None:
    shop.app.execute("CREATE TYPE pair AS (id int, right_ aclitem)")
    shop.app.execute("CREATE DOMAIN named AS aclitem[]")
    shop.app.execute("CREATE DOMAIN single AS aclitem")
    for number, kind in enumerate(NO_BINARY_FORM):
        shop.app.execute(f"ALTER TABLE orders ADD COLUMN c{number} {kind}")  # type: ignore[call-overload]
    shop.app.execute("ALTER TABLE orders ADD COLUMN single single, ADD COLUMN plain aclitem")
    cdc = shop.session(binary=True) if way == "session" else shop.reader(binary=True)
    with cdc:
        shop.app.execute(
            "INSERT INTO orders VALUES (1, 'x', 2.5, '{postgres=r/postgres}', '(1,postgres=r/postgres)', "
            "'{\"(1,postgres=r/postgres)\"}', '{postgres=r/postgres}', '{{postgres=r/postgres}}', "
            "'postgres=r/postgres', 'postgres=r/postgres')"
        )
        if way in {"frames", "backlog"}:
            (batch,) = cdc.frames(until=1, max_wait=0.05, backlog=0 if way == "backlog" else None)
            row: Any = batch.of("orders", shop.schema).row(0, named=True)
        else:
            for transaction in cdc.catch_up() if way == "catch_up" else cdc.transactions(until=1):
                cdc.acknowledge(transaction)
                (row,) = (each.new_data for each in transaction)
    right = "postgres=r/postgres"
    assert (row["id"], float(row["total"]), row["plain"], row["single"]) == (1, 2.5, right, right)
    if way not in {"frames", "backlog"}:
        assert [row[f"c{number}"] for number in range(5)] == [[right], (1, right), [(1, right)], [right], [[right]]]
    (said,) = {each.getMessage() for each in caplog.records if "binary form" in each.getMessage()}
    assert "orders.c0 (aclitem[])" in said
    assert "single" not in said
    assert "plain" not in said


@pytest.mark.integration
@pytest.mark.parametrize("way", ["transactions", "frames", "catch_up"])
def test_a_column_without_a_binary_form_that_comes_in_mid_stream_is_said(shop: Shop, way: str) -> None:
    cdc = shop.reader(binary=True)
    transactions = cdc.transactions(idle=10)
    shop.insert(1)
    cdc.acknowledge(next(transactions))
    shop.app.execute("ALTER TABLE orders ADD COLUMN rights aclitem[] DEFAULT '{postgres=r/postgres}'")
    shop.insert(2)
    if way == "transactions":
        with pytest.raises(ChangeStreamError, match="binary=False"):
            next(transactions)
        (transaction,) = cdc.transactions(until=1)
        assert next(iter(transaction)).new_data["rights"] == ["postgres=r/postgres"]
        return
    cdc.close()
    shop.app.execute("ALTER TABLE orders DROP COLUMN rights")
    with pytest.raises(ChangeStreamError, match="binary=False"):
        list(cdc.catch_up() if way == "catch_up" else cdc.frames(idle=10))
    assert len(list(shop.reader(initialize=False).transactions(until=1))) == 1


@pytest.mark.integration
@pytest.mark.parametrize("way", ["transactions", "frames", "handler", "session"])
def test_a_table_that_leaves_the_publication_in_mid_stream_is_said(shop: Shop, way: str) -> None:
    both = [shop.orders, f"{shop.schema}.other"]
    cdc: Any = shop.session(tables=both) if way == "session" else shop.reader(tables=both)
    cdc._watch.every = 0.05
    cdc.initialize()
    shop.insert(1)
    if way == "handler":
        seen: list[Any] = []
        cdc.add_handler(seen.append)
        cdc.start()
        eventually(lambda: seen)
    else:
        items = cdc.frames(max_wait=0.05, idle=20) if way == "frames" else cdc.transactions(idle=20)
        assert len(next(items)) == 1
    shop.app.execute(sql.SQL("ALTER PUBLICATION {} DROP TABLE other").format(sql.Identifier(cdc.publication)))
    shop.app.execute("INSERT INTO other VALUES (1)")
    if way == "handler":
        eventually(lambda: not cdc.running)
    with pytest.raises(PublicationUnusable, match="does not hold .*other any more") as caught:
        cdc.stop() if way == "handler" else next(items)
    assert f"ADD TABLE {shop.schema}.other" in caught.value.fix
    if way == "session":
        return
    with pytest.raises(PublicationUnusable):
        next(cdc.transactions())
    shop.app.execute(sql.SQL("ALTER PUBLICATION {} ADD TABLE other").format(sql.Identifier(cdc.publication)))
    shop.insert(2)
    found = [event.new_data["id"] for each in cdc.transactions(until=cdc.written()) for event in each]
    assert found[-1] == 2


@pytest.mark.integration
def test_tables_come_and_go_where_the_publication_is_taken_as_it_is(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.reader(tables=[shop.orders, f"{shop.schema}.other"]).close()
    publication = sql.Identifier(shop.publication)
    cdc = shop.reader(tables=(), initialize=False)
    cdc._watch.every = 0.05
    shop.insert(1)
    transactions = cdc.transactions(idle=20)
    cdc.acknowledge(next(transactions))
    shop.app.execute(sql.SQL("ALTER PUBLICATION {} DROP TABLE other").format(publication))

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "any more" in each.getMessage()]

    number = 1
    while not said():
        number += 1
        assert number < 2000
        shop.insert(number)
        cdc.acknowledge(next(transactions))
    assert "other" in said()[0]
    shop.app.execute("ALTER TABLE orders RENAME TO renamed")
    shop.app.execute("INSERT INTO renamed VALUES (0)")
    assert next(iter(next(transactions))).table_name == "renamed"
    assert len([each for each in said() if ".other" in each]) == 1


@pytest.mark.integration
def test_a_table_that_is_dropped_or_renamed_does_not_end_the_stream(shop: Shop) -> None:
    cdc = shop.reader(tables=[shop.orders, f"{shop.schema}.other"])
    cdc._watch.every = 0.0
    shop.insert(1)
    transactions = cdc.transactions(idle=20)
    cdc.acknowledge(next(transactions))
    shop.app.execute("DROP TABLE other")
    shop.insert(2)
    cdc.acknowledge(next(transactions))
    shop.app.execute("ALTER TABLE orders RENAME TO renamed")
    shop.app.execute("INSERT INTO renamed VALUES (3)")
    assert next(iter(next(transactions))).new_data["id"] == 3


@pytest.mark.integration
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("way", ["transactions", "frames"])
def test_a_slot_that_may_have_been_made_again_since_the_sink_was_written_is_said(
    shop: Shop, again: bool, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    cdc = shop.reader()
    shop.insert(1)
    transactions = cdc.transactions(idle=10)
    kept = next(transactions)
    cdc.acknowledge(kept)
    cdc.close()
    if again:
        shop.value("SELECT pg_drop_replication_slot(%s)", shop.slot)
        shop.insert(2)
        shop.value("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')::text", shop.slot)
    shop.insert(3)
    with shop.reader(resume_after=kept.end_position) as cdc:
        for _ in range(2):
            if way == "frames":
                (batch,) = cdc.frames(until=1, max_wait=0.05)
                assert batch.of("orders", shop.schema)["id"].to_list() == [3]
            else:
                (transaction,) = cdc.transactions(until=1)
                assert [event.new_data["id"] for event in transaction] == [3]
            shop.kill_walsender()
    said = [each for each in caplog.records if "made anew" in each.getMessage()]
    assert len(said) == again
    if again:
        assert str(kept.end_position) in said[0].getMessage()


def test_a_session_cannot_go_on_after_a_position() -> None:
    with pytest.raises(SettingsError, match="begins now"):
        PostgreSQLCDC.session("host=nowhere", ["orders"], resume_after=LSN(5))
