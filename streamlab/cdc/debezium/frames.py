"""Records of topics as Polars frames: payloads are joined and read by Polars, no object is made for a value.

The frames have the columns of `streamlab.cdc.frames`, and ``partition``: an offset is a place in one. What does not go
this way (unwrapped rows, Avro, a value of another type than its schema says) is read record by record, with the same
result.

Needs the extra ``frames``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import polars as pl

from streamlab.cdc.debezium.columns import Column, column_of
from streamlab.cdc.debezium.decoder import Decoder
from streamlab.cdc.debezium.envelope import database_of
from streamlab.cdc.debezium.position import KafkaPosition
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.schema import Head, Heads, split
from streamlab.cdc.debezium.values import UNAVAILABLE, Field
from streamlab.cdc.event import UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.frames.batch import Frame

__all__ = ["FrameMaker", "Records"]

_OPERATION: Final = pl.Enum([each.value for each in Operation])
_CODES: Final = {
    "c": "INSERT", "u": "UPDATE", "d": "DELETE", "t": "TRUNCATE", "r": "SNAPSHOT", "m": "MESSAGE",
}  # fmt: skip
_META: Final = ("operation", "position", "partition", "ordinal", "ts", "old", "unchanged", "unfit")
_UNFIT: Final = pl.List(pl.Struct({"column": pl.String, "text": pl.String}))
_NAMES: Final = pl.List(pl.String)
_BASE64: Final = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="


@dataclass(slots=True)
class Records:
    """Records of one topic, in the order in which they came; none of them a tombstone."""

    values: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def part(self, first: int, last: int) -> Records:
        """Some of them."""
        lists = (self.values, self.keys, self.partitions, self.offsets)
        return Records(*(each[first:last] for each in lists))  # type: ignore[arg-type]


class _Table:
    """How the envelopes of one schema become a frame."""

    def __init__(self, schema: Field, *, whole_before: bool, only: tuple[str, str] | None = None) -> None:
        self.only = only
        fields = {each["field"]: each for each in schema["fields"]}
        if not {"op", "source", "before", "after"} <= fields.keys():
            raise ValueError("it is no envelope of a row")
        source = {each["field"] for each in fields["source"]["fields"]}
        database = database_of(fields["source"].get("name") or "")
        columns = fields["after"]["fields"]
        self.columns: dict[str, Column] = {each["field"]: column_of(each, database) for each in columns}
        self.names = dict(zip(self.columns, _names(list(self.columns)), strict=True))
        self.placeholders = database == "postgresql"
        self.keyed = database == "postgresql" and not whole_before
        self.where = "schema" if "schema" in source else "db"
        self.time, self.unit = ("ts_us", 1) if "ts_us" in source else ("ts_ms", 1000)
        row = pl.Struct({name: column.wire for name, column in self.columns.items()})
        said = pl.Struct({self.time: pl.Int64, self.where: pl.String, "table": pl.String})
        self.schema: dict[str, Any] = {"before": row, "after": row, "op": pl.String, "source": said}

    def read(self, payloads: list[bytes], records: Records, key: tuple[str, ...]) -> Iterator[Frame]:
        """Frames of these payloads, one for each table.

        Raises
        ------
        ValueError, polars.exceptions.PolarsError
            There is something in them that does not go this way.
        """
        raw = pl.read_ndjson(io.BytesIO(b"\n".join(payloads)), schema=self.schema)
        if raw.height != len(payloads):
            raise ValueError("a record has more than one line")
        if raw["op"].null_count() or not raw["op"].is_in(list(_CODES)).all():
            raise ValueError("there is no such operation")
        raw = raw.with_columns(
            position=pl.Series(records.offsets, dtype=pl.UInt64),
            partition=pl.Series(records.partitions, dtype=pl.Int32),
            schema=pl.col("source").struct.field(self.where),
            table=pl.col("source").struct.field("table"),
        )
        if self.only is not None and set(raw.select("schema", "table").unique().iter_rows()) != {self.only}:
            raise ValueError("there are other tables among them")
        for part in raw.partition_by("schema", "table", maintain_order=True):
            yield Frame(part["schema"][0], part["table"][0], self._frame(part, key), key)

    def _frame(self, raw: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
        deleted, updated = pl.col("op") == "d", pl.col("op") == "u"
        rows = raw.select(
            *(
                pl.when(deleted)
                .then(pl.col("before").struct.field(name) if not self.keyed or not key or name in key else pl.lit(None))
                .otherwise(pl.col("after").struct.field(name))
                .alias(name)
                for name in self.columns
            )
        )
        names = self.names
        absent = {
            name: rows[name].is_in([UNAVAILABLE, _BASE64]).fill_null(value=False)
            for name, column in self.columns.items()
            if self.placeholders and column.wire == pl.String
        }
        rows = rows.with_columns(
            pl.when(~pl.lit(mask)).then(pl.col(name)).alias(name) for name, mask in absent.items() if mask.any()
        )
        made = rows.select(column.made(pl.col(name)).alias(names[name]) for name, column in self.columns.items())
        old = raw.select(
            pl.when(updated).then(pl.col("before")).struct.field(name).alias(name) for name in self.columns
        ).select(column.made(pl.col(name)).alias(names[name]) for name, column in self.columns.items())
        has_old = raw.select(updated & pl.col("before").is_not_null()).to_series()
        head = raw.select(
            pl.col("op").replace_strict(_CODES, return_dtype=_OPERATION).alias("operation"),
            "position",
            "partition",
            pl.lit(0, dtype=pl.UInt32).alias("ordinal"),
            (pl.col("source").struct.field(self.time) * self.unit).cast(pl.Datetime("us", "UTC")).alias("ts"),
        )
        tail = pl.DataFrame(
            {
                "old": old.select(pl.when(pl.lit(has_old)).then(pl.struct(pl.all()))).to_series(),
                "unchanged": _unchanged(raw.height, {names[name]: mask for name, mask in absent.items() if mask.any()}),
                "unfit": self._unfit(rows, made),
            }
        )
        return pl.concat([head, made, tail], how="horizontal")

    def _unfit(self, rows: pl.DataFrame, made: pl.DataFrame) -> pl.Series:
        notes: list[list[dict[str, str]] | None] | None = None
        for name in self.columns:
            lost = (made[self.names[name]].is_null() & rows[name].is_not_null()).arg_true()
            for index in lost:
                notes = notes or [None] * rows.height
                listed = notes[index] = notes[index] or []
                listed.append({"column": self.names[name], "text": str(rows[name][index])})
        if notes is None:
            return pl.Series([None], dtype=_UNFIT).new_from_index(0, rows.height)
        return pl.Series(notes, dtype=_UNFIT)


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
        self._heads: dict[str, Heads[_Table | None]] = {}
        self._bare: dict[tuple[str, str, tuple[str, ...]], _Table] = {}

    def frames(self, topic: str, records: Records) -> Iterator[Frame]:
        """Frames of the records of one topic.

        Raises
        ------
        ChangeStreamError
            A record cannot be read.
        """
        heads = self._heads.setdefault(topic, Heads())
        first, count = 0, len(records)
        while first < count:
            head = heads.find(records.values[first]) or self._learn(heads, records.values[first])
            last = first + 1
            if head is not None:
                begin = head.head
                while last < count and records.values[last].startswith(begin):
                    last += 1
            else:
                while last < count and heads.find(records.values[last]) is None and not split(records.values[last]):
                    last += 1
            yield from self._alike(topic, records.part(first, last) if last - first < count else records, head)
            first = last

    def _learn(self, heads: Heads[_Table | None], value: bytes) -> Head[_Table | None] | None:
        try:
            found = split(value)
            if found is None:
                return None
            made: _Table | None = _Table(found[0], whole_before=self._whole_before)
        except MALFORMED:
            if found is None:
                return None
            made = None
        return heads.add(value, found[1], made)

    def _alike(self, topic: str, records: Records, head: Head[_Table | None] | None) -> Iterator[Frame]:
        if head is not None and head.made is not None:
            size = head.size
            try:
                yield from list(
                    head.made.read(
                        [value[size:-1] for value in records.values], records,
                        self._decoder.key_names(topic, records.keys[0]),
                    )
                )  # fmt: skip
            except (*MALFORMED, pl.exceptions.PolarsError):
                pass
            else:
                return
        elif head is None and (table := self._untyped(records.values)) is not None:
            try:
                key = self._decoder.key_names(topic, records.keys[0])
                yield from list(table.read(records.values, records, key))
            except (*MALFORMED, pl.exceptions.PolarsError):
                pass
            else:
                return
        yield from self._singly(topic, records)

    def _untyped(self, values: list[bytes]) -> _Table | None:
        """How JSON without schemas becomes frames, where the types of all columns were said, and the columns agree."""
        try:
            first, last = orjson.loads(values[0]), orjson.loads(values[-1])
            source, columns = first["source"], tuple(first["after"] or first["before"])
            if columns != tuple(last["after"] or last["before"]):
                return None  # the table was altered in between
            schema, table = source.get("schema") or source["db"], source["table"]
            if (known := self._bare.get((schema, table, columns))) is not None:
                return known
            fields = self._decoder.untyped.fields(schema, table, columns)
            if fields is None:
                return None
            said = {
                "field": "source", "name": str(source["connector"]), "fields": [{"field": name} for name in source]
            }  # fmt: skip
            rows = [{"field": name, "fields": fields} for name in ("before", "after")]
            made = _Table(
                {"fields": [said, {"field": "op"}, *rows]}, whole_before=self._whole_before, only=(schema, table)
            )  # fmt: skip
        except MALFORMED:
            return None
        self._bare[schema, table, columns] = made
        return made

    def _singly(self, topic: str, records: Records) -> Iterator[Frame]:
        """The same by way of events."""
        tables: dict[tuple[str, str], list[ChangeEvent]] = {}
        for value, key, number, offset in zip(
            records.values, records.keys, records.partitions, records.offsets, strict=True
        ):
            event = self._decoder.decode(topic, KafkaPosition.at(topic, number, offset), key, value)
            if isinstance(event, ChangeEvent):
                tables.setdefault((event.schema, event.table_name), []).append(event)
        for (schema, name), events in tables.items():
            yield Frame(schema, name, _of_events(events), events[0].primary_key)


def _of_events(events: Sequence[ChangeEvent]) -> pl.DataFrame:
    columns = list(dict.fromkeys(name for event in events for name in (event.new_data or event.old_data)))
    made: dict[str, pl.Series] = {
        "operation": pl.Series([event.operation.value for event in events], dtype=_OPERATION),
        "position": pl.Series([int(event.position) for event in events], dtype=pl.UInt64),  # type: ignore[call-overload]
        "partition": pl.Series([event.position.partition for event in events], dtype=pl.Int32),  # type: ignore[attr-defined]
        "ordinal": pl.Series([event.ordinal for event in events], dtype=pl.UInt32),
        "ts": pl.Series([event.commit_timestamp for event in events], dtype=pl.Datetime("us", "UTC")),
    }
    rows = [event.new_data or event.old_data for event in events]
    for name, shown in zip(columns, _names(columns), strict=True):
        made[shown] = _series([row.get(name) for row in rows])
    olds = [event.old_data if event.operation is Operation.UPDATE else {} for event in events]
    if any(olds):
        old = pl.DataFrame({name: _series([row.get(name) for row in olds]) for name in columns})
        mask = pl.lit(pl.Series([bool(each) for each in olds]))
        made["old"] = old.select(pl.when(mask).then(pl.struct(pl.all()))).to_series()
    else:
        made["old"] = pl.Series([None] * len(events))
    absent = [[name for name, value in row.items() if value is UNCHANGED] or None for row in rows]
    made["unchanged"] = pl.Series(absent, dtype=_NAMES)
    made["unfit"] = pl.Series([None] * len(events), dtype=_UNFIT)
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


def _names(columns: list[str]) -> list[str]:
    """Names of columns in a frame: one that is also the frame's own gets a ``_`` behind it."""
    taken, names = {*_META, *columns}, []
    for name in columns:
        shown = name
        while shown in _META or (shown != name and shown in taken):
            shown += "_"
        taken.add(shown)
        names.append(shown)
    return names


def _unchanged(count: int, masks: Mapping[str, pl.Series]) -> pl.Series:
    if not masks:
        return pl.Series([None], dtype=_NAMES).new_from_index(0, count)
    names = pl.concat_list([pl.when(pl.lit(mask)).then(pl.lit(name)) for name, mask in masks.items()]).list.drop_nulls()
    return pl.select(pl.when(names.list.len() > 0).then(names)).to_series()


def last_time(frames: Sequence[Frame]) -> datetime:
    """When the last of these changes was committed."""
    times = [each.data["ts"].max() for each in frames]
    return max((each for each in times if isinstance(each, datetime)), default=datetime.fromtimestamp(0, UTC))
