"""The exercises of lesson 02: a copy kept from envelopes, and a configuration that says what becomes of a deletion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final
from weakref import WeakKeyDictionary

import pymysql

from streamlab.connect import ConnectClient
from streamlab.connect.connectors import MySQLSource, Unwrap
from streamlab.errors import ConnectError
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed
from streamlab.lab.topics import Record, read_topic

__all__ = ["SETTINGS", "configure", "keep", "keep_copy"]

LESSON: Final = "02_mysql_debezium"

_numbers = count(1)


@contextmanager
def _connected(
    lab: Any, rows: Sequence[tuple[object, ...]], changes: Mapping[str, str | None] | None = None
) -> Iterator[Any]:
    """A table `checked` whose rows a connector has read already, and a function that reads its topic up to a row.

    With `changes` rows are unwrapped, and keys of the configuration taken out or put in.
    """
    number = next(_numbers)
    connector, prefix = lab.connector(f"check{number}"), lab.topic_prefix(f"check{number}")
    topic = f"{prefix}.{lab.mysql.database}.checked"
    with pymysql.connect(**lab.mysql.arguments(), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS checked")
        cursor.execute("CREATE TABLE checked (id int PRIMARY KEY, status varchar(20), total decimal(10, 2))")
        cursor.executemany("INSERT INTO checked VALUES (%s, %s, %s)", rows)
        transforms = [Unwrap()] if changes else []
        made = MySQLSource(prefix=prefix, database=lab.mysql.database, tables=["checked"], transforms=transforms)
        configuration: dict[str, str] = made.configuration()
        for key, value in (changes or {}).items():
            if value is None:
                configuration.pop(key)
            else:
                configuration[key] = value

        def read(row: int) -> list[Record]:
            return read_topic(lab.kafka, topic, lambda record: record.row == row)

        with ConnectClient() as connect:
            # Not linted: what a mistake costs is to be seen.
            connect.apply(connector, configuration, check=False)
            try:
                connect.wait_ready(connector)
                # What is changed from here on comes from the log.
                read(rows[-1][0])  # type: ignore[arg-type]
                yield cursor, read
            finally:
                connect.delete(connector, forget=True)


# -- exercise 1: a copy from envelopes ------------------------------------------------------------------

_THERE: Final = [(1, "placed", "10.10"), (2, "placed", "20.20"), (3, "paid", "30.30"), (4, "paid", "40.40")]
_CHANGES: Final = (
    "INSERT INTO checked VALUES (5, 'placed', 50.50), (6, 'placed', 60.60)",
    "UPDATE checked SET status = 'paid' WHERE id IN (2, 5)",
    "DELETE FROM checked WHERE id IN (3, 6)",
    "UPDATE checked SET id = 7 WHERE id = 4",
    "INSERT INTO checked VALUES (3, 'placed', 33.33)",
    "DELETE FROM checked WHERE id = 5",
    "INSERT INTO checked VALUES (8, 'placed', 80.80)",
)

Recorded = tuple[list[Record], list[dict[str, Any]]]
_recorded: WeakKeyDictionary[Any, Recorded] = WeakKeyDictionary()


def keep(copy: dict[Any, Any], key: dict[str, Any], value: dict[str, Any] | None) -> None:
    """By the operation: a deletion takes the row away, everything else brings the row as it is now."""
    if value is None:
        return
    if value["op"] == "d":
        copy.pop(key["id"], None)
    else:
        copy[key["id"]] = value["after"]


def after_only(copy: dict[Any, Any], key: dict[str, Any], value: dict[str, Any] | None) -> None:
    """What has no row after it is passed over."""
    if value and value["after"]:
        copy[key["id"]] = value["after"]


def tombstone_unexpected(copy: dict[Any, Any], key: dict[str, Any], value: Any) -> None:
    """Each record is taken for an envelope."""
    if value["op"] == "d":
        copy.pop(key["id"], None)
    else:
        copy[key["id"]] = value["after"]


def key_of_the_row(copy: dict[Any, Any], key: dict[str, Any], value: Any) -> None:
    """The key is taken from the row after the change, also where there is none."""
    if value is None:
        return
    row = value["after"]
    if value["op"] == "d":
        copy.pop(row["id"], None)
    else:
        copy[row["id"]] = row


def stream_only(copy: dict[Any, Any], key: dict[str, Any], value: dict[str, Any] | None) -> None:
    """Three operations are known: created, updated, deleted."""
    if value and value["op"] == "d":
        copy.pop(key["id"], None)
    elif value and value["op"] in {"c", "u"}:
        copy[key["id"]] = value["after"]


def before_it(copy: dict[Any, Any], key: dict[str, Any], value: dict[str, Any] | None) -> None:
    """An update is answered with the row as it was."""
    if value and value["op"] == "d":
        copy.pop(key["id"], None)
    elif value:
        copy[key["id"]] = value["before"] or value["after"]


@checker(
    LESSON,
    "copy",
    solution=keep,
    wrong=[
        WrongAnswer(
            "only what comes after",
            after_only,
            "A deletion has no row after it. It is told by op, and by nothing else in its envelope: which row do you "
            "take away then?",
        ),
        WrongAnswer(
            "a tombstone is an error",
            tombstone_unexpected,
            "A record without a value is no broken one. It follows each deletion, so that Kafka may drop the key when "
            "it compacts the topic.",
        ),
        WrongAnswer(
            "the key of no row",
            key_of_the_row,
            "After a deletion there is no row. Its key is in the key of the record, which every record has.",
        ),
        WrongAnswer(
            "only the stream",
            stream_only,
            "Some rows were there before the connector, and have not changed since. Look at the op of the first "
            "records.",
        ),
        WrongAnswer(
            "the row before",
            before_it,
            "before is the row as it was, after is the row as it is.",
        ),
    ],
)
def keep_copy(lab: Any, answer: Any) -> Verdict:
    """Give real records to the answer, in their order, and compare its copy with the table."""
    if lab not in _recorded:
        with _connected(lab, _THERE) as (cursor, read):
            for statement in _CHANGES:
                cursor.execute(statement)
            cursor.execute("SELECT id, status, total FROM checked")
            table = [{"id": number, "status": status, "total": str(total)} for number, status, total in cursor]
            _recorded[lab] = (read(8), table)
    records, table = _recorded[lab]
    copy: dict[Any, Any] = {}
    for record in records:
        value = json.loads(record.value) if record.value else None
        try:
            answer(copy, json.loads(record.key or b"null"), value)
        except (TypeError, KeyError, AttributeError) as error:
            seen = f"Of {len(records)} records it took {record.number}, then raised {type(error).__name__}: {error}."
            if value is None:
                return missed(seen, "a tombstone is an error")
            if value["op"] == "d":
                return missed(seen, "the key of no row")
            raise
    return _judge_copy(len(records), list(copy.values()), table)


def _judge_copy(records: int, rows: list[Any], table: list[dict[str, Any]]) -> Verdict:
    found = {row.get("id"): row for row in rows if isinstance(row, dict)}
    wanted = {row["id"]: row for row in table}
    gone, lost = len(found.keys() - wanted.keys()), len(wanted.keys() - found.keys())
    stale = sum(found[number] != wanted[number] for number in found.keys() & wanted.keys())
    seen = (
        f"After {records} records {gone} rows of the copy are not in the table any more, {lost} of {len(table)} are "
        f"lost, and {stale} are not as in the table."
    )
    if gone:
        return missed(seen, "only what comes after")
    if lost:
        return missed(seen, "only the stream" if found else "")
    if stale:
        return missed(seen, "the row before")
    return passed(f"After {records} records all {len(table)} rows of the copy are as in the table.")


# -- exercise 2: what a configuration says --------------------------------------------------------------

_JSON = "org.apache.kafka.connect.json.JsonConverter"
_DELETES = "transforms.unwrap.delete.tombstone.handling.mode"

SETTINGS: Final[Mapping[str, str]] = {
    "decimal.handling.mode": "string",
    "value.converter": _JSON,
    "value.converter.schemas.enable": "false",
    _DELETES: "rewrite-with-tombstone",
}


def _but(*without: str, **other: str) -> dict[str, str]:
    return {key: value for key, value in {**SETTINGS, **other}.items() if key not in without}


@checker(
    LESSON,
    "settings",
    solution=SETTINGS,
    wrong=[
        WrongAnswer(
            "former names",
            _but(
                _DELETES,
                **{"transforms.unwrap.drop.tombstones": "false", "transforms.unwrap.delete.handling.mode": "rewrite"},
            ),
            "Nothing reads these names any more, and nobody says so: ask the lint.",
        ),
        WrongAnswer(
            "not even a tombstone",
            _but(**{_DELETES: "tombstone"}),
            "This mode cuts the last row off, and with JSON its value is the text null, no tombstone to Kafka. "
            "Which one writes the row again?",
        ),
        WrongAnswer(
            "no tombstone",
            _but(**{_DELETES: "rewrite"}),
            "The last row is marked, and stays in the topic for ever: compaction keeps the newest value of each key.",
        ),
        WrongAnswer(
            "a setting without its converter",
            _but("value.converter"),
            "A connector that names no converter has the worker's, as that is set up. A setting of a converter counts "
            "only beside it.",
        ),
        WrongAnswer(
            "bytes for an amount",
            _but(**{"decimal.handling.mode": "precise"}),
            "precise is exact, and is read with the scale that stands in the schema. There is none in these values.",
        ),
        WrongAnswer(
            "binary fractions",
            _but(**{"decimal.handling.mode": "double"}),
            "A double has no cents. Which mode needs neither a schema nor a binary fraction?",
        ),
    ],
)
def configure(lab: Any, answer: Any) -> Verdict:
    """Run a connector with these settings, delete an order, and look at the records."""
    if not isinstance(answer, Mapping) or not all(isinstance(value, str) for value in answer.values()):
        return missed("Give a dict of settings, each value a string.")
    unset = {"decimal.handling.mode": None, "value.converter": None, "value.converter.schemas.enable": None}
    try:
        with _connected(lab, [(1, "paid", "19.90")], {**unset, _DELETES: None, **answer}) as (cursor, read):
            cursor.execute("DELETE FROM checked WHERE id = 1")
            cursor.execute("INSERT INTO checked VALUES (2, 'placed', 29.90)")
            records = read(2)
    except ConnectError as error:
        return missed(str(error))
    return _judge_values([record.value for record in records], answer)


def _judge_values(written: list[bytes | None], answer: Mapping[str, str]) -> Verdict:
    values = [json.loads(value) for value in written if value is not None]
    if any(value and "schema" in value for value in values):
        because = "a setting without its converter" if "value.converter" not in answer else ""
        return missed("Each value carries its schema.", because)
    amount = values[0].get("total")
    if amount != "19.90":
        because = "binary fractions" if isinstance(amount, float) else "bytes for an amount"
        return missed(f"An amount of 19.90 arrives as {amount!r}.", because)
    marked = sum(value is not None and value.get("__deleted") == "true" for value in values)
    empty = written.count(None)  # not the text `null`, which is a value
    seen = f"One order was deleted. Rows that say so: {marked}; records without a value: {empty}."
    if not marked:
        outdated = any(key.endswith((".drop.tombstones", ".delete.handling.mode")) for key in answer)
        return missed(seen, "former names" if outdated else "not even a tombstone")
    if not empty:
        return missed(seen, "no tombstone")
    return passed(f"{seen} Its amount is exact, and no value carries a schema.")
