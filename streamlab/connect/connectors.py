"""Configurations of connectors, with names and values that are right for Debezium 3.

No password stands in them: it is named through the worker's config provider.
"""

from __future__ import annotations

import zlib

from streamlab import settings

__all__ = ["mysql_source"]


def mysql_source(*, prefix: str, database: str, tables: list[str]) -> dict[str, str]:
    """Debezium's MySQL source: changes of some tables, into topics ``<prefix>.<database>.<table>``.

    Parameters
    ----------
    prefix : str
        What the topics' names begin with; also the name of the source in its events.
    database : str
        The MySQL database.
    tables : list of str
        Names of tables in it.
    """
    address = settings.mysql_address("cdc")
    return {
        "connector.class": "io.debezium.connector.mysql.MySqlConnector",
        "tasks.max": "1",
        "database.hostname": address.host,
        "database.port": str(address.port),
        "database.user": address.user,
        "database.password": settings.connect_secret("mysql"),
        # Every reader of a binary log has an identity of its own.
        "database.server.id": str(100_000 + zlib.crc32(prefix.encode()) % 1_000_000_000),
        "topic.prefix": prefix,
        "database.include.list": database,
        "table.include.list": ",".join(f"{database}.{table}" for table in tables),
        "schema.history.internal.kafka.bootstrap.servers": settings.kafka_bootstrap(),
        "schema.history.internal.kafka.topic": f"{prefix}.schema-history",
        "schema.history.internal.store.only.captured.tables.ddl": "true",
        "include.schema.changes": "false",
        "driver.allowPublicKeyRetrieval": "true",
        "decimal.handling.mode": "string",
        "poll.interval.ms": "50",
        # Without a converter of its own, `schemas.enable` on a connector has no effect.
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
    }
