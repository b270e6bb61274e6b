"""A cell that shows a mistake stays wrong for the right reason, and for no other."""

from __future__ import annotations

import psycopg
import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors as pg

from streamlab.errors import LessonError, NotWrong
from streamlab.lab.wrong import AtLeast, Between, Wrong


def wrong(title: str = "a mistake", what: str = "orders") -> tuple[Wrong, dict[str, str]]:
    shown: dict[str, str] = {}
    return Wrong(title, what, shown.__setitem__), shown


# -- by figures ---------------------------------------------------------------------------------------


def test_figures_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    cell, shown = wrong("polling loses late commits")
    with cell as it:
        it.compare(sent=[1, 2, 3], seen=[1, 3])
        it.expect(lost=1, of=3)
    assert shown == {"polling loses late commits": "1 of 3 orders lost."}
    assert capsys.readouterr().out == "\u2717 as expected: 1 of 3 orders lost.\n  polling loses late commits\n"


@pytest.mark.parametrize("seen", [[1, 2, 3], [1], []])
def test_figures_that_do_not_hold(seen: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    cell, shown = wrong()
    with pytest.raises(NotWrong, match=rf"should show lost 1, but showed lost {3 - len(seen)}"):
        with cell as it:
            it.compare([1, 2, 3], seen)
            it.expect(lost=1, of=3)
    assert shown == {}
    assert capsys.readouterr().out == ""


def test_a_figure_that_nobody_measured() -> None:
    with pytest.raises(NotWrong, match="expects repeated, which was not measured"):
        with wrong()[0] as it:
            it.measure(lost=1)
            it.expect(lost=1, repeated=2)


def test_figures_without_a_total_and_a_total_alone() -> None:
    for figures, text in (({"dirty_reads": 2}, "dirty reads 2."), ({"of": 5}, "of 5.")):
        cell, shown = wrong()
        with cell as it:
            it.measure(**figures)
            it.expect(**figures)
        assert shown == {"a mistake": text}


def test_figures_that_differ_from_run_to_run() -> None:
    cell, shown = wrong()
    with cell as it:
        it.measure(lost=7, repeated=2, late=3, of=200)
        it.expect(lost=it.at_least(1), repeated=it.between(1, 2), late=lambda n: n % 2 == 1, of=200)
    assert shown == {"a mistake": "7 of 200 orders lost, 2 of 200 orders repeated, 3 of 200 orders late."}


def odd(number: int) -> bool:
    return number % 2 == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(AtLeast(1), "lost at least 1"), (Between(1, 3), "lost between 1 and 3"), (odd, "lost that holds odd")],
)
def test_what_was_wanted_is_said(wanted: object, said: str) -> None:
    with pytest.raises(NotWrong, match=f"should show {said}, but showed lost 0"):
        with wrong()[0] as it:
            it.measure(lost=0)
            it.expect(lost=wanted)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_limits_are_included(value: float, low: float, high: float) -> None:
    assert AtLeast(low)(value) == (value >= low)
    assert Between(low, high)(value) == (low <= value <= high)
    assert AtLeast(value)(value)
    assert Between(value, value)(value)


@given(st.lists(st.integers(0, 6)), st.lists(st.integers(0, 9)))
def test_what_was_sent_is_lost_or_was_seen(sent: list[int], seen: list[int]) -> None:
    cell, _ = wrong()
    cell.compare(sent, seen)
    figures = cell.figures
    assert figures["of"] == len(sent)
    assert figures["invented"] == sum(each not in sent for each in seen)
    # Everything seen was sent once, or came again, or was never sent.
    assert len(seen) == figures["of"] - figures["lost"] + figures["repeated"] + figures["invented"]
    assert all(value >= 0 for value in figures.values())


# -- by error -----------------------------------------------------------------------------------------


def test_an_exception_of_the_class() -> None:
    cell, shown = wrong()
    with cell as it:
        it.expect(KeyError)
        _ = {}["x"]  # type: ignore[var-annotated]
    assert shown == {"a mistake": "KeyError: 'x'"}


def test_nothing_raised() -> None:
    with pytest.raises(NotWrong, match="should fail with KeyError, but nothing was raised"):
        with wrong()[0] as it:
            it.expect(KeyError)


