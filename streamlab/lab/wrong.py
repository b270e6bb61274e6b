"""Cells that show a mistake: they pass only while the mistake fails, for the reason that they teach.

::

    with lab.wrong("polling by timestamp loses late commits", what="orders") as it:
        seen = poll_newer_than(last)
        it.compare(sold, seen)              # counts what was lost, repeated and never sent
        it.expect(lost=1, of=2)

    with lab.wrong("a slot in use cannot be dropped") as it:
        it.expect(sqlstate="55006")         # before the statement that raises
        drop_slot(...)

Once the mistake is cured by a new server version, or fails for another reason, the lesson no longer
tells the truth: the cell then raises `NotWrong`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from streamlab.errors import LessonError, NotWrong
from streamlab.lab.live import note, show

__all__ = ["AtLeast", "Between", "Wrong"]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A figure that differs from run to run, but never falls below a limit."""

    limit: float

    def __call__(self, value: Any) -> bool:
        """Whether a figure is in keeping with this."""
        return bool(value >= self.limit)

    def __str__(self) -> str:
        return f"at least {self.limit}"


@dataclass(frozen=True, slots=True)
class Between:
    """A figure that differs from run to run within limits, both included."""

    low: float
    high: float

    def __call__(self, value: Any) -> bool:
        """Whether a figure is in keeping with this."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}"


class Wrong:
    """One mistake that is shown: a context manager. For the main thread alone.

    Leaving the block raises `NotWrong` when nothing went wrong, when something else went wrong than was
    expected, or when no expectation was named.
    """

    def __init__(self, title: str, what: str = "rows", shown: Callable[[str, str], None] | None = None) -> None:
        self.title = title
        self.what = what
        self.figures: dict[str, Any] = {}
        self._expected: dict[str, Any] = {}
        self._error: type[BaseException] | None = None
        self._sqlstate = ""
        self._errno: int | None = None
        self._match = ""
        self._shown = shown or (lambda _title, _text: None)

    # -- what is measured -------------------------------------------------------------------------

    def measure(self, **figures: Any) -> None:
        """Name what was measured: ``it.measure(lost=3, of=200)``."""
        self.figures.update(figures)

    def compare(self, sent: Iterable[Hashable], seen: Iterable[Hashable]) -> None:
        """Count what a reader made of what was sent.

        Measures ``of`` (sent), ``lost`` (sent but never seen), ``repeated`` (seen again, each time) and
        ``invented`` (seen but never sent).
        """
        wanted, got = Counter(sent), Counter(seen)
        self.measure(
            of=wanted.total(),
            lost=(wanted - got).total(),
            repeated=sum(count - wanted[key] for key, count in got.items() if key in wanted and count > wanted[key]),
            invented=sum(count for key, count in got.items() if key not in wanted),
        )

    # -- what is expected -------------------------------------------------------------------------

    def expect(
        self,
        error: type[BaseException] | None = None,
        *,
        sqlstate: str = "",
        errno: int | None = None,
        match: str = "",
        **figures: Any,
    ) -> None:
        """Name the failure that this cell is about. Everything that is named must hold.

        Parameters
        ----------
        error : exception class, optional
            The block ends with an exception of this class. Name it before the statement that raises.
        sqlstate : str, optional
            The exception is an SQL error with this SQLSTATE (five characters).
        errno : int, optional
            The exception is a MySQL error of this number.
        match : str, optional
            The exception's message holds this text.
        **figures
            What `measure` or `compare` must have found: a value, `AtLeast`, `Between` or a predicate.
        """
        if error is None and not (sqlstate or errno is not None or match or figures):
            raise LessonError("expect() names no failure.", "Name an exception, a SQLSTATE, or figures.")
        self._error = error or self._error
        self._sqlstate = sqlstate or self._sqlstate
        self._errno = errno if errno is not None else self._errno
        self._match = match or self._match
        self._expected.update(figures)

    def at_least(self, limit: float) -> AtLeast:
        """A figure that differs from run to run: ``it.expect(lost=it.at_least(1), of=200)``."""
        return AtLeast(limit)

    def between(self, low: float, high: float) -> Between:
        """A figure that differs from run to run within limits, both included."""
        return Between(low, high)

    # -- the block --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None and not isinstance(error, Exception) and not self._wants(error):
            return False  # an interrupt is not a lesson's failure
        if isinstance(error, LessonError) and self._error is None:
            return False
        text = self._by_error(error) if self._expects_error else self._by_figures(error)
        self._shown(self.title, text)
        show(note("wrong", f"as expected: {text}", self.title))
        return True

    @property
    def _expects_error(self) -> bool:
        return bool(self._error or self._sqlstate or self._errno is not None or self._match)

    def _wants(self, error: BaseException) -> bool:
        return self._error is not None and isinstance(error, self._error)

    def _by_error(self, error: BaseException | None) -> str:
        wanted = self._wanted_error()
        if error is None:
            raise NotWrong(
                f"{self.title!r} should fail with {wanted}, but nothing was raised.",
                "Either the mistake is no longer one, or the cell no longer makes it.",
            )
        state, number = getattr(error, "sqlstate", None), _errno(error)
        held = (
            (self._error is None or isinstance(error, self._error))
            and (not self._sqlstate or state == self._sqlstate)
            and (self._errno is None or number == self._errno)
            and self._match in str(error)
        )
        seen = _describe(error)
        if not held:
            raise NotWrong(
                f"{self.title!r} should fail with {wanted}, but failed with {seen}.",
                "Correct the cell, or what it expects.",
            ) from error
        if self._expected:
            return f"{seen.rstrip('.')}; {self._figures_held()}"
        return seen

    def _wanted_error(self) -> str:
        parts = [
            self._error.__name__ if self._error else "",
            f"SQLSTATE {self._sqlstate}" if self._sqlstate else "",
            f"MySQL error {self._errno}" if self._errno is not None else "",
            f"a message that holds {self._match!r}" if self._match else "",
        ]
        return ", ".join(part for part in parts if part)

    def _by_figures(self, error: BaseException | None) -> str:
        if error is not None:
            raise NotWrong(
                f"{self.title!r} failed with {_describe(error)}, which nothing here expects.",
                "Correct the cell, or expect that exception before the statement that raises it.",
            ) from error
        if not self._expected:
            raise NotWrong(
                f"{self.title!r} names no failure that it expects.", "Call it.expect(...) with an exception or figures."
            )
        return self._figures_held()

    def _figures_held(self) -> str:
        if missing := [name for name in self._expected if name not in self.figures]:
            raise NotWrong(
                f"{self.title!r} expects {', '.join(missing)}, which was not measured.",
                f"Measure it first: it.measure({missing[0]}=...).",
            )
        off = {
            name: wanted
            for name, wanted in self._expected.items()
            if not (wanted(self.figures[name]) if callable(wanted) else self.figures[name] == wanted)
        }
        if off:
            wanted_text = ", ".join(f"{name} {_say(wanted)}" for name, wanted in off.items())
            seen_text = ", ".join(f"{name} {self.figures[name]}" for name in off)
            raise NotWrong(
                f"{self.title!r} should show {wanted_text}, but showed {seen_text}.",
                "Either the mistake is no longer one, or the cell measures something else.",
            )
        return self._sentence()

    def _sentence(self) -> str:
        named = {name: self.figures[name] for name in self._expected}
        total = named.pop("of", None)
        if total is not None and named:
            parts = [f"{value} of {total} {self.what} {name.replace('_', ' ')}" for name, value in named.items()]
        else:
            if total is not None:
                named["of"] = total
            parts = [f"{name.replace('_', ' ')} {value}" for name, value in named.items()]
        return ", ".join(parts) + "."


def _errno(error: BaseException) -> int | None:
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) and not isinstance(first, bool) else None


def _say(wanted: Any) -> str:
    if callable(wanted) and not isinstance(wanted, AtLeast | Between):
        return "that holds " + str(getattr(wanted, "__name__", wanted))
    return str(wanted)


def _describe(error: BaseException) -> str:
    """Class, code and first line of an exception: ``ObjectInUse (SQLSTATE 55006): slot "s" is active``."""
    code = ""
    if state := getattr(error, "sqlstate", None):
        code = f" (SQLSTATE {state})"
    elif len(error.args) == 2 and _errno(error) is not None and isinstance(error.args[1], str):
        # MySQL's way: (1062, "Duplicate entry ...")
        return f"{type(error).__name__} ({error.args[0]}): {error.args[1].splitlines()[0]}"
    message = str(error).strip()
    return f"{type(error).__name__}{code}" + (f": {message.splitlines()[0]}" if message else "")
