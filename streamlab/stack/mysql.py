"""MySQL 9.7 (8.4 or later), with a row-based binary log and global transaction identifiers.

Where the server comes from, in this order: ``STREAMLAB_MYSQLD``; `mysqld` on PATH; on Debian and
Ubuntu, packages unpacked into a private prefix (`streamlab.stack.debian`). An initialised data directory
is kept in the cache and copied, because initialising takes seconds. Accounts and their passwords are
made by an init file, before the server accepts its first connection.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from streamlab.errors import MissingTool, StackError, UnusableState
from streamlab.stack import debian, ports
from streamlab.stack.home import write_private
from streamlab.stack.process import ProcessRecord, run_tool, server_environment, spawn
from streamlab.stack.service import Service, version_numbers

__all__ = ["ROLES", "SETTINGS", "VERSION", "MySQL"]

VERSION = "9.7"
MINIMUM = (8, 4)

ROLES = {
    "admin": "root",
    "app": "streamlab_app",
    "cdc": "streamlab_cdc",
    "reader": "streamlab_reader",
}

_GRANTS = {
    # Everything in databases of our own: their names begin with sl_.
    "app": ("ALL PRIVILEGES ON `sl\\_%`.*",),
    # What Debezium and a direct binlog reader need for a snapshot and the stream.
    "cdc": (
        "SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.*",
        "LOCK TABLES ON `sl\\_%`.*",
    ),
    "reader": ("SELECT ON `sl\\_%`.*",),
}

SETTINGS: dict[str, str] = {
    "server-id": "1",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    # Column names and types in the binary log, so that a reader needs no schema of its own.
    "binlog-row-metadata": "FULL",
    "gtid-mode": "ON",
    "enforce-gtid-consistency": "ON",
    "innodb-buffer-pool-size": "64M",
    "innodb-redo-log-capacity": "64M",
    "performance-schema": "OFF",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
    "mysqlx": "OFF",
    "binlog-expire-logs-seconds": "86400",
    "max-connections": "200",
}
# `binlog-format` is deprecated because ROW is the only format that has a future; setting it would only warn.
_NATIVE_LEAVES_OUT = {"binlog-format"}


class MySQL(Service):
    """The MySQL server of a home."""

    name: ClassVar[str] = "mysql"
    title: ClassVar[str] = "MySQL"
    stop_limit: ClassVar[float] = 30.0

    _command: list[str] | None = None
    _version = ""
    _entries: tuple[str, ...] = ()

    # -- binaries ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Fetch the server where there is none, and prepare the data directory."""
        command, self._version = self._server()
        if version_numbers(self._version) < MINIMUM:
            raise MissingTool(
                f"mysqld {self._version} is too old: {MINIMUM[0]}.{MINIMUM[1]} or later is needed.",
                "Install a newer MySQL, or point STREAMLAB_MYSQLD at one.",
            )
        if not self._version.startswith(VERSION):
            self.report(f"note: MySQL {self._version}, not the {VERSION} that streamlab is tested with")
        self._command = command
        self._data()

    def _server(self) -> tuple[list[str], str]:
        named = os.environ.get("STREAMLAB_MYSQLD")
        if named and not (Path(named).is_file() and os.access(named, os.X_OK)):
            raise MissingTool(f"STREAMLAB_MYSQLD names {named}, which is no program.", "Correct it, or unset it.")
        if found := named or shutil.which("mysqld"):
            text = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
            if "MariaDB" in text:
                raise MissingTool(
                    f"{found} is MariaDB, whose binary log differs from MySQL's.",
                    "Point STREAMLAB_MYSQLD at a MySQL 8.4 or later.",
                )
            return [str(Path(found).resolve())], _version_in(text)
        if not debian.supported():
            raise MissingTool(
                "There is no mysqld on PATH, and only Debian and Ubuntu have one that can be fetched.",
                "Install MySQL 8.4 or later (conda: mysql-server; macOS: brew install mysql), "
                "or set STREAMLAB_MYSQL_DSN.",
            )
        prefix = self._prefix()
        command = [
            str(debian.loader(prefix)),
            "--argv0",
            "mysqld",
            "--library-path",
            ":".join(str(path) for path in sorted(prefix.glob("usr/lib/*-linux-gnu*"))),
            str(prefix / "usr/sbin/mysqld"),
        ]
        told = subprocess.run([*command, "--no-defaults", "--version"], capture_output=True, text=True, check=False)
        return command, _version_in(told.stdout)

    def _prefix(self) -> Path:
        cached = [n for n in self.context.cache.names() if n.startswith("mysql-prefix")]
        name = cached[-1] if cached else "mysql-prefix"

        def build(target: Path) -> None:
            with self.context.cache.lock("apt"):
                debian.unpack(
                    ["mysql-server-core"], target, cancel=self.context.cancel, report=self.report, room=self.room
                )

        self._entries = (name,)
        return self.context.cache.ensure(name, build, waiting=lambda: self.report("waiting for another download"))

    def cache_entries(self) -> list[str]:
        """The private prefix and the initialised data directory."""
        return list(self._entries)

    @property
    def version(self) -> str:
        """For example ``9.7.4``."""
        return self._version

    def _base_options(self) -> list[str]:
        """Options that must be the same when initialising and when running."""
        assert self._command is not None  # noqa: S101 - install() comes first
        options = ["--no-defaults"]
        prefix = Path(self._command[-1]).parents[2]
        if len(self._command) > 1:
            share = prefix / "usr/share/mysql"
            options += [
                f"--basedir={prefix / 'usr'}",
                f"--lc-messages-dir={share}",
                f"--character-sets-dir={share / 'charsets'}",
                f"--plugin-dir={prefix / 'usr/lib/mysql/plugin'}",
            ]
        # The compiled-in directory for LOAD DATA does not exist in a private prefix.
        return [
            *options,
            "--secure-file-priv=NULL",
            f"--innodb-redo-log-capacity={SETTINGS['innodb-redo-log-capacity']}",
        ]

    # -- data directory ---------------------------------------------------------------------------

    def _data(self) -> None:
        data = self.room / "data"
        marker = self.room / "version"
        if data.exists():
            before = marker.read_text(encoding="utf-8").strip() if marker.exists() else self._version
            if version_numbers(before) > version_numbers(self._version):
                raise UnusableState(
                    f"{data} was last used by MySQL {before}, and MySQL {self._version} cannot read it.",
                    "Run `streamlab down --purge` to start afresh, or set STREAMLAB_HOME to another directory.",
                )
        else:
            template = self._template()
            self.report("copying the initialised data directory")
            draft = self.room / "data.new"
            if draft.exists():
                shutil.rmtree(draft)
            shutil.copytree(template / "data", draft)
            for path in (draft, *draft.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
                self.home.user.own(path)
            draft.rename(data)
        write_private(marker, self._version + "\n")

    def _template(self) -> Path:
        def build(target: Path) -> None:
            self.report("initialising a data directory")
            # In a room of the server's user: the cache itself is not writable for it.
            for left in self.room.glob("template.*"):
                shutil.rmtree(left, ignore_errors=True)
            work = Path(tempfile.mkdtemp(dir=self.room, prefix="template."))
            self.home.user.own(work)
            assert self._command is not None  # noqa: S101 - install() comes first
            run_tool(
                [
                    *self._command,
                    *self._base_options(),
                    f"--datadir={work / 'data'}",
                    "--initialize-insecure",
                    "--innodb-buffer-pool-size=64M",
                    f"--log-error={work / 'log'}",
                ],
                what="mysqld --initialize",
                cancel=self.context.cancel,
                env=server_environment(),
                cwd=work,
                room=self.room,
                user=self.home.user,
            )
            # Each server makes an identity and keys of its own.
            for path in (work / "data" / "auto.cnf", *(work / "data").glob("*.pem")):
                path.unlink(missing_ok=True)
            shutil.copytree(work / "data", target / "data")
            shutil.rmtree(work)

        name = f"mysql-data-{self._version}"
        self._entries = (*self._entries, name)
        return self.context.cache.ensure(name, build, waiting=lambda: self.report("waiting for another process"))

    # -- process ----------------------------------------------------------------------------------

    def _socket(self) -> Path:
        return self.directory_of("s.sock") / "s.sock"

    def start(self) -> ProcessRecord:
        """Start the server; accounts are made by its init file."""
        assert self._command is not None  # noqa: S101 - install() comes first
        self.check_ports()
        data = self.room / "data"
        init = self.room / "init.sql"
        # After a crash the number in it may belong to another process by now, and mysqld would refuse to start.
        # The data directory itself is guarded by locks of the kernel.
        self._socket().with_name("s.sock.lock").unlink(missing_ok=True)
        write_private(init, self._accounts(), self.home.user)
        _, record = spawn(
            [
                *self._command,
                *self._base_options(),
                *(f"--{k}={v}" for k, v in SETTINGS.items() if k not in _NATIVE_LEAVES_OUT),
                f"--datadir={data}",
                f"--socket={self._socket()}",
                f"--port={self.port}",
                f"--bind-address={ports.HOST}",
                f"--init-file={init}",
                f"--pid-file={self.room / 'pid'}",
            ],
            log=self.log,
            user=self.home.user,
            marker=f"--datadir={data}",
            env=server_environment(),
            room=self.room,
        )
        return record

    def _accounts(self) -> str:
        """One statement a line, as an init file wants it. The values are ours: no quote can be in them."""
        admin = self.home.password("mysql-admin")
        # `CREATE USER ... BY` in an init file is not written to the binary log or the general log in clear.
        lines = [
            "SET SESSION sql_log_bin = 0;",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{admin}';",
        ]
        for role, grants in _GRANTS.items():
            user = f"'{ROLES[role]}'@'%'"
            password = self.home.password(f"mysql-{role}")
            lines.append(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}';")
            lines.append(f"ALTER USER {user} IDENTIFIED BY '{password}';")
            lines.extend(f"GRANT {grant} TO {user};" for grant in grants)
        return "\n".join(lines) + "\n"

    def ready(self) -> bool:
        """Whether the administrator can log in."""
        try:
            pymysql.connect(
                host=ports.HOST,
                port=self.port,
                user="root",
                password=self.home.password("mysql-admin"),
                connect_timeout=2,
                read_timeout=2,
            ).close()
        except (pymysql.Error, OSError):
            return False
        return True

    def started(self) -> None:
        """Write the option files that clients read, and remove the init file."""
        (self.room / "init.sql").unlink(missing_ok=True)
        for role, user in ROLES.items():
            text = f'[client]\nuser={user}\npassword="{self.home.password(f"mysql-{role}")}"\n'
            write_private(self.home.secrets / f"mysql-{role}.cnf", text)

    def ended(self, *, served: bool) -> None:
        """Remove the init file, which holds passwords: the server may have ended before it was ready."""
        (self.room / "init.sql").unlink(missing_ok=True)
        super().ended(served=served)

    def address(self) -> dict[str, Any]:
        """Host, port, and for each role the user and its option file."""
        return {
            "host": ports.HOST,
            "port": self.port,
            "roles": {
                role: {"user": user, "option_file": str(self.home.secrets / f"mysql-{role}.cnf")}
                for role, user in ROLES.items()
            },
        }


def _version_in(text: str) -> str:
    match = re.search(r"Ver (\d+\.\d+\.\d+)", text)
    if not match:
        raise StackError(
            f"mysqld does not tell its version: {text.strip()[:200]}", "Point STREAMLAB_MYSQLD at another."
        )
    return match[1]
