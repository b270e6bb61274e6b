"""`streamlab connect lint`: the real command on a configuration as it stands in many guides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.command import streamlab

FOUND = {
    "name": "inventory",
    "config": {
        "connector.class": "io.debezium.connector.mysql.MySqlConnector",
        "database.hostname": "mysql",
        "database.user": "debezium",
        "database.password": "dbz",
        "database.server.id": "184054",
        "database.server.name": "dbserver1",
        "database.include.list": "inventory",
        "database.history.kafka.bootstrap.servers": "kafka:9092",
        "database.history.kafka.topic": "schema-changes.inventory",
        "snapshot.locking.mode": "none",
    },
}
MENDED = {
    **{key: value for key, value in FOUND["config"].items() if "history" not in key and key != "database.server.name"},  # type: ignore[attr-defined]
    "database.password": "${file:/run/secrets/mysql:password}",
    "topic.prefix": "dbserver1",
    "schema.history.internal.kafka.bootstrap.servers": "kafka:9092",
    "schema.history.internal.kafka.topic": "schema-changes.inventory",
    "topic.creation.default.replication.factor": "1",
    "topic.creation.default.partitions": "1",
}


@pytest.fixture
def found(tmp_path: Path) -> Path:
    path = tmp_path / "found [on the web].json"
    path.write_text(json.dumps(FOUND, indent=2), encoding="utf-8")
    return path


def test_what_is_wrong_is_printed_with_its_line_and_the_fix(found: Path) -> None:
    result = streamlab("connect", "lint", found)
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"! {found}:4 missing Nothing says how topics are made")
    assert lines[2].startswith(f"✗ {found}:7 unsafe database.password stands in the clear")
    assert lines[4].startswith(f"✗ {found}:9 outdated database.server.name ")
    assert lines[5] == "  → Its name is topic.prefix now."
    assert lines[-1] == f"{found}: 4 errors, 2 warnings."


def test_findings_are_a_document_for_programs(found: Path) -> None:
    result = streamlab("connect", "lint", "--json", found)
    assert (result.returncode, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert (document["file"], document["ok"]) == (str(found), False)
    assert [(each["line"], each["key"], each["level"], each["kind"]) for each in document["findings"]] == [
        (4, "connector.class", "warning", "missing"),
        (7, "database.password", "error", "unsafe"),
        (9, "database.server.name", "error", "outdated"),
        (11, "database.history.kafka.bootstrap.servers", "error", "outdated"),
        (12, "database.history.kafka.topic", "error", "outdated"),
        (13, "snapshot.locking.mode", "warning", "unsafe"),
    ]
    assert all(list(each) == ["key", "level", "kind", "problem", "fix", "line"] for each in document["findings"])


def test_warnings_alone_leave_the_exit_code_at_0(found: Path) -> None:
    found.write_text(json.dumps(MENDED), encoding="utf-8")
    result = streamlab("connect", "lint", found)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == f"{found}: no errors, 1 warning."


def test_a_file_that_is_not_there_is_said_and_one_that_is_no_json_is_a_finding(found: Path) -> None:
    missing = streamlab("connect", "lint", found.with_name("none.json"))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "There is no file" in missing.stderr
    found.write_text('{"a": "1",\n\n}', encoding="utf-8")
    broken = streamlab("connect", "lint", found)
    assert broken.returncode == 1
    assert f"{found}:3 invalid This is no configuration in JSON" in broken.stdout


@pytest.mark.integration
def test_a_running_worker_may_be_asked_instead_of_the_table(found: Path, stack: object) -> None:
    offline = json.loads(streamlab("connect", "lint", "--json", found).stdout)
    online = streamlab("connect", "lint", "--json", "--worker", found)
    assert online.stderr == ""
    assert json.loads(online.stdout) == offline
    found.write_text(json.dumps({"connector.class": "com.example.Sink"}), encoding="utf-8")
    assert streamlab("connect", "lint", found).returncode == 0
    asked = streamlab("connect", "lint", "--worker", found)
    assert asked.returncode == 1
    assert "The worker has no connector com.example.Sink" in asked.stdout
