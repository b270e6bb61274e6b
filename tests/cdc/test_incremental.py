"""The windows of an incremental snapshot: in whatever order things happen, replica and table are equal at the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation, Transaction
from streamlab.cdc.event import NOTHING
from streamlab.cdc.incremental import PREFIX, Chunk, ChunkProgress, ChunkWindow, Visibility
from streamlab.errors import SettingsError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def change(operation: Operation, old: Any = NOTHING, new: Any = NOTHING, table: str = "t") -> ChangeEvent:
    return ChangeEvent(operation, "s", table, old, new, NOW, "", LSN(0), 0, ("id",))


def message(content: bytes, prefix: str = PREFIX) -> ChangeEvent:
    data = {"prefix": prefix, "content": content, "transactional": True}
    return ChangeEvent(Operation.MESSAGE, "", "", NOTHING, data, NOW, "", LSN(0), 0)


def transaction(xid: int, *events: ChangeEvent) -> Transaction:
    return Transaction(LSN(xid), LSN(xid + 1), str(xid), NOW, events)


# -- visibility and progress --------------------------------------------------------------------------


def test_a_snapshot_tells_what_it_sees() -> None:
    seen = Visibility.parse("10:20:12,14")
    assert [xid for xid in range(8, 23) if not seen.sees(xid)] == [12, 14, 20, 21, 22]
    assert [xid for xid in range(8, 23) if seen.is_over(xid)] == [8, 9]
    assert Visibility.parse("10:10:") == Visibility(10, 10)


def test_the_stream_tells_only_the_lower_half_of_a_number() -> None:
    epoch = 3 << 32
    seen = Visibility(epoch - 5, epoch + 7, frozenset({epoch - 5, epoch + 2}))
    assert seen.sees((1 << 32) - 4)
    assert not seen.sees((1 << 32) - 5)
    assert seen.sees(1)
    assert not seen.sees(2)
    assert not seen.sees(7)
    assert seen.is_over((1 << 32) - 6)


def test_progress_is_kept_as_text() -> None:
    progress = ChunkProgress("s", "t", ("1", 'ü"'), ("9", "z"), 5)
    assert ChunkProgress.parse(str(progress)) == progress
    for text in ("", "[]", "7", '["s", "t", 1, 2, 3, 4]'):
        with pytest.raises(SettingsError, match="no progress"):
            ChunkProgress.parse(text)


def test_a_table_is_done_with_the_last_key_or_a_chunk_that_is_not_full() -> None:
    begun = ChunkProgress("s", "t")
    assert not (first := begun.after([("1",), ("2",)], ("4",), full=True)).done
    assert first.after([("3",), ("4",)], ("4",), full=True).done
    assert first.after([("3",)], ("4",), full=False).done
    assert begun.after([], (), full=False) == ChunkProgress("s", "t", done=True)


# -- one window ---------------------------------------------------------------------------------------


def window(*ids: Any, seen: str = "100:100:") -> ChunkWindow:
    it = ChunkWindow("s", "t", ("id",))
    rows = [{"id": each, "note": "chunk"} for each in ids]
    it.expect(Chunk(b"low", b"high", rows, Visibility.parse(seen), ChunkProgress("s", "t", ("9",))))
    return it


def rows_of(window: ChunkWindow, *between: ChangeEvent) -> list[Any]:
    """What is left of the chunk when these come between the watermarks."""
    assert window.take(transaction(1, message(b"low")))[1] is None
    for number, event in enumerate(between, 2):
        assert window.take(transaction(number, event)) == (transaction(number, event), None)
    merged, chunk = window.take(transaction(99, message(b"high")))
    assert chunk is not None
    assert merged.position == LSN(99)
    assert [each.ordinal for each in merged] == list(range(len(merged))) if len(merged) > 1 else True
    return [each.new_data["id"] for each in merged if each.operation is Operation.SNAPSHOT]


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (change(Operation.UPDATE, new={"id": 2}), [1, 3]),
        (change(Operation.UPDATE, old={"id": 2}, new={"id": 7}), [1, 3]),
        (change(Operation.UPDATE, old={"id": 7}, new={"id": 2}), [1, 3]),
        (change(Operation.UPDATE, old={"id": 2}, new={"id": UNCHANGED}), [1, 3]),
        (change(Operation.DELETE, old={"id": 1}), [2, 3]),
        (change(Operation.INSERT, new={"id": 8}), [1, 2, 3]),
        (change(Operation.TRUNCATE), []),
        (change(Operation.TRUNCATE, table="other"), [1, 2, 3]),
        (change(Operation.DELETE, old={"id": 1}, table="other"), [1, 2, 3]),
        (message(b"low", "somebody else's"), [1, 2, 3]),
    ],
)
def test_what_the_stream_changed_in_the_window_is_left_out(event: ChangeEvent, left: list[int]) -> None:
    it = window(1, 2, 3)
    assert rows_of(it, event) == left
    assert not it.stale


def test_what_came_before_the_window_is_no_reason() -> None:
    it = window(1, 2)
    it.take(transaction(1, change(Operation.DELETE, old={"id": 1})))
    assert rows_of(it) == [1, 2]


def test_keys_that_equal_nothing_or_have_no_hash_are_told_apart() -> None:
    nan = float("nan")
    assert len(rows_of(window(nan, [1, 2], {"a": 1}), change(Operation.UPDATE, new={"id": float("nan")}))) == 2
    assert rows_of(window([1, 2], [3]), change(Operation.UPDATE, new={"id": [1, 2]})) == [[3]]


def test_a_change_that_does_not_tell_its_row_has_the_chunk_read_again() -> None:
    it = window(1, 2)
    assert rows_of(it, change(Operation.DELETE, old={"another": 1})) == []
    assert it.stale


def test_a_chunk_that_does_not_see_what_came_before_it_is_read_again() -> None:
    it = window(1, seen="50:60:50")
    it.take(transaction(50, change(Operation.UPDATE, new={"id": 1})))
    assert rows_of(it) == []
    assert it.stale


def test_watermarks_of_a_reader_that_was_killed_mean_nothing() -> None:
    it = window(1)
    for mark in (b"its low", b"its high"):
        assert it.take(transaction(1, message(mark))) == (transaction(1, message(mark)), None)
    assert rows_of(it) == [1]


# -- a small database ---------------------------------------------------------------------------------


@dataclass
class Database:
    """Keys and values; a commit stands in the log some time before others see it, and its locks go."""

    chance: random.Random
    committed: dict[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    log: list[Transaction] = field(default_factory=list)
    next_xid: int = 100
    latest: int = 99
    locks: dict[int, set[int]] = field(default_factory=dict)
    invisible: dict[int, list[Any]] = field(default_factory=dict)

    def step(self) -> None:
        if self.invisible and self.chance.random() < 0.45:
            self.show(self.chance.choice(list(self.invisible)))
        elif self.chance.random() < 0.8:
            self.commit()
        else:
            self.next_xid += 1  # one that is rolled back

    def steps(self, most: int) -> None:
        for _ in range(self.chance.randint(0, most)):
            self.step()

    def commit(self) -> None:
        held = set().union(*self.locks.values())
        free = [key for key in range(12) if key not in held]
        if not free:
            return
        xid, events, effects = self.next_xid, [], []
        self.next_xid += 1
        if len(free) == 12 and self.chance.random() < 0.05:
            events.append(change(Operation.TRUNCATE))
            effects += [(key, None) for key in list(self.committed)]
            self.locks[xid] = set(range(12))
            self.committed.clear()
        else:
            keys = self.chance.sample(free, min(len(free), self.chance.randint(1, 3)))
            self.locks[xid] = set(keys)
            for key in keys:
                effects += self.write(key, xid, events, keys)
        self.log.append(Transaction(LSN(len(self.log)), LSN(len(self.log) + 1), str(xid), NOW, tuple(events)))
        self.invisible[xid] = effects

    def write(self, key: int, value: int, events: list[ChangeEvent], keys: list[int]) -> list[tuple[int, int | None]]:
        other = self.chance.choice(keys)
        if key not in self.committed:
            self.committed[key] = value
            events.append(change(Operation.INSERT, new={"id": key, "value": value}))
            return [(key, value)]
        if self.chance.random() < 0.3:
            del self.committed[key]
            events.append(change(Operation.DELETE, old={"id": key}))
            return [(key, None)]
        if other not in self.committed and self.chance.random() < 0.5:
            del self.committed[key]
            self.committed[other] = value
            events.append(change(Operation.UPDATE, old={"id": key}, new={"id": other, "value": value}))
            return [(key, None), (other, value)]
        self.committed[key] = value
        events.append(change(Operation.UPDATE, new={"id": key, "value": value}))
        return [(key, value)]

    def show(self, xid: int) -> None:
        for key, value in self.invisible.pop(xid):
            if value is None:
                self.seen.pop(key, None)
            else:
                self.seen[key] = value
        del self.locks[xid]
        self.latest = max(self.latest, xid)

    def mark(self, content: bytes) -> None:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        place = len(self.log)
        self.log.append(Transaction(LSN(place), LSN(place + 1), str(xid), NOW, (message(content),)))
        self.latest = max(self.latest, xid)

    def visibility(self) -> Visibility:
        xmax = self.latest + 1
        running = frozenset(xid for xid in self.invisible if xid < xmax)
        return Visibility(min(running, default=xmax), xmax, running)

    def read(self, progress: ChunkProgress, size: int, number: int) -> Chunk:
        low, high = b"low %d" % number, b"high %d" % number
        self.mark(low)
        self.steps(4)
        seen = self.visibility()
        until = progress.until or ((str(max(self.seen)),) if self.seen else ())
        last = int(progress.last[0]) if progress.last else -1
        keys = [key for key in sorted(self.seen) if until and last < key <= int(until[0])][:size]
        rows = [{"id": key, "value": self.seen[key]} for key in keys]
        self.steps(4)
        self.mark(high)
        following = progress.after([(str(key),) for key in keys], until, full=len(rows) == size)
        return Chunk(low, high, rows, seen, following)


def apply(replica: dict[int, int], transaction: Transaction) -> None:
    for event in transaction:
        if event.operation is Operation.TRUNCATE:
            replica.clear()
        elif event.operation is not Operation.MESSAGE:
            if event.old_data:
                replica.pop(event.old_data["id"], None)
            if event.new_data:
                replica[event.new_data["id"]] = event.new_data["value"]


@given(st.integers(0, 1 << 32), st.integers(1, 5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_replica_and_table_are_equal_at_the_end(seed: int, size: int, kills: bool) -> None:
    chance = random.Random(seed)
    database = Database(chance)
    database.steps(40)
    taken = chance.randint(0, len(database.log))  # the slot is younger than the rows, or not quite
    for xid in [int(each.transaction_id) for each in database.log[:taken]]:
        if xid in database.invisible:
            database.show(xid)
    replica: dict[int, int] = {}
    progress, number, it = ChunkProgress("s", "t"), 0, None
    while not progress.done:
        if it is None or (kills and chance.random() < 0.05):
            # Killed: position and progress are what the replica has kept. By now others see what it has seen.
            for each in database.log[:taken]:
                if int(each.transaction_id) in database.invisible:
                    database.show(int(each.transaction_id))
            it, number = ChunkWindow("s", "t", ("id",)), number + 1
            it.expect(database.read(progress, size, number))
        database.steps(2)
        if taken == len(database.log):
            continue
        merged, chunk = it.take(database.log[taken])
        taken += 1
        apply(replica, merged)
        if chunk is not None:
            progress, number = progress if it.stale else chunk.progress, number + 1
            if not progress.done:
                it.expect(database.read(progress, size, number))
    database.steps(10)
    for transaction in database.log[taken:]:
        apply(replica, transaction)
    assert replica == database.committed
