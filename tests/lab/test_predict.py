"""Predictions: real widgets without a browser, and batch runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from IPython import display

from streamlab.errors import LessonError
from streamlab.lab.predict import Predictions
from streamlab.lab.results import Results


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    return Results("x", path=tmp_path / "x.json")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is displayed, by the real widgets; they are closed at the end."""
    boxes: list[Any] = []
    monkeypatch.setattr(display, "display", boxes.append)
    yield boxes
    ipywidgets.Widget.close_all()


def buttons(box: Any) -> ipywidgets.ToggleButtons:
    return box.children[1]


def facts(kept: Results) -> Any:
    assert kept.path is not None
    return json.loads(kept.path.read_text(encoding="ascii"))["predictions"]


def test_a_choice_is_kept_and_compared(kept: Results, shown: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked = Predictions(kept, live=True)
    asked.ask("seen", "orders seen by the poller?", [0, 1, 2], {2: "The last one came too late."})
    (box,) = shown
    assert [label for label, _ in buttons(box).options] == ["0", "1", "2"]
    assert buttons(box).value is None
    assert "orders seen by the poller?" in box.children[0].value
    buttons(box).value = 2
    assert facts(kept)[0]["predicted"] == 2
    assert asked.reveal("seen", 1) is False
    assert capsys.readouterr().out == (
        "\u25b3 orders seen by the poller: 1. You predicted 2.\n  The last one came too late.\n"
    )
    assert buttons(box).disabled
    assert {k: facts(kept)[0][k] for k in ("predicted", "actual", "right")} == {
        "predicted": 2, "actual": 1, "right": False,
    }  # fmt: skip


def test_a_mind_may_be_changed_until_the_value_is_shown(
    kept: Results, shown: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Predictions(kept, live=True)
    prediction = asked.ask("q", "Right?", [True, False])
    (box,) = shown
    assert [label for label, _ in buttons(box).options] == ["yes", "no"]
    buttons(box).value = 0
    buttons(box).value = 1
    buttons(box).value = None  # a button pressed out again takes nothing back
    assert prediction.chosen is False
    assert asked.reveal("q", False) is True
    assert "Right: no, as you predicted." in capsys.readouterr().out
    buttons(box).value = 0  # a message that was on its way
    prediction.choose(True)
    assert prediction.chosen is False
    assert facts(kept)[0]["predicted"] is False


def test_a_cell_that_is_run_again_asks_again(kept: Results, shown: list[Any]) -> None:
    asked = Predictions(kept, live=True)
    asked.ask("q", "Right?", ["a", "b"])
    buttons(shown[0]).value = 0
    asked.ask("q", "Right?", ["a", "b"])
    assert buttons(shown[0]).disabled
    assert not buttons(shown[1]).disabled
    buttons(shown[0]).value = 1
    assert asked.reveal("q", "a") is None


def test_close_makes_the_buttons_inert_and_keeps_the_choice(kept: Results, shown: list[Any]) -> None:
    asked = Predictions(kept, live=True)
    prediction = asked.ask("q", "Right?", ["a", "b"])
    buttons(shown[0]).value = 0
    asked.close()
    asked.close()
    assert buttons(shown[0]).disabled
    buttons(shown[0]).value = 1
    assert (prediction.chosen, buttons(shown[0]).index) == ("a", 1)


def test_in_batch_nobody_predicts(kept: Results, shown: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked = Predictions(kept, live=False)
    asked.ask("q", "How many", [1, 2], {1: "One too few."})
    assert asked.reveal("q", 2) is None
    assert shown == []
    assert capsys.readouterr().out.splitlines() == [
        "? How many? One of: 1, 2.", "  No prediction (batch run).", "\u2022 How many: 2.", "  Nothing was predicted.",
    ]  # fmt: skip
    assert facts(kept) == [{"name": "q", "question": "How many", "among": ["1", "2"], "actual": 2}]


def test_none_may_be_a_choice(kept: Results, shown: list[Any]) -> None:
    asked = Predictions(kept, live=True)
    asked.ask("q", "What is left?", [None, 1])
    buttons(shown[0]).value = 0
    assert asked.reveal("q", None) is True


def test_questions_that_cannot_be_asked(kept: Results) -> None:
    asked = Predictions(kept, live=False)
    with pytest.raises(LessonError, match="offers no choices"):
        asked.ask("q", "How many?", [])
    with pytest.raises(LessonError, match=r"Feedback for \{3\} is for no choice"):
        asked.ask("q", "How many?", [1, 2], {3: "?"})
    with pytest.raises(LessonError, match="Nothing called 'q' was predicted"):
        asked.reveal("q", 1)
    prediction = asked.ask("q", "How many?", [1, 2])
    with pytest.raises(LessonError, match="3 is not among the choices"):
        prediction.choose(3)
