"""pyproject.toml, requirements.lock and environment.yml name the same packages, and agree on their versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from streamlab.stack import mysql, postgres

ROOT = Path(__file__).parents[2]

# conda-forge's name -> the name in pyproject.toml, where they differ by more than spelling.
CONDA_NAMES = {"playwright-python": "playwright"}
# conda-forge has no extras: what stands there for an extra, and what the lock has for it.
EXTRAS = {
    ("psycopg", "binary"): ("psycopg-c", "psycopg-binary"),
    ("pymysql", "rsa"): ("cryptography", "cryptography"),
}
# Extras whose own packages testcontainers takes from elsewhere, or does not need: nothing to install for them.
EMPTY_EXTRAS = {("testcontainers", "postgres")}
SERVERS = {"openjdk", "maven", "mysql-server", "postgresql"}
# What a line of a lock in requirements form looks like, apart from its hashes.
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))? \\$")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def asked() -> list[tuple[str, Requirement]]:
    """Everything that pyproject.toml asks for: itself, its extras and the dev group."""
    table = project()
    texts = [
        *table["project"]["dependencies"],
        *(text for extra in table["project"]["optional-dependencies"].values() for text in extra),
        *table["dependency-groups"]["dev"],
    ]
    requirements = [Requirement(text) for text in texts]
    return [(canonicalize_name(each.name), each) for each in requirements if each.name != "streamlab"]


def direct() -> dict[str, Requirement]:
    """Every package that pyproject.toml asks for, once."""
    found: dict[str, Requirement] = {}
    for name, requirement in asked():
        known = found.setdefault(name, requirement)
        assert known.specifier == requirement.specifier, f"{name} is asked for with two different bounds"
    return found


def locked() -> dict[str, list[tuple[Version, Marker | None]]]:
    """Each package of the lock, with its versions; more than one where they depend on the platform."""
    found: dict[str, list[tuple[Version, Marker | None]]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith((" ", "#")) or not line.strip():
            continue
        match = LOCKED.match(line)
        assert match, f"requirements.lock: no exact version with hashes in {line!r}"
        marker = Marker(match[3]) if match[3] else None
        found.setdefault(canonicalize_name(match[1]), []).append((Version(match[2]), marker))
    return found


def environment() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return table


def conda() -> list[str]:
    return [entry for entry in environment()["dependencies"] if isinstance(entry, str)]


def from_pip() -> list[str]:
    entries = [entry["pip"] for entry in environment()["dependencies"] if isinstance(entry, dict)]
    assert len(entries) == 1
    pip: list[str] = entries[0]
    return pip


def python_of_environment() -> dict[str, Requirement]:
    """The Python packages of environment.yml, by their names in pyproject.toml; stand-ins for extras left out."""
    stand_ins = {names[0] for names in EXTRAS.values()}
    texts = [text for text in conda() if not text.startswith(("python>", "pip")) and name_of(text) not in SERVERS]
    texts += [text for text in from_pip() if not text.startswith("-")]
    found = {}
    for text in texts:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name not in stand_ins:
            found[CONDA_NAMES.get(name, name)] = requirement
    return found


def name_of(entry: str) -> str:
    return re.split(r"[<>=!~ ]", entry, maxsplit=1)[0]


def version_of_server(name: str) -> str:
    (entry,) = (text for text in conda() if name_of(text) == name)
    return entry.removeprefix(name)


def test_environment_and_pyproject_name_the_same_packages() -> None:
    assert set(python_of_environment()) == set(direct())


def test_environment_and_pyproject_have_the_same_bounds() -> None:
    ours, theirs = direct(), python_of_environment()
    differing = {
        name: (str(ours[name].specifier), str(theirs[name].specifier))
        for name in ours.keys() & theirs.keys()
        if ours[name].specifier != theirs[name].specifier
    }
    assert differing == {}


def test_each_extra_of_a_driver_has_its_stand_in() -> None:
    used = {(name, extra) for name, requirement in asked() for extra in requirement.extras} - EMPTY_EXTRAS
    # What comes through pip brings its extras itself.
    through_pip = {
        (name, extra)
        for name, requirement in python_of_environment().items()
        for extra in requirement.extras
        if str(requirement) in from_pip()
    }
    assert used - through_pip == set(EXTRAS)
    assert through_pip <= used
    for in_conda, in_lock in EXTRAS.values():
        assert in_conda in {name_of(text) for text in conda()}
        assert in_lock in locked()


def test_lock_has_every_package_within_its_bounds() -> None:
    lock = locked()
    outside = {}
    for name, requirement in direct().items():
        versions = [version for version, _ in lock.get(name, [])]
        if not versions or not all(requirement.specifier.contains(version) for version in versions):
            outside[name] = (str(requirement.specifier), [str(version) for version in versions])
    assert outside == {}


def test_lock_is_within_the_bounds_of_environment() -> None:
    lock = locked()
    for name, requirement in python_of_environment().items():
        for version, _ in lock[name]:
            assert requirement.specifier.contains(version), f"{name} {version} is outside {requirement}"


def test_lock_has_one_version_of_a_package_for_any_one_platform() -> None:
    environments = [
        {"python_full_version": f"{python}.4", "python_version": python, "sys_platform": platform, "os_name": system}
        for python in ("3.11", "3.12", "3.13", "3.14")
        for platform, system in (("linux", "posix"), ("darwin", "posix"), ("win32", "nt"))
    ]
    for name, entries in locked().items():
        for place in environments:
            fitting = [version for version, marker in entries if marker is None or marker.evaluate(place)]
            assert len(fitting) <= 1, f"{name}: {fitting} for {place}"


def test_lock_holds_no_address_and_a_hash_for_every_file() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-")] == []
    without = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if "==" in line and not re.match(r"    --hash=sha256:[0-9a-f]{64}", following)
    ]
    assert without == []


def uv_of(lock: str) -> str:
    """The entry for uv: the line with its name and version, and those with its hashes."""
    match = re.search(r"^uv==.+\n(?: .+\n)+", lock, re.MULTILINE)
    assert match
    return match[0]


def test_the_lock_for_uv_is_the_entry_of_the_lock() -> None:
    """make installs uv from scripts/uv.lock first, and the rest with it."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert (ROOT / "scripts/uv.lock").read_text(encoding="utf-8") == uv_of(lock)


