"""Records of topics as Polars frames: no object is made for a value.

The frames have the columns of `streamlab.cdc.frames`, and ``partition``: an offset is a place in one. What does not go
this way (unwrapped rows, Avro, a value of another type than its schema says) is read record by record, with the same
result.

Needs the extra ``frames``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import polars as pl

from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.records import Records
from streamlab.cdc.debezium.rows import MALFORMED, exactly
from streamlab.cdc.debezium.schema import Head, Heads, split
from streamlab.cdc.debezium.table import NAMES, OPERATION, UNFIT, Table, shown
from streamlab.cdc.event import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.frames.batch import Frame

__all__ = ["FrameMaker"]

_SCHEMA: Final = b'{"schema":'
_STEP: Final = 1024
"""Records that are looked at together for where another schema begins, at first."""


class FrameMaker:
    """Makes frames of records. Used by one thread.

    Parameters
    ----------
    decoder : Decoder
        Reads what does not go the common way.
    whole_before : bool
        Whether PostgreSQL's old rows are whole.
    """

    def __init__(self, decoder: Decoder, *, whole_before: bool) -> None:
        self._decoder, self._whole_before = decoder, whole_before
        self._heads: dict[str, Heads[Table | None]] = {}
        self._bare: dict[tuple[str, str, frozenset[str]], Table] = {}

    def frames(self, topic: str, records: Records) -> Iterator[Frame]:
        """Frames of the records of one topic.

        Raises
        ------
        ChangeStreamError
            A record cannot be read.
        """
        heads = self._heads.setdefault(topic, Heads())
        frame, keys = records.frame, records.keys
        values = frame["value"]
        first, count = 0, len(records)
        while first < count:
            sample = values[first]
            head = heads.find(sample) or self._learn(heads, sample)
            last = self._last(values, first, head, heads)
            yield from self._alike(topic, frame[first:last], keys[first:last], head)
            first = last

    def _last(self, values: pl.Series, first: int, head: Head[Table | None] | None, heads: Heads[Table | None]) -> int:
        """Where the records end that begin like the first of them; those without a schema, if `head` is none."""
        begin, size, last = _SCHEMA if head is None else head.head, _STEP, first + 1
        if not first:
            size = values.len()  # nearly always all are alike
        # In growing steps: looking at all the rest for each that differs would take the square of the time.
        while last < values.len():
            part = values[last : last + size]
            alike = part.bin.starts_with(begin)
            if head is None:
                alike = ~alike
                for index in alike.not_().arg_true():
                    alike[index] = heads.find(part[index]) is None and self._learn(heads, part[index]) is None
            if not alike.all():
                return last + int(alike.arg_min() or 0)
            last, size = min(last + size, values.len()), 2 * size
        return last

    def _learn(self, heads: Heads[Table | None], value: bytes) -> Head[Table | None] | None:
        try:
            found = split(value)
        except ValueError:
            found = None
        if found is None:
            return None
        made: Table | None = None
        with suppress(*MALFORMED):
            made = Table(found[0], whole_before=self._whole_before)
        return heads.add(value, found[1], made)

    def _alike(
        self, topic: str, records: pl.DataFrame, keys: Sequence[bytes | None], head: Head[Table | None] | None
    ) -> Iterator[Frame]:  # fmt: skip
        values = records["value"]
        table, payloads = self._untyped(values) if head is None else head.made, records
        if head is not None:
            # Without the bracket that closes what the schema begins.
            value = pl.col("value")
            payloads = records.with_columns(value.bin.slice(head.size, value.bin.size() - head.size - 1))
        if table is not None:
            try:
                if head is not None and not values.bin.ends_with(b"}").all():
                    raise ValueError("a record is cut short")
                found = list(table.read(payloads, self._decoder.key_names(topic, keys[0])))
            except (*MALFORMED, pl.exceptions.PolarsError):
                pass
            else:
                yield from found
                return
        yield from self._singly(topic, records, keys, head)

    def _untyped(self, values: pl.Series) -> Table | None:
        """How JSON without schemas becomes frames, where the types of all columns were said, and the columns agree."""
        try:
            first, last = orjson.loads(values[0]), orjson.loads(values[values.len() - 1])
            if (first["after"] or first["before"]).keys() != (last["after"] or last["before"]).keys():
                return None  # the table was altered in between
        except MALFORMED:
            return None
        return self._said(first)

    def _said(self, payload: Mapping[str, Any]) -> Table | None:
        """The table of a record without a schema, where the types of all its columns were said."""
        try:
            source, columns = payload["source"], payload["after"] or payload["before"]
            schema, table = source.get("schema") or source["db"], source["table"]
            place = (schema, table, frozenset(columns))
            if (known := self._bare.get(place)) is not None:
                return known
            fields = self._decoder.untyped.fields(schema, table, columns)
            if fields is None:
                return None
            said = {
                "field": "source", "name": str(source["connector"]), "fields": [{"field": name} for name in source]
            }  # fmt: skip
            rows = [{"field": name, "fields": fields} for name in ("before", "after")]
            made = Table(
                {"fields": [said, {"field": "op"}, *rows]}, whole_before=self._whole_before, only=(schema, table)
            )  # fmt: skip
        except MALFORMED:
            return None
        self._bare[place] = made
        return made

    def _singly(
        self, topic: str, records: pl.DataFrame, keys: Sequence[bytes | None], head: Head[Table | None] | None
    ) -> Iterator[Frame]:
        """The same by way of events, with the same types wherever these are known."""
        made: dict[tuple[str, str, Table | None], list[tuple[ChangeEvent, Any]]] = {}
        last: dict[tuple[str, str], Table | None] = {}
        for (value, offset, number), key in zip(
            records.select("value", "position", "partition").iter_rows(), keys, strict=True
        ):
            event = self._decoder.decode(topic, KafkaPosition.at(topic, number, offset), key, value)
            if not isinstance(event, ChangeEvent):
                continue
            payload, table, place = None, None, (event.schema, event.table_name)
            if head is not None:
                table = head.made
                payload = exactly(value[head.size : -1]) if table is not None else None
            elif value.startswith(b"{") and b'"source":' in value:
                payload = exactly(value)
                # Where a table is emptied, no columns are told.
                table = self._said(payload) if event.new_data or event.old_data else last.get(place)
            last[place] = table
            made.setdefault((*place, table), []).append((event, payload))
        for (schema, name, table), found in made.items():
            if table is not None:
                yield table.read_singly(found)
            else:
                events = [event for event, _ in found]
                yield Frame(schema, name, _of_events(events), events[0].primary_key)


def _of_events(events: Sequence[ChangeEvent]) -> pl.DataFrame:
    columns = list(dict.fromkeys(name for event in events for name in (event.new_data or event.old_data)))
    made: dict[str, pl.Series] = {
        "operation": pl.Series([event.operation.value for event in events], dtype=OPERATION),
        "position": pl.Series([int(event.position) for event in events], dtype=pl.UInt64),  # type: ignore[call-overload]
        "partition": pl.Series([event.position.partition for event in events], dtype=pl.Int32),  # type: ignore[attr-defined]
        "ordinal": pl.Series([event.ordinal for event in events], dtype=pl.UInt32),
        "ts": pl.Series([event.commit_timestamp for event in events], dtype=pl.Datetime("us", "UTC")),
    }
    rows = [event.new_data or event.old_data for event in events]
    for name, given in zip(columns, shown(columns), strict=True):
        made[given] = _series([row.get(name) for row in rows])
    olds = [event.old_data if event.operation is Operation.UPDATE else {} for event in events]
    if any(olds):
        old = pl.DataFrame({name: _series([row.get(name) for row in olds]) for name in columns})
        mask = pl.lit(pl.Series([bool(each) for each in olds]))
        made["old"] = old.select(pl.when(mask).then(pl.struct(pl.all()))).to_series()
    else:
        made["old"] = pl.Series([None] * len(events))
    absent = [[name for name, value in row.items() if value is UNCHANGED] or None for row in rows]
    made["unchanged"] = pl.Series(absent, dtype=NAMES)
    made["unfit"] = pl.Series([None] * len(events), dtype=UNFIT)
    return pl.DataFrame(made)


def _series(values: list[Any]) -> pl.Series:
    plain = [None if value is UNCHANGED else value for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, set}:
        try:
            return pl.Series(plain, strict=True)
        except (TypeError, pl.exceptions.PolarsError):
            pass
    return pl.Series([None if value is None else str(value) for value in plain], dtype=pl.String)


def last_time(frames: Sequence[Frame]) -> datetime:
    """When the last of these changes was committed."""
    times = [each.data["ts"].max() for each in frames]
    return max((each for each in times if isinstance(each, datetime)), default=datetime.fromtimestamp(0, UTC))
