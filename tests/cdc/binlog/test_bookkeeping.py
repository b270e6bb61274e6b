"""When a reader of the binary log has come far enough: by identifiers, not by places."""

from __future__ import annotations

import pytest

from streamlab.cdc.binlog.bookkeeping import Bookkeeping
from streamlab.cdc.binlog.position import BinlogPosition, GTIDSet

ONE = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
TWO = "4e11fa47-71ca-11e1-9e33-c80aa9429562"


def at(gtids: str, place: str = "binlog.000001:100") -> BinlogPosition:
    return BinlogPosition.parse(f"{place} {gtids}")


def read(position: BinlogPosition) -> Bookkeeping:
    books = Bookkeeping(at(f"{ONE}:1-3"))
    books.hand_out(position)
    return books


@pytest.mark.parametrize(
    ("upto", "expected"),
    [
        (at(f"{ONE}:1-4"), True),
        (at(f"{ONE}:1-5", "binlog.000001:500"), True),
        (at(f"{ONE}:1-5", "binlog.000002:157"), True),  # a new file, and no transaction in it
        (at(f"{ONE}:1-6", "binlog.000001:500"), False),
        (at(f"{ONE}:1-6", "binlog.000001:50"), False),  # another server has it at another place
        (at(f"{ONE}:1-5,{TWO}:1", "binlog.000001:500"), False),
    ],
)
def test_it_has_passed_what_holds_no_other_transaction(upto: BinlogPosition, expected: bool) -> None:
    assert read(at(f"{ONE}:1-5", "binlog.000001:300")).passed(upto) is expected


def test_nothing_is_passed_where_the_beginning_is_not_known() -> None:
    assert not Bookkeeping().passed(at(f"{ONE}:1"))


def test_what_is_prepared_has_come_until_the_connection_is_lost() -> None:
    books, upto = read(at(f"{ONE}:1-5")), at(f"{ONE}:1-6")
    assert not books.passed(upto)
    books.settled(in_flight=True, hold=GTIDSet.parse(f"{ONE}:6"))
    assert books.passed(upto)
    books.lost()
    assert not books.passed(upto)
