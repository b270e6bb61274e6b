"""The notebook that follows any database: in batch on the stack's own server, and on a database of one's own."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from notebooks.test_four_at_once import leftovers
from psycopg import sql
from psycopg.conninfo import make_conninfo

from streamlab import settings
from streamlab.errors import CannotCapture, PublicationUnusable
from streamlab.lab import hygiene, runner
from streamlab.lab.explore import Explorer

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"
ODD = 'o"dd.schema'
"""A dot and a quote: whoever builds SQL by hand gets this wrong."""


def test_it_is_clean_and_no_lesson() -> None:
    assert hygiene.findings(NOTEBOOK, lesson=True) == []  # a title, parameters, short cells: kept of its own will
    assert not hygiene.is_lesson(NOTEBOOK)
    assert "explore" not in [lesson.slug for lesson in runner.lessons()]


def papermill(folder: Path, **parameters: object) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar", "--no-log-output"]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    environment = {**os.environ, "STREAMLAB_RESULTS": str(folder / "results.json")}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def shown(folder: Path, process: subprocess.Popen[str]) -> str:
    """What a run that succeeded shows, in words."""
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text[-4000:]
    notebook = json.loads((folder / "out.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("data", {}).get("text/plain", "")) for output in outputs)


# -- a database of one's own --------------------------------------------------------------------------


class Own:
    """A database with a table of an odd name and an ordinary one, and a role that may only read and replicate."""

    def __init__(self) -> None:
        self.name = f"streamlab_own_{secrets.token_hex(4)}"
        self._admin = psycopg.connect(settings.postgres_dsn("admin"), autocommit=True)
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name)))
        self.owner = psycopg.connect(self._dsn("admin"), autocommit=True)
        self.dsn = self._dsn("cdc")
        for statement in (
            sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(ODD)),
            sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, note text)").format(sql.Identifier(ODD, "my table")),
            sql.SQL("CREATE TABLE plain (id int PRIMARY KEY)"),
            sql.SQL("GRANT USAGE ON SCHEMA {}, public TO streamlab_cdc").format(sql.Identifier(ODD)),
            sql.SQL("GRANT SELECT ON {}, plain TO streamlab_cdc").format(sql.Identifier(ODD, "my table")),
        ):
            self.owner.execute(statement)

    def _dsn(self, role: settings.Role) -> str:
        return make_conninfo(str.__str__(settings.postgres_dsn(role)), dbname=self.name)

    def insert(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.owner.execute(
                sql.SQL("INSERT INTO {} VALUES (%s, 'x')").format(sql.Identifier(ODD, "my table")), [number]
            )
            self.owner.execute("INSERT INTO plain VALUES (%s)", [number])

    def state(self) -> list[Any]:
        """What must not be changed by looking: publications, slots, tables and rows."""
        return [
            self.owner.execute(query).fetchall()
            for query in (
                "SELECT pubname, schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2, 3",
                "SELECT slot_name FROM pg_replication_slots ORDER BY 1",
                "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_' ORDER BY 1",
            )
        ]

    def close(self) -> None:
        self.owner.close()
        self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))
        self._admin.close()


@pytest.fixture
def own(stack: object) -> Iterator[Own]:
    with closing(Own()) as made:
        yield made


@pytest.mark.integration
@pytest.mark.parametrize("name", ["a, b", "a[1]", "a*", "what?", 'qu"ote', '"quoted"', "a,b[1-3]"])
def test_a_table_of_any_name_can_be_chosen(own: Own, name: str) -> None:
    for each in (name, "a1", "ab", "a", "b", "whats"):
        own.owner.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(sql.Identifier(each)))
    quoted = name.replace('"', '""')
    for tables in (f'audit.*, public."{quoted}"', [f'public."{quoted}"']):
        with Explorer(own.dsn, tables=tables) as database:
            assert [each.full for each in database.facts()] == [f"public.{name}"]
    with Explorer(own.dsn, tables=[f"public.{name}"]) as database:
        # As it is typed, too, beside what it may mean as a pattern.
        assert (f"public.{name}" in {each.full for each in database.facts()}) is (name[0] != '"')
    with Explorer(own.dsn, tables="public.b, public.a") as database:
        assert [each.name for each in database.facts()] == ["a", "b"]


@pytest.mark.integration
def test_without_a_publication_it_says_the_sql_that_makes_one(own: Own) -> None:
    before = own.state()
    with Explorer(own.dsn) as database:
        assert f"{ODD}.my table" in database.tables().text
        assert "primary key" in database.tables().text
        with pytest.raises(PublicationUnusable, match="There is no publication") as refused:
            database.session()
        assert own.state() == before  # it ran nothing itself
        make, undo = re.findall(r"(?:CREATE|DROP) PUBLICATION .*?;", refused.value.fix)
        own.owner.execute(make)
        assert database.publication() == "streamlab_explore"
        assert "is followed" in database.published().text
        own.owner.execute(undo)
    assert own.state() == before


@pytest.mark.integration
def test_it_follows_what_others_write_and_changes_nothing(own: Own) -> None:
    own.owner.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    own.owner.execute("CREATE PUBLICATION half FOR TABLE plain")
    before = own.state()
    shown: list[int] = []
    with Explorer(own.dsn, tables=f"{ODD}.*, nothing.*") as database:
        assert database.publication() == "everything"
        assert "logical" not in database.summary().text
        assert database.wants(f"{ODD}.my table")
        assert not database.wants("public.plain")
        with database.session() as reader, database.traffic():
            own.insert(0, 30)
            activity = database.follow(reader, seconds=1.0, each=lambda: shown.append(1))
        assert activity.tables() == [f"{ODD}.my table"]  # `plain` was not asked for
        assert (activity.changes, activity.transactions) == (30, 30)
        assert shown
        # Another session begins where the log ends now, and ends at its limit.
        with database.session() as reader:
            own.insert(100, 20)
            limited = database.follow(reader, seconds=20, limit=5)
        assert (limited.changes, limited.note) == (5, "Ended at the limit of 5 changes.")
        assert limited.seconds < 15
    assert own.state() == before


@pytest.mark.integration
def test_what_is_in_the_way_is_said_before_anything_else(own: Own) -> None:
    own.owner.execute("CREATE PUBLICATION half FOR TABLE plain")
    with Explorer(own.dsn, tables="no_such.*") as database, pytest.raises(CannotCapture, match="No table fits no_such"):
        database.publication()
    with Explorer(own.dsn, publication="nope") as database, pytest.raises(PublicationUnusable) as refused:
        database.publication()
    assert 'CREATE PUBLICATION "nope" FOR TABLE' in refused.value.fix
    with Explorer(own.dsn) as database:
        said = database.published().text
    assert 'ALTER PUBLICATION "half" ADD TABLE' in said
    own.owner.execute(re.findall(r"ALTER PUBLICATION .*;", said)[0])
    with Explorer(own.dsn) as database:
        assert database.published().text == "\u2713 The publication half is followed."
    reader = make_conninfo(str.__str__(settings.postgres_dsn("reader")), dbname=own.name)
    with Explorer(reader) as database:
        assert 'ALTER ROLE "streamlab_reader" REPLICATION;' in database.summary().text


@pytest.mark.integration
@pytest.mark.acceptance
@pytest.mark.timeout(200)
def test_in_batch_it_follows_a_shop_of_the_stack_or_a_database_of_one_s_own(own: Own, tmp_path: Path) -> None:
    own.owner.execute("CREATE PUBLICATION mine FOR TABLE plain")
    before, left = own.state(), leftovers()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.02):
            own.insert(number, 1)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        # Two at once: nearly all of the time goes into starting the kernels.
        ours = papermill(tmp_path / "ours", seconds=1.5)
        theirs = papermill(tmp_path / "theirs", dsn=own.dsn, tables="public.*", seconds=1.5)
        shop, plain = shown(tmp_path / "ours", ours), shown(tmp_path / "theirs", theirs)
    finally:
        stop.set()
        writer.join()

    assert re.search(r"\d+ changes in \d+ transactions in \d\.\d s", shop), shop
    for name in ("orders", "order_items", "products"):
        assert re.search(rf"sl_explore_\w+\.{name} +\d", shop)
    assert "LSN timeline of slot streamlab_session_" in shop
    assert "sent_lsn: the walsender has read and sent" in shop  # asked as the role that sees it
    assert "changes/s \u2506 transactions/s" in shop  # a frame
    assert re.search(r"^message [\d,]+ \u00b7 \w+ \u00b7 sl_explore_", shop, re.MULTILINE)

    assert re.search(r"public\.plain +\d", plain), plain
    assert "The publication mine is followed." in plain
    assert re.search(r"^message [\d,]+ \u00b7 Insert \u00b7 public\.plain", plain, re.MULTILINE)
    assert "sent_lsn is hidden from this role" in plain
    assert "sl_explore" not in plain

    assert own.state() == before
    assert leftovers() == left
