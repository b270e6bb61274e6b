"""Apache Kafka as one process: broker and controller in one (KRaft, combined mode)."""

from __future__ import annotations

import base64
import socket
import uuid
from typing import Any, ClassVar

from streamlab.errors import UnusableState
from streamlab.stack import ports
from streamlab.stack.home import write_private
from streamlab.stack.jvm import JVMService, property_file
from streamlab.stack.process import ProcessRecord, run_tool, server_environment, spawn
from streamlab.stack.service import version_numbers

__all__ = ["SETTINGS", "VERSION", "Kafka"]

VERSION = "4.3.1"

SETTINGS: dict[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One broker: with the defaults (3) transactions and consumer groups would wait for ever.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    # A broker that was killed may come back only when its last session has ended: 9 s with the default.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    # A mistyped topic name is an error, not a new topic.
    "auto.create.topics.enable": "false",
}


class Kafka(JVMService):
    """The broker of a home."""

    name: ClassVar[str] = "kafka"
    title: ClassVar[str] = "Kafka"
    port_names: ClassVar[tuple[str, ...]] = ("kafka-controller",)

    def install(self) -> None:
        """Fetch the jars and format the log directory."""
        super().install()
        marker = self.room / "version"
        if (self.room / "data" / "meta.properties").exists():
            before = marker.read_text(encoding="utf-8").strip() if marker.exists() else self.version
            if version_numbers(before) > version_numbers(self.version):
                raise UnusableState(
                    f"{self.room / 'data'} was last used by Kafka {before}, and Kafka {self.version} may not read it.",
                    "Run `streamlab down --purge` to start afresh, or set STREAMLAB_HOME to another directory.",
                )
        else:
            self._format()
        write_private(marker, self.version + "\n")

    def _format(self) -> None:
        self.report("formatting the log directory")
        self._configure()
        run_tool(
            self.command(
                "kafka.tools.StorageTool",
                "format",
                "--standalone",
                # In one word: an identifier may begin with a dash.
                f"--cluster-id={base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip('=')}",
                f"--config={self.room / 'server.properties'}",
            ),
            what="kafka-storage format",
            cancel=self.context.cancel,
            env=server_environment(),
            cwd=self.room,
            room=self.room,
            user=self.home.user,
        )

    def _configure(self) -> None:
        controller = self.base + ports.PORTS["kafka-controller"]
        listeners = f"PLAINTEXT://{ports.HOST}:{self.port},CONTROLLER://{ports.HOST}:{controller}"
        values = {
            **SETTINGS,
            "controller.quorum.bootstrap.servers": f"{ports.HOST}:{controller}",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "log.dirs": str(self.room / "data"),
        }
        write_private(self.room / "server.properties", property_file(values), self.home.user)

    def start(self) -> ProcessRecord:
        """Start the broker."""
        self.check_ports()
        self._configure()
        configuration = self.room / "server.properties"
        _, record = spawn(
            self.command("kafka.Kafka", str(configuration), options=["-Xms128m", *self.archive_options()]),
            log=self.log,
            user=self.home.user,
            marker=str(configuration),
            env=server_environment(),
            room=self.room,
        )
        return record

    def ready(self) -> bool:
        """Whether the broker answers a request for its API versions.

        The socket is open a moment before the broker serves; so a real request (ApiVersions, version 0) is sent.
        """
        request = bytes.fromhex("00120000000000010000")  # key 18, version 0, correlation 1, no client id
        try:
            with socket.create_connection((ports.HOST, self.port), timeout=1.0) as connection:
                connection.settimeout(1.0)
                connection.sendall(len(request).to_bytes(4, "big") + request)
                return len(connection.recv(8)) > 0
        except OSError:
            return False

    def address(self) -> dict[str, Any]:
        """Host and port of the bootstrap server."""
        return {"host": ports.HOST, "port": self.port}
