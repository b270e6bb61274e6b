"""Runs lessons in batch with papermill, and leaves executed notebooks, HTML and a summary behind.

::

    runs/<time>/
      <lesson>.ipynb     as executed; also, and above all, when it failed
      <lesson>.html
      results/<lesson>.json
      summary.json       {"lessons": [{lesson, outcome, seconds, checks_passed, checks_total, error}], ...}
      index.html
"""

from __future__ import annotations

import ast
import difflib
import html
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamlab import __version__
from streamlab.errors import LessonError, UnknownParameter
from streamlab.lab import kernel

__all__ = [
    "Lesson",
    "LessonRun",
    "find",
    "lessons",
    "notebook_directory",
    "parameters_for",
    "parameters_of",
    "run_lessons",
    "typed",
]

CELL_LIMIT = 120
"""Seconds that one cell may take in batch."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A notebook and what its metadata says of it. Minutes of reading and of exercises."""

    slug: str
    path: Path
    title: str
    minutes: tuple[int, int]
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LessonRun:
    """How one lesson ended; the row of summary.json."""

    lesson: str
    outcome: str
    seconds: float
    checks_passed: int
    checks_total: int
    error: str


def notebook_directory() -> Path:
    """Where the lessons are: of this checkout, else below the working directory.

    Raises
    ------
    LessonError
        There are none.
    """
    for root in (Path(__file__).parents[2], Path.cwd(), *Path.cwd().parents):
        if any((root / "notebooks").glob("[0-9][0-9]*_*.ipynb")):
            return root / "notebooks"
    raise LessonError("There is no directory notebooks/ here.", "Run the command in a checkout of the project.")


def lessons() -> list[Lesson]:
    """Every lesson of the course, in order."""
    return [_read(path) for path in sorted(notebook_directory().glob("[0-9][0-9]*_*.ipynb"))]


def _read(path: Path) -> Lesson:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        about = notebook["metadata"].get("streamlab", {})
    except (OSError, ValueError, KeyError) as error:
        raise LessonError(
            f"{path} cannot be read as a notebook: {error}.", "Restore it: git checkout notebooks"
        ) from error
    reading, exercises = about.get("minutes", [0, 0])
    return Lesson(path.stem, path, about.get("title", path.stem), (reading, exercises), tuple(about.get("needs", ())))


def find(name: str) -> Lesson:
    """A lesson by its slug, its number (``03``; of an optional part ``03b``), or the path of a notebook.

    Raises
    ------
    LessonError
        No lesson is called so; the message names the nearest.
    """
    if name.endswith(".ipynb"):
        path = Path(name)
        if not path.is_file():
            raise LessonError(f"There is no notebook {name}.", "See: streamlab list")
        return _read(path)
    every = lessons()
    for lesson in every:
        if name in (lesson.slug, lesson.slug.partition("_")[0]):
            return lesson
    slugs = [lesson.slug for lesson in every]
    near = difflib.get_close_matches(name, slugs, n=1, cutoff=0.4)
    raise LessonError(
        f"There is no lesson called {name}.", f"Did you mean {near[0]}?" if near else f"Lessons: {', '.join(slugs)}."
    )


# -- parameters ---------------------------------------------------------------------------------------


def parameters_of(path: Path) -> dict[str, Any]:
    """The parameters of a notebook with their default values.

    A default that is no literal (``int(os.environ.get(...))``) is given as the text of its source.
    """
    import papermill

    found = papermill.inspect_notebook(str(path))
    values = {}
    for name, about in found.items():
        try:
            values[name] = ast.literal_eval(about["default"])
        except (ValueError, SyntaxError):
            values[name] = about["default"]
    return values


