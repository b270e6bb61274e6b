"""The exercises of lesson 01: in which order to acknowledge, and what to do about slots that nobody reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import psycopg

from streamlab import settings
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.errors import SlotInUse
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed
from streamlab.lab.four_slots import KNOWN, VERBS, FourSlots
from streamlab.lab.reader_process import ReaderKilled, ReaderProcess, ReaderSetup

__all__ = ["ack_order", "cure", "write_then_acknowledge"]

LESSON: Final = "01_postgres_cdc"

# -- exercise 1: the order of two lines -----------------------------------------------------------------

ORDERS = 60
BETWEEN, AFTER = 20, 40
"""The reader is killed after the first of the two calls for one order, and when the handling of another is over."""


def write_then_acknowledge(tx: Any, sink: Any, cdc: Any) -> None:
    """A crash between the two repeats a change."""
    sink.write(tx)
    cdc.acknowledge(tx)


def acknowledge_then_write(tx: Any, sink: Any, cdc: Any) -> None:
    """A crash between the two loses a change."""
    cdc.acknowledge(tx)
    sink.write(tx)


def acknowledge_its_position(tx: Any, sink: Any, cdc: Any) -> None:
    """The position of a transaction is where its commit begins, not where it ends."""
    sink.write(tx)
    cdc.acknowledge(tx.position)


def only_write(tx: Any, sink: Any, cdc: Any) -> None:
    """The server is never told."""
    sink.write(tx)


def only_acknowledge(tx: Any, sink: Any, cdc: Any) -> None:
    """The change goes nowhere."""
    cdc.acknowledge(tx)


@checker(
    LESSON,
    "ack-order",
    solution=write_then_acknowledge,
    wrong=[
        WrongAnswer(
            "acknowledged first",
            acknowledge_then_write,
            "After the acknowledgement the server forgets; the process died before the write. Which of the two calls "
            "can be done twice without harm?",
        ),
        WrongAnswer(
            "acknowledged its position",
            acknowledge_its_position,
            "A transaction's position is where its commit record begins. Acknowledge the transaction: that stands for "
            "the end of it.",
        ),
        WrongAnswer(
            "never acknowledged",
            only_write,
            "Nothing is lost, but every restart begins at the same place, and the server keeps its log for ever.",
        ),
        WrongAnswer("never written", only_acknowledge, "The server has forgotten what never reached the sink."),
    ],
)
def ack_order(lab: Any, answer: Any) -> Verdict:
    """Let a reader handle orders; kill it once between the two calls and once after them; compare with the ledger."""
    with psycopg.connect(lab.dsn, autocommit=True) as shop:
        shop.execute("DROP TABLE IF EXISTS checked, delivered")
        shop.execute("CREATE TABLE checked (id int PRIMARY KEY)")
        shop.execute("CREATE TABLE delivered (id int, position pg_lsn, ordinal int)")
        cdc = PostgreSQLCDC(
            settings.postgres_dsn("cdc"),
            lab.publication("check"),
            lab.slot("check"),
            tables=[f"{lab.schema}.checked"],
            setup_dsn=lab.dsn,
        )
        cdc.drop()
        cdc.initialize()
        try:
            for number in range(1, ORDERS + 1):
                shop.execute("INSERT INTO checked VALUES (%s)", [number])
            calls = _read_and_die(
                ReaderSetup(cdc.dsn, cdc.publication, cdc.slot_name, str.__str__(lab.dsn), "delivered"), answer
            )
            ledger = Counter(row[0] for row in shop.execute("SELECT id FROM checked"))
            found = Counter(row[0] for row in shop.execute("SELECT id FROM delivered"))
        finally:
            cdc.drop()
    return _judge(calls, ledger, found)


def _read_and_die(setup: ReaderSetup, handle: Callable[..., object]) -> Counter[str]:
    calls: Counter[str] = Counter()
    for deadly, gap in [(BETWEEN, 1), (AFTER, None), (0, None)]:
        with ReaderProcess(setup) as reader:
            number = 0
            while number < ORDERS and (transaction := reader.next()) is not None:
                number = next(iter(transaction)).new_data["id"]
                reader.fatal = gap if number == deadly else None
                with suppress(ReaderKilled):
                    handle(transaction, reader, reader)
                if number == deadly and not reader.killed:
                    reader.kill()
                if reader.killed:
                    break
            calls.update(reader.calls)
    return calls


def _judge(calls: Counter[str], ledger: Counter[int], found: Counter[int]) -> Verdict:
    lost, repeated = (ledger - found).total(), (found - ledger).total()
    seen = (
        f"The reader was killed twice: {lost} of {ledger.total()} orders never reached the sink, {repeated} came twice."
    )
    if not calls["write"]:
        return missed(seen, "never written" if calls["acknowledge"] else "")
    if lost:
        return missed(seen, "acknowledged first")
    if not calls["acknowledge"]:
        return missed(seen, "never acknowledged")
    if repeated > 1:
        return missed(seen, "acknowledged its position")
    return passed(seen)


# -- exercise 2: slots that nobody reads ------------------------------------------------------------------

SOLD = 40
LATER = 10

CURE: Final[Mapping[str, str]] = {
    "warehouse": "read on", "search": "advance", "dashboard": "leave", "trial": "drop",
}  # fmt: skip


def _but(**other: str) -> dict[str, str]:
    return {**CURE, **other}


@checker(
    LESSON,
    "slots",
    solution=CURE,
    wrong=[
        WrongAnswer(
            "the warehouse lost orders",
            _but(warehouse="drop"),
            "That nobody reads a slot now does not mean that nobody needs it. What it holds is what the warehouse has "
            "not seen yet.",
        ),
        WrongAnswer(
            "search found no slot",
            _but(search="drop"),
            "Its reader follows again tonight, and needs a slot for that. It does not need what was sold before.",
        ),
        WrongAnswer(
            "a slot in use",
            _but(dashboard="drop"),
            "A reader is connected and keeps up: its slot holds next to nothing, and the server protects it.",
        ),
        WrongAnswer(
            "it fills again",
            _but(trial="advance"),
            "Nobody reads this slot, so it holds the log again from the next order on.",
        ),
        WrongAnswer(
            "left alone",
            _but(warehouse="leave"),
            "The server keeps the log for the slot that is farthest behind, however well the others do.",
        ),
    ],
)
def cure(lab: Any, answer: Any) -> Verdict:
    """Do what was decided about each slot, sell on, let the readers come back, and count."""
    if not isinstance(answer, Mapping) or set(answer) != set(KNOWN) or not set(answer.values()) <= set(VERBS):
        return missed(f"Name for each of {', '.join(KNOWN)} one of: {', '.join(VERBS)}.")
    with FourSlots(lab) as four:
        sold = four.sell(SOLD)
        for name, verb in answer.items():
            try:
                four.do(name, verb)
            except SlotInUse as error:
                return missed(str(error), "a slot in use")
        for name in ("warehouse", "search", "trial"):
            if pending := four.pending(name):
                return missed(f"{name} still holds the log of {pending} orders.", "left alone")
        later = four.sell(LATER)
        there = {name: four.come_back(name) for name in ("warehouse", "search")}
        lost = len({*sold, *later} - set(four.kept["warehouse"]))
        if lost:
            return missed(
                f"{lost} of {len(sold) + len(later)} orders never reached the warehouse.", "the warehouse lost orders"
            )
        if not there["search"]:
            return missed("The reader of search came back and found no slot.", "search found no slot")
        if pending := four.pending("trial"):
            return missed(f"After {LATER} more orders trial holds the log of {pending}.", "it fills again")
    return passed(
        f"All {len(sold) + len(later)} orders reached the warehouse, and no slot holds log that nobody reads."
    )
