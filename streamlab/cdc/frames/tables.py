"""The rows of one table as a frame: its columns, what happened, and what a column cannot say.

Three columns hold what a plain column has no room for, so that nothing is lost and nothing stops the stream:

- ``old``: of an UPDATE whose identity changed (or of any, where the whole row is logged), the old values;
- ``unchanged``: names of large values that the log does not repeat, since they did not change: NULL, and not NULL;
- ``unfit``: values that the column's type cannot hold, such as ``infinity``: the column has NULL, and here is the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from streamlab.cdc.event import Operation
from streamlab.cdc.frames.forms import form_of
from streamlab.cdc.frames.singles import Note, one_by_one
from streamlab.cdc.frames.slices import BINARY, TEXT, UNCHANGED, Integers, Slices, Whole, keep, walk
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import MALFORMED, Relation
from streamlab.errors import ProtocolError

__all__ = ["META", "OPERATION", "Column", "Rows", "Table", "meta", "unfit_rows", "valid"]

OPERATION: Final = pl.Enum([each.value for each in Operation])
_OPERATIONS: Final = pl.Series([each.value for each in Operation], dtype=OPERATION)
_CODES: Final = {each: np.uint8(index) for index, each in enumerate(Operation)}

META: Final = ("operation", "position", "ordinal", "ts", "old", "unchanged", "unfit")
"""Columns that a frame has beside those of the table. A column of the table with such a name gets a ``_`` behind it."""

_UNFIT: Final = pl.List(pl.Struct({"column": pl.String, "text": pl.String}))
_EPOCH: Final = 946_684_800_000_000  # microseconds from 1970 to 2000

Column = tuple[npt.NDArray[np.uint8], Integers, Integers]
"""Letters, places, sizes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one batch, as arrays of one length.

    Attributes
    ----------
    kinds : array of uint8
        The message's letter: I, U, D or T; S for a row of a snapshot.
    at, end : array of int64
        Where the letter of the first tuple stands, and where the message ends. Not read for a snapshot.
    position, ordinal, micros : array
        Of the transaction, within it, and its time since the year 2000.
    """

    kinds: npt.NDArray[np.uint8]
    at: Integers
    end: Integers
    position: npt.NDArray[np.uint64]
    ordinal: Integers
    micros: Integers

    def __len__(self) -> int:
        return len(self.at)


def meta(kinds: npt.NDArray[np.uint8], rows: Rows) -> dict[str, pl.Series]:
    """The columns that say what happened, when and where in the log. `kinds` are letters."""
    return {
        "operation": _OPERATIONS.gather(_BY_LETTER[kinds]).rename("operation"),
        "position": pl.Series(rows.position),
        "ordinal": pl.Series(rows.ordinal.astype(np.uint32)),
        "ts": pl.Series(rows.micros + _EPOCH).cast(pl.Datetime("us", "UTC")),
    }


_BY_LETTER: Final = np.zeros(256, np.uint8)
for _letter, _operation in (("I", Operation.INSERT), ("U", Operation.UPDATE), ("D", Operation.DELETE),
                            ("T", Operation.TRUNCATE), ("M", Operation.MESSAGE),
                            ("S", Operation.SNAPSHOT)):  # fmt: skip
    _BY_LETTER[ord(_letter)] = _CODES[_operation]

_I, _U, _D, _T, _N, _K, _O = (ord(letter) for letter in "IUDTNKO")


class Table:
    """Makes frames of one table, as it was described by one Relation message; `key` is `Frame.primary_key`."""

    def __init__(self, relation: Relation, types: TypeMap, key: tuple[str, ...]) -> None:
        self.relation, self.key = relation, key
        self.names = _names(relation)
        self._forms = [form_of(types, column.type_oid, column.modifier) for column in relation.columns]
        self._codecs = [types.codec(column.type_oid) for column in relation.columns]
        whole = relation.identity == "f"
        self._old = [index for index, column in enumerate(relation.columns) if whole or column.key]
        self._old_type = pl.Struct({self.names[index]: self._forms[index].dtype for index in self._old})

    def outdated(self, types: TypeMap) -> bool:
        """Whether one of its types has another definition now."""
        return self._codecs != [types.codec(column.type_oid) for column in self.relation.columns]

    def anew(self, types: TypeMap) -> Table:
        """The same table, with its types as they are now."""
        return Table(self.relation, types, self.key)

    def frame(self, whole: Whole, rows: Rows, columns: list[Column] | None = None) -> pl.DataFrame:
        """Rows as a frame.

        Parameters
        ----------
        whole : Whole
            The bytes in which they stand.
        rows : Rows
            What the messages say of them.
        columns : list of Column, optional
            Where the values stand. By default that is looked for, in tuples of pgoutput.

        Raises
        ------
        ProtocolError
            The bytes are no such rows.
        """
        try:
            return self._frame(whole, rows, *(self._columns(whole, rows) if columns is None else (columns, None)))
        except MALFORMED as error:
            raise ProtocolError(
                f"Rows of {self.relation.schema}.{self.relation.name} cannot be read: {error}.",
                "Reconnect, to have them sent again. Is the slot's plug-in pgoutput, and does a program change them?",
            ) from error

    def _frame(
        self, whole: Whole, rows: Rows, columns: list[Column], old: tuple[Integers, list[Column]] | None
    ) -> pl.DataFrame:
        count = len(rows)
        notes: list[Note] = []
        made = meta(rows.kinds, rows)
        masks = {}
        for index, (name, column) in enumerate(zip(self.names, columns, strict=True)):
            made[name] = self._series(index, whole, column, name, notes)
            if (mask := column[0] == UNCHANGED).any():
                masks[name] = mask
        if self._old:
            made["old"] = self._old_values(whole, count, old, notes)
        made["unchanged"] = _unchanged(count, masks)
        made["unfit"] = unfit_rows(count, notes)
        return pl.DataFrame(made)

    # -- where the values stand -------------------------------------------------------------------

    def _columns(self, whole: Whole, rows: Rows) -> tuple[list[Column], tuple[Integers, list[Column]] | None]:
        """The columns of the row as it is (as it was, for a DELETE); and the old ones, with the rows that have them."""
        kinds = rows.kinds
        truncated = kinds == _T
        if truncated.any():
            return self._beside_truncated(whole, rows, ~truncated)
        self._head(whole, rows.at)
        letters, at = whole.bytes[rows.at], rows.at + 3
        self._check_letters(kinds, letters)
        updated = np.flatnonzero((kinds == _U) & (letters != _N))
        old = None
        if len(updated):
            found, behind = walk(whole, at[updated], len(self._forms))
            self._head(whole, behind)
            if (whole.bytes[behind] != _N).any():
                raise ValueError("the new row is not where it should be")
            at[updated] = behind + 3
            old = (updated, found)
        columns, behind = walk(whole, at, len(self._forms))
        if (behind != rows.end).any():
            raise ValueError("a row is longer or shorter than its message")
        if old is not None:
            _merge(columns, *old, letters[updated] == _O)
        return columns, old

    def _head(self, whole: Whole, at: Integers) -> None:
        """Before each tuple: a letter, and the number of columns."""
        if (whole.read(at + 1, "u2") != len(self._forms)).any():
            raise ValueError(f"its table has {len(self._forms)} columns")

    @staticmethod
    def _check_letters(kinds: npt.NDArray[np.uint8], letters: npt.NDArray[np.uint8]) -> None:
        key = (letters == _K) | (letters == _O)
        new = letters == _N
        if not np.where(kinds == _I, new, np.where(kinds == _D, key, key | new)).all():
            raise ValueError("no row can begin like this")

    def _beside_truncated(
        self, whole: Whole, rows: Rows, kept: npt.NDArray[np.bool_]
    ) -> tuple[list[Column], tuple[Integers, list[Column]] | None]:
        """A TRUNCATE has no row: NULL everywhere."""
        places = np.flatnonzero(kept)
        some = Rows(*(getattr(rows, name)[places] for name in Rows.__slots__))
        columns, old = self._columns(whole, some)
        if old is not None:
            old = (places[old[0]], old[1])
        spread = []
        for letters, at, size in columns:
            all_letters = np.full(len(rows), ord("n"), np.uint8)
            all_at, all_size = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
            all_letters[places], all_at[places], all_size[places] = letters, at, size
            spread.append((all_letters, all_at, all_size))
        return spread, old

    # -- what they are ----------------------------------------------------------------------------

    def _series(self, index: int, whole: Whole, column: Column, name: str, notes: list[Note]) -> pl.Series:
        letters, at, size = column
        first = letters[0]
        if first in {TEXT, BINARY} and (letters == first).all():
            slices = Slices(whole, at, size, np.ones(len(at), np.bool_), True)
            return self._read(index, slices, name, notes, binary=first == BINARY)
        text, binary = letters == TEXT, letters == BINARY
        if not binary.any():
            return self._read(index, Slices.of(whole, at, size, text), name, notes, binary=False)
        made = self._read(index, Slices.of(whole, at, size, binary), name, notes, binary=True)
        if text.any():
            other = self._read(index, Slices.of(whole, at, size, text), name, notes, binary=False)
            made = made.zip_with(pl.Series(binary), other)
        return made

    def _read(self, index: int, slices: Slices, name: str, notes: list[Note], *, binary: bool) -> pl.Series:
        form, codec = self._forms[index], self._codecs[index]
        if not slices.there.any():
            return pl.Series([None], dtype=form.dtype).new_from_index(0, len(slices))
        series = None
        if form.element is None and (form.binary is not None or not binary):
            try:
                series = form.binary(slices) if binary and form.binary is not None else form.text(slices.text())
            except pl.exceptions.ComputeError:
                series = None  # text that is no UTF-8
        if series is not None and series.null_count() == (0 if slices.full else int((~slices.there).sum())):
            return series
        return one_by_one(series, slices, form, codec, name, notes, binary=binary)

    def _old_values(
        self, whole: Whole, count: int, old: tuple[Integers, list[Column]] | None, notes: list[Note]
    ) -> pl.Series:
        if old is None:
            return pl.Series([None], dtype=self._old_type).new_from_index(0, count)
        rows, columns = old
        inner: list[Note] = []
        values = {
            self.names[index]: self._series(index, whole, columns[index], f"old.{self.names[index]}", inner)
            for index in self._old
        }
        notes.extend((int(rows[row]), name, text) for row, name, text in inner)
        made = pl.DataFrame(values).to_struct()
        places = np.full(count, -1)
        places[rows] = np.arange(len(rows))
        return made.gather(keep(pl.Series(places), places >= 0))


def _names(relation: Relation) -> tuple[str, ...]:
    """Names of a table's columns in a frame."""
    names = [valid(column.name) for column in relation.columns]
    taken = {*META, *names}
    for index, name in enumerate(names):
        if name in META:
            while name in taken:
                name += "_"
            taken.add(name)
            names[index] = name
    return tuple(names)