def test_another_exception_keeps_its_cause() -> None:
    with pytest.raises(NotWrong, match="should fail with KeyError, but failed with ValueError: no") as caught:
        with wrong()[0] as it:
            it.expect(KeyError)
            raise ValueError("no")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("state", ["55006", "42601"])
def test_the_sqlstate_decides(state: str) -> None:
    cell, shown = wrong()
    error = pg.lookup(state)("it is so\nDETAIL: more")
    with cell as it:
        it.expect(sqlstate=state)
        raise error
    assert shown == {"a mistake": f"{type(error).__name__} (SQLSTATE {state}): it is so"}
    with pytest.raises(NotWrong, match=f"should fail with SQLSTATE {state}, but failed with UniqueViolation"):
        with wrong()[0] as it:
            it.expect(sqlstate=state)
            raise pg.UniqueViolation("twice")


def test_class_sqlstate_message_and_figures_must_all_hold() -> None:
    everything = {"sqlstate": "55006", "match": "active", "lost": 2}
    cell, shown = wrong()
    with cell as it:
        it.measure(lost=2)
        it.expect(psycopg.OperationalError, **everything)  # type: ignore[arg-type]
        raise pg.ObjectInUse("slot is active")
    assert shown == {"a mistake": "ObjectInUse (SQLSTATE 55006): slot is active; lost 2."}
    for error, lost in (
        (pg.ObjectInUse("slot is gone"), 2),
        (pg.ObjectInUse("slot is active"), 1),
        (pg.AdminShutdown("active"), 2),
        (KeyError("active"), 2),
    ):
        with pytest.raises(NotWrong):
            with wrong()[0] as it:
                it.measure(lost=lost)
                it.expect(psycopg.OperationalError, **everything)  # type: ignore[arg-type]
                raise error


def test_the_number_of_a_mysql_error_decides() -> None:
    cell, shown = wrong()
    with cell as it:
        it.expect(errno=1062)
        raise pymysql.err.IntegrityError(1062, "Duplicate entry '1'\nfor key")
    assert shown == {"a mistake": "IntegrityError (1062): Duplicate entry '1'"}
    for error in (pymysql.err.IntegrityError(1451, "a parent row"), ValueError("1062"), ValueError(), ValueError(True)):
        with pytest.raises(NotWrong, match="should fail with MySQL error 1062"):
            with wrong()[0] as it:
                it.expect(errno=1062)
                raise error
    with pytest.raises(NotWrong, match="should fail with MySQL error 0"):
        with wrong()[0] as it:
            it.expect(errno=0)


def test_an_exception_where_figures_were_expected() -> None:
    with pytest.raises(NotWrong, match="failed with ValueError: early, which nothing here expects") as caught:
        with wrong()[0] as it:
            it.expect(lost=1)
            raise ValueError("early")
    assert isinstance(caught.value.__cause__, ValueError)


# -- the block ----------------------------------------------------------------------------------------


def test_no_expectation() -> None:
    with pytest.raises(NotWrong, match="names no failure that it expects"):
        with wrong()[0] as it:
            it.measure(lost=1)


def test_an_empty_expectation() -> None:
    with pytest.raises(LessonError, match="names no failure"):
        wrong()[0].expect()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_passes_through(kind: type[BaseException]) -> None:
    cell, shown = wrong()
    with pytest.raises(kind):
        with cell as it:
            it.expect(ValueError)
            raise kind
    assert shown == {}


def test_an_interrupt_that_is_expected_is_the_mistake() -> None:
    cell, shown = wrong()
    with cell as it:
        it.expect(KeyboardInterrupt)
        raise KeyboardInterrupt
    assert shown == {"a mistake": "KeyboardInterrupt"}


def test_a_lesson_that_cannot_go_on_is_no_mistake_that_it_shows() -> None:
    with pytest.raises(LessonError, match="The server is gone"):
        with wrong()[0] as it:
            it.expect(lost=1)
            raise LessonError("The server is gone.")
    cell, shown = wrong()
    with cell as it:
        it.expect(LessonError)
        raise LessonError("The server is gone.")
    assert shown == {"a mistake": "LessonError: The server is gone."}


def test_expectations_add_up() -> None:
    with pytest.raises(NotWrong, match="KeyError, a message that holds 'x'"):
        with wrong()[0] as it:
            it.expect(KeyError)
            it.expect(match="x")
            raise KeyError("y")
