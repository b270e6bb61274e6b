"""From pgoutput's messages to frames, a batch of transactions at a time. No I/O.

Protocol 1: the server sends transactions whole and in the order of their commits, large ones too. Messages are only
gathered until there are enough, and then decoded together: a million rows a second are nothing where numpy takes
twenty thousand at once, and little where it takes ten.

Source: as for `streamlab.cdc.pgoutput`, which decodes the same messages into events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from streamlab.cdc.frames.batch import Frame, FrameBatch
from streamlab.cdc.frames.messages import Broken, Messages, Open, logical_messages
from streamlab.cdc.frames.slices import Integers
from streamlab.cdc.frames.tables import Rows, Table
from streamlab.cdc.position import LSN
from streamlab.cdc.values import TypeMap
from streamlab.cdc.wire import START, Relation, malformed, moment

__all__ = ["FrameDecoder"]


class FrameDecoder:
    """Decodes one stream. Used by one thread. After a `ProtocolError` it is of no use until `reset`.

    Parameters
    ----------
    types : TypeMap, optional
        What users' types are; by default only the built-in ones are known.
    max_rows : int
        Messages that are gathered before they are decoded. More make better use of numpy, up to some ten thousand.
    max_bytes : int
        A transaction larger than this comes in parts, so that memory stays bounded.
    primary_keys, ask_key
        As for `streamlab.cdc.pgoutput.Decoder`.
    """

    hold = None

    def __init__(
        self,
        *,
        types: TypeMap | None = None,
        max_rows: int = 20_000,
        max_bytes: int = 64 << 20,
        primary_keys: Mapping[int, tuple[str, ...]] | None = None,
        ask_key: Callable[[int], object] | None = None,
    ) -> None:
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self._types = TypeMap() if types is None else types
        # Kept as it is: it may be filled later.
        self._primary_keys = {} if primary_keys is None else primary_keys
        self._ask_key = ask_key
        self.reset()

    @property
    def in_transaction(self) -> bool:
        """Whether something was received that was not handed out."""
        return self._open is not None or bool(self._held)

    def reset(self, *, after: LSN | None = None) -> None:
        """Forget all that was not handed out: the connection was lost, and the server sends it again.

        Parameters
        ----------
        after : LSN, optional
            Where the stream begins. It is the end of the transaction before, for a part of the first one; never one
            that was decoded earlier, which may lie behind it.
        """
        self._end, self._time = LSN(after or 0), 0
        self._held: list[bytes | memoryview] = []
        self._size = self._scanned = self._cut = 0
        self._outside = True
        self._open: Open | None = None
        self._tables: dict[int, Table] = {}
        self._version = self._types.version

    def close(self) -> None:
        """Give back memory."""
        self.reset()

    def receive(self, messages: Sequence[bytes | memoryview]) -> list[FrameBatch]:
        """Take messages; when enough have been gathered, the batch that they make.

        Parameters
        ----------
        messages : sequence of bytes
            Each the whole payload of a CopyData message of type XLogData.

        Raises
        ------
        ProtocolError
            A message is not what protocol 1 allows.
        """
        self._held.extend(messages)
        self._size += sum(map(len, messages))
        large = self._size >= self.max_bytes
        if len(self._held) < self.max_rows and not large:
            return []
        done = self.flush()
        if large and not done and self._held:
            done = self._take(len(self._held))
        return done

    def flush(self) -> list[FrameBatch]:
        """What is complete of that which was gathered: when nothing more comes, or the caller will not wait."""
        return self._take(self._complete())

    def _complete(self) -> int:
        """How many of the messages stand before the transaction that is open."""
        held = self._held
        for index in range(len(held) - 1, self._scanned - 1, -1):
            message = held[index]
            if len(message) <= START:
                raise malformed(bytes(message), "it is cut short")
            kind = message[START]
            if kind == 66:  # B: what is before it is complete
                self._cut, self._outside = index, False
                break
            if kind == 67:  # C: only what belongs to no transaction can follow
                self._outside = True
                break
        self._scanned = len(held)
        if self._outside:
            self._cut = len(held)
        return self._cut

    def _take(self, count: int) -> list[FrameBatch]:
        if not count:
            return []
        if count == len(self._held):
            messages, self._held = self._held, []
        else:
            messages, self._held = self._held[:count], self._held[count:]
        self._size = sum(map(len, self._held))
        self._cut, self._scanned = 0, len(self._held)
        batch = self._decode(messages)
        return [] if batch is None else [batch]

    # -- a batch ----------------------------------------------------------------------------------

    def _decode(self, held: list[bytes | memoryview]) -> FrameBatch | None:
        try:
            messages = Messages(held)
            commits = messages.check(open_=self._open is not None)
            return self._batch(messages, commits)
        except Broken as broken:
            raise malformed(bytes(held[broken.index]), broken.why) from broken.__cause__

    def _batch(self, messages: Messages, commits: Integers) -> FrameBatch | None:
        if self._version != self._types.version:
            # Whoever shares the types has found one altered.
            self._tables = {oid: table.anew(self._types) for oid, table in self._tables.items()}
        others = messages.others(self._tables, self._types, self._key)
        self._version = self._types.version
        before = self._open or Open(0, 0, 0)
        place = messages.place(before, others.counts)
        frames: list[tuple[int, Frame]] = []
        for first, table, index, offset in self._groups(messages, others.tables, others.truncated):
            owner = place.number[index]
            rows = Rows(
                messages.kinds[index], messages.start[index] + START + 5, messages.end[index],
                place.position[owner], place.ordinal[index] + offset, place.micros[owner],
            )  # fmt: skip
            described = table.relation
            data = table.frame(messages.whole, rows)
            frames.append((first, Frame(described.schema, described.name, data, table.key)))
        ended = len(commits)
        if ended:
            self._end = LSN(int(messages.field(commits[-1:], 10, "u8")[0]))
            self._time = int(messages.field(commits[-1:], 18, "i8")[0])
        if others.logical:
            at, data = logical_messages(others.logical, place)
            frames.append((at, Frame("", "", data)))
            for each in others.logical:
                if not each.read.transactional:
                    self._end, self._time = max(self._end, each.read.position), max(self._time, each.sent)
                    ended += 1
        self._open = place.after
        if not frames and not ended:
            return None
        frames.sort(key=lambda pair: pair[0])
        time = self._time if self._open is None else self._open.micros
        return FrameBatch(tuple(frame for _, frame in frames), self._end, moment(time), ended, self._open is None)

    def _key(self, described: Relation) -> tuple[str, ...]:
        if self._ask_key is not None and not described.tells_key:
            self._ask_key(described.oid)
        return described.key(self._primary_keys)

    def _groups(
        self, messages: Messages, versions: dict[int, list[tuple[int, Table]]], truncated: list[tuple[int, int, int]]
    ) -> Iterator[tuple[int, Table, Integers, Integers | int]]:
        """Rows of one table each, as it was described where they stand: first message, table, messages, offsets."""
        index = messages.rows
        oids = messages.field(index, 1, "u4")
        offsets: Integers | None = None
        if truncated:
            at, more, within = (np.array(column, np.int64) for column in zip(*truncated, strict=True))
            offsets = np.concatenate((np.zeros(len(index), np.int64), within))
            index, oids = np.concatenate((index, at)), np.concatenate((oids, more))
            order = np.lexsort((offsets, index))
            index, oids, offsets = index[order], oids[order], offsets[order]
        known, self._tables = self._tables, dict(self._tables)
        for oid, changes in versions.items():
            self._tables[oid] = changes[-1][1]
        one = len(oids) > 0 and bool((oids == oids[0]).all())
        for oid in oids[:1].tolist() if one else np.unique(oids).tolist():
            chosen = slice(None) if one else oids == oid
            mine, inner = index[chosen], None if offsets is None else offsets[chosen]
            starts = [(-1, known.get(oid)), *versions.get(oid, ())]
            bounds = [*np.searchsorted(mine, [at for at, _ in starts]).tolist(), len(mine)]
            for (_, table), low, high in zip(starts, bounds, bounds[1:], strict=False):
                if low == high:
                    continue
                if table is None:
                    raise Broken(int(mine[low]), f"the table with OID {oid} was not described before")
                yield int(mine[low]), table, mine[low:high], 0 if inner is None else inner[low:high]
