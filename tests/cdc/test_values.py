"""Parsers of values, without a server: what no built-in type of the test's server shows."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.postgres import types as builtin
from psycopg.types.hstore import HstoreLoader
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from cdc import encoder
from streamlab.cdc import values_binary as binary
from streamlab.cdc import values_text as text
from streamlab.cdc.values import Interval, TypeMap
from streamlab.cdc.wire import MALFORMED

TYPES = TypeMap()


def oid(name: str) -> int:
    return builtin[name].oid


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("18446744073709551616", 2**64),
        ("[18446744073709551616, 0.5]", [2**64, 0.5]),
        ("9007199254740993", 9007199254740993),
        ('"\\ud800"', "\ud800"),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("1e400", float("inf")),
    ],
)
def test_json_is_exact_where_python_is(written: str, value: Any) -> None:
    for name in ("json", "jsonb"):
        assert TYPES.codec(oid(name)).text(written) == value
    assert TYPES.codec(oid("json")).binary(written.encode()) == value
    assert TYPES.codec(oid("jsonb")).binary(b"\1" + written.encode()) == value


def test_json_too_deep_for_python_stays_text() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert TYPES.codec(oid("json")).text(deep) == deep
    assert TYPES.codec(oid("jsonb")).binary(b"\1" + deep.encode()) == deep


def test_text_that_is_no_utf8_keeps_its_bytes() -> None:
    """A database in SQL_ASCII may hold any bytes."""
    value = binary.text(b"caf\xe9")
    assert value.encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("\\x00ff", b"\x00\xff"),
        ("\\x", b""),
        ("", b""),
        ("a\\000b\\\\c\\377", b"a\0b\\c\xff"),
    ],
)
def test_bytea_in_both_of_its_forms(written: str, value: bytes) -> None:
    assert text.bytea(written) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("00:00:00", timedelta()),
        ("1 day", timedelta(days=1)),
        ("-1 days +00:00:01.5", timedelta(days=-1, seconds=1.5)),
        ("-00:00:00.000001", timedelta(microseconds=-1)),
        ("100:00:00", timedelta(hours=100)),
        ("1 mon", Interval(1, 0, 0)),
        ("1 mon 2 days", Interval(1, 2, 0)),
        ("-1 years -1 mons +3 days -04:05:06.7", Interval(-13, 3, -14706700000)),
        ("2 years", Interval(24, 0, 0)),
    ],
)
def test_intervals_keep_their_months(written: str, value: Any) -> None:
    found = text.interval(written)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("written", ["", "1", "1 fortnight", "infinity", "P1D", "1 day 1 mon"])
def test_what_is_no_interval_is_refused_and_stays_text(written: str) -> None:
    with pytest.raises(MALFORMED):
        text.interval(written)
    assert TYPES.codec(oid("interval")).text(written) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("date", "infinity"),
        ("date", "0044-03-15 BC"),
        ("date", "10000-01-01"),
        ("date", "5874897-12-31"),
        ("timestamp", "-infinity"),
        ("timestamp", "0044-03-15 12:00:00 BC"),
        ("timestamp", "10000-01-01 00:00:00"),
        ("timestamptz", "294276-12-31 23:59:59.999999+00"),
        ("timestamptz", "0001-12-31 23:00:00.5+00 BC"),
        ("time", "24:00:00"),
        ("timetz", "24:00:00+15:30:01"),
    ],
)
def test_what_python_has_no_time_for_stays_text(name: str, written: str) -> None:
    codec = TYPES.codec(oid(name))
    assert codec.text(written) == written
    (in_array,) = TYPES.codec(array_oid(name)).text("{" + f'"{written}"' + "}")
    assert in_array == written


def array_oid(name: str) -> int:
    return builtin[name].array_oid


@given(st.integers(-(2**31) + 1, 2**31 - 2))
def test_a_binary_date_is_a_date_or_its_text(days: int) -> None:
    found = binary.date(struct.pack("!i", days))
    try:
        assert found == date(2000, 1, 1) + timedelta(days)
    except OverflowError:
        assert isinstance(found, str)
        assert found.endswith(" BC") == (days < 0)
        year, month, day = map(int, found.removesuffix(" BC").split("-"))
        # The same day of the 400 years' cycle within Python's reach.
        year = 1 - year if days < 0 else year
        cycles = (year - 2000) // 400
        assert date(year - 400 * cycles, month, day) + timedelta(0) == date(2000, 1, 1) + timedelta(
            days - 146_097 * cycles
        )


def seconds(offset: timedelta) -> timezone:
    return timezone(timedelta(seconds=int(offset.total_seconds())))


@given(st.times(timezones=st.timedeltas(timedelta(hours=-15), timedelta(hours=15)).map(seconds)))
def test_times_with_a_zone(value: time) -> None:
    offset = value.utcoffset()
    assert offset is not None
    micros = (datetime.combine(date(2000, 1, 1), value, UTC) - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
    assert binary.timetz(struct.pack("!qi", micros, -int(offset.total_seconds()))) == value
    assert text.time(value.isoformat()) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("{}", []),
        ("{1,NULL,3}", ["1", None, "3"]),
        ('{"NULL","","a\\"b","c\\\\d","e,f","{}"}', ["NULL", "", 'a"b', "c\\d", "e,f", "{}"]),
        ("{{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
        ("[0:1]={1,2}", ["1", "2"]),
        ("[-1:0][2:3]={{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
        ('{"x\ny"}', ["x\ny"]),
    ],
)
def test_arrays(written: str, value: list[Any]) -> None:
    assert text.array(str, ",")(written) == value


@pytest.mark.parametrize("written", ["", "{", "}", "{{1}", "{1}}", "1,2", '{"a}', "[0:1]", '{"a"x"}{', "{}{}"])
def test_what_is_no_array_is_refused(written: str) -> None:
    with pytest.raises(MALFORMED):
        text.array(str, ",")(written)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("(1,x)", (1, "x")),
        ("(,)", (None, None)),
        ('(1,"")', (1, "")),
        ('(1,"a ""b"" \\\\ (c),")', (1, 'a "b" \\ (c),')),
        ('(1,"{""x"",NULL}")', (1, '{"x",NULL}')),
    ],
)
def test_composite_values(written: str, value: tuple[Any, ...]) -> None:
    assert text.composite([int, str], tuple)(written) == value


@pytest.mark.parametrize("written", ["", "(", "()", "(1)", "(1,2,3)", "(1,2", '(1,"x)', "1,2", "(1,2)x", "(1,2)(1,2)"])
def test_what_is_no_composite_value_is_refused(written: str) -> None:
    with pytest.raises(MALFORMED):
        text.composite([int, str], tuple)(written)


def test_composite_values_of_one_field_and_of_none() -> None:
    assert text.composite([int], tuple)("()") == (None,)
    assert text.composite([], tuple)("()") == ()


def test_ranges() -> None:
    parse = text.range_(str)
    assert parse("empty") == Range(empty=True)
    assert parse('["a b","c""d\\\\")') == Range("a b", 'c"d\\', "[)")
    assert parse("(,)") == Range(None, None, "()")
    assert parse('["",x]') == Range("", "x", "[]")
    assert text.multirange(parse)("{}") == Multirange([])
    assert text.multirange(parse)('{[a,b),["c,",)}') == Multirange([Range("a", "b"), Range("c,", None)])
    for broken in ("", "[1", "[1,2", "1,2", "[1,2,3)", '["a,b)'):
        with pytest.raises(MALFORMED):
            parse(broken)
    for broken in ("", "{", "{[1,2)", "{[1,2)x}", "{1}", "[1,2)"):
        with pytest.raises(MALFORMED):
            text.multirange(parse)(broken)


ROWS = [
    # As streamlab/sql/postgres_cdc.sql gives them.
    (50001, "hstore", "h", 0, ",", [], []),
    (50002, "_hstore", "a", 50001, ",", [], []),
    (50003, "mood", "e", 0, ",", [], []),
    (50004, "positive", "d", 23, ",", [], []),
    (50005, "pair", "c", 0, ",", ["n", "class"], [50004, 50003]),
    (50006, "selfish", "c", 0, ",", ["me"], [50006]),
    (50007, "gone", "d", 59999, ",", [], []),
    (23, "int4", "e", 0, ",", [], []),
]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("", {}),
        ('"a"=>"1"', {"a": "1"}),
        ('"a b"=>NULL, "c\\"d"=>"e\\\\, \\"f", ""=>""', {"a b": None, 'c"d': 'e\\, "f', "": ""}),
        ('"a"=>"NULL"', {"a": "NULL"}),
    ],
)
def test_hstores(written: str, value: dict[str, str | None]) -> None:
    assert text.hstore(written) == value
    assert HstoreLoader(0).load(written.encode()) == value


@pytest.mark.parametrize(
    "written", ['"a"', '"a"=>', '"a"=>1', '"a"=>"1', '"a"=>"1", ', '"a"=>"1""b"=>"2"', "a=>1", ", "]
)
def test_what_is_no_hstore_is_refused_and_stays_text(written: str) -> None:
    with pytest.raises(MALFORMED):
        text.hstore(written)
    types = TypeMap()
    types.load(ROWS)
    assert types.codec(50001).text(written) == written


def test_types_of_users_are_built_of_others_in_whatever_order() -> None:
    for rows in (ROWS, ROWS[::-1]):
        types = TypeMap()
        types.load(rows)
        assert types.codec(50001).text('"a"=>"1", "b"=>NULL') == {"a": "1", "b": None}
        assert types.codec(50002).text('{"\\"a\\"=>\\"1\\"",NULL}') == [{"a": "1"}, None]
        assert types.codec(50001).binary(struct.pack("!ii1si1si1si", 2, 1, b"a", 1, b"1", 1, b"b", -1)) == {
            "a": "1",
            "b": None,
        }
        assert types.codec(50003).text("sad") == types.codec(50003).binary(b"sad") == "sad"
        pair = types.codec(50005).text("(5,sad)")
        assert (pair, pair.n, pair._1) == ((5, "sad"), 5, "sad")
        # No such type can be; it must not be gone round in for ever.
        assert types.codec(50006).text("(x)") == ("x",)
        assert types.codec(50007).text("x") == "x"
        # A built-in type is what it is.
        assert types.codec(23).text("5") == 5


def test_unknown_types_are_asked_for_once() -> None:
    asked: list[set[int]] = []

    def resolve(oids: Any) -> list[tuple[Any, ...]]:
        asked.append(set(oids))
        return ROWS[2:4]

    types = TypeMap(resolve)
    for _ in range(2):
        types.learn([23, 50003, 50004, 51000])
    assert asked == [{50003, 50004, 51000}]
    assert (types.codec(50004).text("5"), types.codec(51000).text("5"), types.codec(51000).binary(b"5")) == (
        5,
        "5",
        b"5",
    )


def test_a_type_that_is_loaded_again_is_what_it_is_now() -> None:
    types = TypeMap()
    types.load([(50005, "pair", "c", 0, ",", ["a"], [23]), (50008, "_pair", "a", 50005, ",", [], [])])
    assert types.codec(50008).text('{"(1)"}') == [(1,)]
    types.cache["x"] = 1
    types.load([(50005, "pair", "c", 0, ",", ["a", "b"], [23, 23])])
    assert types.codec(50008).text('{"(1,2)"}') == [(1, 2)]
    assert types.cache == {}


BINARY: list[Callable[[bytes], Any]] = [
    codec.binary for codec in dict.fromkeys(TYPES.codec(number) for number in range(20, 5000))
] + [
    binary.composite([binary.fixed("i"), binary.text], tuple),
    binary.hstore,
]


TEXT: list[Callable[[str], Any]] = [
    codec.text for codec in dict.fromkeys(TYPES.codec(number) for number in range(20, 5000))
] + [text.composite([int, str], tuple), text.hstore]


@given(st.binary(max_size=60) | st.binary(max_size=8).map(lambda data: struct.pack("!i", 2) + data))
def test_binary_parsers_read_a_value_or_refuse(data: bytes) -> None:
    for parse in BINARY:
        try:
            parse(data)
        except MALFORMED:
            continue


@given(st.text(max_size=30) | st.text('{}[](),"\\ 1aN:=->.', max_size=30))
def test_text_parsers_read_a_value_or_refuse(data: str) -> None:
    for parse in TEXT:
        try:
            parse(data)
        except MALFORMED:
            continue


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**40), max_value=10**40))
def test_long_and_short_numerics_agree(value: Decimal) -> None:
    data = encoder.numeric(value)
    head = struct.unpack_from("!HhHH", data)
    assert binary.numeric(data) == binary._long_numeric(data, *head) == value
    assert (
        str(binary.numeric(data))
        == str(binary._long_numeric(data, *head))
        == f"{value:f}".replace("-0.000000", "0.000000")
    )
