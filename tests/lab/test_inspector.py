"""The inspector: messages as annotated bytes in text and HTML, found by kind and table, of a recording and a list."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cdc import encoder as pg
from cdc.test_pgoutput_properties import FULL, GOOD, TEXTS

from streamlab.cdc.recording import Recording
from streamlab.errors import LessonError
from streamlab.lab import hexdump
from streamlab.lab.inspector import Inspector

SHOP = Path(__file__).parents[2] / "data" / "shop.slrec"


class Markup(HTMLParser):
    """The bytes of the table and of the strip, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[str] = []
        self.text: list[tuple[str, str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.classes.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.classes.pop()

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", self.classes[-1] if self.open else "", data))

    def within(self, tag: str, name: str) -> list[str]:
        return [data for where, names, data in self.text if where == tag and name in names.split()]


@pytest.mark.parametrize("at", range(len(GOOD)))
def test_both_forms_show_every_byte_in_order(at: int) -> None:
    each = Inspector(GOOD)[at]
    rendered = each.rendered(limit=1000)
    lines = rendered.text.splitlines()
    shown = [re.match(r"  . [0-9a-f]{4}  ((?:[0-9a-f]{2} ){0,7}[0-9a-f]{2})(?: |$)", line) for line in lines]
    assert bytes.fromhex("".join(match[1] for match in shown if match)) == GOOD[at]
    markup = Markup(rendered.html)
    assert markup.open == []
    assert bytes.fromhex("".join(markup.within("span", "sl-b"))) == GOOD[at]  # the strip
    assert bytes.fromhex("".join(markup.within("td", "sl-bytes"))) == GOOD[at]
    offsets = [cell for cell in markup.within("td", "sl-b") if cell not in markup.within("td", "sl-bytes")]
    assert [int(cell, 16) for cell in offsets] == [span.start for span in each.dissection.spans]


def test_kinds_of_fields_differ_without_their_colours() -> None:
    assert len({mark for mark, *_ in hexdump._LOOKS.values()}) == len(hexdump._LOOKS)
    text = str(Inspector(GOOD).find("Insert"))
    for mark in "\u25a0\u25c6\u25cf#\u25b2":
        assert f"\n  {mark} " in text


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
@pytest.mark.parametrize("name", hexdump._LOOKS)
def test_colours_are_seen_on_light_and_dark_pages(name: str, page: str) -> None:
    low, high = sorted((luminance(hexdump._LOOKS[name][3]), luminance(page)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_a_long_value_is_cut_and_says_how_much_is_missing() -> None:
    content = bytes(range(256)) * 8
    (each,) = Inspector([pg.message("p", content, position=9)])
    rendered = each.rendered(limit=16)
    assert "\u2026 2,032 more bytes" in rendered.text
    assert content[:16].hex(" ") + " \u2026 2,032 more" in rendered.html
    assert len(rendered.html) < 20_000


def test_a_broken_message_says_why_in_both_forms() -> None:
    inspector = Inspector([FULL.relation(), FULL.insert(TEXTS)[:42]])
    text, html = inspector[-1].rendered().text, inspector[-1].rendered().html
    assert text.splitlines()[-1] == f"\u2717 {inspector[-1].dissection.fault}"
    assert "not read" in text
    assert 'role="alert"' in html
    assert inspector[-1].says == inspector[-1].dissection.fault


def test_texts_of_the_stream_stay_texts() -> None:
    table = pg.Table(9, "<b>", "&amp;", (("<script>", 25),))
    inspector = Inspector([table.relation(), table.insert(["</td><script>alert(1)</script>"])])
    for each in inspector:
        assert "<script>" not in each.rendered().html
        assert Markup(each.rendered().html).open == []


def test_messages_are_found_by_kind_and_table_and_number() -> None:
    inspector = Inspector(GOOD)
    assert len(inspector) == inspector.count == len(GOOD)
    assert (inspector[4].kind, inspector[-1].kind) == ("Insert", "Commit Prepared")
    assert inspector.find("Insert", table="t").number == 4
    assert inspector.find("Insert", table="s.t", after=4).number == 5
    assert inspector.find(after=2).number == 3
    assert inspector.find("Truncate", table="t").number == 10
    with pytest.raises(LessonError, match="No message of the kind Insert about orders") as refused:
        inspector.find("Insert", table="orders")
    assert "Stream Abort" in refused.value.fix
    with pytest.raises(IndexError, match="there were 34"):
        inspector[34]


def test_of_a_long_stream_the_last_messages_are_kept() -> None:
    inspector = Inspector(GOOD, limit=14, keep=5)
    assert [each.number for each in inspector] == [9, 10, 11, 12, 13]
    inspector.append(GOOD[14:17])
    assert [each.number for each in inspector] == [12, 13, 14, 15, 16]
    assert inspector[16].table == "s.t"
    with pytest.raises(IndexError):
        inspector[3]


def test_a_recording_is_inspected_with_no_server() -> None:
    inspector = Inspector(Recording.open(SHOP), limit=10_000)
    assert inspector.count == Recording.open(SHOP).count
    assert not [each.dissection.fault for each in inspector if each.dissection.fault]
    kinds = {each.kind for each in inspector}
    assert {"Begin", "Relation", "Insert", "Update", "Delete", "Commit"} <= kinds
    assert inspector.find("Insert", table="customers").says.startswith("id=1, name='")
    overview = inspector.rendered(limit=3).text
    assert re.search(r"^0 +[0-9A-F]+/[0-9A-F]+ +\d+ +Begin", overview, re.MULTILINE)
    assert overview.splitlines()[-1].startswith("\u2026 and ")


def test_a_cell_shows_it_in_both_forms() -> None:
    inspector = Inspector(GOOD)
    for each in (inspector, inspector[0]):
        data, _ = each._repr_mimebundle_()
        assert set(data) == {"text/plain", "text/html"}
    assert str(inspector[0]) == inspector[0].rendered().text
    assert repr(inspector) == "<Inspector: 34 messages>"


def test_a_stream_that_begins_anew_is_in_no_block() -> None:
    inspector = Inspector([FULL.relation(), pg.stream_start(6, first=True)])
    inspector.restart()
    inspector.append([pg.begin(7, 100), FULL.insert(TEXTS)])
    assert inspector[-1].dissection.fault == ""
    assert inspector[-1].dissection.values("Insert") == {"message": "I", "table": 7}
