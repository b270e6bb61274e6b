"""The exercises of lesson 06: a sink that keeps a copy right, and the order of a connector's three steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

from streamlab.connect import ConnectClient
from streamlab.connect.connectors import JDBCSink
from streamlab.errors import ConnectError
from streamlab.lab.carrying import Carrying
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed
from streamlab.lab.second import SecondDatabase
from streamlab.lab.topics import Record, read_partitions, send
from streamlab.ops.crash import CrashReport

__all__ = ["LETTERS", "SETTINGS", "STEPS", "carry", "keep_right"]

LESSON: Final = "06_kafka_connect"

_numbers = count(1)

# -- exercise 1: a sink that keeps a copy right ------------------------------------------------------------

LETTERS: Final = "errors.deadletterqueue.topic.name"

SETTINGS: Final[Mapping[str, str]] = {
    "insert.mode": "upsert",
    "primary.key.mode": "record_key",
    "delete.enabled": "true",
    "errors.tolerance": "all",
    LETTERS: "letters",
}


def _but(*without: str, **other: str) -> dict[str, str]:
    changed = {**SETTINGS, **{key.replace("_", "."): value for key, value in other.items()}}
    return {key: value for key, value in changed.items() if key not in without}


_BROKEN: Final = b'{"schema": '
_ROWS: Final[Sequence[tuple[int, str | bytes | None]]] = (
    (1, "placed"), (2, "placed"), (3, "placed"), (2, "paid"), (3, None), (1, _BROKEN), (4, "placed"),
)  # fmt: skip
"""Key, and status; None is a deletion."""
_WANTED: Final = [(1, "placed"), (2, "paid"), (4, "placed")]


def _with_schema(**fields: Any) -> bytes:
    kinds = {int: "int64", str: "string"}
    schema = [{"field": name, "type": kinds[type(value)], "optional": False} for name, value in fields.items()]
    told = {"schema": {"type": "struct", "name": "checked", "optional": False, "fields": schema}, "payload": fields}
    return json.dumps(told).encode()


def _records() -> Iterator[tuple[bytes, bytes | None]]:
    for number, status in _ROWS:
        value = _with_schema(id=number, status=status) if isinstance(status, str) else status
        yield _with_schema(id=number), value


@contextmanager
def _sink(connect: ConnectClient, name: str, configuration: Mapping[str, str]) -> Iterator[None]:
    # Not linted: what a mistake costs is to be seen.
    connect.apply(name, configuration, check=False)
    try:
        yield
    finally:
        # The group too: the offsets of a connector that is gone are not forgotten later.
        connect.delete(name, forget=True)


@checker(
    LESSON,
    "sink",
    solution=SETTINGS,
    wrong=[
        WrongAnswer(
            "deleted rows stay",
            _but(primary_key_mode="record_value", delete_enabled="false"),
            "A deletion is a record without a value. Where does the number of its row stand then, and who says that "
            "it may be deleted?",
        ),
        WrongAnswer(
            "every record is a new row",
            _but(insert_mode="insert"),
            "A change of a row that is there is no new row. Kafka also repeats: which mode does not mind?",
        ),
        WrongAnswer(
            "one record stops them all",
            _but(LETTERS, errors_tolerance="none"),
            "A record that cannot be read fails again after every restart, and all others wait behind it. It has to be "
            "put somewhere else.",
        ),
        WrongAnswer(
            "nobody knows which",
            _but(LETTERS),
            "The copy is right as far as it goes. A record was passed over, and there is no place where anybody could "
            "find it.",
        ),
    ],
)
def keep_right(lab: Any, answer: Any) -> Verdict:
    """Run a real sink over seven records, one of them broken, and compare its table and its dead letters."""
    if not isinstance(answer, Mapping) or not all(isinstance(value, str) for value in answer.values()):
        return missed("Give a dict of settings, each value a string.")
    number = next(_numbers)
    topic, letters = lab.topic(f"checked{number}"), lab.topic(f"checked{number}_letters")
    name, table = lab.connector(f"checked{number}"), f"checked{number}"
    send(topic, _records())
    with ConnectClient() as connect, SecondDatabase(lab, "checked") as second:
        base = {key: value for key, value in _base(topic, f"{second.name}.{table}").items() if key not in SETTINGS}
        settings = {**base, **answer, **({LETTERS: letters} if LETTERS in answer else {})}
        try:
            with _sink(connect, name, settings):
                second.wait(table, _WANTED[-1][0], connector=name)
                found = second.rows(table, "id, status")
        except ConnectError as error:
            return _stopped(str(error))
    return _judge_rows(found, read_partitions(letters))


def _base(topic: str, table: str) -> dict[str, str]:
    return JDBCSink(
        topics=[topic],
        table=table,
        connections=1,
        more={
            "primary.key.fields": "id",
            "errors.deadletterqueue.topic.replication.factor": "1",
            "errors.deadletterqueue.context.headers.enable": "true",
        },
    ).configuration()


def _stopped(seen: str) -> Verdict:
    if "duplicate key" in seen or "unique" in seen.lower():
        return missed(seen, "every record is a new row")
    return missed(seen, "one record stops them all" if "olerance" in seen or "Convert" in seen else "")


def _judge_rows(found: list[tuple[Any, ...]], letters: list[Record]) -> Verdict:
    there = dict(found)
    wanted = dict(_WANTED)
    gone, stale = len(there.keys() - wanted.keys()), sum(there.get(each) != status for each, status in wanted.items())
    seen = (
        f"Of {len(_ROWS)} records came {len(found)} rows: {gone} that are deleted, {stale} that are not as they should "
        f"be; and {len(letters)} dead letters for 1 broken record."
    )
    if gone:
        return missed(seen, "deleted rows stay")
    if stale:
        return missed(seen, "every record is a new row")
    if not letters:
        return missed(seen, "nobody knows which")
    return passed(seen)


# -- exercise 2: the order of three steps ------------------------------------------------------------------

STEPS: Final = ("produce", "flush", "acknowledge")


@checker(
    LESSON,
    "steps",
    solution=STEPS,
    wrong=[
        WrongAnswer(
            "acknowledged first",
            ("acknowledge", "produce", "flush"),
            "After the acknowledgement the database forgets, and the process died with the change in its hands.",
        ),
        WrongAnswer(
            "acknowledged what is not sent",
            ("produce", "acknowledge", "flush"),
            "produce puts a record into the producer's own memory. What says that Kafka has it?",
        ),
        WrongAnswer(
            "never flushed",
            ("produce", "acknowledge"),
            "The records were in the producer's memory when the program ended, and nobody had asked for more.",
        ),
        WrongAnswer(
            "never acknowledged",
            ("produce", "flush"),
            "Nothing is lost, and every start sends everything again: the database was never told how far it has come.",
        ),
    ],
)
def carry(lab: Any, answer: Any) -> Verdict:
    """Kill a real program between the steps, start it again, and count what is in the topic."""
    known = isinstance(answer, Sequence) and not isinstance(answer, str) and set(answer) <= set(STEPS)
    if not known or len(set(answer)) != len(answer) or len(answer) < 2:
        return missed(f"Give at least two of {', '.join(STEPS)}, each once, in their order.")
    with Carrying(lab) as carrying:
        report = carrying.by_hand(answer)
    return _judge_steps(list(answer), report)


def _judge_steps(steps: list[str], report: CrashReport) -> Verdict:
    expected = sum(trial.expected for trial in report)
    seen = (
        f"The program was killed {len(report)} times: {report.lost} of {expected} orders never reached the topic, "
        f"{report.duplicated} came twice."
    )
    if report.lost:
        if "flush" not in steps:
            return missed(seen, "never flushed")
        first = "produce" not in steps or steps.index("acknowledge") < steps.index("produce")
        return missed(seen, "acknowledged first" if first else "acknowledged what is not sent")
    if "acknowledge" not in steps:
        return missed(seen, "never acknowledged")
    return passed(seen)
