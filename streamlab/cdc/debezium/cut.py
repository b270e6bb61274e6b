"""Columns cut out of envelopes that are alike: JSON whose values are looked for where they have to stand.

Debezium writes the records of a table in one form: the same names in the same order, without spaces. So a record is not
parsed. Rows are cut at ``,"``, and each piece has to begin with its column's name; of what follows behind them the
operation, the time and the table are found by their names. That takes a third of the time of a parser.

It rests on what JSON is. In a JSON text the bytes ``"name":`` can only be a name: within a text a quotation mark has a
backslash before it. ``,"`` can also be the end of a text with a comma; then there are too many pieces. A record that is
not in every way as expected (an escaped character, a number that is none, another order) is not cut: it is in `rest`,
and a parser has to read it. What no column needs, such as ``source.lsn``, is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import polars as pl

__all__ = ["Cut", "Form"]

_TEXT, _ROW, _TAIL = pl.col("text"), pl.col("row"), pl.col("tail")
_CELL: Final = ',"'
_SOURCE: Final = ',"source":{'
_OP: Final = ',"op":"'
_END: Final = r'^,"op":"[crud]"(,"[a-z_]+":([0-9]{1,19}|null))*\}$'
_NO_TEXT: Final = r'["\\\x00-\x1f]'
_FRESH: Final = '{"before":null,"after":{'
_GONE: Final = ',"after":null'
_WHOLE: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
_REAL: Final = (pl.Float32, pl.Float64)
_NONE: Final = pl.Series(dtype=pl.UInt32)


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut, in the order of the records.

    Attributes
    ----------
    raw : polars.DataFrame
        ``index`` of the record, ``op``, ``time`` as `source` has it, ``now``: the row after the change, or the one that
        was deleted; and ``old``, where an update has one.
    rest : polars.Series
        Indexes of the records that were not cut.
    """

    raw: pl.DataFrame
    rest: pl.Series


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows of one kind: into how many pieces they fall, what stands in these, and what that means."""

    count: int
    picked: list[pl.Expr]
    bodies: list[pl.Expr]
    values: list[pl.Expr]


class Form:
    """The form of the envelopes of one table.

    Parameters
    ----------
    sample : str
        One of them.
    columns : mapping of str to polars data type
        Of its rows, in order: the types under which JSON is read.
    time, where : str
        The fields of its block ``source`` that hold the time, and the schema or database.

    Raises
    ------
    ValueError, TypeError, LookupError
        It has a form that cannot be cut.

    Attributes
    ----------
    table : tuple of str
        Schema and table; others are not cut.
    """

    def __init__(self, sample: str, columns: Mapping[str, Any], *, time: str, where: str) -> None:
        payload = orjson.loads(sample)
        source, row = payload["source"], payload["after"] or payload["before"]
        if tuple(row) != tuple(columns) or any(
            isinstance(each, (dict, list)) for each in (*row.values(), *source.values())
        ):
            raise ValueError("rows of another form")
        if not all(each in (*_WHOLE, *_REAL, pl.String, pl.Boolean) for each in columns.values()):
            raise ValueError("values of another form")
        self.table: tuple[str, str] = (source[where], source["table"])
        self._time = f'"{time}":'
        self._digits = len(str(source[time]))
        told = [f'"{name}":{orjson.dumps(source[name]).decode()}' for name in (where, "table")]
        # Beside each other, as in PostgreSQL's, they are looked for together.
        self._told = [both] if (both := ",".join(told)) in sample else told
        names = [f'"{each}":' for each in (where, "table", "op", "source")]
        if any(sample.count(each) != 1 for each in names):
            raise ValueError("a form that is not known")
        data = sample.encode()
        places = [data.find(each.encode()) for each in (_SOURCE, self._time, self._told[-1], _OP)]
        if places[0] < 0 or places != sorted(places):
            raise ValueError("fields in another order")
        # Times have as many digits for some centuries, so these distances are always the same.
        self._since_time = places[2] - places[1]
        self._to_end = len(data) - places[3]
        self._columns = dict(columns)
        self._names = [orjson.dumps(name).decode() + ":" for name in columns]
        if any(_CELL in name for name in self._names):
            raise ValueError("a name that is cut itself")
        self._steps = self._outside()
        self._kinds: dict[tuple[bool, bool], _Kind] = {}

    def cut(self, text: pl.Series) -> Cut:
        """Cut records, of which each is one line of text.

        Raises
        ------
        polars.exceptions.PolarsError
            Something in them is such that no record of them can be cut.
        """
        found = self._found(text.alias("text").to_frame())
        fresh, row = found["fresh"], found["row"]
        if fresh.all():
            parts = [self._part(found, None, before=False, after=True)]
        else:
            gone = (row.str.starts_with('{"before":{') & row.str.ends_with(_GONE)).fill_null(value=False)
            parts = [
                self._part(found, mask.arg_true(), before=before, after=after)
                for mask, before, after in (
                    (fresh, False, True), (gone, True, False), (~(fresh | gone) & row.is_not_null(), True, True)
                )
                if mask.any()
            ]  # fmt: skip
        raw = pl.concat(parts, how="diagonal").sort("index") if len(parts) > 1 else parts[0] if parts else found[:0]
        if raw.height == text.len():
            return Cut(raw, _NONE)
        return Cut(raw, found["index"].filter(~found["index"].is_in(raw["index"].implode())))

    def _outside(self) -> tuple[list[pl.Expr], ...]:
        """What finds, step by step, the things that stand outside of the rows."""
        told = [_TEXT.str.find(each, literal=True).alias(f"told{index}") for index, each in enumerate(self._told)]
        last = pl.col(f"told{len(told) - 1}").cast(pl.Int64)
        size = len(self._time) + self._digits + 1
        digits = pl.col("micros").str.strip_prefix(self._time).str.strip_suffix(",")
        return (
            [_TEXT.cast(pl.Binary), _TEXT.str.find(_SOURCE, literal=True).alias("at"), *told],
            [
                pl.col("at"), pl.col("told0"), (last - self._since_time).alias("time_at"),
                _TEXT.bin.slice(0, pl.col("at")).cast(pl.String).alias("row"),
                _TEXT.bin.slice(last - self._since_time, size).cast(pl.String, strict=False).alias("micros"),
                _TEXT.bin.tail(self._to_end).cast(pl.String, strict=False).alias("tail"),
            ],
            [
                pl.all(), digits.cast(pl.Int64, strict=False).alias("time"), digits.str.len_bytes().alias("digits"),
            ],
            [
                pl.col("time"), _TAIL.str.slice(len(_OP), 1).alias("op"),
                pl.when(
                    (pl.col("at") < pl.col("time_at")) & pl.col("told0").is_not_null() & pl.col("time").is_not_null()
                    & (pl.col("digits") == self._digits) & _TAIL.str.contains(_END)
                ).then(_ROW).alias("row"),
            ],
            [
                pl.all(), pl.int_range(pl.len(), dtype=pl.UInt32).alias("index"),
                _ROW.str.starts_with(_FRESH).fill_null(value=False).alias("fresh"),
            ],
        )  # fmt: skip

    def _found(self, found: pl.DataFrame) -> pl.DataFrame:
        """What stands outside of the rows; ``row`` is NULL where something there is not as expected."""
        for step in self._steps:
            found = found.select(step)
        return found

    def _part(self, found: pl.DataFrame, index: pl.Series | None, *, before: bool, after: bool) -> pl.DataFrame:
        """The records of one of the three kinds: a row that is new, one that is gone, or both."""
        kind = self._kinds.get((before, after)) or self._kinds.setdefault((before, after), self._kind(before, after))
        if index is not None:
            found = found[index]
        cells = found["row"].str.split(_CELL)
        right = cells.list.len()
        if right.min() != kind.count or right.max() != kind.count:
            found, cells = found.filter(right == kind.count), cells.filter(right == kind.count)
        table = cells.explode(empty_as_null=True).alias("cell").to_frame().select(kind.picked)
        raw = table.with_columns(*kind.bodies, *found.select("op", "index", "time")).select(kind.values)
        return (raw if raw["fit"].all() else raw.filter("fit")).drop("fit")

    def _kind(self, before: bool, after: bool) -> _Kind:
        """How rows of one kind are read; said once, for saying it takes longer than reading some hundred rows."""
        columns = len(self._columns)
        count = columns * (before + after) + (before != after)
        first = '{"before":'
        rows: dict[str, int] = {}
        begins, ends = [""] * count, [""] * count
        if before:
            rows["now" if not after else "old"] = 0
            begins[0] = first + "{"
            ends[columns - 1] = "}"
        if after:
            rows["now"] = start = columns if before else 1
            begins[start] = 'after":{'
            ends[-1] = "}"
        letter = pl.col("op")
        fits = [letter != "d" if after and not before else letter == ("u" if after else "d")]
        if not before:
            fits.append(pl.col("0") == first + "null")
        elif not after:
            fits.append(pl.col(f"{count - 1}") == 'after":null')
        values: dict[str, list[pl.Expr]] = {}
        bodies: list[pl.Expr] = []
        for name, start in rows.items():
            values[name] = []
            for number, (column, wire) in enumerate(self._columns.items()):
                at = start + number
                # The mark before a name went with the cut, but for the first of a row.
                said = self._names[number] if begins[at] else self._names[number][1:]
                body, value, fit = _cell(f"{at}", wire, begins[at] + said, ends[at])
                bodies.append(body)
                fits.append(fit)
                values[name].append(value.alias(column))
        return _Kind(
            count,
            [pl.col("cell").gather_every(count, each).alias(f"{each}") for each in range(count)],
            bodies,
            [
                pl.col("index"),
                pl.col("op"),
                pl.col("time"),
                *(pl.struct(each).alias(name) for name, each in values.items()),
                pl.all_horizontal(fits).fill_null(value=False).alias("fit"),
            ],
        )


def _cell(at: str, wire: Any, begin: str, end: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Of a piece: what stands behind the name, the value of that, and whether it is one."""
    cell, body = pl.col(at), pl.col(f"body{at}")
    quote = '"' if wire == pl.String else ""
    stripped = cell.str.strip_prefix(begin + quote)
    if quote + end:
        stripped = stripped.str.strip_suffix(quote + end)
    # Nothing is stripped that is not there.
    both = cell.str.len_bytes() - body.str.len_bytes() == len((begin + quote + quote + end).encode())
    value: pl.Expr
    if wire == pl.String:
        none = cell == f"{begin}null{end}"
        value = pl.when(~none).then(body)
        known = none | (both & ~body.str.contains(_NO_TEXT))
    elif wire == pl.Boolean:
        value = pl.when(body != "null").then(body == "true")
        known = both & body.is_in(["true", "false", "null"])
    else:
        value = body.cast(pl.Float64 if wire in _REAL else wire, strict=False).cast(wire)
        known = both & (value.is_not_null() | (body == "null"))
    return stripped.alias(f"body{at}"), value, known
