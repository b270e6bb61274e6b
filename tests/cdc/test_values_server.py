"""Every built-in type, with awkward values, on a real server: what the stream gives is what psycopg reads by SELECT."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.range import Range

from cdc.server import Server, server
from streamlab.cdc.values import Interval

pytestmark = pytest.mark.integration

# Type -> values as SQL literals; every column also gets a NULL, and an array of all its values and a NULL.
VALUES: dict[str, list[str]] = {
    "bool": ["true", "false"],
    "int2": ["0", "-32768", "32767"],
    "int4": ["0", "-2147483648", "2147483647"],
    "int8": ["0", "-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "int2vector": ["", "1", "0 -32768 32767"],
    "oidvector": ["", "26", "0 4294967295"],
    "float4": ["0", "-0", "1.5", "3.4e38", "1e-40", "NaN", "Infinity", "-Infinity"],
    "float8": ["0", "0.1", "1e308", "5e-324", "NaN", "Infinity", "-Infinity"],
    "numeric": [
        "0", "0.00", "1", "-1", "0.1", "-0.0001", "100000000", "12345678901234567890.123456789", "1e-30", "1e500",
        "9999.9999", "10000.0001", "-10000", "0.00010000", "1e130000", "NaN", "Infinity", "-Infinity",
    ],
    "money": ["0", "-1234.56"],
    "text": ["", "näh €\U0001f600", "NULL", "null", "a,b", 'qu"ote', "back\\slash", "{}", "()", " sp ", "line\n\t"],
    "varchar": ["", "äöü"],
    "bpchar": ["", "ab  "],
    "name": ["n", "näme"],
    '"char"': ["a", "\\377", ""],
    "bytea": ["", "\\x00ff5c", "\\x7f"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "json": [
        "1", "null", '"s"', "[1, 2.5, {}]", '{"a": {"b": null}}', "123456789012345678901234567890", '{"a": 1, "a": 2}',
        "1e400", '"\\u00e9"', "18446744073709551616", "-9223372036854775809", '"\\ud83d\\ude00"', "[" * 60 + "]" * 60,
    ],
    "jsonb": ["1", "null", '{"a": [true]}', "123456789012345678901234567890", "0.1", "[" * 60 + "]" * 60],
    "jsonpath": ["$.a[*] ? (@ > 1)"],
    "date": [
        "2026-02-28", "0001-01-01", "9999-12-31", "0001-12-31 BC", "4713-01-01 BC", "10000-01-01", "5874897-12-31",
        "infinity", "-infinity", "2000-02-29",
    ],
    "time": ["00:00:00", "23:59:59.999999", "24:00:00", "12:00:00.5"],
    "timetz": ["00:00:00+00", "12:34:56.789-03:30", "23:59:59.999999+15:59:59", "24:00:00-07", "24:00+15:30:01"],
    "timestamp": [
        "2026-02-28 01:02:03.000004", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "0044-03-15 12:00:00.5 BC",
        "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC", "infinity", "-infinity",
        "1999-12-31 23:59:59.999999", "2026-01-01 00:00:00.1",
    ],
    "timestamptz": [
        "2026-02-28 01:02:03.000004+05:30", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00",
        "0044-03-15 12:00:00 BC", "10000-01-01 00:00:00.25+00", "infinity", "-infinity", "1970-01-01 00:00:00+00",
    ],
    "interval": [
        "0", "1 day", "-1 day", "1 day -00:00:01", "00:00:00.000001", "-00:00:00.5", "100:00:00", "1 month",
        "1 mon 2 days", "1 year -1 mon", "-13 months 3 days -04:05:06.7", "1 year", "infinity", "-infinity",
        "2147483647 days", "-178000000 years", "2562047788:00:54.775807", "1 mon -00:00:00.000001",
    ],
    "bit": ["0", "1"],
    "varbit": ["", "1", "10101010", "101010101"],
    "inet": ["127.0.0.1", "198.51.100.7/8", "::1", "2001:db8::1/64", "192.0.2.1/0"],
    "cidr": ["198.51.100.0/24", "127.0.0.1/32", "2001:db8::/32", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(1,2.5)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(1,1),(0,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "circle": ["<(0,0),1>"],
    "tsvector": ["'a':1A 'b':2,3", ""],
    "tsquery": ["'a' & !'b'"],
    "pg_lsn": ["0/0", "16/B374D848"],
    "pg_snapshot": ["10:20:10,14"],
    "txid_snapshot": ["10:20:10,14"],
    "tid": ["(1,2)"],
    "xid": ["1", "4294967295"],
    "xid8": ["18446744073709551615"],
    "cid": ["7"],
    "refcursor": ["c"],
    "aclitem": ["postgres=r/postgres"],
    "regclass": ["pg_class"],
    "regcollation": ['"C"'],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regnamespace": ["pg_catalog"],
    "regoper": ["!!"],
    "regoperator": ["+(integer,integer)"],
    "regproc": ["now"],
    "regprocedure": ["abs(integer)"],
    "regrole": ["postgres"],
    "regtype": ["integer"],
    "int4range": ["empty", "[1,10)", "(,)", "[5,)", "(,5)"],
    "int8range": ["[-9223372036854775808,0)"],
    "numrange": ["[0.5,1.50]", "(NaN,)", "(1,2]"],
    "tsrange": ["[2026-01-01 00:00:00,2026-01-02 00:00:00)", "[2026-01-01,infinity)", "(0044-03-15 BC,)"],
    "tstzrange": ["[2026-01-01 00:00:00+00,)", "empty"],
    "daterange": ["[2026-01-01,2026-02-01)", "[-infinity,infinity]"],
    "int4multirange": ["{}", "{[1,3),[5,8)}", "{(,)}"],
    "int8multirange": ["{[1,2)}"],
    "nummultirange": ["{[0.5,1.5],(2,)}"],
    "tsmultirange": ["{[2026-01-01,2026-01-02),[2027-01-01,)}"],
    "tstzmultirange": ["{[2026-01-01 00:00+00,2026-01-02 00:00+00)}"],
    "datemultirange": ["{[2026-01-01,2026-02-01)}"],
    "xml": ["<a>ä</a>"],
}  # fmt: skip

# Types that no column can have, or that hold what only the server makes.
NO_COLUMN = {
    "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list",
    "pg_ndistinct", "pg_node_tree",
}  # fmt: skip

# docs/values.md: in binary these come as bytes, as psycopg gives them.
BYTES_IN_BINARY = {
    "money", "macaddr", "macaddr8", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector", "tsquery",
    "pg_snapshot", "txid_snapshot", "tid", "regclass", "regcollation", "regconfig", "regdictionary",
    "regnamespace", "regoper", "regoperator", "regproc", "regprocedure", "regrole", "regtype",
}  # fmt: skip


@pytest.fixture(scope="module")
def table(stack: object) -> Iterator[Server]:
    yield from server("test_values")


def kinds(database: Server) -> list[str]:
    """The built-in types of this server, in the order of VALUES."""
    rows = database.execute(
        "SELECT CASE typname WHEN 'char' THEN '\"char\"' ELSE typname END FROM pg_type AS type "
        "WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') "
        # Not the arrays of other types. Two that are no such array, int2vector and oidvector, have subscripts too.
        "AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = type.oid)"
    ).fetchall()
    names = {name for (name,) in rows}
    assert names - NO_COLUMN == set(VALUES)
    return [name for name in VALUES if name != "xml" or has_xml(database)]


def has_xml(database: Server) -> bool:
    try:
        database.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def same(ours: Any, theirs: Any) -> bool:
    """Equal, of the same type, and NaN equal to NaN."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and (ours == theirs or repr(ours) == repr(theirs))


