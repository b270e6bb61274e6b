"""Live pictures: a diagram that follows what happens, and ends as the static picture.

While a person looks on, the picture is an anywidget: Python sends `Drawn.scene`, and a few lines of JavaScript
(``view.js``) make the same elements of it that the static picture has. Marks of what is busy turn and what flows is
drawn as dashes that move, unless the reader prefers less motion. Closing the view puts the static picture in its place
and takes the widget, with its channel to the browser, away. In batch nothing is shown until then: one picture, at the
end.

Neither a thread nor a timer is behind it. It is called from the main thread alone; see `streamlab.lab.live`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from types import TracebackType
from typing import Any, Protocol, Self

from streamlab.errors import LessonError
from streamlab.lab.live import Rendered, Spot, in_kernel, is_live, show
from streamlab.lab.shapes import STYLE
from streamlab.lab.topology import ServiceState, topology

__all__ = ["DiagramView", "Drawn", "StackView"]

_LIVE = (
    ".sl-live .sl-diagram{display:block}"
    "@media (prefers-reduced-motion:no-preference){"
    ".sl-live .sl-flow{stroke-dasharray:7 5;animation:sl-flow 1s linear infinite}"
    ".sl-live .sl-spin{animation:sl-spin 1.2s linear infinite}}"
    "@keyframes sl-flow{to{stroke-dashoffset:-24}}"
    "@keyframes sl-spin{to{transform:rotate(360deg)}}"
)


class Drawn(Protocol):
    """A picture as `DiagramView` needs it: a `Diagram`, or another that is drawn with the same shapes."""

    def to_svg(self) -> str:
        """The picture as a static SVG."""
        ...

    def scene(self) -> list[Any]:
        """The picture as plain data, ``[tag, attributes, text, children]``."""
        ...

    def rendered(self) -> Rendered:
        """The picture for a cell's output."""
        ...


class DiagramView:
    """A diagram that can be replaced while it is shown: a context manager. For the main thread alone.

    Parameters
    ----------
    diagram : Drawn
        What is shown first.
    """

    def __init__(self, diagram: Drawn) -> None:
        self._diagram = diagram
        self._closed = False
        self._widget = _widget_class()(scene=diagram.scene()) if is_live() and in_kernel() else None
        self._spot: Spot | None = None
        if self._widget is not None:
            try:
                self._spot = Spot(replace(diagram.rendered(), view=_reference(self._widget)))
            except BaseException:  # an interrupt here must not leave a widget that nobody sees
                self._take_away()
                raise

    @property
    def diagram(self) -> Drawn:
        """What is shown now."""
        return self._diagram

    def update(self, diagram: Drawn) -> None:
        """Show another state of the same picture.

        Raises
        ------
        LessonError
            The view is closed.
        """
        if self._closed:
            raise LessonError("The picture is closed and no longer changes.", "Open a view of its own for this part.")
        self._diagram = diagram
        if self._widget is not None:
            self._widget.scene = diagram.scene()

    def to_svg(self) -> str:
        """The static twin of what is shown now."""
        return self._diagram.to_svg()

    def close(self) -> None:
        """End as the static picture. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        rendered: Rendered = self._diagram.rendered()
        try:
            if self._spot is None:
                show(rendered)
            else:
                self._spot.update(rendered)
        finally:
            self._take_away()

    def _take_away(self) -> None:
        if self._widget is not None:
            self._widget.layout.close()
            self._widget.close()
            self._widget = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StackView:
    """The stack while it changes: servers that come up, die and are started again.

    ::

        with StackView(only=["postgres"]) as view:
            view.update(stack.status(), progress={"postgres": "recovering"})

    A context manager. For the main thread alone.

    Parameters
    ----------
    only : iterable of str, optional
        The services that are drawn; by default all of them.
    """

    def __init__(self, only: Iterable[str] | None = None) -> None:
        self._only = None if only is None else tuple(only)
        self._view: DiagramView | None = None

    def update(self, states: Iterable[ServiceState], progress: Mapping[str, str] | None = None) -> None:
        """Show the states of the servers; the first call makes the picture appear.

        Parameters
        ----------
        states : iterable of ServiceState
            Rows of `streamlab.stack.Stack.status()`.
        progress : mapping, optional
            What is being done for a service that is on its way up.

        Raises
        ------
        LessonError
            The view is closed.
        """
        diagram = topology(states, self._only, progress)
        if self._view is None:
            self._view = DiagramView(diagram)
        else:
            self._view.update(diagram)

    def close(self) -> None:
        """End as the static picture, where there was one. A second call does nothing."""
        if self._view is not None:
            self._view.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reference(widget: Any) -> dict[str, Any]:
    data, _ = widget._repr_mimebundle_()
    return {kind: value for kind, value in data.items() if kind != "text/plain"}


@cache
def _widget_class() -> Any:
    # Loaded where a person looks on: a batch run needs no widgets.
    import anywidget
    import traitlets

    # Text and not a path: anywidget watches a file in a thread while it develops.
    script = resources.files("streamlab.lab").joinpath("view.js").read_text(encoding="utf-8")

    class Picture(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """The widget; its only state is the scene."""

        _esm = script
        _css = STYLE + _LIVE
        scene: Any = traitlets.List().tag(sync=True)

    return Picture
