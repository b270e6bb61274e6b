"""docker-compose.yml runs the same stack as `streamlab up`: versions, settings, ports, accounts."""

from __future__ import annotations

import re
import shlex
import subprocess
import warnings
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import yaml

from streamlab import settings
from streamlab.stack import DEFAULT, connect, kafka, mysql, ports, postgres, registry

ROOT = Path(__file__).parents[2]

IMAGES = {
    "postgres": ("postgres", postgres.VERSION),
    "mysql": ("mysql", mysql.VERSION),
    "kafka": ("apache/kafka", kafka.VERSION),
    "connect": ("quay.io/debezium/connect", connect.VERSION),
    "registry": ("apicurio/apicurio-registry", registry.VERSION),
}
# Debezium's image takes these without the prefix; its start script overwrites the prefixed ones.
UNPREFIXED = {
    "group.id",
    "config.storage.topic",
    "offset.storage.topic",
    "status.storage.topic",
    "key.converter",
    "value.converter",
    "offset.flush.interval.ms",
}


class VersionDrift(UserWarning):
    """An image and the native server have the same major version, and differ in a lesser part."""


def services() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return table["services"]


def variable(key: str, prefix: str) -> str:
    return prefix + key.upper().replace(".", "_")


def test_services_are_those_of_the_native_stack() -> None:
    assert set(services()) == set(IMAGES)


@pytest.mark.filterwarnings("always::UserWarning")
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_image_has_the_major_version_of_the_native_server(name: str) -> None:
    image, tag = services()[name]["image"].rsplit(":", 1)
    expected, version = IMAGES[name]
    assert image == expected
    assert tag.split(".")[0] == version.split(".")[0]
    if tag != version:
        # Reported by pytest and no failure: the images and the packages are published by different people.
        warnings.warn(f"{name}: image {tag}, native {version}", VersionDrift, stacklevel=1)


def test_postgres_has_the_native_settings() -> None:
    program, *words = services()["postgres"]["command"]
    assert program == "postgres"
    assert words[0::2] == ["-c"] * (len(words) // 2)
    assert dict(word.split("=", 1) for word in words[1::2]) == postgres.SETTINGS


def test_postgres_is_initialised_like_the_native_one() -> None:
    environment = services()["postgres"]["environment"]
    arguments = shlex.split(environment["POSTGRES_INITDB_ARGS"])
    source = Path(postgres.__file__).read_text(encoding="utf-8")
    assert [argument for argument in arguments if f'"{argument}"' not in source] == []
    assert {argument.split("=")[0] for argument in arguments} == {
        "--auth",
        "--encoding",
        "--locale",
        "--locale-provider",
        "--builtin-locale",
    }
    assert environment["POSTGRES_HOST_AUTH_METHOD"] == postgres.SETTINGS["password_encryption"]
    assert environment["POSTGRES_DB"] == postgres.DATABASE
    assert environment["POSTGRES_USER"] == postgres.ROLES["admin"]


def test_mysql_has_the_native_settings() -> None:
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in services()["mysql"]["command"])
    assert flags == mysql.SETTINGS


def test_kafka_has_the_native_settings() -> None:
    given = services()["kafka"]["environment"]
    expected = {variable(key, "KAFKA_"): value for key, value in kafka.SETTINGS.items()}
    # One listener more than the native broker: containers and the host reach it by different addresses.
    protocols = set(expected.pop("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP").split(","))
    assert set(given["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")) == protocols | {"HOST:PLAINTEXT"}
    assert {key: given.get(key) for key in expected} == expected


def test_kafka_has_nothing_else_but_its_addresses() -> None:
    expected = {variable(key, "KAFKA_") for key in kafka.SETTINGS}
    assert set(services()["kafka"]["environment"]) - expected == {
        "CLUSTER_ID",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "KAFKA_HEAP_OPTS",
        "KAFKA_LISTENERS",
        "KAFKA_LOG_DIRS",
    }


def test_kafka_advertises_to_the_host_the_port_that_is_published() -> None:
    given = services()["kafka"]["environment"]
    listeners, advertised = (
        dict(item.split("://") for item in given[key].split(","))
        for key in ("KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS")
    )
    (published,) = services()["kafka"]["ports"]
    host, outside, inside = published.rsplit(":", 2)
    assert advertised["HOST"] == f"{host}:{outside}"
    assert listeners["HOST"] == f":{inside}"
    # A listener without an address of its own would be advertised under the container's changing name.
    assert set(listeners) == {*advertised, "CONTROLLER"}
    assert services()["connect"]["environment"]["BOOTSTRAP_SERVERS"] == advertised["PLAINTEXT"]


