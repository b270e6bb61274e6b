"""Live pictures: what a browser draws is the static picture, and closing leaves nothing but that."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from lab.pictures import PICTURES, rows

from streamlab.cdc import LSN
from streamlab.errors import LessonError
from streamlab.lab import view as module
from streamlab.lab.lsn import timeline
from streamlab.lab.view import DiagramView, StackView

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def _batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_LIVE", "0")


def test_in_batch_one_picture_is_shown_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with DiagramView(PICTURES["starting"]) as view:
        view.update(PICTURES["running"])
        assert view.diagram is PICTURES["running"]
        assert view.to_svg() == PICTURES["running"].to_svg()
        assert capsys.readouterr().out == ""
    view.close()
    assert capsys.readouterr().out == PICTURES["running"].to_text() + "\n"


def test_a_block_that_fails_still_ends_with_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        with StackView(only=["postgres"]) as view:
            view.update(rows(postgres="starting"), {"postgres": "recovering"})
            raise KeyboardInterrupt
    assert "recovering" in capsys.readouterr().out


def test_a_stack_that_was_never_looked_at_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    StackView().close()
    assert capsys.readouterr().out == ""


def test_a_closed_view_no_longer_changes() -> None:
    view = StackView()
    view.update(rows())
    view.close()
    with pytest.raises(LessonError, match="no longer changes"):
        view.update(rows())


def test_batch_loads_no_widgets() -> None:
    code = (
        "import sys; from streamlab.lab.view import DiagramView; from streamlab.lab.diagram import Diagram\n"
        "DiagramView(Diagram.of(['a'])).close(); print({'anywidget', 'ipywidgets', 'IPython'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_script_is_package_data_of_a_few_kilobytes() -> None:
    script = resources.files("streamlab.lab").joinpath("view.js").read_text(encoding="utf-8")
    assert len(script) < 3000
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in script


# -- in a browser -------------------------------------------------------------------------------------

PAGE = """<!doctype html><meta charset="utf-8"><style>{style}</style><body><script type="module">
const module = await import("data:text/javascript;base64," + {script});
window.draw = (scenes) => {{
  const listeners = [];
  const model = {{
    scene: scenes[0], get: () => model.scene, on: (_, f) => listeners.push(f), off: () => listeners.pop(),
  }};
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  const leave = module.default.render({{ model, el }});
  const first = el.querySelector("svg");
  for (const scene of scenes.slice(1)) {{ model.scene = scene; listeners.forEach((f) => f()); }}
  const kept = first === el.querySelector("svg");
  const markup = el.innerHTML;
  const wide = [...el.querySelectorAll("g[data-node]")].flatMap((card) => {{
    const box = card.querySelector("rect").getBBox();
    return [...card.querySelectorAll("text")].filter((text) => {{
      const own = text.getBBox();
      const icon = card.querySelector(":scope > path.sl-line");
      const at = icon && icon.transform.baseVal.consolidate().matrix;
      if (at && own.y < at.f + 12 && own.x + own.width > at.e) return true;
      return own.x < box.x || own.x + own.width > box.x + box.width || own.y + own.height > box.y + box.height;
    }}).map((text) => text.textContent);
  }});
  const look = (name) => [...el.querySelectorAll(name)].map((each) => getComputedStyle(each).animationName);
  const moving = [...look(".sl-spin"), ...look(".sl-flow")];
  leave();
  return {{ kept, markup, wide, moving, listeners: listeners.length }};
}};
window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    import base64

    from playwright.sync_api import sync_playwright

    script = resources.files("streamlab.lab").joinpath("view.js").read_bytes()
    file = tmp_path_factory.mktemp("view") / "view.html"
    file.write_text(
        PAGE.format(style=module.STYLE + module._LIVE, script=json.dumps(base64.b64encode(script).decode())),
        encoding="utf-8",
    )
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            tab = browser.new_page()
            tab.goto(file.as_uri())
            tab.wait_for_function("window.ready")
            yield tab
        finally:
            browser.close()


def elements(markup: str) -> list[Any]:
    """A picture as nested lists, without the style sheet: the live one has the page's."""
    from xml.etree import ElementTree

    def data(element: ElementTree.Element) -> list[Any]:
        children = [data(child) for child in element if not child.tag.endswith("style")]
        return [element.tag, dict(sorted(element.attrib.items())), element.text or "", children]

    return data(ElementTree.fromstring(markup))  # noqa: S314  our own


@pytest.mark.acceptance
def test_a_browser_draws_the_static_picture_whatever_was_there_before(page: Any) -> None:
    pictures = [picture for name, picture in PICTURES.items() if name != "markup"]
    before = pictures[-1]
    for picture in pictures:
        drawn = page.evaluate("(scenes) => window.draw(scenes)", [before.scene(), picture.scene()])
        assert elements(_as_xml(drawn["markup"])) == elements(picture.to_svg())
        assert drawn["kept"]
        assert drawn["listeners"] == 0
        before = picture


@pytest.mark.acceptance
def test_a_browser_draws_timelines_too_and_changes_them_in_place(page: Any) -> None:
    told = [
        None,
        ("0/1000", "0/1038", "0/2000", "0/1800", "0/2100", "reserved", False),
        ("0/1000", "0/1000", None, None, "0/1000", "reserved", True),
    ]
    readers = [(None, None, None), (LSN(0x1038), LSN(0x1100), LSN(0x2000))]
    pictures = [timeline("s", row, reader) for row in told for reader in readers]
    for before, after in itertools.permutations(pictures, 2):
        drawn = page.evaluate("(scenes) => window.draw(scenes)", [before.scene(), after.scene()])
        assert elements(_as_xml(drawn["markup"])) == elements(after.to_svg())
        assert drawn["kept"]


def _as_xml(markup: str) -> str:
    return markup.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


@pytest.mark.acceptance
def test_texts_of_people_stay_texts(page: Any) -> None:
    drawn = page.evaluate("(scenes) => window.draw(scenes)", [PICTURES["markup"].scene()])
    assert "<script" not in drawn["markup"].lower()
    assert "&lt;script&gt;" in drawn["markup"]


@pytest.mark.acceptance
@pytest.mark.parametrize("name", PICTURES)
def test_no_text_leaves_its_box(page: Any, name: str) -> None:
    assert page.evaluate("(scenes) => window.draw(scenes)", [PICTURES[name].scene()])["wide"] == []


@pytest.mark.acceptance
def test_marks_turn_and_arrows_flow_unless_less_motion_is_preferred(page: Any) -> None:
    scene = PICTURES["mixed"].scene()
    page.emulate_media(reduced_motion="no-preference")
    moving = page.evaluate("(scenes) => window.draw(scenes)", [scene])["moving"]
    page.emulate_media(reduced_motion="reduce")
    still = page.evaluate("(scenes) => window.draw(scenes)", [scene])["moving"]
    assert set(moving) == {"sl-spin", "sl-flow"}
    assert set(still) == {"none"}


def test_the_readme_s_picture_stands_alone() -> None:
    picture = (Path(__file__).parents[2] / "docs" / "stack.svg").read_text(encoding="utf-8")
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
