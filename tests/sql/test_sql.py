"""The SQL files: blocks with names, and the same shop for both servers."""

from __future__ import annotations

import pytest

from streamlab.errors import StreamlabError
from streamlab.sql import load, parse, statements
from streamlab.workload.tables import STATEMENTS, TABLES, Verb


def test_a_file_is_cut_into_its_blocks() -> None:
    blocks = parse("-- about\n-- name: one\n-- why\nSELECT 1;\n\n-- name: two\nSELECT 2,\n  3;\n")
    assert dict(blocks) == {"one": "SELECT 1;", "two": "SELECT 2,\n  3;"}


@pytest.mark.parametrize("text", ["-- name: one\n-- nothing\n", "-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n"])
def test_an_empty_or_repeated_block_is_refused(text: str) -> None:
    with pytest.raises(StreamlabError, match="block one"):
        parse(text)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(StreamlabError, match="no SQL file named nowhere"):
        load("nowhere")


def test_a_block_is_cut_at_semicolons_that_end_a_line() -> None:
    assert statements("SELECT ';', 1;\nSELECT 2 ; \nSELECT 3") == ["SELECT ';', 1", "SELECT 2", "SELECT 3"]


def test_both_servers_have_the_same_blocks() -> None:
    postgres, mysql = load("shop_postgres"), load("shop_mysql")
    assert [name for name in postgres if not name.startswith("copy_")] == list(mysql)


@pytest.mark.parametrize("file", ["shop_postgres", "shop_mysql"])
def test_every_statement_takes_the_values_that_a_plan_has(file: str) -> None:
    blocks = load(file)
    for statement in STATEMENTS.values():
        block = blocks[statement.name]
        keys = 0 if statement.verb is Verb.INSERT else statement.table.keys
        assert block.count("%s") == len(statement.columns) + keys, statement.name
        at = [block.index(column) for column in statement.columns]
        assert at == sorted(at), statement.name
    for table in TABLES.values():
        head = f"SELECT {', '.join(table.columns)}"
        assert blocks[f"select_{table.name}"].startswith(head)
