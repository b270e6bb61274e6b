"""Code shown from the object itself."""

from __future__ import annotations

import ast
import html
import inspect
import re
import textwrap

import pytest

from streamlab.errors import LessonError
from streamlab.lab import live, source, table
from streamlab.lab.graph import Graph
from streamlab.lab.source import render


def code_of(page: str) -> str:
    """The code that a page shows, without its markup."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.partition("</figcaption>")[2].partition("</figure>")[0])).strip(
        "\n"
    )


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (live.note, "note"),
        (live.Spot, "Spot"),
        (live.Spot.update, "Spot.update"),
        (live.Spot(live.Rendered("x")).update, "Spot.update"),
    ],
)
def test_it_is_the_code_itself_with_its_place(shown: object, name: str) -> None:
    lines, start = inspect.getsourcelines(shown)  # type: ignore[arg-type]
    rendered = render(shown)
    code = textwrap.dedent("".join(lines)).rstrip()
    assert rendered.text == f"# streamlab/lab/live.py, line {start}: {name}\n{code}"
    assert code_of(rendered.html) == code
    assert f"<figcaption>streamlab/lab/live.py, line {start}: {name}</figcaption>" in rendered.html


def test_a_property_and_a_module() -> None:
    assert "def seconds(self) -> float:" in render(inspect.getattr_static(_results(), "seconds")).text
    assert render(source).text.startswith('# streamlab/lab/source.py\n"""The package\'s own code')


def _results() -> type:
    from streamlab.lab.results import Results

    return Results


def test_several_objects_in_order() -> None:
    text = render(table.cell_text, live.note).text
    assert text.index("def cell_text") < text.index("def note")


@pytest.mark.parametrize("shown", [Graph, live.note, live.Spot, source, table])
def test_docstrings_can_be_left_out_and_the_rest_stays(shown: object) -> None:
    whole = ast.parse(render(shown).text)
    bare = ast.parse(render(shown, docstrings=False).text)
    for node in ast.walk(whole):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            continue
        if len(node.body) > 1 and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    assert ast.dump(whole) == ast.dump(bare)


def test_a_body_of_nothing_but_its_docstring_keeps_it() -> None:
    assert '"""A prediction."""' in render(_OnlySaid, docstrings=False).text


class _OnlySaid:
    """A prediction."""


@pytest.mark.parametrize("shown", [len, 7, "text", live.Rendered("x"), int])
def test_what_has_no_python_source_is_refused(shown: object) -> None:
    with pytest.raises(LessonError, match="There is no Python source for"):
        render(shown)


def test_no_markup_of_the_code_reaches_the_page() -> None:
    page = render(live.details).html
    assert "<details" not in page
    assert "&lt;details" in page
