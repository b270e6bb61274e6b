"""The forms of pgoutput's messages, as data: which fields each kind has, in order, and what a field's bytes mean.

`streamlab.cdc.wire` reads by these forms, and `streamlab.cdc.anatomy` says by them which byte is what; so there is one
description of the bytes. Rows are not here: their form depends on the table (see `streamlab.cdc.rowcode`).

Source: the PostgreSQL manual, "Logical Replication Message Formats"; `src/backend/replication/logical/proto.c`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "COLUMN",
    "FORMS",
    "HEADER",
    "IDENTITY",
    "LENGTH",
    "OID",
    "PARALLEL_ABORT",
    "ROW",
    "XID",
    "Field",
    "Form",
    "Layout",
    "Meaning",
    "Rest",
]


class Meaning(StrEnum):
    """What the bytes of a field are. Numbers are big-endian; strings end with a zero byte."""

    LETTER = "letter"
    LSN = "LSN"
    TIME = "time"  # microseconds from the year 2000
    XID = "transaction id"
    OID = "OID"
    FLAGS = "flags"
    FLAG = "flag"
    COUNT = "count"
    SHORT_COUNT = "short count"
    LENGTH = "length"
    MODIFIER = "modifier"
    STRING = "string"
    VALUE = "value"


_CODES = {
    Meaning.LETTER: "c", Meaning.LSN: "Q", Meaning.TIME: "q", Meaning.XID: "I", Meaning.OID: "I", Meaning.FLAGS: "B",
    Meaning.FLAG: "B", Meaning.COUNT: "I", Meaning.SHORT_COUNT: "H", Meaning.LENGTH: "I", Meaning.MODIFIER: "i",
}  # fmt: skip


class Field(NamedTuple):
    """A field of fixed size."""

    name: str
    meaning: Meaning


class Layout:
    """Fields of fixed size, one behind the other. Immutable.

    `struct` reads them all; `parts` has each with what reads it alone.

    Parameters
    ----------
    *fields : tuple of str and Meaning
        Name and meaning of each.
    """

    __slots__ = ("fields", "parts", "struct")

    def __init__(self, *fields: tuple[str, Meaning]) -> None:
        self.fields = tuple(Field(*each) for each in fields)
        self.struct = struct.Struct("!" + "".join(_CODES[meaning] for _, meaning in fields))
        self.parts = tuple((field, struct.Struct("!" + _CODES[field.meaning])) for field in self.fields)

    def __len__(self) -> int:
        return self.struct.size


class Rest(StrEnum):
    """What follows the fixed fields and the strings of a message, where its length is not fixed."""

    NONE = ""
    COLUMNS = "columns"
    ROWS = "rows"
    TABLES = "tables"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of message.

    Attributes
    ----------
    name : str
        As the manual calls it.
    since : int
        The first protocol version that has it.
    fixed : Layout
        The fields behind the letter.
    strings : tuple of str
        Names of the strings behind those.
    rest : Rest
        What follows.
    change : bool
        Whether it names its (sub)transaction first, when it stands within a block of a transaction in progress.
    optional : Layout or None
        More fields, which are all there or all absent.
    """

    name: str
    since: int
    fixed: Layout
    strings: tuple[str, ...] = ()
    rest: Rest = Rest.NONE
    change: bool = False
    optional: Layout | None = None


HEADER = Layout(
    ("CopyData holds", Meaning.LETTER),
    ("start in the log", Meaning.LSN),
    ("end of the log", Meaning.LSN),
    ("sent", Meaning.TIME),
)
"""XLogData, around each message of the plug-in."""

XID = Layout(("subtransaction", Meaning.XID))
OID = Layout(("table", Meaning.OID))
LENGTH = Layout(("length", Meaning.LENGTH))
IDENTITY = Layout(("replica identity", Meaning.LETTER), ("columns", Meaning.SHORT_COUNT))
ROW = Layout(("row", Meaning.LETTER), ("columns", Meaning.SHORT_COUNT))
"""In front of the values of a row."""
COLUMN = Layout(("type", Meaning.OID), ("type modifier", Meaning.MODIFIER))
"""Behind the flags and the name of a column."""

_EMPTY = Layout()
_ABORT = Layout(("transaction", Meaning.XID), ("subtransaction", Meaning.XID))
_ABORTED_AT = (("abort record", Meaning.LSN), ("aborted", Meaning.TIME))
PARALLEL_ABORT = Layout(*_ABORT.fields, *_ABORTED_AT)
"""Stream Abort, with ``streaming=parallel``."""

_ENDED = Layout(
    ("flags", Meaning.FLAGS), ("commit record", Meaning.LSN), ("end of transaction", Meaning.LSN),
    ("committed", Meaning.TIME),
)  # fmt: skip
_TWO_PHASE = (("flags", Meaning.FLAGS), ("prepare record", Meaning.LSN), ("end of prepare", Meaning.LSN),
              ("prepared", Meaning.TIME), ("transaction", Meaning.XID))  # fmt: skip
_PREPARED = Layout(*_TWO_PHASE)

FORMS: dict[str, Form] = {
    "B": Form("Begin", 1, Layout(
        ("commit record", Meaning.LSN), ("committed", Meaning.TIME), ("transaction", Meaning.XID))),
    "C": Form("Commit", 1, _ENDED),
    "O": Form("Origin", 1, Layout(("commit at the origin", Meaning.LSN)), ("origin",)),
    "R": Form("Relation", 1, OID, ("schema", "name"), Rest.COLUMNS, change=True),
    "Y": Form("Type", 1, Layout(("type", Meaning.OID)), ("schema", "name"), change=True),
    "I": Form("Insert", 1, OID, rest=Rest.ROWS, change=True),
    "U": Form("Update", 1, OID, rest=Rest.ROWS, change=True),
    "D": Form("Delete", 1, OID, rest=Rest.ROWS, change=True),
    "T": Form("Truncate", 1, Layout(("tables", Meaning.COUNT), ("options", Meaning.FLAGS)), rest=Rest.TABLES,
              change=True),
    "M": Form("Message", 1, Layout(("transactional", Meaning.FLAG), ("position", Meaning.LSN)), ("prefix",),
              Rest.CONTENT, change=True),
    "S": Form("Stream Start", 2, Layout(("transaction", Meaning.XID), ("first block", Meaning.FLAG))),
    "E": Form("Stream Stop", 2, _EMPTY),
    "c": Form("Stream Commit", 2, Layout(("transaction", Meaning.XID), *_ENDED.fields)),
    "A": Form("Stream Abort", 2, _ABORT, optional=Layout(*_ABORTED_AT)),
    "b": Form("Begin Prepare", 3, Layout(*_TWO_PHASE[1:]), ("gid",)),
    "P": Form("Prepare", 3, _PREPARED, ("gid",)),
    "K": Form("Commit Prepared", 3, Layout(
        ("flags", Meaning.FLAGS), ("commit record", Meaning.LSN), ("end of commit", Meaning.LSN),
        ("committed", Meaning.TIME), ("transaction", Meaning.XID)), ("gid",)),
    "r": Form("Rollback Prepared", 3, Layout(
        ("flags", Meaning.FLAGS), ("end of prepare", Meaning.LSN), ("end of rollback", Meaning.LSN),
        ("prepared", Meaning.TIME), ("rolled back", Meaning.TIME), ("transaction", Meaning.XID)), ("gid",)),
    "p": Form("Stream Prepare", 3, _PREPARED, ("gid",)),
}  # fmt: skip
"""Letter -> form."""
