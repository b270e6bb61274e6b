"""A checkpoint moves with the sink's own transaction, and a former holder is fenced: on a real server, with races."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint, Held, create_table
from streamlab.cdc.position import LSN
from streamlab.errors import CheckpointBehind, CheckpointBusy, CheckpointError, Fenced, SettingsError
from streamlab.stack.namespace import Namespace

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]


class Sink:
    """A schema with a checkpoint table and a table without any key, so that a repeated effect stays visible."""

    def __init__(self, namespace: Namespace) -> None:
        self.schema = namespace.postgres_schema()
        self.open: list[Connection] = []
        self.connection = self.connect()
        self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        self.connection.execute("CREATE TABLE effects (number bigint NOT NULL, worker text)")
        self.checkpoint = Checkpoint("numbers", schema=self.schema, parse=int)
        self.checkpoint.create_table(self.connection)

    def connect(self, **options: Any) -> Connection:
        connection = psycopg.connect(
            settings.postgres_dsn("app"),
            options=f"-c search_path={self.schema}",
            **{"autocommit": True, **options},
        )
        self.open.append(connection)
        return connection

    def effects(self) -> list[int]:
        return [row[0] for row in self.connection.execute("SELECT number FROM effects ORDER BY number")]

    def position(self) -> int | None:
        state = self.checkpoint.read(self.connection)
        assert state is not None
        return state.position

    def waits(self, connection: Connection) -> Callable[[], bool]:
        """Whether a connection waits for a lock now."""
        pid = connection.info.backend_pid

        def asked() -> bool:
            row = self.connection.execute("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", [pid])
            return row.fetchone() == ("Lock",)

        return asked


def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def sink(stack: object) -> Iterator[Sink]:
    with Namespace("test_checkpoint") as namespace:
        made = Sink(namespace)
        yield made
        for connection in made.open:
            connection.close()


def apply(connection: Connection, held: Held[int], number: int) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO effects VALUES (%s)", [number])
        held.move(connection, number)


def test_effect_and_position_are_there_together_or_not_at_all(sink: Sink) -> None:
    held = sink.checkpoint.acquire(sink.connection)
    assert held.position is None
    apply(sink.connection, held, 1)
    with pytest.raises(ZeroDivisionError), sink.connection.transaction():
        apply(sink.connection, held, 2)
        raise ZeroDivisionError
    assert (sink.effects(), sink.position()) == ([1], 1)
    # The holder believed to be at 2; it finds out, and loses nothing.
    apply(sink.connection, held, 2)
    apply(sink.connection, held, 3)
    assert (sink.effects(), sink.position()) == ([1, 2, 3], 3)


def test_a_position_that_was_applied_is_refused_and_its_effect_rolled_back(sink: Sink) -> None:
    held = sink.checkpoint.acquire(sink.connection)
    apply(sink.connection, held, 5)
    for number in (5, 4):
        with pytest.raises(CheckpointBehind, match="at 5 already"):
            apply(sink.connection, held, number)
    assert (sink.effects(), sink.position()) == ([5], 5)


@pytest.mark.parametrize("name", [None, "", 5, "a\0b"])
def test_what_is_no_name_is_said_at_once(name: Any) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of a checkpoint"):
        Checkpoint(name)
    with pytest.raises(SettingsError, match="cannot be the name of a schema"):
        Checkpoint("numbers", schema=5)  # type: ignore[call-overload]


def test_a_table_that_is_missing_is_said(sink: Sink) -> None:
    connection = sink.connect()
    checkpoint, held = Checkpoint("x"), sink.checkpoint.acquire(connection)
    connection.execute("DROP TABLE checkpoints")
    with pytest.raises(CheckpointError, match="no table checkpoints to hold x") as caught:
        checkpoint.read(connection)
    assert "create_table" in caught.value.fix
    with pytest.raises(CheckpointError, match="no table checkpoints"):
        checkpoint.acquire(connection)
    with pytest.raises(CheckpointError, match=f"no table {sink.schema}.checkpoints"), connection.transaction():
        held.move(connection, 1)
    with pytest.raises(CheckpointError, match="no table checkpoints"), connection.pipeline():
        checkpoint.read(connection)
    checkpoint.create_table(connection)
    assert checkpoint.read(connection) is None


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("wrong", ["0/FF", 255, 0.5, None])
def test_what_is_no_position_of_the_checkpoint_is_not_stored(sink: Sink, moved: bool, wrong: Any) -> None:
    checkpoint = Checkpoint("log", schema=sink.schema)
    held = checkpoint.acquire(sink.connection)
    if moved:
        with sink.connection.transaction():
            held.move(sink.connection, LSN(5))
    with pytest.raises(SettingsError, match="is no position of the checkpoint log"), sink.connection.transaction():
        held.move(sink.connection, wrong)
    with sink.connection.transaction():
        held.move(sink.connection, LSN(6))
    numbers = sink.checkpoint.acquire(sink.connection)
    with pytest.raises(SettingsError, match="is no position"), sink.connection.transaction():
        numbers.move(sink.connection, LSN(5))


@pytest.mark.parametrize("wait", [-1, "1", float("nan")])
def test_what_is_no_wait_is_said(sink: Sink, wait: Any) -> None:
    with pytest.raises(SettingsError, match="is no time"):
        sink.checkpoint.acquire(sink.connection, wait=wait)


def test_pipelines_and_other_row_factories_are_no_obstacle(sink: Sink) -> None:
    connection, other = sink.connect(row_factory=psycopg.rows.dict_row), sink.connect()
    held = sink.checkpoint.acquire(connection)
    with connection.pipeline():
        for number in (1, 2):
            apply(connection, held, number)
    assert (sink.effects(), sink.position()) == ([1, 2], 2)
    sink.checkpoint.acquire(other)
    with pytest.raises(Fenced), connection.pipeline():
        apply(connection, held, 3)
    assert (sink.effects(), sink.position()) == ([1, 2], 2)


def test_a_restart_finds_the_position_and_skips_to_it(sink: Sink) -> None:
    @dataclass
    class Item:
        end_position: int

    items = [Item(number) for number in range(1, 6)]
    first = sink.checkpoint.acquire(sink.connection)
    for item in itertools.islice(first.unseen(items), 3):
        apply(sink.connection, first, item.end_position)
    second = sink.checkpoint.acquire(sink.connect())
    assert second.position == 3
    assert [each.end_position for each in second.unseen(items)] == [4, 5]
    assert second.epoch > first.epoch


def test_positions_of_postgres_are_the_default_and_come_back_as_such(sink: Sink) -> None:
    checkpoint = Checkpoint("orders", schema=sink.schema)
    held = checkpoint.acquire(sink.connection, holder="me")
    with sink.connection.transaction():
        held.move(sink.connection, LSN.parse("0/FF"))
    with sink.connection.transaction():  # as a number, not as a text: 'FF' > '100'
        held.move(sink.connection, LSN.parse("0/100"))
    state = checkpoint.read(sink.connection)
    assert state is not None
    assert (state.position, state.holder) == (LSN.parse("0/100"), "me")
    assert isinstance(state.position, LSN)
    assert state.moved_at is not None
    assert state.acquired_at <= state.moved_at
    assert state.acquired_at.utcoffset() is not None
    assert Checkpoint("nobody", schema=sink.schema).read(sink.connection) is None


def test_a_former_holder_is_fenced_before_anything_commits(sink: Sink) -> None:
    former = sink.checkpoint.acquire(sink.connection, holder="former")
    apply(sink.connection, former, 1)
    other = sink.connect()
    now = sink.checkpoint.acquire(other, holder="the other")
    with pytest.raises(Fenced, match="taken over by the other"):
        apply(sink.connection, former, 2)
    apply(other, now, 2)
    assert sink.effects() == [1, 2]


def test_a_zombie_that_has_not_moved_yet_holds_nobody_up(sink: Sink) -> None:
    zombie = sink.checkpoint.acquire(sink.connection)
    other = sink.connect()
    with pytest.raises(Fenced), sink.connection.transaction():
        sink.connection.execute("INSERT INTO effects VALUES (1)")
        now = sink.checkpoint.acquire(other, wait=0.5)  # at once, although the transaction is open
        zombie.move(sink.connection, 1)
    assert now.position is None
    apply(other, now, 1)
    assert sink.effects() == [1]


@pytest.mark.parametrize("commits", [True, False])
def test_a_holder_that_has_moved_is_waited_for(sink: Sink, commits: bool) -> None:
    former = sink.checkpoint.acquire(sink.connection)
    slow, other = sink.connect(autocommit=False), sink.connect()
    slow.execute("INSERT INTO effects VALUES (1)")
    former.move(slow, 1)
    with ThreadPoolExecutor(1) as pool:
        acquiring = pool.submit(sink.checkpoint.acquire, other)
        until(sink.waits(other))
        slow.commit() if commits else slow.rollback()
        now = acquiring.result(10)
    assert now.position == (1 if commits else None)
    assert sink.effects() == ([1] if commits else [])
    with pytest.raises(Fenced):
        apply(sink.connection, former, 2)


def test_a_holder_that_hangs_in_its_transaction_is_not_waited_for_without_end(sink: Sink) -> None:
    former = sink.checkpoint.acquire(sink.connection, holder="worker 7")
    hanging, other = sink.connect(autocommit=False), sink.connect(autocommit=False)
    former.move(hanging, 1)
    with pytest.raises(CheckpointBusy, match="worker 7 has moved the checkpoint numbers"):
        sink.checkpoint.acquire(other, wait=0.05)
    with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [hanging.info.backend_pid])
    now = sink.checkpoint.acquire(other)
    assert now.position is None


def test_a_move_that_meets_an_acquisition_waits_and_is_fenced(sink: Sink) -> None:
    former = sink.checkpoint.acquire(sink.connection)
    acquiring = sink.connect(autocommit=False)
    # The statement of `acquire`, with its transaction held open.
    acquiring.execute(
        "INSERT INTO checkpoints (name, holder) VALUES ('numbers', 'x')"
        " ON CONFLICT (name) DO UPDATE SET epoch = DEFAULT"
    )
    with ThreadPoolExecutor(1) as pool:
        slow = sink.connect()
        moving = pool.submit(apply, slow, former, 1)
        until(sink.waits(slow))
        acquiring.commit()
        with pytest.raises(Fenced):
            moving.result(10)
    assert sink.effects() == []


def test_snapshots_of_a_transaction_do_not_hide_a_new_holder(sink: Sink) -> None:
    former = sink.checkpoint.acquire(sink.connection)
    old, other = sink.connect(), sink.connect()
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.errors.SerializationFailure), old.transaction():
        old.execute("INSERT INTO effects VALUES (1)")
        sink.checkpoint.acquire(other)
        former.move(old, 1)
    with pytest.raises(Fenced):  # the repetition says why
        apply(old, former, 1)
    assert sink.effects() == []


def test_a_deleted_row_fences_too_and_its_epochs_never_come_back(sink: Sink) -> None:
    former = sink.checkpoint.acquire(sink.connection)
    sink.connection.execute("DELETE FROM checkpoints")
    with pytest.raises(Fenced, match="deleted"):
        apply(sink.connection, former, 1)
    now = sink.checkpoint.acquire(sink.connection)
    assert now.epoch > former.epoch
    with pytest.raises(Fenced):
        apply(sink.connection, former, 1)


def test_holding_and_moving_at_the_wrong_time_are_refused(sink: Sink) -> None:
    held = sink.checkpoint.acquire(sink.connection)
    with pytest.raises(CheckpointError, match="outside of the sink's transaction"):
        held.move(sink.connection, 1)
    with sink.connection.transaction(), pytest.raises(CheckpointError, match="inside of a transaction"):
        sink.checkpoint.acquire(sink.connection)
    assert sink.position() is None


def test_any_number_may_create_the_table_and_acquire_at_once(sink: Sink) -> None:
    sink.connection.execute("DROP TABLE checkpoints")
    connections = [sink.connect() for _ in range(6)]
    start = threading.Barrier(len(connections))

    def race(connection: Connection) -> list[int]:
        start.wait(10)
        create_table(connection, sink.schema)
        return [sink.checkpoint.acquire(connection).epoch for _ in range(20)]

    with ThreadPoolExecutor(len(connections)) as pool:
        epochs = list(pool.map(race, connections))
    assert all(each == sorted(each) for each in epochs)
    assert len(set(itertools.chain(*epochs))) == 6 * 20
    state = sink.checkpoint.read(sink.connection)
    assert state is not None
    assert state.epoch == max(itertools.chain(*epochs))


def test_threads_of_one_holder_apply_each_number_once(sink: Sink) -> None:
    held = sink.checkpoint.acquire(sink.connection)
    start = threading.Barrier(4)

    def work(connection: Connection) -> int:
        start.wait(10)
        refused = 0
        for number in range(1, 26):
            try:
                apply(connection, held, number)
            except CheckpointBehind:
                refused += 1
        return refused

    with ThreadPoolExecutor(4) as pool:
        refused = sum(pool.map(work, [sink.connect() for _ in range(4)]))
    effects = sink.effects()
    assert effects == sorted(set(effects))
    assert refused + len(effects) == 100
    assert sink.position() == 25


WORKER = """
import sys, psycopg
from streamlab import settings
from streamlab.cdc.checkpoint import Checkpoint
from streamlab.errors import Fenced

