"""The protocol inspector: messages of PostgreSQL's logical replication, as bytes that explain themselves.

::

    Inspector(Recording.open("data/shop.slrec"))          # a list of what was sent
    Inspector(recording).find("Update", table="orders")   # one message, byte by byte

    inspector = Inspector()
    with PostgreSQLCDC.session(dsn, ["orders"], tap=inspector) as cdc:
        ...                                               # a live stream

What the bytes mean is `streamlab.cdc.anatomy`'s; how they look, `streamlab.lab.hexdump`'s.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from streamlab.cdc.anatomy import Anatomist, Dissection
from streamlab.cdc.messages import Meaning
from streamlab.cdc.position import LSN
from streamlab.cdc.recording import Recording
from streamlab.cdc.values import TypeMap
from streamlab.errors import LessonError
from streamlab.lab import hexdump, table
from streamlab.lab.live import Rendered

__all__ = ["Inspected", "Inspector"]


@dataclass(frozen=True, slots=True)
class Inspected:
    """One message of a stream. As the last expression of a cell it shows its bytes.

    Attributes
    ----------
    number : int
        Which message of the stream, from 0.
    dissection : Dissection
        The message, taken apart.
    """

    number: int
    dissection: Dissection

    @property
    def kind(self) -> str:
        """As the manual calls it, such as ``Begin``."""
        return self.dissection.kind

    @property
    def table(self) -> str:
        """Schema and name of its table, where it has one."""
        return self.dissection.table

    @property
    def position(self) -> LSN | None:
        """Where it stands in the log, by its header; None where that is cut off. Relation messages have 0/0."""
        value = self.dissection.values("XLogData").get("start in the log")
        return value if isinstance(value, LSN) else None

    @property
    def says(self) -> str:
        """What it says, in a line."""
        if self.dissection.fault:
            return self.dissection.fault
        spans = [span for span in self.dissection.spans if span.group != "XLogData"]
        if any(span.group.endswith(("row", "key")) for span in spans):
            cells = (span for span in spans if span.meaning is Meaning.VALUE)
            return ", ".join(f"{span.name}={span.value!r}" for span in cells)
        if self.kind == "Relation":
            return ", ".join(str(span.value) for span in spans if span.name == "name" and span.group != "Relation")
        fields = (span for span in spans[1:] if span.meaning not in {Meaning.FLAGS, Meaning.LENGTH})
        return ", ".join(f"{span.name} {span.shown}" for span in fields)

    def rendered(self, *, limit: int = hexdump.LIMIT) -> Rendered:
        """Its bytes, annotated: as text and as HTML.

        Parameters
        ----------
        limit : int
            Bytes of one field that are shown.
        """
        return hexdump.render(self.dissection, heading=f"message {self.number:,}", limit=limit)

    def __str__(self) -> str:
        return self.rendered().text

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()


class Inspector:
    """Takes the messages of one stream apart, and keeps the last of them. Threads may share it.

    Parameters
    ----------
    messages : iterable of bytes, optional
        The stream so far: payloads of XLogData messages in a list, or a `Recording`. More may come by `append`.
    limit : int
        How many messages are read of that.
    keep : int, optional
        How many are kept at most: of a live stream, the last. By default 1000, or `limit` where that is more.
    types : TypeMap, optional
        What values become; by default the built-in types, and those that a recording brings.
    """

    def __init__(
        self,
        messages: Iterable[bytes | memoryview] = (),
        *,
        limit: int = 1000,
        keep: int | None = None,
        types: TypeMap | None = None,
    ) -> None:
        if types is None:
            types = TypeMap()
            if isinstance(messages, Recording):
                types.load(messages.types)
        self._anatomist = Anatomist(types)
        self._kept: deque[Inspected] = deque(maxlen=max(limit, 1000) if keep is None else keep)
        self._count = 0
        self._lock = threading.Lock()
        for part in _parts(messages, limit):
            if part:
                self.append(part)
            else:
                self.restart()

    def append(self, messages: Iterable[bytes | memoryview]) -> None:
        """Take more messages of the stream, in order. A reader does it whose ``tap`` this is."""
        with self._lock:
            for message in messages:
                self._kept.append(Inspected(self._count, self._anatomist.read(message)))
                self._count += 1

    def restart(self) -> None:
        """The stream begins anew, as after a lost connection: what had not ended comes again."""
        with self._lock:
            self._anatomist.restart()

    @property
    def count(self) -> int:
        """How many messages there were, kept or not."""
        return self._count

    def kept(self) -> list[Inspected]:
        """The messages that are kept, in order."""
        with self._lock:
            return list(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Inspected]:
        return iter(self.kept())

    def __getitem__(self, number: int) -> Inspected:
        """A message by its number in the stream, from 0; negative numbers count from the last."""
        wanted = number if number >= 0 else self._count + number
        for each in self.kept():
            if each.number == wanted:
                return each
        raise IndexError(f"message {number} is not kept: there were {self._count:,}, the last {len(self):,} are")

    def find(self, kind: str = "", *, table: str = "", after: int = -1) -> Inspected:
        """The first message that is kept, of a kind and about a table.

        Parameters
        ----------
        kind : str
            As the manual calls it: Begin, Relation, Insert, Update ...; by default any.
        table : str
            Its name, with or without the schema; by default any.
        after : int
            Only messages with a greater number.

        Raises
        ------
        LessonError
            None is kept.
        """
        every = self.kept()
        for each in every:
            names = {name for full in each.table.split(", ") for name in (full, full.rpartition(".")[2])}
            if each.number > after and kind in {"", each.kind} and (not table or table in names):
                return each
        kinds = ", ".join(sorted({each.kind for each in every})) or "none yet"
        raise LessonError(
            f"No message of the kind {kind or 'any'}{f' about {table}' if table else ''} is kept.",
            f"Kinds that are: {kinds}.",
        )

    def rendered(self, *, limit: int = table.LIMIT) -> Rendered:
        """The messages as a table: where in the log, how many bytes, which kind, and what they say."""
        every = self.kept()
        rows = [
            (each.number, each.position, len(each.dissection.message), each.kind, each.table, each.says)
            for each in every
        ]
        return table.render(rows, "#", "position", "bytes", "message", "table", "says", limit=limit)

    def __repr__(self) -> str:
        return f"<Inspector: {self._count:,} messages>"

    def _repr_mimebundle_(self, **_options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        rendered = self.rendered()
        return rendered.bundle(), rendered.metadata()


def _parts(messages: Iterable[bytes | memoryview], limit: int) -> Iterator[Sequence[bytes | memoryview]]:
    """Messages that are taken together, `limit` in all; none of them where the stream begins anew."""
    if not isinstance(messages, Recording):
        yield list(islice(messages, limit))
        return
    left = limit
    for chunk in messages.chunks():
        yield () if chunk.again else chunk.messages[:left]
        if (left := left - len(chunk.messages)) <= 0:
            return
