"""Trials of the program that carries changes (`streamlab.lab.carrier`): killed, started again, and counted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from streamlab import settings
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.connect.source.offsets import make_topics
from streamlab.lab import carrier
from streamlab.lab.topics import read_partitions
from streamlab.ops.crash import CrashReport, crash_test
from streamlab.stack.objects import kafka_admin

__all__ = ["ORDERS", "Carrying"]

ORDERS: Final = 6
_PASS: Final = 2
"""The program is killed the second time that it comes to a point."""

_numbers = count(1)


class Carrying:
    """Six rows, each a transaction, a slot and a topic anew for every trial; a context manager that leaves nothing.

    For one thread.
    """

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        self._number = 0
        self._db = psycopg.connect(lab.dsn, autocommit=True)
        self._db.execute("CREATE TABLE IF NOT EXISTS carried (id int PRIMARY KEY)")
        self._prefix: str = lab.topic_prefix("carried")
        self._reader = PostgreSQLCDC(
            settings.postgres_dsn("cdc"),
            lab.publication("carried"),
            lab.slot("carried"),
            tables=[f"{lab.schema}.carried"],
            setup_dsn=lab.dsn,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.drop()
        self._db.close()

    def by_hand(self, steps: Sequence[str]) -> CrashReport:
        """Kill the program between its steps, which are `streamlab.lab.carrier.POINTS`, in their order."""
        return self._test([carrier.POINTS[each] for each in steps[:-1]], list(steps), True)

    def connector(self, points: Iterable[str], *, transactional: bool = True) -> CrashReport:
        """Kill `streamlab.connect.DatabaseSourceConnector` at failpoints of its own."""
        return self._test(points, [], transactional)

    def records(self, *, committed: bool = True) -> list[int]:
        """The ids in the topic of the last trial, also those that were taken back if `committed` is False."""
        return [each.row for each in read_partitions(self._topic, committed=committed)]

    @property
    def _topic(self) -> str:
        return f"{self._prefix}.t{self._number}.{self._lab.schema}.carried"

    def _test(self, points: Iterable[str], steps: list[str], transactional: bool) -> CrashReport:
        def prepare() -> None:
            self._number = next(_numbers)
            self._reader.drop()
            self._db.execute("TRUNCATE carried")
            self._reader.initialize()
            make_topics(kafka_admin(), [self._topic], partitions=1, settings={})
            for number in range(1, ORDERS + 1):
                self._db.execute("INSERT INTO carried VALUES (%s)", [number])
            environment.update(
                carrier.Task(
                    publication=self._reader.publication,
                    slot=self._reader.slot_name,
                    name=f"{self._lab.namespace.name}_{self._number}",
                    prefix=f"{self._prefix}.t{self._number}",
                    topic=self._topic,
                    last=ORDERS,
                    steps=steps,
                    transactional=transactional,
                ).environment()
            )

        environment: dict[str, str] = {}
        return crash_test(
            [sys.executable, carrier.__file__],
            points,
            prepare=prepare,
            expected=lambda: range(1, ORDERS + 1),
            seen=self.records,
            passes=(_PASS,),
            env=environment,
            control=False,
        )