def test_environment_has_the_servers_that_the_stack_runs() -> None:
    assert environment()["channels"] == ["conda-forge", "nodefaults"]
    assert {name_of(text) for text in conda()} >= SERVERS
    assert int(version_of_server("openjdk").lstrip("=")) >= 17
    assert version_of_server("postgresql") == f"={postgres.VERSION}"
    assert version_of_server("mysql-server") == ">=" + ".".join(map(str, mysql.MINIMUM))
    assert "python" + project()["project"]["requires-python"] in conda()
    assert SpecifierSet(project()["project"]["requires-python"]).contains("3.11.0")


def test_environment_installs_the_project_itself() -> None:
    assert "--editable ." in from_pip()


# -- scripts/lock.sh, with a stand-in for uv that needs no package index ------------------------------------------


BEFORE = "before==1\nuv==1 \\\n    --hash=1\n"
AFTER = "tool==2 \\\n    --hash=2\nuv==2 \\\n    --hash=3 \\\n    --hash=4\nuvicorn==2 \\\n    --hash=5\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "a checkout in Köln"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/lock.sh", root / "scripts/lock.sh")
    (root / "pyproject.toml").write_text("")
    (root / "requirements.lock").write_text(BEFORE)
    return root


def remake(checkout: Path, uv: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run lock.sh from another directory, with a `uv` on PATH that is this shell script."""
    programs = checkout / "programs"
    programs.mkdir()
    (checkout / "after").write_text(AFTER)
    (programs / "uv").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n{uv}\n')
    (programs / "uv").chmod(0o755)
    return subprocess.run(
        ["sh", str(checkout / "scripts/lock.sh"), *arguments],
        cwd="/",
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_lock_script_writes_the_lock_of_its_own_checkout(checkout: Path) -> None:
    result = remake(checkout, "cp after requirements.lock.draft", "--upgrade")
    assert (result.returncode, result.stderr) == (0, "")
    assert (checkout / "requirements.lock").read_text() == AFTER
    arguments = (checkout / "arguments").read_text().splitlines()
    assert {"--universal", "--generate-hashes", "--all-extras", "--no-emit-index-url", "--upgrade"} <= set(arguments)


def test_lock_script_writes_the_lock_for_uv(checkout: Path) -> None:
    assert remake(checkout, "cp after requirements.lock.draft").returncode == 0
    assert (checkout / "scripts/uv.lock").read_text() == uv_of(AFTER) == "".join(AFTER.splitlines(True)[2:5])


@pytest.mark.parametrize("line", ["--extra-in" + "dex-url x", "a @ https" + "://host/a.whl", "  -f wheels", "-i x"])
def test_lock_script_refuses_an_address(checkout: Path, line: str) -> None:
    result = remake(checkout, f"echo '{line}' >> requirements.lock.draft")
    assert result.returncode == 1
    assert line.strip() in result.stderr
    assert_untouched(checkout)


@pytest.mark.parametrize(
    "uv", ["echo half > requirements.lock.draft; exit 2", "echo without==1 > requirements.lock.draft"]
)
def test_lock_script_keeps_a_lock_that_cannot_be_remade(checkout: Path, uv: str) -> None:
    assert remake(checkout, uv).returncode != 0
    assert_untouched(checkout)


def test_lock_script_starts_from_the_versions_of_the_lock(checkout: Path) -> None:
    assert remake(checkout, "cp requirements.lock.draft seen").returncode == 0
    assert (checkout / "seen").read_text() == BEFORE


def assert_untouched(checkout: Path) -> None:
    assert (checkout / "requirements.lock").read_text() == BEFORE
    assert not (checkout / "scripts/uv.lock").exists()
    assert list(checkout.glob("*.draft*")) == []
