"""The seed files in ``data/``: a small shop's tables and history, without a server.

``python -m streamlab.workload.export data`` makes them again, byte for byte.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from streamlab.workload.ledger import Ledger
from streamlab.workload.plan import MIXES, Parameters
from streamlab.workload.planner import Planner
from streamlab.workload.tables import TABLES, Value

__all__ = ["PARAMETERS", "TRANSACTIONS", "export"]

PARAMETERS = Parameters(seed=7, customers=30, products=12)
TRANSACTIONS = 120
"""How many transactions follow the opening, each a single action of the balanced mix."""


def _plain(value: Value) -> Any:
    """A value as JSON has it: money as text, so that no reader makes a binary fraction of it."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def _line(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def _tables(ledger: Ledger) -> Iterator[tuple[str, str]]:
    for table in TABLES.values():
        rows = sorted(ledger.rows(table.name).items())
        yield (
            f"{table.name}.jsonl",
            "".join(_line({column: _plain(value) for column, value in table.as_dict(row).items()}) for _, row in rows),
        )


def _history(ledger: Ledger) -> str:
    lines = []
    for transaction in ledger.transactions[1:]:  # the first one is the opening stock, pictures and all
        for operation in transaction.operations:
            changes = {column: _plain(value) for column, value in operation.changes().items() if column != "photo"}
            lines.append(
                _line(
                    {
                        "transaction": transaction.number,
                        "operation": operation.verb.value,
                        "table": operation.table.name,
                        "key": list(operation.key),
                        "values": changes,
                    }
                )
            )
    return "".join(lines)


def export(directory: Path) -> list[Path]:
    """Write the seed files into a directory that exists; returns their paths."""
    planner, ledger = Planner(PARAMETERS), Ledger()
    ledger.record(planner.opening())
    for _ in range(TRANSACTIONS):
        ledger.record(planner.plan(MIXES["balanced"]))
    written = []
    for name, text in (*_tables(ledger), ("changes.jsonl", _history(ledger))):
        path = directory / name
        path.write_bytes(text.encode("utf-8"))  # bytes: no system's own line ends
        written.append(path)
    return written


if __name__ == "__main__":
    export(Path(sys.argv[1]))
