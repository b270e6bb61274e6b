"""The exercise of lesson 01b: a large value that the log does not repeat has to survive in the copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg

from streamlab import settings
from streamlab.cdc import UNCHANGED
from streamlab.cdc.event import ChangeEvent
from streamlab.cdc.postgres import PostgreSQLCDC
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed
from streamlab.workload.photo import photo

__all__ = ["keep_what_is_there", "unchanged"]

LESSON: Final = "01b_postgres_cdc_deeper"

ROWS: Final = 20

STATEMENTS: Final = (
    "UPDATE pictured SET title = title || ', reduced' WHERE id BETWEEN 1 AND 8",
    "UPDATE pictured SET photo = reverse(photo) WHERE id BETWEEN 7 AND 12",
    "UPDATE pictured SET photo = NULL WHERE id BETWEEN 13 AND 16",
    "UPDATE pictured SET title = title || ', reduced again' WHERE id IN (2, 9, 14, 20)",
)
"""Photos that stay, are replaced and are taken away; the last touches one of each, and no photo."""


def keep_what_is_there(row: dict[str, Any], change: ChangeEvent) -> None:
    """Take every value that the change brings, NULL too."""
    row.update({name: value for name, value in change.new_data.items() if value is not UNCHANGED})


def null_over_it(row: dict[str, Any], change: ChangeEvent) -> None:
    """Take what the message does not hold for NULL."""
    row.update({name: None if value is UNCHANGED else value for name, value in change.new_data.items()})


def keep_the_mark(row: dict[str, Any], change: ChangeEvent) -> None:
    """Store whatever stands in the change."""
    row.update(change.new_data)


def keep_for_ever(row: dict[str, Any], change: ChangeEvent) -> None:
    """Take the first photo, and no other."""
    row.update({**change.new_data, "photo": row.get("photo", change.new_data["photo"])})


def only_what_is_true(row: dict[str, Any], change: ChangeEvent) -> None:
    """NULL is as false as UNCHANGED."""
    row.update({name: value for name, value in change.new_data.items() if value})


@checker(
    LESSON,
    "unchanged",
    solution=keep_what_is_there,
    wrong=[
        WrongAnswer(
            "NULL over it",
            null_over_it,
            "UNCHANGED is not NULL: the value is still there, and the log did not repeat it. What does the row hold "
            "already?",
        ),
        WrongAnswer(
            "the mark in the copy",
            keep_the_mark,
            "UNCHANGED is a mark for you and no value: whoever reads the copy looks for a photo. When is it not to be "
            "stored?",
        ),
        WrongAnswer(
            "the first photo for ever",
            keep_for_ever,
            "A photo that was replaced does come with the change. Look at the value, not at the name of the column.",
        ),
        WrongAnswer(
            "NULL taken for unchanged",
            only_what_is_true,
            "NULL and UNCHANGED are both false, and say opposite things. Ask for the one that you mean: "
            "value is UNCHANGED.",
        ),
    ],
)
def unchanged(lab: Any, answer: Any) -> Verdict:
    """Keep a copy of a table with photos by the answer, through every kind of change, and compare it with the table."""
    with psycopg.connect(lab.dsn, autocommit=True) as shop:
        shop.execute("DROP TABLE IF EXISTS pictured")
        shop.execute("CREATE TABLE pictured (id int PRIMARY KEY, title text, photo text)")
        with PostgreSQLCDC.session(
            settings.postgres_dsn("cdc"),
            [f"{lab.schema}.pictured"],
            setup_dsn=lab.dsn,
            slot_name=lab.slot("check"),
        ) as cdc:
            for number in range(1, ROWS + 1):
                shop.execute(
                    "INSERT INTO pictured VALUES (%s, %s, %s)", [number, f"product {number}", photo(f"{number}")]
                )
            for statement in STATEMENTS:
                shop.execute(statement)
            copy: dict[int, Any] = {}
            for transaction in cdc.transactions(until=ROWS + len(STATEMENTS)):
                for change in transaction:
                    _apply(answer, copy, change)
        table = {row[0]: row for row in shop.execute("SELECT id, title, photo FROM pictured")}
    return _judge(table, copy)


def _apply(answer: Callable[..., Any], copy: dict[int, Any], change: ChangeEvent) -> None:
    number = change.new_data["id"]
    row = copy.setdefault(number, {})
    made = answer(row, change)
    if isinstance(made, Mapping):  # whoever returns the new row means the same
        copy[number] = dict(made)


def _judge(table: Mapping[int, tuple[Any, ...]], copy: Mapping[int, Mapping[str, Any]]) -> Verdict:
    pairs = [(row, copy[number]) for number, row in table.items()]
    if off := sum((row[0], row[1]) != (held.get("id"), held.get("title")) for row, held in pairs):
        return missed(f"{off} of {len(table)} rows of the copy have another id or title than the table.")
    photos = [(row[2], held.get("photo")) for row, held in pairs]
    counted = {
        "the mark in the copy": sum(not isinstance(held, str | None) for _, held in photos),
        "NULL over it": sum(held is None and there is not None for there, held in photos),
        "the first photo for ever": sum(isinstance(held, str) and there not in {None, held} for there, held in photos),
        "NULL taken for unchanged": sum(isinstance(held, str) and there is None for there, held in photos),
    }
    if not any(counted.values()):
        return passed(f"All {len(table)} rows of the copy are as in the table, photos and missing photos alike.")
    mark, lost, stale, back = counted.values()
    return missed(
        f"Photos of {mark + lost + stale + back} of {len(table)} rows differ from the table: {lost} are lost, "
        f"in {mark} stands something that is no photo, {stale} are old ones, {back} are there and not in the table.",
        because=next(name for name, count in counted.items() if count),
    )
