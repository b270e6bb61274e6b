"""Every address and knob: the environment first, else what the running stack wrote down.

Nothing here connects to anything. An address in the environment always wins, and says that the
server is the user's own (`given`): streamlab then neither starts nor stops it, and touches only
objects that it created there itself. Without one, the address comes from ``stack.json`` in the
home, which `streamlab.stack` writes. The addresses of our own stack carry no password: libpq
reads it from a password file, pymysql from an option file, both readable by their owner alone.

Environment
-----------
STREAMLAB_HOME              state, addresses and port range of one stack
STREAMLAB_CACHE             downloads, shared by all homes
STREAMLAB_PORT_BASE         first port of the home's block of a hundred
STREAMLAB_POSTGRES_DSN      libpq connection string or URI of a PostgreSQL of your own
STREAMLAB_MYSQL_DSN         mysql://user:password@host:port/database of a MySQL of your own
STREAMLAB_KAFKA_BOOTSTRAP   host:port of a Kafka of your own
STREAMLAB_CONNECT_URL       http://host:port of a Kafka Connect of your own; several workers with commas
STREAMLAB_REGISTRY_URL      http://host:port of an Apicurio Registry of your own
STREAMLAB_CONNECT_MYSQL_PASSWORD, STREAMLAB_CONNECT_POSTGRES_PASSWORD
                            how that Kafka Connect finds a password: ``${env:NAME}``, ``${file:...}``
STREAMLAB_LIVE              1 or 0: force live or batch display
STREAMLAB_AUTOSTART         0: a lesson does not start servers that are missing
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from streamlab.errors import NotRunning, SettingsError, UnusableState

__all__ = [
    "CONNECT_WORKERS",
    "STATE_FORMAT",
    "Dsn",
    "MySQLAddress",
    "Role",
    "cache",
    "connect_secret",
    "connect_url",
    "connect_urls",
    "connect_worker",
    "default_home",
    "flag",
    "given",
    "home",
    "kafka_bootstrap",
    "mysql_address",
    "postgres_dsn",
    "registry_url",
    "stack_state",
    "standalone_url",
]

Role = Literal["admin", "app", "cdc", "reader"]
"""admin: everything; app: owns the shop's tables; cdc: replication and SELECT; reader: SELECT, and statistics."""

STATE_FORMAT = 1
"""Format of ``stack.json``; raised when an older reader would misunderstand it."""

VARIABLES = {
    "postgres": "STREAMLAB_POSTGRES_DSN",
    "mysql": "STREAMLAB_MYSQL_DSN",
    "kafka": "STREAMLAB_KAFKA_BOOTSTRAP",
    "connect": "STREAMLAB_CONNECT_URL",
    "registry": "STREAMLAB_REGISTRY_URL",
}

CONNECT_WORKERS = ("connect", "connect-2", "connect-3")
"""The services that are workers of one group of Kafka Connect."""

_PASSWORD = re.compile(
    r"(?P<uri>(?<=://)(?P<user>[^:/@\s]*):[^@\s]*(?=@))|(?P<pair>\bpassword\s*=\s*('(?:[^'\\]|\\.)*'|\S+))|(?P<query>(?<=[?&])password=[^&\s]*)"
)


class Dsn(str):
    """A connection string that never shows its password.

    The text itself is complete and goes to a driver as any string does; `repr`, `str`, `format`
    and `print` show it with the password masked, so that a notebook or a log cannot leak it.
    """

    __slots__ = ()

    @property
    def masked(self) -> str:
        """The connection string with ``***`` in place of the password."""

        def mask(match: re.Match[str]) -> str:
            if match["uri"] is not None:
                return f"{match['user']}:***"
            return "password=***"

        return _PASSWORD.sub(mask, str.__str__(self))

    def __repr__(self) -> str:
        return repr(self.masked)

    def __str__(self) -> str:
        return self.masked

    def __format__(self, spec: str) -> str:
        return format(self.masked, spec)


