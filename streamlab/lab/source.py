"""The package's own code, shown from the object itself: never a copy that could drift.

A lesson shows the source of the piece that it teaches, with the file and lines that it came from.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from streamlab.errors import LessonError
from streamlab.lab.live import Rendered

__all__ = ["render"]

# Jupyter's own variables where they are (they follow the theme), else colours that keep 4.5:1 on white.
_COLOURS = {
    ("k", "kc", "kd", "kn", "kr", "ow"): ("--jp-mirror-editor-keyword-color", "#00712d", "font-weight:600"),
    ("s", "s1", "s2", "sa", "sd", "si", "se", "sb"): ("--jp-mirror-editor-string-color", "#ad1f1f", ""),
    ("c", "c1", "cm", "ch"): ("--jp-mirror-editor-comment-color", "#39707a", "font-style:italic"),
    ("mi", "mf", "mh", "mb", "mo"): ("--jp-mirror-editor-number-color", "#12713c", ""),
    ("nf", "nc", "fm"): ("--jp-mirror-editor-def-color", "#1a4fd6", ""),
    ("nd",): ("--jp-mirror-editor-meta-color", "#8225c2", ""),
    ("nb", "bp"): ("--jp-mirror-editor-builtin-color", "#00712d", ""),
}


def render(*objects: Any, docstrings: bool = True) -> Rendered:
    """The source of classes, functions, methods or modules, highlighted.

    Parameters
    ----------
    *objects : class, function, method, property or module
        What to show, in this order.
    docstrings : bool
        False leaves the docstrings out, where the lesson has said it already.

    Raises
    ------
    LessonError
        An object has no Python source, such as an instance or something built in.
    """
    parts = [_one(obj, docstrings=docstrings) for obj in objects]
    text = "\n\n".join(f"# {where}\n{code}" for where, code in parts)
    style = "".join(_rule(names, *look) for names, look in _COLOURS.items())
    html = "".join(
        f'<figure class="sl-source"><figcaption>{escape(where)}</figcaption>{_highlight(code)}</figure>'
        for where, code in parts
    )
    return Rendered(text, f"<style>{_STYLE}{style}</style>{html}")


# Jupyter gives code a background and breaks its lines; three classes are stronger than its rules.
_SOURCE = ".sl-source.sl-source.sl-source"
_STYLE = (
    ".sl-source{margin:.35em 0;max-width:62em}.sl-source figcaption{font-size:.92em;opacity:.82;margin:0 0 .15em}"
    f"{_SOURCE} pre{{margin:0;padding:.6em .9em;line-height:1.4;overflow-x:auto;border-radius:3px;white-space:pre;"
    "background:rgba(128,140,152,.09);font-size:.95em}"
    f"{_SOURCE} code,{_SOURCE} .highlight{{background:none;padding:0;white-space:pre}}"
)


def _rule(names: tuple[str, ...], variable: str, colour: str, extra: str) -> str:
    selectors = ",".join(f".sl-source .{name}" for name in names)
    return f"{selectors}{{color:var({variable},{colour});{extra}}}"


def _one(obj: Any, *, docstrings: bool) -> tuple[str, str]:
    target: Any = inspect.unwrap(obj.fget if isinstance(obj, property) and obj.fget is not None else obj)
    try:
        lines, start = inspect.getsourcelines(target)
        file = inspect.getsourcefile(target)
    except (OSError, TypeError) as error:
        raise LessonError(
            f"There is no Python source for {obj!r}.", "Give source() a class, a function, a method or a module."
        ) from error
    code = textwrap.dedent("".join(lines)).rstrip()
    if not docstrings:
        code = _without_docstrings(code)
    start = max(start, 1)
    name = getattr(target, "__qualname__", getattr(target, "__name__", ""))
    if isinstance(target, ModuleType):
        return _place(file), code
    return f"{_place(file)}, line {start}: {name}", code


def _place(file: str | None) -> str:
    """The file as a reader finds it: ``streamlab/cdc/postgres.py``, wherever the checkout lies."""
    if not file or file.startswith("<"):
        return "this notebook"
    path = Path(file)
    for parent in path.parents:
        if not (parent / "__init__.py").exists():
            return path.relative_to(parent).as_posix() if parent != path.parent else _kernel_file(path)
    return path.name


def _kernel_file(path: Path) -> str:
    # ipykernel names a cell's code after a temporary file of its own.
    return "this notebook" if "ipykernel_" in path.parent.name else path.name


def _without_docstrings(code: str) -> str:
    import ast

    lines = code.splitlines()
    drop: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        # A body that is nothing but its docstring needs it to stay Python.
        if len(node.body) < 2 or ast.get_docstring(node, clean=False) is None:
            continue
        first = node.body[0]
        last = first.end_lineno or first.lineno
        drop.update(range(first.lineno, last + 1))
        if last < len(lines) and not lines[last].strip():
            drop.add(last + 1)
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in drop)


def _highlight(code: str) -> str:
    from pygments import highlight  # type: ignore[import-untyped]
    from pygments.formatters.html import HtmlFormatter  # type: ignore[import-untyped]
    from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]

    render_html: Callable[..., str] = highlight
    return render_html(code, PythonLexer(), HtmlFormatter(nowrap=False, cssclass="highlight", wrapcode=True))
