"""The contract of `DeadLetters`. An implementation is tested by a subclass that says how to make a store::

    class TestMine(DeadLettersContract):
        @contextmanager
        def stores(self):
            yield MyDeadLetters()

    TestMineStateful = dead_letters_machine(MyDeadLetters).TestCase

`stores` is called for every test and yields an empty store whose changes later tests do not see.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamlab.dead_letters import (
    DeadLetter,
    DeadLetters,
    Lane,
    LetterId,
    Record,
    Replayed,
    Status,
    replay,
)
from streamlab.errors import StreamlabError

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def record(position: int, key: bytes | None = b"k", *, group: str = "g", source: str = "s", **place: int) -> Record:
    return Record(
        LetterId(group, source, place.get("partition", 0), position, place.get("sequence", 0)),
        key=key,
        payload=b"payload %d \x00\xff" % position,
        headers=(("trace", b"\x01"), ("trace", None)),
    )


def failed(one: Record, *, now: datetime = T0, next_at: datetime = T0, attempts: int = 1) -> DeadLetter:
    return DeadLetter.failed(one, ValueError("no such product"), attempts=attempts, now=now, next_at=next_at)


def behind(one: Record, *, now: datetime = T0) -> DeadLetter:
    return DeadLetter.behind(one, now=now)


def lane(key: bytes | None = b"k", *, group: str = "g", source: str = "s") -> Lane:
    return Lane(group, source, key)


class Boom(Exception):
    pass


class DeadLettersContract(ABC):
    @abstractmethod
    def stores(self) -> AbstractContextManager[DeadLetters]:
        """A store for one test."""

    @pytest.fixture
    def store(self) -> Iterator[DeadLetters]:
        with self.stores() as store:
            yield store

    def test_an_empty_store(self, store: DeadLetters) -> None:
        assert store.letters("g") == []
        assert store.claim("g", now=None) is None
        summary = store.summary("g")
        assert dict(summary.counts) == dict.fromkeys(Status, 0)
        assert (summary.depth, summary.parked_keys, summary.oldest_at) == (0, 0, None)

    def test_a_letter_comes_back_as_it_was_given(self, store: DeadLetters) -> None:
        letter = failed(record(7, sequence=2, partition=3), attempts=4, next_at=T0 + MINUTE)
        tombstone = replace(behind(record(8)), record=replace(record(8), payload=None, headers=()))
        assert store.park(letter)
        assert store.park(tombstone)
        assert store.letters("g") == sorted([letter, tombstone], key=lambda one: one.id)
        assert letter.error_class == "builtins.ValueError"
        assert letter.message == "no such product"
        assert letter.sqlstate is None

    def test_a_repeated_park_changes_nothing(self, store: DeadLetters) -> None:
        first = failed(record(1))
        assert store.park(first)
        assert not store.park(failed(record(1), attempts=9, next_at=T0 + MINUTE))
        assert store.letters("g") == [first]

    def test_a_closed_letter_is_opened_again_when_its_record_fails_again(self, store: DeadLetters) -> None:
        store.park(failed(record(1)))
        assert store.replayed(record(1).id, T0)
        again = failed(record(1), now=T0 + MINUTE, next_at=T0 + MINUTE)
        assert store.park(again)
        assert store.letters("g") == [again]
        assert store.is_parked(lane())

    @pytest.mark.parametrize("status", [Status.REPLAYED, Status.DISCARDED])
    def test_a_closed_letter_cannot_be_parked(self, store: DeadLetters, status: Status) -> None:
        with pytest.raises(StreamlabError, match="closed"):
            store.park(failed(record(1)).closed(status, T0))
        assert store.letters("g") == []

    def test_a_key_is_parked_for_its_group_and_source_alone(self, store: DeadLetters) -> None:
        store.park(failed(record(1)))
        assert store.is_parked(lane())
        assert not store.is_parked(lane(b"other"))
        assert not store.is_parked(lane(source="other"))
        assert not store.is_parked(lane(group="other"))
        assert store.parked_keys("g", "s", [b"k", b"other", b""]) == {b"k"}
        assert store.parked_keys("g", "other", [b"k"]) == frozenset()
        assert store.parked_keys("g", "s", []) == frozenset()

    def test_the_empty_key_is_a_key(self, store: DeadLetters) -> None:
        store.park(failed(record(1, key=b"")))
        assert store.is_parked(lane(b""))
        assert not store.is_parked(lane(None))

    def test_a_record_without_key_blocks_nothing(self, store: DeadLetters) -> None:
        store.park(failed(record(1, key=None), next_at=T0 + MINUTE))
        store.park(failed(record(2, key=None)))
        assert not store.is_parked(lane(None))
        assert store.summary("g").parked_keys == 0
        claimed = store.claim("g", now=T0)
        assert claimed is not None
        assert claimed.id.position == 2
        assert store.replayed(claimed.id, T0)

    def test_a_key_stays_parked_until_its_last_letter_is_closed(self, store: DeadLetters) -> None:
        store.park(failed(record(1)))
        store.park(behind(record(2)))
        assert store.replayed(record(1).id, T0)
        assert store.is_parked(lane())
        assert store.discard(record(2).id, T0)
        assert not store.is_parked(lane())
        assert dict(store.summary("g").counts) == {
            Status.PARKED: 0,
            Status.BEHIND: 0,
            Status.REPLAYED: 1,
            Status.DISCARDED: 1,
        }

    def test_the_first_of_a_lane_is_given_and_no_other(self, store: DeadLetters) -> None:
        for letter in (behind(record(3)), failed(record(1), next_at=T0 + MINUTE), behind(record(2))):
            store.park(letter)
        assert store.claim("g", now=T0) is None, "the first is not due, so nothing behind it is"
        claimed = store.claim("g", now=T0 + MINUTE)
        assert claimed is not None
        assert claimed.id.position == 1
        assert store.claim("g", now=T0 + MINUTE, skip=[claimed.id]) is None
        with pytest.raises(StreamlabError, match="not the first"):
            store.replayed(record(2).id, T0)

    def test_an_earlier_record_that_arrives_later_is_first(self, store: DeadLetters) -> None:
        store.park(failed(record(10)))
        store.park(behind(record(5, sequence=1)))
        store.park(behind(record(5, sequence=0)))
        order = []
        while (claimed := store.claim("g", now=None)) is not None:
            order.append((claimed.id.position, claimed.id.sequence))
            store.replayed(claimed.id, T0)
        assert order == [(5, 0), (5, 1), (10, 0)]

    def test_the_longest_due_lane_is_given_first(self, store: DeadLetters) -> None:
        store.park(failed(record(1, b"a"), next_at=T0 + 2 * MINUTE))
        store.park(failed(record(2, b"b"), next_at=T0 + MINUTE))
        store.park(failed(record(3, b"c"), next_at=T0 + 3 * MINUTE))
        first = store.claim("g", now=T0 + 2 * MINUTE)
        assert first is not None
        assert first.record.key == b"b"
        second = store.claim("g", now=T0 + 2 * MINUTE, skip=[first.id])
        assert second is not None
        assert second.record.key == b"a"
        assert store.claim("g", now=T0 + 2 * MINUTE, skip=[first.id, second.id]) is None
        chosen = store.claim("g", now=None, lane=lane(b"c"))
        assert chosen is not None
        assert chosen.record.key == b"c"
        assert store.claim("g", now=None, lane=lane(b"d")) is None

    def test_a_failed_attempt_is_noted(self, store: DeadLetters) -> None:
        store.park(behind(record(1)))
        assert store.postpone(record(1).id, KeyError("x"), now=T0 + MINUTE, next_at=T0 + 2 * MINUTE)
        (letter,) = store.letters("g")
        assert letter.status is Status.PARKED
        assert (letter.attempts, letter.error_class) == (1, "builtins.KeyError")
        assert (letter.parked_at, letter.changed_at, letter.next_at) == (T0, T0 + MINUTE, T0 + 2 * MINUTE)
        assert store.claim("g", now=T0 + MINUTE) is None

    def test_what_is_not_open_cannot_be_changed(self, store: DeadLetters) -> None:
        store.park(failed(record(1)))
        store.discard(record(1).id, T0)
        before = store.letters("g")
        for letter_id in (record(1).id, record(2).id):
            assert not store.replayed(letter_id, T0 + MINUTE)
            assert not store.discard(letter_id, T0 + MINUTE)
            assert not store.postpone(letter_id, Boom(), now=T0, next_at=T0)
        assert store.letters("g") == before

    def test_letters_are_listed_by_status_and_limited(self, store: DeadLetters) -> None:
        for position in (3, 1, 2):
            store.park(failed(record(position, b"%d" % position)))
        store.discard(record(1).id, T0)
        assert [one.id.position for one in store.letters("g")] == [1, 2, 3]
        assert [one.id.position for one in store.letters("g", status=Status.PARKED)] == [2, 3]
        assert [one.id.position for one in store.letters("g", limit=2)] == [1, 2]
        assert store.letters("other") == []

    def test_the_summary_is_the_groups_own(self, store: DeadLetters) -> None:
        store.park(failed(record(1), now=T0 + MINUTE))
        store.park(behind(record(2), now=T0 + 2 * MINUTE))
        store.park(failed(record(1, b"x", group="other"), now=T0))
        summary = store.summary("g")
        assert (summary.depth, summary.parked_keys, summary.oldest_at) == (2, 1, T0 + MINUTE)
        assert (summary.counts[Status.PARKED], summary.counts[Status.BEHIND]) == (1, 1)

    def test_only_old_closed_letters_are_forgotten(self, store: DeadLetters) -> None:
        store.park(failed(record(1, b"a")))
        store.park(failed(record(2, b"b")))
        store.park(failed(record(3, b"c")))
        store.park(failed(record(1, b"a", group="other")))
        store.discard(record(1).id, T0)
        store.discard(record(2).id, T0 + MINUTE)
        store.discard(record(1, group="other").id, T0)
        assert store.purge("g", T0 + MINUTE) == 1
        assert [one.id.position for one in store.letters("g")] == [2, 3]
        assert len(store.letters("other")) == 1

    def test_a_time_without_zone_is_refused(self, store: DeadLetters) -> None:
        naive = T0.replace(tzinfo=None)
        with pytest.raises(StreamlabError, match="time zone"):
            failed(record(1), now=naive)
        store.park(failed(record(1)))
        changes: list[Callable[[], object]] = [
            lambda: store.discard(record(1).id, naive),
            lambda: store.replayed(record(1).id, naive),
            lambda: store.postpone(record(1).id, Boom(), now=T0, next_at=naive),
            lambda: store.purge("g", naive),
        ]
        for change in changes:
            with pytest.raises(StreamlabError, match="time zone"):
                change()
        assert store.is_parked(lane())

    def test_a_failed_transaction_leaves_nothing(self, store: DeadLetters) -> None:
        kept = failed(record(1, b"a"))
        closed = failed(record(9, b"z"))
        store.park(kept)
        store.park(closed)
        store.discard(closed.id, T0)
        before = store.letters("g")
        with pytest.raises(Boom), store.transaction():
            store.park(failed(record(2, b"b")))
            store.postpone(kept.id, Boom(), now=T0, next_at=T0 + MINUTE)
            store.replayed(kept.id, T0)
            store.purge("g", T0 + MINUTE)
            assert [one.id.position for one in store.letters("g")] == [2]
            assert store.is_parked(lane(b"b"))
            raise Boom
        assert store.letters("g") == before
        assert store.is_parked(lane(b"a"))
        assert not store.is_parked(lane(b"b"))

    def test_a_failed_inner_transaction_undoes_its_part_alone(self, store: DeadLetters) -> None:
        with store.transaction():
            store.park(failed(record(1, b"a")))
            with pytest.raises(Boom), store.transaction():
                store.park(failed(record(2, b"b")))
                store.discard(record(1).id, T0)
                raise Boom
            store.park(failed(record(3, b"c")))
        assert [one.id.position for one in store.letters("g")] == [1, 3]
        assert store.is_parked(lane(b"a"))

    def test_a_failed_outer_transaction_undoes_the_inner_one_too(self, store: DeadLetters) -> None:
        with pytest.raises(Boom), store.transaction():
            with store.transaction():
                store.park(failed(record(1)))
            raise Boom
        assert store.letters("g") == []

    def test_replay_is_first_in_first_out_and_one_bad_key_holds_up_itself_alone(self, store: DeadLetters) -> None:
        for position in range(1, 7):
            store.park((failed if position < 3 else behind)(record(position, b"odd" if position % 2 else b"even")))
        seen: list[int] = []

        def handle(letter: DeadLetter) -> None:
            seen.append(letter.id.position)
            if letter.id.position == 3:
                raise ValueError("still bad")

        result = replay(store, "g", handle, clock=lambda: T0)
        assert result == Replayed(applied=4, failed=1)
        assert [one for one in seen if one % 2] == [1, 3]
        assert [one for one in seen if not one % 2] == [2, 4, 6]
        assert store.is_parked(lane(b"odd"))
        assert not store.is_parked(lane(b"even"))
        (third,) = (one for one in store.letters("g") if one.id.position == 3)
        assert (third.attempts, third.next_at) == (1, T0 + MINUTE)
        assert replay(store, "g", handle, clock=lambda: T0) == Replayed(0, 0), "nothing is due"
        assert replay(store, "g", lambda _: None, clock=lambda: T0, force=True) == Replayed(2, 0)
        assert store.summary("g").depth == 0

    def test_replay_of_one_key_and_of_a_number(self, store: DeadLetters) -> None:
        for position in range(4):
            store.park(failed(record(position, b"%d" % position)))
        assert replay(store, "g", lambda _: None, clock=lambda: T0, lane=lane(b"2")) == Replayed(1, 0)
        assert replay(store, "g", lambda _: None, clock=lambda: T0, limit=2) == Replayed(2, 0)
        assert [one.id.position for one in store.letters("g", status=Status.PARKED)] == [3]

    @pytest.mark.parametrize("error", [ConnectionResetError("gone"), PermissionError("not yours"), KeyboardInterrupt()])
    def test_an_outage_during_replay_is_not_held_against_the_letter(
        self, store: DeadLetters, error: BaseException
    ) -> None:
        store.park(failed(record(1)))
        before = store.letters("g")

        def handle(_: DeadLetter) -> None:
            store.park(failed(record(99, b"side effect")))
            raise error

        with pytest.raises(type(error)):
            replay(store, "g", handle, clock=lambda: T0)
        assert store.letters("g") == before

    def test_a_failed_handler_leaves_no_effect(self, store: DeadLetters) -> None:
        store.park(failed(record(1)))

        def handle(_: DeadLetter) -> None:
            store.park(failed(record(99, b"side effect")))
            raise ValueError

        assert replay(store, "g", handle, clock=lambda: T0) == Replayed(0, 1)
        assert [one.id.position for one in store.letters("g")] == [1]


@dataclass
class Model:
    """What a store should hold: letters in a plain list, every answer found by looking through it."""

    letters: dict[LetterId, DeadLetter] = field(default_factory=dict)

    def lane(self, of: Lane) -> list[DeadLetter]:
        waiting = [one for one in self.letters.values() if one.status.open and one.record.lane == of]
        return sorted(waiting, key=lambda one: (one.id.position, one.id.sequence, one.id.partition))

    def heads(self) -> list[DeadLetter]:
        return [
            one
            for one in self.letters.values()
            if one.status.open and (one.record.key is None or self.lane(one.record.lane)[0] == one)
        ]


KEYS = (b"a", b"b", b"", None)


def dead_letters_machine(
    make: Callable[[], DeadLetters | AbstractContextManager[DeadLetters]], examples: int = 50
) -> type[RuleBasedStateMachine]:
    """Build a state machine that does the same to a store and to the model, and compares them after every step."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.stack = ExitStack()
            made = make()
            self.store: DeadLetters = (
                self.stack.enter_context(made) if isinstance(made, AbstractContextManager) else made
            )
            self.model = Model()
            self.saved: list[tuple[ExitStack, dict[LetterId, DeadLetter]]] = []
            self.now = T0

        @initialize(minutes=st.integers(0, 5))
        def start(self, minutes: int) -> None:
            self.now += minutes * MINUTE

        def teardown(self) -> None:
            while self.saved:
                self.commit()
            self.stack.close()

        @rule(minutes=st.integers(1, 90))
        def time_passes(self, minutes: int) -> None:
            self.now += minutes * MINUTE

        @precondition(lambda self: len(self.saved) < 3)
        @rule()
        def begin(self) -> None:
            opened = ExitStack()
            opened.enter_context(self.store.transaction())
            self.saved.append((opened, dict(self.model.letters)))

        @precondition(lambda self: self.saved)
        @rule()
        def commit(self) -> None:
            self.saved.pop()[0].close()

        @precondition(lambda self: self.saved)
        @rule()
        def roll_back(self) -> None:
            opened, letters = self.saved.pop()
            with pytest.raises(Boom), opened:
                raise Boom
            self.model.letters = letters

        @rule(
            position=st.integers(0, 12),
            key=st.sampled_from(KEYS),
            sequence=st.integers(0, 1),
            failing=st.booleans(),
            wait=st.integers(0, 3),
        )
        def consume(self, position: int, key: bytes | None, sequence: int, failing: bool, wait: int) -> None:
            # As a consumer does: behind a parked key nothing is tried. A place holds one record,
            # whatever key the example draws for it the second time.
            one = record(position, key, sequence=sequence)
            known = self.model.letters.get(one.id)
            one = known.record if known is not None else one
            if self.store.is_parked(one.lane):
                letter = behind(one, now=self.now)
            elif failing:
                letter = failed(one, now=self.now, next_at=self.now + wait * MINUTE)
            else:
                return
            new = known is None or not known.status.open
            assert self.store.park(letter) is new
            if new:
                self.model.letters[one.id] = letter

        @precondition(lambda self: self.model.letters)
        @rule(data=st.data(), verb=st.sampled_from(["replayed", "discard", "postpone"]), wait=st.integers(0, 90))
        def change(self, data: Any, verb: str, wait: int) -> None:
            letter = self.model.letters[data.draw(st.sampled_from(sorted(self.model.letters)))]
            is_head = letter in self.model.heads()
            if verb == "replayed" and letter.status.open and not is_head:
                with pytest.raises(StreamlabError):
                    self.store.replayed(letter.id, self.now)
                return
            if verb == "postpone":
                next_at = self.now + wait * MINUTE
                done = self.store.postpone(letter.id, Boom(), now=self.now, next_at=next_at)
                changed = letter.failed_again(Boom(), now=self.now, next_at=next_at)
            else:
                done = getattr(self.store, verb)(letter.id, self.now)
                status = Status.REPLAYED if verb == "replayed" else Status.DISCARDED
                changed = letter.closed(status, self.now)
            assert done is letter.status.open
            if done:
                self.model.letters[letter.id] = changed

        @rule(bad=st.sets(st.integers(0, 12)), limit=st.none() | st.integers(0, 3), force=st.booleans())
        def replay_all(self, bad: set[int], limit: int | None, force: bool) -> None:
            tried: list[DeadLetter] = []

            def handle(letter: DeadLetter) -> None:
                waiting = self.model.lane(letter.record.lane)
                assert letter in (waiting if letter.record.key is None else waiting[:1]), "not the first of its key"
                assert force or letter.next_at <= self.now
                tried.append(letter)
                if letter.id.position in bad:
                    self.model.letters[letter.id] = letter.failed_again(Boom(), now=self.now, next_at=self.now + MINUTE)
                    raise Boom
                self.model.letters[letter.id] = letter.closed(Status.REPLAYED, self.now)

            result = replay(
                self.store, "g", handle, clock=lambda: self.now, delay=lambda _: MINUTE, limit=limit, force=force
            )
            assert result.applied + result.failed == len(tried) == len({one.id for one in tried})
            if limit is None:
                left = {one.id for one in self.model.heads() if force or one.next_at <= self.now}
                assert left <= {one.id for one in tried}, "a due letter was not tried"

        @rule(minutes=st.integers(0, 60))
        def purge(self, minutes: int) -> None:
            before = self.now - minutes * MINUTE
            old = [one.id for one in self.model.letters.values() if not one.status.open and one.changed_at < before]
            assert self.store.purge("g", before) == len(old)
            for letter_id in old:
                del self.model.letters[letter_id]

        @invariant()
        def the_same(self) -> None:
            expected = sorted(self.model.letters.values(), key=lambda one: one.id)
            assert self.store.letters("g") == expected
            for key in KEYS:
                parked = key is not None and bool(self.model.lane(lane(key)))
                assert self.store.is_parked(lane(key)) is parked
            keys = [key for key in KEYS if key is not None]
            assert self.store.parked_keys("g", "s", keys) == {key for key in keys if self.model.lane(lane(key))}
            heads = [one for one in self.model.heads() if one.next_at <= self.now]
            first = min(heads, key=lambda one: (one.next_at, one.id), default=None)
            assert self.store.claim("g", now=self.now) == first
            summary = self.store.summary("g")
            assert dict(summary.counts) == {status: sum(one.status is status for one in expected) for status in Status}
            waiting = [one for one in expected if one.status.open]
            assert summary.depth == len(waiting)
            assert summary.parked_keys == len({one.record.key for one in waiting} - {None})
            assert summary.oldest_at == min((one.parked_at for one in waiting), default=None)

    Machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    return Machine
