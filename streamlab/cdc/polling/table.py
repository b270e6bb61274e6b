"""What is polled: a table or a query, with its columns, and the statements that read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from streamlab.cdc.event import NOTHING, ChangeEvent, Operation
from streamlab.cdc.polling.criteria import Criteria, Mode
from streamlab.cdc.polling.position import PollingPosition
from streamlab.cdc.polling.servers import Column, Polled
from streamlab.cdc.transaction import Transaction
from streamlab.errors import CannotCapture, SettingsError
from streamlab.sql import load

__all__ = ["PolledTable"]

Row = tuple[Any, ...]
_KINDS: Final = {"number": "number", "aware": "time", "naive": "time"}


@dataclass(slots=True)
class PolledTable:
    """A table or a query on a server, and the criteria by which it is read.

    Attributes
    ----------
    server : Polled
        Where.
    criteria : Criteria
        What is new.
    table, query : str
        One of the two.
    label : str
        What a query's rows are said to be of.
    primary_key : tuple of str
        Of the rows; by default the table's own.
    """

    server: Polled
    criteria: Criteria
    table: str = ""
    query: str = ""
    label: str = ""
    primary_key: tuple[str, ...] = ()
    schema: str = ""
    name: str = ""
    columns: list[Column] = field(default_factory=list)

    def __post_init__(self) -> None:
        if bool(self.table) == bool(self.query):
            raise SettingsError("It is not said what is polled, or twice.", "Give either a table or query=.")
        if "${" in self.query:
            raise SettingsError(
                "There is no placeholder for the position in a query.",
                "Leave that condition out: it is added around the query, as Kafka Connect's JDBC source adds it.",
            )
        self.query = self.query.strip().rstrip(";")

    @property
    def naive(self) -> bool:
        """Whether the stamps have no zone."""
        return any(each.kind == "naive" for each in self.columns if each.name == self.criteria.timestamp)

    def look(self, *, allow_null: bool) -> None:
        """Ask for the columns, and judge whether they can be watched.

        Raises
        ------
        CannotCapture
            A column is missing, of another type, or may be NULL.
        ChangeStreamError
            The server does not answer, or refuses.
        """
        server = self.server
        if self.table:
            self.schema, self.name = server.split(self.table)
        else:
            self.name = self.label
        self.refresh()
        kinds = {each.name: each.kind for each in self.columns}
        for column in self.criteria.columns:
            wanted = {"aware", "naive"} if column == self.criteria.timestamp else {"number"}
            if kinds.get(column) not in wanted:
                what = "has no column" if column not in kinds else f"has no {_KINDS[min(wanted)]} in its column"
                raise CannotCapture(
                    f"{self} {what} {column}.",
                    "Polling needs numbers that only grow, or times of the last change; name such columns.",
                )
        if self.table and not self.primary_key:
            self.primary_key = server.key(self.schema, self.name)
        missing = [each for each in self.primary_key if each not in kinds]
        if missing:
            raise CannotCapture(f"{self} has no column {missing[0]}.", "Correct primary_key=.")
        if not allow_null:
            self._refuse_null()

    def refresh(self) -> None:
        """Ask for the columns again: one may have been added."""
        self.columns = self.server.described(self._statement("shape"))[1]

    def _refuse_null(self) -> None:
        if self.table:
            nullable = self.server.nullable(self.schema, self.name)
            found = next((each for each in self.criteria.columns if each in nullable), None)
        else:
            found = next((each for each in self.criteria.columns if self._nulls(each)), None)
        if found is not None:
            raise CannotCapture(
                f"The column {found} of {self} may be NULL, and no poll ever finds a row where it is.",
                "ALTER it to NOT NULL; or accept that such rows are missed: validate_non_null=False.",
            )

    def _nulls(self, column: str) -> bool:
        text = self._statement("count", condition=f"{self._quote(column)} IS NULL")
        return bool(self.server.rows(text)[0][0])

    def __str__(self) -> str:
        return self.table or f"the query {self.label}"

    # -- rows -------------------------------------------------------------------------------------------

    def groups(self, rows: list[Row]) -> list[tuple[Row, list[Row]]]:
        """Rows that belong together, each group with its values of the watched columns."""
        names = [each.name for each in self.columns]
        watched = [names.index(each) for each in self.criteria.columns]

        def values(row: Row) -> Row:
            return tuple(row[at] for at in watched)

        if not self.criteria.grouped:
            return [(values(row), [row]) for row in rows]
        return [(each, list(some)) for each, some in groupby(rows, values)]

    def transaction(
        self, position: PollingPosition, end: PollingPosition, rows: list[Row], committed: datetime
    ) -> Transaction:
        """Rows as changes."""
        names = [each.name for each in self.columns]
        operation = Operation.SNAPSHOT if self.criteria.mode is Mode.BULK else Operation.INSERT
        events = tuple(
            ChangeEvent(
                operation, self.schema, self.name, NOTHING, dict(zip(names, row, strict=True)), committed, "", position,
                ordinal, self.primary_key,
            )
            for ordinal, row in enumerate(rows)
        )  # fmt: skip
        return Transaction(position, end, "", committed, events)

    # -- statements -----------------------------------------------------------------------------------

    def _statement(self, block: str, **parts: object) -> str:
        # It is a part of a format of the driver's. A query may end in a comment, so it stands on lines of its own.
        source = self.server.quote(self.schema, self.name) if self.table else f"(\n{self.query}\n)"
        return load("polling")[block].format(source=source.replace("%", "%%"), **parts)

    def _quote(self, column: str) -> str:
        """A column in a statement, which is a format of the driver's too."""
        return self.server.quote(column).replace("%", "%%")

    def page(self, after: PollingPosition | None, before: datetime | None, limit: int) -> list[Row]:
        """The next rows behind a position."""
        quote = self._quote
        condition, values = self.criteria.condition(after, before, quote)
        order = self.criteria.order(quote, ties=self.primary_key)
        text = self._statement("page", condition=condition, order=order, limit=int(limit))
        rows, self.columns = self.server.described(text, values)
        return rows

    def whole(self, size: int) -> Iterator[list[Row]]:
        """All rows, in portions."""
        self.refresh()
        return self.server.stream(self._statement("whole"), size)

    def count(self, after: PollingPosition | None) -> int:
        """How many rows lie behind a position."""
        after = None if self.criteria.mode is Mode.BULK else after
        condition, values = self.criteria.condition(after, None, self._quote)
        return int(self.server.rows(self._statement("count", condition=condition), values)[0][0])

    def last(self, before: datetime | None) -> PollingPosition:
        """Behind the last row that a poll would find now."""
        quote = self._quote
        condition, values = self.criteria.condition(None, before, quote)
        for column in self.criteria.columns:
            condition += f" AND {quote(column)} IS NOT NULL"
        columns = ", ".join(map(quote, self.criteria.columns))
        text = self._statement(
            "last", columns=columns, condition=condition, order=self.criteria.order(quote, last=True)
        )
        rows: Sequence[Row] = self.server.rows(text, values)
        return PollingPosition(tuple(rows[0]), self.criteria.columns, behind=True) if rows else PollingPosition()
