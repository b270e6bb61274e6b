"""Pictures: where things stand, that the markup is sound, and that words say the same."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.pictures import LONG, PICTURES, SERVICES, STATES, Row, rows

from streamlab.errors import LessonError
from streamlab.lab import topology as module
from streamlab.lab.diagram import Diagram, Edge, Mark, Node
from streamlab.lab.graph import Icon
from streamlab.lab.layout import HEADER, PAD, fitted, lay_out, text_width
from streamlab.lab.routes import Box
from streamlab.lab.topology import topology, write_overview

SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).parents[2]


def apart(a: Box, b: Box) -> bool:
    return a.right <= b.x or b.right <= a.x or a.bottom <= b.y or b.bottom <= a.y


def on_border(box: Box, x: float, y: float) -> bool:
    upright = x in (box.x, box.right) and box.y < y < box.bottom
    level = y in (box.y, box.bottom) and box.x < x < box.right
    return upright or level


def check_layout(diagram: Diagram) -> None:
    grid = lay_out(diagram)
    for a, b in itertools.combinations(grid.boxes.values(), 2):
        assert apart(a, b)
    for box in grid.boxes.values():
        assert 0 < box.x < box.right < grid.width
        assert 0 < box.y < box.bottom < grid.height
    for route in grid.routes:
        assert on_border(grid.boxes[route.edge.source], *route.start)
        assert on_border(grid.boxes[route.edge.target], *route.end)
        if route.kind in {"over", "under"}:
            # Below the heading, and above the foot, with its label.
            top = PAD + (HEADER if diagram.title or diagram.summary else 0)
            room = 15 if route.edge.label else 3
            assert route.lane - (room if route.kind == "over" else 0) >= top
            assert route.lane + (room if route.kind == "under" else 0) < grid.height
            assert not any(box.y <= route.lane <= box.bottom and _spans(route, box) for box in grid.boxes.values())
    lanes = [route for route in grid.routes if route.kind in {"over", "under"}]
    for one, other in itertools.combinations(lanes, 2):
        low, high = sorted((one.start[0], one.end[0]))
        crossing = low < max(other.start[0], other.end[0]) and min(other.start[0], other.end[0]) < high
        assert not (crossing and abs(one.lane - other.lane) < 12)


def _spans(route: object, box: Box) -> bool:
    low, high = sorted((route.start[0], route.end[0]))  # type: ignore[attr-defined]
    return low < box.right and box.x < high


def check_markup(picture: str) -> ElementTree.Element:
    root = ElementTree.fromstring(picture)  # noqa: S314  our own
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "g", "rect", "path", "circle", "text"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not [name for name in names if name.startswith("on") or "href" in name]
    assert "url(" not in picture
    assert root.get("role") == "img"
    return root


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_laid_out_and_well_formed(name: str) -> None:
    diagram = PICTURES[name]
    check_layout(diagram)
    root = check_markup(diagram.to_svg())
    assert root.findtext(f"{SVG}title") == (diagram.title or "Diagram")
    assert root.findtext(f"{SVG}desc") == root.get("aria-label") == diagram.alternative().replace("\0", "\ufffd")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)


@st.composite
def diagrams(draw: st.DrawFn) -> Diagram:
    count = draw(st.integers(1, 6))
    nodes = [
        Node(str(n), draw(words), tuple(draw(st.lists(words, max_size=2))), draw(st.sampled_from(Icon)),
             draw(st.sampled_from(Mark)), draw(words), rows=draw(st.integers(1, 2)))
        for n in range(count)
    ]  # fmt: skip
    # With two ways between a pair and more lanes than there is room for, lines may cross labels; boxes never do.
    pairs = draw(
        st.lists(st.sampled_from(list(itertools.permutations(range(count), 2)) or [(0, 0)]), max_size=5, unique=True)
    )
    edges = [Edge(str(a), str(b), draw(words), draw(st.booleans())) for a, b in pairs if a != b]
    return Diagram(tuple(nodes), tuple(edges), draw(words), draw(words), draw(words))


@settings(max_examples=150, deadline=None)
@given(diagrams())
def test_any_graph_is_laid_out_and_well_formed(diagram: Diagram) -> None:
    grid = lay_out(diagram)
    for a, b in itertools.combinations(grid.boxes.values(), 2):
        assert apart(a, b)
    for route in grid.routes:
        assert on_border(grid.boxes[route.edge.source], *route.start)
        assert on_border(grid.boxes[route.edge.target], *route.end)
    check_markup(diagram.to_svg())
    assert diagram.to_text().count("\u2500\u2500>") >= sum(edge.active for edge in diagram.edges)


@settings(deadline=None)
@given(st.text(max_size=80), st.sampled_from([11.5, 12.5, 14.5]), st.booleans())
def test_cut_texts_fit_and_begin_alike(text: str, size: float, bold: bool) -> None:
    cut = fitted(text, size, bold=bold)
    assert cut == text or (cut.endswith("\u2026") and text.startswith(cut[:-1]))
    assert cut == text or text_width(cut, size, bold=bold) <= 200
    assert text_width(text, size, bold=bold) > 200 or cut == text


def test_of_an_address_the_port_stays() -> None:
    assert fitted("db-7.internal.a-long-name.example.org:25432", 11.5) == "db-7.internal.a-long-\u2026:25432"
    assert fitted("127.0.0.1:25432", 11.5) == "127.0.0.1:25432"


def test_what_is_cut_in_the_picture_is_whole_in_the_words() -> None:
    diagram = PICTURES["long texts"]
    assert LONG not in re.sub(r"<desc>.*?</desc>|aria-label=\"[^\"]*\"", "", diagram.to_svg())
    assert LONG in diagram.alternative()
    assert LONG in diagram.to_text()


def test_the_same_data_makes_the_static_and_the_live_picture() -> None:
    def elements(node: list[object]) -> list[str]:
        return [str(node[0]), *(tag for child in node[3] for tag in elements(child))]  # type: ignore[attr-defined]

    for diagram in PICTURES.values():
        static = [element.tag.removeprefix(SVG) for element in ElementTree.fromstring(diagram.to_svg()).iter()]  # noqa: S314
        static.remove("style")
        assert elements(diagram.scene()) == static


def test_a_cell_shows_picture_text_and_alternative() -> None:
    diagram = PICTURES["mixed"]
    data, metadata = diagram._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "image/svg+xml"}
    assert data["image/svg+xml"] in data["text/html"]
    assert metadata == {"image/svg+xml": {"alt": diagram.alternative()}}


def test_short_forms() -> None:
    diagram = Diagram.of(["a", Node("b", "B")], [("a", "b"), ("b", "a", "back")], "T", "In words.")
    assert [edge.label for edge in diagram.edges] == ["", "back"]
    assert diagram.alternative() == "In words."
    assert diagram.to_text() == "T\n\u25ab a\n\u25ab B\n  a \u2500\u2500> B\n  B \u2500\u2500> a  (back)"


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        (["a", "a"], [], "share an id"),
        (["a"], [("a", "b")], "names the node 'b', which is not there"),
        (["a"], [("a", "a")], "leads from 'a' to itself"),
    ],
)
def test_diagrams_that_cannot_be(nodes: list[str], edges: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(LessonError, match=said):
        Diagram.of(nodes, edges)


# -- the stack ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_mark_and_a_word_of_its_own(state: str) -> None:
    (node, python) = topology(rows(postgres=state), only=["postgres"]).nodes
    assert python.id == "python"
    assert node.mark is not Mark.NONE
    assert node.status in topology(rows(postgres=state)).alternative()


def test_states_are_told_apart_without_colour() -> None:
    signs = {state: topology(rows(postgres=state), only=["postgres"]).to_text().splitlines()[1] for state in STATES}
    assert len(set(signs.values())) == len(STATES)
    assert len({sign[0] for sign in signs.values()}) == 5  # what died and what does not answer differ in the word


def test_an_arrow_flows_only_between_what_serves() -> None:
    diagram = topology(rows(postgres="foreign", connect="starting"))
    flows = {(edge.source, edge.target): edge.active for edge in diagram.edges}
    assert flows == {
        ("postgres", "python"): True, ("mysql", "connect"): False, ("connect", "kafka"): False,
        ("kafka", "python"): True,
    }  # fmt: skip
    assert diagram.summary == "3 of 4 servers running"


@pytest.mark.parametrize("only", [c for n in range(1, 5) for c in itertools.combinations(SERVICES, n)], ids=",".join)
def test_every_choice_of_servers_is_drawn_and_joined(only: tuple[str, ...]) -> None:
    diagram = topology(rows(), only=iter(only))
    assert {node.id for node in diagram.nodes} == {*only, "python"}
    check_layout(diagram)
    joined = {end for edge in diagram.edges for end in (edge.source, edge.target)}
    # Kafka Connect has nothing to say to Python but through Kafka.
    assert joined == {*only, "python"} or ("connect" in only and "kafka" not in only)


def test_a_server_that_was_asked_for_is_drawn_with_those_that_use_it() -> None:
    diagram = topology([*rows(), Row("registry", port=25481)], only=["postgres", "kafka", "connect", "registry"])
    assert {("connect", "registry"), ("registry", "python")} < {(edge.source, edge.target) for edge in diagram.edges}
    assert diagram.summary == "4 of 4 servers running"


def test_what_is_done_and_how_long_it_took() -> None:
    diagram = topology(rows(kafka="starting"), progress={"kafka": "formatting"})
    nodes = {node.id: node for node in diagram.nodes}
    assert (nodes["kafka"].mark, nodes["kafka"].status) == (Mark.BUSY, "formatting")
    assert nodes["postgres"].lines == ("127.0.0.1:25400", "18.1 \u00b7 up in 1.2 s")
    assert nodes["kafka"].lines == ("127.0.0.1:25402", "18.1")


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        ("stopped", ("no address yet", "not started yet")),
        ("foreign", ("no address yet", "version not known")),
        ("recovering", ("no address yet", "version not known")),
    ],
)
def test_what_is_not_known_is_said(state: str, lines: tuple[str, str]) -> None:
    node = topology([Row("postgres", state, "", "", 0, None)]).nodes[0]
    assert node.lines == lines
    assert node.status in {state, "running, your own"}


def test_the_readme_shows_the_picture_as_it_is_drawn_now(tmp_path: Path) -> None:
    write_overview(tmp_path / "stack.svg")
    fresh = (tmp_path / "stack.svg").read_text(encoding="utf-8")
    committed = (ROOT / "docs" / "stack.svg").read_text(encoding="utf-8")
    assert committed == fresh, f"Write it again: {module.__name__}.write_overview(Path('docs/stack.svg'))"
    root = check_markup(fresh)
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
