"""Imports point down: the contracts in .importlinter hold, and they would notice if they did not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package `streamlab` below a directory, with this project's contracts."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
            "--no-logo",
            "--config",
            str(ROOT / ".importlinter"),
        ],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "PATH": "", "COLUMNS": "200", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_contracts_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the ground and of one room on each floor above it, where a test may break a rule."""
    package = tmp_path / "streamlab"
    for room in ("stack", "dashboard", "events", "views", "cdc"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text("")
    for name in ("__init__.py", "errors.py", "settings.py"):
        shutil.copy(ROOT / "streamlab" / name, package / name)
    (package / "metrics.py").write_text("")
    return tmp_path


def test_contracts_hold_for_a_house_that_is_half_built(house: Path) -> None:
    result = lint(house)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cdc/__init__.py", "from streamlab.events import anything"),
        ("events/__init__.py", "import streamlab.views"),
        ("views/__init__.py", "import streamlab.dashboard"),
        ("dashboard/__init__.py", "from streamlab import stack"),
        ("metrics.py", "def late():\n    from streamlab.cdc import anything"),
        ("errors.py", "from streamlab import settings"),
        ("settings.py", "def late():\n    import psycopg"),
        ("attic.py", "# a room that has no floor yet"),
    ],
)
def test_a_broken_rule_is_noticed(house: Path, module: str, line: str) -> None:
    path = house / "streamlab" / module
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = lint(house)
    assert result.returncode == 1, result.stdout + result.stderr


def test_a_circle_is_noticed(house: Path) -> None:
    room = house / "streamlab" / "events"
    (room / "store.py").write_text("from streamlab.events import reader\n")
    (room / "reader.py").write_text("from streamlab.events import store\n")
    result = lint(house)
    assert result.returncode == 1
    assert "No circles, within a room or between rooms BROKEN" in result.stdout


# -- the table of rooms in docs/architecture.md --------------------------------------------------------------------


def rooms_of_the_page() -> dict[str, str]:
    """Room -> here, or to come."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (here|to come) \|", text, re.MULTILINE))


def rooms_of_the_contract() -> list[set[str]]:
    """The rooms of each layer, from the top."""
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    lines = parser["importlinter:contract:floors"]["layers"].split("\n")
    return [set(re.findall(r"\w+", line)) for line in lines if line.strip()]


def rooms_of_the_package() -> set[str]:
    package = ROOT / "streamlab"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return modules | {path.parent.name for path in package.glob("*/*.py")}


def test_the_page_and_the_contract_name_the_same_rooms() -> None:
    assert set(rooms_of_the_page()) == set().union(*rooms_of_the_contract()) - {"__main__"}


def test_the_page_says_which_rooms_are_here() -> None:
    here = {room for room, state in rooms_of_the_page().items() if state == "here"}
    assert here == rooms_of_the_package() - {"__main__"}


def test_no_room_has_two_floors() -> None:
    layers = rooms_of_the_contract()
    assert sum(len(layer) for layer in layers) == len(set().union(*layers))
