"""Work on several things at once, also while the interpreter ends, when no thread can begin any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(work: Callable[[T], R], things: Iterable[T], *, name: str, most: int = 16) -> list[R]:
    """What `work` returns for each, in their order: each in a thread, or one after another while the interpreter ends.

    Lessons tidy up there. All are done before one of their errors is raised, the first in their order.

    Parameters
    ----------
    work : callable
        Called once for each thing.
    things : iterable
        Each goes to `work`.
    name : str
        What the threads' names begin with.
    most : int
        Threads at once.
    """
    waiting = list(things)
    futures: list[Future[R]] = []
    if waiting:
        with ThreadPoolExecutor(min(most, len(waiting)), thread_name_prefix=name) as pool:
            for thing in waiting:
                try:
                    futures.append(pool.submit(work, thing))
                except RuntimeError:  # as CPython says it at its end, in `Lib/concurrent/futures/thread.py`
                    futures.append(_here(work, thing))
    return [each.result() for each in futures]


def _here(work: Callable[[T], R], thing: T) -> Future[R]:
    done: Future[R] = Future()
    try:
        done.set_result(work(thing))
    except Exception as error:  # noqa: BLE001 - raised behind the others, as a thread's
        done.set_exception(error)
    return done
