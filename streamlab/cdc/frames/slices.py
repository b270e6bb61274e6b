"""Rows of pgoutput taken apart without an object for each value: arrays of places in one run of bytes.

A row is a number of columns, and for each a letter, and with ``t`` (text) or ``b`` (binary) a length and as many bytes.
Where a value stands depends on the lengths before it, so a loop walks over the columns, all rows at a time: numpy reads
the letters of all rows, then their lengths, and goes on to the next column. What comes out are `Slices`, which
`streamlab.cdc.frames.forms` turns into columns.

Places only grow, so a walk that ends where each message ends has stayed within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["NULL", "TEXT", "UNCHANGED", "Integers", "Slices", "Whole", "keep", "walk"]

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Letters = npt.NDArray[np.uint8]

NULL, UNCHANGED, TEXT, BINARY = (ord(letter) for letter in "nutb")

_FIXED: Final = {"u1": np.uint8, "i2": np.int16, "i4": np.int32, "i8": np.int64, "u2": np.uint16, "u4": np.uint32,
                 "u8": np.uint64, "f4": np.float32, "f8": np.float64}  # fmt: skip


class Whole:
    """One run of bytes: the messages of a batch, one behind the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes: Letters = np.frombuffer(data, np.uint8)

    @cached_property
    def series(self) -> pl.Series:
        """The bytes as the only value of a column, of which all text is cut, without a copy."""
        return pl.Series([self.data], dtype=pl.Binary)

    def read(self, at: Integers, form: str) -> npt.NDArray[Any]:
        """The numbers that begin at these places: big-endian, of any alignment.

        Raises
        ------
        IndexError
            One lies beyond the end.
        """
        kind = np.dtype(">" + form)
        places = max(0, len(self.data) - kind.itemsize + 1)
        return np.ndarray((places,), kind, self.data, strides=(1,))[at].astype(_FIXED[form])


@dataclass(frozen=True, slots=True)
class Slices:
    """The bytes of one column: a place and a size for each row; a row that has none has `there` False."""

    whole: Whole
    at: Integers
    size: Integers
    there: Mask
    full: bool
    """Whether every row has a value."""

    @classmethod
    def of(cls, whole: Whole, at: Integers, size: Integers, there: Mask) -> Slices:
        """Of rows some of which may have no value."""
        full = bool(there.all())
        if not full:
            # What is no value of this form must not be read as one.
            at, size = np.where(there, at, 0), np.where(there, size, 0)
        return cls(whole, at, size, there, full)

    def __len__(self) -> int:
        return len(self.at)

    def only(self, there: Mask) -> Slices:
        """The same with fewer values."""
        return Slices.of(self.whole, self.at, self.size, there)

    def shorter(self, head: int) -> Slices:
        """Without the first bytes of each value."""
        if (self.size < head)[self.there].any():
            raise ValueError("a value is too short")
        return Slices.of(self.whole, self.at + head, self.size - head, self.there)

    def width(self, size: int) -> None:
        """Raise ValueError where a value has another size."""
        wrong = self.size != size
        if (wrong if self.full else wrong & self.there).any():
            raise ValueError(f"a value does not have {size} bytes")

    def fixed(self, form: str, offset: int = 0) -> npt.NDArray[Any]:
        """A number that stands at a fixed offset in each value; anything where there is no value."""
        return self.whole.read(self.at + offset, form)

    def binary(self) -> pl.Series:
        """The values as bytes."""
        cut = pl.lit(self.whole.series).bin.slice(pl.lit(pl.Series(self.at)), pl.lit(pl.Series(self.size)))
        return self.masked(pl.select(cut).to_series())

    def text(self) -> pl.Series:
        """The values as text; raises `polars.exceptions.ComputeError` where one is no UTF-8."""
        return self.binary().cast(pl.String)

    def masked(self, series: pl.Series, also: Mask | None = None) -> pl.Series:
        """NULL where there is no value, or where `also` is False."""
        there = self.there if also is None else self.there & also
        return series if there.all() else keep(series, there)

    def value(self, row: int) -> bytes:
        """The bytes of one row."""
        return self.whole.data[self.at[row] : self.at[row] + self.size[row]]


def keep(series: pl.Series, mask: Mask | pl.Series) -> pl.Series:
    """NULL where the mask is False."""
    mask = mask if isinstance(mask, pl.Series) else pl.Series(mask)
    return series.zip_with(mask, pl.Series([None], dtype=series.dtype))


def walk(whole: Whole, at: Integers, columns: int) -> tuple[list[tuple[Letters, Integers, Integers]], Integers]:
    """Walk over one tuple of each row, from its first column on.

    Returns
    -------
    list of (letters, places, sizes)
        For each column; the place and the size of a value, where the letter says that there is one.
    places
        Behind the last column of each row.

    Raises
    ------
    ValueError
        A letter is none of the four.
    IndexError
        A row ends beyond the last of all.
    """
    found = []
    for _ in range(columns):
        letters = whole.bytes[at]
        first = letters[0] if len(letters) else 0
        if first in {TEXT, BINARY} and (letters == first).all():
            size = whole.read(at + 1, "u4").astype(np.int64)
            start = at + 5
            at = start + size
        else:
            there = (letters == TEXT) | (letters == BINARY)
            if not (there | (letters == NULL) | (letters == UNCHANGED)).all():
                raise ValueError("a column begins with a letter that is not known")
            size = np.zeros(len(at), np.int64)
            size[there] = whole.read(at[there] + 1, "u4")
            start = np.where(there, at + 5, 0)
            at = np.where(there, start + size, at + 1)
        found.append((letters, start, size))
    return found, at
