"""What every test shares: a home of the suite's own, its servers, and their end.

The suite never touches the user's own stack: it sets STREAMLAB_HOME before anything reads it, so its
servers have a state, addresses and ports of their own. Downloads are shared with the user's cache.
Two runs at once in one checkout have a home each.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import glob
import hashlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import hypothesis
import psutil
import pytest

from streamlab import settings

ROOT = Path(__file__).parents[1]

# No test checks an absolute speed: an example that took long on a busy machine is no failure.
hypothesis.settings.register_profile(
    "streamlab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("streamlab")


def suite_home() -> Path:
    """A home for this checkout's tests, beside the user's own, that no other run uses now.

    Its name has a space and an umlaut, so that every test shows that servers and tools cope with them. A worker's is
    named after that of the process which distributes the tests, so that one can clean up behind a worker that died.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        whole = Path(os.environ["STREAMLAB_HOME"])
        return whole.with_name(f"{whole.name}-{worker}")
    checkout = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    default = settings.default_home()
    for number in itertools.count(1):
        name = f"{checkout} {number}" if number > 1 else checkout
        lock = (
            Path(tempfile.gettempdir())
            / f"{default.name}-tests-{getattr(os, 'getuid', getpass.getuser)()}-{name.replace(' ', '-')}.lock"
        )
        if held(lock):
            return default.with_name(f"{default.name} tëst {name}")
    raise AssertionError("unreachable")


def held(path: Path) -> bool:
    """Take a lock that lasts as long as this process; whether nobody else had it."""
    lock = filelock.FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    # Whoever had it before deletes the file as it ends: then we have locked what nobody else can see any more.
    if not path.exists() or path.stat().st_ino != os.fstat(lock._context.lock_file_fd).st_ino:
        lock.release()
        return held(path)
    owner = os.getpid()

    def let_go() -> None:
        if os.getpid() == owner:
            path.unlink(missing_ok=True)
            lock.release()

    atexit.register(let_go)
    return True


# A machine may be set up so that Python writes no bytecode. The suite starts hundreds of processes, and each would
# compile what it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Subprocesses (kernels, the command line) inherit it.
os.environ.setdefault("STREAMLAB_CACHE", str(settings.cache()))
HOME = suite_home()
os.environ["STREAMLAB_HOME"] = str(HOME)
for _variable in (*settings.VARIABLES.values(), "STREAMLAB_PORT_BASE", "STREAMLAB_LIVE", "STREAMLAB_FAILPOINTS"):
    os.environ.pop(_variable, None)


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM and a closed terminal end the suite as Ctrl-C does: its servers and programs are stopped first.

    A shell starts what it runs in the background with SIGINT ignored, and all its children would inherit that; the
    tests interrupt them.
    """
    distributes = bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")

    def end(number: int, _frame: object) -> None:
        # Once: another one in the middle of the cleaning would leave servers behind.
        for each in (*asked, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        if distributes and number == signal.SIGTERM:
            # Now, since they are killed ten seconds after the end of this process began.
            for worker in psutil.Process().children():
                worker.send_signal(number)
        raise KeyboardInterrupt

    asked = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in asked:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the files, put those that take long first and those without servers last.

    So all processes end at nearly the same time. Files that start stacks and kernels need the processor, and those
    between them mostly wait for servers. Within each kind the order stays as it was drawn.
    """
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    kinds: dict[str, list[list[pytest.Item]]] = {"acceptance": [], "integration": [], "": []}
    for tests in files.values():
        marks = {mark.name for test in tests for mark in test.iter_markers()}
        kinds[next(kind for kind in kinds if kind in marks or not kind)].append(tests)
    mixed = itertools.zip_longest(kinds["acceptance"], kinds["integration"], fillvalue=[])
    items[:] = [test for tests in (*itertools.chain(*mixed), *kinds[""]) for test in tests]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Clean up behind workers that were killed."""
    if hasattr(config, "workerinput"):
        return
    for path in HOME.parent.glob(f"{glob.escape(HOME.name)}-*"):
        clean(path)


def clean(home: Path) -> None:
    """Stop the servers of a home, and delete it."""
    from streamlab.stack import Home, Stack

    if (home / "stack.json").exists() and _readable(home):
        Stack(Home(home)).down()
    shutil.rmtree(home)


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
        with contextlib.suppress(FileNotFoundError):
            home.rmdir()


@pytest.fixture(scope="module")
def registry(stack: object) -> Iterator[object]:
    """The schema registry beside the servers of the suite; the stack again."""
    from streamlab.stack import Stack

    servers = Stack()
    (outcome,) = servers.up(["registry"])
    assert outcome.error is None, outcome.error
    yield servers
    servers.down(["registry"])


@pytest.fixture
def another_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of this test's own, in use while it runs; its servers are stopped and its files deleted."""
    path = Path(tempfile.mkdtemp(dir=_existing(HOME.parent), prefix=f"{HOME.name}-ö "))
    path.rmdir()
    monkeypatch.setenv("STREAMLAB_HOME", str(path))
    yield path
    monkeypatch.undo()
    if path.exists():
        clean(path)


def _readable(path: Path) -> bool:
    from streamlab.errors import StreamlabError
    from streamlab.stack import Home

    try:
        Home(path).read()
    except StreamlabError:
        return False
    return True


def _existing(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