def test_connect_has_the_native_settings() -> None:
    given = services()["connect"]["environment"]
    expected = {
        variable(key, "" if key in UNPREFIXED else "CONNECT_"): value for key, value in connect.SETTINGS.items()
    }
    assert {key: given.get(key) for key in expected} == expected
    for key in UNPREFIXED:
        assert variable(key, "CONNECT_") not in given


def test_registry_has_the_native_settings_and_is_started_on_demand() -> None:
    given = services()["registry"]["environment"]
    expected = {re.sub(r"[.-]", "_", key).upper(): value for key, value in registry.SETTINGS.items()}
    assert {key: given.get(key) for key in expected} == expected
    assert given["APICURIO_DATASOURCE_URL"] == registry.DATABASE.format(place="/data/registry")
    assert set(given) - set(expected) == {"APICURIO_DATASOURCE_URL", "JAVA_OPTS_APPEND"}
    on_demand = {name for name, service in services().items() if service.get("profiles") == [name]}
    assert on_demand == set(services()) - set(DEFAULT)


@pytest.mark.parametrize(
    ("name", "key"), [("kafka", "KAFKA_HEAP_OPTS"), ("connect", "HEAP_OPTS"), ("registry", "JAVA_OPTS_APPEND")]
)
def test_java_has_the_native_heap(name: str, key: str) -> None:
    native = {"kafka": kafka.Kafka, "connect": connect.Connect, "registry": registry.Registry}[name]
    assert f"-Xmx{native.heap}" in services()[name]["environment"][key].split()


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_ports_are_the_native_ones_on_the_loopback_address(name: str) -> None:
    (published,) = services()[name]["ports"]
    host, outside, _ = published.rsplit(":", 2)
    assert (host, int(outside)) == (ports.HOST, ports.DEFAULT_BASE + ports.PORTS[name])


def test_data_lies_in_named_volumes_where_the_images_keep_it() -> None:
    table = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    data = {
        volume
        for service in table["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert data == {
        "postgres-data:/var/lib/postgresql",
        "mysql-data:/var/lib/mysql",
        "kafka-data:/var/lib/kafka/data",
        "registry-data:/data",
    }
    assert {volume.split(":")[0] for volume in data} == set(table["volumes"])


def test_mounted_directories_are_in_the_repository_and_read_only() -> None:
    mounts = [
        volume for service in services().values() for volume in service.get("volumes", []) if volume.startswith(".")
    ]
    assert len(mounts) == 2
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert list((ROOT / source).iterdir()), f"{source} is empty"
        assert mode == "ro"


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_every_service_has_a_bounded_health_check_that_others_wait_for(name: str) -> None:
    service = services()[name]
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)
    for other, condition in service.get("depends_on", {}).items():
        assert other in services()
        assert condition == {"condition": "service_healthy"}


def test_nothing_sleeps_in_hope() -> None:
    for path in (ROOT / "docker-compose.yml", *(ROOT / "docker").rglob("*.*")):
        assert not re.search(r"\bsleep\b", path.read_text(encoding="utf-8")), path


def test_no_password_stands_in_the_file() -> None:
    demand = re.compile(r"\$\{STREAMLAB_PASSWORD:\?[^}]+\}")
    for name, service in services().items():
        for key, value in service["environment"].items():
            if "PASSWORD" in key:
                assert demand.fullmatch(value), f"{name}: {key}"
            else:
                assert "STREAMLAB_PASSWORD" not in value or key.endswith("ALLOWLIST_PATTERN"), f"{name}: {key}"


# -- accounts: what the init scripts of the images make, and what the native servers really have ------------------


def statements_of_postgres() -> str:
    lines = (ROOT / "docker/postgres/roles.sql").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if not line.startswith(("--", "\\")))


def test_init_scripts_make_the_native_roles() -> None:
    roles = set(re.findall(r"CREATE ROLE (\w+)", statements_of_postgres()))
    assert roles == set(postgres.ROLES.values()) - {postgres.ROLES["admin"]}
    users = set(re.findall(r"CREATE USER IF NOT EXISTS '(\w+)'@'%'", statements_of_mysql("secret")))
    assert users == set(mysql.ROLES.values()) - {mysql.ROLES["admin"]}


