"""The LSN timeline: what the facts come to, where they stand, and that words and picture say the same."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.test_diagram import check_markup

from streamlab.cdc import LSN
from streamlab.errors import SettingsError
from streamlab.lab import timeline as module
from streamlab.lab.layout import PAD, SMALL, STATUS, text_width
from streamlab.lab.lsn import LSNTimeline, timeline
from streamlab.lab.timeline import Point, Timeline, size_text

SVG = "{http://www.w3.org/2000/svg}"
ROW = ("0/1000", "0/1038", "0/2000", "0/1800", "0/2100", "reserved", False)
READER = (LSN(0x1038), LSN(0x1100), LSN(0x2000))


def test_what_the_server_and_the_reader_say_is_put_in_order() -> None:
    made = timeline("warehouse", ROW, READER)
    assert [(str(lsn), [point.name for point in points]) for lsn, points in made.ticks()] == [
        ("0/1000", ["restart_lsn"]),
        ("0/1038", ["confirmed_flush_lsn", "acknowledged"]),
        ("0/1100", ["handed out"]),
        ("0/2000", ["sent_lsn", "received"]),
        ("0/2100", ["pg_current_wal_lsn"]),
    ]
    assert made.gaps() == [0x38, 0xC8, 0xF00, 0x100]
    assert made.between("confirmed_flush_lsn", "pg_current_wal_lsn") == 0x10C8
    assert made.between("handed out", "acknowledged") == -0xC8
    assert made.summary == "the server keeps 4.35 kB of log; 200 B come again after a crash"
    assert made.again == (LSN(0x1038), LSN(0x1100))
    assert made.title == "LSN timeline of slot warehouse"


def test_without_a_reader_its_last_report_stands_for_it() -> None:
    made = timeline("warehouse", ROW, (None, None, None))
    assert "write_lsn" in [point.name for _, points in made.ticks() for point in points]
    assert made.again is None
    assert made.between("restart_lsn", "received") is None


@pytest.mark.parametrize(
    ("row", "summary"),
    [
        (None, "there is no such slot"),
        ((None, "0/1038", None, None, "0/2000", "lost", False), "the slot is lost: the log that it needs is gone"),
        (("0/1000", "0/1038", None, None, "0/1000", "reserved", False), "the server keeps 0 B of log"),
        ((None, None, None, None, "0/1000", None, False), ""),
    ],
)
def test_states_of_a_slot(row: tuple[object, ...] | None, summary: str) -> None:
    made = timeline("s", row, (None, None, None))
    assert made.summary == summary
    check_markup(made.to_svg())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB"),
     (12_500_000_000, "12.5 GB"), (2**64 - 1, "18.4 EB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


lsns = st.integers(0, 2**64 - 1).map(LSN) | st.sampled_from([LSN(0), LSN(1), LSN(2**64 - 1)])


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.none() | lsns] * 5), st.tuples(*[st.none() | lsns] * 3))
def test_any_facts_are_drawn_within_the_panel_and_apart(
    told: tuple[LSN | None, ...], reader: tuple[LSN | None, LSN | None, LSN | None]
) -> None:
    made = timeline("s", (*(None if lsn is None else str(lsn) for lsn in told), "reserved", False), reader)
    ticks, at = made.ticks(), module.places(made.gaps())
    assert len(at) == max(1, len(ticks))
    assert sum(made.gaps()) == (ticks[-1][0] - ticks[0][0] if ticks else 0)
    for one, other in itertools.pairwise(at):
        assert other - one >= 114
    for x, (_, points) in zip(at, ticks, strict=False):
        for point in points:
            half = text_width(point.name, SMALL) / 2 + 10
            assert half < x < module.WIDTH - half
    root = check_markup(made.to_svg())
    text = made.to_text()
    drawn = [element.text or "" for element in root.iter(f"{SVG}text")]
    for lsn, points in ticks:
        assert str(lsn) in drawn
        assert str(lsn) in text
        assert {point.name for point in points} <= {*drawn}
        assert all(f"{point.name}: {point.meaning}" in text for point in points)
    for gap in made.gaps():
        assert size_text(gap) in drawn
        assert f"\u2502 {size_text(gap)}" in text
    # Title and summary have a line of their own, wide enough.
    title, summary = [each for each in root.iter(f"{SVG}text") if each.get("x") == str(round(PAD))][:2]
    assert float(summary.get("y") or 0) - float(title.get("y") or 0) > STATUS
    assert text_width(summary.text or "", STATUS) < module.WIDTH - 2 * PAD
    # Names that share a tick stand one above the other, and none leaves the panel.
    height = float(root.get("height") or 0)
    assert all(20 < float(each.get("y") or 0) < height for each in root.iter(f"{SVG}text"))


def test_a_larger_gap_is_wider() -> None:
    at = module.places([10, 1000, 10])
    widths = [other - one for one, other in itertools.pairwise(at)]
    assert widths[1] > widths[0] == pytest.approx(widths[2])


def test_the_picture_says_what_the_words_say() -> None:
    made = timeline("warehouse", ROW, READER)
    root = ElementTree.fromstring(made.to_svg())  # noqa: S314  our own
    assert root.findtext(f"{SVG}desc") == root.get("aria-label") == made.alternative()
    assert "confirmed_flush_lsn and acknowledged at 0/1038, 56 B further" in made.alternative()
    assert [element.get("stroke-width") for element in root.iter(f"{SVG}path")].count("5") == 1
    data, metadata = made._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "image/svg+xml"}
    assert metadata["image/svg+xml"]["alt"] == made.alternative()
    assert made.scene()[0] == "svg"


def test_nothing_known_is_said() -> None:
    assert "nothing is known yet" in Timeline(()).to_svg()
    assert "nothing is known yet" in Timeline((Point("a", None, "", True),)).to_text()


def test_a_timeline_has_to_know_of_what() -> None:
    with pytest.raises(SettingsError, match="does not know of what"):
        LSNTimeline(dsn="host=nowhere")
