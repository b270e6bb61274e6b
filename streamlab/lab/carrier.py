"""A program that carries changes from PostgreSQL into a topic, and that can be killed between any two of its steps.

By hand it takes one transaction after the other through the steps that it is given, in their order; or it is a
`streamlab.connect.DatabaseSourceConnector`. It ends when the last of the changes has been through. What it does stands
in the environment variable `TASK` (`Task`), addresses come from `streamlab.settings`.

`streamlab.lab.carrying` runs it under `streamlab.ops.crash`, by its path: the package of lessons would be half of
what it has to import, and each trial starts it twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import psycopg
from confluent_kafka import Producer

from streamlab import settings
from streamlab.cdc.position import LSN
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError
from streamlab.failpoints import failpoint

__all__ = ["POINTS", "TASK", "Task"]

TASK: Final = "STREAMLAB_CARRIER"

POINTS: Final = {"produce": "lab.produced", "flush": "lab.flushed", "acknowledge": "lab.acknowledged"}
"""Step of the program by hand -> the failpoint behind it."""

_IDLE: Final = 15.0
_LINGER: Final = 60_000
"""Milliseconds that a producer keeps records together for if nobody flushes: a busy one would send some by itself."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be carried, and how.

    Attributes
    ----------
    publication, slot : str
        Of the source; both are there.
    name, prefix, topic : str
        Of the connector; by hand only the topic is used.
    last : int
        The id of the last row: the program ends behind it. Each row is a transaction.
    steps : list of str
        Of `POINTS`, in their order; none is the connector.
    transactional : bool
        The connector's mode.
    """

    publication: str
    slot: str
    name: str
    prefix: str
    topic: str
    last: int
    steps: list[str]
    transactional: bool = True

    def environment(self) -> dict[str, str]:
        """What the program is started with."""
        return {TASK: json.dumps(asdict(self))}


def by_hand(task: Task) -> None:
    """Take each transaction through the steps."""
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap(), "acks": "all", "linger.ms": _LINGER, "log_level": 0}
    )
    dsn = settings.postgres_dsn("cdc")
    with PostgreSQLCDC(dsn, task.publication, task.slot) as cdc, psycopg.connect(dsn, autocommit=True) as watcher:

        def produce(tx: Transaction) -> None:
            for event in tx:
                producer.produce(task.topic, json.dumps(dict(event.new_data)), json.dumps({"id": event.new_data["id"]}))
            failpoint("lab.produced")

        def flush(tx: Transaction) -> None:
            producer.flush()
            failpoint("lab.flushed")

        def acknowledge(tx: Transaction) -> None:
            cdc.acknowledge(tx)
            _told(watcher, task.slot, str(tx.end_position))
            failpoint("lab.acknowledged")

        known: dict[str, Callable[[Transaction], None]] = {
            "produce": produce, "flush": flush, "acknowledge": acknowledge,
        }  # fmt: skip
        for tx in cdc.transactions(idle=_IDLE):
            for step in task.steps:
                known[step](tx)
            if any(event.new_data["id"] == task.last for event in tx):
                return


def _told(watcher: psycopg.Connection[tuple[bool]], slot: str, upto: str) -> None:
    """Wait until the server knows of an acknowledgement, which is sent within milliseconds."""
    query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    deadline = time.monotonic() + 10
    while not (watcher.execute(query, [upto, slot]).fetchone() or (False,))[0]:
        if time.monotonic() > deadline:
            raise ChangeStreamError("The server was not told within 10 s.")
        time.sleep(0.002)


def as_connector(task: Task) -> None:
    """Run the connector until Kafka has everything."""
    from streamlab.connect import DatabaseSourceConnector

    def source(after: str | None) -> PostgreSQLCDC:
        resume = LSN.parse(after) if after else None
        return PostgreSQLCDC(settings.postgres_dsn("cdc"), task.publication, task.slot, resume_after=resume)

    with DatabaseSourceConnector(
        task.name, source, prefix=task.prefix, transactional=task.transactional, max_rows=2, max_wait=2
    ) as connector:
        while connector.offset is None or connector.offset.records < task.last:
            connector.poll(1)  # whoever was killed at the end may find nothing to do


if __name__ == "__main__":
    wanted = Task(**json.loads(os.environ[TASK]))
    by_hand(wanted) if wanted.steps else as_connector(wanted)
