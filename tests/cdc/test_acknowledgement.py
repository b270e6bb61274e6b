"""What the server may be told, by its properties."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamlab.cdc.acknowledgement import Bookkeeping
from streamlab.cdc.position import LSN


class Reading(RuleBasedStateMachine):
    """A server that commits, a reader that receives in pieces, a caller who takes and acknowledges as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Bookkeeping()
        self.written = 100
        self.sent: list[int] = []
        """Ends of transactions that are on their way and not decoded."""
        self.queue: list[int] = []
        self.commits: list[int] = []
        self.durable: set[int] = set()
        self.taken: list[int] = []
        self.reported = 0

    @rule(size=st.integers(1, 50))
    def commit(self, size: int) -> None:
        self.written += size
        self.commits.append(self.written)
        self.sent.append(self.written)

    @rule(size=st.integers(1, 50))
    def other_traffic(self, size: int) -> None:
        self.written += size

    @rule()
    def keepalive(self) -> None:
        """The server has sent all it has: what was sent before it is in flight."""
        if self.sent:
            self.books.received(self.sent[-1])
            self.queue += self.sent
            self.sent = []
        self.books.keepalive(self.written)

    @rule()
    def receive(self) -> None:
        if self.sent:
            end = self.sent.pop(0)
            self.books.received(end)
            self.queue.append(end)

    @rule()
    def settle(self) -> None:
        self.books.settled(in_flight=bool(self.queue))

    @precondition(lambda self: self.queue)
    @rule()
    def take(self) -> None:
        end = self.queue.pop(0)
        if self.books.wants(end):
            self.books.hand_out(end)
            self.taken.append(end)
        self.books.settled(in_flight=bool(self.queue))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.taken))
        self.durable |= {each for each in self.taken if each <= end}
        self.books.acknowledge(end)

    @rule(beyond=st.integers(1, 1000))
    def acknowledge_beyond(self, beyond: int) -> None:
        """A caller who claims what it never saw."""
        self.durable |= set(self.taken)
        self.books.acknowledge(self.written + beyond)

    @rule()
    def reconnect(self) -> None:
        """What was not confirmed, and is beyond the start, comes again."""
        self.books.lost()
        start = max(self.books.start, LSN(self.reported))
        self.sent = [end for end in self.commits if end > start]
        self.queue = []

    @rule()
    def iterate_again(self) -> None:
        if self.books.rewind():
            self.reconnect()

    @rule()
    def report(self) -> None:
        write, flush = self.books.to_report()
        assert flush >= self.reported, "monotonic"
        assert flush <= write
        self.reported = flush

    @invariant()
    def nothing_is_lost(self) -> None:
        missing = [end for end in self.commits if end <= self.reported and end not in self.durable]
        assert not missing, "the server may forget what is not durable"

    @invariant()
    def everything_that_is_not_durable_is_still_to_come_or_was_handed_out(self) -> None:
        known = {*self.sent, *self.queue, *self.taken}
        assert {end for end in self.commits if end not in self.durable} <= known


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.integers(1, 2**63), st.integers(1, 2**63))
def test_an_acknowledgement_is_clamped_to_what_was_handed_out(end: int, claimed: int) -> None:
    """Pitfall 2: the server would believe it, and drop later commits below it."""
    books = Bookkeeping()
    books.hand_out(end)
    assert books.acknowledge(claimed) == min(end, claimed)


@given(st.lists(st.integers(1, 1000), min_size=1))
def test_an_acknowledgement_never_goes_back(claims: list[int]) -> None:
    books = Bookkeeping()
    books.hand_out(1000)
    seen = [books.acknowledge(claim) for claim in claims]
    assert seen == sorted(seen)
    assert seen[-1] == max(claims)


def test_a_keepalive_moves_an_idle_slot_and_no_other() -> None:
    """Pitfall 7."""
    books = Bookkeeping()
    books.keepalive(50)
    assert books.to_report() == (50, 50)
    books.received(60)
    books.keepalive(70)
    assert books.to_report() == (70, 50), "a message is in flight"
    books.settled(in_flight=False)
    books.hand_out(60)
    assert books.to_report() == (70, 50), "a transaction is not acknowledged"
    books.acknowledge(60)
    assert books.to_report() == (70, 70)


def test_a_prepared_transaction_holds_the_position_back() -> None:
    """Pitfall 17: a stream that begins behind its PREPARE never brings its changes."""
    books = Bookkeeping()
    books.received(90)
    books.settled(in_flight=True, hold=LSN(40))
    books.hand_out(60)
    books.acknowledge(60)
    assert books.to_report()[1] == 40
    assert books.start == 40
    books.settled(in_flight=False)
    assert books.to_report()[1] == 60


def test_a_stream_of_prepared_transactions_confirms_nothing_until_it_has_caught_up() -> None:
    """What the sink holds lies behind a PREPARE that this stream has not brought yet."""
    books = Bookkeeping(100)
    books.confirmed(20)
    books.connected(two_phase=True)
    assert books.to_report() == (100, 20)
    books.received(40)
    assert books.to_report()[1] == 20, "nothing is decoded yet"
    books.settled(in_flight=True, hold=LSN(35))
    assert books.to_report()[1] == 20
    books.keepalive(120)
    books.settled(in_flight=True, hold=LSN(35))
    assert books.to_report()[1] == 35
    books.settled(in_flight=False)
    assert books.to_report()[1] == 120
    # The connection is made again: what is prepared by then is not known either.
    books.lost()
    books.connected(two_phase=True)
    books.hand_out(130)
    books.acknowledge(130)
    assert books.to_report()[1] == 120
    plain = Bookkeeping(100)
    plain.confirmed(20)
    plain.connected(two_phase=False)
    assert plain.to_report()[1] == 100
