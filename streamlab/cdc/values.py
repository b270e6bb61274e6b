"""What PostgreSQL's values become in Python: `TypeMap`, from a type's OID to the parsers of its text and binary form.

The rule is that a value equals what psycopg reads by SELECT; docs/values.md lists the exceptions. A value that Python
cannot hold (``infinity``, years BC or beyond 9999, ``24:00``) stays the text that PostgreSQL writes for it, and never
stops the stream. A value that is not of its type at all (a letter in an integer) is a broken stream.

Text is expected as PostgreSQL writes it with ``DateStyle=ISO``, ``IntervalStyle=postgres`` and
``extra_float_digits`` > 0, in UTF-8. Types that a user made (enums, domains, composites, ranges, and arrays of them)
are registered with `TypeMap.load` from the catalog; until then their values are text.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.postgres import types as builtin
from psycopg.types.multirange import MultirangeInfo
from psycopg.types.range import RangeInfo

from streamlab.cdc import values_binary as binary
from streamlab.cdc import values_text as text
from streamlab.cdc.values_text import Interval
from streamlab.cdc.values_written import Writer, plain
from streamlab.cdc.values_written import array as array_writer
from streamlab.cdc.values_written import composite as composite_writer
from streamlab.cdc.wire import MALFORMED

__all__ = ["Codec", "Interval", "TypeMap"]


@dataclass(frozen=True, slots=True)
class Codec:
    """How the values of one type are read.

    Attributes
    ----------
    text : callable
        From PostgreSQL's text. Raises what `MALFORMED` lists for a text that is no value of the type.
    binary : callable
        From PostgreSQL's binary form; the same.
    text_code : str
        An expression for the generated decoders, on ``{bytes}``, ``{ascii}`` or ``{text}``; the first costs least. It
        may fail for a rare value, which `text` then reads.
    fixed, binary_code : str
        The format of a binary form of fixed size, for `struct`, and an expression on ``{v}``, what that unpacked.
    writer : callable, optional
        From the binary form to the text, where a value does not tell how it is written.
    """

    text: Callable[[str], Any]
    binary: Callable[[bytes], Any]
    text_code: str = ""
    fixed: str = ""
    binary_code: str = ""
    writer: Writer | None = None

    def written(self, data: bytes) -> str:
        """PostgreSQL's text of a value that came in binary form; raises as `binary` does."""
        return (self.writer or plain(self.binary))(data)


def _truth(value: str) -> bool:
    return {"t": True, "f": False}[value]


_TEXT = Codec(str, binary.text, "{text}")
_UNKNOWN = Codec(str, bytes, "{text}")
"""As psycopg reads a type that it does not know: text as str, binary as bytes."""


def _integer(form: str) -> Codec:
    return Codec(int, binary.fixed(form), "int({bytes})", form)


_DATE_TIME = "iso({ascii})"

