"""The engine that papermill executes a lesson with: its progress, and its end when a person interrupts it.

papermill's own engine runs a notebook through nbclient, which takes SIGINT and SIGTERM for itself while a kernel lives,
kills the kernel, and reports a dead kernel: the batch would go on with the next lesson. Here an interrupt reaches
the cell first, as Ctrl-C in a notebook does, so that the lesson drops what it made; then the notebook is saved, and
`KeyboardInterrupt` goes on to the caller, whose signal handlers are put back.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

__all__ = ["register"]

NAME = "streamlab"

_INTERRUPT_LIMIT = 10.0
"""Seconds that an interrupted cell gets; then its kernel is killed."""


class _Bar:
    """What papermill asks of a progress bar."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self.total, self.n, self._progress = total, 0, progress

    def update(self, count: int = 1) -> None:
        self.n += count
        self._progress(min(self.n, self.total), self.total)

    def close(self) -> None:
        pass


class _Client(PapermillNotebookClient):  # type: ignore[misc, unused-ignore]
    """A client whose kernel is interrupted before it is ended."""

    # Set by nbclient's signal handler, to the task that runs `_async_cleanup_kernel`.
    _async_cleanup_kernel_future: asyncio.Future[None] | None = None
    _executing = False
    _asked = False

    @property
    def interrupted(self) -> bool:
        return self._async_cleanup_kernel_future is not None

    def papermill_execute_cells(self) -> None:
        self._executing = True
        try:
            super().papermill_execute_cells()
        finally:
            self._executing = False

    async def _async_cleanup_kernel(self) -> None:
        if self.km is None:
            return
        by_signal = asyncio.current_task() is self._async_cleanup_kernel_future
        if by_signal and self._executing and not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_later(_INTERRUPT_LIMIT, self._kill)
            await self.km.interrupt_kernel()
            return
        await super()._async_cleanup_kernel()

    def _kill(self) -> None:
        if self._executing:
            self._async_cleanup_kernel_future = asyncio.ensure_future(super()._async_cleanup_kernel())


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Put the caller's signal handlers back; asyncio leaves the defaults behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
                # Without it each kernel warns that it listens on the loopback address.
                extra_arguments=["--log-level=40"],
                **kwargs,
            )
            with _own_handlers():
                try:
                    executed = client.execute()
                except Exception as error:
                    if client.interrupted:
                        raise KeyboardInterrupt from error
                    raise
            if client.interrupted:
                raise KeyboardInterrupt
            return executed

    papermill_engines.register(NAME, Watched)
    return NAME
