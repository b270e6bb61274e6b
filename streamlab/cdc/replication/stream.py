"""The stream of a walsender: pieces of the log come, status updates go."""

from __future__ import annotations

import logging
import struct
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.position import LSN
from streamlab.cdc.refusals import ended
from streamlab.cdc.replication.connection import SLICE, ReplicationConnection
from streamlab.errors import ChangeStreamError, ProtocolError, PublicationUnusable, StreamLost

__all__ = ["ReplicationStream"]

log = logging.getLogger(__name__)

_EPOCH = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
_STATUS = struct.Struct("!cQQQqB")
_POSITION = struct.Struct("!Q")
_DATA, _KEEPALIVE = b"wk"

# Seconds that the socket may fill while data flows. A reader that wakes too often is hardly busy, and then the
# scheduler lets it share a core with the walsender.
_COALESCE = 0.001
_FLOWING = 16  # messages at once from which data counts as flowing
_PLENTY = 128  # messages at once from which the caller is the slower one: then they gather while it works
_DRAIN_LIMIT = 8192  # messages of one drain: bounds memory where the server is faster than the caller
_ACKNOWLEDGE_EVERY = 0.05  # seconds between status updates that only carry acknowledgements
_START_LIMIT = 30.0
_FAREWELL_LIMIT = 2.0