_BUILTIN: dict[str, Codec] = {
    "bool": Codec(_truth, binary.fixed("?"), "TRUTH[{bytes}]", "?"),
    "int2": _integer("h"),
    "int4": _integer("i"),
    "int8": _integer("q"),
    "oid": _integer("I"),
    "int2vector": Codec(str, binary.vector(binary.fixed("h")), "{ascii}"),
    "oidvector": Codec(str, binary.vector(binary.fixed("I")), "{ascii}"),
    "float4": Codec(float, binary.fixed("f"), "float({bytes})", "f"),
    "float8": Codec(float, binary.fixed("d"), "float({bytes})", "d"),
    "numeric": Codec(Decimal, binary.numeric, "Decimal({ascii})"),
    "date": Codec(text.lenient(date.fromisoformat), binary.date),
    "time": Codec(text.time, binary.time),
    "timetz": Codec(text.time, binary.timetz),
    "timestamp": Codec(
        text.lenient(datetime.fromisoformat), binary.timestamp, _DATE_TIME, "q", "NAIVE + delta(0, 0, {v})"
    ),
    "timestamptz": Codec(
        text.lenient(datetime.fromisoformat), binary.timestamptz, _DATE_TIME, "q", "AWARE + delta(0, 0, {v})"
    ),
    "interval": Codec(text.lenient(text.interval), binary.interval),
    "uuid": Codec(UUID, binary.uuid),
    "bytea": Codec(text.bytea, bytes),
    "bit": Codec(str, binary.bits, "{ascii}"),
    "varbit": Codec(str, binary.bits, "{ascii}"),
    "json": Codec(text.lenient(text.json), binary.json, writer=binary.text),
    "jsonb": Codec(text.lenient(text.json), binary.jsonb, writer=binary.versioned),
    "inet": Codec(text.lenient(text.inet), binary.inet),
    "cidr": Codec(text.lenient(text.cidr), binary.inet),
    "pg_lsn": Codec(str, binary.lsn, "{ascii}"),
    "xid": Codec(str, binary.number("I"), "{ascii}"),
    "xid8": Codec(str, binary.number("Q"), "{ascii}"),
    "cid": Codec(str, binary.number("I"), "{ascii}"),
    '"char"': Codec(str, binary.char, "{ascii}"),
    "jsonpath": Codec(str, binary.versioned, "{text}"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "xml", "unknown", "refcursor", "cstring"), _TEXT),
}


