"""`which_cdc`: the ways from a database's log to a handler or into Kafka, on the same rows.

400,000 rows a measurement, of six columns and 1000 a transaction, are written while the reader stands still; then it
catches up. Debezium is the reference: tuned and warm (see `benchmarks.debezium_worker`), measured from its first record
to its last, so that its start is not counted; the start of ours is. Latency is from the moment before the INSERT is
sent, at 100 transactions a second.
"""

from __future__ import annotations

import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import orjson
import psutil
from confluent_kafka import Consumer, TopicPartition

from benchmarks.case import Bench, Benchmark, Case, Reference
from benchmarks.debezium_worker import Debezium, Usage, end_of, tuned_worker
from benchmarks.which_cdc_topics import consume_and_loads, topic_events, topic_frames
from benchmarks.which_tables import TABLE, MySQLTable, PostgreSQLTable, Table, steadily
from streamlab import settings
from streamlab.cdc import ChangeEvent, MySQLCDC, PostgreSQLCDC
from streamlab.cdc.followed import Followed
from streamlab.connect import DatabaseSourceConnector

__all__ = ["BENCHMARK"]

ROWS, WARM = 400_000, 600_000
LATENCY_RATE, LATENCY_SECONDS = 100, 20.0
TYPES = {
    TABLE: {"id": "int", "customer_id": "int", "status": "text", "amount": "decimal", "created_at": "timestamptz",
            "paid": "bool"}
}  # fmt: skip


