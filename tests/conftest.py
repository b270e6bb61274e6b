"""What every test shares: a home of the suite's own, its servers, and their end.

The suite never touches the user's own stack: it sets STREAMLAB_HOME before anything reads it, so its
servers have a state, addresses and ports of their own. Downloads are shared with the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlab import settings

ROOT = Path(__file__).parents[1]


def suite_home() -> Path:
    """A home for this checkout's tests, beside the user's own."""
    checkout = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    default = settings.default_home()
    return default.with_name(f"{default.name}-test-{checkout}")


# Subprocesses (kernels, the command line) inherit it.
os.environ.setdefault("STREAMLAB_CACHE", str(settings.cache()))
os.environ["STREAMLAB_HOME"] = str(suite_home())
for _variable in (*settings.VARIABLES.values(), "STREAMLAB_PORT_BASE", "STREAMLAB_LIVE", "STREAMLAB_FAILPOINTS"):
    os.environ.pop(_variable, None)


@pytest.fixture(scope="session")
def stack() -> Iterator[object]:
    """The servers of the suite, all of them up; stopped and deleted at the end."""
    from streamlab.stack import Stack

    servers = Stack()
    servers.down(purge=True)
    outcomes = servers.up()
    failed = [f"{each.service}: {each.error}" for each in outcomes if each.error]
    assert not failed, "\n".join(failed)
    try:
        yield servers
    finally:
        servers.down(purge=True)
        home = servers.home.path
        (home / "lock").unlink(missing_ok=True)
        home.rmdir()
