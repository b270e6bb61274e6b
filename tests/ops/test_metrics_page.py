"""docs/metrics.md names every metric as streamlab/metrics.py does."""

from __future__ import annotations

import re
from pathlib import Path

from streamlab.metrics import ASKED, PROCESS, Definition

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def unit(one: Definition) -> str:
    stem = one.name.removesuffix("_total")
    return next((each for each in ("seconds", "bytes", "records") if stem.endswith(f"_{each}")), "")


def row(one: Definition) -> tuple[str, ...]:
    return one.name, one.kind, unit(one), ", ".join(f"`{label}`" for label in one.labels), one.help


def rows(section: str) -> list[tuple[str, ...]]:
    lines = re.findall(r"^\| `(.+) \|$", section, re.MULTILINE)
    return [tuple(cell.strip(" `") if number == 0 else cell.strip() for number, cell in enumerate(line.split("|")))
            for line in lines]  # fmt: skip


def test_the_page_has_a_row_for_each_metric_and_no_other() -> None:
    asked, kept = PAGE.read_text(encoding="utf-8").split("## What a process keeps")
    assert rows(asked) == [row(one) for one in ASKED.values()]
    assert rows(kept) == [row(one) for one in PROCESS.values()]
