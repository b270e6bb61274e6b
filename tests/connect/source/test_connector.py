"""`DatabaseSourceConnector` on real servers: what arrives in Kafka, where it goes on, and what ends it."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cdc.binlog.conftest import MySQLShop
from cdc.conftest import Shop, eventually

from streamlab import metrics, settings
from streamlab.cdc import LSN, MySQLCDC, PollingSource, PostgreSQLCDC
from streamlab.connect import DatabaseSourceConnector
from streamlab.errors import CheckpointError, ConnectError, Fenced, NotDelivered, PublicationUnusable, SettingsError
from streamlab.retry import RetryPolicy
from streamlab.stack.namespace import Namespace

from .topics import Found, records

pytestmark = pytest.mark.integration


class World(ABC):
    """A shop, a connector's name and topics, all of one test."""

    def __init__(self, namespace: Namespace, shop: Any, schema: str) -> None:
        self.namespace, self.shop, self.schema = namespace, shop, schema
        self.prefix, self.name = namespace.topic_prefix(), namespace.name
        self.made: list[DatabaseSourceConnector] = []

    @abstractmethod
    def source(self, after: str | None) -> Any:
        """What is read, after a position."""

    @abstractmethod
    def execute(self, query: str) -> None:
        """Run a statement in the shop."""

    def connector(self, **options: Any) -> DatabaseSourceConnector:
        name, source = options.pop("name", self.name), options.pop("source", self.source)
        connector = DatabaseSourceConnector(name, source, prefix=self.prefix, **options)
        self.made.append(connector)
        return connector

    def found(self, table: str = "orders", **options: Any) -> list[Found]:
        return records(f"{self.prefix}.{self.schema}.{table}", **options)

    def close(self) -> None:
        for each in self.made:
            each.close()
        self.shop.close()


class PostgreSQLWorld(World):
    def __init__(self, namespace: Namespace, directory: Path) -> None:
        shop = Shop(namespace)
        super().__init__(namespace, shop, shop.schema)
        shop.reader(tables=[shop.orders, f"{shop.schema}.other"])

    def source(self, after: str | None) -> PostgreSQLCDC:
        resume = LSN.parse(after) if after else None
        return PostgreSQLCDC(settings.postgres_dsn("cdc"), self.shop.publication, self.shop.slot, resume_after=resume)

    def execute(self, query: str) -> None:
        self.shop.app.execute(query)


class MySQLWorld(World):
    def __init__(self, namespace: Namespace, directory: Path) -> None:
        shop = MySQLShop(namespace, directory)
        super().__init__(namespace, shop, shop.database)
        self.begin = str(shop.reader().written())

    def source(self, after: str | None) -> MySQLCDC:
        return MySQLCDC(
            settings.mysql_address("cdc"), self.name, tables=[f"{self.schema}.*"], resume_after=after or self.begin
        )

    def execute(self, query: str) -> None:
        self.shop.execute(query, connection=self.shop.app)


def world_of(kind: type[World], directory: Path) -> Iterator[Any]:
    with Namespace("connect_source") as namespace:
        made = kind(namespace, directory)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def world(stack: object, tmp_path: Path) -> Iterator[World]:
    yield from world_of(PostgreSQLWorld, tmp_path)


@pytest.fixture
def mysql(stack: object, tmp_path: Path) -> Iterator[World]:
    yield from world_of(MySQLWorld, tmp_path)


