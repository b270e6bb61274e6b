"""Crash tests: kill a program at each of its failpoints, start it again, and count what was lost and what was repeated.

A failpoint marks the place between two steps of a protocol (`streamlab.failpoints`). For every point, and for every
pass that is asked for, one trial is made::

    prepare()                    a clean sink, and a source with known records
    run, killed at the point     SIGKILL: no handler runs, nothing is flushed
    run, with no failpoint       the program finds what is there, and finishes
    expected() against seen()    the ledger against the sink, key by key

A key that is expected and not seen is lost; one that is seen more often than it is expected is duplicated; one that
nobody expects is unknown. The result is a table. A trial that proves nothing is an error and no row: a point that was
never reached, a program that failed for a reason of its own, one that hangs. The first row is a run without any crash:
if that one loses, it is not the crash that did.

SIGKILL ends the process as the kernel's out-of-memory killer would; it does not take from the operating system what was
written to it. Power cuts are another test.

The idea is that of ALICE (Pillai et al., *All File Systems Are Not Created Equal*, OSDI 2014) on the scale of a
protocol: enumerate the states that a crash can leave behind, and run the recovery on each.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from streamlab.errors import CrashTestError, NeverReached
from streamlab.failpoints import VARIABLE
from streamlab.stack.process import tail

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CrashReport", "CrashTrial", "crash_test"]

_HEADS = ("point", "pass", "expected", "lost", "duplicated", "unknown")


@dataclass(frozen=True, slots=True)
class CrashTrial:
    """What one crash did, once the program had been started again and had finished.

    Attributes
    ----------
    point : str
        The failpoint; empty for the run without a crash.
    number : int
        The pass at which the program was killed; 0 for the run without a crash.
    expected : int
        How many records had to arrive.
    lost, duplicated, unknown : tuple
        The keys: expected and not seen (in as many copies as are missing), seen too often (once for each copy too
        many), seen and never expected.
    seconds : float
        Both runs together.
    """

    point: str
    number: int
    expected: int
    lost: tuple[Hashable, ...]
    duplicated: tuple[Hashable, ...]
    unknown: tuple[Hashable, ...]
    seconds: float

    @classmethod
    def compared(
        cls, point: str, number: int, expected: Iterable[Hashable], seen: Iterable[Hashable], seconds: float
    ) -> CrashTrial:
        """Compare the ledger with the sink, each key as often as it occurs."""
        ledger, sink = Counter(expected), Counter(seen)
        more = sink - ledger
        return cls(
            point,
            number,
            ledger.total(),
            lost=tuple((ledger - sink).elements()),
            duplicated=tuple(key for key in more.elements() if key in ledger),
            unknown=tuple(key for key in more.elements() if key not in ledger),
            seconds=seconds,
        )

    @property
    def clean(self) -> bool:
        """Whether every record arrived exactly once, and no other."""
        return not (self.lost or self.duplicated or self.unknown)

    def _cells(self) -> tuple[str, ...]:
        place = (self.point, str(self.number)) if self.point else ("no crash", "")
        return (*place, str(self.expected), *(str(len(each)) for each in (self.lost, self.duplicated, self.unknown)))


@dataclass(frozen=True, slots=True)
class CrashReport:
    """All trials of a crash test: a sequence of `CrashTrial` that shows itself as a table.

    ``assert report.clean`` shows the table where it fails; ``assert report.lost == 0`` is for at-least-once delivery.
    """

    trials: tuple[CrashTrial, ...]

    def __iter__(self) -> Iterator[CrashTrial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, index: int) -> CrashTrial:
        return self.trials[index]

    @property
    def lost(self) -> int:
        """Records lost, over all trials."""
        return sum(len(each.lost) for each in self.trials)

    @property
    def duplicated(self) -> int:
        """Copies too many, over all trials."""
        return sum(len(each.duplicated) for each in self.trials)

    @property
    def unknown(self) -> int:
        """Records that nobody sent, over all trials."""
        return sum(len(each.unknown) for each in self.trials)

    @property
    def clean(self) -> bool:
        """Whether every trial was."""
        return all(each.clean for each in self.trials)

    def _rows(self) -> list[tuple[str, ...]]:
        return [each._cells() for each in self.trials]

    def __str__(self) -> str:
        rows = [_HEADS, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
        lines = (
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return f"CrashReport\n{self}"

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table()
        for number, head in enumerate(_HEADS):
            table.add_column(head, justify="right" if number else "left")
        for trial, row in zip(self.trials, self._rows(), strict=True):
            table.add_row(*row, style=None if trial.clean else "red")
        return table

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in _HEADS)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows())
        return f"<table><tr>{heads}</tr>{rows}</table>"


def crash_test(
    command: Sequence[str],
    points: Iterable[str] | Mapping[str, Iterable[int]],
    *,
    prepare: Callable[[], object],
    expected: Callable[[], Iterable[Hashable]],
    seen: Callable[[], Iterable[Hashable]],
    passes: Iterable[int] = (1,),
    env: Mapping[str, str] | None = None,
    limit: float = 60.0,
    control: bool = True,
) -> CrashReport:
    """Kill a program at each point, start it again, and compare what arrived with what was sent.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments. It has to end by itself, with exit code 0, when everything is done. Secrets
        belong into `env`.
    points : iterable of str, or mapping of str to iterable of int
        Failpoints, each tried at every pass of `passes`, or each with passes of its own.
        `streamlab.failpoints.registered` finds those of a module or script.
    prepare : callable
        Called before each trial: empties the sink and fills the source.
    expected : callable
        The keys that have to arrive, from the ledger of whoever filled the source.
    seen : callable
        The keys that the sink holds, each as often as it is there.
    passes : iterable of int
        At which passes to kill, from 1.
    env : mapping of str to str, optional
        Variables for the program, on top of this process's own.
    limit : float
        Seconds that one run may take; then it is killed, and the test is over.
    control : bool
        Whether to run once without a crash first.

    Raises
    ------
    NeverReached
        The program ended before it passed the point so often.
    CrashTestError
        The program could not be started, failed for a reason of its own, or did not end in time; the message has the
        end of what it wrote.
    """
    passes = tuple(passes)
    trials = [
        (point, number)
        for point, numbers in (points.items() if isinstance(points, Mapping) else ((each, passes) for each in points))
        for number in numbers
    ]
    if not trials:
        raise CrashTestError("There is no failpoint to kill the program at.", "Name at least one, with a pass.")
    results = []
    for point, number in ([("", 0)] if control else []) + trials:
        prepare()
        begin = time.monotonic()
        if point:
            _run(command, env, limit, point, number)
        _run(command, env, limit)
        seconds = time.monotonic() - begin
        results.append(CrashTrial.compared(point, number, expected(), seen(), seconds))
    return CrashReport(tuple(results))


def _run(command: Sequence[str], env: Mapping[str, str] | None, limit: float, point: str = "", number: int = 0) -> None:
    """One run to its end: the one that is wanted, or an error."""
    program = shlex.join(command[:2])
    variables = {**os.environ, **(env or {})}
    variables.pop(VARIABLE, None)
    if point:
        variables[VARIABLE] = f"{point}=kill@{number}"
    with tempfile.TemporaryDirectory(prefix="streamlab-crash-") as directory:
        log = Path(directory) / "output"
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,  # so that it is ended with its children, and Ctrl-C does not reach it
                )
            except OSError as error:
                raise CrashTestError(f"{program} cannot be started: {error}.", "Is it the right path?") from error
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise CrashTestError(
                f"{program} did not end within {limit:g} s{f' (killed at {point}, pass {number})' if point else ''}. "
                f"{_said(log)}",
                "Does it wait for more records? Otherwise give a longer limit.",
            ) from None
        finally:
            _end(process)
        if point and code == 0:
            raise NeverReached(
                f"{program} ended without passing {point} {number} times: nothing was proved.",
                "Give it more work, a lower pass, or another point.",
            )
        if code != (-signal.SIGKILL if point else 0):
            ended = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            when = f"before it passed {point} {number} times" if point else "when it should have finished"
            raise CrashTestError(
                f"{program} {ended} {when}. {_said(log)}", "Correct the program; a crash proves nothing."
            )


def _said(log: Path) -> str:
    text = tail(log)
    return f"It wrote at last:\n{text}\n" if text else "It wrote nothing."


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process and of the children it started; they are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
