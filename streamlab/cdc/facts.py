"""What a server says of itself, a publication, its tables and a slot, before changes are read: gathered and not judged.

`streamlab.cdc.gathering` asks the server, `streamlab.cdc.preflight` judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from streamlab.cdc.position import LSN

__all__ = ["Facts", "PublicationFacts", "ServerFacts", "SlotFacts", "TableFacts"]

_NOWHERE: Final = LSN(0)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server, and the role that asks. `keep_size` is max_slot_wal_keep_size in MB, -1 for no limit."""

    version: int
    wal_level: str
    slots: int
    slots_used: int
    senders: int
    senders_used: int
    keep_size: int
    standby: bool
    role: str
    replication: bool
    may_create: bool
    written: LSN
    database: str

    @property
    def major(self) -> int:
        """For example 18."""
        return self.version // 10_000


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table that is captured. `identity` is None where an UPDATE or DELETE cannot name its row."""

    schema: str
    name: str
    kind: str
    persistence: str
    identity_kind: str
    readable: bool
    identity: tuple[str, ...] | None
    columns: tuple[str, ...] | None = None
    row_filter: str = ""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def has_identity(self) -> bool:
        """Whether the log tells which row was changed or deleted."""
        return self.identity_kind == "f" or self.identity is not None


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """A publication and its tables, partitions in place of their parents unless `via_root`."""

    name: str
    all_tables: bool
    insert: bool
    update: bool
    delete: bool
    truncate: bool
    via_root: bool
    tables: tuple[TableFacts, ...]


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A replication slot as the server shows it."""

    name: str
    plugin: str
    kind: str
    database: str
    temporary: bool
    active_pid: int | None
    wal_status: str
    invalidated: str
    confirmed: LSN | None
    restart: LSN | None
    safe_bytes: int | None
    two_phase: bool

    @property
    def lost(self) -> bool:
        """Whether the server has thrown away log that this slot needed."""
        return self.wal_status == "lost" or bool(self.invalidated)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is judged. `wanted` are the tables that were asked for, as pairs; empty: what is published is taken.

    `missing` are names that do not exist, `others` what is no table, with its kind as pg_class has it.
    """

    server: ServerFacts
    publication: PublicationFacts | None
    slot: SlotFacts | None
    publication_name: str
    slot_name: str
    wanted: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    resume_after: LSN = _NOWHERE
    others: tuple[tuple[str, str], ...] = ()

    @property
    def moved_past(self) -> bool:
        """Whether the slot keeps nothing any more of where the stream is to go on.

        True of one that was made anew after that; and of one that is the same, after it was quiet for long.
        """
        restart = None if self.slot is None else self.slot.restart
        return restart is not None and 0 < self.resume_after < restart
