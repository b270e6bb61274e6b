"""A namespace of a run's own: every object that a lesson makes carries its name, and goes with it.

The name is ``sl_<slug>_<run>``, where `run` is random: several runs of one lesson never meet.
Each method writes the object down in the run's lease and returns its full name; making the object is the
caller's part. `close` drops what was written down; what a killed process left is dropped
by the next run (`reap`).
"""

from __future__ import annotations

import re
import secrets
from types import TracebackType
from typing import Self

from streamlab.errors import LessonError, NotRunning
from streamlab.stack import leases
from streamlab.stack.home import Home
from streamlab.stack.objects import Kind, Ours, drop, identity

__all__ = ["Namespace", "reap"]

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class Namespace:
    """Names of one run, recorded as a lease. Used by one thread at a time.

    Parameters
    ----------
    slug : str
        The lesson, such as ``03_event_store``: letters, digits and underscores.
    home : Home, optional
        Where the lease is kept.
    """

    def __init__(self, slug: str, home: Home | None = None) -> None:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", slug):
            raise LessonError(f"{slug!r} is no slug.", "Use at most 32 of a-z, 0-9 and underscore.")
        self.slug = slug
        self.run = "".join(secrets.choice(_ALPHABET) for _ in range(6))
        self.name = f"sl_{slug}_{self.run}"
        self.home = home or Home()
        self._lease: leases.Lease | None = leases.Lease(self.home, self.name, slug)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    @property
    def closed(self) -> bool:
        """Whether the namespace has been torn down."""
        return self._lease is None

    def _ours(self, kind: Kind, name: str) -> str:
        if self._lease is None:
            raise LessonError(f"The namespace {self.name} is closed.", "Run the lesson again from its first cell.")
        self._lease.add(Ours(kind, name, identity(kind.service)))
        return name

    def _full(self, name: str) -> str:
        full = f"{self.name}_{name}" if name else self.name
        if not re.fullmatch(r"[a-z0-9_]{1,63}", full):
            raise LessonError(f"{name!r} cannot be part of a name.", "Use a short name of a-z, 0-9 and underscore.")
        return full

    def postgres_schema(self, name: str = "") -> str:
        """A schema of PostgreSQL."""
        return self._ours(Kind.SCHEMA, self._full(name))

    def mysql_database(self, name: str = "") -> str:
        """A database of MySQL."""
        return self._ours(Kind.DATABASE, self._full(name))

    def slot(self, name: str = "") -> str:
        """A replication slot."""
        return self._ours(Kind.SLOT, self._full(name))

    def publication(self, name: str = "") -> str:
        """A publication."""
        return self._ours(Kind.PUBLICATION, self._full(name))

    def topic(self, name: str) -> str:
        """A topic."""
        return self._ours(Kind.TOPIC, self._full(name))

    def topic_prefix(self, name: str = "") -> str:
        """A prefix below which a connector makes topics (``<prefix>.<...>``)."""
        return self._ours(Kind.TOPIC_PREFIX, self._full(name))

    def subject_prefix(self, name: str = "") -> str:
        """A prefix of subjects in the schema registry (``<topic>-key``, ``<topic>-value``)."""
        return self._ours(Kind.SUBJECT_PREFIX, self._full(name))

    def group(self, name: str = "") -> str:
        """A consumer group."""
        return self._ours(Kind.GROUP, self._full(name))

    def connector(self, name: str = "") -> str:
        """A connector of Kafka Connect."""
        return self._ours(Kind.CONNECTOR, self._full(name))

    @property
    def objects(self) -> tuple[Ours, ...]:
        """What has been written down so far."""
        return tuple(self._lease.objects) if self._lease else ()

    def close(self) -> list[str]:
        """Drop everything that was written down. Idempotent.

        Returns
        -------
        list of str
            What could not be dropped, a sentence each; it stays written down, for the next `reap`.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return []
        problems = drop(lease.objects)
        lease.release(forget=not problems)
        return problems


def reap(home: Home | None = None) -> list[str]:
    """Drop what dead processes left behind; returns the names of the namespaces that were tidied.

    Objects on a server that is not the one in use now are left written down.
    """
    home = home or Home()
    tidied = []
    with leases.dead(home) as found:
        for info, path in found:
            here = [each for each in info.objects if _is_here(each)]
            if len(here) < len(info.objects) or drop(here):
                continue
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
            tidied.append(info.name)
    return tidied


def _is_here(each: Ours) -> bool:
    try:
        return identity(each.kind.service) == each.server
    except NotRunning:
        return False
