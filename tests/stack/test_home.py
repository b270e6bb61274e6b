"""A home on disk: its modes, its lock, its state, and what a purge deletes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamlab import settings
from streamlab.errors import HomeBusy, SettingsError, StackError, UnusableState
from streamlab.stack import ports
from streamlab.stack.home import Home, write_private
from streamlab.stack.process import ServerUser

OURSELVES = ServerUser("", -1, -1)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only as root do servers run as another user")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "hö me", tmp_path / "cache", OURSELVES)


def test_directories_are_private(home: Home) -> None:
    home.prepare()
    home.room("postgres")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (home.path, home.cache, home.secrets, home.leases)}
    assert modes == {"hö me": 0o700, "cache": 0o700, "secrets": 0o700, "leases": 0o700}
    assert home.room("postgres").stat().st_mode & 0o777 == 0o700
    home.prepare()


@as_root
def test_as_root_the_servers_user_can_enter_and_owns_its_room_alone(another_home: Path) -> None:
    home = Home()
    home.prepare()
    assert home.user.name in {"postgres", "nobody"}
    assert home.path.stat().st_mode & 0o777 == 0o711
    assert home.room("postgres").stat().st_uid == home.user.uid
    assert home.secrets.stat().st_uid == 0
    private = home.room("postgres") / "file"
    write_private(private, "x", home.user)
    assert (private.stat().st_uid, private.stat().st_mode & 0o777) == (home.user.uid, 0o600)


@as_root
def test_as_root_a_home_that_the_servers_user_cannot_reach_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    home = Home(tmp_path / "private" / "home", tmp_path / "cache")
    with pytest.raises(StackError, match=r"servers run as user '\w+', who cannot enter .*mode 0700") as caught:
        home.prepare()
    assert "STREAMLAB_HOME" in caught.value.fix


def test_a_place_that_cannot_be_a_directory_is_said_with_its_variable(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for broken, variable in (
        (replace(home, path=tmp_path / "file" / "home"), "STREAMLAB_HOME"),
        (replace(home, cache=tmp_path / "file" / "cache"), "STREAMLAB_CACHE"),
    ):
        with pytest.raises(StackError, match="cannot be made: Not a directory") as caught:
            broken.prepare()
        assert variable in caught.value.fix


@pytest.mark.parametrize("variable", ["STREAMLAB_HOME", "STREAMLAB_CACHE"])
def test_a_relative_path_would_be_another_place_in_each_process(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = {"STREAMLAB_HOME": settings.home, "STREAMLAB_CACHE": settings.cache}[variable]
    monkeypatch.setenv(variable, "here/below")
    with pytest.raises(SettingsError, match=f"{variable}=here/below is not an absolute path") as caught:
        read()
    assert caught.value.fix == f"Set {variable}={Path.cwd() / 'here/below'}"
    monkeypatch.setenv(variable, "~/below")
    assert read() == Path.home() / "below"


def test_a_directory_with_other_things_in_it_is_no_home(home: Home) -> None:
    """Else `down --purge` with a mistyped STREAMLAB_HOME would be a disaster."""
    home.path.mkdir()
    (home.path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(StackError, match="is no home of streamlab: it holds thesis.tex"):
        home.prepare()
    home.remove()
    assert (home.path / "thesis.tex").exists()


def test_a_purge_deletes_what_was_made_here_and_nothing_else(home: Home, tmp_path: Path) -> None:
    within = Home(home.path, home.path / "cache" / "deep", OURSELVES)
    within.prepare()
    within.write({"format": settings.STATE_FORMAT, "services": {}})
    (within.room("postgres") / "data").mkdir()
    (within.cache / "download").write_text("", encoding="utf-8")
    within.password("postgres-admin")
    (home.path / "notes").write_text("", encoding="utf-8")
    outside = tmp_path / "outside"
    outside.mkdir()
    (home.path / "mysql").symlink_to(outside)
    with within.locked():
        within.remove()
    assert sorted(p.name for p in home.path.iterdir()) == ["cache", "lock", "notes"]
    assert (within.cache / "download").exists()
    assert outside.exists()


def test_a_purge_that_was_interrupted_is_finished_by_the_next(home: Home) -> None:
    home.prepare()
    (home.path / ".gone.abc" / "postgres" / "data").mkdir(parents=True)
    (home.path / ".stack.json.abc").write_text("", encoding="utf-8")
    home.remove()
    assert list(home.path.iterdir()) == []


def test_the_state_of_another_version_is_said(home: Home) -> None:
    home.prepare()
    for text, message in (
        (json.dumps({"format": settings.STATE_FORMAT + 1}), "was written by another version of streamlab"),
        ("[]", "was written by another version of streamlab"),
        ('{"format": ', "is not readable as JSON"),
    ):
        (home.path / "stack.json").write_text(text, encoding="utf-8")
        with pytest.raises(UnusableState, match=message) as caught:
            home.read()
        assert "streamlab down --purge" in caught.value.fix


def test_passwords_are_made_once_and_are_the_owners_alone(home: Home) -> None:
    home.prepare()
    first = home.password("mysql-app")
    assert len(first) >= 32
    assert home.password("mysql-app") == first
    assert home.password("mysql-cdc") != first
    assert {path.stat().st_mode & 0o777 for path in home.secrets.iterdir()} == {0o600}
    assert first not in repr(home)


def test_a_private_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


# -- the lock -----------------------------------------------------------------------------------------

_HOLD = """
import sys, time
from pathlib import Path
from streamlab.stack.home import Home
from streamlab.stack.process import ServerUser

with Home(Path(sys.argv[1]), Path(sys.argv[2]), ServerUser("", -1, -1)).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the home, until its input ends."""
    command = [sys.executable, "-c", _HOLD, str(home.path), str(home.cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_command_at_a_time_changes_a_home(home: Home, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(HomeBusy, match="Another streamlab command has been changing"), home.locked(limit=0.1):
        pass
    threading.Timer(0.2, lambda: holder.stdin and holder.stdin.close()).start()
    begin = time.monotonic()
    with home.locked(limit=20):
        assert time.monotonic() - begin >= 0.1


def test_a_killed_command_lets_go_of_the_lock(home: Home, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    with home.locked(limit=1):
        pass


# -- ports --------------------------------------------------------------------------------------------


def test_a_home_keeps_its_block_of_ports(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.prepare()
    base = home.port_base()
    assert not (home.path / "stack.json").exists()
    home.keep_ports()
    assert home.port_base() == base
    assert home.read()["port_base"] == base
    assert ports.block_is_free(base)
    assert base != ports.DEFAULT_BASE
    monkeypatch.setenv("STREAMLAB_PORT_BASE", "31000")
    assert home.port_base() == 31000
    assert home.read()["port_base"] == base
    home.keep_ports()
    monkeypatch.delenv("STREAMLAB_PORT_BASE")
    assert home.port_base() == 31000


@pytest.mark.parametrize("text", ["80", "65500", "many", "-1"])
def test_a_base_that_is_no_port_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_PORT_BASE", text)
    with pytest.raises(SettingsError, match="no usable port number"):
        ports.base_from_environment()
