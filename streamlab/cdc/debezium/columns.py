"""What a column of Connect's and Debezium's types becomes in a frame: whole columns at once, no object for a value.

A `Column` has the type under which Polars reads the JSON, and an expression that makes of it what the frame holds; NULL
where the frame's type cannot hold a value. Types without such an expression are made one by one, and are text.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson
import polars as pl

from streamlab.cdc.debezium.rows import MALFORMED
from streamlab.cdc.debezium.schema import Field
from streamlab.cdc.debezium.values import UNAVAILABLE, reader

__all__ = ["Column", "column_of"]

Expression = Callable[[pl.Expr], pl.Expr]

_US: Final = pl.Datetime("us")
_UTC: Final = pl.Datetime("us", "UTC")
_DAYS: Final = (-719_162, 2_932_896)
"""Of the years 1 to 9999, which Python and pandas have too."""
_MICROS: Final = tuple((day + end) * 86_400_000_000 for day, end in zip(_DAYS, (0, 1), strict=True))
_MAX_DIGITS: Final = 38


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is read.

    Attributes
    ----------
    wire : polars data type
        As which JSON is read.
    made : callable
        Of that, the column.
    again : callable, optional
        The same for all of its texts, where `made` reads those alone that are written in the usual way, and faster.
    scalar : bool
        Whether its JSON is a text, a number, true, false or null.
    digits : callable, optional
        The text of a number, where JSON may have one of these in its place.
    """

    wire: Any
    made: Expression
    again: Expression | None = None
    scalar: bool = True
    digits: Callable[[Any], str] | None = None

    @property
    def same(self) -> bool:
        """Whether the frame has what JSON has."""
        return self.made is _same

    def left_out(self, values: pl.Expr) -> pl.Expr | None:
        """Whether a value of `wire` did not change, so that Debezium leaves it out; None where none ever is."""
        wire = self.wire
        if wire == pl.String:
            return values.is_in(_SIGNS).fill_null(value=False)
        if not isinstance(wire, pl.List):
            return None
        if wire.inner == pl.String:
            signs = values.list.eval(pl.element().is_in(_SIGNS).fill_null(value=False))
            return ((values.list.len() > 0) & signs.list.all()).fill_null(value=False)
        if wire.inner in (pl.Int16, pl.Int32, pl.Int64):
            return (values == pl.lit(list(UNAVAILABLE.encode()), dtype=wire)).fill_null(value=False)
        return None

    def plain(self, value: Any) -> Any:
        """One value that was parsed exactly, as `wire` has it.

        Raises
        ------
        ValueError
            It is of another type.
        """
        if value is None or (type(value) is str and self.wire == pl.String):
            return value
        if self.wire == pl.String and self.digits is not None and type(value) in _NUMBERS:
            return self.digits(value)
        if self.wire == pl.String and (not self.scalar or self.same):
            return _json(value)
        return _plain(value, self.wire)


_SIGNS: Final = [UNAVAILABLE, b64encode(UNAVAILABLE.encode()).decode()]
_NUMBERS: Final = frozenset({int, float, Decimal})
_INEXACT: Final = frozenset({"NaN", "Infinity", "-Infinity"})
"""Fractions that JSON has as text."""


def _json(value: Any) -> str:
    return str(value) if type(value) is Decimal else orjson.dumps(value, default=float).decode()


def _plain(value: Any, wire: Any) -> Any:
    if isinstance(wire, pl.List) and type(value) is list:
        return [None if each is None else _plain(each, wire.inner) for each in value]
    kind = type(value)
    if wire.is_float() and (kind in _NUMBERS or (kind is str and value in _INEXACT)):
        return float(value)
    if wire.is_integer() and kind is int:
        low, high = pl.select(low=wire.min(), high=wire.max()).row(0)
        if low <= value <= high:
            return value
    elif (wire == pl.String and kind is str) or (wire == pl.Boolean and kind is bool):
        return value
    raise ValueError(f"JSON has a {kind.__name__} for {wire}")


def _same(values: pl.Expr) -> pl.Expr:
    return values


def _between(values: pl.Expr, low: int, high: int) -> pl.Expr:
    return pl.when((values >= low) & (values < high)).then(values)


def _date(values: pl.Expr) -> pl.Expr:
    return _between(values, _DAYS[0], _DAYS[1] + 1).cast(pl.Int32).cast(pl.Date)


