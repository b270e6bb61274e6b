"""Preflight: whatever would lose changes, or break a table, is refused with its fix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc import gathering, slots
from streamlab.cdc.facts import Facts, PublicationFacts, ServerFacts, SlotFacts, TableFacts
from streamlab.cdc.position import LSN
from streamlab.cdc.preflight import check, problems
from streamlab.errors import (
    CannotCapture,
    ChangeStreamError,
    PublicationUnusable,
    SettingsError,
    SlotLost,
    SlotMissing,
    SlotUnusable,
)

from .conftest import Shop

SERVER = ServerFacts(180004, "logical", 10, 0, 10, 0, 8192, False, "cdc", True, True, LSN(1000), "shop")
TABLE = TableFacts("public", "orders", "r", "p", "d", True, ("id",))
PUBLICATION = PublicationFacts("p", False, True, True, True, True, False, (TABLE,))
SLOT = SlotFacts("s", "pgoutput", "logical", "shop", False, None, "reserved", "", LSN(10), LSN(5), None, False)
GOOD = Facts(SERVER, PUBLICATION, SLOT, "p", "s")


def test_what_is_right_passes() -> None:
    assert list(problems(GOOD)) == []
    assert list(problems(replace(GOOD, wanted=(("public", "orders"),)))) == []
    assert list(problems(replace(GOOD, publication=None, slot=None), slot=False, publication=False)) == []


def with_table(**changes: Any) -> Facts:
    return replace(GOOD, publication=replace(PUBLICATION, tables=(replace(TABLE, **changes),)))


@pytest.mark.parametrize(
    ("facts", "error", "problem", "fix"),
    [
        (replace(GOOD, server=replace(SERVER, version=130010)), CannotCapture, "too old", "14 or later"),
        (replace(GOOD, server=replace(SERVER, wal_level="replica")), CannotCapture, "wal_level", "ALTER SYSTEM"),
        (
            replace(GOOD, server=replace(SERVER, replication=False)),
            CannotCapture,
            "may not replicate",
            "ALTER ROLE cdc",
        ),
        (replace(GOOD, server=replace(SERVER, senders_used=10)), CannotCapture, "WAL senders", "max_wal_senders"),
        (replace(GOOD, missing=("x.y",)), CannotCapture, "no table x.y", "schema.table"),
        (replace(GOOD, others=(("x.v", "v"),)), CannotCapture, "x.v is a view", "tables that it reads"),
        (replace(GOOD, publication=None), PublicationUnusable, "no publication p", "cdc.initialize"),
        (replace(GOOD, slot=None), SlotMissing, "no replication slot s", "cdc.initialize"),
        (replace(GOOD, wanted=(("a", "B c"),)), PublicationUnusable, "not a.B c", 'SET TABLE a."B c"'),
        (replace(GOOD, publication=replace(PUBLICATION, tables=())), PublicationUnusable, "no table", "ADD TABLE"),
        (with_table(persistence="u"), CannotCapture, "not in the log", "SET LOGGED"),
        (with_table(readable=False), CannotCapture, "may not read", "GRANT SELECT"),
        (with_table(identity=None), CannotCapture, "replica identity", "REPLICA IDENTITY FULL"),
        (with_table(columns=("note",)), CannotCapture, "leaves out id", "Add these"),
        (replace(GOOD, slot=replace(SLOT, plugin="wal2json")), SlotUnusable, "wal2json", "slot_name"),
        (replace(GOOD, slot=replace(SLOT, kind="physical")), SlotUnusable, "physical", "slot_name"),
        (replace(GOOD, slot=replace(SLOT, database="x")), SlotUnusable, "database x", "that database"),
        (replace(GOOD, slot=replace(SLOT, wal_status="lost")), SlotLost, "lost", "not made again in silence"),
        (replace(GOOD, slot=replace(SLOT, invalidated="wal_removed")), SlotLost, "wal_removed", "snapshot"),
        (replace(GOOD, resume_after=LSN(1001)), SlotUnusable, "written only up to", "another server"),
    ],
)
def test_what_is_wrong_is_refused_with_its_fix(
    facts: Facts, error: type[ChangeStreamError], problem: str, fix: str
) -> None:
    with pytest.raises(error) as caught:
        check(facts)
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_a_table_without_identity_may_be_inserted_into() -> None:
    inserts = replace(PUBLICATION, update=False, delete=False, tables=(replace(TABLE, identity=None),))
    assert list(problems(replace(GOOD, publication=inserts))) == []
    assert list(problems(with_table(identity=None, identity_kind="f"))) == []


def test_a_full_server_refuses_a_new_slot_and_not_an_old_one() -> None:
    full = replace(SERVER, slots_used=10)
    assert list(problems(replace(GOOD, server=full))) == []
    (problem,) = problems(replace(GOOD, server=full, slot=None), slot=False)
    assert "All 10 replication slots are taken" in problem.problem


# -- on a real server ---------------------------------------------------------------------------------


@pytest.mark.integration
def test_initialize_can_be_repeated_and_makes_each_of_the_two_by_itself(shop: Shop) -> None:
    cdc = shop.reader()
    cdc.initialize()
    assert shop.confirmed() is not None
    # The slot alone is missing.
    shop.admin.execute("SELECT pg_drop_replication_slot(%s)", [shop.slot])
    cdc.initialize()
    assert shop.confirmed() is not None
    # The publication alone is missing.
    shop.app.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(shop.publication)))
    cdc.initialize()
    assert shop.value("SELECT count(*) FROM pg_publication WHERE pubname = %s", shop.publication) == 1
    cdc.drop()
    cdc.drop()
    assert shop.confirmed() is None
    assert shop.value("SELECT count(*) FROM pg_publication WHERE pubname = %s", shop.publication) == 0


@pytest.mark.integration
def test_a_role_that_may_not_replicate_is_told_so_and_nothing_is_made(shop: Shop) -> None:
    cdc = shop.reader(initialize=False, dsn=settings.postgres_dsn("reader"))
    with pytest.raises(CannotCapture, match="streamlab_reader may not replicate"):
        cdc.initialize()
    assert shop.value("SELECT count(*) FROM pg_publication WHERE pubname = %s", shop.publication) == 0


@pytest.mark.integration
def test_a_role_that_does_not_own_the_tables_is_told_of_setup_dsn(shop: Shop) -> None:
    cdc = shop.reader(initialize=False, setup_dsn=settings.postgres_dsn("cdc"))
    with pytest.raises(CannotCapture, match="setup_dsn="):
        cdc.initialize()
    assert shop.confirmed() is None


@pytest.mark.integration
def test_a_table_without_identity_is_refused_before_it_is_published(shop: Shop) -> None:
    """Once published, PostgreSQL would refuse the shop's own updates."""
    shop.app.execute("CREATE TABLE keyless (n int)")
    shop.app.execute("INSERT INTO keyless VALUES (1)")
    cdc = shop.reader(initialize=False, tables=[f"{shop.schema}.keyless"])
    with pytest.raises(CannotCapture, match="keyless has no replica identity"):
        cdc.initialize()
    shop.app.execute("UPDATE keyless SET n = 2")
    shop.app.execute("ALTER TABLE keyless REPLICA IDENTITY FULL")
    cdc.initialize()
    shop.app.execute("UPDATE keyless SET n = 3")
    ((event,),) = cdc.transactions(until=1)
    assert (event.old_data["n"], event.new_data["n"]) == (2, 3)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("identity", "usable"),
    [
        ("PRIMARY KEY", True),
        ("PRIMARY KEY DEFERRABLE", False),
        ("UNIQUE", False),
    ],
)
def test_only_a_key_that_postgres_accepts_is_an_identity(shop: Shop, identity: str, usable: bool) -> None:
    shop.app.execute(f"CREATE TABLE keyed (n int NOT NULL {identity})")  # type: ignore[arg-type]
    cdc = shop.reader(initialize=False, tables=[f"{shop.schema}.keyed"])
    if usable:
        cdc.initialize()
    else:
        with pytest.raises(CannotCapture, match="no replica identity"):
            cdc.initialize()
        shop.app.execute("CREATE UNIQUE INDEX keyed_n ON keyed (n)")
        shop.app.execute("ALTER TABLE keyed REPLICA IDENTITY USING INDEX keyed_n")
        cdc.initialize()


