"""Room for transactions that are not complete: bounded memory, and nothing left on disk, whatever ends the process."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlab.cdc.spill import Spill, Spool
from streamlab.errors import ChangeStreamError

ROOT = Path(__file__).parents[2]


def filled(spill: Spill, count: int, size: int = 100) -> Spool:
    spool = spill.spool()
    for at in range(count):
        spool.append(bytes([at % 256]) * size)
    return spool


def test_the_largest_go_to_disk_until_the_rest_fits(tmp_path: Path) -> None:
    spill = Spill(tmp_path, memory=1000)
    small, large, middle = filled(spill, 2), filled(spill, 12), filled(spill, 5)
    spill.relieve()
    assert [each.on_disk > 0 for each in (small, large, middle)] == [False, True, False]
    assert (large.held, large.size, small.held) == (0, 1200, 200)
    large.append(b"more")
    assert list(large) == [bytes([at]) * 100 for at in range(12)] + [b"more"]
    for _ in range(9):
        large.append(b"x" * 100)
    spill.relieve()
    assert large.held == 0
    assert len(list(large)) == 22
    spill.close()


def test_nothing_goes_to_disk_that_fits_or_was_handed_out(tmp_path: Path) -> None:
    spill = Spill(tmp_path, memory=1000)
    fits, given = filled(spill, 10), filled(spill, 20)
    spill.forget(given)
    spill.relieve()
    assert (fits.on_disk, given.on_disk) == (0, 0)


def test_without_a_directory_all_stays_in_memory() -> None:
    spill = Spill(memory=10)
    spool = filled(spill, 5)
    spill.relieve()
    assert (spool.on_disk, len(list(spool))) == (0, 5)


def test_the_directory_is_the_owners_alone_and_the_file_has_no_name(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    spill = Spill(directory, memory=0)
    spool = filled(spill, 5)
    spill.relieve()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []
    assert spool.on_disk > 0
    spill.close()


def test_where_a_file_cannot_be_without_a_name_it_loses_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def refuse(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return open_file(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    spill = Spill(tmp_path, memory=0)
    spool = filled(spill, 5)
    spill.relieve()
    assert list(tmp_path.iterdir()) == []
    assert len(list(spool)) == 5
    spill.close()


def test_what_a_dead_process_left_is_removed_and_what_a_live_one_uses_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(30)
    names = [f"spill-{ended.pid}-x", f"spill-{os.getpid()}-y", f"spill-{os.getppid()}-z", "spill-me-not", "other"]
    for name in names:
        (tmp_path / name).touch()
    Spill(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path, memory=0)
    filled_spool = filled(spill, 5)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ChangeStreamError, match="No space left on device"):
        spill.relieve()
    monkeypatch.undo()
    spill.close()
    with pytest.raises(ChangeStreamError, match="given back"):
        list(filled_spool)


_KILLED = """
import os, signal, sys
from pathlib import Path
from streamlab.cdc.spill import Spill
spill = Spill(Path(sys.argv[1]), memory=0)
spool = spill.spool()
spool.append(b"x" * 1000)
spill.relieve()
assert spool.on_disk
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


_LARGE = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from cdc import encoder as pg
from streamlab.cdc.pgoutput import Decoder
from streamlab.cdc.spill import Spill

count, streamed = int(sys.argv[1]), sys.argv[2] == "streamed"
xid = 7 if streamed else None
table = pg.Table(1, "s", "t", (("id", 20), ("total", 1700), ("note", 25)), frozenset({"id"}))
decoder = Decoder(protocol=2, spill=Spill(Path(sys.argv[3]), memory=1 << 20, eager=1 << 20))
def megabytes():
    # Not getrusage: its peak is handed down from the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
before = megabytes()
decoder.receive([pg.stream_start(7, first=True), table.relation(7), pg.stream_stop()] if streamed
                else [table.relation(), pg.begin(7, 100)])
for start in range(0, count, 1000):
    rows = [table.insert([str(at), "9.90", f"note {at}"], xid) for at in range(start, start + 1000)]
    assert not decoder.receive([pg.stream_start(7, first=False), *rows, pg.stream_stop()] if streamed else rows)
(transaction,) = decoder.receive([pg.stream_commit(7, 100, 108) if streamed else pg.commit(100, 108)])
assert len(transaction) == count
for _ in range(2):
    for ordinal, event in enumerate(transaction):
        assert event.ordinal == event.new_data["id"] == ordinal
    assert ordinal == count - 1
print(before, megabytes())
"""


def grown(count: int, kind: str, directory: Path) -> tuple[float, float]:
    """Peak memory of a process that reads so large a transaction twice, before and after, in MB."""
    ended = subprocess.run(
        [sys.executable, "-c", _LARGE, str(count), kind, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    before, after = map(float, ended.stdout.split())
    return before, after


@pytest.mark.parametrize("kind", ["streamed", "whole"])
def test_memory_does_not_grow_with_a_transaction(tmp_path: Path, kind: str) -> None:
    """As events, 60,000 of these rows take 40 MB."""
    before, after = grown(60_000, kind, tmp_path)
    assert after - before < 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.environ.get("STREAMLAB_SOAK"), reason="a long proof: make soak")
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("kind", ["streamed", "whole"])
def test_five_million_rows_in_one_transaction_take_less_than_200_mb(tmp_path: Path, kind: str) -> None:
    _, after = grown(5_000_000, kind, tmp_path)
    assert after < 200
