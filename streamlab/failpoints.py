"""Failpoints: named places where a test makes this process fail, and which cost nothing until then.

Code marks the steps between which a crash must do no harm::

    sink.commit()
    failpoint("cdc.before_ack")
    stream.acknowledge(position)

A harness starts the program with ``STREAMLAB_FAILPOINTS="cdc.before_ack=kill@3"``, and the third
pass ends it as a power cut would. The variable holds parts of the form ``name=action``, separated
by semicolons; ``@n`` means at the n-th pass only, without it at every pass:

==================  ========================================================================
``name=kill``       SIGKILL to the own process: nothing is flushed, no handler runs
``name=exit:3``     the process ends at once with that code, without any clean-up
``name=stop``       SIGSTOP to the own process; it goes on when somebody sends SIGCONT
``name=raise``      raises `FailpointError`
``name=sleep:0.5``  waits that many seconds
==================  ========================================================================

The variable is read once, when this module is first imported. A part that cannot be read, and a
name that stands nowhere in the code, are refused there: a crash test with a typo would pass
without a crash. A failpoint is declared by its call with the name as a literal, in this package
or in the program's own script; `registered` finds those calls in the source text, which is also
how a harness learns what there is to try. A point that was armed and not reached is reported
when the program ends.

The idea is that of FreeBSD's fail(9) and of gofail; the grammar is our own. Any thread may pass
a failpoint; passes are counted over all threads of the process.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamlab.errors import SettingsError, StreamlabError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["VARIABLE", "Action", "FailpointError", "failpoint", "parse", "passes", "registered"]

VARIABLE = "STREAMLAB_FAILPOINTS"
"""The environment variable that arms failpoints."""

_PACKAGE = Path(__file__).parent
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_ACTION = re.compile(r"(?P<kind>[a-z]+)(:(?P<value>[0-9]+(\.[0-9]+)?))?(@(?P<nth>[1-9][0-9]{0,8}))?")
_LONGEST_SLEEP = 3600.0

# What people write who do not remember the word.
_MEANT = {
    "sigkill": "kill",
    "crash": "kill",
    "die": "kill",
    "abort": "kill",
    "sigstop": "stop",
    "pause": "stop",
    "freeze": "stop",
    "error": "raise",
    "exception": "raise",
    "throw": "raise",
    "wait": "sleep",
    "delay": "sleep",
    "quit": "exit",
}
_DEFAULTS = {"kill": "", "stop": "", "raise": "", "sleep": "0.5", "exit": "1"}


class FailpointError(StreamlabError):
    """Raised by an armed failpoint; never in normal use."""


@dataclass(frozen=True, slots=True)
class Action:
    """What an armed failpoint does, and at which pass (None: at every pass); `str` is its text."""

    kind: str
    value: str = ""
    nth: int | None = None

    def __str__(self) -> str:
        return self.kind + (f":{self.value}" if self.value else "") + (f"@{self.nth}" if self.nth else "")

    def perform(self, name: str, number: int) -> None:
        """Fail, as this action says."""
        import logging
        import signal
        import time

        log = logging.getLogger(__name__)
        if self.kind == "raise":
            raise FailpointError(f"The failpoint {name} was armed to raise.", f"Unset {VARIABLE}.")
        log.warning("failpoint %s, pass %d: %s", name, number, self)
        if self.kind == "sleep":
            time.sleep(float(self.value))
        elif self.kind == "exit":
            os._exit(int(self.value))
        else:
            os.kill(os.getpid(), signal.SIGKILL if self.kind == "kill" else signal.SIGSTOP)


def _nearest(part: str, known: Collection[str]) -> str:
    """The right form that is closest to a wrong part."""
    from difflib import get_close_matches

    if "," in part:
        return ";".join(_nearest(one, known) for one in part.split(",") if one.strip()) or _nearest("", known)
    name, _, rest = part.partition("=")
    name = re.sub(r"[^a-z0-9_.]", "_", name.strip().lower())
    if known and name not in known:  # however far it is: only a name that exists is right
        name = next(iter(get_close_matches(name, known, n=1, cutoff=0.01)), min(known))
    if not _NAME.fullmatch(name):
        name = "room.step"
    word, _, tail = rest.strip().lower().partition("@")
    kind = re.match(r"[a-z]*", word)[0]  # type: ignore[index]  # matches the empty text too
    kind = _MEANT.get(kind, kind)
    if kind not in _DEFAULTS:
        kind = next(iter(get_close_matches(kind, _DEFAULTS, n=1, cutoff=0.5)), "kill")
    number = re.search(r"[0-9]{1,3}(\.[0-9]{1,6})?", word)
    value = _DEFAULTS[kind]
    if value and number:
        whole = str(min(int(number[0].partition(".")[0]), 255))
        value = number[0] if kind == "sleep" else whole
    nth = re.search(r"[1-9][0-9]{0,8}", tail)
    return f"{name}={Action(kind, value, int(nth[0]) if nth else None)}"


def parse(text: str, known: Collection[str] = ()) -> dict[str, tuple[Action, ...]]:
    """Read the text of the environment variable.

    Parameters
    ----------
    text : str
        Parts of the form ``name=action`` separated by semicolons; blanks around them and empty
        parts mean nothing. A name may occur more than once.
    known : collection of str, optional
        The names that exist; any well-formed name is accepted where it is empty.

    Raises
    ------
    SettingsError
        A part cannot be read or names an unknown failpoint; the message holds the nearest right form.
    """
    found: dict[str, tuple[Action, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):

        def refuse(why: str, part: str = part) -> SettingsError:
            return SettingsError(
                f"{VARIABLE} holds {part!r}, {why}.", f"The nearest right form is: {_nearest(part, known)}"
            )

        name, equals, rest = (piece.strip() for piece in part.partition("="))
        if "," in part:
            raise refuse("but parts are separated by semicolons")
        if not equals:
            raise refuse("which says no action")
        if not _NAME.fullmatch(name):
            raise refuse("whose name is not of the form room.step")
        match = _ACTION.fullmatch(rest)
        if match is None:
            raise refuse("whose action is not of the form kind, kind:value or kind@pass")
        kind, value = match["kind"], match["value"] or ""
        if kind not in _DEFAULTS:
            raise refuse(f"which names no known action ({', '.join(_DEFAULTS)})")
        if bool(value) != bool(_DEFAULTS[kind]):
            raise refuse(f"but {kind} takes {'a value' if _DEFAULTS[kind] else 'no value'}")
        if kind == "exit" and not (value.isdigit() and int(value) <= 255):
            raise refuse("but an exit code is a whole number up to 255")
        if kind == "sleep" and float(value) > _LONGEST_SLEEP:
            raise refuse("which is longer than an hour")
        if known and name not in known:
            raise refuse("which names no failpoint of the code")
        found[name] = (*found.get(name, ()), Action(kind, value, int(match["nth"]) if match["nth"] else None))
    return found


def _files(root: Path | str) -> Iterator[Path]:
    path = Path(root)
    if isinstance(root, str) and re.fullmatch(r"streamlab(\.\w+)*", root):
        path = _PACKAGE.joinpath(*root.split(".")[1:])
        path = path if path.is_dir() else path.with_suffix(".py")
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from sorted(path.rglob("*.py"))
    else:
        raise SettingsError(f"{root} is neither a module of streamlab nor a file.", "Name a module, file or directory.")


def registered(*roots: Path | str) -> dict[str, tuple[str, ...]]:
    """Find failpoints in source text, without importing it.

    Parameters
    ----------
    *roots : Path or str
        Python files, directories, or modules and packages such as ``"streamlab.cdc"``; the whole
        package where none is given.

    Returns
    -------
    dict of str to tuple of str
        The names, sorted, each with its places as ``path:line``.

    Raises
    ------
    SettingsError
        A call's name is no literal or not of the form ``room.step``, a file is no Python, or a
        root does not exist.
    """
    import ast

    found: dict[str, list[str]] = {}
    for path in (path for root in roots or (_PACKAGE,) for path in _files(root)):
        source = path.read_text(encoding="utf-8")
        if "failpoint(" not in source:
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise SettingsError(f"{path} cannot be read as Python.", f"Correct line {error.lineno}.") from error
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if getattr(called, "id", "") != "failpoint" and getattr(called, "attr", "") != "failpoint":
                continue
            place = f"{path}:{node.lineno}"
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            if not (isinstance(name, str) and _NAME.fullmatch(name)):
                raise SettingsError(
                    f"The failpoint at {place} has no literal name of the form room.step.",
                    'Write it as failpoint("room.step"), so that it can be found in the source.',
                )
            found.setdefault(name, []).append(place)
    return {name: tuple(found[name]) for name in sorted(found)}


class _Armed:
    """The failpoints that the environment armed, and the count of passes of all."""

    def __init__(self, actions: Mapping[str, tuple[Action, ...]]) -> None:
        self.actions = actions
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()

    def hit(self, name: str, /) -> None:
        with self.lock:
            number = self.counts[name] = self.counts.get(name, 0) + 1
        for action in self.actions.get(name, ()):
            if action.nth in {None, number}:
                action.perform(name, number)

    def report(self) -> None:
        """Say at the end which armed failpoints did nothing: such a crash test has proved nothing."""
        import logging

        for name, actions in self.actions.items():
            number = self.counts.get(name, 0)
            for action in actions:
                if number < (action.nth or 1):
                    logging.getLogger(__name__).warning("failpoint %s=%s: passed %d times only", name, action, number)


def _arm() -> _Armed | None:
    text = os.environ.get(VARIABLE, "")
    if not text.strip(" ;"):
        return None
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0].endswith(".py") else None
    known = registered(_PACKAGE, *([script] if script and script.is_file() else []))
    if not known:
        raise SettingsError(f"{VARIABLE} is set, but the code has no failpoint.", f"Unset {VARIABLE}.")
    import atexit

    armed = _Armed(parse(text, known))
    atexit.register(armed.report)
    return armed


_armed = _arm()

if TYPE_CHECKING:

    def failpoint(name: str, /) -> None:
        """Fail here if the environment says so."""

elif _armed is None:
    # The cheapest call that Python has: a method written in C. It answers None to every name, as
    # an empty function would at twice the cost.
    failpoint = {}.get
else:
    failpoint = _armed.hit


def passes() -> dict[str, int]:
    """How often each failpoint was passed; counted for all as soon as one is armed, else empty."""
    if _armed is None:
        return {}
    with _armed.lock:
        return dict(_armed.counts)
