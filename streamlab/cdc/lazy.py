"""Rows that are decoded when they are first looked at; until then they are the bytes that came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamlab.cdc.values import Codec
from streamlab.cdc.wire import Relation

__all__ = ["LazyRow", "RowForm"]


@dataclass(frozen=True, slots=True, eq=False)
class RowForm:
    """What the bytes of one kind of change of one table are.

    Attributes
    ----------
    relation : Relation
        The table.
    codecs : list of Codec
        Of its columns.
    decode : callable
        (message, place of the first column) -> the old and the new row. Raises `ProtocolError`.
    """

    relation: Relation
    codecs: list[Codec]
    decode: Callable[[bytes, int], tuple[Mapping[str, Any], Mapping[str, Any]]]


class LazyRow(Mapping[str, Any]):
    """A row that is decoded when it is first looked at; to a reader the same as a dict that cannot be changed.

    Looking at it can raise `ProtocolError`, since the bytes were not checked before. Threads may share it.
    """

    __slots__ = ("_at", "_form", "_message", "_which")

    def __init__(self, message: bytes, at: int, form: RowForm, which: int) -> None:
        self._message: bytes | Mapping[str, Any] = message
        self._at = at
        self._form = form
        self._which = which

    def received(self) -> tuple[bytes, int, RowForm] | None:
        """The message, where its first column begins, and what it is; None once the row was decoded."""
        message = self._message
        return (message, self._at, self._form) if isinstance(message, bytes) else None

    def decoded(self) -> Mapping[str, Any]:
        """The row as it would be were it not lazy: quicker to go through."""
        # One attribute holds either the bytes or the row: another thread sees one of the two.
        message = self._message
        if isinstance(message, bytes):
            self._message = message = self._form.decode(message, self._at)[self._which]
        return message

    def __getitem__(self, name: str) -> Any:
        return self.decoded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.decoded())

    def __len__(self) -> int:
        return len(self.decoded())

    def __contains__(self, name: object) -> bool:
        return name in self.decoded()

    def __eq__(self, other: object) -> bool:
        return dict(self.decoded()) == (dict(other) if isinstance(other, Mapping) else other)

    __hash__ = None  # type: ignore[assignment]  # like a dict

    def __repr__(self) -> str:
        return repr(dict(self.decoded()))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self.decoded()),)