def _moment(unit: int) -> Expression:
    """`unit` in nanoseconds."""
    if unit == 1:
        # What is finer than a microsecond does not fit.
        return lambda values: _between(pl.when(values % 1000 == 0).then(values // 1000), *_MICROS).cast(_US)
    per = unit // 1000
    low, high = _MICROS[0] // per, _MICROS[1] // per
    return lambda values: (_between(values, low, high) * per).cast(_US)


def _time(unit: int, database: str) -> Expression:
    if database == "mysql":
        return lambda values: (values * unit // 1000).cast(pl.Duration("us"))
    day = 86_400_000_000_000 // unit
    return lambda values: (_between(values, 0, day) * unit).cast(pl.Time)


def _text_moment(dtype: Any) -> Column:
    def form(fraction: str) -> Expression:
        def made(values: pl.Expr) -> pl.Expr:
            read = values.str.to_datetime(f"%Y-%m-%dT%H:%M:%S{fraction}Z", time_unit="us", strict=False, exact=True)
            return read.dt.replace_time_zone("UTC") if dtype == _UTC else read

        return made

    # Six digits of a second are the rule, and Polars reads them in a quarter of the time.
    return Column(pl.String, form(".%6f"), form("%.f"))


def _bytes(values: pl.Expr) -> pl.Expr:
    return values.str.decode("base64", strict=True)


def _decimal(precision: int, scale: int) -> Column | None:
    """Digits as bytes: a whole number in two's complement, of which the highest digit says the sign."""
    precision = precision or _MAX_DIGITS
    if not 0 <= scale <= precision <= _MAX_DIGITS:
        return None

    def whole(values: pl.Expr, width: int, dtype: Any) -> pl.Expr:
        digits = _bytes(values).bin.encode("hex")
        negative = digits.str.slice(0, 1).is_in(list("89abcdef"))
        filled = pl.when(negative).then(digits.str.pad_start(width, "f")).otherwise(digits.str.pad_start(width, "0"))
        return filled.str.decode("hex").bin.reinterpret(dtype=dtype, endianness="big")

    def made(values: pl.Expr) -> pl.Expr:
        number = whole(values, 16, pl.Int64) if precision <= 18 else whole(values, 32, pl.Int128)
        number = number.cast(pl.Decimal(_MAX_DIGITS, 0))
        return (number * pl.lit(Decimal(1).scaleb(-scale))).cast(pl.Decimal(precision, scale), strict=False)

    def digits(value: Any) -> str:
        # With ``decimal.format=NUMERIC``.
        sign, figures, exponent = Decimal(value).as_tuple()
        if not isinstance(exponent, int):
            raise ValueError("a decimal has digits")  # noqa: TRY004 - it is NaN
        power, rest = exponent + scale, 0
        number = int("".join(map(str, figures)))
        number, rest = (number * 10**power, 0) if power >= 0 else divmod(number, 10**-power)
        if rest:
            raise ValueError(f"a decimal has {scale} digits behind the point")
        number = -number if sign else number
        return b64encode(number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)).decode()

    return Column(pl.String, made, digits=digits)


_PLAIN: Final[Mapping[Any, Any]] = {
    "boolean": pl.Boolean, "int8": pl.Int8, "int16": pl.Int16, "int32": pl.Int32, "int64": pl.Int64,
    "string": pl.String, "any": pl.String, "float": pl.Float32, "float32": pl.Float32, "double": pl.Float64,
    "float64": pl.Float64,
}  # fmt: skip
_T: Final = "io.debezium.time."
_C: Final = "org.apache.kafka.connect.data."
_NAMED: Final[Mapping[str, Callable[[str], Column]]] = {
    _T + "Date": lambda database: Column(pl.Int64, _date),
    _C + "Date": lambda database: Column(pl.Int64, _date),
    _T + "Timestamp": lambda database: Column(pl.Int64, _moment(1_000_000)),
    _C + "Timestamp": lambda database: Column(pl.Int64, _moment(1_000_000)),
    _T + "MicroTimestamp": lambda database: Column(pl.Int64, _moment(1000)),
    _T + "NanoTimestamp": lambda database: Column(pl.Int64, _moment(1)),
    _T + "Time": lambda database: Column(pl.Int64, _time(1_000_000, database)),
    _C + "Time": lambda database: Column(pl.Int64, _time(1_000_000, database)),
    _T + "MicroTime": lambda database: Column(pl.Int64, _time(1000, database)),
    _T + "NanoTime": lambda database: Column(pl.Int64, _time(1, database)),
    _T + "ZonedTimestamp": lambda database: _text_moment(_UTC),
    _T + "IsoTimestamp": lambda database: _text_moment(_US),
    _T + "IsoDate": lambda database: Column(pl.String, lambda values: values.str.to_date("%Y-%m-%dZ", strict=False)),
    _T + "Year": lambda database: Column(pl.Int32, _same),
    _T + "MicroDuration": lambda database: Column(pl.Int64, lambda values: values.cast(pl.Duration("us"))),
    **{
        f"io.debezium.data.{name}": lambda database: Column(pl.String, _same)
        for name in ("Json", "Xml", "Uuid", "Enum", "EnumSet", "Ltree", "Tsvector")
    },
}


def column_of(field: Field, database: str) -> Column:
    """The column of a field.

    Raises
    ------
    ValueError
        There is no such type.
    """
    name, form = field.get("name") or "", field.get("type")
    parameters = field.get("parameters") or {}
    if name == _C + "Decimal":
        made = _decimal(int(parameters.get("connect.decimal.precision", 0)), int(parameters["scale"]))
        if made is not None:
            return made
    elif name in _NAMED:
        return _NAMED[name](database)
    elif (
        not name and form in _PLAIN and (database, parameters.get("__debezium.source.column.type")) != ("mysql", "BIT")
    ):
        return Column(_PLAIN[form], _same)
    elif not name and form == "bytes":
        return Column(pl.String, _bytes)
    elif not name and form == "array" and not field["items"].get("name") and field["items"].get("type") in _PLAIN:
        return Column(pl.List(_PLAIN[field["items"]["type"]]), _same, scalar=False)
    return _one_by_one(field, database)


def _one_by_one(field: Field, database: str) -> Column:
    """Text of what `reader` makes of the JSON."""
    read = reader(field, database)
    quoted = field.get("type") in {"string", "bytes", ""} or not field.get("type")

    def text(value: str) -> str | None:
        try:
            plain = value if quoted else orjson.loads(value)
            made = plain if read is None else read(plain)
        except MALFORMED:
            return None
        if isinstance(made, bytes):
            return "\\x" + made.hex()
        return made if isinstance(made, str) else orjson.dumps(made, default=str).decode().strip('"')

    return Column(pl.String, lambda values: values.map_elements(text, return_dtype=pl.String), scalar=quoted)
