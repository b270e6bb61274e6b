"""Every type of MySQL through Debezium and through the binary log: the same events, but for what is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.binlog.test_values_server import TYPES, columns
from streamlab import settings
from streamlab.cdc import MySQLCDC

from .conftest import Captured

pytestmark = pytest.mark.integration


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


def lost(kind: str, arrived: Any, value: Any) -> bool:
    """What Debezium does not say any more; docs/values.md lists it."""
    if arrived is None:
        return isinstance(value, str) and "00" in value and kind.startswith(("date", "timestamp"))  # a day of zeros
    if kind == "json":
        return bool(arrived[:2] == value[:2] and arrived[3] == value[3])  # bytes are base64, a negative time broken
    return (kind, value) in {("year", 0), ("char(255) character set latin1", "\x81\u201a")}


def test_every_type_agrees_with_the_direct_reader(captured: Captured) -> None:
    table = captured.table()
    rows = max(map(len, TYPES.values()))
    try:
        captured.execute(f"DROP TABLE {table.name}")
        captured.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
        defined = ", ".join(
            f"{name} {kind}{' NULL' if kind.startswith('timestamp') else ''}"
            for name, kind in zip(columns(), TYPES, strict=True)
        )
        captured.execute(f"CREATE TABLE {table.name} (id int PRIMARY KEY, {defined})")
        with MySQLCDC.session(settings.mysql_address("cdc"), [f"{captured.database}.{table.name}"]) as direct:
            captured.execute(f"INSERT INTO {table.name} (id) VALUES (0)")
            for row in range(rows):
                values = ", ".join(literals[min(row, len(literals) - 1)] for literals in TYPES.values())
                captured.execute(f"INSERT INTO {table.name} VALUES ({row + 1}, {values})")
            captured.execute(f"UPDATE {table.name} SET c0 = 1 WHERE id = 1")
            captured.execute(f"DELETE FROM {table.name}")
            wanted = [event for each in direct.transactions(until=rows + 3) for event in each]
        with table.reader() as source:
            found = [event for each in source.transactions(until=rows + 3) for event in each]
    finally:
        captured.execute("SET SESSION sql_mode = DEFAULT")
        table.close()
    assert [(each.operation, each.ordinal, each.key, each.schema, each.table_name) for each in found] == [
        (each.operation, each.ordinal, each.key, each.schema, each.table_name) for each in wanted
    ]
    assert [each.transaction_id for each in found] == [each.transaction_id for each in wanted]
    kinds = {"id": "int", **dict(zip(columns(), TYPES, strict=True))}
    wrong = []
    for ours, theirs in zip(found, wanted, strict=True):
        for one, other in ((ours.old_data, theirs.old_data), (ours.new_data, theirs.new_data)):
            assert one.keys() == other.keys()
            wrong += [
                (kinds[name], one[name], value)
                for name, value in other.items()
                if not same(one[name], value) and not lost(kinds[name], one[name], value)
            ]
    assert wrong == []