@pytest.mark.parametrize("array", [False, True], ids=["values", "arrays"])
def test_every_type_gives_what_psycopg_reads(table: Server, array: bool) -> None:
    """Or, where psycopg raises, PostgreSQL's text; or what docs/values.md says of intervals with months."""
    names = kinds(table)
    if array:
        # The server cannot send it in binary, and ends the stream.
        names.remove("aclitem")
    wide = sql.Identifier(f"wide_{array}")
    columns = [sql.Identifier(f"c{at}") for at in range(len(names))]
    defined = sql.SQL(", ").join(
        sql.SQL("{} {}" + ("[]" if array else "")).format(column, sql.SQL(name))
        for column, name in zip(columns, names, strict=True)
    )
    table.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, {})").format(wide, defined))
    table.forget()
    rows = max(map(len, VALUES.values())) + 1
    for at in range(1 if array else rows):
        cells = [
            sql.SQL("ARRAY[{}, NULL]::{}[]").format(sql.SQL(", ").join(map(sql.Literal, VALUES[name])), sql.SQL(name))
            if array
            else sql.Literal(VALUES[name][at] if at < len(VALUES[name]) else None)
            for name in names
        ]
        table.execute(sql.SQL("INSERT INTO {} VALUES ({}, {})").format(wide, at, sql.SQL(", ").join(cells)))
    texts = [event.new_data for transaction in table.decode() for event in transaction]
    binaries = [event.new_data for transaction in table.decode(binary=True) for event in transaction]
    assert len(texts) == len(binaries) == (1 if array else rows)
    wrong = []
    for at, name in enumerate(names):
        for text, binary in zip(texts, binaries, strict=True):
            ours = text[f"c{at}"]
            if not agrees(table, ours, wide, columns[at], text["id"], name, array=array):
                wrong.append((name, ours, "text"))
            if name == "float4":
                ours = map_floats(ours)
            if name not in BYTES_IN_BINARY and not same(binary[f"c{at}"], ours):
                wrong.append((name, ours, binary[f"c{at}"]))
            if name in BYTES_IN_BINARY and not all(
                each is None or isinstance(each, bytes)
                for each in (binary[f"c{at}"] or [] if array else [binary[f"c{at}"]])
            ):
                wrong.append((name, binary[f"c{at}"], "no bytes"))
    assert not wrong, "\n".join(map(repr, wrong))


