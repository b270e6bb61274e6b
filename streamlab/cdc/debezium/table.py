"""Envelopes of one schema as a frame: whole columns at once, no object for a value.

What is alike is cut out of the text (`streamlab.cdc.debezium.cut`), what is not is parsed by Polars; behind that all is
the same.

Needs the extra ``frames``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import polars as pl

from streamlab.cdc.debezium.columns import Column, column_of
from streamlab.cdc.debezium.cut import Form
from streamlab.cdc.debezium.envelope import database_of
from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.event import ChangeEvent, Operation
from streamlab.cdc.frames.batch import Frame

__all__ = ["NAMES", "OPERATION", "UNFIT", "Table", "shown"]

OPERATION: Final = pl.Enum([each.value for each in Operation])
UNFIT: Final = pl.List(pl.Struct({"column": pl.String, "text": pl.String}))
NAMES: Final = pl.List(pl.String)

_CODES: Final = {
    "c": "INSERT", "u": "UPDATE", "d": "DELETE", "t": "TRUNCATE", "r": "SNAPSHOT", "m": "MESSAGE",
}  # fmt: skip
_META: Final = ("operation", "position", "partition", "ordinal", "ts", "old", "unchanged", "unfit")


class Table:
    """How the envelopes of one schema become a frame. Used by one thread.

    Parameters
    ----------
    schema : Field
        Of the envelope.
    whole_before : bool
        Whether PostgreSQL's old rows are whole.
    only : tuple of str, optional
        The one schema and table whose records may come.

    Raises
    ------
    ValueError
        It is no envelope, or a column has a type that does not exist.
    """

    def __init__(self, schema: Field, *, whole_before: bool, only: tuple[str, str] | None = None) -> None:
        self._only = only
        fields = {each["field"]: each for each in schema["fields"]}
        if not {"op", "source", "before", "after"} <= fields.keys():
            raise ValueError("it is no envelope of a row")
        source = {each["field"] for each in fields["source"]["fields"]}
        database = database_of(fields["source"].get("name") or "")
        self._columns: dict[str, Column] = {
            each["field"]: column_of(each, database) for each in fields["after"]["fields"]
        }  # fmt: skip
        self._names = dict(zip(self._columns, shown(list(self._columns)), strict=True))
        masks = {name: column.left_out(pl.col(name)) for name, column in self._columns.items()}
        left_out = {name: mask for name, mask in masks.items() if mask is not None and database == "postgresql"}
        self._left_out_names = list(left_out)
        self._keyed = database == "postgresql" and not whole_before
        self._where = "schema" if "schema" in source else "db"
        self._time, self._unit = ("ts_us", 1) if "ts_us" in source else ("ts_ms", 1000)
        self._wires = {name: column.wire for name, column in self._columns.items()}
        row = pl.Struct(self._wires)
        said = pl.Struct({self._time: pl.Int64, self._where: pl.String, "table": pl.String})
        self._schema: dict[str, Any] = {"before": row, "after": row, "op": pl.String, "source": said}
        # A number in the place of a text that means more would be taken for another value, or for a text that was said.
        texts = [
            re.escape(orjson.dumps(each["field"]).decode())
            for each in fields["after"]["fields"]
            if (column := self._columns[each["field"]]).wire == pl.String and column.scalar
            and (only is not None or not column.same) and each.get("type") != "any"
        ]  # fmt: skip
        self._not_text = f'(?:{"|".join(texts)}):[^"n]' if texts else None
        self._cuttable = all(column.scalar for column in self._columns.values())
        self._form: Form | None = None
        # Said once: for few records that takes longer than all that is done with them.
        self._left_out = list(left_out.values())
        self._values = [column.made(pl.col(name)).alias(self._names[name]) for name, column in self._columns.items()]
        self._head = [
            pl.col("op").replace_strict(_CODES, return_dtype=OPERATION).alias("operation"),
            pl.col("position"),
            pl.col("partition"),
            pl.lit(0, dtype=pl.UInt32).alias("ordinal"),
            (pl.col("time") * self._unit).cast(pl.Datetime("us", "UTC")).alias("ts"),
        ]

    def read(self, records: pl.DataFrame, key: tuple[str, ...]) -> Iterator[Frame]:
        """Frames of these payloads, one for each table.

        Parameters
        ----------
        records : polars.DataFrame
            ``value``, ``position`` and ``partition``.
        key : tuple of str
            The columns of the primary key.

        Raises
        ------
        ValueError, polars.exceptions.PolarsError
            There is something in them that does not go this way.
        """
        raw, places = self._raw(records["value"].cast(pl.String))
        if self._only is not None and places != [self._only]:
            raise ValueError("there are other tables among them")
        raw = raw.hstack(records.select("position", "partition"))
        for schema, table in places:
            part = raw
            if len(places) > 1:
                part = raw.filter((pl.col("schema") == schema) & (pl.col("table") == table))
            yield Frame(schema, table, self._frame(part, key), key)

    def read_singly(self, records: Sequence[tuple[ChangeEvent, Mapping[str, Any]]]) -> Frame:
        """The same frame of records of one table that were parsed one by one, since something in them is not usual.

        Parameters
        ----------
        records : sequence of tuple
            The event of each, and its payload, parsed exactly.
        """
        events = [event for event, _ in records]
        notes: dict[int, list[dict[str, str]]] = {}
        now, old = [], []
        for index, (_, payload) in enumerate(records):
            before = self._plain(payload["before"], notes, index if payload["op"] == "d" else None)
            after = self._plain(payload["after"], notes, index)
            now.append(before if payload["op"] == "d" else after)
            old.append(before if payload["op"] == "u" else None)
        row = pl.Struct(self._wires)
        raw = pl.DataFrame(
            {
                "op": pl.Series([payload["op"] for _, payload in records], dtype=pl.String),
                "time": pl.Series([None] * len(records), dtype=pl.Int64),
                "now": pl.Series(now, dtype=row), "old": pl.Series(old, dtype=row),
                "position": pl.Series([int(each.position) for each in events], dtype=pl.UInt64),  # type: ignore[call-overload]
                "partition": pl.Series([each.position.partition for each in events], dtype=pl.Int32),  # type: ignore[attr-defined]
            }
        )  # fmt: skip
        key = events[0].primary_key
        made = self._frame(raw, key).with_columns(
            pl.Series("ts", [each.commit_timestamp for each in events], dtype=pl.Datetime("us", "UTC")),
        )
        if notes:
            unfit = [
                (known or []) + notes.get(index, []) or None for index, known in enumerate(made["unfit"].to_list())
            ]
            made = made.with_columns(pl.Series("unfit", unfit, dtype=UNFIT))
        return Frame(events[0].schema, events[0].table_name, made, key)

    def _plain(
        self, row: Mapping[str, Any] | None, notes: dict[int, list[dict[str, str]]], index: int | None
    ) -> dict[str, Any] | None:
        """A row as JSON is read here; what does not fit is noted, if it is the row of a frame."""
        if row is None:
            return None
        made = {}
        for name, column in self._columns.items():
            value = row.get(name)
            try:
                made[name] = column.plain(value)
            except ValueError:
                made[name] = None
                if index is not None:
                    notes.setdefault(index, []).append({"column": self._names[name], "text": str(value)})
        return made

    # -- from text to columns as JSON has them ----------------------------------------------------

    def _raw(self, text: pl.Series) -> tuple[pl.DataFrame, list[Any]]:
        """``op``, ``time``, ``now``, and ``old`` where an update has an old row; and which tables there are.

        Where these are several, there are ``schema`` and ``table`` too.
        """
        form = self._form or self._learned(text[0])
        if form is None:
            return self._all_parsed(text)
        cut = form.cut(text)
        many = 2 * cut.rest.len() > text.len()
        self._form = None if many else form
        if many:
            return self._all_parsed(text)
        if cut.rest.is_empty():
            return cut.raw, [form.table]
        schema, table = form.table
        raw = cut.raw.with_columns(schema=pl.lit(schema), table=pl.lit(table))
        rest = self._parsed(text.gather(cut.rest)).with_columns(cut.rest.alias("index"))
        return _told(pl.concat([raw, rest], how="diagonal").sort("index"))

    def _all_parsed(self, text: pl.Series) -> tuple[pl.DataFrame, list[Any]]:
        return _told(self._parsed(text))

    def _learned(self, sample: str) -> Form | None:
        if not self._cuttable:
            return None
        try:
            form = Form(sample, self._wires, time=self._time, where=self._where)
        except MALFORMED:
            return None
        return form if self._only in {None, form.table} else None

    def _parsed(self, text: pl.Series) -> pl.DataFrame:
        if self._not_text is not None and text.str.contains(self._not_text).any():
            raise ValueError("there is something else in place of a text")
        raw = pl.read_ndjson(io.BytesIO(text.str.join("\n")[0].encode()), schema=self._schema)
        if raw.height != text.len():
            raise ValueError("a record has more than one line")
        if raw["op"].null_count() or not raw["op"].is_in(list(_CODES)).all():
            raise ValueError("there is no such operation")
        made = raw.select(
            pl.col("source").struct.field(self._where).alias("schema"),
            pl.col("source").struct.field("table").alias("table"),
            "op",
            pl.col("source").struct.field(self._time).alias("time"),
            pl.when(pl.col("op") == "d").then("before").otherwise("after").alias("now"),
            pl.when(pl.col("op") == "u").then("before").alias("old"),
        )
        return made if made["old"].null_count() < made.height else made.drop("old")

    # -- from there to a frame --------------------------------------------------------------------

    def _frame(self, raw: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
        rows = raw["now"].struct.unnest()
        if self._keyed and key and (deleted := raw["op"] == "d").any():
            rows = rows.with_columns(
                pl.when(~pl.lit(deleted)).then(pl.col(name)).alias(name) for name in self._columns if name not in key
            )
        absent = {}
        masks = rows.select(self._left_out)
        for name in self._left_out_names:
            if (mask := masks[name]).any():
                absent[self._names[name]] = mask
                rows = rows.with_columns(pl.when(~pl.lit(mask)).then(pl.col(name)).alias(name))
        made = self._made(rows)
        head = raw.select(self._head)
        old = self._old(raw["old"]) if "old" in raw.columns else None
        if old is None:
            old = pl.Series([None], dtype=pl.Struct(made.schema)).new_from_index(0, raw.height)
        tail = [old.alias("old"), _unchanged(raw.height, absent).alias("unchanged"), self._unfit(rows, made)]
        return head.hstack(made).hstack(tail)

    def _made(self, rows: pl.DataFrame) -> pl.DataFrame:
        made = rows.select(self._values)
        again = [
            column.again(pl.col(name)).alias(self._names[name])
            for name, column in self._columns.items()
            if column.again is not None and made[self._names[name]].null_count() > rows[name].null_count()
        ]
        return made.with_columns(rows.select(again)) if again else made

    def _old(self, rows: pl.Series) -> pl.Series | None:
        """The old rows of updates; they alone are made."""
        there = rows.is_not_null()
        if not there.any():
            return None
        made = self._made(rows.filter(there).struct.unnest()).to_struct()
        if there.all():
            return made
        places = pl.select(pl.when(there).then(there.cum_sum() - 1)).to_series()
        return made.gather(places)

    def _unfit(self, rows: pl.DataFrame, made: pl.DataFrame) -> pl.Series:
        notes: list[list[dict[str, str]] | None] | None = None
        for name, shown in self._names.items():
            if made[shown].null_count() == rows[name].null_count():
                continue
            for index in (made[shown].is_null() & rows[name].is_not_null()).arg_true():
                notes = notes or [None] * rows.height
                listed = notes[index] = notes[index] or []
                listed.append({"column": shown, "text": str(rows[name][index])})
        if notes is None:
            return pl.Series("unfit", [None], dtype=UNFIT).new_from_index(0, rows.height)
        return pl.Series("unfit", notes, dtype=UNFIT)


def _told(raw: pl.DataFrame) -> tuple[pl.DataFrame, list[Any]]:
    """The same, and which tables there are in it."""
    return raw, raw.select("schema", "table").unique(maintain_order=True).rows()


def shown(columns: list[str]) -> list[str]:
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
        return pl.Series([None], dtype=NAMES).new_from_index(0, count)
    names = pl.concat_list([pl.when(pl.lit(mask)).then(pl.lit(name)) for name, mask in masks.items()]).list.drop_nulls()
    return pl.select(pl.when(names.list.len() > 0).then(names)).to_series()
