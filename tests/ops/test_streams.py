"""What flows: real connectors, one of them failed, topics and groups; and a worker that says nothing."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest
from cli.command import streamlab

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import FileSink, FileSource, MySQLSource
from streamlab.errors import ConnectorFailed
from streamlab.ops.streams import Streams, look
from streamlab.stack.namespace import Namespace

EVERY = ("postgres", "mysql", "kafka", "connect")


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("ops_streams") as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="streamlab-streams-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def wait(condition: Callable[[Streams], bool]) -> Streams:
    deadline = time.monotonic() + 40
    while not condition(seen := look(EVERY)):
        assert time.monotonic() < deadline, seen
    return seen


@pytest.mark.integration
def test_connectors_topics_and_groups_are_told_with_what_is_behind(
    namespace: Namespace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = folder / "lines"
    lines.write_text("one\ntwo\nthree\n", encoding="utf-8")
    topic, name, sink, broken = (
        namespace.topic("lines"), namespace.connector("in"), namespace.connector("out"), namespace.connector("broken"),
    )  # fmt: skip
    with ConnectClient() as client:
        client.apply(name, FileSource(path=lines, topic=topic).configuration())
        client.wait_ready(name)
        client.apply(sink, FileSink(path=folder / "out", topics=[topic]).configuration())
        client.wait_ready(sink)
        client.apply(broken, FileSink(path=Path("/proc/no/such"), topics=[topic]).configuration())
        with pytest.raises(ConnectorFailed):
            client.wait_ready(broken)

        def caught_up(seen: Streams) -> bool:
            # The end of a transaction has an offset too, and a group never commits behind it.
            return any(row.name == sink and row.lag_records in {0, 1} for row in seen.connectors)

        seen = wait(caught_up)
        rows = {row.name: row for row in seen.connectors}
        assert [rows[each].state for each in (name, sink, broken)] == ["RUNNING", "RUNNING", "FAILED"]
        assert (rows[name].tasks_running, rows[name].tasks, rows[name].error) == (1, 1, "")
        assert (rows[broken].tasks_running, rows[broken].tasks) == (0, 1)
        assert rows[broken].error.startswith("org.apache.kafka.connect.errors.ConnectException: Couldn't find")
        (told,) = (each for each in seen.topics if each.name == topic)
        # Three records, and the ends of transactions.
        assert told.partitions == 1
        assert told.offsets is not None
        assert told.offsets > 3
        assert next(group.topics for group in seen.groups if group.name == f"connect-{sink}") == (topic,)

        client.stop(sink)
        with lines.open("a", encoding="utf-8") as file:
            file.write("four\nfive\n")
        seen = wait(lambda now: any(row.name == sink and (row.lag_records or 0) >= 3 for row in now.connectors))
        assert next(row.state for row in seen.connectors if row.name == sink) == "STOPPED"

        shown = streamlab("status")
        assert shown.returncode == 0, shown.stderr
        assert f"{broken}: org.apache.kafka.connect.errors.ConnectException: Couldn't find" in shown.stdout
        assert any(line.startswith(sink) and "STOPPED" in line for line in shown.stdout.splitlines())
        assert rows[broken].log == "connect"
        assert shown.stdout.count("→ See: streamlab logs connect\n") == 1
        document = json.loads(streamlab("status", "--json").stdout)
        assert {name, sink, broken} <= {row["name"] for row in document["connectors"]}
        assert topic in {row["name"] for row in document["topics"]}
        # Streamlab does not have the log of a worker of somebody's own.
        with monkeypatch.context() as foreign:
            foreign.setenv("STREAMLAB_CONNECT_URL", settings.connect_url())
            assert {row.name: row.log for row in look(["connect"]).connectors}[broken] == ""
            told = streamlab("status").stdout
            assert f"{broken}: " in told
            assert "streamlab logs" not in told
            with pytest.raises(ConnectorFailed) as caught:
                client.wait_ready(broken)
            assert caught.value.fix.startswith("See the log of the worker 127.0.0.1:")
        for each in (sink, broken):
            client.delete(each, forget=True)


@pytest.mark.integration
def test_a_mysql_source_is_behind_by_bytes_of_the_binary_log(namespace: Namespace) -> None:
    database, name = namespace.mysql_database(), namespace.connector()
    with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
        with connection.cursor() as cursor, ConnectClient() as client:
            cursor.execute(f"CREATE DATABASE `{database}`")
            cursor.execute(f"CREATE TABLE `{database}`.t (id int PRIMARY KEY, text longtext)")
            source = MySQLSource(prefix=namespace.topic_prefix(), database=database, tables=["t"])
            client.apply(name, source.configuration())
            client.wait_ready(name)
            cursor.execute(f"INSERT INTO `{database}`.t VALUES (1, 'x')")

            def behind(least: int, most: int) -> Callable[[Streams], bool]:
                return lambda seen: any(
                    row.name == name and row.lag_bytes is not None and least <= row.lag_bytes < most
                    for row in seen.connectors
                )

            wait(behind(0, 10_000))
            client.stop(name)
            cursor.execute(f"INSERT INTO `{database}`.t VALUES (2, repeat('x', 100000))")
            wait(behind(100_000, 120_000))


@pytest.mark.integration
def test_a_worker_that_says_nothing_takes_nothing_from_the_rest(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("STREAMLAB_CONNECT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        begin = time.monotonic()
        seen = look(EVERY, limit=1.5)
        assert time.monotonic() - begin < 10
    assert set(seen.problems) == {"connect"}
    assert seen.connectors == ()
    assert look([]) == Streams()
