"""Kafka's file connectors: the lines of a file into a topic, and a topic into a file. For looking and testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from streamlab.connect.connectors.common import Connector, Format, names, topics

__all__ = ["FileSink", "FileSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource(Connector):
    """Lines of a file that grows, one record each, at least once.

    Parameters
    ----------
    path : Path
        The file, as the worker's user sees it.
    topic : str
        The topic; made where it is missing, with one partition.
    """

    CLASS: ClassVar[str] = "org.apache.kafka.connect.file.FileStreamSourceConnector"

    path: Path
    topic: str
    key_format: Format = Format.TEXT
    value_format: Format = Format.TEXT

    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""
        return {"file": str(self.path), "topic": self.topic, **topics(1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSink(Connector):
    """Values of topics as lines of a file, at least once.

    Parameters
    ----------
    path : Path
        The file, as the worker's user sees it.
    topics : sequence of str
        The topics.
    """

    CLASS: ClassVar[str] = "org.apache.kafka.connect.file.FileStreamSinkConnector"

    path: Path
    topics: Sequence[str]
    key_format: Format = Format.TEXT
    value_format: Format = Format.TEXT

    def settings(self) -> dict[str, str]:
        """The keys of this kind of connector."""
        return {"file": str(self.path), "topics": ",".join(names(self.topics, "topics"))}
