"""What Kafka Connect is asked, by its REST interface: plugins, connectors, states, offsets. Changes nothing.

A connector that was made a moment ago is unknown (404) to a worker that has not read of it yet: that is waited out
for those that `ConnectClient.apply` has made.

Source: Kafka's documentation, "Kafka Connect", section "REST API".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from streamlab import settings
from streamlab.connect.answers import ConnectorOffset, ConnectorStatus, Key, KeyProblem, Plugin
from streamlab.connect.catalog import Catalog
from streamlab.connect.rest import Rest, path, reason
from streamlab.errors import ConnectError, ConnectorMissing

__all__ = ["ConnectReader", "logs", "missing"]

_YOUNG = 15.0
"""Seconds after `apply` for which a 404 is repeated."""


class ConnectReader:
    """One group of workers, looked at. Threads may share it.

    Parameters
    ----------
    url : str or sequence of str, optional
        Base URL of a worker, or of several of one group, each of which answers for all; by default those that
        `streamlab.settings` knows.
    limit : float
        Seconds for which a request is repeated that a worker refuses for the moment, or that nobody answers.
    """

    def __init__(self, url: str | Sequence[str] | None = None, *, limit: float = 30.0) -> None:
        self._rest = Rest(url or settings.connect_urls(), limit=limit)
        self._lock = threading.Lock()
        self._applied: dict[str, float] = {}
        self._catalog: Catalog | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()

    # -- plugins -------------------------------------------------------------------------------------

    def plugins(self) -> list[Plugin]:
        """Every class that the worker can load: connectors, transformations, predicates, converters."""
        told = self._ask("GET", "/connector-plugins", params={"connectorsOnly": "false"})
        return [Plugin(str(each["class"]), str(each["type"]), str(each.get("version") or "")) for each in told]

    def keys(self, plugin: str) -> list[Key]:
        """The keys that a plugin's configuration defines; for a connector those of Connect itself too.

        Raises
        ------
        ConnectError
            The worker has no such plugin, or it cannot be asked.
        """
        told = self._ask("GET", path("connector-plugins", plugin, "config"))
        return [
            Key(str(each["name"]), str(each["type"]), bool(each["required"]), each.get("default_value"))
            for each in told
        ]

    def catalog(self) -> Catalog:
        """What a lint has to know, with the worker's own plugins in place of those of the table. Asked once."""
        with self._lock:
            if self._catalog is None:
                offered = self.plugins()
                connectors = [each for each in offered if each.kind in {"source", "sink"}]
                self._catalog = Catalog.load().asked({each: self.keys(each.name) for each in connectors}, offered)
            return self._catalog

    def validate(self, configuration: Mapping[str, str]) -> list[KeyProblem]:
        """What the worker finds wrong with the values; for a database connector it logs in there.

        It says nothing about a key that nothing reads: see `streamlab.connect.lint`.

        Raises
        ------
        ConnectError
            The worker has no such plugin.
        """
        plugin = configuration.get("connector.class", "")
        body = {"name": "validated", **configuration}
        told = self._ask("PUT", path("connector-plugins", plugin, "config", "validate"), json=body)
        return [
            KeyProblem(str(each["value"]["name"]), str(error))
            for each in told["configs"]
            for error in each["value"]["errors"]
        ]

    # -- connectors ----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names of all connectors, sorted."""
        return sorted(self._ask("GET", "/connectors"))

    def configuration(self, name: str) -> dict[str, str]:
        """The configuration as the worker has it; secrets are references there.

        Raises
        ------
        ConnectorMissing
            There is no such connector.
        """
        told: dict[str, str] = self._ask("GET", path("connectors", name, "config"), name)
        return told

    def configurations(self) -> dict[str, dict[str, str]]:
        """The configurations of all connectors, by name."""
        told = self._ask("GET", "/connectors", params={"expand": "info"})
        return {name: dict(told[name]["info"]["config"]) for name in sorted(told) if told[name].get("info")}

    def status(self, name: str) -> ConnectorStatus:
        """The state of a connector and its tasks.

        Raises
        ------
        ConnectorMissing
            There is no such connector.
        """
        return ConnectorStatus.of(self._ask("GET", path("connectors", name, "status"), name))

    def statuses(self) -> list[ConnectorStatus]:
        """The states of all connectors, sorted by name; one that has said nothing yet is left out."""
        told = self._ask("GET", "/connectors", params={"expand": "status"})
        return [ConnectorStatus.of(told[name]["status"]) for name in sorted(told) if told[name].get("status")]

    def offsets(self, name: str) -> list[ConnectorOffset]:
        """How far the connector has come, as it has committed it; empty before its first commit."""
        told = self._ask("GET", path("connectors", name, "offsets"), name)
        return [ConnectorOffset(each["partition"], each["offset"]) for each in told["offsets"]]

    # -- how -----------------------------------------------------------------------------------------

    def _ask(self, method: str, where: str, name: str = "", **options: Any) -> Any:
        """The JSON of an answer, where it is a success."""
        answer = self._rest.request(method, where, young=bool(name) and self._is_young(name), **options)
        if answer.status_code == 404 and name:
            raise missing(name)
        if not answer.is_success:
            raise ConnectError(f"Kafka Connect answers {method} {where} with: {reason(answer)}", _next(answer.text))
        return answer.json() if answer.content else None

    def _is_young(self, name: str) -> bool:
        with self._lock:
            return time.monotonic() - self._applied.get(name, -_YOUNG) < _YOUNG


def missing(name: str) -> ConnectorMissing:
    """The error for a name that no connector has."""
    return ConnectorMissing(f"Kafka Connect knows no connector {name}.", "See which there are: streamlab status")


def logs(worker: str = "") -> str:
    """Where more is written down of what went wrong.

    Parameters
    ----------
    worker : str
        Address of the worker where it did, as `Part` has it; empty where that is not known.
    """
    if service := settings.connect_worker(worker) if worker else "" if settings.given("connect") else "connect":
        return f"See: streamlab logs {service}"
    return f"See the log of the worker{' ' + worker if worker else ''}."


def _next(text: str) -> str:
    return "Stop the connector first: ConnectClient.stop." if "STOPPED" in text else logs()
