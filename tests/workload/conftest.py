"""Both servers, each as a place of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from workload.cut import Proxy, proxy

from streamlab import settings
from streamlab.stack.namespace import Namespace
from streamlab.workload import MySQLTarget, PostgresTarget, Shop
from streamlab.workload.target import Target

SERVERS = ("postgres", "mysql")


class Place:
    """One server: a target in a namespace of the test's, and what a test asks or does behind the shop's back."""

    def __init__(self, server: str, namespace: Namespace) -> None:
        self.server = server
        self.name = namespace.postgres_schema() if server == "postgres" else namespace.mysql_database()
        self.target = self.through(None)

    def through(self, way: Proxy | None) -> Target:
        """The target, reached through a proxy that can read along."""
        if self.server == "postgres":
            dsn = str.__str__(settings.postgres_dsn("app"))
            if way is None:
                return PostgresTarget(dsn, self.name)
            # The password file names the server's own port.
            facts = psycopg.conninfo.conninfo_to_dict(dsn)
            lines = Path(str(facts["passfile"])).read_text(encoding="utf-8").splitlines()
            password = next(line.split(":")[4] for line in lines if line.split(":")[3] == facts["user"])
            plain = psycopg.conninfo.make_conninfo(
                dsn, port=way.port, password=password, sslmode="disable", gssencmode="disable"
            )
            return PostgresTarget(plain, self.name)
        address = settings.mysql_address("app")
        if way is None:
            return MySQLTarget(address, self.name)
        arguments = {**address.arguments(database=""), "port": way.port, "ssl_disabled": True}
        return MySQLTarget(lambda: pymysql.connect(**arguments), self.name)

    def address(self) -> tuple[str, int]:
        if self.server == "postgres":
            parts = psycopg.conninfo.conninfo_to_dict(str.__str__(settings.postgres_dsn("app")))
            return str(parts["host"]), int(str(parts["port"]))
        address = settings.mysql_address("app")
        return address.host, address.port

    def ask(self, query: str, role: settings.Role = "app") -> list[tuple[Any, ...]]:
        """A question from another session."""
        if self.server == "postgres":
            with psycopg.connect(
                settings.postgres_dsn(role), autocommit=True, options=f"-c search_path={self.name}"
            ) as connection:
                cursor = connection.execute(query)  # type: ignore[arg-type]
                return cursor.fetchall() if cursor.description else []
        with (
            pymysql.connect(**settings.mysql_address(role).arguments(database=self.name), autocommit=True) as other,
            other.cursor() as cursor,
        ):
            cursor.execute(query)
            return list(cursor.fetchall())

    def kill(self, session: Any) -> None:
        """End a session of the shop's at the server, as an administrator would."""
        number = session.identity[0]
        if self.server == "postgres":
            with psycopg.connect(settings.postgres_dsn("admin"), autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 10000)", [number])
        else:
            with (
                pymysql.connect(**settings.mysql_address("admin").arguments()) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(f"KILL {int(number)}")


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest, stack: object) -> Iterator[Place]:
    with Namespace("test_shop") as namespace:
        yield Place(request.param, namespace)


@pytest.fixture
def shops(place: Place) -> Iterator[Callable[..., Shop]]:
    """Makes shops that are open, and closes them."""
    made: list[Shop] = []

    def make(target: Target | None = None, **options: Any) -> Shop:
        shop = Shop(target or place.target, **{"customers": 20, "products": 8, **options})
        made.append(shop)
        shop.create()
        return shop

    yield make
    for shop in made:
        shop.close()


@pytest.fixture
def way(place: Place) -> Iterator[Proxy]:
    with proxy(*place.address()) as made:
        yield made
