"""Changes as Polars frames: a batch of whole transactions becomes one `DataFrame` for each table.

No object is made for a value: `slices` walks over the rows of a whole batch with numpy, `forms` reads one column of
them at a time, `tables` puts a frame together, and `decoder` finds the rows of each table in what was received.
Needs the extra ``frames``, and is not imported by `streamlab.cdc`.
"""

from __future__ import annotations

from streamlab.cdc.frames.batch import Frame, FrameBatch, lsn
from streamlab.cdc.frames.decoder import FrameDecoder

__all__ = ["Frame", "FrameBatch", "FrameDecoder", "lsn"]
