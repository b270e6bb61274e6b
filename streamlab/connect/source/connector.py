"""`DatabaseSourceConnector`: the changes of a database into topics of Kafka, and how far it has come there too.

Kafka Connect runs connectors on the JVM alone; this one is a Python object over any `streamlab.cdc.ChangeSource`. A
batch of whole transactions goes through these steps, and a crash between any two of them loses nothing::

    records produced -> flushed -> offset with them -> committed -> source acknowledged

Transactional (the default)
    Records and offset are one transaction of Kafka. After a crash the broker takes back what was not committed, and the
    connector passes over what the stored offset covers. A consumer with ``isolation.level=read_committed`` sees each
    change exactly once; one that reads uncommitted may see records of transactions that were taken back.
Idempotent
    The offset is written when the records are acknowledged. After a crash the changes of the last batch may come again,
    under the same keys and with the same position and ordinal.

A transaction of the source stays together in one of Kafka, unless it has more than `max_rows` changes: then it is
committed in parts of so many, and the offset says which ordinal was the last, so that a restart goes on within it.

The algorithm is that of Kafka Connect's exactly-once sources (KIP-618), with the source's position and the ordinal
within a transaction in place of a source offset for each record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka.admin import AdminClient

from streamlab import metrics, settings
from streamlab.cdc import arguments
from streamlab.cdc.source import Batch, ChangeSource
from streamlab.connect.source.delivery import Delivery
from streamlab.connect.source.offsets import Offsets, Stored, make_topics
from streamlab.connect.source.records import Records, Route, topics_below
from streamlab.connect.source.sender import Sender, judged
from streamlab.errors import ConnectError, SettingsError
from streamlab.failpoints import failpoint
from streamlab.failures import Failure
from streamlab.retry import RetriesExhausted, Retry, RetryPolicy

__all__ = ["DatabaseSourceConnector"]

log = logging.getLogger(__name__)

RESTART: Final = RetryPolicy(attempts=1000, seconds=300.0, base=0.1, cap=5.0)
"""After a failure: long enough for a broker or a database to be restarted or upgraded."""

Make = Callable[[str | None], ChangeSource]
"""Makes a source that goes on after a position (its text), or where it begins by itself (None)."""


class DatabaseSourceConnector:
    """A source connector of one database.

    ::

        def source(after):
            return PostgreSQLCDC(dsn, "shop", "warehouse", lazy=True, resume_after=after and LSN.parse(after))

        with source(None) as cdc:
            cdc.initialize()  # the slot, once: a connector makes none

        with DatabaseSourceConnector("warehouse", source, prefix="shop") as connector:
            connector.start()
            ...

    Delivery: each change at least once, in commit order within a partition; exactly once for consumers that read
    committed records, in the transactional mode. Nothing is acknowledged to the source before it is durable in Kafka.

    Threads: `start` reads in a thread of its own, else one thread calls `poll`. `stop`, `offset` and `running` may be
    used from any.

    Parameters
    ----------
    name : str
        Of this connector: for its offset, its producer's identity and its metrics. Two that run at once under one name
        fence each other.
    source : ChangeSource, or callable
        What is read. A callable makes it anew for each beginning, after the stored position or None, and it is closed
        at the end of each; a source that keeps no position of its own, such as `MySQLCDC` without a file, has to be
        given so. A source that is given as it is belongs to the caller. Of a `PostgreSQLCDC` with ``lazy=True`` most
        rows are written without being decoded, see `streamlab.connect.source.straight`.
    prefix : str
        Topics are ``<prefix>.<schema>.<table>``.
    tables : sequence of str
        Patterns of the tables that are wanted, ``schema.table`` with ``*`` and ``?``; by default all that come.
    route : callable, optional
        (schema, table) -> topic, or None to leave a table out; in place of `prefix`'s rule.
    transactional : bool
        See the module. False is idempotent.
    tombstones : bool
        Whether a delete is followed by a record without a value, for compacted topics.
    headers : bool
        Whether records have headers; without them it is a tenth faster, and the envelope says the same.
    max_rows : int
        Changes after which what has come is committed.
    max_wait : float
        Seconds after which what has come is committed in any case.
    offsets_topic : str, optional
        Compacted, with one partition; by default ``<prefix>.offsets``. Connectors may share one.
    partitions : int
        Of topics that are missing and are made.
    bootstrap : str, optional
        Kafka's address; by default that of `streamlab.settings`.
    kafka : mapping, optional
        More settings of librdkafka, for the producer.
    restart : RetryPolicy
        For how long it begins anew after failures that may pass; the time begins again when something was delivered.

    Raises
    ------
    SettingsError
        An argument cannot be used; the message names it.
    """

    def __init__(
        self,
        name: str,
        source: ChangeSource | Make,
        *,
        prefix: str,
        tables: Sequence[str] = (),
        route: Route | None = None,
        transactional: bool = True,
        tombstones: bool = True,
        headers: bool = True,
        max_rows: int = 10_000,
        max_wait: float = 0.1,
        offsets_topic: str | None = None,
        partitions: int = 1,
        bootstrap: str | None = None,
        kafka: Mapping[str, Any] | None = None,
        restart: RetryPolicy = RESTART,
    ) -> None:
        arguments.name_of("a connector", name)
        arguments.name_of("a prefix", prefix)
        if not (callable(source) or hasattr(source, "batches")):
            raise SettingsError(
                f"source is {source!r}, which cannot be read.", "Give a reader, or a function that makes one."
            )
        arguments.names("tables", tables)
        for option, on in (("transactional", transactional), ("tombstones", tombstones), ("headers", headers)):
            arguments.flag(option, on)
        arguments.count("max_rows", max_rows)
        arguments.seconds("max_wait", max_wait)
        arguments.count("partitions", partitions)
        if offsets_topic is not None:
            arguments.name_of("a topic", offsets_topic)
        arguments.instance("bootstrap", bootstrap, str, "addresses: 127.0.0.1:9092")
        arguments.instance("kafka", kafka, Mapping, "a dictionary of librdkafka's settings")
        arguments.instance("restart", restart, RetryPolicy, "a RetryPolicy", optional=False)
        arguments.instance("route", route, Callable, "a function (schema, table) -> topic")  # type: ignore[arg-type]
        self.name, self.prefix, self.transactional = name, prefix, transactional
        self._given = source
        self._max_rows, self._max_wait, self._partitions = max_rows, max_wait, partitions
        self._where: dict[str, Any] = {"bootstrap.servers": bootstrap or settings.kafka_bootstrap(), "log_level": 0}
        self._kafka, self._restart = dict(kafka or {}), restart
        self._route, self._tables = route or topics_below(prefix), tuple(tables)
        self._tombstones, self._headers = tombstones, headers
        self._offsets = Offsets(self._where, offsets_topic or f"{prefix}.offsets", name)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._sender: Sender | None = None
        self._delivery: Delivery | None = None
        self._source: ChangeSource | None = None
        self._batches: Iterator[Batch] | None = None
        self._idle: float | None = None
        self._stored: Stored | None = None
        self._delivered = 0

    def __repr__(self) -> str:
        kind = "transactional" if self.transactional else "idempotent"
        return f"<DatabaseSourceConnector {self.name} {kind} topics={self.prefix}.*>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            if error is None:
                raise  # what ended the thread is not swallowed; beside another error it was logged
        finally:
            self.close()

    @property
    def offset(self) -> Stored | None:
        """How far it has come, as Kafka holds it; None before the first commit, and before it was first asked."""
        return self._stored

    @property
    def running(self) -> bool:
        """Whether the thread of `start` delivers."""
        return self._thread is not None and self._thread.is_alive()

    # -- start and stop -----------------------------------------------------------------------------

    def start(self) -> None:
        """Deliver in a thread of its own, until `stop`. Failures that may pass are waited out; `stop` raises others.

        Raises
        ------
        ConnectError
            It runs already.
        """
        if self.running:
            raise ConnectError(f"The connector {self.name} runs already.", "Stop it first: connector.stop().")
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=f"streamlab-connector-{self.name}", daemon=True)
        self._thread.start()

    def stop(self, *, limit: float = 30.0) -> None:
        """End the thread, after the batch that is being delivered. Repeatable.

        Parameters
        ----------
        limit : float
            Seconds that the thread is waited for.

        Raises
        ------
        Exception
            What ended the thread, if that was an error: once.
        ConnectError
            It has not ended in time.
        """
        self._stopping.set()
        thread, deadline = self._thread, time.monotonic() + limit
        while thread is not None and thread is not threading.current_thread() and thread.is_alive():
            # Again and again: a source that is only just being asked to begin would not have heard of it.
            if (source := self._source) is not None:
                source.stop()
            thread.join(0.05)
            if thread.is_alive() and time.monotonic() >= deadline:
                raise ConnectError(
                    f"The connector {self.name} has not ended within {limit:.0f} s.", "See what its source waits for."
                )
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Let go of all connections. Idempotent. What was not acknowledged comes again."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(30.0)
        self._let_go()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                Retry("connect.deliver", self._restart, stop=self._stopping, classify=judged).call(self._until_stopped)
        except RetriesExhausted as exhausted:
            if exhausted.reason != "stopped":
                self._ended(exhausted.__cause__ or exhausted)
        except BaseException as error:  # noqa: BLE001 - kept for `stop`, which raises it in the caller's thread
            self._ended(error)
        finally:
            self._let_go()

    def _ended(self, error: BaseException) -> None:
        self._error = error
        log.error("%s: the connector ended: %s: %s", self.name, type(error).__name__, error)

    def _until_stopped(self) -> None:
        """Deliver until a stop, or a failure; one that may pass, after something was delivered, only ends the call."""
        before = self._delivered
        try:
            while not self._stopping.is_set() and (batch := self._take(None)) is not None:
                self._deliver(batch)
        except Exception as error:
            self._let_go()
            if self._stopping.is_set() and judged(error) is Failure.TRANSIENT:
                return
            metrics.CONNECT_RESTARTS.labels(self.name).inc()
            if self._delivered == before or judged(error) is not Failure.TRANSIENT:
                raise
            log.warning("%s: %s Beginning anew.", self.name, error)

    # -- one batch ----------------------------------------------------------------------------------

    def poll(self, timeout: float | None = None) -> int:
        """Deliver what comes next: one batch of whole transactions, committed and acknowledged when this returns.

        Parameters
        ----------
        timeout : float, optional
            Seconds that a change is waited for; by default until `stop`.

        Returns
        -------
        int
            Its changes, with those that were in Kafka already; 0 when nothing came.

        Raises
        ------
        ConnectError
            The thread of `start` delivers; or Kafka does not take the records. Call again to begin anew behind
            what is stored.
        Fenced
            Another connector of this name has begun.
        ChangeStreamError
            The source cannot be read.
        """
        if self.running:
            raise ConnectError(f"The thread of the connector {self.name} delivers.", "Stop it first: connector.stop().")
        self._stopping.clear()
        try:
            batch = self._take(timeout)
            if batch is None:
                return 0
            self._deliver(batch)
        except BaseException:
            self._let_go()
            raise
        return len(batch)

    def _take(self, timeout: float | None) -> Batch | None:
        """The next batch; None when none came in time, or the source was stopped."""
        if self._sender is None:
            self._open()
        if self._batches is None or timeout != self._idle:
            # Everything that was handed out is acknowledged, so nothing comes again.
            assert self._source is not None  # noqa: S101 - `_open` has made it
            self._idle = timeout
            self._batches = self._source.batches(max_rows=self._max_rows, max_wait=self._max_wait, idle=timeout)
        batch = next(self._batches, None)
        if batch is None:
            self._batches = None
        return batch

    def _open(self) -> None:
        """Begin: fence who was before, find out what Kafka has, and go on in the source behind it."""
        self._let_go()
        sender = Sender(
            {**self._where, **self._kafka},
            transactional_id=f"streamlab-connector-{self.name}" if self.transactional else None,
            stopping=self._stopping,
        )
        try:
            admin = AdminClient(self._where)
            self._offsets.prepare(admin)
            sender.open()
            self._stored = self._offsets.load(admin)
        except BaseException:
            sender.close()
            raise

        def make(topic: str) -> None:
            make_topics(admin, [topic], partitions=self._partitions, settings={})

        records = Records(
            self.name, self._route, tables=self._tables, tombstones=self._tombstones, headers=self._headers, met=make
        )
        self._sender = sender
        self._delivery = Delivery(self.name, sender, records, self._offsets, self._stored, max_rows=self._max_rows)
        after = (self._stored.resume_after or None) if self._stored is not None else None
        self._source = self._given(after) if callable(self._given) else self._given
        log.info("%s: begins after %s", self.name, self._stored)

    def _let_go(self) -> None:
        sender, self._sender, self._delivery = self._sender, None, None
        source, self._source, self._batches = self._source, None, None
        if sender is not None:
            sender.close()
        if source is not None and callable(self._given):
            source.close()

    def _deliver(self, batch: Batch) -> None:
        """Commit the changes of a batch with their offset, then acknowledge it."""
        delivery, source = self._delivery, self._source
        assert delivery is not None and source is not None  # noqa: S101 - `_open` has made both
        failpoint("connect.before_produce")
        for transaction in batch.transactions:
            delivery.add(transaction)
        delivery.commit()
        self._stored = delivery.stored
        failpoint("connect.before_ack")
        source.acknowledge(batch)
        failpoint("connect.after_ack")
        self._delivered += 1
        age = datetime.now(UTC) - batch.transactions[-1].commit_timestamp
        metrics.CONNECT_LAG_SECONDS.labels(self.name).set(max(0.0, age.total_seconds()))
