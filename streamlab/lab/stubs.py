"""Whether an answer is still the stub that the exercise handed out.

A stub is recognised by its placeholder, Python's ``...``: the answer is Ellipsis itself, holds it, or
is a function or class in whose body a bare ``...`` still stands for code to be written. Source is read
where there is any (a kernel keeps each cell's); without source, compiled code tells less, but enough
for a function whose body is nothing but the placeholder.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

__all__ = ["is_stub"]


def is_stub(answer: Any) -> bool:
    """Whether an exercise's answer was not written yet.

    Parameters
    ----------
    answer : object
        A value, function, class, or a tuple, list or mapping of them.

    Returns
    -------
    bool
        True for Ellipsis, for a collection that holds one, for a function with a bare ``...`` left in its
        body or that returns one, for a body of nothing but ``pass`` and a docstring, and for a class of
        which a method is such a function.
    """
    if answer is Ellipsis:
        return True
    if isinstance(answer, Mapping):
        return any(value is Ellipsis for value in answer.values())
    if isinstance(answer, tuple | list | set | frozenset):
        return any(value is Ellipsis for value in answer)
    if isinstance(answer, type):
        return _class_is_stub(answer)
    # Only functions that a reader can have written: a class instance or a built-in is an answer.
    function = inspect.unwrap(answer.__func__ if inspect.ismethod(answer) else answer) if callable(answer) else None
    return isinstance(function, FunctionType) and _function_is_stub(function)


def _class_is_stub(cls: type) -> bool:
    own = [value.__func__ if isinstance(value, staticmethod | classmethod) else value for value in vars(cls).values()]
    functions = [value for value in own if isinstance(value, FunctionType)]
    written = [f for f in functions if f.__module__ == cls.__module__ and f.__qualname__.startswith(cls.__qualname__)]
    if written:
        return any(_function_is_stub(function) for function in written)
    # A class without methods: a stub when nothing but private names and a docstring is in it.
    return cls.__bases__ == (object,) and not any(not name.startswith("__") for name in vars(cls))


def _function_is_stub(function: FunctionType) -> bool:
    tree = _source_tree(function)
    if tree is None:
        return _code_is_stub(function.__code__)
    if isinstance(tree, ast.Lambda):
        return _is_placeholder(tree.body)
    body = tree.body[1:] if ast.get_docstring(tree, clean=False) is not None else tree.body
    if all(isinstance(statement, ast.Pass) for statement in body):
        return True
    return any(_is_open(node) for statement in body for node in _own_nodes(statement))


def _is_open(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr | ast.Return):
        return node.value is not None and _is_placeholder(node.value)
    return isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_placeholder(node.value)


def _is_placeholder(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _own_nodes(statement: ast.stmt) -> list[ast.AST]:
    """The statement and what is in it, classes aside: a Protocol's methods are written with ``...``."""
    if isinstance(statement, ast.ClassDef):
        return []
    found: list[ast.AST] = [statement]
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            found += _own_nodes(child)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            found += [node for inner in child.body for node in _own_nodes(inner)]
    return found


def _source_tree(function: FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return None
    try:
        module = ast.parse(source)
    except SyntaxError:
        return None  # a lambda within an expression: its lines alone are no program
    wanted = function.__name__
    lambdas = []
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == wanted:
            return node
        if isinstance(node, ast.Lambda):
            lambdas.append(node)
    # Two lambdas on one line cannot be told apart by source.
    return lambdas[0] if wanted == "<lambda>" and len(lambdas) == 1 else None


_SILENT = {"RESUME", "NOP", "CACHE", "RETURN_GENERATOR", "POP_TOP", "COPY_FREE_VARS", "MAKE_CELL"}


def _code_is_stub(code: CodeType) -> bool:
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    match [(step.opname, step.argval) for step in steps]:
        case [("LOAD_CONST" | "RETURN_CONST", value), *rest]:
            return (value is None or value is Ellipsis) and all(name == "RETURN_VALUE" for name, _ in rest)
    return False
