"""A stream kept as messages and as frames: bounded, whole transactions, and the same changes as events."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlab.cdc import Operation
from streamlab.cdc.recording import Recording
from streamlab.lab.capture import Capture

SHOP = Path(__file__).parents[2] / "data" / "shop.slrec"


def captured(portion: int, **options: int) -> Capture:
    capture = Capture(**options)
    messages = list(Recording.open(SHOP))
    for at in range(0, len(messages), portion):
        capture.append(messages[at : at + portion])
    return capture


@pytest.mark.parametrize("portion", [7, 100_000])
def test_frames_hold_the_changes_that_events_do(portion: int) -> None:
    events = [event for transaction in Recording.open(SHOP).transactions() for event in transaction]
    schema = events[0].schema
    capture = captured(portion, messages=50)
    for table in ("customers", "products", "orders", "order_items"):
        wanted = [(int(e.position), e.ordinal, str(e.operation)) for e in events if e.table_name == table]  # type: ignore[call-overload]
        frame = capture.frame(f"{schema}.{table}")
        assert frame.select("position", "ordinal", "operation").rows() == wanted
    inserted = [e.new_data["id"] for e in events if e.table_name == "orders" and e.operation is Operation.INSERT]
    orders = capture.frame(f"{schema}.orders")
    assert orders.filter(orders["operation"] == "INSERT")["id"].to_list() == inserted
    assert len(capture.inspector) == 50
    assert capture.inspector.count == Recording.open(SHOP).count


def test_only_the_last_are_kept() -> None:
    events = [event for transaction in Recording.open(SHOP).transactions() for event in transaction]
    capture = captured(50, rows=200)
    tables = {f"{event.schema}.{event.table_name}" for event in events}
    kept = sum(len(capture.frame(table)) for table in tables)
    assert 200 <= kept < len(events)
    last = capture.frame(f"{events[-1].schema}.{events[-1].table_name}")
    assert last.row(-1, named=True)["position"] == events[-1].position


def test_a_stream_that_begins_anew_repeats_what_had_not_ended() -> None:
    messages = list(Recording.open(SHOP))
    end = next(at for at, message in enumerate(messages) if message[25:26] == b"C") + 1
    cut = next(at for at in range(end + 1, len(messages)) if messages[at][25:26] in {b"I", b"U"}) + 1
    capture = Capture()
    capture.append(messages[:cut])
    capture.restart()
    # The server describes the tables again.
    capture.append([message for message in messages[:end] if message[25:26] == b"R"] + messages[end:])
    schema = capture.inspector.find("Insert").table.partition(".")[0]
    for table in ("customers", "orders"):
        keys = capture.frame(f"{schema}.{table}").select("position", "ordinal").rows()
        assert len(keys) == len(set(keys)) == len(captured(100).frame(f"{schema}.{table}"))


def test_a_table_that_did_not_change_is_an_empty_frame() -> None:
    assert captured(1000).frame("no.such").is_empty()
