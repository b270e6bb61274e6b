"""The file of a run: whole or not at all, and never the reason why a lesson fails."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamlab.lab import results
from streamlab.lab.results import CheckResult, Results, default_path, write_json


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="ascii"))


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_file_follows_every_change(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.json"
    kept = Results("01_x", run="k3v9qa", seed=7, path=path)
    kept.expect_checks(["a", "b"])
    assert (read(path)["checks_passed"], read(path)["checks_total"]) == (0, 2)
    assert [each["outcome"] for each in read(path)["checks"]] == ["not run", "not run"]
    kept.check(CheckResult("a", "failed", "1 of 2"))
    kept.check(CheckResult("a", "passed", "2 of 2"))
    kept.check(CheckResult("b", "not attempted"))
    kept.prediction("seen", question="How many?")
    kept.prediction("seen", predicted=2, actual=1)
    kept.shown_wrong("polling", "1 of 2 lost.")
    kept.measure("round_trip", 4.1, "ms")
    document = read(path)
    assert document["checks"] == [
        {"name": "a", "outcome": "passed", "detail": "2 of 2"}, {"name": "b", "outcome": "not attempted", "detail": ""},
    ]  # fmt: skip
    assert (document["checks_passed"], document["checks_total"]) == (1, 2)
    assert document["predictions"] == [{"name": "seen", "question": "How many?", "predicted": 2, "actual": 1}]
    assert document["wrong"] == [{"title": "polling", "shown": "1 of 2 lost."}]
    assert document["measured"] == {"round_trip": {"value": 4.1, "unit": "ms"}}
    assert (document["lesson"], document["run"], document["seed"], document["finished"]) == ("01_x", "k3v9qa", 7, False)


def test_the_clock_stops_at_the_end(tmp_path: Path) -> None:
    kept = Results("x", path=tmp_path / "x.json")
    early = kept.seconds
    assert kept.seconds >= early
    kept.finish()
    assert kept.finished
    assert kept.seconds == kept.seconds
    assert read(tmp_path / "x.json")["seconds"] == round(kept.seconds, 3)


def test_values_that_json_does_not_know() -> None:
    class Number:
        def item(self) -> int:
            return 5

    plain = [
        (Decimal("3"), 3), (Decimal("9.90"), 9.9), (Number(), 5), (Path("/x"), "/x"), (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ]  # fmt: skip
    for value, expected in plain:
        assert json.loads(json.dumps(value, default=results._plain)) == expected


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"n": 0})
    seen: set[int] = set()
    done = threading.Event()
    torn: list[Exception] = []

    def look() -> None:
        while not done.is_set():
            try:
                document = read(path)
                assert document["fill"] == "x" * 20_000 if document["n"] else True
                seen.add(document["n"])
            except Exception as error:  # noqa: BLE001
                torn.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1, 200):
        write_json(path, {"fill": "x" * 20_000, "n": number})
    done.set()
    reader.join(10)
    assert not reader.is_alive()
    assert torn == []
    assert len(seen) > 1
    assert names(tmp_path) == ["x.json"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"n": 1})

    class Unwritable:
        @property
        def item(self) -> object:
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_json(path, {"n": 2, "x": Unwritable()})
    assert read(path) == {"n": 1}
    assert names(tmp_path) == ["x.json"]


def test_the_file_can_be_read_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("obstacle", ["a file", "a directory"])
def test_a_place_that_cannot_be_written_is_said_once_and_the_lesson_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    # Not by permissions: root may write anywhere.
    if obstacle == "a file":
        (tmp_path / "results").write_text("", encoding="utf-8")
        path = tmp_path / "results" / "x.json"
    else:
        path = tmp_path / "x.json"
        path.mkdir()
    with caplog.at_level(logging.WARNING, logger="streamlab.lab.results"):
        kept = Results("x", path=path)
        kept.check(CheckResult("a", "passed"))
        kept.finish()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert kept.document()["checks_passed"] == 1
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_where_the_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path))
    assert default_path("01_x") == tmp_path / "01_x.json"
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "run 7.json"))
    assert default_path("01_x") == tmp_path / "run 7.json"
    (tmp_path / "odd.json").mkdir()
    monkeypatch.setenv("STREAMLAB_RESULTS", str(tmp_path / "odd.json"))
    assert default_path("01_x") == tmp_path / "odd.json" / "01_x.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMLAB_RESULTS", "here")
    assert default_path("01_x") == tmp_path / "here" / "01_x.json"
    monkeypatch.delenv("STREAMLAB_RESULTS")
    checkout = Path(results.__file__).resolve().parents[2]
    assert default_path("01_x") == checkout / "results" / "01_x.json"
    # Installed without a checkout around it.
    monkeypatch.setattr(results, "__file__", str(tmp_path / "site" / "streamlab" / "lab" / "results.py"))
    assert default_path("01_x") == tmp_path / "results" / "01_x.json"
    assert Results("01_x").path == tmp_path / "results" / "01_x.json"
