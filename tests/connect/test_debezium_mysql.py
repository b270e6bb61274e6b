"""MySQL's binary log through Debezium into Kafka: what each kind of topic tells, with the typed configurations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pymysql
import pytest
from connect.reading import LIMIT, Copy, Message, Topics

from streamlab import settings
from streamlab.connect import ConnectClient, MySQLSignals
from streamlab.connect.connectors import Deletes, MySQLSource, Predicate, Unwrap
from streamlab.stack.namespace import Namespace
from streamlab.workload import TABLES, MySQLTarget, Shop

pytestmark = pytest.mark.integration

CHUNK = 4

HANDLING: dict[Deletes, list[Any]] = {
    "tombstone": [{"id": 1, "note": "a"}, {"id": 1, "note": "b"}, None],
    "rewrite": [
        {"id": 1, "note": "a", "__deleted": "false"},
        {"id": 1, "note": "b", "__deleted": "false"},
        {"id": 1, "note": "b", "__deleted": "true"},
    ],
    "rewrite-with-tombstone": [
        {"id": 1, "note": "a", "__deleted": "false"},
        {"id": 1, "note": "b", "__deleted": "false"},
        {"id": 1, "note": "b", "__deleted": "true"},
        None,
    ],
    "delete-to-tombstone": [{"id": 1, "note": "a"}, {"id": 1, "note": "b"}, None],
    "drop": [{"id": 1, "note": "a"}, {"id": 1, "note": "b"}],
}
"""What becomes of a row that is made, changed and deleted, by `Unwrap.deletes`; as JSON says it."""


def unwrapped(mode: Deletes) -> str:
    """The table whose deletions are told so."""
    return f"unwrapped_{mode.replace('-', '_')}"


@dataclass
class Source:
    """A shop in a database, with a connector that reads it; more tables are made by the tests that use them."""

    client: ConnectClient
    database: str
    prefix: str
    name: str
    shop: Shop
    topics: Topics
    signals: MySQLSignals
    connection: pymysql.Connection[Any]

    def topic(self, table: str) -> str:
        return f"{self.prefix}.{self.database}.{table}"

    def execute(self, *queries: str) -> Any:
        with self.connection.cursor() as cursor:
            for query in queries:
                cursor.execute(query)
            return cursor.fetchall()

    def notified(self, kind: str, signal: str = "", name: str = "") -> list[Message]:
        """Wait for a notification: of a snapshot that a signal began, or of the first one."""

        def told(messages: list[Message]) -> bool:
            return any(
                each.value["type"] == kind
                and (each.value["id"] == signal if signal else each.value["aggregate_type"] == name)
                for each in messages
            )

        return self.topics.wait(f"{self.prefix}.notifications", told)


@pytest.fixture(scope="module")
def source(stack: object) -> Iterator[Source]:
    with Namespace("debezium_mysql") as namespace, ConnectClient() as client, Topics() as topics:
        database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
        admin = pymysql.connect(**settings.mysql_address("admin").arguments(database=""), autocommit=True)
        with admin, Shop(MySQLTarget(settings.mysql_address("app"), database), customers=9, products=4) as shop:
            shop.create()
            shop.run(transactions=20)
            admin.select_db(database)
            signals = MySQLSignals(admin, f"{database}.signals")
            made = Source(client, database, prefix, name, shop, topics, signals, admin)
            role = settings.mysql_address("cdc").user
            signals.create()
            signals.grant(role)
            made.execute(
                "CREATE TABLE beats (id int PRIMARY KEY, at timestamp(3))", "INSERT INTO beats VALUES (1, NOW())"
            )
            made.execute(f"GRANT UPDATE ON beats TO `{role}`@'%'")
            client.apply(name, configuration(prefix, database).configuration())
            client.wait_ready(name)
            made.notified("COMPLETED", name="Initial Snapshot")
            yield made
            made.execute(f"REVOKE ALL ON beats FROM `{role}`@'%'", "DROP TABLE signals")
            signals.revoke(role)
            grants = made.execute(f"SHOW GRANTS FOR `{role}`@'%'")
            assert not [grant for (grant,) in grants if database in grant]


def configuration(prefix: str, database: str) -> MySQLSource:
    return MySQLSource(
        prefix=prefix,
        database=database,
        tables=[*TABLES, "growing", "large", "gone", *map(unwrapped, HANDLING)],
        times="isostring",
        schema_changes=True,
        transactions=True,
        heartbeat=0.2,
        heartbeat_query=f"UPDATE {database}.beats SET at = NOW(3)",
        signals=f"{database}.signals",
        chunk_rows=CHUNK,
        notifications=True,
        # Each table has a transformation of its own, by a predicate on the topic.
        transforms=[
            Unwrap(
                alias=unwrapped(mode),
                deletes=mode,
                headers=["op", "source.table"],
                only=Predicate.topics(f"of_{unwrapped(mode)}", rf".*\.{unwrapped(mode)}"),
            )
            for mode in HANDLING
        ],
    )


# -- envelopes -------------------------------------------------------------------------------------------------------


def test_the_shop_is_read_first_and_then_followed(source: Source) -> None:
    copy = Copy(source.topics, source.prefix, source.database)
    source.shop.run(transactions=40)
    source.shop.run(transactions=10, mix={"erase_customer": 1, "place_order": 2})
    assert copy.follow(source.shop.ledger) == ()
    assert source.shop.compare() == ()
    told = [message.value for topic in copy.topics for message in source.topics.messages[topic] if message.value]
    for topic in copy.topics:
        phases = [each.value["op"] for each in source.topics.messages[topic] if each.value]
        streamed = [phase != "r" for phase in phases]
        assert streamed == sorted(streamed), "a row of the snapshot came after a change"
    kinds = {(each["op"], each["before"] is None, each["after"] is None) for each in told}
    assert kinds == {("r", True, False), ("c", True, False), ("u", False, False), ("d", False, True)}
    for each in told:
        assert each["source"]["db"] == source.database
        assert (each["source"]["gtid"] is None) == (each["op"] == "r")


def test_a_transaction_tells_its_beginning_its_end_and_its_changes(source: Source) -> None:
    plan = source.shop.step("balanced", size=12)
    count = len(plan.operations)
    copy = Copy(source.topics, source.prefix, source.database)
    assert copy.follow(source.shop.ledger) == ()
    last = max(
        (each.value for topic in copy.topics for each in source.topics.messages[topic] if each.value),
        key=lambda value: (value["source"]["file"], value["source"]["pos"]),
    )
    name = last["transaction"]["id"]
    assert name == last["source"]["gtid"]
    bounds = source.topics.wait(
        f"{source.prefix}.transaction", lambda read: [m.value["status"] for m in read if m.value["id"] == name][1:]
    )
    begin, end = (each.value for each in bounds if each.value["id"] == name)
    assert (begin["status"], end["status"], end["event_count"]) == ("BEGIN", "END", count)
    within = [
        each.value["transaction"]["total_order"]
        for topic in copy.topics
        for each in source.topics.messages[topic]
        if each.value and each.value["op"] != "r" and each.value["transaction"]["id"] == name
    ]
    assert sorted(within) == list(range(1, count + 1))


def test_a_deletion_is_an_envelope_and_a_tombstone_behind_it(source: Source) -> None:
    source.execute(
        "CREATE TABLE gone (id int, region varchar(10), note text, PRIMARY KEY (region, id))",
        "INSERT INTO gone VALUES (1, 'north', 'a')",
        "DELETE FROM gone",
    )
    made, gone, tombstone = source.topics.wait(source.topic("gone"), lambda read: len(read) == 3)
    # The columns of the key come in the order of the table.
    assert made.key == gone.key == tombstone.key == {"id": 1, "region": "north"}
    assert (gone.value["op"], gone.value["before"]) == ("d", {"id": 1, "region": "north", "note": "a"})
    assert gone.value["after"] is None
    assert tombstone.value is None


# -- definitions -----------------------------------------------------------------------------------------------------


def test_a_change_of_the_definition_is_told_and_the_rows_behind_it_have_it(source: Source) -> None:
    source.execute(
        "CREATE TABLE growing (id int PRIMARY KEY, price decimal(6,2))",
        "INSERT INTO growing VALUES (1, 1.5)",
        "ALTER TABLE growing ADD COLUMN note varchar(20) NOT NULL DEFAULT 'none' AFTER id, MODIFY price decimal(8,3)",
        "INSERT INTO growing VALUES (2, 'two', 2.5)",
        "UPDATE growing SET note = 'one' WHERE id = 1",
        "ALTER TABLE growing DROP COLUMN price, RENAME COLUMN note TO remark",
        "INSERT INTO growing VALUES (3, 'three')",
    )
    rows = source.topics.wait(source.topic("growing"), lambda read: len(read) == 4)
    assert [each.value["after"] for each in rows] == [
        {"id": 1, "price": "1.50"},
        {"id": 2, "note": "two", "price": "2.500"},
        {"id": 1, "note": "one", "price": "1.500"},
        {"id": 3, "remark": "three"},
    ]
    assert rows[2].value["before"] == {"id": 1, "note": "none", "price": "1.500"}

    def of_ours(messages: list[Message]) -> list[Any]:
        return [each.value for each in messages if "growing" in each.value["ddl"]]

    told = of_ours(source.topics.wait(source.prefix, lambda read: len(of_ours(read)) >= 3))
    assert [each["ddl"].split()[0] for each in told] == ["CREATE", "ALTER", "ALTER"]
    columns = [[column["name"] for column in each["tableChanges"][0]["table"]["columns"]] for each in told]
    assert columns == [["id", "price"], ["id", "note", "price"], ["id", "remark"]]
    places = [(each["source"]["file"], each["source"]["pos"]) for each in told]
    changes = [(each.value["source"]["file"], each.value["source"]["pos"]) for each in rows]
    assert changes[0] < places[1] < changes[1] and changes[2] < places[2] < changes[3]


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(source: Source) -> Iterator[str]:
    """A table of ten rows; its name as signals have it."""
    source.execute("CREATE TABLE large (id int PRIMARY KEY, note text)")
    for number in range(10):
        source.execute(f"INSERT INTO large VALUES ({number}, 'made')")
    yield f"{source.database}.large"
    source.execute("DROP TABLE large")


def copied(messages: list[Message]) -> list[int]:
    """Keys that an incremental snapshot read."""
    return [each.key["id"] for each in messages if each.value and each.value["source"]["snapshot"] == "incremental"]


def test_an_incremental_snapshot_reads_chunk_after_chunk_the_rows_that_are_asked_for(
    source: Source, large: str
) -> None:
    before = len(source.topics.messages[source.topic("large")])
    name = source.signals.execute_snapshot(large, where={large: "id >= 3"})
    told = [each.value for each in source.notified("COMPLETED", name) if each.value["id"] == name]
    done = [int(each["additional_data"]["last_processed_key"]) for each in told if each["type"] == "IN_PROGRESS"]
    assert done == [6, 9]
    read = source.topics.wait(source.topic("large"), lambda read: len(copied(read[before:])) >= 7)
    assert copied(read[before:]) == [3, 4, 5, 6, 7, 8, 9]
    # The marks around a chunk are taken away again; the signal itself stays.
    marks = "SELECT count(*) FROM signals WHERE type LIKE 'snapshot-window%'"
    wait_for(lambda: source.execute(marks) == ((0,),))


def test_a_snapshot_rests_while_changes_go_on_and_does_not_put_old_rows_over_them(source: Source, large: str) -> None:
    before = len(source.topics.messages[source.topic("large")])
    # In one transaction, so that it pauses at its first chunk.
    source.connection.begin()
    name = source.signals.execute_snapshot(large)
    source.signals.pause_snapshot()
    source.connection.commit()
    source.notified("PAUSED", name)
    source.execute("UPDATE large SET note = 'changed' WHERE id = 9", "DELETE FROM large WHERE id = 8")
    source.topics.wait(source.topic("large"), lambda read: read[before:] and read[-1].value is None)
    assert 9 not in copied(source.topics.messages[source.topic("large")][before:])
    source.signals.resume_snapshot()
    source.notified("COMPLETED", name)
    read = source.topics.wait(source.topic("large"), lambda read: 9 in copied(read[before:]))
    last = {each.key["id"]: each.value and each.value["after"] for each in read[before:]}
    assert {key: row and row["note"] for key, row in last.items()} == {
        **dict.fromkeys(range(8), "made"),
        8: None,
        9: "changed",
    }


def test_a_snapshot_is_stopped(source: Source, large: str) -> None:
    before = len(source.topics.messages[source.topic("large")])
    source.connection.begin()
    name = source.signals.execute_snapshot(large)
    source.signals.pause_snapshot()
    source.connection.commit()
    source.notified("PAUSED", name)
    # One that rests takes notice of it when it goes on.
    source.signals.stop_snapshot()
    source.signals.resume_snapshot()
    source.notified("ABORTED", name="Incremental Snapshot")
    source.notified("COMPLETED", name)
    # The source takes the next one.
    again = source.signals.execute_snapshot(large, where={large: "id = 5"})
    source.notified("COMPLETED", again)
    read = source.topics.wait(source.topic("large"), lambda read: copied(read[before:])[-1:] == [5])
    assert len(copied(read[before:])) <= CHUNK + 1


# -- heartbeats ------------------------------------------------------------------------------------------------------


def test_heartbeats_move_the_offset_on_while_the_tables_rest(source: Source) -> None:
    """The statement of a heartbeat is a transaction too: what is remembered moves on, and log may be purged."""

    def remembered() -> str:
        return str(source.client.offsets(source.name)[0].offset)

    first, beat = remembered(), source.execute("SELECT at FROM beats")
    heard = len(source.topics.wait(f"{source.prefix}.heartbeat", lambda read: read))
    source.topics.wait(f"{source.prefix}.heartbeat", lambda read: len(read) >= heard + 3)
    wait_for(lambda: remembered() != first)
    wait_for(lambda: source.execute("SELECT at FROM beats") > beat)


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- lost connections ------------------------------------------------------------------------------------------------


def test_a_connection_that_is_lost_in_the_snapshot_is_opened_again(source: Source) -> None:
    """Debezium 3.1 to 3.6 end the task there, for good, unless they are told what an error of a connection says."""
    with Namespace("lost") as namespace, ConnectClient() as client, Topics() as topics:
        database, prefix, name = namespace.mysql_database(), namespace.topic_prefix(), namespace.connector()
        made = MySQLSource(prefix=prefix, database=database, tables=["orders"], retry_wait=0.5)
        source.execute(
            f"CREATE DATABASE {database}",
            f"CREATE TABLE {database}.orders (id int PRIMARY KEY)",
            f"INSERT INTO {database}.orders VALUES (1)",
            # The snapshot begins with a lock, which it does not get.
            f"LOCK TABLES {database}.orders WRITE",
        )
        try:
            client.apply(name, made.configuration())
            lock = "SELECT id FROM information_schema.processlist WHERE info = 'FLUSH TABLES WITH READ LOCK'"
            wait_for(lambda: source.execute(lock))
            ((waiting,),) = source.execute(lock)
            source.execute(f"KILL {waiting}")
        finally:
            source.execute("UNLOCK TABLES")
        (row,) = topics.wait(f"{prefix}.{database}.orders", lambda read: read)
        assert (row.key, row.value["op"]) == ({"id": 1}, "r")
        assert client.status(name).ready


# -- unwrapped -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", HANDLING)
def test_each_way_to_tell_a_deletion_of_an_unwrapped_row(source: Source, mode: Deletes) -> None:
    table = unwrapped(mode)
    source.execute(
        f"CREATE TABLE {table} (id int PRIMARY KEY, note text)",
        f"INSERT INTO {table} VALUES (1, 'a')",
        f"UPDATE {table} SET note = 'b'",
        f"DELETE FROM {table}",
        # Behind it, to see that nothing else came.
        f"INSERT INTO {table} VALUES (2, 'end')",
    )
    told = source.topics.wait(source.topic(table), lambda read: read and read[-1].key == {"id": 2})[:-1]
    assert [each.value for each in told] == HANDLING[mode]
    # To Kafka the text is a value: compaction keeps it, and a sink reads a row that is null.
    assert [each.raw for each in told if each.value is None] == {"tombstone": [b"null"]}.get(
        mode, [None] * HANDLING[mode].count(None)
    )
    assert [each.headers.get("__op") for each in told[:2]] == ["c", "u"]
    assert {each.headers.get("__source_table") for each in told[:2]} == {table}
