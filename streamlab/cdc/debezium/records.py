"""Records of topics as they were received, in columns: nothing is decoded, and no object of theirs is kept.

Needs the extra ``frames``.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

__all__ = ["Records"]


class Records:
    """Records of one topic, in the order in which they came; none of them a tombstone. Used by one thread."""

    def __init__(self) -> None:
        self._values: list[pl.Series] = []
        self._offsets: list[pl.Series] = []
        self._partitions: list[pl.Series] = []
        self._keys: list[bytes | None] = []
        self._frame: pl.DataFrame | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def add(
        self, values: Sequence[bytes], keys: Sequence[bytes | None], partition: int, offsets: Sequence[int]
    ) -> None:  # fmt: skip
        """Records of one partition.

        Their bytes are put together at once: as objects they would be tens of thousands of pieces of memory, which
        are slower to have than to copy.
        """
        self._frame = None
        self._values.append(pl.Series("value", values, dtype=pl.Binary))
        self._offsets.append(pl.Series("position", offsets, dtype=pl.UInt64))
        self._partitions.append(pl.Series("partition", [partition], dtype=pl.Int32).new_from_index(0, len(offsets)))
        self._keys.extend(keys)

    @property
    def frame(self) -> pl.DataFrame:
        """All of them: ``value``, ``position`` (their offsets) and ``partition``."""
        if self._frame is None:
            columns = (self._values, self._offsets, self._partitions)
            self._frame = pl.DataFrame([pl.concat(each, rechunk=False) for each in columns])
        return self._frame

    @property
    def keys(self) -> Sequence[bytes | None]:
        """The keys of all of them."""
        return self._keys
