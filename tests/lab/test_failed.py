"""A connector's failure, waited for and raised, on the real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlab.connect import ConnectClient
from streamlab.connect.connectors import FileSink
from streamlab.connect.source.offsets import make_topics
from streamlab.errors import ConnectorFailed, LessonError
from streamlab.lab.failed import raise_failure
from streamlab.stack.namespace import Namespace
from streamlab.stack.objects import kafka_admin

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def namespace(stack: object) -> Iterator[Namespace]:
    with Namespace("failed") as made:
        make_topics(kafka_admin(), [made.topic("lines")], partitions=1, settings={})
        yield made


def test_a_failure_is_raised_with_its_last_cause(namespace: Namespace) -> None:
    sink = FileSink(path=Path("/missing/file"), topics=[namespace.topic("lines")])
    with ConnectClient() as connect:
        connect.apply(namespace.connector(), sink.configuration())
        with pytest.raises(ConnectorFailed, match="NoSuchFileException") as caught:
            raise_failure(connect, namespace.connector())
    assert "Caused by" not in str(caught.value)


def test_one_that_runs_is_no_failure(namespace: Namespace) -> None:
    # Where the worker may write, whoever it runs as.
    sink = FileSink(path=Path("/dev/null"), topics=[namespace.topic("lines")])
    with ConnectClient() as connect:
        connect.apply(namespace.connector(), sink.configuration())
        connect.wait_ready(namespace.connector())
        with pytest.raises(LessonError, match="has not failed in 1 s"):
            raise_failure(connect, namespace.connector(), limit=0.6)
