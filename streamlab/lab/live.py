"""Where a lesson shows things, and how: a person's notebook, a batch run, or a plain interpreter.

Every piece of output has a twin in plain text, so that a terminal, a text browser or a diff of an
executed notebook says the same as the page. Output is sent from the main thread only: what other
threads send is lost or lands in whichever cell runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from streamlab import settings

__all__ = ["Rendered", "Spot", "details", "in_kernel", "is_live", "note", "show"]


def is_live() -> bool:
    """Whether a person looks at the notebook while it runs.

    True in JupyterLab and Notebook, which set ``JPY_SESSION_NAME`` for their kernels, and in Voila.
    False under papermill, nbval, nbconvert and in a plain interpreter. ``STREAMLAB_LIVE`` decides
    where it is set.
    """
    if (forced := settings.flag("STREAMLAB_LIVE")) is not None:
        return forced
    return bool(os.environ.get("JPY_SESSION_NAME")) or os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def _shell() -> Any:
    # IPython is never imported for this: where it is not loaded, there is no shell.
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel, so that rich output and widgets have somewhere to go."""
    return getattr(_shell(), "kernel", None) is not None


@dataclass(frozen=True, slots=True)
class Rendered:
    """One piece of output: plain text, and the same as HTML or SVG where a page shows it.

    As the last expression of a cell it displays itself.
    """

    text: str
    html: str = ""
    svg: str = ""
    alt: str = ""
    view: Mapping[str, Any] = field(default_factory=dict)
    """A widget's entry in the bundle, where a live view stands in for the picture."""

    def bundle(self) -> dict[str, Any]:
        """MIME type -> content; the richest one that a front end knows is shown."""
        data: dict[str, Any] = {"text/plain": self.text, **self.view}
        if self.html:
            data["text/html"] = self.html
        if self.svg:
            data["image/svg+xml"] = self.svg
        return data

    def metadata(self) -> dict[str, Any]:
        """Metadata of the bundle: the picture's alternative text."""
        return {"image/svg+xml": {"alt": self.alt}} if self.svg and self.alt else {}

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.bundle(), self.metadata()

    def __str__(self) -> str:
        return self.text


class Spot:
    """A place in a cell's output whose content can be replaced. For the main thread alone."""

    def __init__(self, rendered: Rendered) -> None:
        self._id = f"sl-{os.urandom(8).hex()}"
        self._last = rendered.text
        show(rendered, display_id=self._id)

    def update(self, rendered: Rendered) -> None:
        """Show something else in the same place; outside a kernel, only text that is new is written."""
        if _shell() is None and rendered.text == self._last:
            return
        self._last = rendered.text
        show(rendered, display_id=self._id, update=True)


def show(rendered: Rendered, *, display_id: str = "", update: bool = False) -> None:
    """Show output now, in the cell that runs; outside IPython its plain text goes to standard output."""
    if (shell := _shell()) is None:
        sys.stdout.write(rendered.text.rstrip("\n") + "\n")
        return
    transient = {"display_id": display_id} if display_id else None
    publish: Any = shell.display_pub.publish
    publish(data=rendered.bundle(), metadata=rendered.metadata(), transient=transient, update=update)


@dataclass(frozen=True, slots=True)
class _Kind:
    mark: str
    colour: str
    said: str


# The marks differ in shape, not in colour alone. The colours (Okabe and Ito's, darkened or lightened until
# they keep 3:1 on white and on near-black) are told apart with the common kinds of colour blindness.
_KINDS: Mapping[str, _Kind] = {
    "passed": _Kind("\u2713", "#1b7fc4", "passed"),
    "wrong": _Kind("\u2717", "#c8642a", "as expected"),
    "missed": _Kind("\u25b3", "#c8642a", "not yet"),
    "open": _Kind("\u25cb", "#7d8792", "not attempted"),
    "asked": _Kind("?", "#8a6fc0", "question"),
    "said": _Kind("\u2022", "#7d8792", "note"),
}

_NOTE_STYLE = (
    ".sl-note{display:grid;grid-template-columns:1.5em 1fr;gap:0 .35em;margin:.35em 0;padding:.5em .9em;"
    "border-left:3px solid;border-radius:3px;background:rgba(128,140,152,.09);line-height:1.45;max-width:62em;"
    "box-sizing:border-box}.sl-note>b{font-weight:700;text-align:center}.sl-note>div>span{display:block}"
    ".sl-note small{font-size:.92em;opacity:.82}"
)


def note(kind: str, headline: str, *lines: str) -> Rendered:
    """A short remark with a mark: a check's outcome, a failure that was expected, a question.

    Parameters
    ----------
    kind : str
        passed, wrong, missed, open, asked or said.
    headline : str
        One sentence.
    *lines : str
        What follows it, one line each. Empty ones are left out.
    """
    look = _KINDS[kind]
    rest = [line for line in lines if line]
    text = "\n".join([f"{look.mark} {headline}", *(f"  {part}" for line in rest for part in line.splitlines())])
    inner = "".join(f"<span><small>{escape(line).replace(chr(10), '<br>')}</small></span>" for line in rest)
    html = (
        f"<style>{_NOTE_STYLE}</style>"
        f'<div class="sl-note" role="note" aria-label="{look.said}" style="border-left-color:{look.colour}">'
        f'<b aria-hidden="true" style="color:{look.colour}">{look.mark}</b>'
        f"<div><span>{escape(headline)}</span>{inner}</div></div>"
    )
    return Rendered(text, html)


_DETAILS_STYLE = (
    ".sl-details{margin:.25em 0;max-width:62em}.sl-details>summary{cursor:pointer;padding:.15em 0}"
    ".sl-details>div{margin:.2em 0 .5em 1.1em;line-height:1.45;white-space:pre-line}"
)


def details(summary: str, text: str) -> Rendered:
    """Text that a reader unfolds; in plain text it stands below its summary."""
    indented = "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())
    html = (
        f"<style>{_DETAILS_STYLE}</style>"
        f'<details class="sl-details"><summary>{escape(summary)}</summary><div>{escape(text.strip())}</div></details>'
    )
    return Rendered(f"\u25b8 {summary}\n{indented}", html)