def valid(text: str) -> str:
    """A text that Polars can hold: bytes that are no UTF-8 are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _merge(columns: list[Column], rows: Integers, old: list[Column], whole: npt.NDArray[np.bool_]) -> None:
    """A large value that did not change is in the old row, where the whole of that is logged."""
    for (letters, at, size), before in zip(columns, old, strict=True):
        places = np.flatnonzero((letters[rows] == UNCHANGED) & (before[0] != UNCHANGED) & whole)
        if len(places):
            into = rows[places]
            letters[into], at[into], size[into] = (each[places] for each in before)


def _unchanged(count: int, masks: dict[str, npt.NDArray[np.bool_]]) -> pl.Series:
    if not masks:
        return pl.Series([None], dtype=pl.List(pl.String)).new_from_index(0, count)
    names = pl.concat_list(
        [pl.when(pl.lit(pl.Series(mask))).then(pl.lit(name)) for name, mask in masks.items()]
    ).list.drop_nulls()
    some = np.logical_or.reduce(list(masks.values()))
    return pl.select(pl.when(pl.lit(pl.Series(some))).then(names)).to_series()


def unfit_rows(count: int, notes: list[Note]) -> pl.Series:
    """The column ``unfit``."""
    if not notes:
        return pl.Series([None], dtype=_UNFIT).new_from_index(0, count)
    rows: list[list[dict[str, str]] | None] = [None] * count
    for row, name, text in notes:
        listed = rows[row] = rows[row] or []
        listed.append({"column": name, "text": text})
    return pl.Series(rows, dtype=_UNFIT)
