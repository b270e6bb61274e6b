"""GTID sets behave as sets, positions as places; both survive their text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.cdc import Position
from streamlab.cdc.binlog import BinlogPosition, GTIDSet
from streamlab.errors import SettingsError

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
IDENTIFIERS = st.sets(st.tuples(st.sampled_from([A, B, f"{A}:blue"]), st.integers(1, 12)), max_size=20)


def gtids(identifiers: set[tuple[str, int]]) -> GTIDSet:
    made = GTIDSet()
    for source, number in identifiers:
        made = made.add(source, number)
    return made


@given(IDENTIFIERS, IDENTIFIERS)
def test_they_are_sets(one: set[tuple[str, int]], two: set[tuple[str, int]]) -> None:
    a, b = gtids(one), gtids(two)
    assert (a <= b) == (one <= two)
    assert (a < b) == (one < two)
    assert (a == b) == (one == two)
    assert a | b == gtids(one | two)
    assert len(a) == len(one)
    assert bool(a) == bool(one)
    assert hash(a | b) == hash(b | a)
    for source in (A, B):
        assert all(a.holds(source, number) == ((source, number) in one) for number in range(14))
    assert GTIDSet.parse(str(a)) == a


def test_they_are_read_as_mysql_writes_them() -> None:
    text = f"{A}:1-5:7:blue:3-4,\n{B}:9"
    assert str(GTIDSet.parse(text.upper())) == f"{A}:1-5:7,{A}:blue:3-4,{B}:9"
    for wrong in ("x", A, f"{A}:0", f"{A}:5-1", f"{A}:1-", f"{A}:1-9223372036854775807"):
        with pytest.raises(SettingsError):
            GTIDSet.parse(wrong)


def test_the_server_gets_them_without_the_end() -> None:
    encoded = GTIDSet.parse(f"{A}:1-5").encode()
    assert encoded[:8] == (1).to_bytes(8, "little")
    assert encoded[24:] == b"".join(each.to_bytes(8, "little") for each in (1, 1, 6))


def at(file: str, offset: int, text: str) -> BinlogPosition:
    return BinlogPosition(file, offset, GTIDSet.parse(text))


def test_positions_are_ordered_by_what_is_past_then_by_place() -> None:
    ordered = [
        at("binlog.000009", 4, ""),
        at("binlog.000009", 900, f"{A}:1"),
        at("binlog.000009", 950, f"{A}:1"),
        at("binlog.000010", 4, f"{A}:1"),
        at("other.000001", 77, f"{A}:1-2"),
        at("other.000001", 90, f"{A}:1-2,{B}:1"),
    ]
    assert sorted([*ordered[3:], *ordered[:3]]) == ordered
    assert len(set(ordered)) == len(ordered)
    for before, after in pairwise(ordered):
        assert before < after
        assert after > before
        assert before <= after
        assert not after <= before
    assert all(isinstance(each, Position) and BinlogPosition.parse(str(each)) == each for each in ordered)
    assert int(ordered[2]) < int(ordered[3])


def test_a_text_that_is_no_position_is_refused() -> None:
    for wrong in ("", "0/16B3748", "binlog:4", "binlog.000001", "binlog.000001:4 x"):
        with pytest.raises(SettingsError):
            BinlogPosition.parse(wrong)
