"""Kafka Connect: distributed workers with the Debezium plugins, one by default and up to three.

Workers are a group: they share connectors, offsets and states in topics, and divide the tasks among them. When one
is gone, the group gives its tasks to the others: after the session of 10 s that it had with the broker, and the 2 s for
which it might come back (``scheduled.rebalance.max.delay.ms``, KIP-415).

Passwords never stand in a connector's configuration: it names them through a config provider
(``${file:<path>:password}``), and the provider is allowed to read one directory alone.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, ClassVar

from psycopg.conninfo import conninfo_to_dict

from streamlab import settings
from streamlab.stack import mysql, ports, postgres
from streamlab.stack.home import write_private
from streamlab.stack.jars import converters, entry_name, plugins, pom_version
from streamlab.stack.jvm import JVMService, property_file
from streamlab.stack.process import ProcessRecord, server_environment, spawn

__all__ = ["SETTINGS", "VERSION", "Connect", "Connect2", "Connect3"]

VERSION = "3.6.0.Final"

SETTINGS: dict[str, str] = {
    "group.id": "streamlab-connect",
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "config.storage.topic": "_connect_configs",
    "offset.storage.topic": "_connect_offsets",
    "status.storage.topic": "_connect_status",
    "config.storage.replication.factor": "1",
    "offset.storage.replication.factor": "1",
    "status.storage.replication.factor": "1",
    "offset.storage.partitions": "3",
    "status.storage.partitions": "1",
    "offset.flush.interval.ms": "1000",
    # Scanning every jar for plugins takes 9 s; the plugins carry manifests.
    "plugin.discovery": "service_load",
    "exactly.once.source.support": "enabled",
    "scheduled.rebalance.max.delay.ms": "2000",
    # A sink's partitions are bound to a killed task for so long; the default is 45 s.
    "consumer.session.timeout.ms": "10000",
    "topic.creation.enable": "true",
}


class Connect(JVMService):
    """The first Connect worker of a home."""

    name: ClassVar[str] = "connect"
    title: ClassVar[str] = "Kafka Connect"
    after: ClassVar[tuple[str, ...]] = ("kafka",)
    start_limit: ClassVar[float] = 90.0
    archived_as: ClassVar[str] = "connect"
    main: ClassVar[str] = "org.apache.kafka.connect.cli.ConnectDistributed"

    _plugins: tuple[Path, ...]

    def install(self) -> None:
        """Fetch the jars, the Debezium plugins and the Avro converter."""
        super().install()
        self._plugins = (plugins(self.context, self.name), converters(self.context, self.name))

    def cache_entries(self) -> list[str]:
        """Kafka's jars, the Debezium plugins and the Avro converter."""
        fetched = [entry_name(name, pom_version(name, f"{name}.version")) for name in ("debezium", "converters")]
        return [*super().cache_entries(), *fetched]

    @property
    def secrets(self) -> Path:
        """The only directory that config providers may read; one for all workers, since a task may move."""
        return self.home.room(Connect.name) / "secrets"

    def _configure(self) -> None:
        # Several workers may be starting.
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        self.home.user.own(self.secrets)
        # Who captures, and who writes: a sink into PostgreSQL.
        passwords = {
            "postgres": (postgres.ROLES["cdc"], self._password("postgres", "cdc")),
            "postgres-app": (postgres.ROLES["app"], self._password("postgres", "app")),
            "mysql": (mysql.ROLES["cdc"], self._password("mysql", "cdc")),
        }
        for name, (user, password) in passwords.items():
            values = {"user": user, "password": password}
            write_private(self.secrets / f"{name}.properties", property_file(values), self.home.user)
        values = {
            **self._settings(),
            "listeners": f"http://{ports.HOST}:{self.port}",
            "rest.advertised.host.name": ports.HOST,
            "plugin.path": ",".join(str(each) for each in self._plugins),
            "config.providers": "file",
            "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
            "config.providers.file.param.allowed.paths": str(self.secrets),
        }
        write_private(self.room / "worker.properties", property_file(values), self.home.user)

    def _settings(self) -> dict[str, str]:
        return {**SETTINGS, **self._broker()}

    def _broker(self) -> dict[str, str]:
        """Our broker; or the user's own, on which the worker's topics and group carry the name of this home."""
        if not settings.given("kafka"):
            return {"bootstrap.servers": f"{ports.HOST}:{self.base + ports.PORTS['kafka']}"}
        mark = f"{zlib.crc32(os.fsencode(self.home.path)):08x}"
        named = ("group.id", "config.storage.topic", "offset.storage.topic", "status.storage.topic")
        own = {key: f"{SETTINGS[key].lstrip('_')}_{mark}" for key in named}
        return {"bootstrap.servers": settings.kafka_bootstrap(), **own}

    def _password(self, service: str, role: settings.Role) -> str:
        """The password of a role, on our own server or on the one that the environment names."""
        if not settings.given(service):
            return self.home.password(f"{service}-{role}")
        if service == "mysql":
            return settings.mysql_address(role).secret()
        dsn = str.__str__(settings.postgres_dsn(role))
        return str(conninfo_to_dict(dsn).get("password") or "")

    def start(self) -> ProcessRecord:
        """Start the worker. It waits by itself for a broker that is just starting."""
        self.check_ports()
        self._configure()
        configuration = self.room / "worker.properties"
        _, record = spawn(
            self.command(
                self.main,
                str(configuration),
                *self._arguments(),
                options=["-Xms96m", *self.archive_options()],
            ),
            log=self.log,
            user=self.home.user,
            marker=str(configuration),
            env=server_environment(),
            room=self.room,
        )
        return record

    def _arguments(self) -> list[str]:
        """What stands behind the worker's configuration on its command line."""
        return []

    def ready(self) -> bool:
        """Whether the worker has joined its group: only then it lists connectors."""
        return self.answers("/connectors")

    def address(self) -> dict[str, Any]:
        """Host and port of the REST interface, and the directory that the config provider may read."""
        return {"host": ports.HOST, "port": self.port, "secrets": str(self.secrets)}


class Connect2(Connect):
    """A second worker of the same group. On demand, as the third."""

    name: ClassVar[str] = "connect-2"
    title: ClassVar[str] = "Kafka Connect, worker 2"
    after: ClassVar[tuple[str, ...]] = ("kafka", "connect")


class Connect3(Connect):
    """A third worker of the same group."""

    name: ClassVar[str] = "connect-3"
    title: ClassVar[str] = "Kafka Connect, worker 3"
    after: ClassVar[tuple[str, ...]] = ("kafka", "connect")
