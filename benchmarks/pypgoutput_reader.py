"""A reference of `postgres_cdc`: psycopg2 receives, pypgoutput's decoders read. Runs in the references' environment.

Its decoders leave values as text; that is the whole of what they do for a row. psycopg2's `consume_stream` waits in a
way that can stall at the end, so messages are taken with `read_message`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

import psycopg2
import psycopg2.extras
from pypgoutput import decoders


def main(slot: str, publication: str, changes: int) -> None:
    """Read so many changes of a slot."""
    connection: Any = psycopg2.connect(
        os.environ["BENCH_DSN"], connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    cursor = connection.cursor()
    kinds = {b"I": decoders.Insert, b"U": decoders.Update, b"D": decoders.Delete, b"R": decoders.Relation,
             b"B": decoders.Begin, b"C": decoders.Commit}  # fmt: skip
    begin = time.perf_counter()
    cursor.start_replication(
        slot_name=slot, decode=False, options={"proto_version": "1", "publication_names": publication}
    )
    count = 0
    while count < changes:
        message = cursor.read_message()
        if message is None:
            select.select([cursor], [], [], 1.0)
            continue
        kind = message.payload[:1]
        kinds[kind](message.payload)
        if kind == b"C":
            cursor.send_feedback(flush_lsn=message.data_start)
        elif kind in {b"I", b"U", b"D"}:
            count += 1
    seconds = time.perf_counter() - begin
    connection.close()
    print(json.dumps({"work": count, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