@pytest.fixture(params=[PostgreSQLWorld, MySQLWorld])
def either(stack: object, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    yield from world_of(request.param, tmp_path)


def delivered(connector: DatabaseSourceConnector, changes: int) -> None:
    """Poll until so many changes are in Kafka, since the connector was first started."""
    while connector.offset is None or connector.offset.records < changes:
        assert connector.poll(30)


# -- what arrives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transactional", [True, False])
def test_changes_of_either_database_arrive_keyed_and_in_order(either: World, transactional: bool) -> None:
    either.execute("INSERT INTO orders VALUES (1, 'ü', 1.50), (2, NULL, NULL)")
    either.execute("UPDATE orders SET note = 'x' WHERE id = 1")
    either.execute("UPDATE orders SET id = 3 WHERE id = 1")
    either.execute("DELETE FROM orders WHERE id = 2")
    either.execute("INSERT INTO other VALUES (1)")
    with either.connector(transactional=transactional) as connector:
        delivered(connector, 6)
    found = either.found()
    assert [(each.headers["op"], each.key["id"], each.value and each.value["op"]) for each in found] == [
        ("c", 1, "c"), ("c", 2, "c"), ("u", 1, "u"), ("d", 1, "d"), ("d", 1, None), ("u", 3, "u"), ("d", 2, "d"),
        ("d", 2, None),
    ]  # fmt: skip
    assert (
        found[0].value["after"] == {"id": 1, "note": "ü", "total": "1.50"} or found[0].value["after"]["total"] == "1.5"
    )
    assert [int(each.headers["ordinal"]) for each in found[:2]] == [0, 1]
    assert found[0].headers["position"] == found[1].headers["position"] == found[0].value["source"]["position"]
    times = [each.timestamp for each in found]
    assert times == sorted(times)
    assert found[0].value["ts"].endswith("+00:00")
    assert [each.key for each in either.found("other")] == [{"id": 1}]


def test_a_table_that_is_left_out_is_passed_over_for_good(world: World) -> None:
    world.execute("INSERT INTO other VALUES (1)")
    world.execute("INSERT INTO orders VALUES (1)")
    with world.connector(tables=["*.orders"]) as connector:
        delivered(connector, 2)
    assert len(world.found()) == 1
    assert world.found("other") == []
    with world.connector() as connector:
        assert connector.poll(0.5) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tables": "public.orders"}, "tables is the string 'public.orders'"),
        ({"tables": [5]}, "no list of names"),
        ({"name": ""}, "'' cannot be the name of a connector"),
        ({"prefix": ""}, "'' cannot be the name of a prefix"),
        ({"source": None}, "source is None, which cannot be read"),
        ({"route": "orders"}, "route is a str"),
        ({"transactional": "no"}, "transactional='no'"),
        ({"tombstones": 1}, "tombstones=1"),
        ({"headers": None}, "headers=None"),
        ({"max_rows": 0}, "max_rows=0 is no such number"),
        ({"max_rows": 1.5}, "max_rows=1.5 is no such number"),
        ({"max_wait": -1}, "max_wait=-1 is no time"),
        ({"max_wait": float("nan")}, "max_wait=nan is no time"),
        ({"partitions": 0}, "partitions=0 is no such number"),
        ({"offsets_topic": ""}, "'' cannot be the name of a topic"),
        ({"bootstrap": 9092}, "bootstrap is a int"),
        ({"kafka": ["x"]}, "kafka is a list"),
        ({"restart": 3}, "restart is a int"),
    ],
)
def test_arguments_are_refused_by_name_before_a_server_is_asked(options: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"name": "shop", "source": lambda _: None, "prefix": "shop", **options}
    with pytest.raises(SettingsError, match=said):
        DatabaseSourceConnector(**given)


def test_the_first_snippet_of_the_page_delivers_as_it_is_written(stack: object) -> None:
    page = (Path(__file__).parents[3] / "docs/connect.md").read_text(encoding="utf-8")
    written = page.split("```python\n")[1].split("```")[0]
    with Namespace("connect_page") as namespace:
        shop, prefix = Shop(namespace), namespace.topic_prefix()
        names = {
            '"warehouse", source': f'"{namespace.name}", source', '"warehouse"': f'"{shop.slot}"',
            'prefix="shop"': f'prefix="{prefix}"', '"shop"': f'"{shop.publication}"', "public.orders": shop.orders,
            "    ...\n": "    meanwhile(connector)\n",
        }  # fmt: skip
        for own, ours in names.items():
            assert own in written
            written = written.replace(own, ours)
        told: list[Any] = []
        try:
            for number in (1, 2):  # and again, as after a restart

                def meanwhile(connector: DatabaseSourceConnector, number: int = number) -> None:
                    shop.insert(number)
                    eventually(lambda: connector.offset is not None and connector.offset.records == number)

                exec(written, {"meanwhile": meanwhile, "print": told.append})  # noqa: S102 - the page's own text
            assert [each.records for each in told] == [1, 2]
            assert [each.key["id"] for each in records(f"{prefix}.{shop.orders}")] == [1, 2]
        finally:
            shop.close()


def test_partitions_are_those_of_javas_clients(world: World) -> None:
    world.execute("INSERT INTO orders SELECT i FROM generate_series(1, 200) i")
    with world.connector(partitions=7) as connector:
        delivered(connector, 200)
    found = world.found()
    assert len(found) == 200
    for each in found:
        key = b'{"id":%d}' % each.key["id"]
        assert each.partition == (murmur2(key) & 0x7FFFFFFF) % 7
    assert len({each.partition for each in found}) == 7


