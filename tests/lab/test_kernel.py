"""In a real kernel: where output lands, what is left when a view closed, and that the kernel itself is silent."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlab.lab.kernel import environment

pytestmark = pytest.mark.acceptance

CELLS = [
    """
import os, sys, threading
from comm import get_comm_manager
from streamlab.lab.diagram import Diagram
from streamlab.lab.live import in_kernel, is_live, note, show
from streamlab.lab.source import render
from streamlab.lab.view import DiagramView
print(in_kernel(), is_live(), "IPython profile:", get_ipython().profile_dir.location)
threads = set(threading.enumerate())
batch = DiagramView(Diagram.of(["a"], title="Batch"))
""",
    "print('anywidget' in sys.modules); batch.close()",
    """
os.environ["STREAMLAB_LIVE"] = "1"
live = DiagramView(Diagram.of(["a", "b"], title="First"))
print(len(get_comm_manager().comms))
""",
    "live.update(Diagram.of(['a', 'b', 'c'], title='Last')); show(note('said', 'beside it'))",
    "live.close(); live.close(); print(len(get_comm_manager().comms), set(threading.enumerate()) == threads)",
    "def shop():\n    return 1\nrender(shop)",
    "Diagram.of(['x'], title='Shown by itself')",
]


def run(cells: list[str], folder: Path, variables: dict[str, str]) -> tuple[Any, str]:
    """Execute cells in a kernel of its own; the notebook, and what the kernel's process wrote by itself."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class Watched(AsyncKernelManager):  # type: ignore[misc, unused-ignore]
        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(**options, stdout=log, stderr=log, env={**os.environ, **variables})

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])  # type: ignore[no-untyped-call]
    with (folder / "kernel.log").open("w+", encoding="utf-8") as log:
        NotebookClient(notebook, timeout=60, kernel_name="python3", kernel_manager_class=Watched).execute()
        log.seek(0)
        return notebook, log.read()


def test_a_notebook_in_a_quiet_kernel(tmp_path: Path) -> None:
    variables = environment(folder=tmp_path)
    notebook, said = run(CELLS, tmp_path, variables)
    assert said == ""
    outputs = [cell.outputs for cell in notebook.cells]
    assert [each.name for cell in outputs for each in cell if each.output_type == "stream"] == ["stdout"] * 4
    texts = ["".join(each.get("text", "") for each in cell) for cell in outputs]
    shown = [[each.data for each in cell if "data" in each] for cell in outputs]
    # Batch: nothing until the end, then the picture once, where it was closed, with its alternative text.
    assert texts[0].startswith(f"True False IPython profile: {variables['IPYTHONDIR']}")
    assert shown[0] == []
    assert texts[1] == "False\n"
    (picture,) = [each for each in outputs[1] if "data" in each]
    assert set(picture.data) == {"text/plain", "text/html", "image/svg+xml"}
    assert picture.metadata == {"image/svg+xml": {"alt": "Batch. a."}}
    # Live: the widget (and its layout), replaced by the static picture in the cell that opened it.
    assert texts[2] == "2\n"
    (closed,) = shown[2]
    assert set(closed) == {"text/plain", "text/html", "image/svg+xml"}
    assert closed["text/plain"].startswith("Last")
    assert [each["text/plain"] for each in shown[3]] == ["\u2022 beside it"]
    assert (texts[4], shown[4]) == ("0 True\n", [])
    assert shown[5][0]["text/plain"] == "# this notebook, line 1: shop\ndef shop():\n    return 1"
    assert shown[6][0]["text/plain"].startswith("Shown by itself")


def test_without_it_a_kernel_is_not_quiet(tmp_path: Path) -> None:
    # What is silenced is there: when this fails, ipykernel no longer warns, and the filter can go.
    _, said = run(["1"], tmp_path, {"IPYTHONDIR": str(tmp_path / "user")})
    assert "Kernel is running over TCP without encryption" in said


def test_other_warnings_of_a_kernel_still_arrive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from traitlets.config.loader import PyFileConfigLoader

    profile = Path(environment(folder=tmp_path)["IPYTHONDIR"]) / "profile_default"
    logger = logging.getLogger("IPKernelApp")
    before = list(logger.filters)
    try:
        config = PyFileConfigLoader("ipython_kernel_config.py", path=str(profile)).load_config()
        logger.warning("Kernel is running over TCP without encryption. All communication ...")
        logger.warning("Disk full")
    finally:
        logger.filters[:] = before
    assert caplog.messages == ["Disk full"]
    assert config.HistoryManager.hist_file == ":memory:"


def test_a_profile_that_was_changed_is_made_anew(tmp_path: Path) -> None:
    config = Path(environment(folder=tmp_path)["IPYTHONDIR"]) / "profile_default" / "ipython_kernel_config.py"
    whole = config.read_bytes()
    for broken in (b"", whole + b"1 / 0", b"\xff"):
        config.write_bytes(broken)
        environment(folder=tmp_path)
        assert config.read_bytes() == whole


def test_batch_is_said_to_kernels_unless_the_user_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMLAB_LIVE", raising=False)
    assert environment(folder=tmp_path)["STREAMLAB_LIVE"] == "0"
    assert "STREAMLAB_LIVE" not in environment(batch=False, folder=tmp_path)
    monkeypatch.setenv("STREAMLAB_LIVE", "1")
    assert "STREAMLAB_LIVE" not in environment(folder=tmp_path)


def test_a_profile_of_the_user_s_own_stays_in_jupyterlab_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "mine"))
    assert "IPYTHONDIR" not in environment(batch=False, folder=tmp_path)
    assert environment(folder=tmp_path)["IPYTHONDIR"].startswith(str(tmp_path / "ipython-"))


def test_the_profile_is_private_and_made_once(tmp_path: Path) -> None:
    directory = Path(environment(folder=tmp_path / "new")["IPYTHONDIR"])
    config = directory / "profile_default" / "ipython_kernel_config.py"
    made = config.stat()
    assert made.st_mode & 0o077 == 0
    assert config.parent.stat().st_mode & 0o077 == 0
    assert environment(folder=tmp_path / "new")["IPYTHONDIR"] == str(directory)
    assert config.stat().st_mtime_ns == made.st_mtime_ns
    assert [path.name for path in config.parent.iterdir()] == [config.name]


def test_a_place_that_cannot_be_written_costs_the_silence_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="streamlab.lab.kernel"):
        assert "IPYTHONDIR" not in environment(folder=tmp_path / "file")
    assert str(tmp_path / "file") in caplog.text


def test_the_module_needs_no_jupyter() -> None:
    code = "import sys, streamlab.lab.kernel; print({'IPython', 'ipykernel', 'jupyter_client'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
