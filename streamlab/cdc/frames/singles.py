"""Values looked at one by one: those that no column could be made of at once, and types that have no form for it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from streamlab.cdc.frames.forms import Form
from streamlab.cdc.frames.slices import Slices
from streamlab.cdc.values import Codec

__all__ = ["Note", "one_by_one"]

Note = tuple[int, str, str]
"""Row, column, and the text of a value that the column cannot hold."""


def one_by_one(
    series: pl.Series | None, slices: Slices, form: Form, codec: Codec, name: str, notes: list[Note], *, binary: bool
) -> pl.Series:
    """A column; what it cannot hold is NULL there, and noted.

    Parameters
    ----------
    series : Series, optional
        The column as it was made, with NULL where that failed. Without one, all values are made here.
    slices : Slices
        The bytes.
    form, codec : Form and Codec
        What a column of the type is, and how one value of it is read.
    name : str
        Of the column, for the notes.
    notes : list of Note
        To be added to.
    binary : bool
        Which of the two forms the bytes are.
    """
    there = slices.there
    wanted = there if series is None else there & series.is_null().to_numpy()
    values: list[Any] = [None] * len(slices)
    for row in np.flatnonzero(wanted).tolist():
        data = slices.value(row)
        values[row], text = _single(data, form, codec, binary=binary)
        if values[row] is None:
            notes.append((row, name, text))
    if series is not None:
        return series
    return pl.Series(values, dtype=form.dtype, strict=False)


def _single(data: bytes, form: Form, codec: Codec, *, binary: bool) -> tuple[Any, str]:
    """A value as the column can hold it, or None; and its text."""
    if not binary:
        text = data.decode("utf-8", "surrogateescape")
        value = text if form.dtype == pl.String else codec.text(text)
    else:
        value = codec.binary(data)
        text = codec.written(data)
        if form.dtype == pl.String:
            value = text
    if form.element is not None:
        kind = form.element
        held = isinstance(value, list) and all(each is None or type(each) is kind for each in value)
    elif isinstance(form.dtype, pl.Decimal):
        held = isinstance(value, Decimal) and value.is_finite()
    else:
        held = isinstance(value, (str, bytes) if form.dtype in {pl.String, pl.Binary} else ())
    if held and form.dtype in {pl.String, pl.List(pl.String)}:
        held = all(each is None or _encodable(each) for each in (value if form.element else [value]))
    return value if held else None, text if _encodable(text) else f"\\x{data.hex()}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