class Field:
    """Servers, tables and the two sources of Debezium, made for the first case.

    Used by one thread.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.rows = 20_000 if bench.quick else ROWS
        self.usage: dict[str, list[Usage]] = {}
        bench.servers.up(["postgres", "mysql", "kafka"])
        with ExitStack() as held:
            self._make(held)
            self._held = held.pop_all()

    def _make(self, held: ExitStack) -> None:
        self.tables: dict[str, Table] = {}
        kinds: tuple[type[Table], ...] = (PostgreSQLTable, MySQLTable)
        for table in (kind() for kind in kinds):
            held.callback(table.close)
            self.tables[table.kind] = table
        worker = held.enter_context(tuned_worker(self._bench.servers.stack))
        self.debezium: dict[str, Debezium] = {}
        for kind, table in self.tables.items():
            source = self.debezium[kind] = Debezium(table, worker)
            held.callback(source.close)
            source.measure(self.rows if self._bench.quick else WARM)  # warms it

    def close(self) -> None:
        """Take away what was made."""
        self._held.close()

    # -- rates ------------------------------------------------------------------------------------

    def _note(self, way: str, usage: Usage) -> float:
        self.usage.setdefault(way, []).append(usage)
        return usage.rate

    def debezium_rate(self, kind: str) -> float:
        """Rows per second of Debezium, into Kafka."""
        return self._note(f"debezium-{kind}", self.debezium[kind].measure(self.rows))

    def direct_rate(self, kind: str) -> float:
        """Rows per second of our direct reader, to a handler that looks at every value."""
        with direct(kind) as cdc:
            next(cdc.transactions(idle=0.1), None)
            self.tables[kind].fill(self.rows)
            return self._note(f"direct-{kind}", drained(cdc, self.rows))

    def connector_rate(self, way: str) -> float:
        """Rows per second of our own connector, from PostgreSQL into Kafka, each batch acknowledged by the broker."""
        cdc = PostgreSQLCDC(settings.postgres_dsn("cdc"), TABLE, "sl_which_connector", lazy=True)
        try:
            cdc.initialize()
            self.tables["postgres"].fill(self.rows)
            begin, cpu, found = time.perf_counter(), time.process_time(), 0
            with DatabaseSourceConnector(
                way, cdc, prefix=way, transactional="transactional" in way, max_rows=50_000, headers=False
            ) as connector:
                while found < self.rows:
                    found += connector.poll(1.0)
                seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        finally:
            cdc.drop(publication=False)
        memory = psutil.Process().memory_info().rss / 2**20
        return self._note(way, Usage(found / seconds, cpu / found * 100_000, memory))

    def mysql_replication_rate(self) -> float:
        """Rows per second of mysql-replication, of a tenth of the rows."""
        from pymysqlreplication import BinLogStreamReader
        from pymysqlreplication.row_event import WriteRowsEvent

        table = self.tables["mysql"]
        address = settings.mysql_address("cdc")
        with closing(MySQLCDC(address, tables=[f"{table.where}.{TABLE}"])) as place:
            gtids = str(place.written()).rpartition(" ")[2]
        rows = self.rows // 10
        table.fill(rows)
        with warnings.catch_warnings(), closing(
            BinLogStreamReader(
                connection_settings=address.arguments(database=""), server_id=4_100_000_000, auto_position=gtids,
                only_events=[WriteRowsEvent], only_schemas=[table.where],
            )
        ) as stream:  # fmt: skip
            warnings.simplefilter("ignore")
            begin, found = time.perf_counter(), 0
            for event in stream:
                for row in event.rows:
                    for _value in row["values"].values():
                        pass
                    found += 1
                if found >= rows:
                    return found / (time.perf_counter() - begin)
        raise RuntimeError("mysql-replication ended before it had read everything")

    # -- latency ----------------------------------------------------------------------------------

    def latencies(self, way: str) -> list[float]:
        """Seconds from before the INSERT to whoever receives it, of each of 100 transactions a second."""
        way, _, kind = way.partition("-")
        table, sent = self.tables[kind], dict[int, float]()
        late: list[float] = []

        def write() -> None:
            sent[table.rows + 1] = time.perf_counter()
            table.one()

        def received(number: int) -> None:
            if number in sent:
                late.append(time.perf_counter() - sent[number])

        with getattr(self, f"_{way}")(kind, received):
            count = steadily(write, LATENCY_RATE, 2.0 if self._bench.quick else LATENCY_SECONDS)
            deadline = time.monotonic() + 30
            while len(late) < count:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{way}-{kind}: {len(late)} of {count} changes were received")
                time.sleep(0.05)
        return late

    @contextmanager
    def _direct(self, kind: str, received: Callable[[int], None]) -> Iterator[None]:
        with direct(kind) as cdc:
            cdc.add_handler(lambda event: received(event.new_data["id"]))
            cdc.start()
            yield
            cdc.stop()

    @contextmanager
    def _debezium(self, kind: str, received: Callable[[int], None]) -> Iterator[None]:
        source = self.debezium[kind]
        source.start()
        with _consuming(source.topic, received):
            yield
        source.stop()

    @contextmanager
    def _connector(self, kind: str, received: Callable[[int], None]) -> Iterator[None]:
        cdc = PostgreSQLCDC(settings.postgres_dsn("cdc"), TABLE, "sl_which_connector")
        try:
            cdc.initialize()
            with DatabaseSourceConnector("connector-latency", cdc, prefix="connector-latency", max_wait=0.01) as made:
                made.start()
                with _consuming(f"connector-latency.{self.tables[kind].where}.{TABLE}", received):
                    yield
                made.stop()
        finally:
            cdc.drop(publication=False)


@contextmanager
def _consuming(topic: str, received: Callable[[int], None]) -> Iterator[None]:
    """A consumer of what comes into a topic from now on, in a thread."""
    over, place = threading.Event(), TopicPartition(topic, 0, end_of(topic))
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap(), "group.id": "sl_which_latency", "log_level": 0,
         "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 200}
    )  # fmt: skip
    consumer.assign([place])

    def consume() -> None:
        while not over.is_set():
            message = consumer.poll(0.05)
            value = message.value() if message is not None and message.error() is None else None
            if value is not None:
                received(orjson.loads(value)["after"]["id"])

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        consumer.close()


@contextmanager
def direct(kind: str) -> Iterator[Followed]:
    """Our own reader of a database's log, from now on."""
    made: Followed
    if kind == "mysql":
        with MySQLCDC.session(settings.mysql_address("cdc"), [f"sl_which.{TABLE}"]) as made:
            yield made
    else:
        with PostgreSQLCDC.session(settings.postgres_dsn("cdc"), publication=TABLE) as made:
            yield made


def drained(cdc: Followed, rows: int) -> Usage:
    """Have a handler look at every value of so many changes."""
    process, found, done = psutil.Process(), 0, threading.Event()

    def look(event: ChangeEvent) -> None:
        nonlocal found
        for _value in event.new_data.values():
            pass
        found += 1
        if found >= rows:
            done.set()

    cdc.add_handler(look)
    begin, cpu = time.perf_counter(), time.process_time()
    cdc.start()
    if not done.wait(300):
        cdc.stop()
        raise RuntimeError(f"a reader found {found} of {rows} changes")
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    cdc.stop()
    return Usage(rows / seconds, cpu / rows * 100_000, process.memory_info().rss / 2**20)


# -- cases ------------------------------------------------------------------------------------------------------------


@contextmanager
def field(bench: Bench) -> Iterator[Field]:
    """The field of this run; it goes with the servers."""
    if "which_cdc" not in bench.shared:
        bench.shared["which_cdc"] = Field(bench)
    yield bench.shared["which_cdc"]


