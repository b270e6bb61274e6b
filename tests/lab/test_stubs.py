"""What is still to be written is told from what was written, with and without source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlab.lab.stubs import is_stub

# Each text defines `answer`. They are run as a kernel runs a cell: with source (linecache), and without.
STUBS = {
    "ellipsis": "def answer(x):\n    ...",
    "one line": "def answer(x): ...",
    "docstring": 'def answer(x):\n    """What to do."""\n    ...',
    "only a docstring": 'def answer(x):\n    """What to do."""',
    "pass": "def answer(x):\n    pass",
    "returned": "def answer(x):\n    return ...",
    "lambda": "answer = lambda x: ...",
    "async": "async def answer(x):\n    ...",
    "method": "class answer:\n    def run(self):\n        ...",
    "static method": "class answer:\n    @staticmethod\n    def run():\n        ...",
    "class method": "class answer:\n    @classmethod\n    def run(cls):\n        ...",
    "empty class": 'class answer:\n    """To be written."""',
    "bound method": "class _A:\n    def run(self):\n        ...\nanswer = _A().run",
}
ONLY_IN_SOURCE = {
    "assigned": "def answer(x):\n    y = ...\n    return y",
    "annotated": "def answer(x):\n    y: int = ...\n    return y",
    "half written": "def answer(x):\n    y = x + 1\n    ...\n    return y",
    "in a branch": "def answer(x):\n    if x:\n        ...\n    return 1",
    "in a loop": "def answer(xs):\n    for x in xs:\n        ...\n    return 1",
    "in a handler": "def answer(x):\n    try:\n        x()\n    except ValueError:\n        ...\n    return 1",
    "in a match": "def answer(x):\n    match x:\n        case 1:\n            ...\n    return 1",
    "inner function": "def answer(x):\n    def inner():\n        ...\n    return inner",
    "one method of two": "class answer:\n    def a(self):\n        return 1\n    def b(self):\n        ...",
}
WRITTEN = {
    "function": "def answer(x):\n    return x",
    "lambda": "answer = lambda x: x",
    "lambda none": "answer = lambda x: print(x)",
    "slice": "def answer(x):\n    return x[...]",
    "argument": "def answer(x=...):\n    return x",
    "compared": "def answer(x):\n    return x is ...",
    "generator": "def answer(x):\n    yield x",
    "class": "class answer:\n    limit = 3",
    "subclass": "class answer(ValueError):\n    pass",
    "raises": "def answer(x):\n    raise NotImplementedError",
    "protocol within": "def answer(x):\n    class P:\n        def f(self): ...\n    return P",
}


def defined(source: str, *, kept: bool) -> Any:
    """What a text defines; its source is kept where `inspect` looks, as ipykernel keeps a cell's, or not."""
    import linecache

    name = f"<cell {abs(hash((source, kept)))}>"
    space: dict[str, Any] = {"__name__": "cell"}
    exec(compile(source, name, "exec"), space)  # noqa: S102
    if kept:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return space["answer"]


@pytest.mark.parametrize("name", [*STUBS, *ONLY_IN_SOURCE])
def test_stubs_with_source(name: str) -> None:
    assert is_stub(defined((STUBS | ONLY_IN_SOURCE)[name], kept=True))


@pytest.mark.parametrize("name", STUBS)
def test_stubs_without_source(name: str) -> None:
    assert is_stub(defined(STUBS[name], kept=False))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_written_is_none(name: str, kept: bool) -> None:
    assert not is_stub(defined(WRITTEN[name], kept=kept))


def test_wrapped_functions_are_looked_into() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return function(*arguments)

        return wrapper

    @logged
    def unwritten(x: int) -> int: ...

    @logged
    def written(x: int) -> int:
        return x

    assert is_stub(unwritten)
    assert not is_stub(written)


def test_two_lambdas_on_one_line_are_judged_by_their_code() -> None:
    pair: list[Any] = [lambda x: ..., lambda x: x]
    assert [is_stub(each) for each in pair] == [True, False]


def test_objects_and_built_ins_are_answers() -> None:
    class Contract(Protocol):
        def run(self) -> int: ...

    class Prepared:
        def __call__(self) -> None: ...

    assert not is_stub(len)
    assert not is_stub(Prepared())
    assert not is_stub(functools.partial(len, "x"))
    assert not is_stub(None)
    assert is_stub(Contract)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_no_plain_value_is_a_stub(value: Any) -> None:
    assert not is_stub(value)


@given(st.lists(values, max_size=5), st.integers(0, 5))
def test_a_collection_that_holds_the_placeholder_is_one(items: list[Any], place: int) -> None:
    items.insert(place, ...)
    assert is_stub(items)
    assert is_stub(tuple(items))
    assert is_stub(dict(enumerate(items)))
    assert is_stub({...})
