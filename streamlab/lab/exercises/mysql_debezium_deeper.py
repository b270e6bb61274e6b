"""The exercise of lesson 02b: rows and the place in the log behind them, kept so that no crash comes between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from streamlab import settings
from streamlab.cdc import MySQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed

__all__ = ["Sink", "keep_together", "place"]

LESSON: Final = "02b_mysql_debezium_deeper"

TRANSACTIONS: Final = 4
ROWS: Final = 2
"""Of each transaction."""
KILLED: Final = 2
"""The number of the transaction during which the sink's connection is killed."""


class Killed(Exception):
    """The server has ended the sink's connection."""


class Sink:
    """A table of rows and a place, behind one connection that the server may kill. A context manager; for one thread.

    Parameters
    ----------
    lab : Lesson
        The lesson; the tables are made in its database.
    kill : int
        After how many calls the connection is killed; 0: never.
    """

    def __init__(self, lab: Any, kill: int = 0) -> None:
        self.calls: list[str] = []
        """What was called since the last transaction began."""
        self.placed: Any = None
        self._lab, self._kill, self._count = lab, kill, 0
        self._connection = pymysql.connect(**lab.mysql.arguments(), autocommit=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; what was not committed is gone."""
        if self._connection.open:
            self._connection.close()

    def add(self, number: int) -> None:
        """Write a row."""
        self._execute("INSERT INTO kept VALUES (%s)", number)
        self._passed("add")

    def place(self, position: Any) -> None:
        """Write how far it has come, in the place of what was there."""
        self.placed = position
        self._execute("UPDATE place SET position = %s", str(position))
        self._passed("place")

    def commit(self) -> None:
        """Commit what was written since the last time."""
        self._connection.commit()
        self._passed("commit")

    def _execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def _passed(self, call: str) -> None:
        self.calls.append(call)
        self._count += 1
        if self._count != self._kill:
            return
        ((number,),) = self._execute("SELECT connection_id()")
        with pymysql.connect(**self._lab.mysql.arguments(), autocommit=True) as other, other.cursor() as cursor:
            cursor.execute("KILL CONNECTION %s", [number])
        raise Killed

    def kept(self) -> tuple[list[int], str]:
        """The rows that were committed, and the place."""
        rows = [row[0] for row in self._execute("SELECT id FROM kept")]
        ((position,),) = self._execute("SELECT position FROM place")
        return rows, position


def keep_together(sink: Sink, tx: Transaction) -> None:
    """One commit for the rows and the place behind them."""
    for event in tx:
        sink.add(event.new_data["id"])
    sink.place(tx.end_position)
    sink.commit()


def rows_first(sink: Sink, tx: Transaction) -> None:
    """Two commits: the rows, then the place."""
    for event in tx:
        sink.add(event.new_data["id"])
    sink.commit()
    sink.place(tx.end_position)
    sink.commit()


def place_first(sink: Sink, tx: Transaction) -> None:
    """Two commits: the place, then the rows."""
    sink.place(tx.end_position)
    sink.commit()
    for event in tx:
        sink.add(event.new_data["id"])
    sink.commit()


def where_it_begins(sink: Sink, tx: Transaction) -> None:
    """The place is where the transaction begins."""
    for event in tx:
        sink.add(event.new_data["id"])
    sink.place(tx.position)
    sink.commit()


def row_by_row(sink: Sink, tx: Transaction) -> None:
    """A commit for each row."""
    for event in tx:
        sink.add(event.new_data["id"])
        sink.commit()
    sink.place(tx.end_position)
    sink.commit()


def without_place(sink: Sink, tx: Transaction) -> None:
    """Only the rows."""
    for event in tx:
        sink.add(event.new_data["id"])
    sink.commit()


def without_commit(sink: Sink, tx: Transaction) -> None:
    """Written, and never committed."""
    for event in tx:
        sink.add(event.new_data["id"])
    sink.place(tx.end_position)


@checker(
    LESSON,
    "place",
    solution=keep_together,
    wrong=[
        WrongAnswer(
            "rows first",
            rows_first,
            "The rows were there and the place was not: the transaction came again. How many commits may there be?",
        ),
        WrongAnswer(
            "place first",
            place_first,
            "The place said that the rows were past, and they were not there. How many commits may there be?",
        ),
        WrongAnswer(
            "where it begins",
            where_it_begins,
            "A reader goes on behind the place that it is given. Behind where a transaction begins comes the "
            "transaction: which of the two positions is behind it?",
        ),
        WrongAnswer(
            "row by row",
            row_by_row,
            "A transaction of the shop was torn: half of it was committed, and then it came again. What belongs "
            "together there belongs together here.",
        ),
        WrongAnswer(
            "without a place",
            without_place,
            "The server does not know how far you have come: a reader without a place begins anew.",
        ),
        WrongAnswer("without a commit", without_commit, "What is not committed goes with the connection."),
    ],
)
def place(lab: Any, answer: Any) -> Verdict:
    """Kill the sink's connection after each call of the second transaction, start again, and count the rows."""
    if not callable(answer):
        return missed("Give a function of sink and tx.")
    trials = _Trials(lab, answer)
    total, done = Counter[str](), 0
    before = trials.calls_of_one()
    if "commit" not in trials.calls:
        return missed("After the program has ended nothing is there.", "without a commit")
    for number in range(1, before + 1):
        total.update(trials.killed((KILLED - 1) * before + number))
        done += 1
    lost, repeated = total["lost"], total["repeated"]
    seen = f"Killed at {done} places, with {TRANSACTIONS * ROWS} rows each: {lost} lost, {repeated} there twice."
    if not lost and not repeated:
        return passed(seen)
    return missed(seen, trials.diagnosis(lost))


@dataclass(slots=True)
class _Trials:
    lab: Any
    answer: Callable[[Sink, Transaction], object]
    calls: list[str] = field(default_factory=list)
    """Of one whole transaction."""
    start: str = ""
    begun: bool = False
    _numbers: range = range(1, TRANSACTIONS * ROWS + 1)

    def calls_of_one(self) -> int:
        """Carry one trial without a kill; how many calls the answer makes for a transaction."""
        self._fill()
        self._empty()
        with Sink(self.lab) as sink:
            self._carry(sink)
            self.calls = sink.calls
            self.begun = sink.placed is not None and str(sink.placed) == str(self._last.position)
        return len(self.calls)

    def killed(self, call: int) -> dict[str, int]:
        """Kill at a call, go on with a new connection, and compare."""
        self._empty()
        with Sink(self.lab, call) as sink, suppress(Killed):
            self._carry(sink)
        with Sink(self.lab) as sink:
            self._carry(sink)
        with Sink(self.lab) as sink:
            rows = Counter(sink.kept()[0])
        return {
            "lost": sum(number not in rows for number in self._numbers),
            "repeated": sum(count - 1 for count in rows.values()),
        }

    def diagnosis(self, lost: int) -> str:
        if "place" not in self.calls:
            return "without a place"
        if lost:
            return "place first"
        if self.begun:
            return "where it begins"
        return "row by row" if self.calls[:2] == ["add", "commit"] else "rows first"

    def _fill(self) -> None:
        with self._shop() as connection, connection.cursor() as cursor:
            for statement in (
                "DROP TABLE IF EXISTS carried, kept, place",
                "CREATE TABLE carried (id int PRIMARY KEY)",
                "CREATE TABLE kept (id int)",
                "CREATE TABLE place (position text)",
            ):
                cursor.execute(statement)
            with self._reader(None) as cdc:
                self.start = str(cdc.written())
            for first in self._numbers[::ROWS]:
                cursor.execute("INSERT INTO carried VALUES (%s), (%s)", [first, first + 1])

    def _empty(self) -> None:
        with self._shop() as connection, connection.cursor() as cursor:
            for statement in ("DELETE FROM kept", "DELETE FROM place"):
                cursor.execute(statement)
            cursor.execute("INSERT INTO place VALUES (%s)", [self.start])

    def _shop(self) -> pymysql.Connection[Any]:
        return pymysql.connect(**self.lab.mysql.arguments(), autocommit=True)

    def _reader(self, after: str | None) -> MySQLCDC:
        tables = [f"{self.lab.mysql.database}.carried"]
        return MySQLCDC(settings.mysql_address("cdc"), self.lab.namespace.name, tables=tables, resume_after=after)

    _last: Any = None

    def _carry(self, sink: Sink) -> None:
        """From the place that is kept to the end of what the shop has written."""
        with self._reader(sink.kept()[1]) as cdc:
            for tx in cdc.transactions(until=cdc.written()):
                sink.calls = []
                self._last = tx
                self.answer(sink, tx)
