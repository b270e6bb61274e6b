"""The figures of which_cdc as a lesson shows them: read from what the benchmark writes, drawn and told alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lab.test_diagram import check_markup

from streamlab.errors import LessonError
from streamlab.lab.figures import FILE, WhichCDC

FIGURES = ("rate", "p50", "p99", "processor", "memory")


def written(tmp_path: Path, **changes: dict[str, Any]) -> Path:
    """The file that is in the repository, with other entries for some cases."""
    rows = [{**row, **changes.get(row["case"], {})} for row in json.loads(FILE.read_text(encoding="utf-8"))]
    path = tmp_path / "which_cdc.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_the_file_has_every_figure_of_every_way_and_says_where_it_is_from() -> None:
    figures = WhichCDC.load()
    assert len(figures.ways) == 5
    for way in figures.ways:
        assert [name for name in FIGURES if not getattr(way, name)] == [], way.name
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", figures.date)
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", figures.commit)
    assert figures.cores >= 1


def test_rates_are_ours_or_the_references(tmp_path: Path) -> None:
    changes = {
        "connector-postgres": {"ours_rate": 30.0, "reference_rate": 10.0},
        "connector-transactional": {"reference_rate": 20.0},
        "direct-postgres": {"ours_rate": 90.0, "reference_rate": 12.0},
        "p99-direct-mysql": {"ours_rate": 1.25},
        "cpu-debezium-postgres": {"ours_rate": 8.0},
        "cpu-connector-postgres": {"ours_rate": 2.0},
    }
    figures = WhichCDC.load(written(tmp_path, **changes))
    assert (figures.way("direct-postgres").rate, figures.way("connector-postgres").rate) == (90.0, 30.0)
    # The median of what was measured beside each of the three.
    assert figures.way("debezium-postgres").rate == 12.0
    assert figures.way("direct-mysql").p99 == 1.25
    assert figures.times("processor", "debezium-postgres", "connector-postgres") == 4.0


@pytest.mark.parametrize(("quick", "said"), [(True, "is not to be quoted"), (False, "400,000 rows a way")])
def test_a_quick_run_is_marked_as_one(tmp_path: Path, quick: bool, said: str) -> None:
    cases = {
        row["case"]: {"quick": quick, "date": "2026-01-05", "commit": "1a2b3c4"} for row in json.loads(FILE.read_text())
    }
    figures = WhichCDC.load(written(tmp_path, **cases))
    for shown in (figures.rendered().text, figures.picture().text, figures.picture().svg, figures.picture().alt):
        assert "Measured on 2026-01-05 at 1a2b3c4" in shown
        assert said in shown


def test_the_picture_has_a_bar_for_each_figure_and_words_for_all(tmp_path: Path) -> None:
    figures = WhichCDC.load(written(tmp_path, **{"memory-direct-mysql": {"ours_rate": 123.4}}))
    picture = figures.picture()
    check_markup(picture.svg)
    assert picture.svg.count("<rect") == 1 + 25
    for way in figures.ways:
        assert way.title in picture.alt
    assert "123 MiB" in picture.alt
    assert "ends at" in figures.rendered().text


def test_what_was_not_measured_has_no_bar(tmp_path: Path) -> None:
    figures = WhichCDC.load(written(tmp_path, **{"p50-debezium-mysql": {"ours_rate": None, "error": "no server"}}))
    assert figures.way("debezium-mysql").p50 is None
    assert figures.picture().svg.count("<rect") == 1 + 24
    assert "\u2013 ms, half" in figures.picture().alt
    with pytest.raises(LessonError, match="was not measured"):
        figures.times("p50", "debezium-mysql", "direct-mysql")


@pytest.mark.parametrize("text", [None, "", "[]", '[{"benchmark": "stack"}]', "{"])
def test_a_file_that_is_none_of_it_says_how_it_is_made(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "figures.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(LessonError, match="make bench NAME=which_cdc JSON=data/which_cdc.json"):
        WhichCDC.load(path)