@pytest.mark.integration
def test_a_table_that_may_not_be_read_is_refused(shop: Shop) -> None:
    shop.app.execute("REVOKE SELECT ON other FROM streamlab_cdc")
    with pytest.raises(CannotCapture, match=r"may not read the table .*other"):
        shop.reader(tables=[f"{shop.schema}.other"])


@pytest.mark.integration
def test_a_publication_of_other_tables_is_refused_and_left_as_it_is(shop: Shop) -> None:
    shop.app.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE other").format(sql.Identifier(shop.publication)))
    with pytest.raises(PublicationUnusable, match=r"holds sl_\w+\.other, and not sl_\w+\.orders") as caught:
        shop.reader()
    shop.app.execute(caught.value.fix.removeprefix("As its owner: ").partition(";")[0])  # type: ignore[arg-type]
    shop.reader()


@pytest.mark.integration
def test_a_partitioned_table_stands_for_its_partitions(shop: Shop) -> None:
    shop.app.execute("CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day)")
    shop.app.execute("CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10)")
    shop.app.execute("CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20)")
    cdc = shop.reader(tables=[f"{shop.schema}.days"])
    shop.app.execute("INSERT INTO days VALUES (1), (11)")
    (transaction,) = cdc.transactions(until=1)
    assert [each.table_name for each in transaction] == ["days_1", "days_2"]


