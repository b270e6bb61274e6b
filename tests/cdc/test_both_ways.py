"""Debezium's topics and the direct reader tell the same changes of the same binary log of MySQL.

Positions differ: one is a place in Kafka, the other a place in the log. All else of a `ChangeEvent` is equal, in the
same order, but for what Debezium itself does not tell; `untold` is the whole list of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from connect.reading import Topics

from streamlab import settings
from streamlab.cdc import ChangeEvent, ChangeSource, Operation
from streamlab.cdc.binlog.mysql import MySQLCDC
from streamlab.cdc.debezium import DebeziumSource
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import Format, MySQLSource
from streamlab.stack.namespace import Namespace
from streamlab.workload import TABLES, MySQLTarget, Shop

from .binlog.conftest import MySQLShop
from .binlog.test_values_server import TYPES, columns, fill, here, same

pytestmark = pytest.mark.integration

KINDS = dict(zip(columns(), TYPES, strict=True))


class Both:
    """A database with a table of every type and a shop, that both read from the same moment on."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.prefix = namespace.topic_prefix()
        self.tables = MySQLShop(namespace, directory)
        self.database = self.tables.database
        self.shop = Shop(MySQLTarget(settings.mysql_address("app"), self.database), customers=9, products=4)
        # `orders` is one of the shop's too.
        self.tables.execute("DROP TABLE orders, other")
        source = MySQLSource(
            prefix=self.prefix,
            database=self.database,
            tables=[*TABLES, "kinds"],
            decimals="precise",
            transactions=True,
            notifications=True,
            key_format=Format.JSON_WITH_SCHEMAS,
            value_format=Format.JSON_WITH_SCHEMAS,
            # A column says its type in MySQL too; an unsigned number is not cut to one with a sign.
            more={"column.propagate.source.type": ".*", "bigint.unsigned.handling.mode": "precise"},
        )
        with ConnectClient() as client, Topics() as topics:
            client.apply(namespace.connector(), source.configuration())
            client.wait_ready(namespace.connector())
            topics.wait(
                f"{self.prefix}.notifications",
                lambda read: read and read[-1].value["payload"]["type"] == "COMPLETED",
            )
        self.begin = here(self.tables)
        self.shop.create()

    def direct(self, *tables: str) -> MySQLCDC:
        names = [f"{self.database}.{table}" for table in tables]
        return self.tables.reader(tables=names, checkpoint=None, resume_after=self.begin, initialize=False)

    def debezium(self, *tables: str) -> DebeziumSource:
        topics = [f"{self.prefix}.{self.database}.{table}" for table in tables]
        return DebeziumSource(
            settings.kafka_bootstrap(),
            topics,
            self.namespace.group(tables[0]),
            transaction_topic=f"{self.prefix}.transaction",
        )

    def events(self, *tables: str) -> tuple[list[ChangeEvent], list[ChangeEvent]]:
        """All changes of tables until now, both ways: Debezium's, and the direct reader's."""
        with self.direct(*tables) as cdc:
            direct = [event for each in cdc.transactions(until=cdc.written()) for event in each]
        told: list[ChangeEvent] = []
        with self.debezium(*tables) as cdc:
            for each in cdc.transactions(idle=60):
                told += each
                if len(told) >= len(direct):
                    break
        return told, direct

    def close(self) -> None:
        self.shop.close()
        self.tables.close()