schema, me = sys.argv[1:]
checkpoint = Checkpoint("numbers", schema=schema, parse=int)

def last(connection):
    (number,) = connection.execute("SELECT last FROM goal").fetchone()
    return number

with psycopg.connect(
    settings.postgres_dsn("app"), autocommit=True, options=f"-c search_path={schema}"
) as connection:
    number = 0
    while number < last(connection):
        held = checkpoint.acquire(connection, holder=me, wait=60)
        number = held.position or 0
        try:
            while number < last(connection):
                with connection.transaction():
                    connection.execute("INSERT INTO effects VALUES (%s, %s)", [number + 1, me])
                    held.move(connection, number + 1)
                number += 1
        except Fenced:
            pass  # the other one has it; take it back
"""


def exactly_once(sink: Sink, directory: Path, *, kills: int, seed: int) -> None:
    """Two workers that take the checkpoint from each other, and are killed at random while they work."""
    script = directory / "worker.py"
    script.write_text(WORKER)
    sink.connection.execute("CREATE TABLE goal AS SELECT 1000000000 AS last")
    sink.checkpoint.acquire(sink.connection)
    choice = random.Random(seed)

    def start(me: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), sink.schema, me], stderr=subprocess.PIPE)

    workers = {me: start(me) for me in ("a", "b")}
    try:
        for _ in range(kills):
            # Not before somebody has done something since the last kill: every kill is one in mid-work.
            before = sink.position()
            until(lambda seen=before: sink.position() != seen, 30)
            time.sleep(choice.uniform(0, 0.02))  # where in the protocol the kill falls is the point
            me = choice.choice("ab")
            workers[me].kill()
            assert workers[me].wait(10) == -signal.SIGKILL
            workers[me].stderr.close()  # type: ignore[union-attr]
            workers[me] = start(me)
        for me in workers:  # both have done something at last
            until(
                lambda me=me: sink.connection.execute("SELECT 1 FROM effects WHERE worker = %s", [me]).rowcount > 0, 30
            )
        sink.connection.execute("UPDATE goal SET last = %s", [(sink.position() or 0) + 100])
        for each in workers.values():
            assert each.wait(60) == 0, each.stderr.read().decode()  # type: ignore[union-attr]
    finally:
        for each in workers.values():
            if each.poll() is None:
                each.kill()
                each.wait()
            each.stderr.close()  # type: ignore[union-attr]
    effects = sink.effects()
    assert effects == list(range(1, len(effects) + 1))
    assert len(effects) == sink.position()


def test_two_workers_that_are_killed_at_random_apply_everything_once(sink: Sink, tmp_path: Path) -> None:
    exactly_once(sink, tmp_path, kills=4, seed=1)


@pytest.mark.skipif(os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: make soak")
@pytest.mark.timeout(1200)
def test_soak_hundreds_of_kills_neither_lose_nor_repeat(sink: Sink, tmp_path: Path) -> None:
    exactly_once(sink, tmp_path, kills=300, seed=2)
