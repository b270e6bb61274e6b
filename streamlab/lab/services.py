"""Servers that a lesson needs: looked for, and started where that is allowed, with what is being done in view."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

from streamlab import settings
from streamlab.errors import LessonError
from streamlab.lab.live import Rendered, Spot, note
from streamlab.stack import Outcome, Stack

__all__ = ["ensure_running"]


def ensure_running(stack: Stack, needs: Sequence[str], *, start: bool) -> None:
    """Return when every service that is needed serves.

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
        return
    own = [name for name in missing if not settings.given(name)]
    if own and not start:
        raise LessonError(
            f"This lesson needs {', '.join(own)}, which {'does' if len(own) == 1 else 'do'} not run.",
            f"Start it: streamlab up {' '.join(own)}",
        )
    failed = [each for each in _start(stack, missing) if each.error is not None]
    if failed:
        problems = " ".join(f"{each.service}: {each.error}" for each in failed)
        raise LessonError(f"Servers of this lesson cannot be used. {problems}")


def _start(stack: Stack, missing: Sequence[str]) -> list[Outcome]:
    doing = dict.fromkeys(missing, "waiting")
    lock = threading.Lock()

    def listener(service: str, text: str) -> None:
        with lock:
            doing[service] = text

    def now() -> Rendered:
        with lock:
            return _progress(doing)

    spot = Spot(now())
    with ThreadPoolExecutor(1, thread_name_prefix="streamlab-start") as pool:
        future = pool.submit(stack.up, missing, listener)
        try:
            while True:
                try:
                    outcomes = future.result(timeout=0.25)
                    break
                except NotYet:
                    spot.update(now())
        except KeyboardInterrupt:
            stack.cancel()
            raise
    spot.update(now())
    return outcomes


def _progress(doing: Mapping[str, str]) -> Rendered:
    return note("said", "Starting the servers.", *(f"{name}: {text}" for name, text in doing.items()))
