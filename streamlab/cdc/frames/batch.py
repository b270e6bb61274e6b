"""What a reader of frames hands out: whole transactions as one frame for each table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from streamlab.cdc.position import LSN

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Frame", "FrameBatch", "lsn"]


@dataclass(frozen=True, slots=True)
class Frame:
    """Changes of one table, in the order of the log.

    Attributes
    ----------
    schema, table_name : str
        Which table; both empty for logical messages.
    data : polars.DataFrame
        One row a change: ``operation``, ``position``, ``ordinal``, ``ts``, the table's columns, ``old``, ``unchanged``
        and ``unfit``; see docs/frames.md.
    primary_key : tuple of str
        Columns of the replica identity or primary key.
    """

    schema: str
    table_name: str
    data: pl.DataFrame = field(repr=False)
    primary_key: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.data.height

    def to_pandas(self) -> pd.DataFrame:
        """The same for pandas: numbers that may be NULL as its nullable types, times as ``datetime64[us]``."""
        import pandas as pd

        return pd.DataFrame({name: _pandas(self.data[name]) for name in self.data.columns}, copy=False)

    def _repr_html_(self) -> str:
        return self.data._repr_html_()


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Whole transactions, one frame for each table. Two for a table that was altered among them.

    Attributes
    ----------
    frames : tuple of Frame
        In the order in which the tables first appear. Several may hold rows of one transaction: ``(position, ordinal)``
        is the order of all.
    end_position : LSN or KafkaPosition
        What an acknowledgement of the batch says.
    commit_timestamp : datetime
        Of its last transaction.
    transactions : int
        How many ended in it.
    complete : bool
        False for a part of a transaction that is too large for one batch: its rows are committed, and the rest follows.
        `end_position` is then the end of the transaction before, so acknowledging it is safe.
    """

    frames: tuple[Frame, ...]
    end_position: Any
    commit_timestamp: datetime
    transactions: int = 1
    complete: bool = True

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __len__(self) -> int:
        return sum(map(len, self.frames))

    def __bool__(self) -> bool:
        return True

    def of(self, table: str, schema: str = "public") -> pl.DataFrame:
        """All rows of one table; an empty frame where there are none."""
        found = [each.data for each in self.frames if (each.schema, each.table_name) == (schema, table)]
        if len(found) == 1:
            return found[0]
        return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()

    def to_pandas(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Schema and table -> its rows, for pandas."""
        return {
            name: Frame(*name, self.of(name[1], name[0])).to_pandas()
            for name in dict.fromkeys((each.schema, each.table_name) for each in self.frames)
        }


def lsn(column: str = "position") -> pl.Expr:
    """An expression that shows positions as PostgreSQL does: ``0/16B3748``."""

    def shown(values: pl.Series) -> pl.Series:
        return pl.Series([None if each is None else str(LSN(each)) for each in values], dtype=pl.String)

    return pl.col(column).map_batches(shown, return_dtype=pl.String)


def _pandas(series: pl.Series) -> Any:
    import pandas as pd

    dtype = series.dtype
    if dtype.is_integer() or dtype == pl.Boolean:
        if not series.null_count():
            return pd.Series(series.to_numpy())
        name = "boolean" if dtype == pl.Boolean else str(dtype)
        filled = series.fill_null(value=False if dtype == pl.Boolean else 0).to_numpy()
        kind = pd.arrays.BooleanArray if name == "boolean" else pd.arrays.IntegerArray
        return pd.Series(kind(filled.copy(), series.is_null().to_numpy().copy()))
    if dtype.is_float():
        return pd.Series(series.to_numpy())  # NULL is NaN, as pandas has it
    if isinstance(dtype, pl.Datetime):
        made = pd.Series(series.dt.replace_time_zone(None).to_numpy())
        return made if dtype.time_zone is None else made.dt.tz_localize("UTC")
    if isinstance(dtype, pl.Enum):
        codes = series.to_physical().cast(pl.Int16).fill_null(-1).to_numpy()
        return pd.Series(pd.Categorical.from_codes(codes, dtype.categories.to_list()))
    return pd.Series(series.to_list(), dtype=object)
