"""Apicurio Registry: schemas by subject and number, with a rule about how they may change. Started on demand.

It serves Confluent's API below ``/apis/ccompat/v7``, for Confluent's serializers in Python, and its own below
``/apis/registry``, for the Avro converter in Kafka Connect. Its data are a file of H2 in its room, and a schema is in
that file before its number is told: a topic full of numbers of forgotten schemas could not be read any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx

from streamlab import settings
from streamlab.stack import ports
from streamlab.stack.jars import entry_name, pom_version, registry
from streamlab.stack.jvm import JVMService
from streamlab.stack.process import ProcessRecord, server_environment, spawn

__all__ = ["DATABASE", "SETTINGS", "VERSION", "Registry", "delete_subjects"]

VERSION = "3.3.3"

SETTINGS: dict[str, str] = {
    "apicurio.storage.kind": "sql",
    "apicurio.storage.sql.kind": "h2",
    # As Confluent's registry has it, and unlike Apicurio's own default, which is to take everything: who reads with the
    # newer schema can read what was written with the one before.
    "apicurio.rules.global.compatibility": "BACKWARD",
    "quarkus.http.access-log.enabled": "false",
}

_MAIN = "io.quarkus.bootstrap.runner.QuarkusEntryPoint"
# H2 would write half a second later: after a kill, a number that was told could be given to another schema.
DATABASE = "jdbc:h2:{place};WRITE_DELAY=0"


class Registry(JVMService):
    """The schema registry of a home."""

    name: ClassVar[str] = "registry"
    title: ClassVar[str] = "Schema registry"
    # Health and metrics of its own, which would be open to the network on port 9000.
    port_names: ClassVar[tuple[str, ...]] = ("registry-management",)
    heap: ClassVar[str] = "256m"
    minimum_java: ClassVar[int] = 21

    @property
    def version(self) -> str:
        """Apicurio Registry's version, for example ``3.3.3``."""
        return pom_version("registry", "registry.version")

    def cache_entries(self) -> list[str]:
        """The registry with its jars."""
        return [entry_name("registry", self.version)]

    def _fetch(self) -> Path:
        return registry(self.context, self.name)

    def _logging(self) -> list[str]:
        return []

    def start(self) -> ProcessRecord:
        """Start the registry."""
        self.check_ports()
        values = {
            **SETTINGS,
            # From the directory that it works in: a path in this address may not hold every sign.
            "apicurio.datasource.url": DATABASE.format(place="./data/registry"),
            "quarkus.http.host": ports.HOST,
            "quarkus.http.port": str(self.port),
            "quarkus.management.host": ports.HOST,
            "quarkus.management.port": str(self.base + ports.PORTS["registry-management"]),
        }
        options = ["-Xms64m", *(f"-D{key}={value}" for key, value in values.items())]
        _, record = spawn(
            self.command(_MAIN, options=options),
            log=self.log,
            user=self.home.user,
            marker=str(self.argument_file(_MAIN)),
            env=server_environment(),
            room=self.room,
        )
        return record

    def ready(self) -> bool:
        """Whether it answers what its rule for new versions of a schema is: only then it takes any."""
        return self.answers("/apis/ccompat/v7/config")

    def address(self) -> dict[str, Any]:
        """Host and port of its HTTP interface."""
        return {"host": ports.HOST, "port": self.port}


def delete_subjects(prefixes: Sequence[str]) -> int:
    """Delete the subjects whose names begin like that, with their schemas; how many there were.

    A reader of a topic that is still there finds the schemas by their numbers as before.
    """
    with httpx.Client(base_url=settings.registry_url(), timeout=15.0) as client:
        listed: list[str] = client.get("/subjects", params={"deleted": "true"}).raise_for_status().json()
        names = [name for name in listed if name.startswith(tuple(prefixes))]
        left = names
        while left:
            kept = [name for name in left if not _deleted(client, name)]
            if len(kept) == len(left):
                # Not one of them: the server's own words say why.
                client.delete(f"/subjects/{quote(kept[0], safe='')}").raise_for_status()
                break
            left = kept
    return len(names)


def _deleted(client: httpx.Client, name: str) -> bool:
    """Delete a subject; False where another one still refers to it, which has to go before."""
    path = f"/subjects/{quote(name, safe='')}"
    # First set aside, then for good; one that is set aside already is not found the first time.
    for parameters in ({}, {"permanent": "true"}):
        answer = client.delete(path, params=parameters)
        if answer.status_code == 422:
            return False
        if answer.status_code != 404:
            answer.raise_for_status()
    return True
