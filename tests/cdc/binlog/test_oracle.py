"""mysql-replication, another reader of the binary log, sees the same changes in the same one."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from streamlab import settings
from streamlab.cdc import Operation
from streamlab.cdc.binlog import rowcode

from .conftest import MySQLShop

pytestmark = pytest.mark.integration

COLUMNS = {
    "id": "int PRIMARY KEY",
    "small": "smallint unsigned",
    "medium": "mediumint",
    "big": "bigint unsigned",
    "price": "decimal(20,6)",
    "ratio": "double",
    "name": "varchar(100)",
    "latin": "varchar(100) character set latin1",
    "note": "text",
    "raw": "varbinary(500)",
    "kind": "enum('a','b','c')",
    "day": "date",
    "made": "datetime(6)",
    "seen": "timestamp(3) NULL",
    "spent": "time",
}


def row(number: int, dice: random.Random) -> tuple[Any, ...]:
    moment = datetime(2000, 1, 1) + timedelta(microseconds=dice.randrange(10**15))
    values: list[Any] = [
        dice.randrange(1 << 16),
        dice.randrange(-(1 << 23), 1 << 23),
        dice.randrange(1 << 64),
        Decimal(dice.randrange(-(10**20), 10**20)).scaleb(-6),
        dice.uniform(-1e9, 1e9),
        "".join(dice.choices("aé€😀 ", k=dice.randrange(20))),
        "".join(dice.choices("aé ß", k=dice.randrange(20))),
        "x" * dice.randrange(500),
        dice.randbytes(dice.randrange(400)),
        dice.choice("abc"),
        date(2000, 1, 1) + timedelta(days=dice.randrange(10000)),
        moment,
        moment.replace(microsecond=moment.microsecond // 1000 * 1000),
        timedelta(seconds=dice.randrange(-3_000_000, 3_000_000)),
    ]
    return (number, *(None if dice.random() < 0.1 else value for value in values))


def plain(values: Any) -> dict[str, Any]:
    """A row as both have it: the oracle's timestamps are naive, in UTC."""
    return {
        name: value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
        for name, value in values.items()
    }


@pytest.mark.filterwarnings("ignore:'(db|passwd)' is deprecated:DeprecationWarning")  # its own
def test_it_sees_the_same_changes(shop: MySQLShop, monkeypatch: pytest.MonkeyPatch) -> None:
    # No value of these is one for the careful reader: what is compared is the generated code.
    monkeypatch.setattr(rowcode._Rows, "read", None)
    defined = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    shop.execute(f"CREATE TABLE mixed ({defined})")
    begin = shop.execute("SHOW BINARY LOG STATUS")[0]
    dice = random.Random(7)
    marks = ", ".join(["%s"] * len(COLUMNS))
    shop.app.autocommit(False)
    for number in range(300):
        if number < 100 or dice.random() < 0.3:
            shop.execute(f"INSERT INTO mixed VALUES ({marks})", *row(number, dice), connection=shop.app)
        elif dice.random() < 0.6:
            sets = ", ".join(f"{name} = %s" for name in COLUMNS)
            old = dice.randrange(number)
            shop.execute(f"UPDATE mixed SET {sets} WHERE id = {old}", *row(old, dice), connection=shop.app)
        else:
            shop.execute(f"DELETE FROM mixed WHERE id = {dice.randrange(number)}", connection=shop.app)
        if dice.random() < 0.3:
            shop.app.commit()
    shop.execute("UPDATE mixed SET name = 'last'", connection=shop.app)
    shop.app.commit()

    with shop.reader(
        tables=[f"{shop.database}.mixed"], checkpoint=None, resume_after=f"{begin[0]}:{begin[1]} {begin[4]}"
    ) as cdc:
        ours = [
            (event.operation, event.primary_key, plain(event.old_data), plain(event.new_data))
            for transaction in cdc.transactions(until=cdc.written())
            for event in transaction
        ]

    # By file and offset: it does not know GTIDs with a tag, which other tests leave behind, and so would ask for what
    # others of them have purged.
    stream = BinLogStreamReader(
        connection_settings=settings.mysql_address("cdc").arguments(database=""),
        server_id=4_100_000_000,
        log_file=begin[0],
        log_pos=begin[1],
        resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        only_schemas=[shop.database],
    )
    theirs: list[Any] = []
    try:
        for event in stream:
            key = event.primary_key
            for change in event.rows:
                if isinstance(event, UpdateRowsEvent):
                    theirs.append((Operation.UPDATE, key, change["before_values"], change["after_values"]))
                elif isinstance(event, WriteRowsEvent):
                    theirs.append((Operation.INSERT, key, {}, change["values"]))
                else:
                    theirs.append((Operation.DELETE, key, change["values"], {}))
    finally:
        stream.close()
    assert len(ours) > 300
    assert [each[0] for each in ours] == [each[0] for each in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine[1] == (other[1],) if isinstance(other[1], str) else mine[1] == other[1]
        assert mine[2] == plain(other[2])
        assert mine[3] == plain(other[3])
