"""Recordings: every byte comes back, what is cut or changed is noticed, and a replay is what the server had sent."""

from __future__ import annotations

import itertools
import logging
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cdc.recorded import RawStream, committed, sell, shop
from cdc.server import Server, server
from streamlab.cdc import LSN, UNCHANGED, Operation, Transaction
from streamlab.cdc.recording import About, Recorder, Recording
from streamlab.cdc.recording_file import _START, MAGIC
from streamlab.cdc.source import ChangeSource
from streamlab.errors import ChangeStreamError, RecordingError, SettingsError

SAMPLE = Path(__file__).parents[2] / "data" / "shop.slrec"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.slrec"


@pytest.fixture
def ten(path: Path) -> Recording:
    """A recording of ten transactions."""
    with Recorder(path, About("18.4")) as recorder:
        for number in range(1, 11):
            recorder.append(committed(number))
    return Recording.open(path)


def positions(transactions: Any) -> list[int]:
    return [int(each.position) // 0x100 for each in transactions]


# -- the file ----------------------------------------------------------------------------------------------------------

messages_ = st.builds(
    lambda start, letter, rest: b"w" + struct.pack("!QQq", start, start, 0) + letter + rest,
    st.integers(0, 2**40),
    st.sampled_from([b"I", b"B", b"C"]),
    st.binary(max_size=60),
)
batches_ = st.lists(st.lists(messages_, max_size=5), max_size=6)


def recorded(batches: list[list[bytes]], **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.slrec"
        with Recorder(path, About("18.4", **options)) as recorder:
            for batch in batches:
                recorder.append([memoryview(each) for each in batch])
        return path.read_bytes()


def reading(data: bytes, path: Path) -> tuple[list[bytes], bool]:
    path.write_bytes(data)
    recording = Recording.open(path)
    return list(recording), recording.complete


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recording") / "scratch.slrec"


@given(batches_)
def test_every_message_comes_back_as_often_as_asked(scratch: Path, batches: list[list[bytes]]) -> None:
    scratch.write_bytes(recorded(batches))
    recording = Recording.open(scratch)
    sent = list(itertools.chain(*batches))
    assert list(recording) == sent
    assert list(recording) == sent
    assert (recording.complete, recording.count) == (True, len(sent))
    times = [chunk.seconds for chunk in recording.chunks()]
    assert times == sorted(times)


@hypothesis_settings(max_examples=50)
@given(batches_, st.integers(0, 10**6))
def test_a_cut_recording_is_read_as_far_as_it_is_whole(scratch: Path, batches: list[list[bytes]], place: int) -> None:
    whole = recorded(batches)
    cut = place % len(whole)
    try:
        found, complete = reading(whole[:cut], scratch)
    except RecordingError:
        # Only where not even the description is whole.
        assert cut < whole.index(b"recorded_at") + 60
        return
    assert not complete
    sent = list(itertools.chain(*batches))
    assert found == sent[: len(found)]


@hypothesis_settings(max_examples=50)
@given(batches_, st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_never_taken_for_the_right_one(
    scratch: Path, batches: list[list[bytes]], place: int, change: int
) -> None:
    whole = bytearray(recorded(batches))
    whole[place % len(whole)] ^= change
    with pytest.raises(RecordingError):
        reading(bytes(whole), scratch)


@given(st.binary(max_size=200))
def test_a_file_of_anything_else_is_refused_in_a_sentence(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    with pytest.raises(RecordingError, match="no recording|damaged|version|text mode"):
        Recording.open(scratch)


def test_what_is_wrong_with_a_file_is_said(path: Path, tmp_path: Path) -> None:
    whole = recorded([committed(1)])
    path.write_bytes(_START.pack(MAGIC, 2) + whole[_START.size :])
    with pytest.raises(RecordingError, match="has version 2; this program reads version 1"):
        Recording.open(path)
    for mangled in (whole.replace(b"\r\n", b"\n"), whole.decode("latin-1").encode()):
        path.write_bytes(mangled)
        with pytest.raises(RecordingError, match="text mode"):
            Recording.open(path)
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        Recording.open(tmp_path / "missing")
    with pytest.raises(RecordingError, match="cannot be read: Is a directory"):
        Recording.open(tmp_path)


def test_damage_in_the_middle_comes_after_what_is_right(ten: Recording, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-120] ^= 1
    path.write_bytes(bytes(data))
    found = []
    with pytest.raises(RecordingError, match="damaged"):
        for transaction in ten.transactions():
            found.append(transaction)
    assert 0 < len(found) < 10


def test_recorders_refuse_what_they_cannot_do(path: Path) -> None:
    with Recorder(path, About("18.4")) as recorder:
        with pytest.raises(RecordingError, match="no XLogData"):
            recorder.append([b"k" + bytes(17)])
        with pytest.raises(RecordingError, match="exists"):
            Recorder(path, About("18.4"))
    with pytest.raises(RecordingError, match="closed"):
        recorder.append(committed(1))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RecordingError, match="No such file"):
        Recorder(path.with_name("no") / "a", About("18.4"))


def test_what_was_recorded_is_told(path: Path) -> None:
    about = About("18.4", 2, True, ("orders", "späte"), LSN.parse("1/A0"), {7: ("a", "b")}, "by hand <b>")
    rows = [(70001, "mood", "e", 0, ",", [], []), (70002, "moods", "a", 70001, ",", [], [])]
    with Recorder(path, about) as recorder:
        recorder.types(rows[:1])
        recorder.types(rows[1:])
        recorder.append([b"w" + struct.pack("!QQq", 0x1_0000_0200, 0x1_0000_0300, 0) + b"C"])
    recording = Recording.open(path)
    assert (recording.about, recording.types) == (about, rows)
    assert (recording.count, recording.end) == (1, LSN.parse("1/300"))
    html = recording._repr_html_()
    assert "1/A0 to 1/300" in html
    assert "<b>orders.slrec" in html
    assert "by hand &lt;b&gt;" in html


def test_small_transactions_share_what_they_have_in_common(path: Path) -> None:
    sent = [committed(number) for number in range(1, 501)]
    with Recorder(path, About("18.4")) as recorder:
        for each in sent:
            recorder.append(each)
    assert path.stat().st_size < sum(len(each) for each in itertools.chain(*sent)) / 2


def test_a_large_transaction_is_written_in_pieces(path: Path) -> None:
    with Recorder(path, About("18.4")) as recorder:
        begin, *rest = committed(1, rows=20_000)
        recorder.append([begin, *rest[:-1]])
        assert recorder._size < 1 << 20
        assert path.stat().st_size > 10_000
        recorder.append(rest[-1:])
    (transaction,) = Recording.open(path).transactions()
    assert len(transaction) == 20_000


def test_a_connection_that_was_made_again_gives_no_transaction_twice_and_none_in_pieces(path: Path) -> None:
    with Recorder(path, About("18.4")) as recorder:
        recorder.append(committed(1))
        recorder.append(committed(2)[:3])
        recorder.flush()
        recorder.restart()
        recorder.append([*committed(1), *committed(2)[:2]])
        recorder.restart()
        recorder.append([*committed(2), *committed(3)])
    for _ in range(2):
        assert [int(each.transaction_id) for each in Recording.open(path).transactions()] == [1, 2, 3]
    source = Recording.open(path).source()
    source.acknowledge(next(source.transactions()))
    assert [int(each.transaction_id) for each in source.transactions()] == [2, 3]
    source.close()


RECORDER = """
import sys
sys.path.insert(0, sys.argv[2])
from cdc.recorded import About, Recorder, committed
recorder = Recorder(sys.argv[1], About("18.4"))
for number in range(1, 10**9):
    recorder.append(committed(number))
    print(number, flush=True)
"""


def test_a_recorder_that_is_killed_leaves_every_transaction_that_it_had_ended(path: Path, caplog: Any) -> None:
    command = [sys.executable, "-c", RECORDER, str(path), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 200:
                child.kill()
                break
        said = [int(line), *(int(rest) for rest in child.stdout.read().split(b"\n") if rest)]
    with caplog.at_level(logging.WARNING, "streamlab.cdc.recording"):
        recording = Recording.open(path)
    assert "was not closed" in caplog.text
    assert not recording.complete
    found = positions(recording.transactions())
    assert found == list(range(1, len(found) + 1))
    assert max(said[:-1], default=200) <= len(found)
    assert recording.source().lag().size is None


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_replay_goes_on_after_the_last_acknowledgement(ten: Recording) -> None:
    with ten.source() as source:
        assert isinstance(source.name, str)
        assert positions(source.transactions(until=4)) == [1, 2, 3, 4]
        assert source.received == LSN(0x410)
        assert source.acknowledged is None
        # What was handed out and not acknowledged comes again.
        first, second, *_ = list(source.transactions(until=4))
        source.acknowledge(second)
        source.acknowledge(first)  # monotonic
        assert source.acknowledged == second.end_position
        source.acknowledge(LSN(0xFFFFFF))  # never beyond what was handed out
        assert source.acknowledged == LSN(0x410)
        assert positions(source.transactions()) == [5, 6, 7, 8, 9, 10]
        assert positions(source.transactions()) == [5, 6, 7, 8, 9, 10]
    with ten.source(after=LSN(0x710)) as source:
        assert positions(source.transactions()) == [8, 9, 10]
        assert source.acknowledged == LSN(0x710)
    source.close()
    with pytest.raises(ChangeStreamError, match="closed"):
        next(source.transactions())


def test_it_is_a_change_source(ten: Recording) -> None:
    source: ChangeSource = ten.source()
    with source:
        batches = list(source.batches(max_rows=3))
        assert [positions(batch.transactions) for batch in batches] == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
        source.acknowledge(batches[1])
        assert source.acknowledged == batches[1].end_position
        assert [len(batch) for batch in source.batches(max_rows=100)] == [4]


@pytest.fixture
def slow(path: Path) -> Recording:
    """Three transactions with a pause of at least 0.15 s between each two."""
    with Recorder(path, About("18.4")) as recorder:
        for number in range(1, 4):
            recorder.append(committed(number))
            threading.Event().wait(0.15)
    return Recording.open(path)


def test_time_passes_as_it_did(slow: Recording) -> None:
    def elapsed(speed: float | None) -> float:
        begin = time.monotonic()
        assert positions(slow.transactions(speed=speed)) == [1, 2, 3]
        return time.monotonic() - begin

    as_it_was = elapsed(1.0)
    assert as_it_was >= 0.3
    assert elapsed(3.0) >= 0.1
    assert elapsed(None) < as_it_was
    with pytest.raises(SettingsError, match="times its speed"):
        slow.source(speed=0)


def test_a_slow_replay_can_be_stopped_and_given_up(slow: Recording) -> None:
    with slow.source(speed=0.001) as source:
        assert positions(source.transactions(idle=0.05)) == [1]
        assert [positions(batch.transactions) for batch in itertools.islice(source.batches(max_wait=0.05), 1)] == [[1]]
        with ThreadPoolExecutor(1) as pool:
            first = threading.Event()

            def read() -> list[int]:
                found = []
                for each in source.transactions():
                    found.append(each)
                    first.set()
                return positions(found)

            reading = pool.submit(read)
            assert first.wait(10)
            source.stop()
            assert reading.result(10) == [1]


# -- a real server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(stack: object) -> Iterator[Server]:
    yield from server("test_recording")


def comparable(transactions: list[Transaction]) -> list[Any]:
    return [(each.transaction_id, each.position, each.end_position, list(each)) for each in transactions]


@pytest.mark.integration
def test_a_replay_is_what_the_server_had_sent_with_no_server(database: Server, path: Path) -> None:
    shop(database)
    database.forget()
    with RawStream(database, path) as stream:
        live = sell(database, stream, orders=40)
    recording = Recording.open(path)
    assert recording.types != []  # the enum of an order's status
    with recording.source() as source:
        last = list(source.transactions())[-1]
        behind = source.lag().size
        source.acknowledge(last)
        assert behind is not None
        assert 0 <= (source.lag().size or 0) < behind
    assert comparable(list(recording.transactions())) == comparable(live)
    lazy = list(recording.source(lazy=True).transactions())
    assert [event.new_data.get("id") for each in lazy for event in each] == [
        event.new_data.get("id") for each in live for event in each
    ]
    # The tables, from the recording alone.
    stock: dict[Any, Any] = {}
    orders: dict[Any, Any] = {}
    for event in itertools.chain(*recording.transactions()):
        rows = {"products": stock, "orders": orders}.get(event.table_name)
        if rows is not None and event.operation is Operation.DELETE:
            del rows[event.key]
        elif rows is not None:
            before = rows.get(event.key, {})
            rows[event.key] = {
                name: before[name] if value is UNCHANGED else value for name, value in event.new_data.items()
            }
    query = "SELECT id, stock, photo FROM products ORDER BY id"
    assert (
        sorted((row["id"], row["stock"], row["photo"]) for row in stock.values()) == database.execute(query).fetchall()
    )
    query = "SELECT id, status::text, total, details FROM orders ORDER BY id"
    found = [(row["id"], row["status"], row["total"], row["details"]) for row in orders.values()]
    assert sorted(found, key=lambda row: row[0]) == database.execute(query).fetchall()


def test_the_recording_that_comes_with_the_project() -> None:
    assert SAMPLE.stat().st_size < 300_000
    recording = Recording.open(SAMPLE)
    assert recording.complete
    transactions = list(recording.transactions())
    events = list(itertools.chain(*transactions))
    kinds = Counter((each.table_name, str(each.operation)) for each in events)
    assert kinds["customers", "INSERT"] == 20
    assert kinds["products", "INSERT"] == 12
    assert kinds["orders", "INSERT"] == 300
    assert kinds["orders", "DELETE"] == 15
    assert kinds["order_items", "INSERT"] == kinds["products", "UPDATE"]
    assert kinds["", "MESSAGE"] == 1
    assert len({(each.position, each.ordinal) for each in events}) == len(events)
    assert all(
        each.new_data["photo"] is UNCHANGED
        for each in events
        if (each.table_name, each.operation) == ("products", Operation.UPDATE)
    )
    first = next(each for each in events if each.table_name == "orders")
    assert isinstance(first.new_data["total"], Decimal)
    assert first.new_data["status"] == "placed"
