"""The schema registry as a service: started on demand, on the loopback address, and true to what it told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from streamlab import settings
from streamlab.errors import NotRunning
from streamlab.stack import DEFAULT, ServiceStatus, Stack, ports
from streamlab.stack.doctor import Verdict, examine
from streamlab.stack.namespace import Namespace
from streamlab.stack.reset import reset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def row(stack: Stack) -> ServiceStatus:
    (found,) = (each for each in stack.status() if each.name == "registry")
    return found


@pytest.fixture
def client(registry: Stack) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": settings.registry_url()}) as made:
        yield made


def schema(*fields: str) -> Schema:
    """An Avro record of numbers; a field that ends with a question mark has a default."""
    made = [
        {"name": name.rstrip("?"), "type": "int", **({"default": 0} if name.endswith("?") else {})} for name in fields
    ]
    return Schema(json.dumps({"type": "record", "name": "row", "fields": made}), "AVRO")


def test_it_is_started_by_its_name_alone(registry: Stack) -> None:
    assert "registry" not in DEFAULT
    assert {each.state for each in registry.up()} == {"running"}
    assert row(registry).state == "running"
    registry.down(["registry"])
    # It was not asked for any more: nothing is told of it, and `up` leaves it alone.
    assert {each.name for each in registry.status()} == set(DEFAULT)
    assert "registry" not in {each.service for each in registry.up()}
    with pytest.raises(NotRunning, match="streamlab up registry"):
        settings.registry_url()
    (outcome,) = registry.up(["registry"])
    assert outcome.state == "started"


def test_it_listens_on_the_loopback_address_alone_within_the_block_of_its_home(registry: Stack) -> None:
    pid = row(registry).pid
    assert pid is not None
    listening = [each for each in psutil.Process(pid).net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {ports.HOST}
    base = registry.home.port_base()
    assert {each.laddr.port - base for each in listening} == {
        ports.PORTS[name] for name in ("registry", "registry-management")
    }


def test_a_number_that_was_told_keeps_its_schema_though_the_registry_is_killed_at_once(
    registry: Stack, client: SchemaRegistryClient
) -> None:
    with Namespace("registry") as namespace:
        subject = namespace.subject_prefix()
        first = client.register_schema(subject, schema("a"))
        told = client.register_schema(subject, schema("a", "b?"))
        pid = row(registry).pid
        assert pid is not None
        psutil.Process(pid).kill()
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        assert row(registry).state == "dead"
        (finding,) = (each for each in examine() if each.subject == "Schema registry")
        assert (finding.verdict, finding.fix) == (Verdict.WARN, "Run: streamlab up registry")
        (outcome,) = registry.up(["registry"])
        assert (outcome.state, outcome.version) == ("started", "3.3.3")
        assert json.loads(client.get_schema(told).schema_str)["fields"][1]["name"] == "b"
        later = client.register_schema(subject, schema("a", "b?", "c?"))
        assert len({first, told, later}) == 3


def test_a_schema_that_cannot_read_what_was_written_is_refused(registry: Stack, client: SchemaRegistryClient) -> None:
    with Namespace("registry") as namespace:
        subject = namespace.subject_prefix()
        client.register_schema(subject, schema("a"))
        with pytest.raises(SchemaRegistryError, match="Incompatible artifact") as caught:
            client.register_schema(subject, schema("a", "b"))
        assert caught.value.http_status_code == 409
        client.register_schema(subject, schema("b?"))
        assert client.get_versions(subject) == [1, 2]
    assert namespace.name not in client.get_subjects()


def test_reset_deletes_subjects_and_puts_the_rule_back(registry: Stack, client: SchemaRegistryClient) -> None:
    reset(force=True)
    client.register_schema("left over", schema("a"))
    client.register_schema("left over too/a", schema("a"))
    client.delete_subject("left over")
    client.set_compatibility(level="NONE")
    assert client.get_compatibility() == "NONE"
    pid = row(registry).pid
    assert reset()["registry"] == 2
    assert client.get_subjects(deleted=True) == []
    assert client.get_compatibility() == "BACKWARD"
    assert row(registry).pid == pid
    assert reset()["registry"] == 0


def test_the_commands_know_it(registry: Stack) -> None:
    def streamlab(*arguments: str) -> str:
        command = [sys.executable, "-m", "streamlab", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    shown = json.loads(streamlab("status", "--json"))["services"][-1]
    assert (shown["name"], shown["state"], shown["version"]) == ("registry", "running", "3.3.3")
    assert "apicurio-registry-app 3.3.3" in streamlab("logs", "registry", "-n", "500")


def test_one_of_the_users_own_is_looked_at_and_not_started(
    registry: Stack, another_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setenv("STREAMLAB_HOME", str(registry.home.path))
        address = settings.registry_url().removesuffix("/apis/ccompat/v7")
    monkeypatch.setenv("STREAMLAB_REGISTRY_URL", f"{address}/")
    assert httpx.get(f"{settings.registry_url('apicurio')}/system/info").json()["version"] == "3.3.3"
    (outcome,) = Stack().up(["registry"])
    assert (outcome.state, outcome.error) == ("foreign", None)
    assert not another_home.exists()
    assert row(Stack()).state == "foreign"
