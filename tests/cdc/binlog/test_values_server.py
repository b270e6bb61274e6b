"""Every type of MySQL: the stream brings what SELECT gives, and what a snapshot brings, of the same type."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from streamlab.cdc import ChangeEvent, Operation

from .conftest import MySQLShop

pytestmark = pytest.mark.integration

# Type of the column -> literals.
TYPES: dict[str, tuple[str, ...]] = {
    "tinyint": ("-128", "0", "127"),
    "tinyint unsigned": ("0", "255"),
    "year": ("1901", "2155", "0"),
    "smallint": ("-32768", "32767"),
    "smallint unsigned": ("65535",),
    "mediumint": ("-8388608", "-1", "8388607"),
    "mediumint unsigned": ("16777215", "65536"),
    "int": ("-2147483648", "2147483647"),
    "int unsigned": ("4294967295",),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "bigint unsigned": ("18446744073709551615",),
    "float": ("1.5", "3.4e38", "-0.1", "0"),
    "double": ("1.7976931348623157e308", "-0.1", "5e-324"),
    "decimal(10,2)": ("12345678.90", "-0.01", "0", "-99999999.99"),
    "decimal(65,30)": ("12345678901234567890123456789012345.123456789012345678901234567891", "-1"),
    "decimal(5,5)": ("0.12345", "-0.00001"),
    "decimal(9,0)": ("999999999", "-1"),
    "decimal(28,8)": ("-12345678901234567890.12345678", "0.00000001"),
    "decimal(3,1)": ("-99.9", "0.1"),
    "bit(1)": ("b'1'", "b'0'"),
    "bit(12)": ("b'101010101010'",),
    "bit(64)": ("18446744073709551615",),
    "date": ("'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-00-00'", "'2024-02-29'"),
    "time": ("'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"),
    "time(1)": ("'-12:34:56.7'", "'00:00:00.1'"),
    "time(3)": ("'-00:00:00.001'", "'12:34:56.789'"),
    "time(6)": ("'-838:59:58.999999'", "'00:00:00.000001'"),
    "datetime": ("'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'"),
    "datetime(2)": ("'2024-02-29 12:34:56.78'", "'0000-00-00 00:00:00'"),
    "datetime(4)": ("'2024-02-29 12:34:56.7891'",),
    "datetime(6)": ("'9999-12-31 23:59:59.999999'", "'2024-00-01 01:02:03.000004'"),
    "timestamp": ("'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00 00:00:00'"),
    "timestamp(3)": ("'2024-02-29 12:34:56.789'", "'0000-00-00 00:00:00'"),
    "timestamp(6)": ("'2038-01-19 03:14:07.499999'",),
    "char(10)": ("'a b  '", "''", "'äöü€😀'"),
    "char(255) character set latin1": ("'äöü€'", "x'8182'"),
    "char(255)": ("repeat('€', 255)",),
    "varchar(10)": ("'trailing  '", "''", "'😀'"),
    "varchar(63)": ("repeat('€', 63)",),
    "varchar(300)": ("repeat('€', 300)", "'x'"),
    "varchar(20) character set utf16": ("'äö€😀'",),
    "varchar(20) character set ucs2": ("'äö€'",),
    "varchar(20) character set utf32": ("'äö€😀'",),
    "varchar(20) character set gbk": ("'中文'",),
    "varchar(20) character set sjis": ("'日本'",),
    "varchar(20) character set euckr": ("'한국'",),
    "varchar(20) character set big5": ("'中文'",),
    "varchar(20) character set koi8r": ("'привет'",),
    "varchar(20) character set cp1251": ("'привет'",),
    "varchar(20) character set latin2": ("'łódź'",),
    "varchar(20) character set greek": ("'αβγ'",),
    "varchar(20) character set hebrew": ("'שלום'",),
    "varchar(20) character set tis620": ("'ไทย'",),
    "varchar(20) character set gb18030": ("'中😀'",),
    "varchar(20) character set ascii": ("'plain'",),
    "tinytext": ("'tiny'",),
    "text": ("repeat('x', 60000)", "''"),
    "mediumtext": ("'medium ü'",),
    "longtext": ("'long'",),
    "text character set latin1": ("'Ä'",),
    "binary(5)": ("'ab'", "x'0001020304'", "x'0000000000'"),
    "varbinary(300)": ("x'00ff'", "x'0000'", "''"),
    "tinyblob": ("x'ff00'",),
    "blob": ("repeat(x'00', 300)",),
    "mediumblob": ("''",),
    "longblob": ("x'80'",),
    "enum('a','ö','')": ("'a'", "'ö'", "''"),
    "enum('ä','b') character set latin1": ("'ä'",),
    f"enum({','.join(repr(f'v{n}') for n in range(300))})": ("'v0'", "'v299'"),
    "set('x','ü','z')": ("'x,z'", "''", "'ü'"),
    f"set({','.join(repr(f's{n}') for n in range(64))})": ("'s0,s63'",),
    "point": ("st_geomfromtext('POINT(1 2)')",),
    "geometry": ("st_geomfromtext('LINESTRING(0 0, 1 1, 2 3)', 4326)",),
    "vector(3)": ("string_to_vector('[1,2.5,-3]')",),
    "json": (
        '\'{"a": [1, -1, 65536, 4294967296, 18446744073709551615, 1.5, 1e300, null, true, false], "ü": {"": "😀"}}\'',
        "'[]'",
        "'{}'",
        "'\"text\"'",
        "'null'",
        "'-5'",
        (
            "json_array(1.50, cast('2024-02-29' as date), cast('-12:34:56.5' as time(1)), "
            "cast('2024-02-29 01:02:03.000004' as datetime(6)), x'00ff')"
        ),
        "json_array(repeat('x', 200), repeat('y', 70000), json_object(repeat('k', 300), 1))",
    ),
}


def columns() -> list[str]:
    return [f"c{number}" for number in range(len(TYPES))]


def fill(shop: MySQLShop) -> int:
    """A table with a column of every type, NULL in one row, and each literal in another; the number of rows."""
    shop.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
    defined = ", ".join(f"{name} {kind}{' NULL' if kind.startswith('timestamp') else ''}"
                        for name, kind in zip(columns(), TYPES, strict=True))  # fmt: skip
    shop.execute(f"CREATE TABLE kinds (id int PRIMARY KEY, {defined})")
    shop.execute("INSERT INTO kinds (id) VALUES (0)")
    rows = max(map(len, TYPES.values()))
    for row in range(rows):
        values = ", ".join(literals[min(row, len(literals) - 1)] for literals in TYPES.values())
        shop.execute(f"INSERT INTO kinds VALUES ({row + 1}, {values})")
    return rows + 1


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def changes(shop: MySQLShop, cdc: Any, count: int) -> list[ChangeEvent]:
    return [event for transaction in cdc.transactions(until=count) for event in transaction]


def test_every_type_equals_what_select_gives(shop: MySQLShop) -> None:
    with shop.reader(tables=[f"{shop.database}.*"], checkpoint=None, resume_after=here(shop)) as cdc:
        count = fill(shop)
        events = changes(shop, cdc, count)
    names = columns()
    selected = [
        f"{name} + 0e0" if kind == "float" else f"unhex(hex({name}))" if kind.startswith("vector") else name
        for name, kind in zip(names, TYPES, strict=True)
    ]
    rows = shop.execute(f"SELECT id, {', '.join(selected)} FROM kinds ORDER BY id")
    assert [event.new_data["id"] for event in events] == [row[0] for row in rows] == list(range(count))
    wrong = []
    for event, row in zip(events, rows, strict=True):
        for name, kind, value in zip(names, TYPES, row[1:], strict=True):
            expected = value
            if kind.startswith("timestamp") and isinstance(value, datetime):
                expected = value.replace(tzinfo=UTC)
            if kind == "json" and value is not None:
                expected = json.loads(value)
            if not same(event.new_data[name], expected):
                wrong.append((kind, event.new_data[name], expected))
    assert wrong == []


def test_a_snapshot_brings_the_same_values_as_the_stream(shop: MySQLShop) -> None:
    with shop.reader(tables=[f"{shop.database}.*"], checkpoint=None, resume_after=here(shop)) as cdc:
        count = fill(shop)
        streamed = {event.new_data["id"]: event for event in changes(shop, cdc, count)}
    with shop.session(tables=[f"{shop.database}.kinds"], snapshot="only") as session:
        copied = [event for transaction in session.transactions() for event in transaction]
    assert len(copied) == count
    for event in copied:
        assert event.operation is Operation.SNAPSHOT
        assert event.primary_key == ("id",)
        wrong = {
            name: (value, streamed[event.new_data["id"]].new_data[name])
            for name, value in event.new_data.items()
            if not same(value, streamed[event.new_data["id"]].new_data[name])
        }
        assert wrong == {}


def test_updates_and_deletes_bring_the_whole_old_row(shop: MySQLShop) -> None:
    with shop.reader(tables=[f"{shop.database}.*"], checkpoint=None, resume_after=here(shop)) as cdc:
        count = fill(shop)
        shop.execute("UPDATE kinds SET c0 = 1")
        shop.execute("DELETE FROM kinds")
        *inserted, updated, deleted = cdc.transactions(until=count + 2)
    before = {event.new_data["id"]: event.new_data for transaction in inserted for event in transaction}
    assert len(updated) == len(deleted) == count
    for event in updated:
        assert event.operation is Operation.UPDATE
        assert dict(event.old_data) == dict(before[event.new_data["id"]])
        assert dict(event.new_data) == {**event.old_data, "c0": 1}
    assert [event.ordinal for event in updated] == list(range(count))
    for event in deleted:
        assert event.operation is Operation.DELETE
        assert dict(event.old_data) == {**before[event.old_data["id"]], "c0": 1}
        assert event.new_data == {}


def here(shop: MySQLShop) -> str:
    file, offset, *_, gtids = shop.execute("SHOW BINARY LOG STATUS")[0]
    return f"{file}:{offset} {gtids}"
