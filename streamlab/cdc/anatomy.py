"""Which byte of a message is what: the fields of pgoutput's messages as spans. No I/O.

`Anatomist.read` takes messages as `streamlab.cdc.pgoutput.Decoder` does, by the same forms (`streamlab.cdc.messages`),
and gives for each a `Dissection`, whose spans cover every byte exactly once. It is for looking, not for speed. Unlike
the decoder it does not give up at bytes that cannot be read: the spans go as far as they make sense, the rest is one
span that says why.

Some of a message cannot be read from it alone: the names and types of columns come from the Relation message before it,
and whether it begins with a subtransaction, from the Stream Start. So messages are given in the order of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.postgres import types as builtin

from streamlab.cdc.messages import COLUMN, FORMS, HEADER, IDENTITY, LENGTH, OID, ROW, XID, Form, Layout, Meaning, Rest
from streamlab.cdc.rowcode import KINDS
from streamlab.cdc.spans import Fault, Span, Walk, quoted
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import MALFORMED, START, Column, Relation, relation

__all__ = ["Anatomist", "Dissection"]

_ROWS = {"N": "new row", "O": "old row", "K": "old key"}
_ROW_WORDS = {"N": "the new row", "O": "the whole old row", "K": "the old key"}
_CELLS = {"n": "NULL", "u": "unchanged, not sent", "t": "text", "b": "binary"}


@dataclass(frozen=True, slots=True)
class Dissection:
    """One message, taken apart.

    Attributes
    ----------
    message : bytes
        The whole payload of a CopyData message, header included.
    kind : str
        As the manual calls it; ``unknown`` where that cannot be told.
    spans : tuple of Span
        In order; they cover every byte exactly once.
    table : str
        Schema and name of the table that it is about, where it is about one that was described before.
    fault : str
        Why the message, or one of its values, cannot be read; empty where all is well.
    """

    message: bytes
    kind: str
    spans: tuple[Span, ...]
    table: str
    fault: str

    def values(self, group: str = "") -> dict[str, Any]:
        """Names and values of the fields, of one group or of all; of fields with one name, the last."""
        return {span.name: span.value for span in self.spans if span.meaning and group in {"", span.group}}


class Anatomist:
    """Takes the messages of one stream apart. Used by one thread.

    Parameters
    ----------
    types : TypeMap, optional
        What values become; by default the built-in types alone.
    """

    def __init__(self, types: TypeMap | None = None) -> None:
        self._types = types or TypeMap()
        self._relations: dict[int, Relation] = {}
        self._names: dict[int, str] = {}
        self._in_block = False

    def restart(self) -> None:
        """The stream begins anew: no block is open."""
        self._in_block = False

    def read(self, message: bytes | memoryview) -> Dissection:
        """Take one message apart. Never raises, whatever the bytes are.

        Parameters
        ----------
        message : bytes
            The payload of a CopyData message of type XLogData.
        """
        walk = Walk(bytes(message))
        try:
            walk.fixed("XLogData", HEADER)
            if walk.data[:1] != b"w":
                raise Fault(0, "it is not in an XLogData message")
            self._body(walk)
        except Fault as fault:
            walk.broken(fault.at, str(fault))
        return Dissection(walk.data, walk.kind, tuple(walk.spans), walk.table, walk.fault)

    def _body(self, walk: Walk) -> None:
        letter = walk.letter()
        form = FORMS.get(letter)
        if form is None:
            raise Fault(START, f"pgoutput has no message of type {letter!r}")
        walk.kind = form.name
        walk.spans[-1] = walk.spans[-1]._replace(group=form.name, shown=f"{letter!r}: {form.name}")
        if form.change and self._in_block:
            walk.fixed(form.name, XID)
        fields = walk.at
        walk.fixed(form.name, form.fixed)
        for name in form.strings:
            walk.string(form.name, name)
        self._rest(walk, form, letter, fields)
        if form.optional is not None and walk.at < len(walk.data):
            walk.fixed(form.name, form.optional)
        if walk.at < len(walk.data):
            raise Fault(walk.at, "there are bytes behind its last field")
        self._learn(walk, letter, fields)

    def _learn(self, walk: Walk, letter: str, fields: int) -> None:
        if letter in "SE":
            self._in_block = letter == "S"
        elif letter == "R":
            try:
                described = relation(walk.data, fields)
            except MALFORMED as error:
                walk.fault = str(error)
                return
            self._types.learn(column.type_oid for column in described.columns)
            self._relations[described.oid] = described
            walk.table = f"{described.schema}.{described.name}"
        elif letter == "Y":
            schema, name = (span.value for span in walk.spans if span.meaning is Meaning.STRING)
            self._names[walk.value("type", Meaning.OID)] = f"{schema}.{name}"

    def _rest(self, walk: Walk, form: Form, letter: str, fields: int) -> None:
        match form.rest:
            case Rest.COLUMNS:
                walk.fixed(form.name, IDENTITY)
                for number in range(walk.spans[-1].value):
                    self._column(walk, f"column {number + 1}")
            case Rest.TABLES:
                for _ in range(walk.value("tables", Meaning.COUNT)):
                    walk.fixed(form.name, OID)
                    self._name_table(walk)
            case Rest.CONTENT:
                walk.fixed(form.name, LENGTH)
                walk.take(form.name, "content", Meaning.VALUE, walk.spans[-1].value, lambda data: (data, quoted(data)))
            case Rest.ROWS:
                table = self._name_table(walk)
                self._rows(walk, letter, table)

    def _name_table(self, walk: Walk) -> Relation | None:
        span = walk.spans[-1]
        described = self._relations.get(span.value)
        name = "not described before" if described is None else f"{described.schema}.{described.name}"
        walk.spans[-1] = span._replace(shown=f"{span.value}: {name}")
        if described is not None:
            walk.table = f"{walk.table}, {name}" if walk.table else name
        return described

    def _column(self, walk: Walk, group: str) -> None:
        walk.fixed(group, Layout(("flags", Meaning.FLAGS)))
        if walk.spans[-1].value & 1:
            walk.spans[-1] = walk.spans[-1]._replace(shown="1: part of the replica identity")
        walk.string(group, "name")
        walk.fixed(group, COLUMN)
        of_type, modifier = walk.spans[-2:]
        walk.spans[-2] = of_type._replace(shown=f"{of_type.value}: {self._type_name(of_type.value)}")
        if modifier.value == -1:
            walk.spans[-1] = modifier._replace(shown="-1: none")

    def _type_name(self, oid: int) -> str:
        if (name := self._names.get(oid)) is not None:
            return name
        info = builtin.get(oid)
        return "not built in" if info is None else info.name if info.oid == oid else f"{info.name}[]"

    # -- rows -------------------------------------------------------------------------------------

    def _rows(self, walk: Walk, letter: str, table: Relation | None) -> None:
        at = walk.at
        row = walk.letter_at(at)
        if f"{letter}{row}".encode("latin-1") not in KINDS:
            raise Fault(at, f"the rows of {FORMS[letter].name} cannot begin with {row!r}")
        self._row(walk, row, table)
        if letter == "U" and row != "N":
            if (following := walk.letter_at(walk.at)) != "N":
                raise Fault(walk.at, f"the new row cannot begin with {following!r}")
            self._row(walk, "N", table)

    def _row(self, walk: Walk, row: str, table: Relation | None) -> None:
        group = _ROWS[row]
        walk.fixed(group, ROW)
        letter, count = walk.spans[-2:]
        walk.spans[-2] = letter._replace(shown=f"{row!r}: {_ROW_WORDS[row]}")
        columns: list[Column | None] = [None] * count.value
        if table is None:
            walk.fault = walk.fault or "its table was not described before"
        elif len(table.columns) != count.value:
            raise Fault(count.start, f"its table has {len(table.columns)} columns")
        else:
            columns = list(table.columns)
        for number, column in enumerate(columns, 1):
            self._cell(walk, group, f"column {number}" if column is None else column.name, column)

    def _cell(self, walk: Walk, group: str, name: str, column: Column | None) -> None:
        cell = walk.letter_at(walk.at)
        if cell not in _CELLS:
            raise Fault(walk.at, f"a value cannot begin with {cell!r}")
        walk.take(group, name, Meaning.LETTER, 1, lambda _: (cell, f"{cell!r}: {_CELLS[cell]}"))
        if cell in "nu":
            return
        walk.fixed(group, LENGTH, name)
        size = walk.spans[-1].value
        walk.take(group, name, Meaning.VALUE, size, lambda data: self._value(walk, name, column, cell, data))

    def _value(self, walk: Walk, name: str, column: Column | None, cell: str, data: bytes) -> tuple[Any, str]:
        if column is None:
            return data, quoted(data)
        codec = self._types.codec(column.type_oid)
        try:
            value = codec.text(data.decode("utf-8", "surrogateescape")) if cell == "t" else codec.binary(data)
        except MALFORMED:
            walk.fault = walk.fault or f"the value of {name} is no {self._type_name(column.type_oid)}"
            return data, f"no {self._type_name(column.type_oid)}: {quoted(data)}"
        # A datetime's repr says less at a glance than what it prints.
        return value, f"{self._type_name(column.type_oid)} {value if isinstance(value, datetime) else repr(value)}"
