"""Metrics: one registry of our own, names by the conventions, served on the loopback address by the process itself."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from streamlab import metrics
from streamlab.errors import PortTaken, SettingsError
from streamlab.metrics import ASKED, PROCESS, Definition

ALL = {**PROCESS, **ASKED}


@pytest.fixture
def served() -> Iterator[metrics.MetricsServer]:
    with metrics.serve() as server:
        yield server


def read(server: metrics.MetricsServer, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        text: str = response.read().decode()
        return text


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def test_importing_it_imports_no_prometheus_client() -> None:
    script = (
        "import sys, streamlab.metrics as metrics\n"
        "print('prometheus_client' in sys.modules)\n"
        "metrics.CDC_LAG_BYTES.labels('x').set(1)\n"
        "print('prometheus_client' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["False", "True"]


def test_every_metric_that_is_announced_to_type_checkers_exists_and_no_other() -> None:
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    announced = dict(re.findall(r"^    ([A-Z_]+): (Counter|Gauge)$", source, re.MULTILINE))
    assert announced == {attribute: one.kind.capitalize() for attribute, one in PROCESS.items()}
    for attribute, kind in announced.items():
        assert isinstance(getattr(metrics, attribute), getattr(prometheus_client, kind))
        assert attribute in dir(metrics)


def test_an_unknown_metric_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="CDC_LAG_METRES"):
        metrics.CDC_LAG_METRES.labels("x")  # type: ignore[attr-defined]


@pytest.mark.parametrize("attribute", ALL)
def test_names_follow_the_conventions(attribute: str) -> None:
    one = ALL[attribute]
    assert re.fullmatch(r"streamlab_[a-z0-9]+(_[a-z0-9]+)*", one.name)
    assert one.name.endswith("_total") is (one.kind == "counter")
    words = one.name.split("_")
    assert not {"ms", "milliseconds", "minutes", "kb", "mb", "kilobytes", "percent", "counter", "gauge"} & set(words)
    stem = one.name.removesuffix("_total")
    for unit in ("seconds", "bytes"):
        if unit in words:
            assert stem.endswith(f"_{unit}") or (unit, one.name) == ("bytes", "streamlab_cdc_received_bytes_total")
    for label in one.labels:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", label)
        assert label not in {"le", "quantile", "job", "instance"}, "these belong to Prometheus"
        assert label not in words[:-1] or label in {"slot", "connector", "task"}
    assert one.help[0].isupper() or one.help[0].isdigit()
    assert one.help.endswith(".")


def test_no_name_is_used_twice() -> None:
    assert len({one.name for one in ALL.values()}) == len(ALL)


def test_the_registry_is_our_own() -> None:
    metrics.CDC_EVENTS.labels("test", "insert").inc()
    assert metrics.REGISTRY is not prometheus_client.REGISTRY
    for registered in prometheus_client.REGISTRY.collect():
        assert not registered.name.startswith("streamlab")


def test_the_text_can_be_read_and_says_everything_once() -> None:
    metrics.CDC_EVENTS.labels("text", "insert").inc(3)
    metrics.CDC_RECEIVED_POSITION_BYTES.labels('quote " back \\ line \n umlaut ü').set(2**53 - 1)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render())}
    for one in PROCESS.values():
        family = families[one.name.removesuffix("_total")]
        assert family.type == one.kind
        assert family.documentation == one.help
    samples = [sample for family in families.values() for sample in family.samples]
    assert len({(sample.name, *sorted(sample.labels.items())) for sample in samples}) == len(samples)
    assert not [sample.name for sample in samples if sample.name.endswith("_created")]
    (events,) = (s for s in samples if s.labels == {"source": "text", "operation": "insert"})
    assert (events.name, events.value) == ("streamlab_cdc_events_total", 3)
    (position,) = (s for s in samples if s.labels.get("source", "").startswith("quote"))
    assert position.labels == {"source": 'quote " back \\ line \n umlaut ü'}
    assert position.value == 2**53 - 1, "a position is exact"


def test_the_process_tells_about_itself() -> None:
    resident = value("process_resident_memory_bytes")
    assert resident is not None
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.3)
    assert value("process_open_fds") is not None


def test_a_family_of_asked_metrics_is_filled_with_values() -> None:
    one = metrics.family("SLOT_LAG_BYTES")
    one.add_metric(["a", "b"], 7)
    assert (one.name, one.type) == (ASKED["SLOT_LAG_BYTES"].name, "gauge")
    assert [(sample.labels, sample.value) for sample in one.samples] == [({"slot": "a", "database": "b"}, 7)]


def test_threads_lose_no_increment_while_others_read() -> None:
    stop = threading.Event()
    problems: list[BaseException] = []

    def write() -> None:
        for number in range(2000):
            metrics.CDC_TRANSACTIONS.labels("threads").inc()
            metrics.CDC_EVENTS.labels("threads", ("insert", "update")[number % 2]).inc(2)

    def look() -> None:
        try:
            while not stop.is_set():
                metrics.render()
        except Exception as error:  # noqa: BLE001  # shown by the test
            problems.append(error)

    reader = threading.Thread(target=look)
    writers = [threading.Thread(target=write) for _ in range(6)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    reader.join(60)
    assert problems == []
    assert value("streamlab_cdc_transactions_total", source="threads") == 12_000
    assert value("streamlab_cdc_events_total", source="threads", operation="update") == 12_000


def test_threads_that_meet_at_the_first_use_get_the_same_registry() -> None:
    script = (
        "import threading, streamlab.metrics as metrics\n"
        "met = threading.Barrier(8)\n"
        "found = []\n"
        "def work():\n"
        "    met.wait(30)\n"
        "    metrics.CDC_RECONNECTS.labels('x').inc()\n"
        "    found.append(id(metrics.REGISTRY))\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for one in threads: one.start()\n"
        "for one in threads: one.join(30)\n"
        "value = metrics.REGISTRY.get_sample_value('streamlab_cdc_reconnects_total', {'source': 'x'})\n"
        "print(len(found), len(set(found)), value)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["8", "1", "8.0"]


def test_it_is_served_by_the_process_itself(served: metrics.MetricsServer) -> None:
    metrics.STACK_START_SECONDS.labels("served").set(1.25)
    assert 'streamlab_stack_start_seconds{service="served"} 1.25\n' in read(served)
    assert served.url == f"http://127.0.0.1:{served.port}/metrics"
    assert "/metrics" in repr(served)
    metrics.STACK_START_SECONDS.labels("served").set(2.5)
    assert 'streamlab_stack_start_seconds{service="served"} 2.5\n' in read(served)


def test_it_listens_on_the_loopback_address_alone(served: metrics.MetricsServer) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process().net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == served.port
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]


def test_another_registry_can_be_served_and_rendered() -> None:
    registry = CollectorRegistry()
    Gauge("other", "Other.", registry=registry).set(4)
    with metrics.serve(registry=registry) as server:
        assert read(server) == metrics.render(registry) == "# HELP other Other.\n# TYPE other gauge\nother 4.0\n"


def test_closing_frees_the_port_and_the_thread_and_may_be_repeated() -> None:
    before = threading.active_count()
    server = metrics.serve()
    port = server.port
    assert port > 0
    read(server)
    server.close()
    server.close()
    assert "closed" in repr(server)
    assert not [thread for thread in threading.enumerate() if thread.name == f"streamlab-metrics-{port}"]
    assert threading.active_count() <= before + 1, "at most the thread of the answered request is about to end"
    with pytest.raises(urllib.error.URLError):
        read(server)
    with metrics.serve(port) as again:
        assert again.port == port


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"Port {port} is in use"):
            metrics.serve(port)


@pytest.mark.parametrize("port", [-1, 65536, 1_000_000])
def test_what_is_no_port_is_said(port: int) -> None:
    with pytest.raises(SettingsError, match="is not a port"):
        metrics.serve(port)


def test_a_definition_is_a_fact() -> None:
    with pytest.raises(AttributeError):
        PROCESS["CDC_EVENTS"].name = "other"  # type: ignore[misc]
    assert Definition("gauge", "a", "B.") == Definition("gauge", "a", "B.")
