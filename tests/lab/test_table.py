"""Small tables: what is shown of each kind of row and value, in text and in HTML."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pandas
import polars
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamlab.errors import LessonError
from streamlab.lab import table
from streamlab.lab.table import cell_text, render

Pair = namedtuple("Pair", ["key", "count"])  # noqa: PYI024


@dataclass
class Change:
    commit_lsn: str
    xid: int
    _private: str = "hidden"


class Kind(enum.Enum):
    INSERT = 1


class Cells(HTMLParser):
    """The texts of a table's cells, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open = False
        self.feed(html.partition("</style>")[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


@pytest.mark.parametrize(
    "rows",
    [
        [{"key": "a", "count": 1}, {"key": "b", "count": 22}],
        [Pair("a", 1), Pair("b", 22)],
        pandas.DataFrame({"key": ["a", "b"], "count": [1, 22]}),
        polars.DataFrame({"key": ["a", "b"], "count": [1, 22]}),
        ({"key": k, "count": n} for k, n in (("a", 1), ("b", 22))),
    ],
    ids=["mappings", "named tuples", "pandas", "polars", "generator"],
)
def test_rows_of_every_kind(rows: Any) -> None:
    rendered = render(rows)
    assert rendered.text == "key  count\n\u2500\u2500\u2500  \u2500\u2500\u2500\u2500\u2500\na        1\nb       22"
    assert Cells(rendered.html).rows == [["key", "count"], ["a", "1"], ["b", "22"]]


def test_objects_by_headings_for_people() -> None:
    rows = [Change("0/16B3748", 7)]
    assert Cells(render(rows).html).rows == [["commit lsn", "xid"], ["0/16B3748", "7"]]
    chosen = render(rows, "xid", "commit LSN", next_xid=lambda change: change.xid + 1)
    assert Cells(chosen.html).rows == [["xid", "commit LSN", "next xid"], ["7", "0/16B3748", "8"]]
    with pytest.raises(LessonError, match=r"A Change has nothing called 'lsn' to show. Known: commit_lsn, xid\."):
        render(rows, "lsn")


def test_tuples_mappings_and_plain_values() -> None:
    assert Cells(render([(1, "a"), (2,)], "n", "letter").html).rows == [["n", "letter"], ["1", "a"], ["2", "null"]]
    assert Cells(render([(1, 2)]).html).rows[0] == ["column 1", "column 2"]
    assert Cells(render({"a": 1}, "key", "value").html).rows == [["key", "value"], ["a", "1"]]
    assert Cells(render(["x", "y"]).html).rows == [["value"], ["x"], ["y"]]


def test_no_rows() -> None:
    assert render([]).text == "no rows"
    assert Cells(render([], "a").html).rows == [["a"], ["no rows"]]
    assert render([], "a", caption="Nothing").text == "Nothing\na\n\u2500\nno rows"


def test_what_is_cut_off_is_said() -> None:
    rendered = render([{"n": n} for n in range(23)], limit=3)
    assert rendered.text.splitlines()[2:] == ["0", "1", "2", "\u2026 and 20 more"]
    assert "\u2026 and 20 more" in Cells(rendered.html).rows[-1]
    assert "more" not in render([{"n": n} for n in range(table.LIMIT)]).text
    assert render([{"n": n} for n in range(table.LIMIT + 1)]).text.endswith("\u2026 and 1 more")


def test_numbers_stand_on_the_right_and_texts_on_the_left() -> None:
    rendered = render([{"a": 1, "b": "x", "c": None, "d": True}, {"a": None, "b": "yy", "c": None, "d": False}])
    heads = [attributes.get("class") for tag, attributes in Cells(rendered.html).tags if tag == "th"]
    assert heads == ["sl-r", None, None, None]
    assert rendered.text.splitlines()[2:] == ["   1  x   null  yes", "null  yy  null  no"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "yes"), (False, "no"), (0, "0"), (1_000_000, "1000000"), (3.14159, "3.14"),
        (0.000123456, "0.000123"), (12345.678, "12346"), (-1234.5, "-1234"), (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Decimal("9.90"), "9.90"), (timedelta(milliseconds=1500), "1.5 s"), (Kind.INSERT, "insert"),
        (b"\x00\xff", "00 ff"), (b"x" * 17, "17 bytes"), ("two\n  lines", "two lines"), ("", ""),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC), "2026-01-02 03:04:05.999Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 0, timezone(timedelta(hours=2))), "2026-01-02 01:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02 03:04:05"),
        ("x" * 60, "x" * 60), ("x" * 61, "x" * 59 + "\u2026"),
    ],
)  # fmt: skip
def test_values(value: object, text: str) -> None:
    assert cell_text(value) == text


@example([{"a": "<script>1 &lt; 2</script>", "<b>": "a</td><td>b", "c&": "&amp;"}])
@given(st.lists(st.dictionaries(st.sampled_from(["a", "<b>", "c&"]), st.text(), min_size=3), min_size=1, max_size=4))
def test_html_holds_the_same_texts_and_no_markup_of_the_values(rows: list[dict[str, str]]) -> None:
    rendered = render(rows, "a", "<b>", "c&", caption="<i>caption</i>")
    cells = Cells(rendered.html)
    assert cells.rows[1:] == [[cell_text(row[name]) for name in ("a", "<b>", "c&")] for row in rows]
    assert {tag for tag, _ in cells.tags} == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
