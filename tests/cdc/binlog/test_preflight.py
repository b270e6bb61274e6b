"""What a server is asked before its binary log is read, and in which order: of a real MySQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from streamlab import settings
from streamlab.cdc.binlog.preflight import gather, readable
from streamlab.cdc.binlog.questions import LogQuestions
from streamlab.errors import CannotCapture


class Noted(pymysql.Connection):  # type: ignore[type-arg]
    """A connection that notes what it asks."""

    def __init__(self, **options: Any) -> None:
        self.asked: list[str] = []
        super().__init__(**options)

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        self.asked.append(str(sql))
        return super().query(sql, unbuffered)


@pytest.mark.integration
@pytest.mark.parametrize("ask", [gather, lambda connection: LogQuestions(lambda: connection).written()])
def test_the_version_is_asked_before_what_mariadb_does_not_have(stack: object, ask: Callable[[Any], object]) -> None:
    with Noted(**settings.mysql_address("cdc").arguments(database="")) as connection:
        connection.asked.clear()
        ask(connection)
        first, *later = connection.asked
    assert first.startswith("SELECT @@global.version") and "," not in first
    assert any("gtid" in each or "STATUS" in each for each in later)


@pytest.mark.parametrize(
    ("version", "match"),
    [
        ("10.11.19-MariaDB-0+deb12u1-log", "is MariaDB"),
        ("11.8.3-MariaDB", "is MariaDB"),
        ("8.0.43", "too old"),
        ("5.7.44-log", "too old"),
        ("unknown", "too old"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_version(version: str, match: str) -> None:
    with pytest.raises(CannotCapture, match=match):
        readable(version)
    for good in ("8.4.6", "9.7.0", "10.0.1"):
        readable(good)
