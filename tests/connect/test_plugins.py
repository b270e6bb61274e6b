"""The table of keys against the plugins of the running worker, and what the plugins do with keys that are not in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamlab.connect import ConnectClient, lint
from streamlab.connect.catalog import Catalog
from streamlab.connect.findings import Level
from streamlab.connect.outdated import MYSQL, POSTGRES

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
