"""Servers that a lesson needs: looked for, and started where that is allowed, with what is being done in view."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Self

from streamlab import settings
from streamlab.errors import LessonError
from streamlab.lab.live import Spot, in_kernel, is_live, note
from streamlab.lab.view import StackView
from streamlab.stack import Outcome, Stack

__all__ = ["ensure_running"]


def ensure_running(stack: Stack, needs: Sequence[str], *, start: bool) -> bool:
    """Return when every service that is needed serves; whether a picture of them was left in the cell.

    Servers are started in a thread, so that this one, the main thread, can show progress and be interrupted.

    Raises
    ------
    LessonError
        A service does not serve, and may not or could not be started; every problem is in the message.
    KeyboardInterrupt
        As it was; servers that were on their way up are stopped again.
    """
    missing = stack.missing(needs)
    if not missing:
        return False
    own = [name for name in missing if not settings.given(name)]
    if own and not start:
        raise LessonError(
            f"This lesson needs {', '.join(own)}, which {'does' if len(own) == 1 else 'do'} not run.",
            f"Start it: streamlab up {' '.join(own)}",
        )
    failed = [each for each in _start(stack, missing, needs) if each.error is not None]
    if failed:
        problems = " ".join(f"{each.service}: {each.error}" for each in failed)
        raise LessonError(f"Servers of this lesson cannot be used. {problems}")
    return is_live() and in_kernel()


def _start(stack: Stack, missing: Sequence[str], needs: Sequence[str]) -> list[Outcome]:
    doing = dict.fromkeys(missing, "waiting")
    lock = threading.Lock()

    def listener(service: str, text: str) -> None:
        with lock:
            doing[service] = text

    def now() -> dict[str, str]:
        with lock:
            return dict(doing)

    with _View(stack, needs) as view, ThreadPoolExecutor(1, thread_name_prefix="streamlab-start") as pool:
        view.update(now())
        future = pool.submit(stack.up, missing, listener)
        try:
            while True:
                try:
                    outcomes = future.result(timeout=0.25)
                    break
                except NotYet:
                    view.update(now())
        except KeyboardInterrupt:
            stack.cancel()
            raise
        view.update(now())
    return outcomes


class _View:
    """What is being done: a picture that moves where a person looks on, lines of text where nobody does."""

    def __init__(self, stack: Stack, needs: Sequence[str]) -> None:
        self._stack = stack
        self._picture = StackView(needs) if is_live() and in_kernel() else None
        self._text: Spot | None = None

    def update(self, doing: Mapping[str, str]) -> None:
        if self._picture is not None:
            # The picture itself says who is up, and how long it took.
            busy = {name: text for name, text in doing.items() if not text.startswith(("up in", "failed"))}
            self._picture.update(self._stack.status(), busy)
            return
        said = note("said", "Starting the servers.", *(f"{name}: {text}" for name, text in doing.items()))
        if self._text is None:
            self._text = Spot(said)
        else:
            self._text.update(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._picture is not None:
            self._picture.close()
