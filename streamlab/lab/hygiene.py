"""Notebooks as git should hold them: no outputs, nothing of the kernel that ran them, the same bytes every time.

`clean` gives a notebook its normal form; `findings` says what is not in it, and which rules for lessons
a file breaks that no program can mend. What is kept and what goes:

- Outputs stay on code cells that ask nbval to compare them (the tag ``nbval-check-output``, or a comment
  ``# NBVAL_CHECK_OUTPUT``), with the count that a run from top to bottom gives: nbval skips the comparison
  for a cell without a count, and refuses outputs without one. Everywhere else outputs and counts go.
- Of the metadata, the kernel's name and language stay (papermill needs them), and cells' tags.
- Ids stay as they are; a missing or repeated one is derived from the cell's own text.
- Text is written with ``\\u`` escapes, so that the file is ASCII and reads the same in every locale.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamlab.errors import LessonError

__all__ = [
    "LONGEST_CELL",
    "MOST_CELLS",
    "Finding",
    "clean",
    "dump",
    "findings",
    "is_lesson",
    "load",
    "notebooks",
    "tidy",
]

Notebook = dict[str, Any]

LONGEST_CELL = 12
"""Most lines of a lesson's code cell: what is longer belongs into the package, or into two cells."""

MOST_CELLS = 35
"""Of a lesson: what has more is two lessons."""

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CHECKED = re.compile(r"^\s*#\s*NBVAL_CHECK_OUTPUT\b", re.MULTILINE | re.IGNORECASE)
_WIDGETS = "application/vnd.jupyter.widget"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a notebook. `cell` counts from 1; 0 is the file as a whole."""

    path: Path
    cell: int
    rule: str
    message: str
    mended: bool
    """Whether `clean` puts it right."""

    def __str__(self) -> str:
        where = f"{self.path}, cell {self.cell}" if self.cell else str(self.path)
        return f"{where}: {self.message} [{self.rule}]"


# -- files --------------------------------------------------------------------------------------------


def notebooks(paths: Iterable[Path]) -> Iterator[Path]:
    """The notebooks that paths name: files as they are, directories searched, checkpoints left out.

    Raises
    ------
    LessonError
        A path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
        elif path.exists():
            yield path
        else:
            raise LessonError(f"There is no {path}.", "Name notebooks, or directories of notebooks.")


def load(path: Path) -> Notebook:
    """Read a notebook of format 4.

    Raises
    ------
    LessonError
        The file is no such notebook.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LessonError(f"{path} is not JSON: {error}.", "Restore it from git.") from error
    if not isinstance(document, dict) or document.get("nbformat") != 4 or not isinstance(document.get("cells"), list):
        raise LessonError(f"{path} is no notebook of format 4.", "Open and save it in JupyterLab.")
    return document


def dump(notebook: Notebook) -> str:
    """The text of a notebook's file."""
    return json.dumps(notebook, indent=1, ensure_ascii=True, sort_keys=True) + "\n"


def is_lesson(path: Path) -> bool:
    """Whether the rules for lessons apply: the name begins with a number, and a letter where it is an optional part.

    So ``00_start_here.ipynb`` and ``01b_postgres_cdc_deeper.ipynb``.
    """
    return re.match(r"\d\d[a-z]?_", path.name) is not None


def tidy(path: Path) -> bool:
    """Rewrite a notebook in its normal form; whether that changed the file."""
    before = path.read_bytes()
    after = dump(clean(load(path))).encode("ascii")
    if after == before:
        return False
    path.write_bytes(after)
    return True


# -- the normal form ----------------------------------------------------------------------------------


def clean(notebook: Notebook) -> Notebook:
    """The normal form of a notebook; the one given is left as it is. `clean(clean(n)) == clean(n)`."""
    cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    while cells and not _source(cells[-1]).strip():
        cells.pop()
    taken: set[str] = set()
    count = 0
    result = []
    for cell in cells:
        count += cell.get("cell_type") == "code"
        result.append(_clean_cell(cell, count, taken))
    kept = notebook.get("metadata", {})
    metadata: dict[str, Any] = {"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}
    if isinstance(kept.get("streamlab"), dict):
        metadata["streamlab"] = kept["streamlab"]
    return {"cells": result, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _source(cell: Notebook) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _clean_cell(cell: Notebook, count: int, taken: set[str]) -> Notebook:
    source = _source(cell).replace("\r\n", "\n").rstrip("\n")
    kind = cell.get("cell_type", "raw")
    result: Notebook = {
        "cell_type": kind,
        "id": _id(cell, source, taken),
        "metadata": _cell_metadata(cell),
        "source": source.splitlines(keepends=True),
    }
    if kind == "code":
        outputs = _outputs(cell, count) if _is_checked(cell) else []
        result["outputs"] = outputs
        result["execution_count"] = count if outputs else None
    elif cell.get("attachments"):
        result["attachments"] = cell["attachments"]
    return result


def _cell_metadata(cell: Notebook) -> dict[str, Any]:
    tags = cell.get("metadata", {}).get("tags")
    return {"tags": list(dict.fromkeys(tags))} if isinstance(tags, list) and tags else {}


def _id(cell: Notebook, source: str, taken: set[str]) -> str:
    name = cell.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name) or name in taken:
        digest = hashlib.sha256(f"{cell.get('cell_type')}\0{source}".encode()).hexdigest()
        # Two cells with the same text still need two ids.
        name = next(n for i in range(len(taken) + 1) if (n := f"{digest[:8]}{f'-{i}' if i else ''}") not in taken)
    taken.add(name)
    return name


def _tags(cell: Notebook) -> list[str]:
    tags = cell.get("metadata", {}).get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _is_checked(cell: Notebook) -> bool:
    return "nbval-check-output" in _tags(cell) or _CHECKED.search(_source(cell)) is not None


def _outputs(cell: Notebook, count: int) -> list[Notebook]:
    kept: list[Notebook] = []
    for output in cell.get("outputs", []):
        kind = output.get("output_type")
        if kind == "stream":
            name, text = output.get("name", "stdout"), _joined(output.get("text", ""))
            if name == "stderr":
                continue  # warnings differ from machine to machine, and nbval refuses new ones anyway
            if kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] = _lines(_joined(kept[-1]["text"]) + text)
            else:
                kept.append({"output_type": "stream", "name": name, "text": _lines(text)})
        elif kind in {"execute_result", "display_data"}:
            data = {
                mime: _lines(_joined(value)) if mime.startswith("text/") or mime == "image/svg+xml" else value
                for mime, value in output.get("data", {}).items()
                if not mime.startswith(_WIDGETS)  # names a model that died with its kernel
            }
            entry: Notebook = {"output_type": kind, "data": data, "metadata": {}}
            if kind == "execute_result":
                entry["execution_count"] = count
            kept.append(entry)
    return kept


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


