"""`PollingSource`: a table that is asked, again and again, for the rows that are new since the last time.

It needs no more than SELECT, and sees no more than SELECT shows: the rows as they are at the moment of a poll. What is
lost by that is lost in every product that polls. docs/connect.md has each loss with its cause, and the tests count them
on real servers:

- a row that is deleted is not there any more (bulk shows it to those who compare);
- of several changes between two polls the last one is seen;
- a row is found by its number or its stamp, which it got *before* its transaction was committed. One that becomes
  visible when a poll has passed its place is never seen. `delay` leaves rows alone that are younger, and cures that for
  transactions that last no longer; for numbers alone there is no cure;
- rows whose stamp is not greater than the last one: equal stamps, a clock that was set back, local times at the end of
  summer time, NULL;
- an update that does not touch the column of stamps, or any update in the mode incrementing.

A poll cannot tell an insert from an update, so every row comes as an INSERT; apply it by its key. In the mode bulk it
is a SNAPSHOT.

Each row is a transaction of its own, at its number; rows of one stamp are one, in the mode timestamp, since a stamp
alone does not tell them apart.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamlab import metrics
from streamlab.cdc import arguments
from streamlab.cdc.connected import FIRST, RECONNECT, first_time, persist
from streamlab.cdc.followed import Followed
from streamlab.cdc.handling import Handlers
from streamlab.cdc.interrupts import uninterrupted
from streamlab.cdc.polling.criteria import Criteria, Mode
from streamlab.cdc.polling.kept import Kept
from streamlab.cdc.polling.position import PollingPosition
from streamlab.cdc.polling.servers import polled
from streamlab.cdc.polling.table import PolledTable
from streamlab.cdc.position import Position
from streamlab.cdc.source import Batch, Lag
from streamlab.cdc.transaction import Transaction
from streamlab.dead_letters import DeadLetters
from streamlab.errors import SettingsError
from streamlab.retry import Retry, RetryPolicy
from streamlab.settings import MySQLAddress

__all__ = ["PollingSource"]

_LONGEST: Final = 366 * 86_400.0
"""Seconds; more is a mistake, and beyond what a date or a wait can hold."""


class PollingSource(Followed):
    """A reader of one table or query, without a log. See the module for what it misses.

    ::

        with PollingSource(
            dsn, "shop.orders", mode="timestamp+incrementing", timestamp="updated_at", incrementing="id", delay=5,
            checkpoint=path,
        ) as source:
            for transaction in source.transactions():
                store(transaction)
                source.acknowledge(transaction)

    Delivery: rows that are seen come at least once, in the order of the watched columns. What was not acknowledged is
    read again, as it is then.

    Threads: one iterates; `acknowledge`, `lag`, `written`, `stop` and the properties may be used from any.

    Parameters
    ----------
    address : str or MySQLAddress
        As a role that may SELECT. ``mysql://...`` is MySQL, everything else a PostgreSQL's.
    table : str, optional
        ``table`` or ``schema.table``.
    query : str, optional
        In place of a table, one SELECT. It is wrapped as a subselect, to which condition, order and limit are added. It
        is trusted: never make it of what a user typed.
    name : str, optional
        Of this reader, for its position file and its metrics; by default the table, or ``query``.
    mode : str
        ``bulk``, ``incrementing``, ``timestamp`` or ``timestamp+incrementing``.
    incrementing : str or sequence of str
        The columns that only grow: numbers, in their order.
    timestamp : str
        The column with the time of the last change.
    delay : float
        Seconds for which a row is left alone after its stamp (``timestamp.delay.interval.ms``): longer than the longest
        transaction that writes. In modes without a stamp it has no effect, and is refused; `timezone` too.
    interval : float
        Seconds between polls that find nothing (``poll.interval.ms``).
    max_rows : int
        Rows of one poll (``batch.max.rows``); when it brings so many the next follows at once.
    timezone : str
        Of stamps without an offset (PostgreSQL's `timestamp`, MySQL's `datetime`): what those who write mean.
    validate_non_null : bool
        Whether watched columns that may be NULL are refused.
    primary_key : sequence of str
        Of the rows of a query; of a table it is found.
    checkpoint : Path, optional
        A file that keeps the position. Without one, and without `resume_after`, it begins with the first row.
    resume_after : PollingPosition or str, optional
        The end of what the sink holds; it goes before what the file holds. A position of another mode or of other
        columns is refused, here (`SettingsError`) and in the file (`CheckpointError`).
    retry, dead_letters : RetryPolicy and DeadLetters, optional
        What becomes of a row whose handler fails, see `streamlab.cdc.handling`. By default the source stops.
    group : str, optional
        Whose dead letters these are; by default the reader's name.
    reconnect : RetryPolicy
        For how long a lost connection is made again.

    Raises
    ------
    SettingsError
        An argument cannot be used, or has no effect in this mode; the message names it.
    """

    position_type = PollingPosition

    def __init__(
        self,
        address: str | MySQLAddress,
        table: str = "",
        *,
        query: str = "",
        name: str | None = None,
        mode: Mode | str = Mode.TIMESTAMP_INCREMENTING,
        incrementing: str | Sequence[str] = (),
        timestamp: str = "",
        delay: float = 0.0,
        interval: float = 5.0,
        max_rows: int = 10_000,
        timezone: str = "UTC",
        validate_non_null: bool = True,
        primary_key: Sequence[str] = (),
        checkpoint: Path | str | None = None,
        resume_after: PollingPosition | str | None = None,
        retry: RetryPolicy | None = None,
        dead_letters: DeadLetters | None = None,
        group: str | None = None,
        reconnect: RetryPolicy = RECONNECT,
    ) -> None:
        for option, given in (("table", table), ("query", query), ("timezone", timezone)):
            arguments.instance(option, given, str, "a string", optional=False)
        name = name or table or "query"
        arguments.name_of("a reader", name)
        arguments.seconds("delay", delay, most=_LONGEST)
        arguments.seconds("interval", interval, zero=False, most=_LONGEST)
        arguments.count("max_rows", max_rows)
        arguments.flag("validate_non_null", validate_non_null)
        arguments.names("primary_key", primary_key)
        if not isinstance(incrementing, str):
            arguments.names("incrementing", incrementing)
        arguments.instance("checkpoint", checkpoint, (Path, str), "the Path of a file")
        arguments.instance("reconnect", reconnect, RetryPolicy, "a RetryPolicy", optional=False)
        try:
            mode = Mode(mode)
        except ValueError:
            raise SettingsError(f"There is no mode {mode!r}.", f"Use {', '.join(Mode)}.") from None
        super().__init__(name, Handlers(name, retry=retry, dead_letters=dead_letters, group=group or name))
        columns = (incrementing,) if isinstance(incrementing, str) and incrementing else tuple(incrementing)
        self._server, self._asked = polled(address), polled(address)
        criteria = Criteria(mode, timestamp, columns)
        for option, without in (("delay", delay), ("timezone", timezone != "UTC")):
            if without and not timestamp:
                raise SettingsError(
                    f"{option}= has no effect in the mode {mode}, which knows no times.",
                    "Leave it out, or use a mode with timestamp=.",
                )
        about = {"table": table, "query": query, "label": name, "primary_key": tuple(primary_key)}
        self._table = PolledTable(self._server, criteria, **about)  # type: ignore[arg-type]
        self._questions = PolledTable(self._asked, criteria, **about)  # type: ignore[arg-type]
        self._criteria, self._zone = criteria, _zone(timezone)
        self._delay, self._interval, self._max_rows = timedelta(seconds=delay), interval, max_rows
        self._allow_null, self._reconnect = not validate_non_null, reconnect
        arguments.instance("resume_after", resume_after, (PollingPosition, str), "what was kept, a PollingPosition")
        begin = PollingPosition.parse(resume_after) if isinstance(resume_after, str) else resume_after
        self._kept = Kept(name, None if checkpoint is None else Path(checkpoint), begin, criteria.fit)
        self._queue: deque[Transaction] = deque()
        self._whole: Iterator[list[tuple[Any, ...]]] | None = None
        self._begun, self._count = datetime.min.replace(tzinfo=UTC), 0
        self._was_open = False
        self._due = 0.0
        self._seconds: float | None = None

    def __repr__(self) -> str:
        return f"<PollingSource {self.name} mode={self._criteria.mode} {self._server!r}>"

    def initialize(self) -> None:
        """Check what has to hold. Idempotent; a poll does it by itself.

        Raises
        ------
        CannotCapture
            A column is missing, of another type, or may be NULL; or the role may not read.
        CheckpointError
            The position file cannot be used.
        """
        self._open()

    # -- polls ----------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._look()
        except BaseException:
            if not self._was_open:
                self._kept.release()  # whoever is refused holds nothing
            raise

    def _look(self) -> None:
        self._kept.acquire()
        if not self._was_open:
            # A retry would hide a wrong address behind a wait.
            retry = Retry("cdc.connect", FIRST, stop=self._stopping, classify=first_time)
            persist(retry, lambda: self._table.look(allow_null=self._allow_null))
            self._was_open = bool(self._table.columns)

    def _rewind(self) -> None:
        with uninterrupted():
            self._queue.clear()
            self._end_whole()
            self._due = 0.0
            self._kept.rewind()

    def _next(self, timeout: float | None, upto: PollingPosition | None = None) -> Transaction | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        found_all = False
        while not self._stopping.is_set():
            if self._queue:
                return self._hand_out()
            if upto is not None and (found_all or self._ends(upto, self._kept.cursor or PollingPosition())):
                return None
            now = time.monotonic()
            wait = 0.0 if upto is not None else max(0.0, self._due - now)
            if deadline is not None and now + wait > deadline and self._due:
                self._stopping.wait(max(0.0, deadline - now))
                return None
            if wait and self._stopping.wait(wait):
                return None
            self._kept.write()
            self._open()
            retry = Retry("cdc.poll", self._reconnect, stop=self._stopping)
            found_all = persist(retry, self._poll) or False
        return None

    def _hand_out(self) -> Transaction:
        with uninterrupted():
            transaction = self._queue.popleft()
            end: Any = transaction.end_position
            self._kept.hand_out(end)
        metrics.CDC_TRANSACTIONS.labels(self.name).inc()
        operation = next(iter(transaction)).operation
        metrics.CDC_EVENTS.labels(self.name, operation.lower()).inc(len(transaction))
        return transaction

    def _poll(self) -> bool:
        """Ask once, and put into the queue what is new; whether that was all there is."""
        now = self._server.now()
        if self._criteria.mode is Mode.BULK:
            return self._bulk(now)
        before = self._before(now)
        limit = self._max_rows
        while True:
            rows = self._table.page(self._kept.cursor, before, limit)
            complete = len(rows) < limit
            groups = self._table.groups(rows)
            if self._criteria.grouped and not complete:
                groups.pop()  # its other rows may be on the next page
                if not groups:
                    limit *= 2
                    continue
            break
        self._queue.extend(self._transaction(values, some, now) for values, some in groups)
        self._due = time.monotonic() + self._interval if complete else 0.0
        return complete

    def _bulk(self, now: datetime) -> bool:
        if self._whole is None:
            # One that was left half way is not gone on with: this is another one, with positions of its own.
            self._whole, self._begun, self._count = self._table.whole(self._max_rows), now, 0
        rows = next(self._whole, None)
        if rows is None:
            self._whole = None
            self._due = time.monotonic() + self._interval
            return True
        position = PollingPosition((self._begun, self._count))
        self._count += len(rows)
        end = PollingPosition((self._begun, self._count))
        self._queue.append(self._table.transaction(position, end, rows, now))
        return False

    def _ends(self, upto: Any, position: Any) -> bool:
        # A poll in bulk is read to its end.
        return self._criteria.mode is not Mode.BULK and super()._ends(upto, position)

    def _end_whole(self) -> None:
        whole, self._whole = self._whole, None
        if whole is not None:
            getattr(whole, "close", lambda: None)()

    def _before(self, now: datetime) -> datetime | None:
        """Stamps have to be less than this."""
        if not self._criteria.timestamp:
            return None
        limit = now - self._delay
        return limit.astimezone(self._zone).replace(tzinfo=None) if self._table.naive else limit

    def _transaction(self, values: tuple[Any, ...], rows: list[tuple[Any, ...]], now: datetime) -> Transaction:
        committed = now
        if self._criteria.timestamp:
            stamp: datetime = values[0]
            committed = (stamp if stamp.tzinfo else stamp.replace(tzinfo=self._zone)).astimezone(UTC)
            self._seconds = max(0.0, (now - committed).total_seconds())
            metrics.CDC_LAG_SECONDS.labels(self.name).set(self._seconds)
        columns = self._criteria.columns
        position, end = PollingPosition(values, columns), PollingPosition(values, columns, behind=True)
        return self._table.transaction(position, end, rows, committed)

    # -- acknowledgement ------------------------------------------------------------------------------

    @property
    def received(self) -> PollingPosition | None:
        """Behind the last row that was handed out."""
        return self._kept.received

    @property
    def acknowledged(self) -> PollingPosition | None:
        """From where a reader goes on that is made anew."""
        return self._kept.acknowledged

    def acknowledge(self, upto: Position | Transaction | Batch) -> None:
        """The effect of everything up to here is durable. It is in the position file soon, and at `close`.

        Parameters
        ----------
        upto : Transaction, Batch or PollingPosition
            A transaction stands for its `end_position`. Never goes backwards, and never beyond what was handed out.
        """
        end = upto.end_position if isinstance(upto, (Transaction, Batch)) else upto
        if not isinstance(end, PollingPosition):
            raise SettingsError(f"{upto!r} is no position of a polled source.", "Give the transaction.")
        self._kept.acknowledge(end)

    def written(self) -> PollingPosition:
        """Behind the last row that a poll would find now. Asks the server.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        if self._criteria.mode is Mode.BULK:
            return PollingPosition((self._asked.now(), 0))
        self._ask()
        return self._questions.last(self._before(self._asked.now()))

    def lag(self) -> Lag:
        """How many rows lie behind the last acknowledgement; and for stamps, how old the last row was that came.

        Rows that `delay` holds back are among them. Asks the server, which counts them.

        Raises
        ------
        ChangeStreamError
            It does not answer.
        """
        self._ask()
        return Lag(self._questions.count(self._kept.acknowledged), self._seconds)

    def _ask(self) -> None:
        if not self._questions.columns:
            self._questions.look(allow_null=True)
            if not self._table.columns:
                # Whether stamps have a zone is known from now on.
                self._table.columns = self._questions.columns

    def _disconnect(self) -> None:
        self._end_whole()
        self._server.close()
        self._kept.write(now=True)

    def close(self) -> None:
        """Let go of all connections and of the position file. Idempotent. What was not acknowledged comes again."""
        self._end()
        self._queue.clear()
        try:
            self._disconnect()
        finally:
            self._kept.release()
            self._asked.close()


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(f"There is no time zone {name!r}.", "Give a name such as Europe/Berlin.") from error
