"""Values as JSON: exact, or text; the same whichever of the two writers wrote them."""

from __future__ import annotations

import base64
import ipaddress
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from streamlab.cdc.event import UNCHANGED
from streamlab.cdc.values import Interval
from streamlab.connect.source.encoding import _exactly, encode, encode_row, plain
from streamlab.errors import SettingsError


class Point(NamedTuple):
    x: int
    label: Decimal


VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (2**63 - 1, 2**63 - 1),
    (2**64 - 1, 2**64 - 1),
    (10**30, 10**30),
    (-(10**30), -(10**30)),
    ('text " \\ \n \x01 ü \U0001f600', 'text " \\ \n \x01 ü \U0001f600'),
    ("\udcff", "\udcff"),
    ("unchanged", "unchanged"),
    (1.5, 1.5),
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    ([1.0, float("nan"), None], [1.0, "NaN", None]),
    ({"a": [float("inf")]}, {"a": ["Infinity"]}),
    (Decimal("1.50"), "1.50"),
    (Decimal("0.0000001"), "0.0000001"),
    (Decimal("1E+3"), "1000"),
    (Decimal("NaN"), "NaN"),
    (datetime(2026, 11, 24, 18, 0, 0, 250000, tzinfo=UTC), "2026-11-24T18:00:00.250000+00:00"),
    (datetime(2026, 11, 24, 18), "2026-11-24T18:00:00"),
    (date(2026, 1, 2), "2026-01-02"),
    (time(1, 2, 3, 4), "01:02:03.000004"),
    (time(1, 2, tzinfo=timezone(timedelta(hours=2))), "01:02:00+02:00"),
    (timedelta(0), "PT0S"),
    (timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=500000), "P1DT2H3M4.5S"),
    (timedelta(hours=-1, minutes=-30), "PT-1H-30M"),
    (timedelta(days=-2, seconds=-1), "P-2DT-1S"),
    (Interval(14, -3, 3_600_000_000), "P1Y2M-3DT1H"),
    (Interval(-14, 0, 0), "P-1Y-2M"),
    (b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
    (b"", ""),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (ipaddress.ip_address("::1"), "::1"),
    (ipaddress.ip_interface("192.0.2.1/24"), "192.0.2.1/24"),
    (ipaddress.ip_network("192.0.2.0/24"), "192.0.2.0/24"),
    (Range(1, 10), "[1,10)"),
    (Range(None, date(2026, 1, 1), "(]"), "(,2026-01-01]"),
    (Range("a b", 'c"'), '["a b","c\\"")'),
    (Range(empty=True), "empty"),
    (Multirange([Range(1, 3), Range(5, 8)]), "{[1,3),[5,8)}"),
    ([Decimal("1.0"), [None, b"\x01"]], ["1.0", [None, "AQ=="]]),
    (Point(1, Decimal(2)), {"x": 1, "label": "2"}),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[repr(value)[:40] for value, _ in VALUES])
def test_every_value_has_its_form_from_either_writer(value: Any, expected: Any) -> None:
    assert json.loads(encode({"v": value})) == {"v": expected}
    assert json.loads(_exactly({"v": value})) == {"v": expected}
    assert json.loads(encode({"n": None, "v": value, "f": float("nan")})) == {"n": None, "v": expected, "f": "NaN"}
    assert json.loads(encode({"v": [value, None]})) == {"v": [expected, None]}


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats() | st.text() | st.decimals()))
def test_both_writers_mean_the_same(data: dict[str, Any]) -> None:
    assert json.loads(encode(data)) == json.loads(_exactly(data))


@given(st.integers(-10_000, 10_000), st.integers(-5_000, 5_000), st.integers(-(10**12), 10**12))
def test_an_interval_is_what_its_parts_say(months: int, days: int, micros: int) -> None:
    text = plain(Interval(months, days, micros))
    found = {"Y": 0, "M": 0, "D": 0, "H": 0, "m": 0, "S": Decimal(0)}
    day, _, clock = text[1:].partition("T")
    for part, names in ((day, {"Y": "Y", "M": "M", "D": "D"}), (clock, {"H": "H", "M": "m", "S": "S"})):
        number = ""
        for letter in part:
            if letter in names:
                found[names[letter]] = Decimal(number)
                number = ""
            else:
                number += letter
    assert found["Y"] * 12 + found["M"] == months
    assert found["D"] == days
    assert (found["H"] * 3600 + found["m"] * 60 + found["S"]) * 1_000_000 == micros


def test_what_did_not_change_is_left_out_and_named() -> None:
    assert encode_row({"id": 1, "big": UNCHANGED, "note": "unchanged"}) == (b'{"id":1,"note":"unchanged"}', ("big",))
    assert encode_row({"note": "unchanged"}) == (b'{"note":"unchanged"}', ())


def test_a_value_without_a_form_is_refused() -> None:
    for data in ({"v": object()}, {"v": [float("nan"), object()], "n": None}):
        with pytest.raises(SettingsError, match="object has no form"):
            encode(data)
