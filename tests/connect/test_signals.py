"""Signals as the table has them; what a source does with them is seen in test_debezium_mysql.py and _postgres.py."""

from __future__ import annotations

import json

import pytest

from streamlab.connect import MySQLSignals, Signal
from streamlab.errors import ConnectError


def test_a_signal_says_what_is_to_be_read_as_regular_expressions_of_the_names() -> None:
    signal = Signal.execute_snapshot("shop.orders", "shop.a+b", where={"shop.a+b": "name = 'Ö'"})
    assert (signal.type, json.loads(signal.text)) == (
        "execute-snapshot",
        {
            "type": "INCREMENTAL",
            "data-collections": [r"shop\.orders", r"shop\.a\+b"],
            "additional-conditions": [{"data-collection": r"shop\.a\+b", "filter": "name = 'Ö'"}],
        },
    )
    assert len(signal.id) <= 42
    assert signal.id != Signal.execute_snapshot("shop.orders").id
    assert Signal.execute_snapshot("a.b", blocking=True).data["type"] == "BLOCKING"


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        (Signal.stop_snapshot(), ("stop-snapshot", {"type": "INCREMENTAL"})),
        (Signal.stop_snapshot("a.b"), ("stop-snapshot", {"type": "INCREMENTAL", "data-collections": [r"a\.b"]})),
        (Signal.pause_snapshot(), ("pause-snapshot", {"type": "INCREMENTAL"})),
        (Signal.resume_snapshot(), ("resume-snapshot", {"type": "INCREMENTAL"})),
        (Signal.log("at {}"), ("log", {"message": "at {}"})),
    ],
)
def test_every_other_signal(signal: Signal, said: tuple[str, object]) -> None:
    assert (signal.type, signal.data) == said


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConnectError, match="no table"):
        Signal.execute_snapshot()
    with pytest.raises(ConnectError, match=r"a condition for b\.c, which is not read"):
        Signal.execute_snapshot("a.b", where={"b.c": "true"})
    with pytest.raises(ConnectError, match="where the table is"):
        MySQLSignals(None, "signals")  # type: ignore[arg-type]
