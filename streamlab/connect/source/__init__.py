"""A source connector in Python: the changes of any `ChangeSource` into Kafka, with its position in Kafka too."""

from __future__ import annotations

from streamlab.connect.source.connector import DatabaseSourceConnector
from streamlab.connect.source.offsets import Stored
from streamlab.connect.source.records import Route, topics_below

__all__ = ["DatabaseSourceConnector", "Route", "Stored", "topics_below"]
