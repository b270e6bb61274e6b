"""Whether a publication still holds its tables while it is read.

The server decodes each change with the catalog as it was then. Of a table that leaves the publication it sends nothing
from there on, and says nothing: neither an error nor a warning. So the catalog is asked again now and then, over an
ordinary connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from streamlab.cdc.facts import Facts
from streamlab.cdc.preflight import left_out
from streamlab.errors import ChangeStreamError

__all__ = ["EVERY", "PublicationWatch"]

log = logging.getLogger(__name__)

EVERY: Final = 30.0
"""Seconds between two looks. One takes a connection and some milliseconds."""


class PublicationWatch:
    """Looks at most every so often. Used by the thread that reads.

    Parameters
    ----------
    look : callable
        Gathers the facts; may raise `ChangeStreamError`.

    Attributes
    ----------
    every : float
        Seconds between two looks.
    """

    def __init__(self, look: Callable[[], Facts]) -> None:
        self._look = look
        self.every = EVERY
        self._looked = time.monotonic()
        self._held: set[str] = set()

    def begin(self, facts: Facts) -> None:
        """A stream begins, with a publication that was checked."""
        self._looked = time.monotonic()
        self._held = _tables(facts)

    def __call__(self) -> None:
        """Look, if it is time.

        Raises
        ------
        PublicationUnusable
            It does not hold a table any more that was asked for. Any other is warned of.
        """
        if time.monotonic() < self._looked + self.every:
            return
        try:
            facts = self._look()
        except ChangeStreamError as error:
            # If the server is down, the stream says so.
            log.debug("the publication was not looked at: %s", error)
            return
        finally:
            self._looked = time.monotonic()
        if (left := left_out(facts)) is not None:
            raise left
        now = _tables(facts)
        if gone := self._held - now:
            log.warning(
                "the publication %s does not hold %s any more: no change of it comes from there on",
                facts.publication_name, ", ".join(sorted(gone)),
            )  # fmt: skip
        self._held = now


def _tables(facts: Facts) -> set[str]:
    return set() if facts.publication is None else {str(table) for table in facts.publication.tables}
