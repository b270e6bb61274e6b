"""Kafka Connect's REST interface: what runs there, made, changed, watched, moved and deleted by name.

Every method says what shall be true afterwards, may be repeated, and returns when the worker tells that it is so. What
a worker refuses for a moment is waited out (`streamlab.connect.rest`). Two more things a caller need not know:
a connector that was made a moment ago is unknown (404) to a worker that has not read of it yet; and after a change, a
worker goes on telling the failure of before, until the new task has said something.

A configuration is linted before the worker sees it: the worker takes every key, also one that nothing reads.

Source: Kafka's documentation, "Kafka Connect", section "REST API".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from streamlab import settings
from streamlab.connect.answers import ConnectorOffset, ConnectorStatus, Key, KeyProblem, Part, Plugin
from streamlab.connect.catalog import Catalog
from streamlab.connect.lint import Level, lint
from streamlab.connect.rest import Rest, path, reason
from streamlab.errors import ConnectError, ConnectorFailed, ConnectorMissing, ConnectorRefused

__all__ = ["ConnectClient"]

log = logging.getLogger(__name__)

_YOUNG = 15.0
"""Seconds after `apply` for which a 404 is repeated."""
_STALE = 5.0
"""Seconds after a change for which a failure of before may still be told; then it is believed to be a new one."""
_LOGS = "See: streamlab logs connect"
_POLL = 0.05


class ConnectClient:
    """One group of workers. Threads may share it.

    Parameters
    ----------
    url : str, optional
        Base URL of a worker; by default the one that `streamlab.settings` knows.
    limit : float
        Seconds for which a request is repeated that a worker refuses for the moment, or that nobody answers.
    """

    def __init__(self, url: str | None = None, *, limit: float = 30.0) -> None:
        self._rest = Rest(url or settings.connect_url(), limit=limit)
        self._lock = threading.Lock()
        self._applied: dict[str, float] = {}
        # Failures of before, by connector: they are told until the restarted part has said something.
        self._before: dict[str, tuple[float, set[Part]]] = {}
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

    def apply(self, name: str, configuration: Mapping[str, str], *, check: bool = True) -> None:
        """Create a connector, or change it to this configuration. Idempotent; a part that had failed starts again.

        Parameters
        ----------
        name : str
            Name of the connector.
        configuration : mapping of str to str
            Connect's configuration, without the name.
        check : bool
            Lint it first; False leaves everything to the worker, which ignores what it does not know.

        Raises
        ------
        ConnectorRefused
            The lint found an error, or the worker refuses the configuration; the reasons are in the message.
        """
        wanted = dict(configuration)
        if check:
            wrong = [each for each in lint(wanted, self.catalog()) if each.level is Level.ERROR]
            if wrong:
                raise ConnectorRefused(
                    f"The lint refuses {name}: " + " ".join(each.problem for each in wrong),
                    " ".join(dict.fromkeys(each.fix for each in wrong if each.fix)),
                )
        failed = self._forgive(name)
        answer = self._rest.request("PUT", path("connectors", name, "config"), json=wanted)
        if not answer.is_success:
            raise ConnectorRefused(f"Kafka Connect refuses {name}: {reason(answer)}", "Correct the configuration.")
        with self._lock:
            self._applied[name] = time.monotonic()
        if failed:
            # A task whose own configuration has not changed is left as it is, also where it has failed.
            self._restart(name)

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

    def wait_ready(self, name: str, *, limit: float = 60.0) -> ConnectorStatus:
        """Wait until the connector and all tasks are RUNNING, one task at least.

        After a change to a connector that works, its worker may tell the RUNNING of before for a moment.

        Raises
        ------
        ConnectorFailed
            The connector or a task failed; the beginning of its trace is in the message.
        ConnectorMissing
            There is no such connector, after `limit` seconds.
        ConnectError
            It is not ready after `limit` seconds.
        """
        return self._wait(name, lambda status: status.ready, "ready", limit)

    def pause(self, name: str, *, limit: float = 30.0) -> None:
        """Let the tasks process nothing, with everything kept open; wait until they are PAUSED."""
        self._command("PUT", name, "pause")
        self._wait(name, lambda status: all(part.state == "PAUSED" for part in status.parts), "paused", limit)

    def resume(self, name: str, *, limit: float = 60.0) -> None:
        """Go on after `pause` or `stop`; wait until it is ready.

        Raises
        ------
        ConnectorFailed
            It cannot go on; the beginning of the trace is in the message.
        """
        self._forgive(name)
        self._command("PUT", name, "resume")
        self.wait_ready(name, limit=limit)

    def stop(self, name: str, *, limit: float = 30.0) -> None:
        """End the tasks and keep configuration and offsets; wait until that is so. Offsets can be changed then."""
        self._forgive(name)
        self._command("PUT", name, "stop")
        self._wait(name, lambda s: s.connector.state == "STOPPED" and not s.tasks, "stopped", limit)

    def restart(self, name: str, *, only_failed: bool = True, limit: float = 60.0) -> None:
        """Start failed parts again, or all of them; wait until the connector is ready.

        Raises
        ------
        ConnectorFailed
            A part failed again.
        """
        if only_failed:
            self._forgive(name)
            self._restart(name)
            self.wait_ready(name, limit=limit)
        else:
            # The worker's own restart of everything goes on telling RUNNING until it begins.
            self.stop(name, limit=limit)
            self.resume(name, limit=limit)

    def delete(self, name: str, *, forget: bool = False) -> bool:
        """Delete a connector; whether there was one.

        Parameters
        ----------
        name : str
            Name of the connector.
        forget : bool
            Forget its offsets too. Otherwise a later connector of this name goes on where this one ended. A slot or a
            schema history topic that belongs to it is not touched in either case.
        """
        if forget:
            try:
                self.stop(name)
                self.reset_offsets(name)
            except ConnectorMissing:
                return False
            except ConnectError as error:
                # A connector that cannot even be loaded has no offsets to be reset; it can be deleted.
                log.warning("The offsets of %s are not forgotten: %s", name, error.problem)
        answer = self._rest.request("DELETE", path("connectors", name), young=self._is_young(name))
        with self._lock:
            self._applied.pop(name, None)
            self._before.pop(name, None)
        if answer.status_code == 404:
            return False
        if not answer.is_success:
            raise ConnectError(f"Kafka Connect does not delete {name}: {reason(answer)}", _LOGS)
        return True

    # -- offsets -------------------------------------------------------------------------------------

    def offsets(self, name: str) -> list[ConnectorOffset]:
        """How far the connector has come, as it has committed it; empty before its first commit."""
        told = self._ask("GET", path("connectors", name, "offsets"), name)
        return [ConnectorOffset(each["partition"], each["offset"]) for each in told["offsets"]]

    def alter_offsets(self, name: str, offsets: Iterable[ConnectorOffset]) -> None:
        """Set where a stopped connector goes on; parts that are not named stay as they are.

        Raises
        ------
        ConnectError
            It is not stopped, or its plugin refuses the offsets.
        """
        body = {"offsets": [{"partition": dict(o.partition), "offset": o.offset and dict(o.offset)} for o in offsets]}
        self._ask("PATCH", path("connectors", name, "offsets"), name, json=body)

    def reset_offsets(self, name: str) -> None:
        """Forget where a stopped connector has come to: it begins anew.

        What else it keeps is the caller's to drop: the replication slot of a PostgreSQL source, the schema history
        topic of a MySQL source.

        Raises
        ------
        ConnectError
            It is not stopped, or its plugin refuses.
        """
        self._ask("DELETE", path("connectors", name, "offsets"), name)

    # -- how -----------------------------------------------------------------------------------------

    def _ask(self, method: str, where: str, name: str = "", **options: Any) -> Any:
        """The JSON of an answer, where it is a success."""
        answer = self._rest.request(method, where, young=bool(name) and self._is_young(name), **options)
        if answer.status_code == 404 and name:
            raise _missing(name)
        if not answer.is_success:
            raise ConnectError(f"Kafka Connect answers {method} {where} with: {reason(answer)}", _next(answer.text))
        return answer.json() if answer.content else None

    def _command(self, method: str, name: str, *words: str, **options: Any) -> None:
        self._ask(method, path("connectors", name, *words), name, **options)

    def _restart(self, name: str) -> None:
        self._command("POST", name, "restart", params={"includeTasks": "true", "onlyFailed": "true"})

    def _is_young(self, name: str) -> bool:
        with self._lock:
            return time.monotonic() - self._applied.get(name, -_YOUNG) < _YOUNG

    def _forgive(self, name: str) -> bool:
        """Note what has failed until now: while it is told unchanged, it is no news. Whether there is something."""
        answer = self._rest.request("GET", path("connectors", name, "status"))
        failed = set(ConnectorStatus.of(answer.json()).failed) if answer.is_success else set()
        with self._lock:
            self._before[name] = (time.monotonic(), failed)
        return bool(failed)

    def _news(self, status: ConnectorStatus) -> list[Part]:
        """What has failed since the last change; a failure that is told for long is believed."""
        with self._lock:
            since, before = self._before.get(status.name, (0.0, set()))
            # A part that has been in another state since: if it fails in the same way again, that is news.
            before &= set(status.failed)
            return [part for part in status.failed if part not in before or time.monotonic() - since > _STALE]

    def _wait(self, name: str, done: Callable[[ConnectorStatus], bool], what: str, limit: float) -> ConnectorStatus:
        deadline = time.monotonic() + limit
        while True:
            answer = self._rest.request("GET", path("connectors", name, "status"))
            status = ConnectorStatus.of(answer.json()) if answer.is_success else None
            if status and done(status):
                return status
            if status and what != "stopped" and (news := self._news(status)):
                where = "" if news[0].task is None else f", task {news[0].task}"
                raise ConnectorFailed(f"Connector {name}{where} failed: {news[0].error}", _LOGS)
            if time.monotonic() > deadline:
                if status is None:
                    raise _missing(name)
                told = ", ".join(part.state for part in status.parts)
                raise ConnectError(f"Connector {name} is not {what} after {limit:.0f} s: {told}.", _LOGS)
            time.sleep(_POLL)


def _missing(name: str) -> ConnectorMissing:
    return ConnectorMissing(f"Kafka Connect knows no connector {name}.", "See which there are: streamlab status")


def _next(text: str) -> str:
    return "Stop the connector first: ConnectClient.stop." if "STOPPED" in text else _LOGS
