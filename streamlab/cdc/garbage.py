"""The garbage collector and many new objects: it visits all that are alive, again and again, and finds nothing.

Decoding makes tens of thousands of events, which all live until their transaction was handed out. The collector begins
anew after every few hundred new objects, and what is alive then is visited again in the older generations, at last with
the whole program: a third of the time of a reader. None of these objects is in a cycle. So it waits until they are
made, and begins as many new objects later as there are events: by then they were handed out, and most are gone.

Source: CPython's `Modules/gcmodule.c`: a collection begins when more container objects were made than were freed since
the last one, by the first threshold.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_usual", "uncollected"]

_MOST = 100_000  # objects by which a collection is put off: bounds what a program's own cycles can hold
_lock = threading.Lock()
_raised = _usual = -1


@contextmanager
def uncollected() -> Iterator[None]:
    """No automatic collection within, and none at once behind it. For blocks of milliseconds.

    It holds for all threads of the process. Where somebody has turned the collector off, it stays off; where somebody
    has set its thresholds, theirs are the ones that are put off. Blocks of several threads may overlap: it is on again
    when the first of them ends. `as_usual` says that no more blocks follow.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _put_off()
        gc.enable()


def _put_off() -> None:
    """Have the next collection begin a usual number of new objects from now."""
    global _raised, _usual
    with _lock:
        first, *older = gc.get_threshold()
        if first != _raised:  # never set here, or set by somebody else since
            _usual = first
        if _usual:
            _raised = _usual + min(_MOST, gc.get_count()[0])
            gc.set_threshold(_raised, *older)


def as_usual() -> None:
    """Have collections begin as they did before. Repeatable; leaves thresholds alone that somebody else has set."""
    with _lock:
        first, *older = gc.get_threshold()
        if first == _raised:
            gc.set_threshold(_usual, *older)