@pytest.mark.integration
def test_nothing_to_publish_and_names_that_do_not_exist_are_said(shop: Shop) -> None:
    with pytest.raises(SettingsError, match="no tables to make it for"):
        shop.reader(tables=())
    with pytest.raises(CannotCapture, match="There is no table nowhere"):
        shop.reader(tables=["nowhere"])


@pytest.mark.integration
def test_a_slot_of_another_kind_or_database_is_refused(shop: Shop) -> None:
    shop.admin.execute("SELECT pg_create_physical_replication_slot(%s)", [shop.slot])
    with pytest.raises(SlotUnusable, match="of the kind physical"):
        shop.reader()
    shop.admin.execute("SELECT pg_drop_replication_slot(%s)", [shop.slot])
    elsewhere = psycopg.conninfo.make_conninfo(settings.postgres_dsn("admin"), dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [shop.slot])
    with pytest.raises(SlotUnusable, match="belongs to the database postgres"):
        shop.reader()
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [shop.slot])


@pytest.mark.integration
def test_an_open_transaction_that_holds_up_a_new_slot_is_named(shop: Shop) -> None:
    shop.reader(initialize=False)
    with psycopg.connect(settings.postgres_dsn("app"), options=f"-c search_path={shop.schema}") as slow:
        slow.execute("INSERT INTO other VALUES (1)")
        with slots.connect(settings.postgres_dsn("cdc")) as connection:
            with pytest.raises(CannotCapture, match=f"process {slow.info.backend_pid} of"):
                slots.create_slot(connection, shop.slot, limit=0.3)
    assert shop.confirmed() is None


@pytest.mark.integration
def test_the_facts_of_a_real_server(shop: Shop) -> None:
    shop.reader()
    with slots.connect(settings.postgres_dsn("cdc")) as connection:
        facts = gathering.gather(connection, publication=shop.publication, slot=shop.slot, tables=[shop.orders])
    assert facts.server.major == 18
    assert facts.wanted == ((shop.schema, "orders"),)
    assert facts.publication is not None
    (table,) = facts.publication.tables
    assert (str(table), table.identity, table.columns) == (shop.orders, ("id",), ("id", "note", "total"))
    assert facts.slot is not None
    assert (facts.slot.plugin, facts.slot.kind, facts.slot.lost) == ("pgoutput", "logical", False)


@pytest.mark.integration
def test_what_is_no_table_is_said_before_anything_is_advised_for_tables(shop: Shop) -> None:
    shop.app.execute("CREATE VIEW seen AS SELECT * FROM orders")
    shop.app.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM orders")
    shop.app.execute("CREATE SEQUENCE numbers")
    shop.app.execute("CREATE TYPE pair AS (a int, b int)")
    for name, kind in {
        "seen": "a view", "kept": "a materialized view", "numbers": "a sequence", "pair": "a type",
        "orders_pkey": "an index",
    }.items():  # fmt: skip
        full = f"{shop.schema}.{name}"
        for make in (shop.reader, shop.session):
            with pytest.raises(CannotCapture, match=f"{full} is {kind}"), make(tables=[shop.orders, full]):
                pass
        assert shop.value("SELECT count(*) FROM pg_publication WHERE pubname = %s", shop.publication) == 0
    cdc = shop.reader()
    with pytest.raises(CannotCapture, match="is a view"):
        cdc.snapshot_chunks(f"{shop.schema}.seen")


@pytest.mark.integration
def test_a_foreign_table_is_no_table_of_this_server(shop: Shop) -> None:
    shop.admin.execute("BEGIN")
    shop.admin.execute("CREATE FOREIGN DATA WRAPPER streamlab_nowhere")
    shop.admin.execute("CREATE SERVER streamlab_nowhere FOREIGN DATA WRAPPER streamlab_nowhere")
    shop.admin.execute("CREATE FOREIGN TABLE far (id int) SERVER streamlab_nowhere")
    facts = gathering.gather(shop.admin, publication="p", slot="s", tables=[f"{shop.schema}.far"])
    shop.admin.execute("ROLLBACK")
    assert [error.problem for error in problems(facts, slot=False, publication=False)][:1] == [
        f"{shop.schema}.far is a foreign table: its rows, and the log of their changes, are on another server."
    ]