@pytest.mark.integration
def test_postgres_roles_have_the_native_attributes(stack: object) -> None:
    attributes = {
        "rolcanlogin": "LOGIN",
        "rolsuper": "SUPERUSER",
        "rolcreatedb": "CREATEDB",
        "rolcreaterole": "CREATEROLE",
        "rolreplication": "REPLICATION",
    }
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        for role, words in re.findall(r"CREATE ROLE (\w+) ([A-Z ]+) PASSWORD", statements_of_postgres()):
            row = connection.execute(
                "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication "
                "FROM pg_roles WHERE rolname = %s",
                [role],
            ).fetchone()
            assert row is not None, role
            native = {word if has else f"NO{word}" for word, has in zip(attributes.values(), row, strict=True)}
            assert set(words.split()) == native, role


@pytest.mark.integration
def test_postgres_roles_have_the_native_privileges(stack: object) -> None:
    text = statements_of_postgres()
    with psycopg.connect(settings.postgres_dsn("admin")) as connection:
        granted = {
            (role, privilege)
            for privileges, roles in re.findall(r"GRANT ([A-Z, ]+) ON DATABASE streamlab TO ([\w, ]+);", text)
            for role in roles.split(", ")
            for privilege in privileges.split(", ")
        }
        native = connection.execute(
            "SELECT r.rolname, a.privilege_type FROM pg_database d, aclexplode(d.datacl) a, pg_roles r "
            "WHERE d.datname = current_database() AND r.oid = a.grantee AND r.rolname LIKE 'streamlab%'"
        ).fetchall()
        assert granted == set(native)
        public = connection.execute(
            "SELECT count(*) FROM pg_database d, aclexplode(d.datacl) a "
            "WHERE d.datname = current_database() AND a.grantee = 0"
        ).fetchone()
        assert public == (0,)
        assert "REVOKE ALL ON DATABASE streamlab FROM PUBLIC;" in text

        memberships = connection.execute(
            "SELECT m.roleid::regrole::text, m.member::regrole::text FROM pg_auth_members m "
            "WHERE m.member::regrole::text LIKE 'streamlab%'"
        ).fetchall()
        assert set(re.findall(r"GRANT (\w+) TO (\w+);", text)) == set(memberships)
        assert memberships == [(postgres.WATCHING, postgres.ROLES["reader"])]

        kinds = {"SCHEMAS": "n", "TABLES": "r"}
        defaults = {
            (owner, kinds[kind], role, privilege)
            for owner, privilege, kind, roles in re.findall(
                r"DEFAULT PRIVILEGES FOR ROLE (\w+) GRANT ([A-Z]+) ON ([A-Z]+) TO ([\w, ]+);", text
            )
            for role in roles.split(", ")
        }
        native_defaults = connection.execute(
            "SELECT o.rolname, d.defaclobjtype::text, g.rolname, a.privilege_type "
            "FROM pg_default_acl d, aclexplode(d.defaclacl) a, pg_roles o, pg_roles g "
            "WHERE o.oid = d.defaclrole AND g.oid = a.grantee AND d.defaclnamespace = 0 AND o.oid <> g.oid"
        ).fetchall()
        assert defaults == set(native_defaults)


def statements_of_mysql(password: str) -> str:
    """What the init script would send: run by bash, with a `mysql` that shows its input."""
    script = f"mysql() {{ cat; }}; . {shlex.quote(str(ROOT / 'docker/mysql/roles.sh'))}"
    return subprocess.run(
        ["bash", "-euc", script],
        env={"MYSQL_ROOT_PASSWORD": password, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def test_mysql_script_quotes_the_password() -> None:
    assert statements_of_mysql("it's a\\b").count(r"IDENTIFIED BY 'it''s a\\b';") == 3


@pytest.mark.integration
def test_mysql_accounts_have_the_native_grants(stack: object) -> None:
    text = statements_of_mysql("secret")
    with pymysql.connect(**settings.mysql_address("admin").arguments()) as connection, connection.cursor() as cursor:
        for user in set(mysql.ROLES.values()) - {mysql.ROLES["admin"]}:
            ours = set(re.findall(rf"^(GRANT .+ TO '{user}'@'%');$", text, re.MULTILINE))
            cursor.execute("SHOW GRANTS FOR %s@'%%'", (user,))
            native = {str(row[0]).replace(f"`{user}`@`%`", f"'{user}'@'%'") for row in cursor.fetchall()}
            # Every account may USE nothing: MySQL's way to say that it exists.
            assert ours == {grant for grant in native if not grant.startswith("GRANT USAGE ON *.*")}
