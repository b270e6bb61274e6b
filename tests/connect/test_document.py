"""A configuration as a file: the lines of its keys, in every form in which it is found."""

from __future__ import annotations

import json
from json import JSONDecodeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.connect.document import entries

KEYS = st.text(st.characters(codec="utf-8"), min_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=5,
)


@given(st.dictionaries(KEYS.filter(lambda key: key != "config"), VALUES), st.sampled_from([None, 0, 2]))
def test_keys_and_values_are_those_of_json(values: dict[str, object], indent: int | None) -> None:
    for text in (
        json.dumps(values, indent=indent),
        json.dumps({"name": "n", "config": values, "tasks": []}, indent=indent, ensure_ascii=False),
    ):
        assert [(each.key, each.value) for each in entries(text)] == list(values.items())


def test_each_key_has_its_line() -> None:
    text = '{\n  "name": "x",\n\n  "config": {"a": "1",\n    "b": ["{", "\\"b\\":"],\r\n    "c"\n:"3"}}\n'
    assert [(each.key, each.line) for each in entries(text)] == [("a", 4), ("b", 5), ("c", 6)]


def test_the_keys_themselves_are_a_configuration_too_and_a_byte_order_mark_is_none_of_them() -> None:
    assert [(each.key, each.value, each.line) for each in entries('\ufeff{\n"a": "1", "a": "2"}')] == [
        ("a", "1", 2),
        ("a", "2", 2),
    ]


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ('{"config": {"a": "1"}, "config": {"a": "2"}}', "second config", 34),
        ('{"config": {"a": ' + "[" * 200_000, "nested too deeply", 12),
        ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply", 7),
        ('{"a": ' + "1" * 5_000 + "}", "number is too long", 7),
    ],
)
def test_what_cannot_be_read_is_said(text: str, what: str, column: int) -> None:
    with pytest.raises(JSONDecodeError, match=what) as caught:
        entries(text)
    assert caught.value.colno == column


def test_a_key_called_config_may_be_a_value() -> None:
    assert [each.key for each in entries('{"config": "x", "b": "1"}')] == ["config", "b"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]", 1),
        ('{"a": "1",\n}', 2),
        ('{"a": "1"\n"b": "2"}', 2),
        ('{"a"\n"1"}', 2),
        ('{\n"a": tru}', 2),
        ('{"a": "1"}\n{}', 2),
        ('{"a": "1"', 1),
        ("{a: 1}", 1),
        ('{"name": "n",\n"config": {"a": "1"},\n}', 3),
    ],
)
def test_what_is_no_json_is_refused_at_its_line(text: str, line: int) -> None:
    with pytest.raises(JSONDecodeError) as caught:
        entries(text)
    assert caught.value.lineno == line
