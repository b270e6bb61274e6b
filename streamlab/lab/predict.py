"""Predict, run, explain: the reader commits to an answer before the machine gives one.

In a live notebook the choices are buttons, and what was chosen is compared when the lesson reveals
the value. In a batch run nobody predicts, which is said, and the lesson goes on. A choice that a
known misconception leads to gets an answer of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamlab.errors import LessonError
from streamlab.lab.live import Rendered, note, show
from streamlab.lab.results import Results

__all__ = ["Prediction", "Predictions"]

NOTHING: Any = type("Nothing", (), {"__repr__": lambda _self: "no prediction"})()
"""What was predicted where nobody did; not None, which may be a choice."""


@dataclass(slots=True)
class Prediction:
    """One question, and what was answered."""

    name: str
    question: str
    among: tuple[Any, ...]
    feedback: Mapping[Any, str] = field(default_factory=dict)
    chosen: Any = NOTHING
    revealed: bool = False
    disable: Callable[[], None] | None = None

    def choose(self, value: Any) -> None:
        """Take a choice; after the value was shown it no longer counts."""
        if self.revealed:
            return
        if value not in self.among:
            raise LessonError(f"{value!r} is not among the choices for {self.name!r}.", f"Choose from {self.among}.")
        self.chosen = value

    def compare(self, value: Any) -> Rendered:
        """Say what it is, and what was thought."""
        if self.chosen is NOTHING:
            return note("said", f"{self.question}: {_say(value)}.", "Nothing was predicted.")
        if self.chosen == value:
            return note("passed", f"{self.question}: {_say(value)}, as you predicted.")
        return note(
            "missed",
            f"{self.question}: {_say(value)}. You predicted {_say(self.chosen)}.",
            self.feedback.get(self.chosen, ""),
        )


class Predictions:
    """The predictions of one run of a lesson. For the main thread alone."""

    def __init__(self, results: Results, live: bool) -> None:
        self._results = results
        self._live = live
        self._all: dict[str, Prediction] = {}

    def ask(
        self, name: str, question: str, among: Sequence[Any], feedback: Mapping[Any, str] | None = None
    ) -> Prediction:
        """Ask; see `streamlab.lab.lessons.Lesson.predict`."""
        if not among:
            raise LessonError(f"The prediction {name!r} offers no choices.", "Give at least two in among=[...].")
        if odd := set(feedback or ()) - set(among):
            raise LessonError(f"Feedback for {odd} is for no choice of {name!r}.", f"Choices: {list(among)}.")
        prediction = Prediction(name, question.rstrip("?. "), tuple(among), dict(feedback or {}))
        if (earlier := self._all.get(name)) is not None and earlier.disable is not None:
            earlier.disable()  # the cell was run again: the old buttons no longer count
        self._all[name] = prediction
        self._results.prediction(name, question=question, among=[str(choice) for choice in among])
        if self._live:
            self._show_buttons(prediction)
        else:
            choices = ", ".join(_say(choice) for choice in among)
            show(note("asked", f"{prediction.question}? One of: {choices}.", "No prediction (batch run)."))
        return prediction

    def reveal(self, name: str, value: Any) -> bool | None:
        """Show the value and compare; True or False for right or wrong, None where nobody predicted."""
        prediction = self._all.get(name)
        if prediction is None:
            raise LessonError(f"Nothing called {name!r} was predicted.", f"Ask first: lab.predict({name!r}, ...).")
        prediction.revealed = True
        if prediction.disable is not None:
            prediction.disable()
        guessed = prediction.chosen is not NOTHING
        right = prediction.chosen == value if guessed else None
        facts = {"predicted": prediction.chosen, "right": right} if guessed else {}
        self._results.prediction(name, actual=value, **facts)
        show(prediction.compare(value))
        return right

    def close(self) -> None:
        """Make every button inert; what was chosen stays to be seen."""
        for prediction in self._all.values():
            if prediction.disable is not None:
                prediction.disable()

    def _show_buttons(self, prediction: Prediction) -> None:
        import ipywidgets as widgets
        from IPython import display

        buttons = widgets.ToggleButtons(
            options=[(_say(choice), index) for index, choice in enumerate(prediction.among)],
            value=None,
            tooltips=[f"Predict {_say(choice)}" for choice in prediction.among],
            style={"button_width": "auto"},
        )
        question = widgets.HTML(note("asked", prediction.question + "?", "Choose before you run the next cell.").html)

        def chosen(change: Mapping[str, Any]) -> None:
            if change["new"] is not None:
                prediction.choose(prediction.among[change["new"]])
                self._results.prediction(prediction.name, predicted=prediction.chosen)

        def disable() -> None:
            buttons.unobserve(chosen, names="value")
            buttons.disabled = True
            prediction.disable = None

        buttons.observe(chosen, names="value")
        prediction.disable = disable
        publish: Any = display.display
        publish(widgets.VBox([question, buttons]))


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