@dataclass(frozen=True, slots=True)
class MySQLAddress:
    """Where a MySQL server listens, and as whom to log in.

    Either `option_file` names a file that holds user and password (our own stack), or `password`
    is set (a server of the user's). `options` are further keyword arguments of `pymysql.connect`.
    """

    host: str
    port: int
    user: str
    database: str = ""
    option_file: str = ""
    password: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"MySQLAddress({self.user}@{self.host}:{self.port}/{self.database})"

    def __str__(self) -> str:
        return f"mysql://{quote(self.user)}@{self.host}:{self.port}/{quote(self.database)}"

    def secret(self) -> str:
        """The password, read where it is kept. Hand it to a server, never to a log."""
        if not self.option_file:
            return self.password
        for line in Path(self.option_file).read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "password":
                return value.strip().strip('"')
        raise SettingsError(f"{self.option_file} holds no password.", "Run: streamlab up mysql")

    def arguments(self, *, database: str | None = None) -> dict[str, Any]:
        """Keyword arguments for `pymysql.connect`, the password among them."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.secret(),
            "database": (self.database if database is None else database) or None,
            "charset": "utf8mb4",
            **dict(self.options),
        }

    @classmethod
    def parse(cls, dsn: str) -> MySQLAddress:
        """Read ``mysql://user:password@host:port/database?option=value``."""
        url = urlsplit(dsn)
        try:
            port = url.port or 3306
        except ValueError:
            port = 0
        if url.scheme != "mysql" or not url.hostname or not port:
            raise SettingsError(
                f"{VARIABLES['mysql']} is not of the form mysql://user:password@host:port/database.",
                "Correct it, or unset it to use streamlab's own MySQL.",
            )
        return cls(
            host=url.hostname,
            port=port,
            user=unquote(url.username or "root"),
            password=unquote(url.password or ""),
            database=unquote(url.path.lstrip("/")),
            options=tuple(parse_qsl(url.query)),
        )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def home() -> Path:
    """The directory that holds state, addresses and data of the stack in use.

    Returns
    -------
    Path
        ``STREAMLAB_HOME``; else ``/var/lib/streamlab`` for root, whose servers run as another
        user that must be able to reach it; else the user's state directory.

    Raises
    ------
    SettingsError
        ``STREAMLAB_HOME`` is a relative path.
    """
    if text := os.environ.get("STREAMLAB_HOME"):
        return _absolute("STREAMLAB_HOME", text)
    return default_home()


def _absolute(variable: str, text: str) -> Path:
    """A directory that the environment names: the same one for every process, wherever that runs."""
    path = Path(text).expanduser()
    if not path.is_absolute():
        # A notebook's kernel runs in another directory than the command that started its servers.
        raise SettingsError(
            f"{variable}={text} is not an absolute path, and would mean another directory in each process.",
            f"Set {variable}={path.absolute()}",
        )
    return path


def default_home() -> Path:
    """The home that is used where ``STREAMLAB_HOME`` is not set: the user's one shared stack."""
    if _is_root():
        return Path("/var/lib/streamlab")
    from platformdirs import user_state_path

    return user_state_path("streamlab", appauthor=False)


def cache() -> Path:
    """The directory of downloads and unpacked servers, shared by every home of the user.

    Raises
    ------
    SettingsError
        ``STREAMLAB_CACHE`` is a relative path.
    """
    if text := os.environ.get("STREAMLAB_CACHE"):
        return _absolute("STREAMLAB_CACHE", text)
    if _is_root():
        return Path("/var/lib/streamlab/cache")
    from platformdirs import user_cache_path

    return user_cache_path("streamlab", appauthor=False)


def given(service: str) -> bool:
    """Whether the environment names a server of the user's own for this service."""
    variable = VARIABLES.get(service)
    return bool(variable and os.environ.get(variable))


def flag(variable: str) -> bool | None:
    """A yes-or-no knob: True, False, or None where it is not set."""
    text = os.environ.get(variable, "").strip().lower()
    if not text:
        return None
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise SettingsError(f"{variable}={text} is neither yes nor no.", "Set it to 1 or 0.")


def stack_state() -> dict[str, Any]:
    """What ``stack.json`` in the home says; empty where no stack was ever started.

    Raises
    ------
    UnusableState
        The file was written in a format that this version cannot read.
    """
    path = home() / "stack.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise SettingsError(
            f"{path} belongs to another user.", "Set STREAMLAB_HOME to a directory of your own."
        ) from error
    except ValueError as error:
        raise UnusableState(f"{path} is not readable as JSON.", "Run: streamlab down --purge") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise UnusableState(
            f"{path} was written by another version of streamlab.",
            "Run `streamlab down --purge` with that version, or set STREAMLAB_HOME to another directory.",
        )
    return state


def _service(name: str) -> dict[str, Any]:
    entry = stack_state().get("services", {}).get(name)
    if not entry:
        raise NotRunning(
            f"No address is known for {name}.",
            f"Start it: streamlab up {name}" + (f"; or set {VARIABLES[name]}." if name in VARIABLES else ""),
        )
    return dict(entry["address"])


