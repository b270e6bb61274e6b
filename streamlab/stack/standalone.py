"""Kafka Connect, standalone: one worker that keeps its offsets in a file, and is told its connectors by files.

It has no group and no topics of its own: what it runs ends with it, and nobody takes over. Its offsets are written
every second (``offset.flush.interval.ms``) and when it is stopped: whatever it sent after the last writing before a
kill, it sends again. At least once, and never exactly once (KIP-618 is for distributed workers alone). The file is
overwritten in place and not synced: a kill in the middle of writing, or a machine that loses its power, can leave one
that cannot be read; then the worker either begins anew or does not start.

A connector that was made through its REST interface is gone when the worker ends; one that was given as a file is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from streamlab.errors import StackError
from streamlab.stack.connect import SETTINGS, Connect
from streamlab.stack.home import write_private
from streamlab.stack.jvm import property_file

__all__ = ["ConnectStandalone"]

_SHARED = (
    "key.converter", "value.converter", "offset.flush.interval.ms", "plugin.discovery", "topic.creation.enable",
    "consumer.session.timeout.ms",
)  # fmt: skip


class ConnectStandalone(Connect):
    """The standalone worker of a home. On demand::

    worker = stack.service("connect-standalone")
    worker.give("lines", FileSource(path=path, topic="lines").configuration())
    stack.up(["connect-standalone"])
    client = ConnectClient(settings.standalone_url())
    """

    name: ClassVar[str] = "connect-standalone"
    title: ClassVar[str] = "Kafka Connect, standalone"
    main: ClassVar[str] = "org.apache.kafka.connect.cli.ConnectStandalone"

    @property
    def offsets(self) -> Path:
        """The file in which the worker keeps how far its sources have come."""
        return self.room / "offsets"

    def connectors(self) -> list[str]:
        """The names of the connectors that it was given."""
        return sorted(path.name.removesuffix(".properties") for path in self._given())

    def give(self, name: str, configuration: Mapping[str, str]) -> None:
        """Let it run a connector from its next start on.

        Raises
        ------
        StackError
            The name cannot be one of a file.
        """
        if not name or "/" in name or name.startswith("."):
            raise StackError(
                f"{name!r} cannot be the name of a connector in a file.", "Use letters, digits and dashes."
            )
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self.home.user.own(self._directory)
        text = property_file({**configuration, "name": name})
        write_private(self._directory / f"{name}.properties", text, self.home.user)

    def take(self, name: str) -> None:
        """Let it run a connector no more from its next start on; its offsets stay in their file."""
        (self._directory / f"{name}.properties").unlink(missing_ok=True)

    @property
    def _directory(self) -> Path:
        return self.room / "connectors"

    def _given(self) -> list[Path]:
        return sorted(self._directory.glob("*.properties"))

    def _settings(self) -> dict[str, str]:
        shared = {key: SETTINGS[key] for key in _SHARED}
        broker = self._broker()["bootstrap.servers"]
        return {**shared, "bootstrap.servers": broker, "offset.storage.file.filename": str(self.offsets)}

    def _arguments(self) -> list[str]:
        return [str(path) for path in self._given()]
