"""Downloads: made once, checked at each use, made again when broken, whatever happened in between."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlab.errors import DownloadError, StackError
from streamlab.stack.cache import Cache
from streamlab.stack.process import Cancelled


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, threading.Event())


class Build:
    """Fills an entry, and counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, target: Path) -> None:
        self.times += 1
        (target / "lib").mkdir(mode=0o700)
        (target / "lib" / "a.jar").write_bytes(b"a" * 1000)
        (target / "run").write_bytes(b"#!")
        (target / "run").chmod(0o700)


def entries(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.path.iterdir() if not path.name.endswith(".lock"))


def test_an_entry_is_built_once_and_can_be_read_by_the_servers_user(cache: Cache) -> None:
    build = Build()
    path = cache.ensure("kafka-1", build)
    assert cache.ensure("kafka-1", build) == path
    assert build.times == 1
    assert cache.names() == ["kafka-1"]
    assert entries(cache) == ["kafka-1", "kafka-1.manifest"]
    modes = {name: (path / name).stat().st_mode & 0o777 for name in ("lib", "lib/a.jar", "run")}
    assert modes == {"lib": 0o755, "lib/a.jar": 0o644, "run": 0o755}
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) == 1002


def shorten(path: Path) -> None:
    (path / "lib/a.jar").write_bytes(b"a" * 999)


def remove(path: Path) -> None:
    (path / "lib/a.jar").unlink()


def forget(path: Path) -> None:
    path.with_name(f"{path.name}.manifest").unlink()


def garble(path: Path) -> None:
    path.with_name(f"{path.name}.manifest").write_text('{"lib/a.jar": [100', encoding="utf-8")


def misshape(path: Path) -> None:
    path.with_name(f"{path.name}.manifest").write_text("[1, 2]", encoding="utf-8")


@pytest.mark.parametrize("harm", [shorten, remove, forget, garble, misshape])
def test_what_is_broken_is_made_again(cache: Cache, harm: Callable[[Path], None]) -> None:
    build = Build()
    path = cache.ensure("kafka-1", build)
    harm(path)
    assert cache.problem("kafka-1")
    assert cache.ensure("kafka-1", build) == path
    assert build.times == 2
    assert cache.problem("kafka-1", deep=True) == ""
    assert entries(cache) == ["kafka-1", "kafka-1.manifest"]


def test_a_changed_byte_is_found_by_a_deep_look_and_thrown_away(cache: Cache) -> None:
    path = cache.ensure("kafka-1", Build())
    assert cache.discard_if_broken("kafka-1") == ""
    (path / "lib/a.jar").write_bytes(b"a" * 999 + b"b")
    assert cache.problem("kafka-1") == ""
    assert cache.discard_if_broken("kafka-1") == "kafka-1/lib/a.jar has the wrong content"
    assert entries(cache) == []


def test_a_build_that_fails_leaves_nothing_that_looks_finished(cache: Cache) -> None:
    def fail(target: Path) -> None:
        (target / "half").write_bytes(b"x")
        raise DownloadError("The mirror went away.")

    with pytest.raises(DownloadError, match="went away"):
        cache.ensure("kafka-1", fail)
    with pytest.raises(DownloadError, match="left no files"):
        cache.ensure("kafka-1", lambda _target: None)
    assert entries(cache) == []
    assert cache.problem("kafka-1") == "kafka-1 has not been fetched completely"


_BUILD = """
import sys, threading, time
from pathlib import Path
from streamlab.stack.cache import Cache

root, pause = Path(sys.argv[1]), float(sys.argv[2])

def build(target):
    (target / "half").write_bytes(b"x" * 100)
    with (root.parent / "built").open("a") as file:
        print("built", file=file, flush=True)
    deadline = time.monotonic() + pause
    while time.monotonic() < deadline:
        time.sleep(0.01)

Cache(root, threading.Event()).ensure("entry-1.0", build)
"""


def builder(cache: Cache, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _BUILD, str(cache.path), str(pause)])


@pytest.fixture
def shared(tmp_path: Path) -> Cache:
    (tmp_path / "cache ü").mkdir()
    return Cache(tmp_path / "cache ü", threading.Event())


def built(cache: Cache) -> int:
    file = cache.path.parent / "built"
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def until_built(cache: Cache, times: int) -> None:
    deadline = time.monotonic() + 30
    while built(cache) < times:
        assert time.monotonic() < deadline, "no build began"
        time.sleep(0.01)


def test_two_processes_at_once_build_once(shared: Cache) -> None:
    processes = [builder(shared, 0.3) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert built(shared) == 1
    assert shared.problem("entry-1.0", deep=True) == ""


def test_a_download_that_was_killed_halfway_is_begun_again_and_swept_away(shared: Cache) -> None:
    process = builder(shared, 60)
    until_built(shared, 1)
    assert shared.problem("entry-1.0")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert [name.split("+")[0] for name in entries(shared)] == [".entry-1.0"]
    # The lock went with the process, so this does not wait.
    assert builder(shared, 0).wait(60) == 0
    assert entries(shared) == ["entry-1.0", "entry-1.0.manifest"]


def test_waiting_for_another_process_is_told_and_can_be_given_up(shared: Cache) -> None:
    process = builder(shared, 60)
    try:
        until_built(shared, 1)
        told: list[str] = []

        def waiting() -> None:
            told.append("waiting")
            shared.cancel.set()

        with pytest.raises(Cancelled):
            shared.ensure("entry-1.0", lambda _target: None, waiting=waiting)
        assert told == ["waiting"]
    finally:
        process.kill()
        process.wait(10)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("a file system of a few kilobytes needs the right to mount one")
    try:
        full = Cache(disk, threading.Event())
        with pytest.raises(StackError, match="The disk that holds .* is full"):
            full.ensure("big", lambda target: (target / "big").write_bytes(b"x" * 200_000) and None)
        assert entries(full) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_manifest_holds_size_and_digest_of_each_file(cache: Cache) -> None:
    cache.ensure("kafka-1", Build())
    manifest = json.loads((cache.path / "kafka-1.manifest").read_text(encoding="utf-8"))
    digest = hashlib.sha256(b"#!").hexdigest()
    assert manifest["run"] == [2, digest]
    assert set(manifest) == {"run", "lib/a.jar"}