@pytest.fixture(scope="module")
def both(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with Namespace("both_ways") as namespace:
        made = Both(namespace, tmp_path_factory.mktemp("both"))
        try:
            yield made
        finally:
            made.close()


def untold(kind: str, theirs: Any, ours: Any) -> bool:
    """Whether Debezium cannot tell a value: what it says instead, for what the log holds."""
    if kind.startswith(("date", "timestamp")):
        # A day that the calendar does not have.
        return theirs is None and isinstance(ours, str) and "-00" in ours
    if kind == "year":
        return ours == 0 and theirs in {1900, 2000}  # in the stream, in a snapshot
    if "latin1" in kind:
        # MySQL's latin1 has all of the 256 signs, Java's has five less.
        return isinstance(theirs, str) and "\ufffd" in theirs and theirs.replace("\ufffd", "\x81") == ours
    # A negative time in a JSON document has a sign in front of each of its parts.
    return kind == "json" and "13:0-35:0-57.00000-5" in theirs and "-12:34:56.500000" in ours


def equal(event: ChangeEvent, other: ChangeEvent) -> bool:
    """Whether two events are the same, but for their places."""
    named = ("operation", "schema", "table_name", "primary_key", "key", "transaction_id", "ordinal")
    assert [getattr(event, name) for name in named] == [getattr(other, name) for name in named]
    for one, two in ((event.old_data, other.old_data), (event.new_data, other.new_data)):
        assert list(one) == list(two), "columns, in their order"
    return True


def alike(debezium: Sequence[ChangeEvent], direct: Sequence[ChangeEvent], kinds: Mapping[str, str]) -> set[str]:
    """Hold the values of events against each other; the types of which Debezium does not tell one."""
    wrong = []
    seen: set[str] = set()
    for event, other in zip(debezium, direct, strict=True):
        for one, two in ((event.old_data, other.old_data), (event.new_data, other.new_data)):
            for name, value in one.items():
                kind = kinds.get(name, "")
                if same(value, two[name]):
                    continue
                if untold(kind, value, two[name]):
                    seen.add(kind.partition("(")[0].split()[0])
                else:
                    wrong.append((kind, value, two[name]))
    assert {each[0]: each[1:] for each in wrong} == {}
    return seen


# Each exception is one that is met: where Debezium has learned, it goes.
UNTOLD = {"date", "datetime", "timestamp", "year", "char", "json"}


def test_every_type_of_mysql_is_told_alike(both: Both) -> None:
    count = fill(both.tables)
    both.tables.execute("UPDATE kinds SET c0 = 1")
    both.tables.execute("DELETE FROM kinds")
    debezium, direct = both.events("kinds")
    assert len(debezium) == len(direct) == 3 * count
    for event, other in zip(debezium, direct, strict=True):
        assert equal(event, other)
    assert alike(debezium, direct, KINDS) == UNTOLD


@pytest.mark.parametrize("form", [Format.JSON_WITH_SCHEMAS, Format.AVRO])
def test_a_snapshot_of_every_type_of_mysql_is_told_alike_and_so_are_the_changes_after_it(
    registry: object, tmp_path: Path, form: Format
) -> None:
    """As the rows stand in the table, and as the log has them afterwards: JSON, and Avro by the registry's schemas."""
    with Namespace("both_snapshots") as namespace, ConnectClient() as client:
        namespace.subject_prefix()
        prefix, name = namespace.topic_prefix(), namespace.connector()
        tables = MySQLShop(namespace, tmp_path)
        try:
            count = fill(tables)
            table, changed = f"{tables.database}.kinds", ("UPDATE kinds SET c0 = 1", "DELETE FROM kinds")
            source = MySQLSource(
                prefix=prefix, database=tables.database, tables=["kinds"], decimals="precise", key_format=form,
                value_format=form,
                more={"column.propagate.source.type": ".*", "bigint.unsigned.handling.mode": "precise"},
            )  # fmt: skip
            client.apply(name, source.configuration())
            client.wait_ready(name)

            def told(reader: ChangeSource, total: int) -> list[ChangeEvent]:
                found: list[ChangeEvent] = []
                for each in reader.transactions(idle=60):
                    found += each
                    reader.acknowledge(each)
                    if len(found) >= total:
                        break
                assert len(found) == total
                return found

            with (
                tables.session(tables=[table], snapshot="initial") as session,
                DebeziumSource(
                    settings.kafka_bootstrap(),
                    [f"{prefix}.{table}"],
                    namespace.group(),
                    schema_registry=settings.registry_url(),
                ) as debezium,
            ):
                # In whatever order a table is read.
                theirs, ours = (sorted(told(each, count), key=lambda event: event.key) for each in (debezium, session))
                tables.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
                for statement in changed:
                    tables.execute(statement)
                theirs, ours = theirs + told(debezium, 2 * count), ours + told(session, 2 * count)
        finally:
            tables.close()
    assert [each.operation for each in ours[::count]] == [Operation.SNAPSHOT, Operation.UPDATE, Operation.DELETE]
    named = ("operation", "schema", "table_name", "primary_key", "key", "transaction_id")
    for one, other in zip(theirs, ours, strict=True):
        assert [getattr(one, each) for each in named] == [getattr(other, each) for each in named]
        assert (list(one.old_data), list(one.new_data)) == (list(other.old_data), list(other.new_data))
    # The server itself writes signs and documents as text for a snapshot.
    assert alike(theirs[:count], ours[:count], KINDS) == UNTOLD - {"char", "json"}
    assert alike(theirs[count:], ours[count:], KINDS) == UNTOLD


def test_the_changes_of_a_shop_are_equal_in_the_order_of_their_commits(both: Both) -> None:
    both.shop.run(transactions=60)
    both.shop.run(transactions=10, mix={"erase_customer": 1, "place_order": 2})
    both.shop.run(transactions=5, size=40)
    debezium, direct = both.events(*TABLES)
    assert len(debezium) == len(direct) == both.shop.ledger.changes
    for event, other in zip(debezium, direct, strict=True):
        assert equal(event, other)
        assert event.old_data == other.old_data
        assert event.new_data == other.new_data
        assert abs((event.commit_timestamp - other.commit_timestamp).total_seconds()) < 2
    assert {event.operation for event in direct} == {Operation.INSERT, Operation.UPDATE, Operation.DELETE}
    # And they are those of the ledger, in its order.
    assert [(event.table_name, event.key) for event in direct] == [
        (change.table.name, change.key) for _, change in both.shop.ledger.operations()
    ]
