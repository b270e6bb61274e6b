"""The engine that lessons are executed with, where it is interrupted."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from jupyter_core.utils import ensure_event_loop, run_sync

from streamlab.lab import engine


def test_an_interrupt_ends_no_step_of_the_loop() -> None:
    """What is under way goes on afterwards: a cell's outputs and its reply are still to come."""
    before = signal.getsignal(signal.SIGINT)
    reached: list[str] = []

    async def cell() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end of the step")
        await asyncio.sleep(0.2)
        reached.append("the end of the cell")

    async def rest() -> None:
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    with pytest.raises(KeyboardInterrupt), engine._between_steps():
        run_sync(cell)()
    assert reached == ["the end of the step"]
    assert len(asyncio.all_tasks(ensure_event_loop())) == 1
    run_sync(rest)()
    assert reached[-1] == "the end of the cell"
    assert signal.getsignal(signal.SIGINT) is before
