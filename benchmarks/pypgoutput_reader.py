"""References of `postgres_cdc`: psycopg2 receives, pypgoutput decodes. Runs in the references' environment.

`decoders`: its decoders alone, which leave values as text; that is the whole of what they do for a row. `events`: its
typed events, made by the method of its own reader, but without the second process from which that reader asks for each
message through a pipe (4,500 rows/s). psycopg2's `consume_stream` waits in a way that can stall at the end, so messages
are taken with `read_message`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import islice
from typing import Any

import psycopg2
import psycopg2.extras
from pypgoutput import decoders, reader
from pypgoutput.utils import SourceDBHandler


class _Stream:
    """What a slot holds, message by message, as psycopg2 hands it out."""

    def __init__(self, slot: str, publication: str) -> None:
        connection: Any = psycopg2.connect(
            os.environ["BENCH_DSN"], connection_factory=psycopg2.extras.LogicalReplicationConnection
        )
        self.cursor = connection.cursor()
        self.cursor.start_replication(
            slot_name=slot, decode=False, options={"proto_version": "1", "publication_names": publication}
        )

    def __iter__(self) -> Iterator[Any]:
        while True:
            message = self.cursor.read_message()
            if message is None:
                select.select([self.cursor], [], [], 1.0)
                continue
            yield message
            if message.payload[:1] == b"C":
                self.cursor.send_feedback(flush_lsn=message.data_start)


def read_decoders(slot: str, publication: str, changes: int) -> None:
    """Read so many changes of a slot with the decoders."""
    kinds = {b"I": decoders.Insert, b"U": decoders.Update, b"D": decoders.Delete, b"R": decoders.Relation,
             b"B": decoders.Begin, b"C": decoders.Commit}  # fmt: skip
    count = 0
    for message in _Stream(slot, publication):
        kind = message.payload[:1]
        kinds[kind](message.payload)
        if kind in {b"I", b"U", b"D"}:
            count += 1
        elif kind == b"C" and count >= changes:
            return


class _Reader(reader.LogicalReplicationReader):  # type: ignore[misc]
    """Its reader without its second process."""

    def setup(self) -> None:
        self.source_db_handler = SourceDBHandler(dsn=self.dsn)
        self.database = ""


def read_events(slot: str, publication: str, changes: int) -> None:
    """Read so many changes of a slot as its typed events."""
    messages = (
        reader.ReplicationMessage(
            message_id=uuid.uuid4(), data_start=each.data_start, payload=each.payload, send_time=each.send_time,
            data_size=each.data_size, wal_end=each.wal_end,
        )
        for each in _Stream(slot, publication)
    )  # fmt: skip
    events = _Reader(publication, slot, os.environ["BENCH_DSN"]).transform_raw(messages)
    for _event in islice(events, changes):
        pass


def main(what: str, slot: str, publication: str, changes: int) -> None:
    """Read, and print the time it took."""
    read = {"decoders": read_decoders, "events": read_events}[what]
    begin = time.perf_counter()
    with redirect_stdout(sys.stderr):  # it prints
        read(slot, publication, changes)
    print(json.dumps({"work": changes, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
