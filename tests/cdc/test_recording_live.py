"""A reader that writes down what it receives: the recording replays the same, over lost connections too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamlab.cdc import Recording, Transaction
from streamlab.errors import RecordingError

from .conftest import Shop, eventually

pytestmark = pytest.mark.integration


def same(one: Transaction, other: Transaction) -> bool:
    return (one.position, one.end_position, one.transaction_id, list(one)) == (
        other.position,
        other.end_position,
        other.transaction_id,
        list(other),
    )


def test_a_recording_replays_what_was_read(shop: Shop, tmp_path: Path) -> None:
    shop.app.execute("CREATE TYPE mood AS ENUM ('calm', 'busy')")
    shop.app.execute("ALTER TABLE orders ADD COLUMN moods mood[]")
    cdc = shop.reader(record=tmp_path / "live.slrec")
    shop.app.execute("INSERT INTO orders (id, moods) VALUES (1, '{calm,busy}')")
    shop.app.execute("DELETE FROM orders")
    seen = list(cdc.transactions(until=2))
    cdc.close()
    recording = Recording.open(tmp_path / "live.slrec")
    assert recording.complete
    assert recording.about.server == ".".join(shop.value("SHOW server_version").split(".")[:2])
    assert recording.about.publications == (shop.publication,)
    replayed = list(recording.transactions())
    assert len(replayed) == 2
    assert all(map(same, seen, replayed))
    assert next(iter(replayed[0])).new_data["moods"] == ["calm", "busy"]


def test_a_recording_that_is_cut_anywhere_replays_a_beginning_of_what_was_read(shop: Shop, tmp_path: Path) -> None:
    """As a kill leaves it: the types of a row are in the file before the row is."""
    shop.app.execute("CREATE TYPE pair AS (left_ int, right_ text)")
    shop.app.execute("CREATE TYPE mood AS ENUM ('calm', 'busy')")
    shop.app.execute("ALTER TABLE orders ADD COLUMN moods mood[], ADD COLUMN both_ pair")
    with shop.reader(record=tmp_path / "live.slrec") as cdc:
        shop.app.execute("INSERT INTO orders (id, moods, both_) VALUES (1, '{calm,busy}', '(1,a)')")
        shop.app.execute("DELETE FROM orders")
        seen = list(cdc.transactions(until=2))
    whole, cut = (tmp_path / "live.slrec").read_bytes(), tmp_path / "cut.slrec"
    lengths = set()
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            replayed = list(Recording.open(cut).transactions())
        except RecordingError:
            continue  # cut within what says that it is one
        lengths.add(len(replayed))
        assert all(map(same, seen, replayed)), length
    assert {0, 2} <= lengths


@pytest.mark.parametrize("protocol", [1, 2])
def test_what_comes_again_after_a_lost_connection_is_replayed_once(shop: Shop, tmp_path: Path, protocol: int) -> None:
    cdc = shop.reader(record=tmp_path / "live.slrec", protocol=protocol)
    seen: list[Any] = []
    for number in range(6):
        shop.app.execute(
            "INSERT INTO orders SELECT i, repeat('x', 200) FROM generate_series(%s::int, %s) i",
            [number * 1000, number * 1000 + 499],
        )
        # Whatever was received and not handed out comes again: cut in the middle of what waits.
        if number % 2:
            shop.kill_walsender()
        transactions = cdc.transactions(until=number + 1)
        seen = list(transactions)
    cdc.close()
    replayed = list(Recording.open(tmp_path / "live.slrec").transactions())
    assert len(replayed) == 6
    assert all(map(same, seen, replayed))
    kinds = [chunk.again for chunk in Recording.open(tmp_path / "live.slrec").chunks()]
    assert sum(kinds) >= 5, "each iteration began anew, without an acknowledgement"


def test_a_session_is_recorded_too(shop: Shop, tmp_path: Path) -> None:
    shop.insert(1)
    with shop.session(snapshot="initial", record=tmp_path / "session.slrec") as cdc:
        shop.insert(2)
        assert len(list(cdc.transactions(until=2))) == 2
    replayed = Recording.open(tmp_path / "session.slrec").transactions()
    assert [event.new_data["id"] for each in replayed for event in each] == [2]


def test_a_file_that_is_there_is_not_written_over(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    cdc = shop.reader(record=tmp_path / "there")
    with pytest.raises(RecordingError, match="cannot be recorded to"):
        next(cdc.transactions())
    assert (tmp_path / "there").read_text() == "precious"
    eventually(lambda: shop.walsender() is None)
