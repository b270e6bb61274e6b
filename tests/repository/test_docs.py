"""The documentation is whole: links resolve, commands and dependencies are described, the index names every page."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamlab.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "data").glob("*.md")])

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by, as GitHub and most renderers make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (unique := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(unique)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    return [first or second for first, second in LINK.findall(prose(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.exists() and target.is_relative_to(ROOT)
        if not inside or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_of_both_kinds_are_seen() -> None:
    text = 'see [a](b.md#c), ![p](d.svg "title") and <img alt="x" src="e.svg">'
    assert [first or second for first, second in LINK.findall(text)] == ["b.md#c", "d.svg", "e.svg"]


def test_index_names_every_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md") if "://" not in link}
    missing = {page for page in DOCS.rglob("*.md") if page.name != "index.md"} - linked
    assert missing == set()


# -- the command line ------------------------------------------------------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that a user can type, below a command: its words and the command itself (click's class)."""
    children = getattr(command, "commands", {})
    for name, child in sorted(children.items()):
        if not child.hidden:
            yield from commands(child, (*path, name))
    if not children:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(app)))


def named_by(heading: str) -> list[str]:
    """What a heading may be about: its pieces of code, or all of it where there are none; without `streamlab`."""
    pieces = re.findall(r"`([^`]+)`", heading) or [heading]
    return [piece.strip().removeprefix("streamlab ") for piece in pieces]


def section(text: str, words: tuple[str, ...]) -> str | None:
    """The part of a page below the heading that names a command, with or without its arguments."""
    headings = list(re.finditer(r"^(#+) +(.+?) *$", FENCE.sub(lambda block: "x" * len(block[0]), text), re.MULTILINE))
    command = re.compile(re.escape(" ".join(words)) + r"(?: [^a-z].*)?")
    for number, heading in enumerate(headings):
        if any(command.fullmatch(piece) for piece in named_by(text[heading.start(2) : heading.end(2)])):
            ends = (other.start() for other in headings[number + 1 :] if len(other[1]) <= len(heading[1]))
            return text[heading.start() : next(ends, len(text))]
    return None


def test_a_section_ends_where_the_next_one_begins() -> None:
    page = (
        "# Commands\n## `streamlab up [SERVICE...]`\nstart\n```\n# no heading\n```\n### more\nyes\n## down\n--purge\n"
    )
    assert section(page, ("up",)) == page[page.index("## `") : page.index("## down")]
    assert section(page, ("down",)) == "## down\n--purge\n"
    assert section(page, ("status",)) is None
    assert section("## `streamlab nb clean`\n", ("nb",)) is None


def test_there_are_commands() -> None:
    assert {("up",), ("down",), ("status",), ("doctor",), ("run",)} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_is_documented_with_its_options(words: tuple[str, ...]) -> None:
    text = section((DOCS / "cli.md").read_text(encoding="utf-8"), words)
    assert text is not None, f"docs/cli.md has no heading with `{' '.join(('streamlab', *words))}`"
    options = {
        max(parameter.opts, key=len)
        for parameter in COMMANDS[words].params
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
    } - {"--help"}
    assert {option for option in options if not re.search(rf"{re.escape(option)}(?![\w-])", text)} == set()


def test_no_command_is_documented_that_does_not_exist() -> None:
    known = {" ".join(words) for words in COMMANDS} | {" ".join(words[:-1]) for words in COMMANDS}
    for heading in re.findall(r"^#+ +.*`streamlab ([^`]+)`", prose(DOCS / "cli.md"), re.MULTILINE):
        words = re.match(r"[a-z-]+(?: [a-z][a-z-]*)*", heading)
        assert words, heading
        assert words[0] in known, f"docs/cli.md describes `streamlab {heading}`"


# -- dependencies ------------------------------------------------------------------------------------------------------


def packages() -> dict[str, list[str]]:
    """Group -> the packages that pyproject.toml asks for in it."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = {
        "base": table["project"]["dependencies"],
        **table["project"]["optional-dependencies"],
        "dev": table["dependency-groups"]["dev"],
    }
    named = {
        group: [str(canonicalize_name(Requirement(text).name)) for text in texts if not text.startswith("streamlab[")]
        for group, texts in groups.items()
    }
    return {group: names for group, names in named.items() if names}


def described() -> list[tuple[str, str, str, str]]:
    """The rows of docs/dependencies.md: package, groups, what for, why this one."""
    rows = []
    for line in (DOCS / "dependencies.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            rows.append((cells[0].strip("`"), cells[1], cells[2], cells[3]))
    return rows


def test_every_dependency_is_described_once_and_no_other() -> None:
    names = [row[0] for row in described()]
    assert len(names) == len(set(names))
    assert set(names) == {name for group in packages().values() for name in group}


def test_dependencies_are_described_under_their_groups() -> None:
    for name, groups, _, _ in described():
        assert set(groups.split(", ")) == {group for group, names in packages().items() if name in names}, name


def test_each_dependency_says_what_for_and_why() -> None:
    for name, _, purpose, reason in described():
        assert len(purpose) > 15, name
        assert len(reason) > 15, name
