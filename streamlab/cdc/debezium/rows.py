"""Rows of one schema: the common road as generated code, and a careful one.

A row of JSON is a dict already; only values that mean more than JSON says are replaced in it. For each schema a
function is written and compiled that does this and nothing else. Whatever it trips over is read again by
`Rows.careful`, which names the column, knows values that did not change, and has numbers without loss.

Names of columns enter the code only as `repr` of a string, which is always one literal.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from streamlab.cdc.debezium.schema import Field, Reader
from streamlab.cdc.debezium.values import UNAVAILABLE, reader
from streamlab.cdc.event import UNCHANGED

__all__ = ["MALFORMED", "Rows", "compiled", "exactly", "placeholders"]

MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)

_TEXT: Final = UNAVAILABLE.encode()
_BASE64: Final = b64encode(_TEXT).decode()
_NUMBERS: Final = list(_TEXT)


def exactly(data: bytes) -> Any:
    """JSON with fractions as Decimal: no digit is lost."""
    return json.loads(data, parse_float=Decimal)


def placeholders(fields: Iterable[Field]) -> tuple[bytes, ...]:
    """What has to stand in a record's bytes for a value of it to be left out."""
    wanted = [_TEXT]
    forms = [(field.get("type"), (field.get("items") or {}).get("type")) for field in fields]
    if any("bytes" in form for form in forms):
        wanted.append(_BASE64.encode())
    if any(form in {("array", each) for each in ("int16", "int32", "int64")} for form in forms):
        wanted.append(",".join(map(str, _NUMBERS)).encode())
    return tuple(wanted)


def _left_out(value: Any) -> bool:
    """Whether Debezium says that a value did not change, in the way that it has for the value's type."""
    if isinstance(value, str):
        return value in {UNAVAILABLE, _BASE64}
    if isinstance(value, list):
        return value == _NUMBERS or (bool(value) and all(_left_out(each) for each in value))
    return isinstance(value, dict) and value == {UNAVAILABLE: UNAVAILABLE}


class Rows:
    """The rows of one schema.

    Parameters
    ----------
    fields : sequence of Field
        Its columns.
    database : str
        As for `reader`.

    Raises
    ------
    ValueError
        A column has a type that does not exist.

    Attributes
    ----------
    convert : callable
        Replaces, in a row as JSON has it, all values that need it.
    """

    def __init__(self, fields: Sequence[Field], database: str) -> None:
        readers: dict[str, Reader | None] = {}
        for field in fields:
            try:
                readers[field["field"]] = reader(field, database)
            except MALFORMED as error:
                raise ValueError(f"the column {field.get('field')}: {_said(error)}") from error
        self.names = tuple(readers)
        self._readers = {name: read for name, read in readers.items() if read is not None}
        self.convert = compiled(self._readers)

    def careful(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for a row that `exactly` has read.

        Raises
        ------
        ValueError
            A value is not of its type; the message names the column.
        """
        made: dict[str, Any] = {}
        for name, value in row.items():
            read = self._readers.get(name)
            if value is None:
                made[name] = None
            elif _left_out(value):
                made[name] = UNCHANGED
            elif read is None:
                made[name] = float(value) if isinstance(value, Decimal) else value
            else:
                try:
                    made[name] = read(value)
                except MALFORMED as error:
                    raise ValueError(f"the column {name}: {_said(error)}") from error
        if made.keys() < set(self.names):
            raise ValueError(f"columns are missing: {', '.join(sorted(set(self.names) - made.keys()))}")
        return made


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def compiled(
    readers: Mapping[str, Reader | None],
    only: Collection[str] | None = None,
    types: Mapping[str, tuple[type, ...]] | None = None,
) -> Callable[[dict[str, Any]], None]:
    """A function that replaces the values of these columns.

    It raises for a row with others than `only`, and for a value that is of none of the `types` of its column.
    """
    lines = ["def convert(row):"]
    names: dict[str, Any] = {"ONLY": None if only is None else frozenset(only)}
    if only is not None:
        met = {name for name, read in readers.items() if read is not None or name in (types or {})}
        # Where each of them is looked up, as many are the same ones: that is counted in a fifth of the time.
        counted = f"len(row) != {len(names['ONLY'])}" if met >= names["ONLY"] else "not row.keys() <= ONLY"
        lines.append(f" if {counted}: raise KeyError")
    for index, (name, read) in enumerate(readers.items()):
        wanted = (types or {}).get(name)
        if read is None and wanted is None:
            continue
        lines += [f" v = row[{name!r}]", " if v is not None:"]
        if wanted is not None:
            names[f"types{index}"] = wanted[0] if len(wanted) == 1 else wanted
            lines.append(f"  if type(v) {'is not' if len(wanted) == 1 else 'not in'} types{index}: raise TypeError")
        if read is not None:
            names[f"read{index}"] = read
            lines.append(f"  row[{name!r}] = read{index}(v)")
    lines.append(" return None")
    exec(compile("\n".join(lines), "<rows of a topic>", "exec"), names)  # noqa: S102 - see above
    made: Callable[[dict[str, Any]], None] = names["convert"]
    return made
