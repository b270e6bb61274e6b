"""The package's front door: sorted, documented, and cheap to open."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import streamlab

PUBLIC = [name for name in streamlab.__all__ if not name.startswith("__")]

# Drivers, frames and notebook tools: each costs more time than the whole of the package's own start.
HEAVY = {
    "IPython",
    "anywidget",
    "confluent_kafka",
    "filelock",
    "httpx",
    "ipywidgets",
    "nbformat",
    "numpy",
    "orjson",
    "pandas",
    "papermill",
    "plotly",
    "polars",
    "psutil",
    "psycopg",
    "pymysql",
    "rich",
    "typer",
    "yaml",
}


def test_public_names_are_sorted_and_unique() -> None:
    assert list(streamlab.__all__) == sorted(set(streamlab.__all__))


def test_dir_shows_every_public_name() -> None:
    assert set(streamlab.__all__) <= set(dir(streamlab))


def test_names_for_the_type_checker_are_the_public_ones() -> None:
    """Names are loaded when they are first used; a type checker sees a second list of them, which must agree."""
    tree = ast.parse(Path(streamlab.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    homes = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(homes) == set(PUBLIC)
    for name, home in homes.items():
        assert getattr(importlib.import_module(str(home)), name) is getattr(streamlab, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        streamlab.no_such_name  # noqa: B018


def sections(docstring: str) -> dict[str, str]:
    """The numpy-style sections of a docstring: title -> text."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(thing: Any) -> list[str]:
    """What a caller has to pass, apart from `self`. An exception or an enum that takes what its base takes: nothing."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return []
    return [name for name in inspect.signature(thing).parameters if name not in {"self", "cls"}]


def documented(thing: Any, where: str) -> list[str]:
    """What is missing from the documentation of a public class or function."""
    docstring = inspect.getdoc(thing) or ""
    missing = [] if docstring else [f"{where}: no docstring"]
    own = "\n".join(
        text for title, text in sections(docstring).items() if title in {"Parameters", "Other Parameters", "Attributes"}
    )
    # A dataclass may describe its fields where they stand, with a string below each.
    if inspect.isclass(thing) and hasattr(thing, "__dataclass_fields__"):
        own += "\n" + inspect.getsource(thing)
    missing += [
        f"{where}: parameter {name}" for name in parameters(thing) if not re.search(rf"\b{re.escape(name)}\b", own)
    ]
    return missing


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented_with_its_parameters(name: str) -> None:
    thing = getattr(streamlab, name)
    if inspect.ismodule(thing):
        assert inspect.getdoc(thing)
        return
    missing = documented(thing, name)
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            if not method.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(function):
                missing.append(f"{name}.{method}: no docstring")
    assert missing == []


def after_import(module: str) -> dict[str, Any]:
    """Import one module in a fresh interpreter; tell what it loaded and whether it started anything."""
    program = f"""
import json, socket, sys, threading
opened = []
class Watched(socket.socket):
    def __init__(self, *arguments, **options):
        opened.append(1)
        super().__init__(*arguments, **options)
socket.socket = Watched
before = set(sys.modules)
import {module}
loaded = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
print(json.dumps({{"loaded": loaded, "threads": threading.active_count(), "sockets": len(opened)}}))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(streamlab.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize("module", ["streamlab", "streamlab.errors", "streamlab.settings"])
def test_import_loads_nothing_heavy_and_starts_nothing(module: str) -> None:
    answer = after_import(module)
    assert HEAVY & set(answer["loaded"]) == set()
    assert (answer["threads"], answer["sockets"]) == (1, 0)


def test_a_heavy_import_would_be_noticed() -> None:
    assert "psutil" in after_import("psutil")["loaded"]
