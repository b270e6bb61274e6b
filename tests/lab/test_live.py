"""Where output goes: a person's notebook, a batch run, a plain interpreter."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from streamlab.errors import SettingsError
from streamlab.lab import live
from streamlab.lab.live import Rendered, Spot, details, is_live, note, show

VARIABLES = ("STREAMLAB_LIVE", "JPY_SESSION_NAME", "SERVER_SOFTWARE")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"JPY_SESSION_NAME": "notebooks/00_start_here.ipynb"}, True),
        ({"JPY_SESSION_NAME": ""}, False),
        ({"SERVER_SOFTWARE": "voila/0.5.8"}, True),
        ({"SERVER_SOFTWARE": "jupyter/2.21"}, False),
        ({"STREAMLAB_LIVE": "1"}, True),
        ({"STREAMLAB_LIVE": "0", "JPY_SESSION_NAME": "a.ipynb"}, False),
        ({"STREAMLAB_LIVE": "no", "SERVER_SOFTWARE": "voila/0.5.8"}, False),
        ({"STREAMLAB_LIVE": "", "JPY_SESSION_NAME": "a.ipynb"}, True),
    ],
)
def test_who_looks_on(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_live() is expected


def test_a_switch_that_is_neither_yes_nor_no_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_LIVE", "perhaps")
    with pytest.raises(SettingsError, match="STREAMLAB_LIVE=perhaps"):
        is_live()


def test_a_plain_interpreter_is_no_kernel_and_ipython_is_not_imported_to_find_out() -> None:
    code = "import sys; from streamlab.lab import live; print(live.in_kernel(), 'IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("rendered", "kinds", "metadata"),
    [
        (Rendered("t"), ["text/plain"], {}),
        (Rendered("t", "<p>t</p>"), ["text/plain", "text/html"], {}),
        (
            Rendered("t", "<p>", "<svg/>", "a picture"),
            ["text/plain", "text/html", "image/svg+xml"],
            {"image/svg+xml": {"alt": "a picture"}},
        ),
        (Rendered("t", svg="<svg/>"), ["text/plain", "image/svg+xml"], {}),
        (Rendered("t", alt="of nothing"), ["text/plain"], {}),
        (Rendered("t", view={"application/x": {"id": 1}}), ["text/plain", "application/x"], {}),
    ],
)
def test_the_bundle_holds_what_there_is(rendered: Rendered, kinds: list[str], metadata: dict[str, Any]) -> None:
    assert list(rendered.bundle()) == kinds
    assert rendered.metadata() == metadata
    assert rendered._repr_mimebundle_(include=None, exclude=None) == (rendered.bundle(), rendered.metadata())
    assert str(rendered) == "t"


def test_outside_ipython_the_text_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    show(Rendered("one\ntwo\n\n", "<p>not this</p>"))
    assert capsys.readouterr().out == "one\ntwo\n"


def test_outside_ipython_a_spot_writes_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    spot = Spot(Rendered("starting"))
    spot.update(Rendered("starting", "<b>other HTML</b>"))
    spot.update(Rendered("ready"))
    assert capsys.readouterr().out == "starting\nready\n"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """IPython's own shell with the publisher that its tests use; a kernel's differs by its transport alone."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    publisher = CapturingDisplayPublisher(shell=shell)
    monkeypatch.setattr(shell, "display_pub", publisher)
    monkeypatch.setattr(live, "_shell", lambda: shell)
    yield shell
    shell.history_manager.end_session()


def test_in_ipython_a_spot_replaces_its_own_content(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Spot(Rendered("a")), Spot(Rendered("b"))
    second.update(Rendered("c", "<p>c"))
    first.update(Rendered("a"))
    sent = shell.display_pub.outputs
    ids = [each["transient"]["display_id"] for each in sent]
    assert [(each["data"]["text/plain"], each["update"]) for each in sent] == [
        ("a", False), ("b", False), ("c", True), ("a", True),
    ]  # fmt: skip
    assert ids[0] == ids[3] != ids[1] == ids[2]
    assert capsys.readouterr().out == ""


def test_notes_say_the_same_in_text_and_html_and_are_escaped() -> None:
    rendered = note("missed", "1 < 2 & so on", "", "first\nsecond", "<script>alert(1)</script>")
    assert rendered.text.splitlines() == [
        "\u25b3 1 < 2 & so on", "  first", "  second", "  <script>alert(1)</script>",
    ]  # fmt: skip
    assert "<script" not in rendered.html
    assert "1 &lt; 2 &amp; so on" in rendered.html
    assert "first<br>second" in rendered.html
    assert 'aria-label="not yet"' in rendered.html


def test_marks_of_notes_differ_in_shape() -> None:
    kinds = ["passed", "wrong", "missed", "open", "asked", "said"]
    assert len({note(kind, "x").text[0] for kind in kinds}) == len(kinds)


def test_details_unfold_in_html_and_stand_open_in_text() -> None:
    rendered = details("Why <b>", "one\n\n  two & three\n")
    assert rendered.text == "\u25b8 Why <b>\n    one\n\n      two & three"
    assert "<summary>Why &lt;b&gt;</summary>" in rendered.html
    assert "two &amp; three" in rendered.html
