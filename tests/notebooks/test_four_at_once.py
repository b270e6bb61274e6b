"""Each lesson several times at once: by nbval, and by bare papermill from any directory, with other parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamlab.lab import kernel, runner

LESSONS = [lesson.slug for lesson in runner.lessons()]
PARAMETERS: dict[str, dict[str, object]] = {
    "00_start_here": {"round_trips": 2, "seed": 11},
    "01_postgres_cdc": {"orders": 41, "seed": 11},
    "01b_postgres_cdc_deeper": {"orders": 31, "seed": 11},
    "02_mysql_debezium": {"orders": 51, "seed": 11},
    "02b_mysql_debezium_deeper": {"orders": 51, "seed": 11},
    "06_kafka_connect": {"orders": 51, "seed": 11},
    "06b_kafka_connect_deeper": {"orders": 31, "seed": 11},
}
"""Values other than the defaults, for the papermill run of each lesson."""
FOUR = {"00_start_here"}
"""Lessons that bare papermill runs four times at once; `make soak` does so with each, and `make test` with this one,
which uses every server. All are run once by it, beside nbval."""

pytestmark = [pytest.mark.integration, pytest.mark.acceptance, pytest.mark.timeout(400)]


def papermill(
    lesson: runner.Lesson, output: Path, results: Path, parameters: dict[str, object]
) -> subprocess.Popen[str]:
    """The bare program of others, from a directory that has nothing to do with the project."""
    command = [sys.executable, "-m", "papermill", str(lesson.path), str(output), "--no-progress-bar", "--no-log-output"]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    environment = {**os.environ, "STREAMLAB_RESULTS": str(results)}
    return subprocess.Popen(
        command, cwd=output.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def nbval(lesson: runner.Lesson, results: Path) -> subprocess.Popen[str]:
    """The lesson as a reader finds it, cell by cell, from where it lies."""
    command = [
        sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120",
        "-p", "no:randomly",
        "-p", "no:cacheprovider", "-q", "-x", str(lesson.path),
    ]  # fmt: skip
    environment = {**os.environ, **kernel.environment(), "STREAMLAB_RESULTS": str(results)}
    return subprocess.Popen(
        command, cwd=lesson.path.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("slug", LESSONS)
def test_passes_by_nbval_and_by_bare_papermill_with_other_parameters_at_once(
    slug: str, stack: object, tmp_path: Path
) -> None:
    lesson = runner.find(slug)
    parameters = PARAMETERS[slug]
    defaults = runner.parameters_of(lesson.path)
    assert all(defaults[name] != value for name, value in parameters.items())
    before = leftovers()
    as_it_is = nbval(lesson, tmp_path / "results.json")
    runs = []
    for number in range(4 if slug in FOUR or os.environ.get("STREAMLAB_SOAK") else 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        runs.append((folder, papermill(lesson, folder / "out.ipynb", folder / "results.json", parameters)))
    ended = [(process, process.communicate(timeout=300)[0]) for process in (as_it_is, *(each for _, each in runs))]
    for process, text in ended:
        assert process.returncode == 0, text[-4000:]
    for folder, _ in runs:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert results["checks_total"] >= 1
        # In batch nobody attempts the exercises: the reference solution is used, and not counted as passed.
        assert results["checks_passed"] == 0
    assert set(leftovers()) <= set(before)  # what other tests left may go meanwhile: empty groups do


def leftovers() -> list[str]:
    """What runs could leave behind on the servers and in the home."""
    import httpx
    import psycopg
    import pymysql

    from streamlab import settings
    from streamlab.stack import Home, leases
    from streamlab.stack.objects import kafka_admin

    found: list[str] = [f"lease {info.name}" for info in leases.live(Home())]
    found += [path.name for path in Home().leases.iterdir()]
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        for query in (
            "SELECT 'slot ' || slot_name FROM pg_replication_slots",
            "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'sl\\_%'",
            "SELECT 'publication ' || pubname FROM pg_publication",
            "SELECT 'connection ' || usename FROM pg_stat_activity WHERE usename LIKE 'streamlab%'",
        ):
            found += [row[0] for row in connection.execute(query)]
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as mysql, mysql.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'sl\\_%'")
        found += [f"database {row[0]}" for row in cursor.fetchall()]
    admin = kafka_admin()
    found += [f"topic {name}" for name in admin.list_topics(timeout=10).topics if name.startswith("sl_")]
    groups = admin.list_consumer_groups(request_timeout=10).result().valid
    found += [f"group {group.group_id}" for group in groups if group.group_id.startswith("sl_")]
    found += [f"connector {name}" for name in httpx.get(settings.connect_url() + "/connectors").json()]
    return sorted(found)