def postgres_dsn(role: Role = "app") -> Dsn:
    """The connection string of PostgreSQL for a role.

    With ``STREAMLAB_POSTGRES_DSN`` set, it is that string for every role.

    Raises
    ------
    NotRunning
        Neither the environment nor a running stack names a server.
    """
    if text := os.environ.get(VARIABLES["postgres"]):
        return Dsn(text)
    address = _service("postgres")
    passfile = str(address["passfile"]).replace("\\", "\\\\").replace("'", "\\'")
    return Dsn(
        f"host={address['host']} port={address['port']} dbname={address['database']} "
        f"user={address['roles'][role]} passfile='{passfile}'"
    )


def mysql_address(role: Role = "app") -> MySQLAddress:
    """Address and login of MySQL for a role; ``STREAMLAB_MYSQL_DSN`` wins for every role."""
    if text := os.environ.get(VARIABLES["mysql"]):
        return MySQLAddress.parse(text)
    address = _service("mysql")
    return MySQLAddress(
        host=address["host"],
        port=int(address["port"]),
        user=address["roles"][role]["user"],
        option_file=address["roles"][role]["option_file"],
    )


def kafka_bootstrap() -> str:
    """``host:port`` of the Kafka bootstrap server."""
    if text := os.environ.get(VARIABLES["kafka"]):
        return text
    address = _service("kafka")
    return f"{address['host']}:{address['port']}"


def connect_url() -> str:
    """Base URL of the REST interface of Kafka Connect's first worker, without a trailing slash."""
    return connect_urls()[0]


def connect_urls() -> list[str]:
    """The same for every worker of the group: each answers for all."""
    if text := os.environ.get(VARIABLES["connect"]):
        return [part.strip().rstrip("/") for part in text.split(",")]
    started = stack_state().get("services", {})
    names = [name for name in CONNECT_WORKERS if started.get(name)] or ["connect"]
    return [f"http://{address['host']}:{address['port']}" for address in map(_service, names)]


def connect_worker(address: str) -> str:
    """The service that is the worker of Kafka Connect at ``host:port``; empty for one that streamlab did not start."""
    if given("connect"):
        return ""
    started = stack_state().get("services", {})
    for name in (*CONNECT_WORKERS, "connect-standalone"):
        if started.get(name) and address == "{host}:{port}".format(**_service(name)):
            return name
    return ""


def standalone_url() -> str:
    """Base URL of the REST interface of the standalone worker, without a trailing slash."""
    address = _service("connect-standalone")
    return f"http://{address['host']}:{address['port']}"


def registry_url(api: Literal["confluent", "apicurio"] = "confluent") -> str:
    """URL of one of the schema registry's interfaces, without a trailing slash.

    Parameters
    ----------
    api : str
        ``confluent``, which Confluent's serializers speak; or ``apicurio``, which the Avro converter in Kafka
        Connect speaks.
    """
    if text := os.environ.get(VARIABLES["registry"]):
        url = text.rstrip("/")
    else:
        address = _service("registry")
        url = f"http://{address['host']}:{address['port']}"
    return url + ("/apis/ccompat/v7" if api == "confluent" else "/apis/registry/v2")


def connect_secret(service: str, role: Role = "cdc") -> str:
    """What stands for a role's password in a connector's configuration: never the password itself.

    For our own worker a reference that its config provider resolves. For a worker of the user's own, what
    ``STREAMLAB_CONNECT_MYSQL_PASSWORD`` or ``STREAMLAB_CONNECT_POSTGRES_PASSWORD`` says, which
    should be such a reference too (``${env:...}``, ``${file:...}``), for every role.

    Raises
    ------
    SettingsError
        The worker is the user's own, and the variable is not set.
    """
    if not given("connect"):
        started = stack_state().get("services", {})
        # All workers of a home read one directory.
        worker = next((name for name in (*CONNECT_WORKERS, "connect-standalone") if started.get(name)), "connect")
        directory = _service(worker)["secrets"]
        name = service if role == "cdc" else f"{service}-{role}"
        return f"${{file:{directory}/{name}.properties:password}}"
    variable = f"STREAMLAB_CONNECT_{service.upper()}_PASSWORD"
    if text := os.environ.get(variable):
        return text
    raise SettingsError(
        f"A connector on a Kafka Connect of your own needs to be told how to find the password of {service}.",
        f"Set {variable} to a reference that its config provider resolves, such as ${{env:NAME}}.",
    )
