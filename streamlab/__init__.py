"""streamlab: real-time and streaming database patterns, run against real servers.

Importing this package starts nothing, connects to nothing and reads no file: the public names
below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from streamlab.errors import StreamlabError as StreamlabError

_HOMES = {
    "StreamlabError": "streamlab.errors",
}

__all__ = ["StreamlabError", "__version__"]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'streamlab' has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
