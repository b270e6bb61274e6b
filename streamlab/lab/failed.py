"""A connector that is about to fail: waited for, and its error raised, so that a cell can show it."""

from __future__ import annotations

import time

from streamlab.connect import ConnectClient
from streamlab.connect.reader import logs
from streamlab.errors import ConnectorFailed, LessonError

__all__ = ["raise_failure"]


def raise_failure(connect: ConnectClient, name: str, *, limit: float = 60.0) -> None:
    """Wait until a connector or one of its tasks has failed, and raise what it says.

    Parameters
    ----------
    connect : ConnectClient
        The workers.
    name : str
        The connector.
    limit : float
        Seconds.

    Raises
    ------
    ConnectorFailed
        It has failed: the last cause that its trace names.
    LessonError
        It has not.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for part in connect.status(name).failed:
            # The last of the causes is the one that says why.
            reason = part.error.strip().splitlines()[-1].removeprefix("Caused by: ")
            raise ConnectorFailed(f"{name} has failed: {reason}", logs(part.worker))
        time.sleep(0.05)
    raise LessonError(f"{name} has not failed in {limit:.0f} s.", "It runs, and should not.")
