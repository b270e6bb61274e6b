"""What an event is, beyond its fields."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from streamlab.cdc import LSN, UNCHANGED, ChangeEvent, Operation
from streamlab.cdc.event import NOTHING

WHEN = datetime(2026, 1, 5, 8, tzinfo=UTC)


def event(**changes: object) -> ChangeEvent:
    plain = ChangeEvent(
        Operation.INSERT,
        "public",
        "orders",
        NOTHING,
        {"id": 7, "note": UNCHANGED},
        WHEN,
        "12",
        LSN(0x16B3748),
        0,
        ("id",),
    )
    return plain._replace(**changes)


def test_nothing_is_an_empty_mapping_that_stays_one() -> None:
    assert NOTHING == {}
    assert not NOTHING
    assert NOTHING.get("id") is None
    with pytest.raises(TypeError):
        NOTHING["id"] = 1  # type: ignore[index]
    with pytest.raises(KeyError):
        NOTHING["id"]


def test_an_event_goes_to_another_process() -> None:
    there = pickle.loads(pickle.dumps(event()))  # noqa: S301
    assert there == event()
    assert there.old_data is NOTHING
    assert there.new_data["note"] is UNCHANGED
    assert isinstance(there.lsn, LSN)


def test_the_key_is_of_the_row_as_it_is_and_of_the_old_row_of_a_delete() -> None:
    assert event().key == (7,)
    assert event(operation=Operation.DELETE, old_data={"id": 8}, new_data=NOTHING).key == (8,)


def test_a_change_of_another_source_has_no_lsn() -> None:
    assert str(event().lsn) == "0/16B3748"
    with pytest.raises(AttributeError, match="binlog"):
        _ = event(position="binlog.000001:4").lsn


def test_positions_are_read_compared_and_shown() -> None:
    low, high = LSN.parse("0/16B3748"), LSN.parse("1/0")
    assert low < high
    assert (str(low), repr(high), f"{low}") == ("0/16B3748", "LSN('1/0')", "0/16B3748")
    assert high - low == 2**32 - 0x16B3748
    assert pickle.loads(pickle.dumps(low)) == low  # noqa: S301
    for wrong in ("", "0", "0/", "x/1", "0/123456789"):
        with pytest.raises(Exception, match="no LSN"):
            LSN.parse(wrong)


def test_an_event_shows_itself_with_everything_escaped() -> None:
    html = event(new_data={"<b>": "<script>", "note": UNCHANGED, "none": None})._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "unchanged" in html
    assert "null" in html
