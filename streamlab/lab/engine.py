"""The engine that papermill executes a lesson with: its progress, and its end when a person interrupts it.

papermill's own engine ends the kernel at once when it is interrupted. Here the interrupt reaches the cell first, as
Ctrl-C in a notebook does, so that the lesson can drop what it made; what the cell still says is kept in the notebook.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from jupyter_core.utils import ensure_event_loop, run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

__all__ = ["register"]

NAME = "streamlab"

_INTERRUPT_LIMIT = 10.0
"""Seconds that an interrupted cell gets; then its kernel is killed."""
_TIDY_LIMIT: Final = 30.0
"""Seconds that an interrupted lesson may take to drop what it made, which it does while its kernel ends."""


class _Bar:
    """What papermill asks of a progress bar."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self.total, self.n, self._progress = total, 0, progress

    def update(self, count: int = 1) -> None:
        self.n += count
        self._progress(min(self.n, self.total), self.total)

    def close(self) -> None:
        pass


@contextmanager
def _between_steps() -> Iterator[None]:
    """Raise what a signal raises between two steps of the loop, and never within one: that would end the step's task.

    Then nothing would be under way any more, although the cell is. Where signals are not ours to handle, all stays.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, before = ensure_event_loop(), {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        handle = None if number is None else signal.getsignal(number)
        if number is not None and callable(handle):
            try:
                loop.add_signal_handler(number, handle, int(number), None)
            except NotImplementedError:
                break  # Windows
            before[number] = handle
    try:
        yield
    finally:
        for number, handle in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handle)


class _Client(PapermillNotebookClient):  # type: ignore[misc, unused-ignore]
    """A client that lets an interrupted cell come to its end."""

    def papermill_execute_cells(self) -> None:
        try:
            with _between_steps():
                super().papermill_execute_cells()
        except KeyboardInterrupt:
            run_sync(self._settle)()
            raise

    async def _settle(self) -> None:
        """Interrupt the kernel, and go on with what was under way when the loop was left: outputs and the reply."""
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        if self.km is None or not under_way:
            return
        await self.km.interrupt_kernel()
        _, left = await asyncio.wait(under_way, timeout=_INTERRUPT_LIMIT)
        if left:
            self.shutdown_kernel = "immediate"
            for task in left:
                task.cancel()
        else:
            # By default the kernel is killed after half of five seconds; connectors and workers take longer to end.
            self.km.shutdown_wait_time = 2 * _TIDY_LIMIT
        # The cell's error, or of what was cancelled: to be taken, or asyncio complains.
        await asyncio.gather(*under_way, return_exceptions=True)


def register(progress: Callable[[int, int], None]) -> str:
    """Register the engine with papermill; returns its name.

    Parameters
    ----------
    progress : callable
        Called with the cells done and the cells in all.
    """

    class Watched(Engine):  # type: ignore[misc, unused-ignore]
        @classmethod
        def execute_managed_notebook(
            cls,
            nb_man: Any,
            kernel_name: str,
            start_timeout: int = 60,
            execution_timeout: int | None = None,
            **kwargs: Any,
        ) -> Any:
            nb_man.pbar = _Bar(len(nb_man.nb.cells), progress)
            kwargs.pop("input_path", None)
            client = _Client(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=start_timeout,
                timeout=execution_timeout,
                **kwargs,
            )
            return client.execute()

    papermill_engines.register(NAME, Watched)
    return NAME
