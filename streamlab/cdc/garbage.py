"""The garbage collector and many new objects: it visits all that are alive, again and again, and finds nothing.

Decoding makes tens of thousands of events, which all live until their transaction was handed out. The collector begins
anew after every few hundred of them, and visits the whole program after every few ten thousand: a third of the time
of a reader. None of these objects is in a cycle, so it can wait until they are made.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


@contextmanager
def uncollected() -> Iterator[None]:
    """No automatic collection within. For blocks of milliseconds: it holds for all threads of the process.

    Where somebody has turned the collector off, it stays off. Blocks of several threads may overlap: it is on again
    when the first of them ends.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
