"""The ledger: what was committed, in order, and the rows that must stand in the tables because of it.

It is the truth that tests and lessons compare with: the tables themselves, a reader's changes, a
copy elsewhere. Rows are compared by value (`Decimal`, aware datetimes, JSON as Python objects).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from streamlab.workload.plan import Operation, PlannedTransaction
from streamlab.workload.tables import TABLES, Key, Row, Verb

__all__ = ["Difference", "Ledger", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How one table differs from what is expected, by primary key.

    Attributes
    ----------
    table : str
        The table.
    lost : tuple of Key
        Expected and not there.
    extra : tuple of Key
        There and not expected; a key that stands there twice is among them.
    different : tuple of Key
        There with another value in some column.
    """

    table: str
    lost: tuple[Key, ...] = ()
    extra: tuple[Key, ...] = ()
    different: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lost or self.extra or self.different)

    def __str__(self) -> str:
        return f"{self.table}: {len(self.lost)} lost, {len(self.extra)} extra, {len(self.different)} different"


def compare(table: str, expected: Mapping[Key, Row], actual: Iterable[Row]) -> Difference:
    """Compare the rows of one table, in any order, with what they should be."""
    keys = TABLES[table].keys
    missing = dict.fromkeys(expected)
    extra, different = [], []
    for row in actual:
        key: Key = tuple(row[:keys])  # type: ignore[arg-type]  # the first columns are the integers of the key
        if key not in missing:
            extra.append(key)
            continue
        del missing[key]
        if expected[key] != row:
            different.append(key)
    return Difference(table, tuple(missing), tuple(extra), tuple(different))


class Ledger:
    """What was committed. One thread writes; others may read lengths and copies (`transactions`, `rows`).

    A ledger keeps every operation: about half a kilobyte a row.
    """

    def __init__(self) -> None:
        self._transactions: list[PlannedTransaction] = []
        self._rows: dict[str, dict[Key, Row]] = {name: {} for name in TABLES}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._transactions)

    def __repr__(self) -> str:
        return f"Ledger({len(self._transactions)} transactions, {self.changes} row changes)"

    @property
    def changes(self) -> int:
        """Row changes in all committed transactions."""
        return sum(map(len, self.transactions))

    @property
    def transactions(self) -> Sequence[PlannedTransaction]:
        """The committed transactions in the order of their commits."""
        with self._lock:
            return tuple(self._transactions)

    def operations(self) -> list[tuple[int, Operation]]:
        """Every change with the number of its transaction, in order."""
        return [(each.number, operation) for each in self.transactions for operation in each.operations]

    def rows(self, table: str) -> Mapping[Key, Row]:
        """The rows that must stand in a table now, by primary key."""
        with self._lock:
            return MappingProxyType(dict(self._rows[table]))

    def record(self, transaction: PlannedTransaction) -> None:
        """Write down a transaction that is known to be committed. The one written last may be given again.

        So a call that was interrupted anywhere is made good by the same call.
        """
        with self._lock:
            if self._transactions and self._transactions[-1] is transaction:
                return
            for operation in transaction.operations:
                statement = operation.statement
                rows = self._rows[statement.table.name]
                if statement.verb is Verb.INSERT:
                    rows[operation.key] = operation.values
                elif statement.verb is Verb.DELETE:
                    rows.pop(operation.key, None)
                elif operation.key in rows:
                    row = list(rows[operation.key])
                    for position, value in zip(statement.positions, operation.values, strict=True):
                        row[position] = value
                    rows[operation.key] = tuple(row)
            self._transactions.append(transaction)

    def compare(self, actual: Mapping[str, Iterable[Row]]) -> tuple[Difference, ...]:
        """Compare tables with the ledger; only those that differ are returned."""
        found = (compare(name, self.rows(name), actual[name]) for name in TABLES)
        return tuple(difference for difference in found if difference)
