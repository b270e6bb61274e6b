"""Which tables are meant: patterns for ``schema.table``, as somebody types them into a cell.

``*``, ``?`` and ``[...]`` are wildcards, and commas part one pattern from the next. A part in double quotes is meant as
it stands, as in SQL: ``public."a, b[1]"``. A name that is typed in full is found without them, unless it has a comma.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

__all__ = ["Patterns"]

# A quoted part is one from the beginning of a name to its end; anywhere else a quote is one of the name's letters.
_TOKEN = re.compile(r'(?<![^.,\s])"(?:[^"]|"")+"(?=\s*(?:[.,]|$))|.', re.DOTALL)


class Patterns:
    """Some patterns; nothing given means all tables. Immutable.

    Parameters
    ----------
    text : str or iterable of str
        With commas between them, or one by one.
    """

    def __init__(self, text: str | Iterable[str] = "*") -> None:
        found = _split(text) if isinstance(text, str) else [part for each in text for part in _split(each, comma="")]
        self._patterns = [each for each in found if each] or ["*"]

    def __call__(self, full: str) -> bool:
        """Whether a table, by schema and name, is meant."""
        return any(full == pattern or fnmatchcase(full, pattern) for pattern in self._patterns)

    def __str__(self) -> str:
        return ", ".join(self._patterns)

    @property
    def everything(self) -> bool:
        """Whether no table is left out."""
        return "*" in self._patterns


def _split(text: str, *, comma: str = ",") -> Iterator[str]:
    """The patterns in a text, with what is quoted written so that it stands for itself."""
    found = ""
    for token in _TOKEN.findall(text):
        if token == comma:
            yield found.strip()
            found = ""
        elif len(token) > 1:
            found += glob.escape(token[1:-1].replace('""', '"'))
        else:
            found += token
    yield found.strip()
