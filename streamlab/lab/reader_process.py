"""A reader of changes in a process of its own, steered call by call, so that it can be killed between two of them.

What a crash does to a reader can only be seen where a process really dies: SIGKILL runs no handler and flushes nothing.
The process holds the replication connection and the sink's connection. Whoever steers it asks for the next transaction,
has it written, has it acknowledged; each call returns when it is done *there*: a write is committed, and an
acknowledgement has reached the server. So a function of a notebook can be the reader's handler, and the process can be
ended between two of its lines.

Requests and answers are pickles on the process's standard input and output; addresses travel the same way, since a
command line is for everybody to read. The process ends with its standard input: it outlives nobody.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.position import LSN
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.cdc.transaction import Transaction
from streamlab.errors import ChangeStreamError

__all__ = ["ReaderKilled", "ReaderProcess", "ReaderSetup"]

_TOLD_LIMIT = 10.0
"""Seconds that an acknowledgement may take to reach the server; it takes milliseconds."""


class ReaderKilled(Exception):
    """The process was killed: this call came after its end."""


@dataclass(frozen=True, slots=True)
class ReaderSetup:
    """What the process reads, and where it writes.

    Parameters
    ----------
    dsn, publication, slot_name : str
        As of `streamlab.cdc.PostgreSQLCDC`; the slot is there already.
    sink_dsn, table : str
        Where `write` puts a row for each change: columns ``id``, ``position`` and ``ordinal``, without any key.
    idle : float
        Seconds without a transaction after which there is no next one.
    """

    dsn: str
    publication: str
    slot_name: str
    sink_dsn: str
    table: str
    idle: float = 15.0


class ReaderProcess:
    """The process, as the one who steers it sees it. For one thread.

    Attributes
    ----------
    calls : list of str
        What was asked for, ``write`` or ``acknowledge``, in order.
    fatal : int or None
        The process is killed when so many further calls have been done.
    """

    def __init__(self, setup: ReaderSetup) -> None:
        self.calls: list[str] = []
        self.fatal: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamlab.lab.reader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Jupyter interrupts a kernel's whole process group; this process ends with its input, and by nothing else.
            start_new_session=True,
        )
        self._send(setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def killed(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def next(self) -> Transaction | None:
        """The next transaction; None when nothing came for a while."""
        found: Transaction | None = self._ask("next", None)
        return found

    def write(self, what: Iterable[ChangeEvent]) -> None:
        """Commit the changes of a transaction to the sink."""
        self._call("write", [(each.new_data["id"], int(each.lsn), each.ordinal) for each in what])

    def acknowledge(self, upto: Transaction | LSN) -> None:
        """As `PostgreSQLCDC.acknowledge`; returns when the server knows."""
        self._call("acknowledge", upto.end_position if isinstance(upto, Transaction) else upto)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process in peace, or find that it has ended."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # killed, with a request on its way
                self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _call(self, name: str, argument: Any) -> None:
        self.calls.append(name)
        self._ask(name, argument)
        if self.fatal is not None:
            self.fatal -= 1
            if self.fatal == 0:
                self.kill()

    def _ask(self, name: str, argument: Any) -> Any:
        if self.killed:
            raise ReaderKilled(name)
        self._send((name, argument))
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        try:
            problem, answer = pickle.load(self._process.stdout)  # noqa: S301 - from a process of our own
        except EOFError as error:
            raise ChangeStreamError("The reader's process ended by itself.", "Its last words are above.") from error
        if problem:
            raise ChangeStreamError(f"The reader's process says: {problem}")
        return answer

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        pickle.dump(what, self._process.stdin)
        self._process.stdin.flush()


# -- within the process ---------------------------------------------------------------------------------


def _plain(transaction: Transaction) -> Transaction:
    """With mappings that can be pickled."""
    return replace(
        transaction,
        changes=tuple(
            each._replace(old_data=dict(each.old_data), new_data=dict(each.new_data)) for each in transaction
        ),
    )


def _write(sink: psycopg.Connection[Any], table: str, rows: list[tuple[int, int, int]]) -> None:
    insert = sql.SQL("INSERT INTO {} (id, position, ordinal) VALUES (%s, %s, %s)").format(sql.Identifier(table))
    with sink.transaction(), sink.cursor() as cursor:
        cursor.executemany(insert, [(number, str(LSN(position)), ordinal) for number, position, ordinal in rows])


def _acknowledge(cdc: PostgreSQLCDC, sink: psycopg.Connection[Any], upto: LSN) -> None:
    cdc.acknowledge(upto)
    told = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    deadline = time.monotonic() + _TOLD_LIMIT
    while not (sink.execute(told, [str(min(upto, cdc.received or upto)), cdc.slot_name]).fetchone() or (True,))[0]:
        if time.monotonic() > deadline:
            raise ChangeStreamError("The server was not told within 10 s.")
        time.sleep(0.002)


def _serve(setup: ReaderSetup) -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with (
        PostgreSQLCDC(setup.dsn, setup.publication, setup.slot_name) as cdc,
        psycopg.connect(setup.sink_dsn, autocommit=True) as sink,
    ):
        stream = cdc.transactions(idle=setup.idle)
        while True:
            try:
                name, argument = pickle.load(requests)  # noqa: S301 - from the process that started this one
            except EOFError:
                return
            problem, answer = "", None
            try:
                if name == "next":
                    found = next(stream, None)
                    answer = None if found is None else _plain(found)
                elif name == "write":
                    _write(sink, setup.table, argument)
                else:
                    _acknowledge(cdc, sink, argument)
            except Exception as error:  # noqa: BLE001 - told to the one who steers
                problem = f"{type(error).__name__}: {error}"
            pickle.dump((problem, answer), answers)
            answers.flush()


if __name__ == "__main__":
    # Under its own name: a pickle names the class's module, and this one is called __main__ here.
    from streamlab.lab import reader_process

    reader_process._serve(pickle.load(sys.stdin.buffer))  # noqa: S301 - from the process that started this one
