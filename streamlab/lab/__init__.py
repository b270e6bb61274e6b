"""The lesson machinery: what a notebook of the course imports, and what its tests and tools use.

::

    from streamlab.lab import lesson

    lab = lesson("00_start_here", needs=["postgres", "mysql", "kafka", "connect"])
    ...
    lab.close()

Importing this starts nothing; IPython, widgets and drivers are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlab.lab.checks import WrongAnswer as WrongAnswer
    from streamlab.lab.checks import checker as checker
    from streamlab.lab.checks import missed as missed
    from streamlab.lab.checks import passed as passed
    from streamlab.lab.diagram import Diagram as Diagram
    from streamlab.lab.diagram import Edge as Edge
    from streamlab.lab.diagram import Node as Node
    from streamlab.lab.explore import Explorer as Explorer
    from streamlab.lab.inspector import Inspector as Inspector
    from streamlab.lab.lessons import Lesson as Lesson
    from streamlab.lab.lessons import lesson as lesson
    from streamlab.lab.live import is_live as is_live
    from streamlab.lab.lsn import LSNTimeline as LSNTimeline

_HOMES = {
    "Diagram": "diagram",
    "Edge": "diagram",
    "Explorer": "explore",
    "Inspector": "inspector",
    "LSNTimeline": "lsn",
    "Lesson": "lessons",
    "Node": "diagram",
    "WrongAnswer": "checks",
    "checker": "checks",
    "is_live": "live",
    "lesson": "lessons",
    "missed": "checks",
    "passed": "checks",
}

__all__ = [
    "Diagram",
    "Edge",
    "Explorer",
    "Inspector",
    "LSNTimeline",
    "Lesson",
    "Node",
    "WrongAnswer",
    "checker",
    "is_live",
    "lesson",
    "missed",
    "passed",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'streamlab.lab' has no attribute {name!r}") from None
    return getattr(import_module(f"streamlab.lab.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