class ReplicationStream(ReplicationConnection):
    """A connection that becomes a stream with `start`.

    One thread reads (`wait`, `drain`); any thread may call `acknowledged`, `feedback` and `close`.

    Parameters
    ----------
    dsn : str
        A role with REPLICATION.
    bookkeeping : Bookkeeping
        What is reported to the server. Changed and read under `lock` alone.
    lock : threading.RLock
        Guards the bookkeeping and libpq's connection; taken once a drain, not once a message.
    silence : float
        Seconds without a sign of life from the server, although it was asked for one, after which the connection counts
        as lost.
    """

    def __init__(self, dsn: str, *, bookkeeping: Bookkeeping, lock: threading.RLock, silence: float = 60.0) -> None:
        self._failure: ChangeStreamError | None = None
        self._streaming = self._begun = False
        super().__init__(dsn)
        self.lock = lock
        self.bookkeeping = bookkeeping
        self.received_bytes = 0
        self._silence = silence
        self._nudge = threading.Event()
        self._flowing = self._more = False
        self._told = self._heard = self._asked = time.monotonic()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "streaming" if self._streaming else "open"
        return f"<ReplicationStream {state}, {self.bookkeeping!r}>"

    # -- the stream -------------------------------------------------------------------------------

    def start(self, slot: str, publications: Sequence[str], *, options: Mapping[str, str], position: int = 0) -> None:
        """Begin the stream.

        Parameters
        ----------
        slot : str
            The slot to read.
        publications : sequence of str
            Whose tables.
        options : mapping of str to str
            Of pgoutput: ``proto_version`` and what goes with it.
        position : LSN
            Skip transactions that end at or before it. What the slot has confirmed is skipped in any case.

        Raises
        ------
        SlotInUse, SlotLost, SlotMissing, ChangeStreamError
            The server refuses.
        """
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        listed = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value))
            for key, value in {**options, "publication_names": names}.items()
        )
        timeout = self.command(sql.SQL("SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout'"))[0][0]
        self._begun = True
        self._execute(
            sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
                sql.Identifier(slot),
                sql.SQL(str(LSN(position))),
                listed,
            ),
            _START_LIMIT,
            pq.ExecStatus.COPY_BOTH,
        )
        # The server gives up after this time, and asks for a reply after half of it.
        seconds = int(timeout or 0) / 1000
        every = min(10.0, seconds * 0.4) if seconds else 10.0
        self._streaming = self._more = True  # the first messages may have come with the answer
        self._heard = self._asked = time.monotonic()
        threading.Thread(
            target=_keep_alive, args=(weakref.ref(self), self._closed, self._nudge, every),
            name=f"streamlab-keepalive-{slot}", daemon=True,
        ).start()  # fmt: skip

    def wait(self, timeout: float) -> bool:
        """Wait until something can be drained; False after `timeout` seconds. An interrupt here harms nothing.

        Raises
        ------
        StreamLost
            The server has been silent for too long.
        """
        if self._more or self._failure is not None:
            return True
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            left = min(max(0.0, deadline - now), SLICE)
            if self._poll.poll(left * 1000):
                if self._flowing:
                    time.sleep(_COALESCE)
                return True
            if self._pgconn.ssl_in_use and self._heard < now - SLICE:
                return True  # the rest of a message may lie decrypted in the TLS library, where no poll sees it
            self._listen(time.monotonic())
            if time.monotonic() >= deadline:
                return False

    def _listen(self, now: float) -> None:
        """Ask a silent server for a sign of life; give up on one that does not answer."""
        if now - self._heard < self._silence / 2:
            return
        if self._asked <= self._heard:
            self._asked = now
            self.feedback(reply=True)
        elif now - self._asked > self._silence / 2:
            raise StreamLost(
                f"The server has sent nothing for {now - self._heard:.0f} s, although it was asked to.",
                "The connection is made again.",
            )

    def drain(self) -> list[bytes]:
        """Take every piece of log that has arrived, header included; keepalives are dealt with here.

        Raises
        ------
        StreamLost
            The connection broke, or the server ended the stream.
        ChangeStreamError
            The server ended the stream for a reason that no repetition helps.
        """
        messages: list[bytes] = []
        with self.lock:
            if self._failure is None:
                try:
                    self._take(messages)
                except psycopg.Error as error:
                    self._failure = ended(error)
                    self._failure.__cause__ = error
                except ChangeStreamError as error:
                    self._failure = error
            if self._failure is not None and (not messages or isinstance(self._failure, PublicationUnusable)):
                # What came beside a warning of changes that are left out may lie behind them: it must not be passed on.
                raise self._failure
            if messages:
                self.bookkeeping.received(_POSITION.unpack_from(messages[-1], 1)[0])
        self._flowing = _FLOWING <= len(messages) < _PLENTY
        return messages

    def _take(self, messages: list[bytes]) -> None:
        get, take = self._pgconn.get_copy_data, messages.append
        self._more = False
        size = 0
        heard = True
        while heard:
            before = len(messages)
            self._pgconn.consume_input()
            heard = False
            while True:
                length, view = get(1)
                if length <= 0:
                    break
                heard = True
                size += length
                # As bytes: a memoryview and what it holds are two objects that the garbage collector has to visit.
                message = bytes(view)
                if message[0] == _DATA:
                    take(message)
                elif message[0] == _KEEPALIVE and length >= 18:
                    self.bookkeeping.keepalive(_POSITION.unpack_from(message, 1)[0])
                    if message[17]:
                        self._send(reply=False)
                else:
                    raise ProtocolError(
                        f"The stream holds a message of type {message[:1]!r}.", "Is this a replication stream?"
                    )
            if heard:
                self._heard = time.monotonic()
            if length < 0:
                self._ended()
            if self._failure is not None:  # a notice
                break
            if len(messages) - before < _FLOWING and not self._pgconn.ssl_in_use:
                # The server is not far ahead. To go on would be a system call a message, for it and for us.
                break
            if len(messages) >= _DRAIN_LIMIT:
                self._more = True
                break
        self.received_bytes += size

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
        raise StreamLost("PostgreSQL ended the stream: it is shutting down.", "The connection is made again.")

    def _noticed(self, severity: str, state: str, text: str) -> None:
        super()._noticed(severity, state, text)
        if self._begun and severity == "WARNING" and state == "55000":
            # PostgreSQL 18 goes on without a publication that it does not find, and sends nothing of its tables.
            self._failure = PublicationUnusable(
                f"PostgreSQL leaves out changes: {text}.",
                "Changes from before the publication existed cannot be read through it. Drop the slot, make it again "
                "after the publication, and take a new snapshot.",
            )

    # -- status updates ---------------------------------------------------------------------------

    def acknowledged(self) -> None:
        """The bookkeeping was changed: tell the server soon, now and then rather than at every transaction."""
        if time.monotonic() - self._told >= _ACKNOWLEDGE_EVERY:
            self.feedback()
        elif not self._nudge.is_set():
            self._nudge.set()

    def feedback(self, *, reply: bool = False) -> None:
        """Send a status update now. Never raises: what is wrong with the connection is raised where it is read."""
        with self.lock:
            if not self._streaming or self._closed.is_set() or self._failure is not None:
                return
            try:
                self._send(reply=reply)
            except psycopg.Error as error:
                log.debug("a status update was not sent: %s", error)

    def _send(self, *, reply: bool) -> None:
        write, flush = self.bookkeeping.to_report()
        now = time.time_ns() // 1000 - _EPOCH
        self._pgconn.put_copy_data(_STATUS.pack(b"r", write, flush, flush, now, reply))
        self._pgconn.flush()
        self._told = time.monotonic()

    # -- the end ----------------------------------------------------------------------------------

    def _farewell(self) -> None:
        """Send the last status update and end the stream. Once the server has answered, the slot is free."""
        if self._failure is not None:
            return
        if self._streaming:
            self._send(reply=False)
            self._pgconn.put_copy_end()
            deadline = time.monotonic() + _FAREWELL_LIMIT
            while (length := self._pgconn.get_copy_data(1)[0]) >= 0:
                if time.monotonic() > deadline:
                    return
                if length == 0:
                    self._exchange()
            while self._pgconn.is_busy() or self._pgconn.get_result() is not None:
                if time.monotonic() > deadline:
                    return
                if self._pgconn.is_busy():
                    self._exchange()
            self._streaming = False
        super()._farewell()

    def _exchange(self) -> None:
        self._pgconn.flush()
        self._poll.poll(SLICE * 1000)
        self._pgconn.consume_input()


def _keep_alive(
    owner: weakref.ref[ReplicationStream], closed: threading.Event, nudge: threading.Event, every: float
) -> None:
    """Send status updates while nobody reads. Holds no reference: a forgotten stream ends, and its thread with it."""
    due = time.monotonic() + every
    while not closed.is_set():
        nudged = nudge.wait(min(1.0, max(0.0, due - time.monotonic())))
        if nudged and closed.wait(_ACKNOWLEDGE_EVERY):
            return
        nudge.clear()
        stream = owner()
        if stream is None:
            return
        if nudged or time.monotonic() >= due:
            stream.feedback()
            due = time.monotonic() + every
        del stream
