"""Style and types, by the tools that the project is configured for: a check outside the suite would not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> str:
    """The output of a tool, where it found something."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    return "" if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "command", [("ruff", "check", "--quiet", "."), ("ruff", "format", "--check", ".")], ids=" ".join
)
def test_style(command: tuple[str, ...]) -> None:
    assert run(*command) == ""


@pytest.mark.timeout(300)
def test_types() -> None:
    assert run("mypy") == ""


def test_a_fault_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\nx: int = 'text'\n", encoding="utf-8")
    assert "F401" in run("ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path / "bad.py"))
    assert "Incompatible types" in run("mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "bad.py"))