def map_floats(value: Any) -> Any:
    """Text is the shortest that says which single it is; binary is that single, as a double."""
    if isinstance(value, list):
        return [map_floats(each) for each in value]
    return value if value is None else struct.unpack("f", struct.pack("f", value))[0]


def agrees(
    table: Server, ours: Any, wide: sql.Identifier, column: sql.Identifier, row: int, name: str, *, array: bool
) -> bool:
    if array:
        # One by one, since psycopg refuses the whole array for one value; the last is the NULL.
        assert isinstance(ours, list)
        assert ours[-1] is None
        return all(
            element_agrees(table, each, sql.SQL("{}[{}]").format(column, at), wide, row, name)
            for at, each in enumerate(ours, start=1)
        )
    return element_agrees(table, ours, column, wide, row, name)


def element_agrees(table: Server, ours: Any, what: sql.Composable, wide: sql.Identifier, row: int, name: str) -> bool:
    def select(expression: str) -> Any:
        query = sql.SQL("SELECT " + expression + " FROM {1} WHERE id = {2}").format(what, wide, row)
        found = table.execute(query).fetchone()
        assert found is not None
        return found[0] if len(found) == 1 else found

    if isinstance(ours, Interval):
        parts = select(
            "extract(year FROM {0}) * 12 + extract(month FROM {0}), extract(day FROM {0}), "
            "extract(hour FROM {0}) * 3600000000 + extract(minute FROM {0}) * 60000000 + extract(microsecond FROM {0})"
        )
        return tuple(map(int, parts)) == tuple(ours)
    if name == "interval" and isinstance(ours, str) and ours.endswith("infinity"):
        # psycopg reads an empty interval.
        return ours == select("{0}::text")
    try:
        return same(ours, select("{0}"))
    except psycopg.DataError:
        # Python cannot hold it: then it is PostgreSQL's own text. A range has such a bound.
        if isinstance(ours, Range):
            bounds = (str(each) for each in (ours.lower, ours.upper) if each is not None)
            return list(bounds) == [each for each in select("lower({0})::text, upper({0})::text") if each is not None]
        return same(ours, select("{0}::text"))
