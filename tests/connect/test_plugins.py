"""The table of keys against the plugins of the running worker, and what the plugins do with keys that are not in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from connect.test_lint import MYSQL as SOURCE
from connect.test_lint import OF_ANOTHER_KIND

from streamlab import settings
from streamlab.connect import ConnectClient, lint, outdated
from streamlab.connect.catalog import Catalog
from streamlab.connect.findings import Level
from streamlab.connect.outdated import MYSQL, POSTGRES
from streamlab.errors import ConnectError
from streamlab.stack.jars import entry_name, pom_version

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "connect_plugins.py"


@pytest.mark.integration
def test_the_table_is_what_the_plugins_say(stack: object) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.integration
def test_a_worker_that_is_asked_knows_the_same_keys(stack: object) -> None:
    with ConnectClient() as client:
        asked = client.catalog()
    table = Catalog.load()
    assert asked.complete
    for name, plugin in table.plugins.items():
        assert set(asked.plugins[name].keys) == set(plugin.keys), name
        assert asked.plugins[name].undefined == plugin.undefined
    # Keys of a plugin that is not in the table are asked for too.
    mirror = asked.find("MirrorHeartbeatConnector")
    assert mirror is not None
    assert mirror.get("emit.heartbeats.interval.seconds") is not None
    assert table.find("MirrorHeartbeatConnector") is None
    # It reads this one without defining it, and nobody has looked for such keys.
    other = {"connector.class": mirror.name, "target.cluster.bootstrap.servers": "h:1"}
    assert [(each.key, each.level) for each in lint(other, asked)] == [
        ("target.cluster.bootstrap.servers", Level.WARNING)
    ]


@pytest.mark.integration
def test_a_worker_refuses_classes_of_another_kind_and_values_of_former_times(stack: object) -> None:
    with ConnectClient() as client:
        for keys, key, said in OF_ANOTHER_KIND:
            if key == "connector.class":
                with pytest.raises(ConnectError, match="Failed to find any class that implements Connector"):
                    client.validate(keys)
            elif key.endswith("converter") or key.startswith(("transforms.", "predicates.")):
                told = {each.key: each.problem for each in client.validate({**SOURCE, **keys})}
                assert "does not implement the" in told[key], said
        # It is among the values that the plugin recommends.
        for key, value in (("snapshot.mode", "schema_only"), ("time.precision.mode", "adaptive")):
            assert key in {each.key for each in client.validate({**SOURCE, key: value})}
        sink = {"connector.class": "FileStreamSink", "file": "/nowhere"}
        assert "topics" in {each.key for each in client.validate(sink)}


@pytest.mark.integration
def test_classes_of_former_times_are_gone_or_deprecated_and_those_of_today_are_there(stack: object) -> None:
    jars = (settings.cache() / entry_name("debezium", pom_version("debezium", "debezium.version"))).rglob("*.jar")
    classes: dict[str, bytes] = {}
    values = [outdated.FORMER_CONVERTERS, *outdated.OUTDATED_VALUES.values()]
    values += outdated._VALUES_OF[outdated.JDBC_SINK].values()
    former = {old: new for each in values for old, new in each.items() if "." in old}
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            names = {name.removesuffix(".class").replace("/", "."): name for name in archive.namelist()}
            classes |= {each: archive.read(names[each]) for each in {*former, *former.values()} & names.keys()}
    assert former.keys() & classes.keys() == {*outdated.FORMER_CONVERTERS, *outdated.STILL_TAKEN}
    assert set(former.values()) <= classes.keys()
    assert all(b"Ljava/lang/Deprecated;" in classes[each] for each in former.keys() & classes.keys())


@pytest.mark.parametrize("name", [MYSQL, POSTGRES])
def test_old_and_misspelt_keys_are_in_no_constant_of_the_plugin(name: str) -> None:
    plugin = Catalog.load().plugins[name]
    for key in ("database.server.name", "table.whitelist", "database.history.kafka.topic", "slot.drop_on_stop"):
        assert plugin.get(key) is None


def test_what_is_below_a_prefix_is_passed_on() -> None:
    plugin = Catalog.load().plugins[MYSQL]
    for key in ("driver.connectTimeout", "schema.history.internal.producer.acks", "producer.override.acks"):
        assert plugin.get(key) is not None, key
    assert plugin.get("driver.") is None
    assert plugin.get("column.mask.with.x.chars") is None
    assert plugin.get("column.mask.with.12.chars") is not None


def test_a_key_that_a_plugin_no_longer_has_is_unknown() -> None:
    table = Catalog.load()
    plugin = table.plugins[MYSQL]
    fewer = {key: what for key, what in plugin.keys.items() if key != "table.include.list"}
    less = Catalog(
        {**table.plugins, MYSQL: type(plugin)(plugin.name, plugin.kind, plugin.version, fewer)}, complete=True
    )
    wrong = lint({"connector.class": MYSQL, "table.include.list": "a.b"}, less)
    assert "table.include.list" in {each.key for each in wrong}
