"""The one place that touches libpq's replication mode: a connection to a walsender, and the stream on it.

`START_REPLICATION` turns a connection into a two-way stream of CopyData messages (COPY_BOTH). From the server come
``w`` (a piece of the log: 24 bytes of positions and time, then one message of the output plug-in) and ``k``
(keepalive); to it goes ``r`` (status update). psycopg has no replication API and needs none: its `pgconn` carries the
bytes, through TLS and Unix sockets alike.

What the protocol asks for, and where it is done:

- A reader that is silent for ``wal_sender_timeout`` is dropped. A thread of the stream's own sends status updates on a
  timer, so a caller who takes an hour over one transaction keeps the stream; a requested reply goes out at once.
- One wake-up a row is what makes readers slow. While data flows, `wait` lets the socket fill for a moment, and
  `drain` takes all that is there, under one lock.
- psycopg's own wait cancels the query when a cell is interrupted, which ends the stream; `wait` polls the socket
  itself, and an interrupt in it takes nothing away.
- "No more data" (-1) is no clean end: the server's error lies in the result behind it.
- Commands take no bound parameters; they are composed with `psycopg.sql`.

Source: PostgreSQL's manual, "Streaming Replication Protocol" and "Logical Streaming Replication Protocol".
"""

from __future__ import annotations

from streamlab.cdc.replication.connection import CreatedSlot, ReplicationConnection
from streamlab.cdc.replication.stream import ReplicationStream

__all__ = ["CreatedSlot", "ReplicationConnection", "ReplicationStream"]