class TypeMap:
    """From type OIDs to codecs. Thread-safe to read; `load` must not run beside another `load`.

    Parameters
    ----------
    resolve : callable, optional
        Called with OIDs that are not known yet, when a table is met that has columns of such types; gives rows for
        `load`, without those that do not exist: their values are text. Here the adapter asks the catalog. It raises
        when it cannot: then nothing is learned. By default nobody is asked, and the values are text.

    Attributes
    ----------
    cache : dict
        What was built on these codecs and holds until the next change of a type: the decoders of rows. Whoever gives
        several readers one map saves them the time to compile.
    version : int
        Grows with each change of a type. What was built on an older one is built again.
    """

    def __init__(self, resolve: Callable[[Iterable[int]], Iterable[tuple[Any, ...]]] | None = None) -> None:
        self.cache: dict[Any, Any] = {}
        self.version = 0
        self._resolve = resolve
        self._codecs: dict[int, Codec] = {}
        self._rows: dict[int, tuple[Any, ...]] = {}
        for info in builtin:
            codec = _BUILTIN.get(info.name, _UNKNOWN)
            self._codecs.setdefault(info.oid, codec)
        # Ranges after all plain types, since they are built of them, and arrays at last.
        for info in builtin:
            if isinstance(info, RangeInfo):
                self._codecs[info.oid] = range_codec(self._codecs[info.subtype_oid])
        for info in builtin:
            if isinstance(info, MultirangeInfo):
                self._codecs[info.oid] = multirange_codec(self._codecs[info.range_oid])
        for info in builtin:
            if info.array_oid:
                self._codecs[info.array_oid] = array_codec(self._codecs[info.oid], info.delimiter)
        self._builtin = frozenset(self._codecs)

    def load(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Register types that users made.

        Parameters
        ----------
        rows : iterable of tuple
            As the block ``types`` of streamlab/sql/postgres_cdc.sql gives them: OID, name, kind (``e`` enum,
            ``d`` domain, ``c`` composite, ``r`` range, ``m`` multirange, ``a`` array, ``h`` hstore), OID of the base,
            element, subtype or range, delimiter of the elements, names and OIDs of the fields.
        """
        new = {row[0]: row for row in rows if row[0] not in self._builtin and self._rows.get(row[0]) != row}
        if not new:
            return
        self._rows |= new
        # What was built on an older definition is built again.
        for oid in self._rows:
            self._codecs.pop(oid, None)
        self.cache.clear()
        self.version += 1

    def knows(self, oid: int) -> bool:
        """Whether the type is built in or was loaded."""
        return oid in self._codecs or oid in self._rows

    @property
    def met(self) -> frozenset[int]:
        """The types that are not built in and were loaded, or asked for in vain."""
        return frozenset(self._codecs.keys() - self._builtin | self._rows.keys())

    def learn(self, oids: Iterable[int], *, anew: bool = False) -> None:
        """Have those that are not known yet resolved; `anew`, those too that may have been altered or made since."""
        wanted = {oid for oid in oids if not self.knows(oid) or (anew and self._alterable(oid))}
        if wanted and self._resolve is not None:
            self.load(self._resolve(wanted))
            # What the catalog does not have (any more) is not asked for again.
            self._codecs.update(dict.fromkeys(wanted - self._rows.keys(), _UNKNOWN))

    def _alterable(self, oid: int) -> bool:
        """Whether it may be another now: it was not there, or there is a composite type in it."""
        if oid in self._builtin:
            return False
        if oid not in self._rows:
            return True
        waiting, seen = [oid], set()
        while waiting:
            row = self._rows.get(waiting.pop())
            if row is None or row[0] in seen:
                continue
            if row[2] == "c":
                return True
            seen.add(row[0])
            waiting.append(row[3])
        return False

    def definition(self, oid: int) -> tuple[Any, ...] | None:
        """What `load` was given for a type; None for one that is built in or not known."""
        return self._rows.get(oid)

    def codec(self, oid: int) -> Codec:
        """The codec of a type; for one that is not known, its text as it is, or its binary form as bytes."""
        found = self._codecs.get(oid)
        if found is None:
            if (row := self._rows.get(oid)) is None:
                return _UNKNOWN
            # A type cannot contain itself; should the catalog say so all the same, this ends it.
            self._codecs[oid] = _UNKNOWN
            self._codecs[oid] = found = self._build(row)
        return found

    def _build(self, row: tuple[Any, ...]) -> Codec:
        oid, name, kind, related, delimiter, fields, field_oids = row
        del oid
        match kind:
            case "e":
                return _TEXT
            case "d":
                return self.codec(related)
            case "c":
                return composite_codec(name, fields, [self.codec(each) for each in field_oids])
            case "r":
                return range_codec(self.codec(related))
            case "m":
                return multirange_codec(self.codec(related))
            case "a":
                return array_codec(self.codec(related), delimiter)
            case "h":
                return Codec(text.lenient(text.hstore), binary.hstore)
            case _:
                return _UNKNOWN


def _safe(codec: Codec) -> Codec:
    """The same, with a value that cannot be read kept as it is: one element must not spoil the others."""

    def read(data: bytes) -> Any:
        try:
            return codec.binary(data)
        except MALFORMED:
            return data

    return replace(codec, text=text.lenient(codec.text), binary=read)


def array_codec(element: Codec, delimiter: str) -> Codec:
    """Arrays as (nested) lists; lower bounds are dropped, as psycopg does."""
    element = _safe(element)
    return Codec(
        text.lenient(text.array(element.text, delimiter)),
        binary.array(element.binary),
        writer=array_writer(element.written, delimiter),
    )


def range_codec(bound: Codec) -> Codec:
    """Ranges as `psycopg.types.range.Range`."""
    bound = _safe(bound)
    return Codec(text.lenient(text.range_(bound.text)), binary.range_(bound.binary))


def multirange_codec(member: Codec) -> Codec:
    """Multiranges as `psycopg.types.multirange.Multirange`; `member` is the codec of the range."""
    return Codec(text.lenient(text.multirange(member.text)), binary.multirange(member.binary))


def composite_codec(name: str, fields: list[str], codecs: list[Codec]) -> Codec:
    """Composite values as named tuples; a field whose name Python cannot have gets its number, as ``_1``."""
    kind: Any = namedtuple(_identifier(name), fields, rename=True)  # type: ignore[misc]  # noqa: PYI024
    make = kind._make
    safe = [_safe(codec) for codec in codecs]
    return Codec(
        text.lenient(text.composite([codec.text for codec in safe], make)),
        binary.composite([codec.binary for codec in safe], make),
        writer=composite_writer([codec.written for codec in safe]),
    )


def _identifier(name: str) -> str:
    return name if name.isidentifier() and not name.startswith("_") else "composite"
