"""No file names a package registry, asks for an index by address, or points at the machine that built it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def host(*parts: str) -> str:
    """A host's name from its pieces, so that this file does not hold it and does not find itself."""
    return re.escape(".".join(parts))


# Hosts of package registries and their mirrors. An image's own reference may name its registry.
HOSTS = (
    host("pypi", "org"),
    host("pythonhosted", "org"),
    host("repo", "maven", "apache", "org"),
    host("repo1", "maven", "org"),
    host("central", "sonatype", "com"),
    host("oss", "sonatype", "org"),
    host("packages", "confluent", "io"),
    host("plugins", "gradle", "org"),
    host("npmjs", "org"),
    host("npmjs", "com"),
    host("crates", "io"),
    host("proxy", "golang", "org"),
    host("conda", "anaconda", "org"),
    host("repo", "anaconda", "com"),
    host("deb", "debian", "org"),
    host("ftp", "debian", "org"),
    host("security", "debian", "org"),
    host("snapshot", "debian", "org"),
    host("archive", "ubuntu", "com"),
    host("ports", "ubuntu", "com"),
    host("index", "docker", "io"),
    r"\bjfrog\b",
    r"\bartifactory\b",
)

# Options and settings that take an index's address. The ones that forbid it begin with --no-emit.
INDEX = "".join(("ind", "ex"))
OPTIONS = (
    rf"(?<!no-emit-)(?<!no_emit_)\b(extra[-_])?{INDEX}[-_]url\b",
    rf"\b(PIP|UV)_(EXTRA_)?{INDEX.upper()}",
    rf"\bUV_DEFAULT_{INDEX.upper()}",
    "".join(("--trusted", "-host")),
    r"(?m)^\s*(-i|-f|--find-links|--" + INDEX + r")[ =]\S",
    r"<(" + "|".join(("repository", "plugin" + "Repository", "mirror")) + r")>",
)

# Places of the machine that the project was written on, or of any one person's.
PLACES = (
    "/" + r"work/\w",
    "/" + r"home/\w",
    "/" + r"Users/\w",
    "/" + r"root/\w",
    r"[A-Z]:\\" + r"Users\\",
)


@cache
def files() -> tuple[Path, ...]:
    """Every file that git tracks or would add; where there is no git, every file of the source tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        left_out = {".venv", ".git", "runs", "results", "__pycache__"}
        paths = [path for path in ROOT.rglob("*") if not left_out & set(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in paths if path.is_file()))


def found(pattern: str) -> list[str]:
    """Where a pattern stands: file, line and text."""
    compiled = re.compile(pattern, re.IGNORECASE)
    places = []
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for match in compiled.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            places.append(f"{path.relative_to(ROOT)}:{line}: {match[0]}")
    return places


def test_the_files_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in files()}
    assert {"pyproject.toml", "requirements.lock", "docker-compose.yml", "tests/repository/test_hosts.py"} <= names


@pytest.mark.parametrize("pattern", HOSTS)
def test_no_registry_is_named(pattern: str) -> None:
    assert found(pattern) == []


@pytest.mark.parametrize("pattern", OPTIONS)
def test_no_address_of_an_index_is_asked_for(pattern: str) -> None:
    assert found(pattern) == []


@pytest.mark.parametrize("pattern", PLACES)
def test_no_place_of_a_builder_is_named(pattern: str) -> None:
    assert found(pattern) == []


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        (HOSTS, "https" + "://files." + "pythonhosted" + ".org/packages/a.whl"),
        (OPTIONS, "pip install --" + INDEX + "-url x"),
        (OPTIONS, "    -" + "i http"),
        (OPTIONS, "export UV_" + INDEX.upper() + "_URL"),
        (PLACES, 'File "/' + 'home/somebody/x.py"'),
    ],
)
def test_the_patterns_find_what_they_are_for(patterns: tuple[str, ...], text: str) -> None:
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def test_an_option_that_leaves_the_address_out_is_no_finding() -> None:
    assert not any(re.search(pattern, "uv pip compile --no-emit-" + INDEX + "-url") for pattern in OPTIONS)