# -- what is wrong ------------------------------------------------------------------------------------


def findings(path: Path, *, lesson: bool | None = None) -> list[Finding]:
    """What is wrong with a notebook: what `clean` would change, and the rules for lessons that it breaks.

    Parameters
    ----------
    lesson : bool, optional
        Whether the rules for lessons apply; by default where the file's name says so.
    """
    raw = path.read_bytes()
    notebook = load(path)
    found = [Finding(path, cell, rule, message, mended=True) for cell, rule, message in _dirt(notebook, raw)]
    normal = dump(clean(notebook)).encode("ascii")
    if raw != normal and not found:
        found.append(Finding(path, 0, "form", "The file is not written in the normal form.", mended=True))
    if is_lesson(path) if lesson is None else lesson:
        found += [Finding(path, cell, rule, message, mended=False) for cell, rule, message in _broken_rules(notebook)]
    return sorted(found, key=lambda finding: (finding.cell, finding.rule))


def _dirt(notebook: Notebook, raw: bytes) -> Iterator[tuple[int, str, str]]:
    if not raw.isascii():
        yield 0, "ascii", "The file holds characters that are not ASCII."
    metadata = notebook.get("metadata", {})
    wanted = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    if {key: value for key, value in metadata.items() if key != "streamlab"} != wanted:
        yield 0, "metadata", "The notebook's metadata are those of one kernel or tool."
    taken: set[str] = set()
    count = 0
    for number, cell in enumerate(notebook["cells"], 1):
        if (name := cell.get("id")) in taken or not isinstance(name, str):
            yield number, "id", "The cell has no id of its own."
        taken.add(str(name))
        if cell.get("metadata", {}) != _cell_metadata(cell):
            yield number, "metadata", "The cell's metadata hold more than tags."
        if cell.get("cell_type") != "code":
            continue
        count += 1
        keep = _outputs(cell, count) if _is_checked(cell) else []
        if cell.get("outputs") and not keep:
            yield number, "output", "The cell has outputs, but is not tagged nbval-check-output."
        if cell.get("execution_count") != (count if keep else None):
            yield number, "count", "The execution count is not the one of a run from top to bottom."
    if notebook["cells"] and not _source(notebook["cells"][-1]).strip():
        yield len(notebook["cells"]), "empty", "The last cell is empty."


def _broken_rules(notebook: Notebook) -> Iterator[tuple[int, str, str]]:
    cells = notebook["cells"]
    if len(cells) > MOST_CELLS:
        yield 0, "cells", f"The lesson has {len(cells)} cells; {MOST_CELLS} are the most."
    titles = [number for number, cell in enumerate(cells, 1) for _ in range(_titles(cell))]
    if titles != [1]:
        yield 1, "title", f"A lesson has one H1, in its first cell; this one has {len(titles)} (cells {titles or '-'})."
    about = notebook.get("metadata", {}).get("streamlab", {})
    if missing := [name for name in ("title", "minutes", "needs") if not about.get(name)]:
        yield (
            0,
            "about",
            f"The metadata `streamlab` of a lesson tell its title, minutes and needs; {', '.join(missing)} missing.",
        )
    parameters = [n for n, cell in enumerate(cells, 1) if "parameters" in _tags(cell) and cell["cell_type"] == "code"]
    if len(parameters) != 1:
        yield 0, "parameters", f"A lesson has one code cell tagged parameters; this one has {len(parameters)}."
    for number, cell in enumerate(cells, 1):
        if cell.get("cell_type") != "code":
            continue
        lines = len(_source(cell).strip("\n").splitlines())
        if lines > LONGEST_CELL:
            yield number, "length", f"The code cell has {lines} lines; {LONGEST_CELL} are the most."
        if _is_checked(cell) and not _outputs(cell, 1):
            yield number, "unchecked", "The cell asks for its output to be checked, but no output is kept."


def _titles(cell: Notebook) -> int:
    """How many H1 headings a Markdown cell has; ``#`` within a fenced block is no heading."""
    if cell.get("cell_type") != "markdown":
        return 0
    count, fence = 0, ""
    for line in _source(cell).splitlines():
        if mark := re.match(r"\s{0,3}(```+|~~~+)", line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        elif not fence and re.match(r"\s{0,3}#\s", line):
            count += 1
    return count
