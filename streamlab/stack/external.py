"""Servers that the environment names: looked at, never started, stopped or reset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from streamlab import settings
from streamlab.errors import SettingsError

__all__ = ["Seen", "look"]

MINIMUM_POSTGRES = 16
MINIMUM_MYSQL = (8, 4)
_LIMIT = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a server told. `problem` is empty where it can be used."""

    host: str
    port: int
    version: str = ""
    problem: str = ""
    fix: str = ""


def look(service: str) -> Seen:
    """Connect to the user's own server, and tell its version or what is wrong. At most five seconds."""
    try:
        return _LOOKS[service]()
    except SettingsError as error:
        return Seen("", 0, problem=error.problem, fix=error.fix)


def _postgres() -> Seen:
    import psycopg

    variable = settings.VARIABLES["postgres"]
    dsn = settings.postgres_dsn()
    try:
        with psycopg.connect(dsn, connect_timeout=_LIMIT) as connection:
            info = connection.info
            number = info.server_version
            seen = Seen(info.host, info.port, f"{number // 10000}.{number % 10000}")
            row = connection.execute("SHOW wal_level").fetchone()
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Seen(
            "",
            0,
            problem=f"The PostgreSQL that {variable} names cannot be used: {first}.",
            fix=f"Correct {variable}, or unset it.",
        )
    if number // 10000 < MINIMUM_POSTGRES:
        return Seen(
            seen.host, seen.port, seen.version,
            f"The server is PostgreSQL {seen.version}; the lessons need {MINIMUM_POSTGRES} or later.",
            f"Point {variable} at a newer one, or unset it to use streamlab's own.",
        )  # fmt: skip
    if row is None or row[0] != "logical":
        return Seen(
            seen.host, seen.port, seen.version,
            f"The server runs with wal_level={row[0] if row else 'unknown'}; change data capture needs logical.",
            "Run ALTER SYSTEM SET wal_level = 'logical' there and restart it.",
        )  # fmt: skip
    return seen


def _mysql() -> Seen:
    import pymysql

    variable = settings.VARIABLES["mysql"]
    address = settings.mysql_address()
    try:
        with pymysql.connect(**address.arguments(), connect_timeout=_LIMIT, read_timeout=_LIMIT) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT version()")
                row = cursor.fetchone()
            version = str(row[0]) if row else ""
    except (pymysql.Error, OSError, TypeError) as error:
        return Seen(
            address.host, address.port,
            problem=f"The MySQL that {variable} names cannot be used: {error.args[-1] if error.args else error}.",
            fix=f"Correct {variable}, or unset it.",
        )  # fmt: skip
    numbers = tuple(int(part) for part in version.split("-")[0].split("."))
    if "mariadb" in version.lower() or numbers < MINIMUM_MYSQL:
        return Seen(
            address.host, address.port, version,
            f"The server is {version}; the lessons need MySQL {MINIMUM_MYSQL[0]}.{MINIMUM_MYSQL[1]} or later.",
            f"Point {variable} at a newer one, or unset it to use streamlab's own.",
        )  # fmt: skip
    return Seen(address.host, address.port, version)


def _kafka() -> Seen:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    variable = settings.VARIABLES["kafka"]
    bootstrap = settings.kafka_bootstrap()
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"{variable}={bootstrap} is not of the form host:port.", "Correct it, or unset it.")
    # librdkafka would write each failed connection to stderr.
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": _LIMIT * 1000})
    try:
        metadata = client.list_topics(timeout=_LIMIT)
    except KafkaException as error:
        return Seen(
            host, int(port),
            problem=f"The Kafka that {variable} names does not answer: {error.args[0].str()}.",
            fix=f"Correct {variable}, or unset it.",
        )  # fmt: skip
    return Seen(host, int(port), f"{len(metadata.brokers)} broker{'s' if len(metadata.brokers) != 1 else ''}")


def _connect() -> Seen:
    return _http("connect", settings.connect_url, "/", "Kafka Connect")


def _registry() -> Seen:
    return _http("registry", settings.registry_url, "/subjects", "schema registry")


def _http(service: str, url: Callable[[], str], path: str, title: str) -> Seen:
    """A server that answers a request with JSON, which may tell its version."""
    import httpx

    variable = settings.VARIABLES[service]
    parts = urlsplit(url())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"{variable} is not of the form http://host:port.", "Correct it, or unset it.")
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    try:
        answer = httpx.get(url() + path, timeout=_LIMIT).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return Seen(
            host, port,
            problem=f"The {title} that {variable} names does not answer: {error}.",
            fix=f"Correct {variable}, or unset it.",
        )  # fmt: skip
    return Seen(host, port, str(answer.get("version", "")) if isinstance(answer, dict) else "")


_LOOKS: dict[str, Callable[[], Seen]] = {
    "postgres": _postgres,
    "mysql": _mysql,
    "kafka": _kafka,
    "connect": _connect,
    "registry": _registry,
}