def parameters_for(chosen: Iterable[Lesson], given: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``name=value`` texts for several lessons: each gets those that it has, in its own types.

    Returns
    -------
    dict
        Slug -> values.

    Raises
    ------
    UnknownParameter
        None of the lessons has such a parameter; the nearest name is in the message.
    LessonError
        A text is no value of the type that a lesson's default has.
    """
    given = list(given)
    if not given:
        return {}
    defaults = {lesson.slug: parameters_of(lesson.path) for lesson in chosen}
    known = {name: value for each in defaults.values() for name, value in each.items()}
    texts = {}
    for text in given:
        name = _name(text, known)
        if name not in known:
            raise _unknown(
                f"{next(iter(defaults))} has no" if len(defaults) == 1 else "None of these lessons has a", name, known
            )
        texts[name] = text
    return {
        slug: typed(slug, each, [text for name, text in texts.items() if name in each])
        for slug, each in defaults.items()
    }


def typed(lesson: str, defaults: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """``name=value`` texts as values of the types that the defaults have.

    Raises
    ------
    UnknownParameter
        The lesson has no such parameter; the nearest name is in the message.
    LessonError
        A text is no value of the type.
    """
    values = {}
    for text in given:
        name = _name(text, defaults)
        if name not in defaults:
            raise _unknown(f"{lesson} has no", name, defaults)
        values[name] = _as(name, text.partition("=")[2], defaults[name])
    return values


def _name(text: str, known: Iterable[str]) -> str:
    name, sign, _ = text.partition("=")
    if not (name and sign):
        raise LessonError(f"-p {text} is not of the form name=value.", f"Parameters: {', '.join(known) or 'none'}.")
    return name


def _unknown(sentence: str, name: str, known: Iterable[str]) -> UnknownParameter:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Parameters: {', '.join(names) or 'none'}."
    return UnknownParameter(f"{sentence} parameter {name}.", hint)


def _as(name: str, text: str, default: Any) -> Any:
    kind = type(default)
    if kind is bool:
        if text.lower() not in {"true", "false", "yes", "no", "1", "0"}:
            raise LessonError(f"{name}={text}: {name} is true or false.", f"Its default is {default}.")
        return text.lower() in {"true", "yes", "1"}
    if kind in {int, float}:
        try:
            return kind(text)
        except ValueError:
            raise LessonError(
                f"{name}={text}: {name} is {'a whole number' if kind is int else 'a number'}.",
                f"Its default is {default}.",
            ) from None
    if default is None or kind in {list, tuple, dict, set}:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            if default is None:
                return text
            raise LessonError(
                f"{name}={text} is no {kind.__name__}.", f"Its default is {default!r}; write it like that."
            ) from None
    return text


# -- running ------------------------------------------------------------------------------------------


def run_lessons(
    chosen: Iterable[Lesson],
    folder: Path,
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callable[[Lesson, int, int], None] | None = None,
    finished: Callable[[LessonRun], None] | None = None,
) -> list[LessonRun]:
    """Execute lessons one after the other; a failure does not keep the next from running.

    Parameters
    ----------
    folder : Path
        Where the run leaves everything; made where it is missing.
    parameters : mapping, optional
        Slug of a lesson -> values for its parameters cell; see `parameters_for`.
    progress : callable, optional
        Called with the lesson, the cells done and the cells in all.
    """
    # Kernels run in the notebooks' own directory: a relative path would mean another place there.
    folder = folder.absolute()
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LessonError(f"{folder} cannot be made: {error.strerror}.", "Name another folder with --output.") from None
    runs: list[LessonRun] = []
    began = datetime.now(UTC)
    try:
        for lesson in chosen:
            begin = time.monotonic()
            try:
                run = _run_one(lesson, folder, dict((parameters or {}).get(lesson.slug, {})), progress)
            except KeyboardInterrupt:
                seconds = round(time.monotonic() - begin, 2)
                runs.append(LessonRun(lesson.slug, "failed", seconds, 0, 0, "Interrupted."))
                raise
            runs.append(run)
            if finished:
                finished(run)
    finally:
        _summarise(runs, folder, began)
    return runs


def _run_one(
    lesson: Lesson, folder: Path, parameters: dict[str, Any], progress: Callable[[Lesson, int, int], None] | None
) -> LessonRun:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from streamlab.lab import engine

    def told(done: int, total: int) -> None:
        if progress:
            progress(lesson, done, total)

    output = folder / f"{lesson.slug}.ipynb"
    results = folder / "results" / f"{lesson.slug}.json"
    begin = time.monotonic()
    outcome, error = "passed", ""
    with _environment({**kernel.environment(), "STREAMLAB_RESULTS": str(results)}):
        try:
            papermill.execute_notebook(
                str(lesson.path),
                str(output),
                parameters=parameters,
                engine_name=engine.register(told),
                progress_bar=False,
                execution_timeout=CELL_LIMIT,
                cwd=str(lesson.path.parent),
            )
        except PapermillExecutionError as failure:
            outcome, error = "failed", f"cell {failure.exec_count}: {failure.ename}: {failure.evalue}"
        except Exception as failure:  # noqa: BLE001 - a dead kernel, a timeout: the run must be told of all the same
            outcome, error = "failed", f"{type(failure).__name__}: {failure}"
    passed, total = _checks(results)
    _to_html(output)
    return LessonRun(lesson.slug, outcome, round(time.monotonic() - begin, 2), passed, total, error)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _checks(results: Path) -> tuple[int, int]:
    try:
        data = json.loads(results.read_text(encoding="utf-8"))
        return int(data["checks_passed"]), int(data["checks_total"])
    except (OSError, ValueError, KeyError):
        return 0, 0


def _to_html(notebook: Path) -> None:
    if not notebook.exists():
        return
    import nbformat
    from nbconvert import HTMLExporter

    document = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(document)
    notebook.with_suffix(".html").write_text(body, encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamlab run {began}</title>
<style>
 :root {{ color-scheme: light dark; }}
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; }}
 table {{ border-collapse: collapse; width: 100%; }}
 th, td {{ text-align: left; padding: .5rem .75rem; border-bottom: 1px solid #8884; vertical-align: top; }}
 td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
 .passed {{ color: #18794e; }} .failed {{ color: #cd2b31; }}
 pre {{ white-space: pre-wrap; margin: .25rem 0 0; font-size: .8rem; }}
</style>
<h1>{headline}</h1>
<p>{began} UTC · streamlab {version} · {seconds:.0f} s in all</p>
<table>
<tr><th>lesson</th><th>outcome</th><th class="n">seconds</th><th class="n">checks passed</th><th>files</th></tr>
{rows}
</table>
</html>
"""


def _summarise(runs: list[LessonRun], folder: Path, began: datetime) -> None:
    summary = {
        "started": began.isoformat(timespec="seconds"),
        "version": __version__,
        "lessons": [asdict(run) for run in runs],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    rows = []
    for run in runs:
        sign = "✓" if run.outcome == "passed" else "✗"
        detail = f"<pre>{html.escape(run.error[:2000])}</pre>" if run.error else ""
        rows.append(
            f'<tr><td>{html.escape(run.lesson)}</td><td class="{run.outcome}">{sign} {run.outcome}{detail}</td>'
            f'<td class="n">{run.seconds:.1f}</td><td class="n">{run.checks_passed} of {run.checks_total}</td>'
            f'<td><a href="{run.lesson}.html">page</a> · <a href="{run.lesson}.ipynb">notebook</a></td></tr>'
        )
    failed = sum(run.outcome != "passed" for run in runs)
    headline = f"{failed} of {len(runs)} lessons failed" if failed else f"{len(runs)} lessons passed"
    page = _PAGE.format(
        began=began.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        headline=headline if len(runs) != 1 else headline.replace("lessons", "lesson"),
        seconds=sum(run.seconds for run in runs),
        rows="\n".join(rows),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
