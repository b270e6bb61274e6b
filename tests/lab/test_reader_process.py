"""A reader in a process of its own: steered, killed between two calls, and started again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest

from streamlab import settings
from streamlab.cdc import PostgreSQLCDC
from streamlab.errors import ChangeStreamError
from streamlab.lab.reader_process import ReaderKilled, ReaderProcess, ReaderSetup
from streamlab.stack.namespace import Namespace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def setup(stack: object) -> Iterator[tuple[ReaderSetup, psycopg.Connection[Any]]]:
    """A slot with three transactions, and a sink."""
    with (
        Namespace("test_reader") as names,
        psycopg.connect(settings.postgres_dsn(), options=f"-c search_path={names.name}", autocommit=True) as shop,
    ):
        schema = names.postgres_schema()
        shop.execute(f"CREATE SCHEMA {schema}")
        shop.execute("CREATE TABLE sold (id int PRIMARY KEY)")
        shop.execute("CREATE TABLE kept (id int, position pg_lsn, ordinal int)")
        dsn = settings.postgres_dsn("cdc")
        cdc = PostgreSQLCDC(
            dsn, names.publication(), names.slot(), tables=[f"{schema}.sold"], setup_dsn=settings.postgres_dsn()
        )
        cdc.initialize()
        for number in (1, 2, 3):
            shop.execute("INSERT INTO sold VALUES (%s)", [number])
        sink = psycopg.conninfo.make_conninfo(str.__str__(settings.postgres_dsn()), options=f"-c search_path={schema}")
        yield ReaderSetup(str.__str__(dsn), cdc.publication, cdc.slot_name, sink, "kept", idle=3.0), shop
        cdc.drop()


def kept(shop: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in shop.execute("SELECT id FROM kept ORDER BY position, id")]


def test_it_reads_writes_acknowledges_and_ends_in_peace(setup: Any) -> None:
    arranged, shop = setup
    with ReaderProcess(arranged) as reader:
        for _ in range(3):
            transaction = reader.next()
            assert transaction is not None
            reader.write(transaction)
            reader.acknowledge(transaction)
    assert reader.killed
    assert kept(shop) == [1, 2, 3]
    assert reader.calls == ["write", "acknowledge"] * 3
    with ReaderProcess(arranged) as reader:
        assert reader.next() is None


def test_it_is_killed_after_a_call_and_what_the_server_knows_is_what_was_acknowledged(setup: Any) -> None:
    arranged, shop = setup
    with ReaderProcess(arranged) as reader:
        first = reader.next()
        assert first is not None
        reader.write(first)
        reader.fatal = 1
        reader.acknowledge(first)
        assert reader.killed
        with pytest.raises(ReaderKilled):
            reader.write(first)
        with pytest.raises(ReaderKilled):
            reader.next()
    with ReaderProcess(arranged) as reader:
        second = reader.next()
        assert second is not None
        assert [event.new_data["id"] for event in second] == [2]
        assert second.position > first.position
    assert kept(shop) == [1]


def test_what_goes_wrong_in_it_is_told_here(setup: Any) -> None:
    arranged, _ = setup
    with ReaderProcess(arranged) as reader:
        assert reader.next() is not None
        with pytest.raises(ChangeStreamError, match="SettingsError.*is no position of PostgreSQL"):
            reader.acknowledge("the first one")  # type: ignore[arg-type]
        assert reader.next() is not None


def test_no_address_is_in_its_command_line_and_it_ends_with_its_input(setup: Any) -> None:
    arranged, _ = setup
    reader = ReaderProcess(arranged)
    try:
        assert reader.next() is not None
        (process,) = [
            each
            for each in psutil.Process().children(recursive=True)
            if "streamlab.lab.reader_process" in each.cmdline()
        ]
        assert not any("host" in word or "port" in word for word in process.cmdline()[1:])
    finally:
        reader.close()
    assert not process.is_running()
