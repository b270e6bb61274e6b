"""All SQL of the package, one file a concept, each statement with a name and a comment.

A file is a list of blocks. A block starts at a line ``-- name: place_order`` and ends at the next
such line or at the end of the file; what stands before the first block explains the file. The files
are readable, and can be run, on their own; Python holds no SQL text and builds none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import LiteralString

from streamlab.errors import StreamlabError

__all__ = ["load", "mysql_identifier", "parse", "statements"]

_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)


@cache
def load(name: str) -> Mapping[str, LiteralString]:
    """Return the blocks of ``streamlab/sql/<name>.sql`` by name, in the order of the file.

    The text comes from files of this package alone, never from a user, so it is typed as literal:
    psycopg accepts it as SQL.

    Raises
    ------
    StreamlabError
        There is no such file, or a block is empty or named twice.
    """
    path = files(__name__) / f"{name}.sql"
    if not path.is_file():
        raise StreamlabError(f"The package holds no SQL file named {name}.", "See streamlab/sql for the names.")
    return parse(path.read_text(encoding="utf-8"), name)


def parse(text: str, name: str = "text") -> Mapping[str, LiteralString]:
    """Split the text of an SQL file into its named blocks; lines that hold only a comment are left out."""
    _, *parts = _NAME.split(text)
    blocks: dict[str, LiteralString] = {}
    for block, body in zip(parts[::2], parts[1::2], strict=True):
        lines = [line.rstrip() for line in body.splitlines() if not line.lstrip().startswith("--")]
        sql = "\n".join(lines).strip()
        if not sql or block in blocks:
            raise StreamlabError(
                f"The block {block} of {name}.sql is empty or stands there twice.", "Correct the file."
            )
        blocks[block] = sql
    return MappingProxyType(blocks)


def statements(block: LiteralString) -> list[LiteralString]:
    """Split a block into statements, for a driver that takes one at a time: each ends with ``;`` at a line's end."""
    return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", block) if part.strip()]


def mysql_identifier(name: str) -> str:
    """A name as MySQL's SQL holds it, in backticks; psycopg has `sql.Identifier` for this, PyMySQL has nothing."""
    return "`" + name.replace("`", "``") + "`"
