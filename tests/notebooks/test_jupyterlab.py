"""Lessons as a reader sees them: a real JupyterLab in a real browser, run from the first cell to the last."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamlab.lab import runner
from streamlab.stack import ports
from streamlab.stack.process import tail

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on PATH"),
]

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TOKEN = "sl-test"


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((ports.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def jupyter(stack: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `streamlab lab`, with directories of its own."""
    tmp_path = tmp_path_factory.mktemp("jupyter")
    port = free_port()
    environment = {
        **os.environ,
        "JUPYTER_TOKEN": TOKEN,
        "STREAMLAB_RESULTS": str(tmp_path / "results"),
        **{
            f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
            for name in ("CONFIG", "DATA", "RUNTIME")
        },
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }  # fmt: skip
    (tmp_path / "config").mkdir()
    # For the test: lets it run JupyterLab's own commands.
    (tmp_path / "config" / "jupyter_lab_config.py").write_text("c.LabApp.expose_app_in_browser = True\n")
    # And a reader's notebook is saved as it is worked through; the checkout's own must stay as it is.
    documents = tmp_path / "settings" / "@jupyterlab" / "docmanager-extension"
    documents.mkdir(parents=True)
    (documents / "plugin.jupyterlab-settings").write_text('{"autosave": false}')
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlab", "lab", "--no-start", "--no-browser", "--port", str(port)],
            env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "is running at" not in tail(log, 100):
            assert process.poll() is None, tail(log, 30)
            assert time.monotonic() < deadline, tail(log, 30)
            time.sleep(0.1)
        address = f"http://{ports.HOST}:{port}"
        yield address
        # As a reader does: a kernel that is ended together with its server is one that both still write to.
        with httpx.Client(headers={"Authorization": f"token {TOKEN}"}, timeout=30, trust_env=False) as client:
            for each in client.get(f"{address}/api/kernels").raise_for_status().json():
                client.delete(f"{address}/api/kernels/{each['id']}").raise_for_status()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said, said[max(0, said.index("Traceback") - 500) :][:4000]


@pytest.fixture
def page(jupyter: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try:
            opened = browser.new_page(viewport={"width": 1300, "height": 1000})
            opened.set_default_timeout(60_000)
            yield opened
        finally:
            browser.close()


soak = pytest.mark.skipif(not os.environ.get("STREAMLAB_SOAK"), reason="a long proof: make soak")


def deeper(slug: str) -> bool:
    """Whether a lesson goes on behind another one, and is built as that is."""
    return slug.partition("_")[0].endswith("b")


@pytest.mark.parametrize(
    "slug", [pytest.param(each.slug, marks=soak if deeper(each.slug) else ()) for each in runner.lessons()]
)
def test_a_lesson_runs_from_the_first_cell_to_the_last(slug: str, page: Any, jupyter: str) -> None:
    page.goto(f"{jupyter}/lab/workspaces/{slug}/tree/{slug}.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    # Cells that are run before there is a kernel raise a dialog.
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    # A cell that fails ends the run, and those behind it are not executed: it is looked at below.
    page.wait_for_function(
        "() => (cells => cells.every(w => w.model.executionCount !== null && w.model.executionState !== 'running')"
        " || cells.some(w => w.model.outputs.toJSON().some(o => o.output_type === 'error')))"
        "(window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code'))",
        timeout=200_000,
    )
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty")  # not saved
    errors = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code').flatMap("
        "w => w.model.outputs.toJSON()).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)"
    )
    assert errors == []
    kept = os.environ.get("STREAMLAB_SCREENSHOTS")
    if kept:
        for number, place in enumerate(page.query_selector_all(".jp-Cell")):
            place.scroll_into_view_if_needed()
            place.screenshot(path=str(Path(kept) / f"{slug}-{number:02}.png"))
    # What a person would see: the picture of the stack, buttons to predict with, the answer of an exercise.
    first = page.locator(".jp-Cell svg.sl-diagram").first
    first.scroll_into_view_if_needed()
    assert first.get_attribute("aria-label")
    page.locator("text=not attempted yet").first.scroll_into_view_if_needed()
    buttons = page.locator(".widget-toggle-button")
    buttons.first.scroll_into_view_if_needed()
    assert buttons.count() >= 2
    # Nothing stands on top of the lesson.
    assert page.locator(".Toastify__toast").count() == 0
    assert page.locator(".jp-Dialog").count() == 0
