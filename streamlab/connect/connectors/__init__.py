"""Configurations of connectors with names and types, for the plugins that `streamlab up connect` runs.

Each class is one connector; `configuration()` is what Connect takes. Names and values are those of Debezium 3 and
Kafka 4, and pass the lint. No password stands in them: it is named through the worker's config provider, which may
read one directory alone (KIP-297, KIP-388). What a class has no field for is given as ``more``, in Connect's words::

    source = MySQLSource(prefix="shop", database="shop", tables=["orders"], transforms=[Unwrap()])
    client.apply("shop", source.configuration())
"""

from __future__ import annotations

from streamlab.connect.connectors.common import (
    Connector,
    Deletes,
    Format,
    OutboxRouter,
    Predicate,
    Snapshot,
    Transform,
    Unwrap,
)
from streamlab.connect.connectors.databases import MySQLSource, PostgreSQLSource, mysql_source
from streamlab.connect.connectors.files import FileSink, FileSource
from streamlab.connect.connectors.jdbc import JDBCSink

__all__ = [
    "Connector",
    "Deletes",
    "FileSink",
    "FileSource",
    "Format",
    "JDBCSink",
    "MySQLSource",
    "OutboxRouter",
    "PostgreSQLSource",
    "Predicate",
    "Snapshot",
    "Transform",
    "Unwrap",
    "mysql_source",
]