def murmur2(data: bytes) -> int:
    """As in org.apache.kafka.common.utils.Utils."""
    length, mask = len(data), 0xFFFFFFFF
    value = 0x9747B28C ^ length
    for (word,) in struct.iter_unpack("<I", data[: length // 4 * 4]):
        word = word * 0x5BD1E995 & mask
        word = (word ^ word >> 24) * 0x5BD1E995 & mask
        value = value * 0x5BD1E995 & mask ^ word
    rest = data[length // 4 * 4 :]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & mask
    value = (value ^ value >> 13) * 0x5BD1E995 & mask
    return value ^ value >> 15


def test_memory_is_bounded_where_kafka_is_slower(world: World) -> None:
    world.execute("INSERT INTO orders SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i")
    queue = {"queue.buffering.max.messages": 100, "linger.ms": 1}
    with world.connector(kafka=queue, max_rows=2000) as connector:
        delivered(connector, 5000)
    assert [each.key["id"] for each in world.found()] == list(range(1, 5001))


@pytest.mark.parametrize("transactional", [True, False])
def test_a_large_transaction_is_committed_in_parts_and_gone_on_with(world: World, transactional: bool) -> None:
    world.execute("INSERT INTO orders VALUES (0)")
    world.execute("INSERT INTO orders SELECT i FROM generate_series(1, 2500) i")
    before = commits(world.name)
    with world.connector(max_rows=1000, transactional=transactional) as connector:
        delivered(connector, 2501)
        # One row, then 1000, 1000 and 500.
        assert commits(world.name) - before == 4
        assert connector.offset is not None
        assert connector.offset.ordinal == 2499
    assert [each.key["id"] for each in world.found()] == list(range(2501))


def commits(name: str) -> float:
    return metrics.REGISTRY.get_sample_value("streamlab_connect_commits_total", {"connector": name}) or 0


# -- where it goes on --------------------------------------------------------------------------------------------------


def test_what_was_delivered_and_not_acknowledged_is_passed_over(world: World) -> None:
    """As after a kill between the commit and the acknowledgement: the source sends everything again."""
    source = world.source(None)
    try:
        world.execute("INSERT INTO orders VALUES (1), (2)")
        world.execute("INSERT INTO orders VALUES (3)")
        with world.connector(source=source, max_rows=1) as connector:
            acknowledge, source.acknowledge = source.acknowledge, lambda upto: None  # type: ignore[method-assign]
            delivered(connector, 3)
            connector.close()
            assert connector.poll(30) == 2, "it came again"
            source.acknowledge = acknowledge  # type: ignore[method-assign]
            connector.close()
            world.execute("INSERT INTO orders VALUES (4)")
            delivered(connector, 4)
    finally:
        source.close()
    assert [each.key["id"] for each in world.found()] == [1, 2, 3, 4]


def test_a_thread_delivers_until_it_is_stopped_and_can_be_started_again(either: World) -> None:
    with either.connector() as connector:
        connector.start()
        assert connector.running
        with pytest.raises(ConnectError, match="runs already"):
            connector.start()
        with pytest.raises(ConnectError, match="thread"):
            connector.poll()
        either.execute("INSERT INTO orders VALUES (1, 'a', 1.5)")
        eventually(lambda: connector.offset and connector.offset.records == 1)
        connector.stop()
        assert not connector.running
        either.execute("INSERT INTO orders VALUES (2, 'a', 1.5)")
        connector.start()
        eventually(lambda: connector.offset and connector.offset.records == 2)
        connector.stop()
    assert [each.key["id"] for each in either.found()] == [1, 2]


def test_a_snapshot_of_mysql_is_delivered_and_then_the_stream(mysql: World) -> None:
    mysql.execute("INSERT INTO orders VALUES (1, 'a', 1.5), (2, 'a', 1.5)")
    mysql.execute("INSERT INTO other VALUES (5)")

    def source(after: str | None) -> MySQLCDC:
        tables = [f"{mysql.schema}.*"]
        return MySQLCDC(
            settings.mysql_address("cdc"), mysql.name, tables=tables, resume_after=after, snapshot="initial"
        )

    with mysql.connector(source=source, max_rows=1) as connector:
        delivered(connector, 2)
        assert connector.offset is not None
        assert connector.offset.snapshot
        assert not connector.offset.resume_after, "a snapshot that is not complete is no place to go on from"
        delivered(connector, 3)
        # At the position of the snapshot, with the ordinals of its first rows.
        mysql.execute("INSERT INTO orders VALUES (3, 'a', 1.5)")
        delivered(connector, 4)
        assert connector.offset.resume_after
    with mysql.connector(source=source) as connector:
        mysql.execute("INSERT INTO orders VALUES (4, 'a', 1.5)")
        delivered(connector, 5)
    assert [(each.key["id"], each.headers["op"]) for each in mysql.found()] == [(1, "r"), (2, "r"), (3, "c"), (4, "c")]
    assert [each.key["id"] for each in mysql.found("other")] == [5]


@pytest.mark.parametrize("mode", ["incrementing", "bulk"])
def test_a_table_that_is_polled_is_delivered_and_gone_on_with(either: World, mode: str) -> None:
    """Its position is in Kafka alone."""
    address = settings.postgres_dsn("app") if isinstance(either, PostgreSQLWorld) else settings.mysql_address("app")
    watched = {"incrementing": "id"} if mode == "incrementing" else {}

    def source(after: str | None) -> PollingSource:
        return PollingSource(
            address, f"{either.schema}.orders", mode=mode, resume_after=after, interval=0.02, **watched
        )

    either.execute("INSERT INTO orders VALUES (1, 'a', 1.5), (2, 'a', 1.5)")
    with either.connector(source=source, max_rows=1) as connector:
        delivered(connector, 2)
    either.execute("INSERT INTO orders VALUES (3, 'a', 1.5)")
    with either.connector(source=source, max_rows=1) as connector:
        delivered(connector, 3 if mode == "incrementing" else 5)
    found = [(each.key["id"], each.headers["op"]) for each in either.found()]
    if mode == "incrementing":
        assert found == [(1, "c"), (2, "c"), (3, "c")]
    else:
        assert found[-3:] == [(1, "r"), (2, "r"), (3, "r")]


def test_connectors_share_a_topic_of_offsets(world: World, mysql: World) -> None:
    topic = f"{world.prefix}.shared"
    world.execute("INSERT INTO orders VALUES (1)")
    mysql.execute("INSERT INTO orders (id) VALUES (1), (2)")
    with world.connector(offsets_topic=topic) as one, mysql.connector(offsets_topic=topic) as two:
        delivered(one, 1)
        delivered(two, 2)
        one.close()
        assert one.poll(0.2) == 0
        assert one.offset is not None
        assert one.offset.records == 1


# -- what ends it ------------------------------------------------------------------------------------------------------


def test_a_zombie_is_fenced_before_it_commits(mysql: World) -> None:
    """Two readers of one binary log, as when a machine was cut off, and another took over."""
    zombie, successor = mysql.connector(), mysql.connector()
    mysql.execute("INSERT INTO orders (id) VALUES (1)")
    delivered(zombie, 1)
    mysql.execute("INSERT INTO orders (id) VALUES (2)")
    delivered(successor, 2)
    with pytest.raises(Fenced, match="Another connector of this name") as fenced:
        zombie.poll(30)
    assert "different names" in fenced.value.fix
    assert [each.key["id"] for each in mysql.found()] == [1, 2]


def test_a_zombie_in_a_thread_ends_and_does_not_fence_back(mysql: World) -> None:
    zombie, successor = mysql.connector(), mysql.connector()
    zombie.start()
    mysql.execute("INSERT INTO orders (id) VALUES (1)")
    eventually(lambda: zombie.offset and zombie.offset.records == 1)
    assert successor.poll(0.1) == 0  # it has begun
    mysql.execute("INSERT INTO orders (id) VALUES (2)")
    eventually(lambda: not zombie.running)
    with pytest.raises(Fenced):
        zombie.stop()
    delivered(successor, 2)
    assert [each.key["id"] for each in mysql.found()] == [1, 2]


def test_a_position_of_another_source_is_refused(world: World, mysql: World) -> None:
    topic = f"{world.prefix}.shared"
    world.execute("INSERT INTO orders VALUES (1)")
    with world.connector(name="same", offsets_topic=topic) as connector:
        delivered(connector, 1)
    mysql.execute("INSERT INTO orders (id) VALUES (1)")
    # A source that is given as it is begins where it likes.
    source = mysql.source(None)
    try:
        with mysql.connector(name="same", offsets_topic=topic, source=source) as connector:
            with pytest.raises(CheckpointError, match="another name"):
                connector.poll(30)
    finally:
        source.close()


@pytest.mark.parametrize("transactional", [True, False])
def test_a_record_that_kafka_does_not_take_ends_it_and_is_not_passed_over(world: World, transactional: bool) -> None:
    world.execute("INSERT INTO orders SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 40000) i")
    world.execute("INSERT INTO orders VALUES (2)")
    small = RetryPolicy(attempts=3, seconds=20, base=0.01, cap=0.02)
    with world.connector(transactional=transactional, restart=small) as connector:
        connector.start()
        eventually(lambda: not connector.running)
        with pytest.raises(NotDelivered, match="larger than Kafka takes"):
            connector.stop()
        assert connector.offset is None
    assert world.found() == []


def test_a_refusal_of_the_source_ends_it_with_its_reason(world: World) -> None:
    connector = world.connector(source=lambda after: world.shop.reader(initialize=False, publication="no_such"))
    connector.start()
    eventually(lambda: not connector.running)
    with pytest.raises(PublicationUnusable):
        connector.stop()
    connector.stop()


def test_a_lost_connection_of_the_source_is_made_again(world: World) -> None:
    with world.connector() as connector:
        connector.start()
        world.execute("INSERT INTO orders VALUES (1)")
        eventually(lambda: connector.offset and connector.offset.records == 1)
        world.shop.kill_walsender()
        world.execute("INSERT INTO orders VALUES (2)")
        eventually(lambda: connector.offset and connector.offset.records == 2)
    assert [each.key["id"] for each in world.found()] == [1, 2]
