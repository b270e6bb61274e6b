"""The exercise of lesson 06b: which changes of a schema does the registry take?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from streamlab import settings
from streamlab.lab.checks import Verdict, WrongAnswer, checker, missed, passed

__all__ = ["CHANGES", "SOLUTION", "changes", "record", "registry"]

LESSON: Final = "06b_kafka_connect_deeper"

Fields = list[dict[str, Any]]

_ID: Final = {"name": "id", "type": "int"}
_TOTAL: Final = {"name": "total", "type": "string"}
_NOTE: Final = {"name": "note", "type": ["null", "string"], "default": None}
_BEFORE: Final[Fields] = [_ID, _TOTAL, _NOTE]

CHANGES: Final[Mapping[str, Fields]] = {
    "a field that may be null, with the default null": [*_BEFORE, {**_NOTE, "name": "gift"}],
    "a field without a default": [*_BEFORE, {"name": "region", "type": "string"}],
    "a field is dropped": [_ID, _TOTAL],
    "a field gets another name": [_ID, {"name": "amount", "type": "string"}, _NOTE],
    "int becomes long": [{"name": "id", "type": "long"}, _TOTAL, _NOTE],
    "string becomes int": [_ID, {"name": "total", "type": "int"}, _NOTE],
}
"""Each is made to a record of id (int), total (string) and note (string or null, default null)."""

SOLUTION: Final = {name: number in {0, 2, 4} for number, name in enumerate(CHANGES)}


def record(fields: Fields) -> Schema:
    """An Avro schema of these fields."""
    return Schema(json.dumps({"type": "record", "name": "order", "namespace": "shop", "fields": fields}), "AVRO")


@contextmanager
def registry() -> Iterator[SchemaRegistryClient]:
    """A client of the registry that `streamlab.settings` knows."""
    with SchemaRegistryClient({"url": settings.registry_url()}) as made:
        yield made


def _but(**other: bool) -> dict[str, bool]:
    names = list(CHANGES)
    return {**SOLUTION, **{names[int(place[1:])]: taken for place, taken in other.items()}}


@checker(
    LESSON,
    "changes",
    solution=SOLUTION,
    wrong=[
        WrongAnswer(
            "only what adds",
            _but(_2=False, _4=False),
            "BACKWARD asks one thing: can a reader of the *new* schema read the *old* records? It skips what it does "
            "not know any more, and an int is a long.",
        ),
        WrongAnswer(
            "whatever adds",
            _but(_1=True),
            "Take an old record and the new schema: which value does a reader give to a field that is not there and "
            "has no default?",
        ),
        WrongAnswer(
            "a name is only a name",
            _but(_3=True),
            "Avro finds fields by their names. A new name is a field dropped and another one added: with which "
            "default?",
        ),
        WrongAnswer(
            "text can be read as a number",
            _but(_5=True),
            "The bytes of a text are read as what they are. Numbers widen (int, long, float, double); a text is none.",
        ),
    ],
)
def changes(lab: Any, answer: Any) -> Verdict:
    """Register each change behind the first schema, in a subject of its own, and see whether it is taken."""
    if not isinstance(answer, Mapping) or set(answer) != set(CHANGES):
        return missed(f"Give a dict of the {len(CHANGES)} changes, True where the registry takes it.")
    taken: dict[str, bool] = {}
    lab.namespace.subject_prefix()
    with registry() as client:
        for number, (name, fields) in enumerate(CHANGES.items()):
            subject = f"{lab.namespace.name}_{number}-value"
            client.register_schema(subject, record(_BEFORE))
            client.set_compatibility(subject, "BACKWARD")
            try:
                client.register_schema(subject, record(fields))
                taken[name] = True
            except SchemaRegistryError as error:
                if error.http_status_code not in {httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY}:
                    raise
                taken[name] = False
    wrong = [name for name, real in taken.items() if answer[name] is not real]
    if not wrong:
        return passed(f"The registry takes {sum(taken.values())} of {len(taken)}, and you said so.")
    told = "; ".join(f"{name}: {'taken' if taken[name] else 'refused'}" for name in wrong)
    return missed(f"{len(wrong)} of {len(taken)} are otherwise. {told}.", _because(set(wrong)))


def _because(wrong: set[str]) -> str:
    names = list(CHANGES)
    for place, mistake in ((1, "whatever adds"), (3, "a name is only a name"), (5, "text can be read as a number")):
        if names[place] in wrong:
            return mistake
    return "only what adds"
