"""The first reader of PostgreSQL's stream, on a real server."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from streamlab import settings
from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.cdc.tail import PostgresTail, _Decoder
from streamlab.errors import ChangeStreamError, ProtocolError
from streamlab.stack.namespace import Namespace


class Shop:
    """A schema with one published table."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        schema = namespace.postgres_schema()
        self.connection = psycopg.connect(
            settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}"
        )
        self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        self.connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, total numeric, at timestamptz, note text, facts jsonb)"
        )
        self.publication = namespace.publication()
        self.connection.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE orders").format(sql.Identifier(self.publication))
        )

    def tail(self) -> PostgresTail:
        return PostgresTail(settings.postgres_dsn("cdc"), publication=self.publication, slot_name=self.namespace.slot())

    def slots(self) -> int:
        row = self.connection.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", [self.namespace.name]
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def shop(stack: object) -> Iterator[Shop]:
    with Namespace("test_tail") as namespace:
        shop = Shop(namespace)
        yield shop
        shop.connection.close()


@pytest.mark.integration
def test_every_kind_of_change_arrives_in_order_with_its_values(shop: Shop) -> None:
    with shop.tail() as tail:
        with shop.connection.transaction():
            shop.connection.execute(
                "INSERT INTO orders VALUES (1, 9.90, '2026-01-02 03:04:05.6+01', NULL, '{\"a\": [1]}')"
            )
            shop.connection.execute("UPDATE orders SET note = 'näher' WHERE id = 1")
            shop.connection.execute("DELETE FROM orders WHERE id = 1")
        shop.connection.execute("TRUNCATE orders")
        inserted, updated, deleted, truncated = tail.changes(4)
    kinds = [each.operation for each in (inserted, updated, deleted, truncated)]
    assert kinds == [Operation.INSERT, Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE]
    assert inserted.new_data["total"] == Decimal("9.90")
    assert inserted.new_data["at"].isoformat() == "2026-01-02T02:04:05.600000+00:00"
    assert inserted.new_data["note"] is None
    assert inserted.new_data["facts"] == {"a": [1]}
    assert updated.new_data["note"] == "näher"
    assert dict(deleted.old_data) == {"id": 1}
    assert [each.ordinal for each in (inserted, updated, deleted)] == [0, 1, 2]
    assert len({each.position for each in (inserted, updated, deleted)}) == 1
    assert truncated.position != deleted.position
    assert truncated.table_name == "orders"
    assert inserted.commit_timestamp.utcoffset() is not None


@pytest.mark.integration
def test_what_is_rolled_back_or_not_published_does_not_arrive(shop: Shop) -> None:
    with shop.tail() as tail:
        with pytest.raises(ZeroDivisionError), shop.connection.transaction():
            shop.connection.execute("INSERT INTO orders (id) VALUES (1)")
            raise ZeroDivisionError
        shop.connection.execute("CREATE TABLE other (id int)")
        shop.connection.execute("INSERT INTO other VALUES (5)")
        shop.connection.execute("INSERT INTO orders (id) VALUES (2)")
        (change,) = tail.changes(1)
    assert change.new_data["id"] == 2


@pytest.mark.integration
def test_the_slot_goes_with_the_block_however_it_ends(shop: Shop) -> None:
    with shop.tail():
        assert shop.slots() == 1
    deadline = time.monotonic() + 10
    while shop.slots() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shop.slots() == 0
    with pytest.raises(KeyboardInterrupt), shop.tail():
        raise KeyboardInterrupt
    while shop.slots() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shop.slots() == 0


@pytest.mark.integration
def test_a_missing_publication_is_said_and_not_waited_for(shop: Shop) -> None:
    tail = PostgresTail(settings.postgres_dsn("cdc"), publication="no_such", slot_name=shop.namespace.slot())
    with pytest.raises(ChangeStreamError, match="There is no publication no_such"), tail:
        pass


@pytest.mark.integration
def test_silence_ends_in_a_sentence(shop: Shop) -> None:
    with shop.tail() as tail, pytest.raises(ChangeStreamError, match="No change came within 0 s"):
        next(tail.changes(1, limit=0.2))


@pytest.mark.integration
def test_a_reader_without_the_right_to_replicate_is_told_so(shop: Shop) -> None:
    tail = PostgresTail(settings.postgres_dsn("reader"), publication=shop.publication, slot_name=shop.namespace.slot())
    with pytest.raises((ChangeStreamError, psycopg.OperationalError), match="replication|permission"), tail:
        pass


@pytest.mark.integration
def test_a_stream_that_the_server_ends_raises(shop: Shop) -> None:
    with shop.tail() as tail:
        with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as admin:
            killer = threading.Thread(
                target=lambda: admin.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s",
                    [shop.namespace.name],
                )
            )
            killer.start()
            with pytest.raises((ChangeStreamError, psycopg.OperationalError)):
                next(tail.changes(1, limit=10))
            killer.join()


_BEGIN = b"B" + struct.pack("!QqI", 7, 0, 9)
_RELATION = b"R" + struct.pack("!I", 5) + b"s\0t\0d" + struct.pack("!H", 1) + b"\1id\0" + struct.pack("!Ii", 23, -1)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_message_give_a_protocol_error_and_nothing_else(data: bytes) -> None:
    decoder = _Decoder()
    decoder.feed(_BEGIN)
    decoder.feed(_RELATION)
    try:
        events = decoder.feed(data)
    except ProtocolError:
        return
    assert all(isinstance(event, ChangeEvent) for event in events)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 30))
def test_a_message_that_was_cut_gives_a_protocol_error(value: int, cut: int) -> None:
    text = str(value).encode()
    message = b"I" + struct.pack("!I", 5) + b"N" + struct.pack("!H", 1) + b"t" + struct.pack("!I", len(text)) + text
    decoder = _Decoder()
    decoder.feed(_BEGIN)
    decoder.feed(_RELATION)
    (event,) = decoder.feed(message)
    assert event.new_data == {"id": value}
    head = message[: min(cut, len(message) - len(text) - 1)]
    if head[:1] == b"I":
        with pytest.raises(ProtocolError):
            decoder.feed(head)
