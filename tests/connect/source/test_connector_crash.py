"""SIGKILL of the connector at each of its failpoints: nothing is lost, and committed records are there once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cdc.binlog.conftest import MySQLShop
from cdc.conftest import Shop

from streamlab.failpoints import registered
from streamlab.ops.crash import CrashReport, crash_test
from streamlab.stack.namespace import Namespace

from .topics import Found, records

pytestmark = pytest.mark.integration

POINTS = (
    "connect.before_produce", "connect.before_flush", "connect.before_offset", "connect.after_flush",
    "connect.before_commit", "connect.after_commit", "connect.before_ack", "connect.after_ack",
)  # fmt: skip
CHANGES = 20


def test_every_failpoint_of_the_connector_is_tried() -> None:
    assert set(registered("streamlab.connect")) == set(POINTS)


def soak(quick: bool) -> Any:
    return () if quick else pytest.mark.skipif(
        os.environ.get("STREAMLAB_SOAK") != "1", reason="a long proof: STREAMLAB_SOAK=1"
    )  # fmt: skip


PROGRAM = """
import json, sys
from pathlib import Path
from streamlab import settings
from streamlab.cdc import LSN, MySQLCDC, PostgreSQLCDC
from streamlab.connect.source import DatabaseSourceConnector

which, mode, state = sys.argv[1:]
told = json.loads(Path(state).read_text())

def postgres(after):
    resume = LSN.parse(after) if after else None
    dsn = settings.postgres_dsn("cdc")
    return PostgreSQLCDC(dsn, told["publication"], told["slot"], lazy=True, resume_after=resume)

def mysql(after):
    return MySQLCDC(settings.mysql_address("cdc"), tables=[told["table"]], resume_after=after or told["begin"])

source = {"postgres": postgres, "mysql": mysql}[which]
with DatabaseSourceConnector(
    told["name"], source, prefix=told["prefix"], transactional=mode == "transactional", max_rows=3, max_wait=5
) as connector:
    while connector.offset is None or connector.offset.records < told["changes"]:
        connector.poll(1)  # whoever is killed at the end may find nothing to do
"""


class Trials:
    """Twenty rows in eight transactions, two of which have more than `max_rows` and are committed in parts."""

    def __init__(self, which: str, directory: Path, namespace: Namespace) -> None:
        self.which, self.namespace, self.number = which, namespace, 0
        self.prefix_of_all = namespace.topic_prefix()
        self.state, self.script = directory / "state.json", directory / "program.py"
        self.script.write_text(PROGRAM)
        self.shop: Any = Shop(namespace) if which == "postgres" else MySQLShop(namespace, directory)
        self.schema = self.shop.schema if which == "postgres" else self.shop.database
        self.reader = self.shop.reader()

    @property
    def prefix(self) -> str:
        return f"{self.prefix_of_all}.t{self.number}"

    def prepare(self) -> None:
        """Topics, a connector and a place in the log of the trial's own, and the changes."""
        self.number += 1
        told = {"name": f"{self.namespace.name}_{self.number}", "prefix": self.prefix, "changes": CHANGES}
        if self.which == "postgres":
            self.reader.drop()
            self.shop.app.execute("TRUNCATE orders")
            self.reader.initialize()
            told |= {"publication": self.shop.publication, "slot": self.shop.slot}
        else:
            self.shop.execute("TRUNCATE orders")
            told |= {"table": self.shop.orders, "begin": str(self.reader.written())}
        self.state.write_text(json.dumps(told))
        ids = iter(range(CHANGES))
        for size in (1, 2, 1, 7, 1, 2, 2, 4):
            rows = ",".join(f"({next(ids)}, 'new', 1.5)" for _ in range(size))
            if self.which == "postgres":
                self.shop.app.execute(f"INSERT INTO orders VALUES {rows}")
            else:
                self.shop.execute(f"INSERT INTO orders VALUES {rows}", connection=self.shop.app)

    def found(self, *, committed: bool = True) -> list[Found]:
        return records(f"{self.prefix}.{self.schema}.orders", committed=committed)

    def test(self, mode: str, point: str, *passes: int) -> CrashReport:
        return crash_test(
            [sys.executable, str(self.script), self.which, mode, str(self.state)],
            [point],
            prepare=self.prepare,
            expected=lambda: range(CHANGES),
            seen=lambda: [each.key["id"] for each in self.found()],
            passes=passes,
            control=False,
        )


@pytest.fixture(params=["postgres", "mysql"])
def trials(stack: object, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Trials]:
    with Namespace("connect_source") as namespace:
        made = Trials(request.param, tmp_path, namespace)
        try:
            yield made
        finally:
            made.shop.close()


QUICK = {("postgres", "connect.after_flush"), ("postgres", "connect.before_ack"), ("mysql", "connect.after_commit")}


def cases(quick: set[tuple[str, str]]) -> list[Any]:
    return [
        pytest.param(which, point, marks=soak((which, point) in quick), id=f"{which}-{point.partition('.')[2]}")
        for which in ("postgres", "mysql")
        for point in POINTS
    ]


@pytest.mark.parametrize(("trials", "point"), cases(QUICK), indirect=["trials"])
def test_transactional_nothing_is_lost_and_nothing_is_repeated(trials: Trials, point: str) -> None:
    # At the fourth pass of a flush or a commit, the first part of a large transaction is in Kafka and the rest is not.
    soaked = os.environ.get("STREAMLAB_SOAK") == "1"
    passes = (1, 2, 3, 4) if soaked else (3,) if point == "connect.before_ack" else (4,)
    report = trials.test("transactional", point, *passes)
    assert report.clean, report
    found = trials.found()
    assert [each.key["id"] for each in found] == list(range(CHANGES)), "in order"
    assert len({each.change for each in found}) == CHANGES


def test_what_is_not_committed_is_there_for_those_who_do_not_ask(stack: object, tmp_path: Path) -> None:
    """The proof above would pass too if nothing had been sent before the kill."""
    with Namespace("connect_source") as namespace:
        trials = Trials("postgres", tmp_path, namespace)
        try:
            assert trials.test("transactional", "connect.after_flush", 3).clean
            assert len(trials.found(committed=False)) > CHANGES
        finally:
            trials.shop.close()


@pytest.mark.parametrize(
    ("trials", "point"), cases({("mysql", "connect.before_offset"), ("postgres", "connect.before_ack")}),
    indirect=["trials"],
)  # fmt: skip
def test_idempotent_nothing_is_lost_and_what_is_repeated_is_keyed_alike(trials: Trials, point: str) -> None:
    report = trials.test("idempotent", point, 3)
    assert report.lost == report.unknown == 0
    found = trials.found()
    assert len({each.change for each in found}) == CHANGES
    by_change: dict[Any, list[Any]] = {}
    for each in found:
        by_change.setdefault(each.change, []).append((each.key, each.value, each.timestamp))
    assert all(one == first for first, *more in by_change.values() for one in more)
    if point in {"connect.before_produce", "connect.after_ack"}:
        assert report.clean, "nothing was on its way"
    if point == "connect.before_offset":
        assert report.duplicated, "Kafka had the records, and not how far they go"
