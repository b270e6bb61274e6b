"""Programs that are missing, old or strange, and state that another version left: said, with the next step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from streamlab import settings
from streamlab.errors import MissingTool, StackError, UnusableState
from streamlab.stack import Home, Outcome, Stack
from streamlab.stack.debian import supported

pytestmark = pytest.mark.timeout(120)


def failure(outcomes: list[Outcome], name: str) -> StackError:
    (outcome,) = (each for each in outcomes if each.service == name)
    assert outcome.state == "failed"
    assert isinstance(outcome.error, StackError)
    return outcome.error


@pytest.fixture
def another_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of this test's own, empty, on the file system of the shared one."""
    path = Path(tempfile.mkdtemp(dir=settings.cache().parent, prefix="cache-tëst "))
    path.chmod(0o711)
    monkeypatch.setenv("STREAMLAB_CACHE", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with java on it, and nothing else that a server needs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    if java := shutil.which("java"):
        (directory / "java").symlink_to(java)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.mark.integration
def test_without_maven_postgres_runs_and_the_others_say_what_to_install(
    another_home: Path, another_cache: Path, programs: Path
) -> None:
    if not (programs / "java").exists():
        pytest.skip("without Java on PATH a runtime of 100 MB would be fetched")
    stack = Stack()
    outcomes = stack.up(["postgres", "kafka", "connect"])
    assert {each.service: each.state for each in outcomes} == {
        "postgres": "started", "kafka": "failed", "connect": "failed",
    }  # fmt: skip
    for name in ("kafka", "connect"):
        error = failure(outcomes, name)
        assert isinstance(error, MissingTool)
        assert "`mvn`" in error.problem
        assert "Install Maven" in error.fix
        assert "PostgreSQL lessons run without it" in error.fix
    with psycopg.connect(settings.postgres_dsn("app")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stack.down() == ["postgres"]


def script(directory: Path, text: str, mode: int = 0o755) -> str:
    path = directory / "mysqld"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("echo '/usr/sbin/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)'", 0o755, "is too old"),
        ("echo 'mysqld  Ver 11.8.3-MariaDB-1 for debian-linux-gnu on x86_64 (Debian)'", 0o755, "is MariaDB"),
        ("exit 1", 0o755, "does not tell its version"),
        ("echo 'mysqld  Ver 9.7.4'", 0o644, "is no program"),
    ],
)
def test_a_mysqld_that_cannot_serve_is_refused(
    text: str, mode: int, problem: str, another_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLAB_MYSQLD", script(tmp_path, text, mode))
    error = failure(Stack().up(["mysql"]), "mysql")
    assert problem in error.problem
    assert error.fix


def test_a_mysqld_that_is_named_and_is_not_there_is_said(another_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLAB_MYSQLD", "/no/such/mysqld")
    error = failure(Stack().up(["mysql"]), "mysql")
    assert error.problem == "STREAMLAB_MYSQLD names /no/such/mysqld, which is no program."


def test_a_mysqld_that_dies_at_once_is_said_with_its_log(
    another_home: Path, another_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = '[ -n "$2" ] || { echo \'mysqld  Ver 9.7.4\'; exit 0; }; echo "cannot load libfrob"; exit 5'
    monkeypatch.setenv("STREAMLAB_MYSQLD", script(another_cache, told))
    error = failure(Stack().up(["mysql"]), "mysql")
    assert "mysqld --initialize failed (exit code 5)" in error.problem
    assert "cannot load libfrob" in error.problem


def test_the_machine_without_any_mysqld_is_told_what_to_install(
    another_home: Path, another_cache: Path, programs: Path
) -> None:
    """As on a system that is neither Debian nor Ubuntu: there is no apt on PATH."""
    assert not supported()
    error = failure(Stack().up(["mysql"]), "mysql")
    assert isinstance(error, MissingTool)
    assert "Install MySQL 8.4 or later" in error.fix
    assert "STREAMLAB_MYSQL_DSN" in error.fix


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "file", "text", "problem"),
    [
        ("postgres", "data/PG_VERSION", "17\n", "holds a PostgreSQL 17 database, and this version runs 18"),
        ("mysql", "version", "12.1.0\n", "was last used by MySQL 12.1.0, and MySQL"),
        ("kafka", "version", "5.0.0\n", "was last used by Kafka 5.0.0, and Kafka"),
    ],
)
def test_the_data_of_another_server_version_is_said(
    name: str, file: str, text: str, problem: str, another_home: Path, stack: Stack
) -> None:
    # The suite's stack has seen to it that everything is in the cache.
    home = Home()
    home.prepare()
    room = home.room(name)
    (room / "data").mkdir()
    (room / "data" / "meta.properties").write_text("", encoding="utf-8")
    (room / file).write_text(text, encoding="utf-8")
    error = failure(Stack(home).up([name]), name)
    assert isinstance(error, UnusableState)
    assert problem in error.problem
    assert "streamlab down --purge" in error.fix
    # Refused, not repaired.
    assert (room / file).read_text(encoding="utf-8") == text
    Stack(home).down(purge=True)
    assert not room.exists()


def test_a_state_of_another_format_stops_every_command(another_home: Path) -> None:
    home = Home()
    home.prepare()
    (home.path / "stack.json").write_text('{"format": 99}', encoding="utf-8")
    stack = Stack(home)
    for command in (
        stack.up, stack.down, stack.status, lambda: stack.missing(["postgres"]), lambda: stack.down(purge=True),
    ):  # fmt: skip
        with pytest.raises(UnusableState, match="another version of streamlab"):
            command()


@pytest.mark.integration
def test_a_state_that_is_no_json_can_be_purged_and_its_servers_with_it(another_home: Path, stack: Stack) -> None:
    own = Stack()
    assert own.home != stack.home
    (outcome,) = own.up(["postgres"])
    assert outcome.error is None
    (row,) = (row for row in own.status() if row.name == "postgres")
    (own.home.path / "stack.json").write_text('{"format', encoding="utf-8")
    for command in (own.up, own.down, own.status):
        with pytest.raises(UnusableState, match="is not readable as JSON"):
            command()
    assert own.down(purge=True) == ["postgres"]
    assert row.pid is not None
    assert not psutil.pid_exists(row.pid) or psutil.Process(row.pid).status() == psutil.STATUS_ZOMBIE
    assert [path.name for path in own.home.path.iterdir()] == ["lock"]


def test_an_unknown_service_is_refused_before_anything_happens(another_home: Path) -> None:
    for command in (Stack().up, Stack().down, Stack().missing):
        with pytest.raises(StackError, match="There is no service called oracle"):
            command(["postgres", "oracle"])
    assert not another_home.exists()


@pytest.mark.integration
def test_a_file_in_the_way_is_an_outcome_of_that_service_alone(another_home: Path, stack: Stack) -> None:
    home = Home()
    home.prepare()
    (home.path / "postgres").write_text("", encoding="utf-8")
    outcomes = Stack(home).up(["postgres", "mysql"])
    assert {each.service: each.state for each in outcomes} == {"postgres": "failed", "mysql": "started"}
    assert "Not a directory" in failure(outcomes, "postgres").problem
    assert Stack(home).down() == ["mysql"]


@pytest.mark.integration
def test_a_home_too_deep_for_unix_sockets_serves_all_the_same(
    another_home: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = another_home / ("d" * 60) / ("e" * 60)
    monkeypatch.setenv("STREAMLAB_HOME", str(deep))
    own = Stack()
    assert own.home != stack.home
    outcomes = own.up(["postgres", "mysql"])
    assert [str(each.error) for each in outcomes if each.error] == []
    directory = own.service("postgres").directory_of(f".s.PGSQL.{own.service('postgres').port}")
    assert not directory.is_relative_to(deep)
    assert directory.stat().st_mode & 0o777 == 0o700
    with psycopg.connect(settings.postgres_dsn("app")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    own.down()
    assert not directory.exists()


# -- what lies in the cache ---------------------------------------------------------------------------


def replace(path: Path, data: bytes) -> None:
    """New content under an old name: the file itself may be shared with another cache."""
    mode = path.stat().st_mode & 0o777
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)


@pytest.mark.integration
def test_a_server_binary_that_is_broken_in_the_cache_is_made_again(another_home: Path, another_cache: Path) -> None:
    stack = Stack()
    (outcome,) = stack.up(["postgres"])
    assert outcome.error is None
    program = stack.service("postgres").bin / "postgres"
    stack.down()
    whole = program.read_bytes()
    replace(program, whole[: len(whole) // 2])
    (outcome,) = stack.up(["postgres"])
    assert (outcome.state, outcome.error) == ("started", None)
    assert program.stat().st_size == len(whole)
    stack.down()
    # Of the right size, so that only a look at every byte finds it; that is taken when the server dies.
    middle = len(whole) // 3
    replace(program, whole[:middle] + bytes(len(whole) // 3) + whole[middle + len(whole) // 3 :])
    told: list[str] = []
    (outcome,) = stack.up(["postgres"], lambda _service, text: told.append(text))
    assert (outcome.state, outcome.error) == ("started", None)
    assert any("has the wrong content: making it again" in text for text in told)
    assert program.read_bytes() == whole
    stack.down()


@pytest.mark.integration
def test_a_broken_archive_of_classes_does_not_keep_kafka_down(
    another_home: Path, another_cache: Path, stack: Stack
) -> None:
    """Hard links to what the suite's stack has fetched; and one archive, of rubbish."""
    source = stack.home.cache
    for path in source.glob("kafka-*"):
        if path.is_dir():
            shutil.copytree(path, another_cache / path.name, copy_function=os.link)
        elif path.suffix == ".manifest":
            os.link(path, another_cache / path.name)
    own = Stack()
    (outcome,) = own.up(["kafka"])
    assert outcome.error is None
    own.down()
    (archive,) = another_cache.glob("kafka-*.jsa")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:4096] + os.urandom(1 << 20) + whole[4096 + (1 << 20) :])
    told: list[str] = []
    (outcome,) = own.up(["kafka"], lambda _service, text: told.append(text))
    assert (outcome.state, outcome.error) == ("started", None)
    assert f"{archive.name} may be broken: making it again" in told