class Latency:
    """What one way takes at 100 transactions a second; each run is told of in two figures."""

    def __init__(self, made: Field, way: str) -> None:
        self._made, self._way = made, way
        self._found: dict[int, list[float]] = {50: [], 99: []}

    def percentile(self, number: int) -> float:
        """Milliseconds, of so many percent."""
        if not self._found[number]:
            late = sorted(self._made.latencies(self._way))
            for each, found in self._found.items():
                found.append(late[max(0, -(-len(late) * each // 100) - 1)] * 1e3)
        return self._found[number].pop()


def _usage(way: str, rate: Callable[[Field], float], figure: Callable[[Usage], float], made: Field) -> float:
    """What a way took, as its rate was measured; measured now where it was not."""
    if way not in made.usage:
        rate(made)
    return statistics.median(figure(each) for each in made.usage[way])


@contextmanager
def _latency(way: str, bench: Bench) -> Iterator[Latency]:
    with field(bench) as made:
        if f"latency {way}" not in bench.shared:
            bench.shared[f"latency {way}"] = Latency(made, way)
        yield bench.shared[f"latency {way}"]


def _debezium(kind: str) -> Callable[[Any], float]:
    return lambda made: float(made.debezium_rate(kind))


def _direct(kind: str) -> Callable[[Any], float]:
    return lambda made: float(made.direct_rate(kind))


def _connector(way: str) -> Callable[[Any], float]:
    return lambda made: float(made.connector_rate(way))


WAYS: dict[str, tuple[str, Callable[[Any], float]]] = {
    "direct-postgres": ("PostgreSQLCDC to a handler", _direct("postgres")),
    "direct-mysql": ("MySQLCDC to a handler", _direct("mysql")),
    "connector-postgres": ("DatabaseSourceConnector into Kafka", _connector("connector-postgres")),
    "debezium-postgres": ("Debezium PostgreSQL into Kafka", _debezium("postgres")),
    "debezium-mysql": ("Debezium MySQL into Kafka", _debezium("mysql")),
}


def _cases() -> Iterator[Case[Any]]:
    def case(name: str, work: str, ours: Callable[[Any], float], *references: Reference[Any], **more: Any) -> Case[Any]:
        return Case(
            name=name, work=work, ours=ours, references=references,
            **{"unit": "rows/s", "setup": field, "rounds": 3, "quick_rounds": 1, **more},
        )  # fmt: skip

    postgres, mysql = _debezium("postgres"), _debezium("mysql")
    yield case(
        "connector-postgres", "into Kafka, idempotent", _connector("connector-postgres"),
        Reference("Debezium PostgreSQL", postgres, 2.0),
    )  # fmt: skip
    yield case(
        "connector-transactional", "into Kafka, exactly once", _connector("connector-transactional"),
        Reference("Debezium PostgreSQL", postgres),
    )  # fmt: skip
    yield case(
        "direct-mysql", "MySQLCDC, handler included", _direct("mysql"),
        Reference("Debezium MySQL", mysql, 2.5),
        Reference("mysql-replication", lambda made: float(made.mysql_replication_rate()), 10.0),
    )  # fmt: skip
    yield case(
        "direct-postgres", "PostgreSQLCDC, handler included", _direct("postgres"),
        Reference("Debezium PostgreSQL", postgres),
    )  # fmt: skip
    for name, goal, measure in (("events", 0.4, topic_events), ("frames", 1.0, topic_frames)):
        yield case(
            f"topic-{name}", f"DebeziumSource to typed {name}", partial(_of_topic, measure, types=TYPES),
            Reference("consume + orjson.loads", partial(_of_topic, consume_and_loads), goal),
        )  # fmt: skip
    one: dict[str, Any] = {"rounds": 1, "smaller_is_better": True}
    for way, (work, rate) in WAYS.items():
        yield case(
            f"cpu-{way}", work, partial(_usage, way, rate, lambda used: used.processor), unit="CPU-s/100k rows", **one
        )
        yield case(f"memory-{way}", work, partial(_usage, way, rate, lambda used: used.memory), unit="MiB", **one)
        for number in (50, 99):
            yield case(
                f"p{number}-{way}", f"INSERT to receiver, {number} %", partial(_percentile, number),
                setup=partial(_latency, way), unit="ms", **one,
            )  # fmt: skip


def _of_topic(measure: Callable[..., float], made: Field, **options: Any) -> float:
    """Records per second of the topic that Debezium has filled from PostgreSQL: JSON without schemas."""
    topic = made.debezium["postgres"].topic
    count = end_of(topic)
    return measure(settings.kafka_bootstrap(), topic, min(count, made.rows), **options)


def _percentile(number: int, made: Latency) -> float:
    return made.percentile(number)


BENCHMARK = Benchmark("which_cdc", tuple(_cases()))
