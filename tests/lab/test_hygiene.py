"""Notebooks as git should hold them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlab.errors import LessonError
from streamlab.lab import hygiene
from streamlab.lab.hygiene import clean, dump, findings

Notebook = dict[str, Any]


def code(source: str = "x = 1", *, tags: list[str] | None = None, outputs: list[Any] | None = None, **more: Any) -> Any:
    cell = {
        "cell_type": "code",
        "id": more.pop("id", f"c{abs(hash(source)) % 10**8}"),
        "metadata": {"tags": tags} if tags else {},
        "source": source.splitlines(keepends=True),
        "outputs": outputs or [],
        "execution_count": None,
    }
    return cell | more


def text(source: str, **more: Any) -> Any:
    return {"cell_type": "markdown", "id": more.pop("id", f"m{abs(hash(source)) % 10**8}"), "metadata": {},
            "source": source.splitlines(keepends=True)} | more  # fmt: skip


ABOUT = {"title": "A question", "minutes": [10, 5], "needs": ["postgres"]}


def notebook(*cells: Any, **metadata: Any) -> Notebook:
    return {
        "cells": list(cells), "nbformat": 4, "nbformat_minor": 5,
        "metadata": {"kernelspec": dict(hygiene.KERNEL), "language_info": dict(hygiene.LANGUAGE), "streamlab": ABOUT}
        | metadata,
    }  # fmt: skip


def lesson(*cells: Any) -> Notebook:
    return notebook(text("# 1 \u00b7 A question"), code("rows = 3", tags=["parameters"]), *cells)


def stream(text: str, name: str = "stdout") -> Any:
    return {"output_type": "stream", "name": name, "text": text.splitlines(keepends=True)}


def result(count: int, **data: Any) -> Any:
    return {"output_type": "execute_result", "execution_count": count, "metadata": {"x": 1}, "data": data}


def rules(path: Path, document: Notebook, raw: str | None = None, **kind: bool) -> list[tuple[int, str, bool]]:
    path.write_text(dump(document) if raw is None else raw, encoding="utf-8")
    return [(found.cell, found.rule, found.mended) for found in findings(path, **kind)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "01_question.ipynb"


# -- each rule ----------------------------------------------------------------------------------------


def test_a_clean_lesson_has_no_findings(path: Path) -> None:
    assert rules(path, lesson(code("1 + 1"))) == []
    assert not hygiene.tidy(path)


DIRTY = {
    "output": (lesson(code("1", outputs=[stream("1\n")])), (3, "output")),
    "count": (lesson(code("1", execution_count=7)), (3, "count")),
    "cell metadata": (lesson(code("1", metadata={"scrolled": True})), (3, "metadata")),
    "metadata": (notebook(text("# T"), code("a", tags=["parameters"]), widgets={}), (0, "metadata")),
    "kernel": (
        notebook(text("# T"), code("a", tags=["parameters"]), kernelspec={"name": "my-env", "display_name": "x"}),
        (0, "metadata"),
    ),
    "missing id": (lesson({k: v for k, v in code("1").items() if k != "id"}), (3, "id")),
    "repeated id": (lesson(code("1", id="same"), code("2", id="same")), (4, "id")),
    "empty": (lesson(code("1"), code("")), (4, "empty")),
    "checked count": (
        lesson(code("1", tags=["nbval-check-output"], outputs=[stream("1\n")], execution_count=9)),
        (3, "count"),
    ),
}


@pytest.mark.parametrize("name", DIRTY)
def test_dirt_is_found_and_mended(name: str, path: Path) -> None:
    document, (cell, rule) = DIRTY[name]
    assert (cell, rule, True) in rules(path, document)
    assert hygiene.tidy(path)
    assert findings(path) == []


def test_the_file_itself(path: Path) -> None:
    document = lesson(text("caf\u00e9"))
    raw = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    assert rules(path, document, raw) == [(0, "ascii", True)]
    assert rules(path, document, json.dumps(document)) == [(0, "form", True)]
    assert rules(path, document, dump(document).replace("\n", "\r\n")) != []
    assert hygiene.tidy(path)
    assert findings(path) == []


BROKEN = {
    "no title": (notebook(text("## Two"), code("a", tags=["parameters"])), (1, "title")),
    "two titles": (lesson(text("# Another")), (1, "title")),
    "title later": (notebook(text("Hello"), text("# T"), code("a", tags=["parameters"])), (1, "title")),
    "no parameters": (notebook(text("# T"), code("a")), (0, "parameters")),
    "two parameters": (lesson(code("b", tags=["parameters"])), (0, "parameters")),
    "parameters in text": (
        notebook(text("# T"), text("a", metadata={"tags": ["parameters"]})), (0, "parameters"),
    ),
    "nothing about it": (notebook(text("# T"), code("a", tags=["parameters"]), streamlab={}), (0, "about")),
    "no minutes": (
        notebook(text("# T"), code("a", tags=["parameters"]), streamlab={**ABOUT, "minutes": None}), (0, "about"),
    ),
    "many cells": (lesson(*(code(f"x = {n}") for n in range(34))), (0, "cells")),
    "long cell": (lesson(code("\n".join(f"x = {n}" for n in range(13)))), (3, "length")),
    "nothing to compare": (lesson(code("# NBVAL_CHECK_OUTPUT\n1")), (3, "unchecked")),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_rules_for_lessons(name: str, path: Path) -> None:
    document, (cell, rule) = BROKEN[name]
    assert rules(path, document) == [(cell, rule, False)]
    assert rules(path, document, lesson=False) == []
    assert rules(path.with_name("scratch.ipynb"), document) == []
    assert not hygiene.tidy(path)


def test_twelve_lines_are_allowed_and_a_hash_in_a_fence_is_no_title(path: Path) -> None:
    twelve = code("\n".join(f"x = {n}" for n in range(12)) + "\n")
    twelve["source"][-1] = "x = 11"
    fenced = text("```sh\n# not a title\n```\n~~~\n```\n# nor this\n~~~\n    # code\n## a section")
    assert rules(path, lesson(twelve, fenced)) == []
    assert (1, "title", False) in rules(path, lesson(text("```\nx\n```\n# a title")))


def test_a_finding_says_where(path: Path) -> None:
    path.write_text(dump(lesson(code("1", execution_count=7))), encoding="utf-8")
    (found,) = findings(path)
    assert str(found) == f"{path}, cell 3: The execution count is not the one of a run from top to bottom. [count]"


# -- outputs that are kept ----------------------------------------------------------------------------


def test_outputs_that_are_compared_stay_with_the_count_of_a_whole_run() -> None:
    outputs = [
        stream("a\n"), stream("b\n"), stream("Warning: old\n", "stderr"),
        result(40, **{"text/plain": "1", "application/vnd.jupyter.widget-view+json": {"model_id": "dead"}}),
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []},
    ]  # fmt: skip
    document = lesson(code("x"), code("# nbval_check_output\n1", outputs=outputs, execution_count=40))
    cell = clean(document)["cells"][3]
    assert cell["execution_count"] == 3
    assert cell["outputs"] == [
        stream("a\nb\n"),
        {"output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": {"text/plain": ["1"]}},
    ]


def test_the_streamlab_metadata_and_attachments_stay() -> None:
    about = {"title": "T", "minutes": [10, 5]}
    document = notebook(text("# T", attachments={"a.png": {"image/png": "x"}}), streamlab=about, widgets={"x": 1})
    assert clean(document)["metadata"]["streamlab"] == about
    assert set(clean(document)["metadata"]) == {"kernelspec", "language_info", "streamlab"}
    assert clean(document)["cells"][0]["attachments"] == {"a.png": {"image/png": "x"}}


# -- properties ---------------------------------------------------------------------------------------

line = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
source = st.lists(line, max_size=4).map("\n".join)
bundle = st.dictionaries(st.sampled_from(["text/plain", "text/html", "application/json", "image/svg+xml"]), source)
output = st.one_of(
    st.builds(
        lambda t, n: {"output_type": "stream", "name": n, "text": t}, source, st.sampled_from(["stdout", "stderr"])
    ),
    st.builds(lambda d: {"output_type": "display_data", "data": d, "metadata": {"a": 1}}, bundle),
    st.builds(lambda d, n: result(n, **d), bundle, st.integers(0, 99)),
    st.just({"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}),
)
tags = st.lists(st.sampled_from(["parameters", "nbval-check-output", "exercise"]), max_size=3)


@st.composite
def cells(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["code", "markdown", "raw"]))
    body = draw(source)
    cell: Any = {
        "cell_type": kind,
        "metadata": draw(st.fixed_dictionaries({}, optional={"tags": tags, "scrolled": st.booleans()})),
        "source": draw(st.sampled_from([body, body.splitlines(keepends=True)])),
    }
    if draw(st.booleans()):
        cell["id"] = draw(st.sampled_from(["a", "b", "not an id!", ""]))
    if kind == "code":
        cell |= {"outputs": draw(st.lists(output, max_size=3)), "execution_count": draw(st.none() | st.integers(0, 50))}
    return cell


about = st.fixed_dictionaries({}, optional={"widgets": st.just({}), "streamlab": st.just({"title": "T"})})
documents = st.builds(lambda c, m: notebook(*c) | {"metadata": m}, st.lists(cells(), max_size=5), about)


@settings(max_examples=120, deadline=None)
@given(documents)
def test_the_normal_form(document: Notebook) -> None:
    given_before = copy.deepcopy(document)
    once = clean(document)
    assert document == given_before
    assert clean(once) == once
    assert dump(once).isascii()
    assert json.loads(dump(once)) == once
    ids = [cell["id"] for cell in once["cells"]]
    assert len(set(ids)) == len(ids)
    nbformat.validate(once)  # type: ignore[no-untyped-call]


@settings(max_examples=60, deadline=None)
@given(documents)
def test_what_was_cleaned_has_nothing_to_mend(tmp_path_factory: pytest.TempPathFactory, document: Notebook) -> None:
    path = tmp_path_factory.mktemp("nb") / "x.ipynb"
    path.write_text(json.dumps(document), encoding="utf-8")
    hygiene.tidy(path)
    assert findings(path) == []
    assert not hygiene.tidy(path)


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", ["", "{", "[]", '{"nbformat": 3, "cells": []}', '{"nbformat": 4}', '{"nbformat": 4, "cells": {}}']
)
def test_what_is_no_notebook_is_refused(raw: str, path: Path) -> None:
    path.write_text(raw, encoding="utf-8")
    with pytest.raises(LessonError, match="01_question.ipynb"):
        hygiene.load(path)


def test_directories_are_searched_without_checkpoints(tmp_path: Path) -> None:
    for name in ("b.ipynb", "a.ipynb", "c.py", ".ipynb_checkpoints/a-checkpoint.ipynb", "deep/d.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    found = [each.relative_to(tmp_path).as_posix() for each in hygiene.notebooks([tmp_path, tmp_path / "c.py"])]
    assert found == ["a.ipynb", "b.ipynb", "deep/d.ipynb", "c.py"]
    with pytest.raises(LessonError, match="There is no"):
        list(hygiene.notebooks([tmp_path / "gone"]))


def test_a_lesson_is_told_by_its_name() -> None:
    assert hygiene.is_lesson(Path("x/00_start_here.ipynb"))
    assert hygiene.is_lesson(Path("x/01b_deeper.ipynb"))
    assert not hygiene.is_lesson(Path("01bc_deeper.ipynb"))
    assert not hygiene.is_lesson(Path("00start.ipynb"))
    assert not hygiene.is_lesson(Path("scratch.ipynb"))
