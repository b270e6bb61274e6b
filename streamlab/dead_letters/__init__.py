"""Dead letters: records set aside, in order, so that the others can go on.

A consumer that meets a record it cannot apply (`Failure.DATA`) parks it, with its place, its
bytes and the error. From then on every later record **of the same key** is parked behind it, or
it would overtake: an order's shipment must not be applied while its creation lies here. Replay
is first-in first-out per key; a letter that fails again keeps its key parked. Records without a
key have no order to keep, and never block another.

`DeadLetters` is what each consumer uses; `InMemoryDeadLetters` serves tests, lessons and
single-process programs. What they have in common is the unit of work: an implementation on a
database is made with the consumer's own connection and neither commits nor rolls back, so a park
is durable exactly when the offset behind it is. `transaction` opens such a unit, or a savepoint
within one. Used so, nothing is lost and nothing is parked twice; a consumer whose offset lies
elsewhere parks before it commits the offset, and `park` makes the repetition harmless.

When too many records fail, the records are not the cause: `CircuitBreaker` says so, before an
outage floods the dead letters.
"""

from __future__ import annotations

from streamlab.dead_letters.breaker import BreakerPolicy, CircuitBreaker
from streamlab.dead_letters.contract import DeadLetter, DeadLetters, Lane, LetterId, Record, Status, Summary
from streamlab.dead_letters.memory import InMemoryDeadLetters
from streamlab.dead_letters.replay import Replayed, publish, replay, replay_delay

__all__ = [
    "BreakerPolicy",
    "CircuitBreaker",
    "DeadLetter",
    "DeadLetters",
    "InMemoryDeadLetters",
    "Lane",
    "LetterId",
    "Record",
    "Replayed",
    "Status",
    "Summary",
    "publish",
    "replay",
    "replay_delay",
]
