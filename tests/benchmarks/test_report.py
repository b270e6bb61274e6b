"""What a run says: the table, and a JSON that is whole or not there."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.measure import Row
from benchmarks.report import figure, machine, origin, refuse_unwritable, table, write_json
from streamlab.errors import StreamlabError

MET = Row(
    benchmark="stack",
    case="up",
    work="everything up",
    unit="s",
    smaller_is_better=True,
    reference="limit: 8 s",
    reference_figures=(8.0, 8.0, 8.0),
    figures=(4.0, 5.0, 8.0),
    goal=1.0,
)
MISSED = Row(
    benchmark="cdc",
    case="read",
    work="read rows",
    unit="rows/s",
    reference="other",
    reference_figures=(12345.0,),
    figures=(6172.5,),
    goal=2.0,
)
FAILED = Row(benchmark="cdc", case="lag", work="lag", unit="s", reference="other", goal=1.0, error="no server")
SHOWN = Row(benchmark="cdc", case="size", work="size", unit="MiB", figures=(0.5,))


def text(*rows: Row) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=132).print(table(rows))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04712, "0.0471"), (0.999, "0.999"), (4.5, "4.50"), (45.67, "45.7"), (456.7, "457"), (1433.6, "1,434")],
)
def test_three_digits_count(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_a_line_of_the_table_for_each_row() -> None:
    assert text(MET, MISSED, FAILED, SHOWN) == [
        "work reference ours ratio (min/median/max) goal met",
        "stack:up everything up limit: 8 s 5.00 s 1.00 / 1.60 / 2.00 1 ✓ yes",
        "cdc:read read rows other: 12,345 rows/s 6,172 rows/s 0.500 / 0.500 / 0.500 2 ✗ no",
        "cdc:lag lag other failed 1 ✗ no",
        "cdc:size size 0.500 MiB",
    ]


def test_the_machine_is_told_with_its_load() -> None:
    assert re.fullmatch(r"Measured on \d+ cores?(; load before: \d+\.\d)?\.", machine())


def test_the_json_is_a_list_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, [MET, SHOWN], {"quick": True})
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told == [{**each.as_json(), "quick": True} for each in (MET, SHOWN)]
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]


def test_a_run_tells_when_and_of_which_commit_it_was_measured() -> None:
    told = origin(quick=True)
    assert (told["quick"], told["cores"]) == (True, os.cpu_count())
    assert datetime.fromisoformat(str(told["date"])).date() <= datetime.now(UTC).date()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert head.stdout.startswith(str(told["commit"]).removesuffix("-dirty"))


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert origin(quick=False)["commit"] is None


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("before", encoding="utf-8")

    def interrupted() -> Iterator[Row]:
        yield MET
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_json(path, interrupted(), {})
    assert path.read_text(encoding="utf-8") == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]


def test_a_file_that_could_not_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new.json")
    for path in (tmp_path, tmp_path / "missing" / "new.json"):
        with pytest.raises(StreamlabError, match="cannot be written"):
            refuse_unwritable(path)
