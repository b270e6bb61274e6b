"""A lesson is found by its number; an optional part of it by the number and its letter."""

from __future__ import annotations

import pytest

from streamlab.errors import LessonError
from streamlab.lab import runner


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("00", "00_start_here"),
        ("01", "01_postgres_cdc"),
        ("01b", "01b_postgres_cdc_deeper"),
        ("02", "02_mysql_debezium"),
        ("06", "06_kafka_connect"),
    ],
)
def test_a_number_means_one_lesson(name: str, slug: str) -> None:
    assert runner.find(name).slug == slug
    assert runner.find(slug).slug == slug


def test_an_optional_part_comes_right_after_its_lesson() -> None:
    slugs = [each.slug for each in runner.lessons()]
    assert slugs.index("01b_postgres_cdc_deeper") == slugs.index("01_postgres_cdc") + 1


def test_a_letter_that_no_lesson_has_is_refused() -> None:
    with pytest.raises(LessonError, match="no lesson called 01c"):
        runner.find("01c")
