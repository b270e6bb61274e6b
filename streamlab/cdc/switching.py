"""Python's lock and a thread that needs it often, for moments: for a while it gets it sooner.

Polars lets go of the lock while it works, and asks for it again after each of its steps, of which a frame takes some
fifty. Another thread that is busy with Python keeps it for five milliseconds then, or until it waits for something
itself; so what takes 50 ms alone takes a quarter of a second. With a shorter interval the two take turns.

Source: CPython's `Python/ceval_gil.h`; `sys.setswitchinterval`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["taking_turns"]

_SHORT: Final = 0.0001
"""Seconds."""
_lock = threading.Lock()
_blocks = 0
_usual = _set = 0.0


@contextmanager
def taking_turns() -> Iterator[None]:
    """Within, threads of this process wait a tenth of a millisecond for Python's lock, not five. Blocks may overlap.

    It holds for all threads. A shorter interval of somebody else's stays, and so does one that is set meanwhile.
    """
    global _blocks, _usual, _set
    with _lock:
        if not _blocks and (usual := sys.getswitchinterval()) > _SHORT:
            sys.setswitchinterval(_SHORT)
            _usual, _set = usual, sys.getswitchinterval()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks and _usual:
                if sys.getswitchinterval() == _set:
                    sys.setswitchinterval(_usual)
                _usual = 0.0
