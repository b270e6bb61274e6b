"""What the loop beneath every reader asks of what a decoder made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from streamlab.cdc import ChangeEvent, Operation, Transaction
from streamlab.cdc.decoding import has_changes
from streamlab.cdc.position import LSN

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHANGE = ChangeEvent(Operation.INSERT, "public", "orders", {}, {"id": 1}, NOW, "7", LSN(1), 0, ("id",))


class Unread:
    """Changes that are not counted yet."""

    def __iter__(self) -> Iterator[ChangeEvent]:
        raise AssertionError("it is read")

    def __len__(self) -> int:
        raise AssertionError("it is counted")

    def __bool__(self) -> bool:
        return True


@pytest.mark.parametrize(("changes", "expected"), [((), False), ((CHANGE,), True), (Unread(), True)])
def test_a_transaction_is_not_read_to_see_whether_it_holds_something(changes: object, expected: bool) -> None:
    transaction = Transaction(LSN(1), LSN(2), "7", NOW, changes)  # type: ignore[arg-type]
    assert has_changes(transaction) is expected


@pytest.mark.parametrize("size", [0, 3])
def test_what_has_a_length_alone_is_asked_for_that(size: int) -> None:
    class Frames:
        end_position, commit_timestamp = LSN(2), NOW

        def __len__(self) -> int:
            return size

    assert has_changes(Frames()) is (size > 0)
