"""SVG elements as plain data, and the colours that they have on light and dark pages.

Every shape carries its light colours as attributes, which the simplest renderer understands; a style sheet exchanges
them on a dark page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any

__all__ = ["STYLE", "Shape", "number", "shape"]

# Class -> (attribute, light, dark). The colours of states are Okabe and Ito's, moved until they keep 3:1 on the card.
_INK: dict[str, tuple[tuple[str, str, str], ...]] = {
    "panel": (("fill", "#ffffff", "#14191f"), ("stroke", "#dbe2e9", "#303a44")),
    "card": (("fill", "#f5f8fa", "#1e262e"), ("stroke", "#c3cdd7", "#465362")),
    "badcard": (("stroke", "#c4500b", "#ff9a5c"),),
    "title": (("fill", "#16202a", "#eef3f7"),),
    "text": (("fill", "#4d5a67", "#b4c0cb"),),
    "line": (("stroke", "#67788a", "#8fa1b3"),),
    "head": (("fill", "#67788a", "#8fa1b3"),),
    "halo": (("stroke", "#ffffff", "#14191f"),),
    "good": (("fill", "#0b72b5", "#4fb0ea"),),
    "busy": (("stroke", "#9a6700", "#e8b04a"),),
    "off": (("stroke", "#67788a", "#8fa1b3"),),
    "bad": (("fill", "#c4500b", "#ff9a5c"),),
    "other": (("fill", "#8253b5", "#c3a1ec"),),
    "sign": (("stroke", "#ffffff", "#14191f"),),
}


def _dark(scope: str) -> str:
    return "".join(
        f"{scope} .sl-{name}{{{';'.join(f'{attribute}:{dark}' for attribute, _, dark in rules)}}}"
        for name, rules in _INK.items()
    )


# A page that says which theme it has (JupyterLab, nbconvert, furo) is believed; else the reader's preference counts.
STYLE = (
    ".sl-diagram{max-width:100%;height:auto}"
    "@media (prefers-color-scheme:dark){"
    + _dark(".sl-diagram:not(:is([data-jp-theme-light=true],[data-theme=light]) *)")
    + "}"
    + _dark(":is([data-jp-theme-light=false],[data-theme=dark]) .sl-diagram")
)
"""The style sheet of a picture."""


# XML has no way to write these, not even escaped (XML 1.0, 2.2); one of them would make the whole picture unreadable.
_FORBIDDEN = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


@dataclass(frozen=True, slots=True)
class Shape:
    """One SVG element: tag, attributes, text, children."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: tuple[Shape, ...] = ()

    def data(self) -> list[Any]:
        """As plain data, for the browser: ``[tag, attributes, text, children]``."""
        return [self.tag, self.attributes, self.text, [child.data() for child in self.children]]

    def markup(self) -> str:
        """As SVG text."""
        attributes = "".join(f' {name}="{escape(_allowed(value))}"' for name, value in self.attributes.items())
        inner = escape(_allowed(self.text), quote=False) + "".join(child.markup() for child in self.children)
        return f"<{self.tag}{attributes}>{inner}</{self.tag}>" if inner else f"<{self.tag}{attributes}/>"


def shape(tag: str, ink: str = "", *children: Shape, text: str = "", **attributes: Any) -> Shape:
    """An element with the colours of its classes (``ink``: names, separated by spaces)."""
    found = {name.rstrip("_").replace("_", "-"): number(value) for name, value in attributes.items()}
    if ink:
        found["class"] = " ".join(f"sl-{name}" for name in ink.split())
        for name in ink.split():
            found |= {attribute: light for attribute, light, _ in _INK.get(name, ())}
    return Shape(tag, found, text, children)


def number(value: Any) -> str:
    """A coordinate as short as it is exact enough."""
    return f"{round(value, 1):g}" if isinstance(value, float) else str(value)
