"""Positions in a log, as a table with a mark for each."""

from __future__ import annotations

import pytest

from streamlab.cdc.position import LSN
from streamlab.errors import SettingsError
from streamlab.lab.log_line import log_line


def test_each_position_has_its_distance_from_the_end_and_its_place() -> None:
    shown = log_line("now", written=LSN(1100), received="0/41A", confirmed=LSN(100)).text
    caption, heads, _, written, received, confirmed = shown.splitlines()
    assert caption == "now"
    assert "bytes before the end" in heads
    assert written.split()[:3] == ["written", "0/44C", "0"]
    assert received.split()[:3] == ["received", "0/41A", "50"]
    assert confirmed.split()[:3] == ["confirmed", "0/64", "1000"]
    marks = [line.split()[-1].index("\u25cf") for line in (confirmed, received, written)]
    assert marks[0] == 0
    assert marks == sorted(marks)
    assert {len(line.split()[-1]) for line in (confirmed, received, written)} == {32}


def test_what_is_not_known_yet_has_no_mark() -> None:
    shown = log_line(written=LSN(7), received=None).text
    assert "\u25cf" in shown.splitlines()[-2]
    assert "\u25cf" not in shown.splitlines()[-1]
    assert "null" in shown.splitlines()[-1]


def test_a_log_without_any_position_and_one_without_length() -> None:
    assert "\u25cf" not in log_line(received=None).text
    assert log_line(written=LSN(5), confirmed=LSN(5)).text.count("\u25cf") == 2


def test_what_is_no_position_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no LSN"):
        log_line(written="soon")
