"""The REST client of Kafka Connect, on a real worker."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pymysql
import pytest

from streamlab import settings
from streamlab.connect import ConnectClient
from streamlab.connect.connectors import mysql_source
from streamlab.errors import StreamlabError
from streamlab.stack.namespace import Namespace

pytestmark = pytest.mark.integration


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("connect_test") as made:
        yield made


@pytest.fixture
def configuration(namespace: Namespace) -> dict[str, str]:
    """A MySQL source for a table that is there."""
    database = namespace.mysql_database()
    with pymysql.connect(**settings.mysql_address("app").arguments(), autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database}`")
            cursor.execute(f"CREATE TABLE `{database}`.orders (id int PRIMARY KEY)")
    return mysql_source(prefix=namespace.topic_prefix(), database=database, tables=["orders"])


def test_a_connector_becomes_ready_and_applying_it_again_changes_nothing(
    namespace: Namespace, configuration: dict[str, str]
) -> None:
    name = namespace.connector()
    with ConnectClient() as client:
        client.apply(name, configuration)
        client.wait_ready(name)
        client.apply(name, configuration)
        client.wait_ready(name)
    answer = httpx.get(f"{settings.connect_url()}/connectors/{name}/config").json()
    assert {key: answer[key] for key in configuration} == configuration


def test_no_password_is_told_by_the_rest_interface(namespace: Namespace, configuration: dict[str, str]) -> None:
    name = namespace.connector()
    with ConnectClient() as client:
        client.apply(name, configuration)
        client.wait_ready(name)
    secret = settings.mysql_address("cdc").secret()
    for path in ("", "/config", "/status", "/tasks"):
        assert secret not in httpx.get(f"{settings.connect_url()}/connectors/{name}{path}").text


def test_a_configuration_that_is_refused_says_why(namespace: Namespace, configuration: dict[str, str]) -> None:
    del configuration["topic.prefix"]
    with ConnectClient() as client, pytest.raises(StreamlabError, match=r"topic\.prefix"):
        client.apply(namespace.connector(), configuration)


def test_a_task_that_fails_raises_with_the_beginning_of_its_trace(namespace: Namespace) -> None:
    name = namespace.connector()
    with ConnectClient() as client:
        client.apply(
            name,
            {
                "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
                "topics": namespace.topic("rows"),
                "file": "/proc/no/such/file",
            },
        )
        with pytest.raises(StreamlabError, match="failed: .*Couldn't find or create file"):
            client.wait_ready(name, limit=60)


def test_a_connector_that_does_not_exist_is_not_waited_for_for_ever(stack: object) -> None:
    with ConnectClient() as client, pytest.raises(StreamlabError, match="not ready after 0 s: HTTP 404"):
        client.wait_ready("sl_nobody_made_this", limit=0.2)


def test_a_worker_that_does_not_answer_is_named(stack: object) -> None:
    with ConnectClient("http://127.0.0.1:1") as client:
        with pytest.raises(StreamlabError, match="does not answer"):
            client._request("GET", "/connectors", limit=0.3)
